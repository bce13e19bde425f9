"""The locks beside SQLite's own, with other processes on the file and with SQLite's locks lost."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import apsw
import pytest

from embedded_orch import errors
from embedded_orch.db import file_locks
from embedded_orch.db.sqlite import guard
from embedded_orch.db.sqlite.guard import FileGuard
from embedded_orch.db.sqlite.reader_lock import ReaderLock

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
CHECKPOINT_BYTE, IN_USE_BYTE = 121, 128

needs_open_file_locks = pytest.mark.skipif(
    sys.platform != "linux", reason="open file description locks exist on Linux only"
)
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX locks are the subject")


def connect(path: Path, *, checkpoint_on_close: bool = False) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, int(not checkpoint_on_close))
    connection.set_busy_timeout(100)
    connection.pragma("journal_mode", "wal")
    connection.wal_autocheckpoint(0)
    return connection


class Opened:
    """A database with one row, one connection and its guard, as a program would have it."""

    def __init__(self, folder: Path, *, pinned: bool = True, busy_timeout: float = 20) -> None:
        self.path = folder / "data" / "test.db"
        self.path.parent.mkdir()
        self.connection = connect(self.path)
        self.connection.execute("create table row (id integer); insert into row values (1)")
        self.guard = FileGuard(str(self.path), busy_timeout=busy_timeout)
        if pinned:
            self.guard.pin()

    def lose_posix_locks(self) -> None:
        """Copy the folder, as a careless backup does."""
        shutil.copytree(self.path.parent, self.path.parent.parent / "copy", dirs_exist_ok=True)

    def rows(self) -> list[int]:
        return [number for (number,) in self.connection.execute("select id from row order by id")]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    database = Opened(tmp_path)
    yield database
    database.connection.close()
    database.guard.close()


OUTSIDER = """
import fcntl, os, struct, sys, apsw
from embedded_orch import errors
from embedded_orch.db.sqlite.guard import FileGuard

path = sys.argv[1]

def connect(checkpoint_on_close=False):
    connection = apsw.Connection(path)
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, int(not checkpoint_on_close))
    connection.set_busy_timeout(100)
    return connection

def posix_lock(name, kind, start, length=1):
    descriptor = os.open(name, os.O_RDWR)
    fcntl.fcntl(descriptor, fcntl.F_SETLK, struct.pack("hhqqi", kind, 0, start, length, 0))
    return descriptor

"""


def start_outside(path: Path, code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", OUTSIDER + code, str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def outside(path: Path, code: str) -> str:
    """Run code in another process and return what it printed."""
    with start_outside(path, code) as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return output.strip()


@contextlib.contextmanager
def outsider_who(path: Path, code: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that has run the code, and stays until it is told to go."""
    with start_outside(path, code + "\nprint('ready', flush=True); sys.stdin.read()") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.stdin.close()


# -- the write lock ----------------------------------------------------------------------------


def test_a_writer_of_another_process_is_waited_for_and_named(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    guard = FileGuard(str(path), busy_timeout=0.05)

    code = "guard = FileGuard(path, busy_timeout=1); guard.acquire_write()"
    with outsider_who(path, code), pytest.raises(errors.DatabaseBusy) as caught:
        guard.acquire_write()

    assert f"{path}-lock" in str(caught.value)
    assert "busy_timeout_seconds" in str(caught.value)
    guard.close()


def test_a_killed_writer_frees_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    guard = FileGuard(str(path), busy_timeout=0)
    code = "guard = FileGuard(path, busy_timeout=1); guard.acquire_write()"

    with outsider_who(path, code) as process:
        process.kill()
        process.wait()
        guard.acquire_write()

    guard.close()


def test_a_waiting_writer_gets_the_lock_when_it_is_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (FileGuard(str(tmp_path / "test.db"), busy_timeout=30) for _ in range(2))
    first.acquire_write()
    pauses: list[float] = []

    def release_while_the_other_pauses(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 10:
            first.release_write()

    monkeypatch.setattr("time.sleep", release_while_the_other_pauses)
    second.acquire_write()

    assert len(pauses) == 10
    # The first pauses are short, for most transactions are; the later ones cost little.
    assert pauses[0] < 0.0001
    assert max(pauses) < 0.003
    first.close()
    second.close()


def test_a_writer_does_not_sleep_for_a_short_write_of_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "test.db")
    ours, theirs = FileGuard(path, busy_timeout=20), FileGuard(path, busy_timeout=20)
    asked: list[bool] = []

    def release_the_third_time() -> None:
        asked.append(True)
        if len(asked) == 3:
            theirs.release_write()

    monkeypatch.setattr(guard, "_SOON_SECONDS", 60.0)
    monkeypatch.setattr(guard, "yield_processor", release_the_third_time)
    theirs.acquire_write()

    ours.acquire_write()

    assert len(asked) == 3
    with pytest.raises(BlockingIOError):
        file_locks.lock_file(theirs._lock_descriptor)
    ours.close()
    theirs.close()


def test_nobody_writes_between_when_a_folder_copy_dropped_our_locks(opened: Opened) -> None:
    """Seen to fail without acquire_write: the other process commits in the midst of ours."""
    opened.guard.acquire_write()
    opened.connection.execute("begin immediate; insert into row values (2)")
    opened.lose_posix_locks()

    answer = outside(
        opened.path,
        """
try:
    with FileGuard(path, busy_timeout=0.1).write_lock():
        connect().execute("insert into row values (3)")
    print("written")
except errors.DatabaseBusy:
    print("busy")
""",
    )
    opened.connection.execute("commit")
    opened.guard.release_write()

    assert answer == "busy"
    assert opened.rows() == [1, 2]


def test_taking_the_write_lock_twice_in_a_process_is_a_mistake(opened: Opened) -> None:
    opened.guard.acquire_write()

    with pytest.raises(RuntimeError, match="held already"):
        opened.guard.acquire_write()


def test_the_write_lock_of_a_block_goes_with_an_error(opened: Opened) -> None:
    with pytest.raises(ZeroDivisionError), opened.guard.write_lock():
        _ = 1 / 0

    assert outside(opened.path, "FileGuard(path, busy_timeout=0).acquire_write()") == ""


def test_a_symbolic_link_leads_to_the_same_lock(tmp_path: Path) -> None:
    path, link = tmp_path / "test.db", tmp_path / "elsewhere" / "link.db"
    link.parent.mkdir()
    link.symlink_to(path)
    by_path, by_link = (FileGuard(str(name), busy_timeout=0) for name in (path, link))
    by_path.acquire_write()

    with pytest.raises(errors.DatabaseBusy):
        by_link.acquire_write()

    by_path.close()
    by_link.close()


# -- pins --------------------------------------------------------------------------------------


@needs_open_file_locks
def test_a_newcomer_knows_that_the_index_is_in_use_when_our_locks_are_dropped(
    opened: Opened,
) -> None:
    """Who gets this byte exclusively truncates -shm under our memory.

    Seen to fail without pin().
    """
    opened.lose_posix_locks()

    answer = outside(
        opened.path,
        f"""
try:
    posix_lock(path + "-shm", fcntl.F_WRLCK, {IN_USE_BYTE})
    print("mine")
except BlockingIOError:
    print("in use")
""",
    )

    assert answer == "in use"


@needs_open_file_locks
def test_another_program_that_closes_last_leaves_our_log_alone(opened: Opened) -> None:
    """It believes to be the last when our locks are dropped.

    Seen to fail without pin(): the log is deleted, and the second row is in a file without a name.
    """
    opened.lose_posix_locks()

    outside(
        opened.path,
        """
import sqlite3
other = sqlite3.connect(path)
other.execute("select * from row").fetchall()
other.close()
""",
    )
    opened.connection.execute("insert into row values (2)")

    seen = outside(opened.path, "print(connect().execute('select id from row').fetchall())")
    assert seen == "[(1,), (2,)]"


@pytest.mark.parametrize(("checkpoint_on_close", "is_kept"), [(False, True), (True, False)])
def test_where_nothing_can_be_pinned_a_close_of_ours_still_leaves_the_log_alone(
    tmp_path: Path,
    checkpoint_on_close: bool,
    is_kept: bool,
) -> None:
    """What NO_CKPT_ON_CLOSE is for: SQLite's own close deletes a log that is in use."""
    database = Opened(tmp_path, pinned=False)
    database.lose_posix_locks()

    outside(
        database.path,
        f"""
other = connect(checkpoint_on_close={checkpoint_on_close})
other.execute("select * from row").fetchall()
other.close()
""",
    )

    assert Path(f"{database.path}-wal").exists() == is_kept
    database.connection.close()
    database.guard.close()


@needs_open_file_locks
def test_pinning_a_file_that_has_no_index_says_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    guard = FileGuard(str(path), busy_timeout=1)

    with pytest.raises(errors.DatabaseUnavailable, match="WAL mode"):
        guard.pin()

    guard.close()


@needs_open_file_locks
def test_pinning_waits_for_a_process_that_resets_the_file(tmp_path: Path) -> None:
    database = Opened(tmp_path, pinned=False, busy_timeout=0.05)
    database.lose_posix_locks()
    code = f"held = posix_lock(path + '-shm', fcntl.F_WRLCK, {IN_USE_BYTE})"

    with outsider_who(database.path, code), pytest.raises(errors.DatabaseBusy, match="-shm"):
        database.guard.pin()

    database.connection.close()
    database.guard.close()


# -- reader locks ------------------------------------------------------------------------------


@needs_open_file_locks
def test_a_snapshot_outlives_a_checkpoint_when_our_read_marks_are_dropped(opened: Opened) -> None:
    """Seen to fail without acquire(): the log is emptied under the snapshot, "disk I/O error"."""
    reader, connection = opened.guard.reader_lock(), connect(opened.path)
    reader.acquire()
    connection.execute("begin")
    before = connection.execute("select count(*) from row").fetchall()
    opened.lose_posix_locks()
    code = """
connection = connect()
connection.execute("insert into row values (9)")
try:
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    print("truncated")
except apsw.BusyError:
    print("busy")
"""

    while_reading = outside(opened.path, code)
    # Pages that this connection has not read yet.
    inside = connection.execute("select count(*) from row, sqlite_schema").fetchall()
    connection.execute("rollback")
    reader.release()

    assert while_reading == "busy"
    assert inside == before
    assert outside(opened.path, code) == "truncated"
    connection.close()


@needs_open_file_locks
def test_a_reader_waits_for_a_checkpoint_of_another_process(tmp_path: Path) -> None:
    database = Opened(tmp_path, busy_timeout=0.05)
    reader = database.guard.reader_lock()
    code = f"held = posix_lock(path + '-shm', fcntl.F_WRLCK, {CHECKPOINT_BYTE})"

    with outsider_who(database.path, code), pytest.raises(errors.DatabaseBusy, match="checkpoint"):
        reader.acquire()

    database.connection.close()
    database.guard.close()


def tear_header(path: Path) -> None:
    """What a process leaves that dies between writing the two headers of the index."""
    outside(path, "index = os.open(path + '-shm', os.O_RDWR); os.pwrite(index, b'torn', 8)")


@needs_open_file_locks
def test_a_reader_repairs_the_index_that_a_dead_writer_left_torn(opened: Opened) -> None:
    """Seen to fail when it takes byte 121 all the same: "locking protocol", after ten seconds."""
    reader, connection = opened.guard.reader_lock(), connect(opened.path)
    tear_header(opened.path)

    reader.acquire()
    rows = connection.execute("select id from row").fetchall()
    # The snapshot is protected all the same: nobody can write or checkpoint meanwhile.
    other = FileGuard(str(opened.path), busy_timeout=0)
    with pytest.raises(errors.DatabaseBusy):
        other.acquire_write()
    reader.release()
    other.acquire_write()

    assert rows == [(1,)]
    assert not reader._has_torn_header()
    other.close()
    connection.close()


@needs_open_file_locks
def test_others_write_again_once_the_repairing_reader_has_settled(opened: Opened) -> None:
    reader, connection = opened.guard.reader_lock(), connect(opened.path)
    other = FileGuard(str(opened.path), busy_timeout=0)
    tear_header(opened.path)

    reader.acquire()
    reader.settle()
    with pytest.raises(errors.DatabaseBusy):
        other.acquire_write()
    connection.execute("begin; select id from row").fetchall()
    reader.settle()
    with other.write_lock(), pytest.raises(apsw.BusyError):
        opened.connection.wal_checkpoint()
    connection.execute("rollback")
    reader.release()

    with other.write_lock():
        opened.connection.wal_checkpoint()
    other.close()
    connection.close()


@needs_open_file_locks
@pytest.mark.parametrize("size", [0, 3, 50])
def test_an_index_that_was_cut_off_counts_as_torn(tmp_path: Path, size: int) -> None:
    index = tmp_path / "test.db-shm"
    index.write_bytes(bytes(size))
    guard = FileGuard(str(tmp_path / "test.db"), busy_timeout=0)
    descriptor = os.open(index, os.O_RDONLY)

    assert ReaderLock(guard, descriptor)._has_torn_header()

    os.close(descriptor)
    guard.close()


@needs_open_file_locks
def test_readers_who_find_a_torn_index_together_all_read(opened: Opened) -> None:
    readers = [(opened.guard.reader_lock(), connect(opened.path)) for _ in range(4)]
    tear_header(opened.path)
    answers: list[object] = []

    def read(number: int) -> None:
        lock, connection = readers[number]
        lock.acquire()
        try:
            answers.append(connection.execute("select id from row").fetchall())
        finally:
            lock.release()

    threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)

    assert answers == [[(1,)]] * 4
    for _, connection in readers:
        connection.close()


@needs_open_file_locks
def test_a_checkpoint_finds_a_gap_when_new_readers_are_held_back(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail without the wait: the checkpoint meets a reader."""
    reader = opened.guard.reader_lock()
    checkpoints: list[tuple[int, int]] = []
    monkeypatch.setattr("embedded_orch.db.sqlite.guard._LONGEST_HOLD_SECONDS", 60)

    with opened.guard.write_lock(), contextlib.ExitStack() as hold:
        hold.enter_context(opened.guard.hold_readers(60))

        def checkpoint_while_the_reader_pauses(seconds: float) -> None:
            checkpoints.append(opened.connection.wal_checkpoint())
            hold.close()

        monkeypatch.setattr("time.sleep", checkpoint_while_the_reader_pauses)
        reader.acquire()

    assert len(checkpoints) == 1
    with pytest.raises(apsw.BusyError):
        opened.connection.wal_checkpoint()
    reader.release()


@needs_open_file_locks
@pytest.mark.parametrize("days_ahead", [0, 30], ids=["just set", "of an earlier boot"])
def test_a_hold_that_nobody_ends_is_over_by_itself(opened: Opened, days_ahead: int) -> None:
    outside(
        opened.path,
        f"""
import time
guard = FileGuard(path, busy_timeout=1)
until = time.monotonic_ns() + {days_ahead} * 86_400 * 10**9 + 5 * 10**7
os.pwrite(guard._lock_descriptor, until.to_bytes(8, "little"), 0)
""",
    )
    reader = opened.guard.reader_lock()
    reading = threading.Thread(target=reader.acquire)

    reading.start()
    reading.join(timeout=30)

    assert not reading.is_alive()


@needs_open_file_locks
def test_a_replaced_index_is_noticed(opened: Opened) -> None:
    index = Path(f"{opened.path}-shm")
    index.rename(f"{index}.old")
    index.write_bytes(b"")

    with pytest.raises(errors.DatabaseUnavailable, match="removed or replaced"):
        opened.guard.reader_lock()


# -- where there are no open file description locks --------------------------------------------


def test_without_open_file_locks_the_write_lock_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown_call(descriptor: int, record: bytes) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(file_locks, "set_lock", unknown_call)
    database = Opened(tmp_path)
    reader = database.guard.reader_lock()

    reader.acquire()
    database.connection.execute("insert into row values (2)")
    reader.release()
    with database.guard.write_lock(), database.guard.hold_readers():
        database.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)

    assert "not pinned" in repr(database.guard)
    database.connection.close()
    database.guard.close()


# -- the guard itself --------------------------------------------------------------------------


def test_a_closed_guard_refuses_reads_and_writes(tmp_path: Path) -> None:
    database = Opened(tmp_path)
    reader = database.guard.reader_lock()
    database.connection.close()
    database.guard.close()

    with pytest.raises(errors.DatabaseClosed):
        database.guard.acquire_write()
    with pytest.raises(errors.DatabaseClosed):
        reader.acquire()


def test_a_guard_says_what_it_holds(opened: Opened) -> None:
    opened.guard.reader_lock()
    idle = repr(opened.guard)
    opened.guard.acquire_write()

    assert str(opened.path) in idle
    if opened.guard.has_open_file_locks:
        assert "open, pinned, 1 readers" in idle
    assert "writing" in repr(opened.guard)


def test_the_lock_file_is_private(opened: Opened) -> None:
    assert os.stat(opened.guard.lock_path).st_mode & 0o777 == 0o600


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="only root gives away")
def test_root_gives_the_lock_file_to_the_owner_of_the_database(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    path.touch()
    os.chown(path, 12345, 12345)

    guard = FileGuard(str(path), busy_timeout=1)

    assert os.stat(guard.lock_path).st_uid == 12345
    guard.close()


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(errors.DatabaseUnavailable, match="nowhere"):
        FileGuard(str(tmp_path / "nowhere" / "test.db"), busy_timeout=1)


def test_nothing_stays_open_after_close(tmp_path: Path) -> None:
    before = set(os.listdir("/dev/fd"))
    database = Opened(tmp_path)
    for _ in range(3):
        database.guard.reader_lock()

    database.connection.close()
    database.guard.close()

    assert set(os.listdir("/dev/fd")) == before
