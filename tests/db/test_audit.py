"""What opens a watched database from Python is refused, whatever name it comes by."""
# ruff: noqa: SIM115 - what is opened here is refused, so there is nothing to close

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from embedded_orch import errors
from embedded_orch.db.sqlite import audit

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX locks are the subject")


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Path]:
    """A watched database with a blank in its name, a log, an index, and other names for it."""
    path = tmp_path / "data" / "my runs.db"
    path.parent.mkdir()
    sqlite3.connect(path).close()
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").touch()
    (tmp_path / "symbolic.db").symlink_to(path)
    os.link(path, tmp_path / "hard.db")
    os.link(f"{path}-shm", tmp_path / "hard.index")
    audit.watch(str(path))
    yield path
    audit.unwatch(str(path))


CONNECTIONS: dict[str, Callable[[Path], object]] = {
    "text": lambda path: sqlite3.connect(str(path)),
    "bytes": lambda path: sqlite3.connect(os.fsencode(path)),
    "path": sqlite3.connect,
    "class": sqlite3.Connection,
    "URI": lambda path: sqlite3.connect(f"file:{path}", uri=True),
    "quoted URI": lambda path: sqlite3.connect(f"file:{quote(str(path))}?mode=ro#x", uri=True),
    "URI without locks": lambda path: sqlite3.connect(f"file:{path}?immutable=1", uri=True),
    "URI with slashes": lambda path: sqlite3.connect(f"file://{path}", uri=True),
    "URI with a host": lambda path: sqlite3.connect(f"file://localhost{path}", uri=True),
    "relative": lambda path: sqlite3.connect(os.path.relpath(path)),
    "relative URI": lambda path: sqlite3.connect(f"file:{os.path.relpath(path)}", uri=True),
    "dotted": lambda path: sqlite3.connect(path.parent / ".." / "data" / path.name),
    "symbolic link": lambda path: sqlite3.connect(path.parents[1] / "symbolic.db"),
    "hard link": lambda path: sqlite3.connect(path.parents[1] / "hard.db"),
}


@pytest.mark.parametrize("connect", CONNECTIONS.values(), ids=CONNECTIONS)
def test_the_standard_sqlite3_cannot_connect(
    watched: Path, connect: Callable[[Path], object]
) -> None:
    with pytest.raises(errors.ForeignAccess):
        connect(watched)


OPENINGS: dict[str, Callable[[Path], object]] = {
    "open": open,
    "for writing": lambda path: open(path, "r+b"),
    "bytes": lambda path: open(os.fsencode(path)),
    "os.open": lambda path: os.open(path, os.O_RDONLY),
    "pathlib": Path.read_bytes,
    "the log": lambda path: open(f"{path}-wal", "rb"),
    "the index": lambda path: open(f"{path}-shm", "rb"),
    "symbolic link": lambda path: open(path.parents[1] / "symbolic.db"),
    "hard link": lambda path: open(path.parents[1] / "hard.db"),
    "hard link of the index": lambda path: open(path.parents[1] / "hard.index"),
    "relative": lambda path: open(os.path.relpath(path)),
    "folder copy": lambda path: shutil.copytree(path.parent, path.parents[1] / "copy"),
    "file copy": lambda path: shutil.copyfile(path, path.parents[1] / "copy.db"),
    "archive": lambda path: shutil.make_archive(str(path.parents[1] / "a"), "tar", path.parent),
}


@pytest.mark.parametrize("read", OPENINGS.values(), ids=OPENINGS)
def test_the_files_cannot_be_opened(watched: Path, read: Callable[[Path], object]) -> None:
    with pytest.raises(errors.ForeignAccess):
        read(watched)


def test_the_message_says_what_to_do_instead(watched: Path) -> None:
    with pytest.raises(errors.ForeignAccess) as caught:
        sqlite3.connect(watched)

    assert str(watched) in str(caught.value)
    assert "orch.sql(" in str(caught.value)
    assert "orch.backup(" in str(caught.value)


def test_other_files_and_databases_are_nobodys_business(watched: Path) -> None:
    other = watched.parent / "other.db"

    sqlite3.connect(other).close()
    sqlite3.connect(":memory:").close()
    sqlite3.connect("").close()
    sqlite3.connect("file:memory?mode=memory", uri=True).close()

    assert other.read_bytes() == b""
    assert os.stat(watched).st_size == 0
    with pytest.raises(FileNotFoundError):
        open(watched.parent / "missing")
    with pytest.raises(ValueError, match="null"):
        open("with a null \0")


def test_an_open_descriptor_can_be_wrapped(watched: Path) -> None:
    with audit.allow():
        descriptor = os.open(watched, os.O_RDONLY)

    with open(descriptor, "rb") as file:
        assert file.read() == b""


def test_allowing_is_for_this_thread_and_this_block(watched: Path) -> None:
    refused: list[type[BaseException]] = []

    def open_in_another_thread() -> None:
        try:
            open(watched)
        except errors.ForeignAccess as error:
            refused.append(type(error))

    with audit.allow():
        watched.read_bytes()
        with audit.allow():
            watched.read_bytes()
        watched.read_bytes()
        thread = threading.Thread(target=open_in_another_thread)
        thread.start()
        thread.join()

    assert refused == [errors.ForeignAccess]
    with pytest.raises(errors.ForeignAccess):
        open(watched)


def test_a_file_that_is_made_later_is_watched_too(tmp_path: Path) -> None:
    path = tmp_path / "later.db"
    audit.watch(str(path))
    path.touch()

    with pytest.raises(errors.ForeignAccess):
        open(path)

    Path(f"{path}-wal").touch()
    with pytest.raises(errors.ForeignAccess):
        open(f"{path}-wal")
    audit.unwatch(str(path))


def test_the_last_unwatch_ends_it(watched: Path) -> None:
    audit.watch(str(watched.parents[1] / "symbolic.db"))
    audit.unwatch(str(watched))

    with pytest.raises(errors.ForeignAccess):
        open(watched)

    audit.unwatch(str(watched))
    assert watched.read_bytes() == b""
    with pytest.raises(KeyError):
        audit.unwatch(str(watched))
    audit.watch(str(watched))


def test_a_forked_child_may_open_what_its_parent_watches(tmp_path: Path) -> None:
    """Its closing drops no locks of the parent."""
    path = tmp_path / "test.db"
    path.touch()

    finished = subprocess.run(
        [sys.executable, "-c", FORK_AND_OPEN, str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert finished.stdout.split() == ["child:", "opened", "parent:", "refused"]


FORK_AND_OPEN = """
import os, sys
from embedded_orch import errors
from embedded_orch.db.sqlite import audit

audit.watch(sys.argv[1])

def attempt(who):
    try:
        open(sys.argv[1]).close()
        print(who, "opened", flush=True)
    except errors.ForeignAccess:
        print(who, "refused", flush=True)

child = os.fork()
if child == 0:
    attempt("child:")
    os._exit(0)
os.waitpid(child, 0)
attempt("parent:")
"""
