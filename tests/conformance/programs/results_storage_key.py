"""A key template names where a result is stored, and is found again by the next call."""

import tempfile
from pathlib import Path

from embedded_orch import flow, task
from embedded_orch.filesystems import LocalFileSystem

folder = Path(tempfile.mkdtemp())
calls = []


@task(result_storage_key="hello-{parameters[name]}.json", result_serializer="json")
def hello_world(name: str = "world") -> str:
    calls.append(name)
    return f"hello {name}"


@flow(result_storage=LocalFileSystem(basepath=str(folder)))
def my_flow():
    first = hello_world("world")
    second = hello_world("marvin")
    again = hello_world("world", return_state=True)
    assert again.name == "Cached"
    return [first, second, again.result()]


assert my_flow() == ["hello world", "hello marvin", "hello world"]
assert calls == ["world", "marvin"]
assert (folder / "hello-world.json").read_text() == '"hello world"'
assert (folder / "hello-marvin.json").exists()
