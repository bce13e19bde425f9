"""What a forked child lets go of, and what its parent keeps."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from embedded_orch import errors
from embedded_orch.db import fork
from embedded_orch.db.sqlite.guard import FileGuard

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

# Every program is given the path of a database and a function that runs code in a forked child.
PRELUDE = """
import os, sys, time
import apsw
from embedded_orch import errors
from embedded_orch.db import fork
from embedded_orch.db.sqlite.guard import FileGuard

path = sys.argv[1]

def connect():
    connection = apsw.Connection(path)
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.pragma("journal_mode", "wal")
    connection.wal_autocheckpoint(0)
    return connection

def in_child(code):
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code()
        sys.stdout.flush()
        os._exit(0)
    return os.waitpid(child, 0)

def attempt(code):
    try:
        code()
        print("done", flush=True)
    except errors.OrchestratorError as error:
        print(type(error).__name__, flush=True)

"""


def start(path: Path, program: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + program, str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output_of(path: Path, program: str) -> list[str]:
    """The words that a program printed, and its children."""
    with start(path, program) as process:
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    return stdout.split()


def test_what_registered_is_told_in_the_child_and_only_there(tmp_path: Path) -> None:
    printed = output_of(
        tmp_path / "test.db",
        """
class Thing:
    def abandon_in_child(self):
        print("told", os.getpid() != parent)

parent = os.getpid()
kept, forgotten = Thing(), Thing()
for thing in kept, forgotten:
    fork.register(thing)
del thing, forgotten
in_child(lambda: None)
print("parent")
""",
    )

    assert printed == ["told", "True", "parent"]


def test_one_that_fails_keeps_none_from_being_told_and_is_reported(tmp_path: Path) -> None:
    program = """
class Thing:
    def __init__(self, fails):
        self.fails = fails

    def abandon_in_child(self):
        print("told")
        if self.fails:
            raise ValueError("cannot let go")

things = [Thing(number % 2 == 0) for number in range(4)]
for thing in things:
    fork.register(thing)
in_child(lambda: print("goes", "on"))
"""
    with start(tmp_path / "test.db", program) as process:
        stdout, stderr = process.communicate(timeout=60)

    assert stdout.split() == ["told"] * 4 + ["goes", "on"]
    assert stderr.count("ValueError('cannot let go')") == 2


@contextmanager
def orphan_of_a_killed_writer(path: Path) -> Iterator[int]:
    """The forked child, still alive, of a process that was killed while it held the write lock."""
    program = """
guard = FileGuard(path, busy_timeout=1)
guard.acquire_write()
child = os.fork()
if child == 0:
    print(os.getpid(), flush=True)
    time.sleep(600)
os.waitpid(child, 0)
"""
    with start(path, program) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            process.kill()
            yield child
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_child_does_not_keep_the_write_lock_of_its_dead_parent(tmp_path: Path) -> None:
    """Seen to fail when the child keeps its copy of the descriptor: the lock stays held."""
    path = tmp_path / "test.db"

    with orphan_of_a_killed_writer(path) as child:
        guard = FileGuard(str(path), busy_timeout=10)
        guard.acquire_write()
        os.kill(child, 0)

    guard.close()


def test_a_child_that_ends_leaves_the_parents_locks_alone(tmp_path: Path) -> None:
    """Seen to fail when the child unlocks before it closes: both share the lock."""
    path = tmp_path / "test.db"
    program = """
guard = FileGuard(path, busy_timeout=1)
guard.acquire_write()
in_child(lambda: None)
import subprocess
other = "from embedded_orch.db.sqlite.guard import FileGuard; import sys;" \\
    "FileGuard(sys.argv[1], busy_timeout=0).acquire_write()"
found = subprocess.run([sys.executable, "-c", other, path], capture_output=True, text=True)
print("DatabaseBusy" in found.stderr)
"""

    assert output_of(path, program) == ["True"]


def test_a_guard_refuses_to_work_in_the_child(tmp_path: Path) -> None:
    printed = output_of(
        tmp_path / "test.db",
        """
connection = connect()
connection.execute("create table row (id integer)")
guard = FileGuard(path, busy_timeout=1)
guard.pin()
reader = guard.reader_lock()
in_child(lambda: (attempt(guard.acquire_write), attempt(reader.acquire), print(guard)))
attempt(guard.acquire_write)
""",
    )

    assert printed[:2] == ["ForkedProcess", "ForkedProcess"]
    assert " ".join(printed[2:-1]).endswith("abandoned after fork()>")
    assert printed[-1] == "done"


def test_a_child_cannot_open_anew_what_its_parent_had_open(tmp_path: Path) -> None:
    """Not under another name either; SQLite would find the parent's locks in its table."""
    (tmp_path / "link.db").symlink_to(tmp_path / "test.db")

    printed = output_of(
        tmp_path / "test.db",
        """
connection = connect()
guard = FileGuard(path, busy_timeout=1)
other = os.path.join(os.path.dirname(path), "other.db")
link = os.path.join(os.path.dirname(path), "link.db")
open(other, "w").close()

def open_all():
    for name in path, link, other, "/nowhere/at/all":
        attempt(lambda: fork.refuse_inherited(name))
    in_child(lambda: attempt(lambda: fork.refuse_inherited(path)))

attempt(lambda: fork.refuse_inherited(path))
in_child(open_all)
""",
    )

    assert printed == ["done", "ForkedProcess", "ForkedProcess", "done", "done", "ForkedProcess"]


def test_a_child_may_open_what_its_parent_had_closed(tmp_path: Path) -> None:
    printed = output_of(
        tmp_path / "test.db",
        """
first, second = connect(), connect()
guards = [FileGuard(path, busy_timeout=1) for _ in range(2)]
first.close()
guards[0].close()
in_child(lambda: attempt(lambda: fork.refuse_inherited(path)))
second.close()
guards[1].close()
in_child(lambda: attempt(lambda: fork.refuse_inherited(path)))
""",
    )

    assert printed == ["ForkedProcess", "done"]


def test_a_file_that_is_made_after_its_guard_is_known_as_well(tmp_path: Path) -> None:
    printed = output_of(
        tmp_path / "test.db",
        """
guard = FileGuard(path, busy_timeout=1)
connection = connect()
connection.execute("create table row (id integer)")
guard.pin()
in_child(lambda: attempt(lambda: fork.refuse_inherited(path)))
""",
    )

    assert printed == ["ForkedProcess"]


TRANSACTION_DURING_A_FORK = """
class Held:
    def __init__(self, connection):
        self.connection = connection

    def abandon_in_child(self):
        fork.keep_forever(self.connection, apsw)

connection = connect()
held = Held(connection)
fork.register(held)
connection.execute("create table row (id integer, padding text)")
# Small, so that pages of the open transaction are in the log already.
connection.pragma("cache_size", 5)
connection.execute("begin immediate")
insert = "insert into row values (?, ?)"
connection.executemany(insert, [(number, "x" * 1000) for number in range(1000)])
child = os.fork()
if child == 0:
    del held, connection
    sys.exit()
os.waitpid(child, 0)
connection.executemany(insert, [(number, "y" * 1000) for number in range(100)])
connection.execute("commit")
print(next(connection.execute("select count(*) from row"))[0], connection.pragma("integrity_check"))
"""


def test_a_child_that_ends_does_not_roll_back_its_parents_transaction(tmp_path: Path) -> None:
    """The interpreter closes what is left when it ends, and closing rolls back.

    Seen to fail without keep_forever(): the parent's "database disk image is malformed".
    """
    assert output_of(tmp_path / "test.db", TRANSACTION_DURING_A_FORK) == ["1100", "ok"]


def test_without_ctypes_things_are_kept_in_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fork, "_kept", [])
    monkeypatch.setattr(fork, "_leak", fork._kept.append)
    monkeypatch.setitem(sys.modules, "ctypes", None)
    thing = object()

    fork._prepare()
    fork.keep_forever(thing)

    assert fork._kept == [thing]


def test_nothing_is_inherited_where_nothing_was_forked(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    path.touch()
    guard = FileGuard(str(path), busy_timeout=1)

    assert not fork.inherited(str(path))

    guard.close()
    with pytest.raises(FileNotFoundError):
        fork.opened(str(tmp_path / "missing.db"))
    assert issubclass(errors.ForkedProcess, errors.DatabaseError)
