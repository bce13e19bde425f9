"""Tasks and subflows store their results where their flow does, unless they say otherwise."""

import tempfile
from pathlib import Path

from embedded_orch import flow, task
from embedded_orch.results import get_result_store

base = Path(tempfile.mkdtemp())


def stored(name):
    return sorted(each.read_bytes() for each in (base / name).iterdir())


@task
def inherits():
    return "inherits"


@task(result_storage=base / "own", result_serializer="pickle")
def has_its_own():
    return "its own"


@task(persist_result=False)
def not_persisted():
    return "not persisted"


@flow
def child():
    store = get_result_store()
    assert store.result_storage.basepath == str(base / "flow")
    return inherits()


@flow(result_storage=str(base / "flow"), persist_result=True)
def parent():
    return [child(), has_its_own(), not_persisted()]


assert parent() == ["inherits", "its own", "not persisted"]
assert b'"inherits"' in stored("flow")
assert not any(
    b"not persisted" in content and b"its own" not in content for content in stored("flow")
)
assert len(stored("own")) == 1
