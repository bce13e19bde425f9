"""A database in a file: its settings, its files, its log, and what other processes do to it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest

import embedded_orch
from embedded_orch import Orchestrator, errors, flow, task
from embedded_orch.db.port import Transaction
from embedded_orch.db.sqlite.checkpoints import Checkpoints
from embedded_orch.db.sqlite.database import SQLiteDatabase
from embedded_orch.db.sqlite.guard import FileGuard
from embedded_orch.db.sqlite.options import Durability
from embedded_orch.db.sqlite.transaction import SQLiteTransaction
from tests.db.contract.probe import Background
from tests.engine.waiting import until

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 60.0

needs_open_file_locks = pytest.mark.skipif(
    sys.platform != "linux", reason="open file description locks exist on Linux only"
)


@task
def one_more(number: int) -> int:
    return number + 1


@flow
def count_to(number: int) -> int:
    return max(one_more(each) for each in range(number))


def connection_of(tx: Transaction) -> apsw.Connection:
    assert isinstance(tx, SQLiteTransaction)
    return tx.connection


def file_of(orch: Orchestrator) -> SQLiteDatabase:
    assert isinstance(orch.database, SQLiteDatabase)
    return orch.database


def log_bytes(path: Path) -> int:
    return os.stat(f"{path}-wal").st_size


def insert(orch: Orchestrator, *numbers: int) -> None:
    """A transaction of about a page for each number."""

    def operation(tx: Transaction) -> None:
        rows = [(number, "x" * 3000) for number in numbers]
        connection_of(tx).executemany("insert into row values (?, ?)", rows)

    orch.database.write(operation)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with a table of the test's own, closed."""
    file = tmp_path / "data" / "orch.db"
    with embedded_orch.open(file) as orch:
        orch.database.write(lambda tx: tx.script("create table row (id integer, padding text)"))
    return file


OUTSIDER = """
import sys, threading
import embedded_orch
path = sys.argv[1]

def at_end():
    return
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
        output, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0
    return output.strip()


@contextmanager
def outsider_who(path: Path, code: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that has run the code, and stays until :func:`send_home`, or is killed."""
    with start_outside(
        path, code + "\nprint('ready', flush=True); sys.stdin.read(); at_end()"
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def send_home(process: subprocess.Popen[str]) -> str:
    """Have it end by itself; what it printed at last."""
    output, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0
    return output


# -- settings ----------------------------------------------------------------------------------


def settings_of(connection: apsw.Connection) -> dict[str, Any]:
    names = (
        "journal_mode",
        "synchronous",
        "foreign_keys",
        "cache_size",
        "busy_timeout",
        "wal_autocheckpoint",
        "trusted_schema",
    )
    found = {name: connection.pragma(name) for name in names}
    return {**found, "plans_once": connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, -1)}


@pytest.mark.parametrize(("durability", "synchronous"), [("off", 0), ("normal", 1), ("full", 2)])
def test_every_connection_has_the_settings(path: Path, durability: str, synchronous: int) -> None:
    with embedded_orch.open(
        path, durability=durability, cache_size=123, busy_timeout_seconds=4.5
    ) as orch:
        found = [orch.database.write(lambda tx: settings_of(connection_of(tx)))]
        # Two readers at once.
        with orch.session(begin_transaction=True, read_only=True):
            found.append(
                Background(
                    lambda: orch.database.read(lambda tx: settings_of(connection_of(tx)))
                ).result()
            )
            readers = file_of(orch)._readers
            assert readers is not None
            found += [settings_of(connection) for connection in readers.connections]

    assert len(found) == 4
    assert all(
        each
        == {
            "journal_mode": "wal",
            "synchronous": synchronous,
            "foreign_keys": 1,
            "cache_size": 123,
            "busy_timeout": 4500,
            "wal_autocheckpoint": 0,
            "trusted_schema": 0,
            "plans_once": 1,
        }
        for each in found
    )


def test_the_settings_that_nobody_chose(path: Path) -> None:
    with embedded_orch.open(path) as orch:
        found = orch.database.read(lambda tx: settings_of(connection_of(tx)))

    assert found == {
        "journal_mode": "wal",
        "synchronous": 1,
        "foreign_keys": 1,
        "cache_size": 20_000,
        "busy_timeout": 60_000,
        "wal_autocheckpoint": 0,
        "trusted_schema": 0,
        "plans_once": 1,
    }


def test_a_reader_cannot_write(path: Path) -> None:
    with (
        embedded_orch.open(path) as orch,
        pytest.raises(errors.DatabaseReadOnly),
    ):
        orch.database.read(lambda tx: tx.script("insert into row values (1, '')"))


def test_a_setting_is_shared_by_all_who_have_the_file_open(path: Path) -> None:
    with (
        embedded_orch.open(path, durability="full"),
        embedded_orch.open(path) as second,
        pytest.raises(errors.ConfigurationError, match="durability='full'"),
    ):
        assert second.database.read(lambda tx: connection_of(tx).pragma("synchronous")) == 2
        embedded_orch.open(path, durability="normal")


# -- files -------------------------------------------------------------------------------------


def test_all_files_begin_with_the_name_of_the_database_and_are_private(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    with embedded_orch.open(folder / "orch.db"):
        assert count_to(3) == 3
        names = sorted(os.listdir(folder))
        modes = {name: os.stat(folder / name).st_mode & 0o777 for name in names}

    assert names == ["orch.db", "orch.db-lock", "orch.db-owners", "orch.db-shm", "orch.db-wal"]
    assert set(modes.values()) == {0o600}
    assert os.stat(folder).st_mode & 0o777 == 0o700


def test_an_old_file_keeps_the_rights_that_it_has(path: Path) -> None:
    path.chmod(0o640)

    with embedded_orch.open(path) as orch:
        insert(orch, 1)
        log_mode = os.stat(f"{path}-wal").st_mode & 0o777

    assert os.stat(path).st_mode & 0o777 == 0o640
    assert log_mode in {0o640, 0o600}


# -- the log -----------------------------------------------------------------------------------

BUSY_READERS = """
import random, time

def read(tx):
    tx.connection.execute("select max(id) from row").fetchall()
    time.sleep(random.random() * 0.004)

def read_all_the_time():
    while not is_over.is_set():
        orch.database.read(read)
        reads.append(True)

orch = embedded_orch.open(path)
is_over, reads = threading.Event(), []
threads = [threading.Thread(target=read_all_the_time) for _ in range(2)]
for thread in threads:
    thread.start()

def at_end():
    is_over.set()
    for thread in threads:
        thread.join()
    print(len(reads))
"""


@needs_open_file_locks
def test_the_log_stays_short_while_others_read_all_the_time(path: Path) -> None:
    """Seen to fail when the readers are not held back: 3,284 pages, and growing."""
    longest = 0
    with ExitStack() as stack:
        readers = [stack.enter_context(outsider_who(path, BUSY_READERS)) for _ in range(2)]
        orch = stack.enter_context(embedded_orch.open(path, checkpoint_pages=100))
        log = log_of(orch)
        for number in range(400):
            insert(orch, *range(number * 5, number * 5 + 5))
            longest = max(longest, log.log_pages)
        reads = [int(send_home(process)) for process in readers]

    assert 100 <= longest < 600
    assert min(reads) > 20


def test_the_log_begins_anew_when_it_is_long_enough(path: Path) -> None:
    """Seen to fail without checkpoints: 1,205 pages."""
    with embedded_orch.open(path, checkpoint_pages=50) as orch:
        for number in range(300):
            insert(orch, number)
        pages = log_bytes(path) // 4096

    assert 50 <= pages < 110


@pytest.fixture
def another(path: Path) -> Iterator[FileGuard]:
    """Another process, as far as locks go."""
    guard = FileGuard(str(path), busy_timeout=1)
    yield guard
    guard.close()


class SlowDisk:
    """Brings nothing to the disk before it may."""

    def __init__(self) -> None:
        self.is_asked, self.may_go_on = threading.Event(), threading.Event()
        self.calls = 0

    def fdatasync(self, _: int) -> None:
        self.calls += 1
        self.is_asked.set()
        assert self.may_go_on.wait(PATIENCE_SECONDS)


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowDisk]:
    disk = SlowDisk()
    monkeypatch.setattr(os, "fdatasync", disk.fdatasync)
    yield disk
    disk.may_go_on.set()


@contextmanager
def closing_at_once(disk: SlowDisk) -> Iterator[None]:
    """Closing waits for the disk, also where a test has failed."""
    try:
        yield
    finally:
        disk.may_go_on.set()


def log_of(orch: Orchestrator) -> Checkpoints:
    log = file_of(orch)._writer.checkpoints
    assert log is not None
    return log


def write_until_due(orch: Orchestrator) -> None:
    while log_of(orch).log_pages < 50:
        insert(orch, 0)


@needs_open_file_locks
def test_all_write_while_the_log_is_brought_to_the_disk_for_a_checkpoint(
    path: Path, slow_disk: SlowDisk, another: FileGuard
) -> None:
    """Seen to fail when the log is synced by the checkpoint, or by who writes."""
    with embedded_orch.open(path, checkpoint_pages=50) as orch, closing_at_once(slow_disk):
        write_until_due(orch)
        assert slow_disk.is_asked.wait(PATIENCE_SECONDS)
        rows = orch.sql("select count(*) from row").scalar()
        for number in range(5):
            insert(orch, number)
        with another.write_lock():
            assert orch.sql("select count(*) from row").scalar() == rows + 5

        slow_disk.may_go_on.set()
        while not log_of(orch)._is_synced:
            time.sleep(0.001)
        insert(orch, 1)
        insert(orch, 1)
        assert log_of(orch).log_pages < 50


@needs_open_file_locks
def test_no_other_process_checkpoints_a_log_that_is_brought_to_the_disk(
    path: Path, slow_disk: SlowDisk, another: FileGuard
) -> None:
    with embedded_orch.open(path, checkpoint_pages=50) as orch, closing_at_once(slow_disk):
        write_until_due(orch)

        assert not another.begin_checkpoint()
        with sqlite_of_another_program(path) as connection:
            assert connection.execute("select count(*) from row").get
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        insert(orch, 1)

        assert log_of(orch).log_pages < 50
        assert another.begin_checkpoint()


@needs_open_file_locks
def test_a_log_that_is_emptied_meanwhile_is_left_to_other_processes(
    path: Path, slow_disk: SlowDisk, another: FileGuard
) -> None:
    with embedded_orch.open(path, checkpoint_pages=50) as orch, closing_at_once(slow_disk):
        write_until_due(orch)
        file_of(orch).with_connection(lambda _: file_of(orch)._writer.empty_log())

        assert another.begin_checkpoint()


@needs_open_file_locks
def test_a_disk_that_takes_too_long_is_waited_for(path: Path, slow_disk: SlowDisk) -> None:
    """Seen to fail when it is not: the log grows without bound."""
    with embedded_orch.open(path, checkpoint_pages=50) as orch, closing_at_once(slow_disk):
        writing = threading.Thread(target=lambda: [insert(orch, each) for each in range(300)])
        writing.start()
        assert slow_disk.is_asked.wait(PATIENCE_SECONDS)
        while slow_disk.calls < 2:
            time.sleep(0.001)
        pages = log_of(orch).log_pages
        slow_disk.may_go_on.set()
        writing.join(PATIENCE_SECONDS)

        assert 100 <= pages < 110
        assert orch.sql("select count(*) from row").scalar() == 300


@needs_open_file_locks
@pytest.mark.parametrize("durability", ["full", "off"])
def test_a_log_that_is_synced_or_never_will_be_is_not_synced_ahead(
    path: Path, monkeypatch: pytest.MonkeyPatch, durability: Durability
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    with embedded_orch.open(path, checkpoint_pages=50, durability=durability) as orch:
        for number in range(100):
            insert(orch, number)

    assert synced == []


@needs_open_file_locks
def test_a_log_that_cannot_be_synced_ahead_is_left_to_the_checkpoint(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fdatasync(_: int) -> None:
        raise OSError(errno.EIO, "the disk is broken")

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    with embedded_orch.open(path, checkpoint_pages=50) as orch:
        for number in range(300):
            insert(orch, number)
        assert log_bytes(path) // 4096 < 110
        assert orch.sql("select count(*) from row").scalar() == 300


def begin_to_rest(orch: Orchestrator) -> None:
    """Only a writer that has a thread rests."""
    orch.database.announce(lambda tx: connection_of(tx).execute("select 1"))


def test_the_log_keeps_its_size_while_the_writer_rests(path: Path) -> None:
    with embedded_orch.open(path) as orch:
        before = path.stat().st_size
        insert(orch, 1, 2, 3)
        begin_to_rest(orch)

        until(lambda: path.stat().st_size > before + 2 * 4096, "the log is copied")
        assert log_bytes(path) > 3 * 4096


def test_a_log_that_has_become_long_is_cut_while_the_writer_rests(path: Path) -> None:
    with embedded_orch.open(path, checkpoint_pages=50) as orch:
        with orch.session(begin_transaction=True, read_only=True) as session:
            session.execute("select count(*) from row")
            writing = threading.Thread(target=lambda: [insert(orch, each) for each in range(60)])
            writing.start()
            writing.join(PATIENCE_SECONDS)
            assert log_bytes(path) > 200 * 4096
        begin_to_rest(orch)

        until(lambda: log_bytes(path) == 0, "the log is cut")


@needs_open_file_locks
def test_one_process_at_a_time_checkpoints(path: Path, another: FileGuard) -> None:
    """Seen to fail when each does: each waits for the disk, and has all the others wait."""
    with embedded_orch.open(path, checkpoint_pages=100) as orch:
        log = log_of(orch)
        assert another.begin_checkpoint()
        lengths = [insert(orch, number) or log.log_pages for number in range(300)]
        another.end_checkpoint()
        while log.log_pages >= 100:
            insert(orch, 300)

        assert 190 < max(lengths) < 250
        assert another.begin_checkpoint()


@needs_open_file_locks
def test_a_checkpoint_of_another_process_that_never_ends_is_not_waited_for(
    path: Path, another: FileGuard
) -> None:
    """Seen to fail when it is: the log grows for as long as that process is stopped."""
    with embedded_orch.open(path, checkpoint_pages=50) as orch:
        assert another.begin_checkpoint()
        for number in range(300):
            insert(orch, number)

        assert 100 <= log_bytes(path) // 4096 < 150


def test_the_last_close_empties_the_log(path: Path) -> None:
    with embedded_orch.open(path) as orch:
        insert(orch, 1, 2, 3)
        during = log_bytes(path)

    assert during > 3 * 3000
    assert log_bytes(path) == 0
    with sqlite_of_another_program(path) as connection:
        assert connection.execute("select count(*) from row").get == 3


def test_a_close_that_is_not_the_last_leaves_the_others_at_work(path: Path) -> None:
    with embedded_orch.open(path) as orch:
        insert(orch, 1)
        with outsider_who(path, "orch = embedded_orch.open(path)") as other:
            # It closes at its end; the file and its log are still ours.
            send_home(other)
        insert(orch, 2)
        seen = outside(
            path, "print(embedded_orch.open(path).sql('select count(*) from row').scalar())"
        )

    assert seen == "2"
    assert log_bytes(path) == 0


def by_a_link(path: Path) -> Path:
    link = path.with_name("link.db")
    link.symlink_to(path)
    return link


@pytest.mark.parametrize("named", [Path, by_a_link])
def test_a_reader_that_closes_last_empties_the_log_that_a_dead_writer_left(
    path: Path, named: Callable[[Path], Path]
) -> None:
    """Seen to fail when only who has written looks for a log, or beside the link to the file."""
    code = """
orch = embedded_orch.open(path)
orch.database.write(lambda tx: tx.script("insert into row values (1, 'kept')"))
"""
    with outsider_who(path, code) as writer:
        writer.kill()
        writer.wait()
    left = log_bytes(path)

    with embedded_orch.open(named(path)) as orch:
        count = orch.sql("select count(*) from row").scalar()

    assert left > 0
    assert count == 1
    assert log_bytes(path) == 0


@pytest.mark.parametrize("named", [Path, by_a_link])
def test_a_log_behind_whose_commits_there_is_none_is_known_to_hold_none(
    path: Path, named: Callable[[Path], Path]
) -> None:
    """Seen to fail when it was looked for beside the link to the file, where it is not."""
    with embedded_orch.open(named(path)) as orch:
        insert(orch, 1)
        checkpoints = file_of(orch)._writer.checkpoints

        assert checkpoints is not None
        assert not checkpoints.may_come_back()


@contextmanager
def sqlite_of_another_program(path: Path) -> Iterator[apsw.Connection]:
    connection = apsw.Connection(str(path))
    yield connection
    connection.close()


# A close may not wait for any of these: it would, for as long as the busy timeout.
OTHERS_AT_WORK = {
    "a reader of ours": """
orch = embedded_orch.open(path)
session = orch.session(begin_transaction=True, read_only=True)
session.__enter__().execute("select count(*) from row")
""",
    "a writer of ours": """
orch = embedded_orch.open(path)
session = orch.session(begin_transaction=True)
session.__enter__()
""",
    "a foreign reader": """
import sqlite3
other = sqlite3.connect(path, isolation_level=None)
other.execute("begin")
other.execute("select count(*) from row").fetchall()
""",
    "a foreign writer": """
import sqlite3
other = sqlite3.connect(path, isolation_level=None)
other.execute("begin immediate")
""",
}


@pytest.mark.parametrize("who", OTHERS_AT_WORK)
def test_a_close_does_not_wait_for_others(path: Path, who: str) -> None:
    """Seen to fail, for a writer of ours, when it waits for the lock file as a write does."""
    orch = embedded_orch.open(path, busy_timeout_seconds=1000.0)
    insert(orch, 1)

    with outsider_who(path, OTHERS_AT_WORK[who]):
        Background(orch.close).result()
        left = log_bytes(path)

    assert left > 0
    with embedded_orch.open(path) as again:
        assert again.sql("select count(*) from row").scalar() == 1


# -- without a log -----------------------------------------------------------------------------


def test_full_durability_syncs_the_names_of_new_folders_too(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    )
    above = str(path.parent)

    embedded_orch.open(path.parent / "new" / "newer" / "orch.db", durability="full").close()
    embedded_orch.open(path.parent / "normal" / "orch.db").close()

    assert synced == [above, f"{above}/new"]


@pytest.mark.parametrize("durability", ["normal", "full"])
def test_a_truncated_journal_works_for_one_process(path: Path, durability: str) -> None:
    with embedded_orch.open(path, journal="truncate", durability=durability) as orch:
        assert count_to(3) == 3
        found = orch.database.read(lambda tx: settings_of(connection_of(tx)))
        locking = orch.database.read(lambda tx: connection_of(tx).pragma("locking_mode"))
        beside = sorted(os.listdir(path.parent))

    assert (found["journal_mode"], found["synchronous"], locking) == ("truncate", 2, "exclusive")
    assert beside == ["orch.db", "orch.db-journal", "orch.db-lock", "orch.db-owners"]
    with embedded_orch.open(path) as orch:
        assert orch.flow_runs.count(state_type="COMPLETED") == 1


@pytest.mark.parametrize("journal", ["truncate", "wal"])
def test_a_truncated_journal_excludes_a_second_process(path: Path, journal: str) -> None:
    """Also before anything is written.

    Seen to fail when the lock is left to the first write: both are in, and neither can write.
    """
    code = f"""
try:
    embedded_orch.open(path, journal={journal!r}, busy_timeout_seconds=0.1)
except embedded_orch.errors.DatabaseBusy as error:
    print("busy")
"""
    embedded_orch.open(path, journal="truncate").close()

    with embedded_orch.open(path, journal="truncate") as orch:
        answer = outside(path, code)
        insert(orch, 1)

    assert answer == "busy"


def test_a_file_with_a_log_that_is_in_use_is_not_opened_with_a_truncated_journal(
    path: Path,
) -> None:
    code = """
try:
    embedded_orch.open(path, journal="truncate", busy_timeout_seconds=0.1)
except embedded_orch.errors.DatabaseBusy as error:
    print("busy")
"""
    with embedded_orch.open(path) as orch:
        answer = outside(path, code)
        insert(orch, 1)

    assert answer == "busy"
