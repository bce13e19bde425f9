"""File systems read and write by path, in plain and in asynchronous code."""

import asyncio
import tempfile
from pathlib import Path

from embedded_orch import flow, task
from embedded_orch.filesystems import LocalFileSystem, WritableFileSystem

folder = Path(tempfile.mkdtemp())
storage = LocalFileSystem(basepath=str(folder))


@task
def save(name: str, content: bytes) -> str:
    return storage.write_path(f"reports/{name}", content)


@flow
def saving():
    path = save("one.txt", b"one")
    assert path == str(folder / "reports" / "one.txt")
    return storage.read_path("reports/one.txt")


@flow
async def reading():
    await storage.write_path("reports/two.txt", b"two")
    return await storage.read_path("reports/two.txt")


class Shelf(WritableFileSystem):
    def __init__(self):
        self.content = {}

    async def read_path(self, path: str) -> bytes:
        return self.content[path]

    async def write_path(self, path: str, content: bytes) -> None:
        self.content[path] = content


shelf = Shelf()


@task(result_storage=shelf, result_storage_key="answer", persist_result=True)
def answer():
    return 42


assert saving() == b"one"
assert asyncio.run(reading()) == b"two"
try:
    storage.read_path("reports/three.txt")
except ValueError as error:
    assert "does not exist" in str(error)
else:
    raise AssertionError("there is no such file")
assert answer() == 42
assert shelf.content == {"answer": b"42"}
