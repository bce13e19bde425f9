"""Everything that makes POSIX drop SQLite's locks, at once, against one database file.

    python tests/faults/stress_two_sqlites.py --seconds 30
    python tests/faults/stress_two_sqlites.py --without flock

In one process, the *core*: a writer, readers, copies of the folder, and connections of the
standard sqlite3 module, opened and closed in loops. Beside it *visitors*, processes that open the
file as the core does, read, write and close, and are killed now and then; and a *stranger*, a
process that reads through the standard sqlite3 module. At the end all are killed at once, and the
file is looked at: is every commit there that was acknowledged, is it whole, did a snapshot ever see
half of a transaction, did anybody die of SIGBUS.

``--without`` takes a defence away, to see what it is for.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import apsw

from embedded_orch.db import file_locks
from embedded_orch.db.sqlite import audit
from embedded_orch.db.sqlite.guard import FileGuard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEFENCES = ("flock", "pins", "pin-shm", "pin-database", "reader-lock", "no-ckpt-on-close")
ACCOUNTS = 16
CHECKPOINT_PAGES = 200
# A row fills a page, so that the halves of a transaction lie on different pages.
PADDING = "x" * 3000


class Store:
    """One process's way to the file; what a real program would put in the place of this."""

    def __init__(self, path: str, without: frozenset[str]) -> None:
        self.path = path
        self.without = without
        self.guard = FileGuard(path, busy_timeout=20)
        self.writer_mutex = threading.Lock()
        self.log_pages = 0
        self.checkpoints: Counter[str] = Counter()
        # Opening, too, can make SQLite write: it rebuilds the index of the log.
        self.connection = self._connect()
        self.connection.execute("select count(*) from account").fetchall()
        self.guard.pin()
        shm, database = self.guard._pins
        if without & {"pins", "pin-shm"}:
            file_locks.set_lock(shm, file_locks.no_lock(128))
        if without & {"pins", "pin-database"}:
            file_locks.set_lock(database, file_locks.no_lock(0x40000002, 510))
        self.connection.set_wal_hook(self._after_commit)
        audit.watch(path)

    def _connect(self) -> apsw.Connection:
        connection = apsw.Connection(self.path)
        keep = int("no-ckpt-on-close" not in self.without)
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep)
        connection.set_busy_timeout(20_000)
        connection.pragma("journal_mode", "wal")
        connection.wal_autocheckpoint(0)
        connection.pragma("synchronous", 1)
        return connection

    def _after_commit(self, connection: apsw.Connection, name: str, pages: int) -> int:
        self.log_pages = pages
        return apsw.SQLITE_OK

    @contextlib.contextmanager
    def _excluding_processes(self) -> Iterator[None]:
        if "flock" in self.without:
            yield
        else:
            with self.guard.write_lock():
                yield

    def write(self, operation: Callable[[apsw.Connection], None]) -> None:
        with self.writer_mutex, self._excluding_processes():
            self.connection.execute("begin immediate")
            try:
                operation(self.connection)
                self.connection.execute("commit")
            except BaseException:
                if self.connection.in_transaction:
                    self.connection.execute("rollback")
                raise

    def checkpoint(self, mode: int = apsw.SQLITE_CHECKPOINT_PASSIVE) -> None:
        with self.writer_mutex, self._excluding_processes():
            try:
                self.connection.wal_checkpoint(mode=mode)
                self.checkpoints["at once"] += 1
                return
            except apsw.BusyError:
                pass
            with self.guard.hold_readers(0.1):
                give_up = time.monotonic() + 0.1
                while time.monotonic() < give_up:
                    with contextlib.suppress(apsw.BusyError):
                        self.connection.wal_checkpoint(mode=mode)
                        self.checkpoints["holding readers"] += 1
                        return
                    time.sleep(0.0005)
            self.checkpoints["put off"] += 1

    def reader(self) -> Reader:
        return Reader(self)

    def close(self) -> None:
        if "no-ckpt-on-close" not in self.without:
            self.checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)
        self.connection.close()
        self.guard.close()
        audit.unwatch(self.path)


class Reader:
    """One read connection; its snapshots last for a ``with`` block."""

    def __init__(self, store: Store) -> None:
        self.connection = store._connect()
        self.lock = None if "reader-lock" in store.without else store.guard.reader_lock()

    def __enter__(self) -> apsw.Connection:
        if self.lock is not None:
            self.lock.acquire()
        self.connection.execute("begin deferred")
        return self.connection

    def __exit__(self, *_: object) -> None:
        if self.connection.in_transaction:
            self.connection.execute("rollback")
        if self.lock is not None:
            self.lock.release()

    def close(self) -> None:
        self.connection.close()


class Records:
    """What a process leaves behind in files, so that kill -9 loses none of it."""

    def __init__(self, folder: Path, role: str) -> None:
        self.writer = f"{role}-{os.getpid()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self.acks = os.open(folder / f"{self.writer}.acks", flags, 0o600)
        self.events = os.open(folder / f"{self.writer}.events", flags, 0o600)
        self.counts: Counter[str] = Counter()
        self.acknowledged = -1

    def acknowledge(self, number: int) -> None:
        os.write(self.acks, b"%d\n" % number)
        self.acknowledged = number

    def problem(self, kind: str, detail: object) -> None:
        os.write(self.events, json.dumps([kind, str(detail)]).encode() + b"\n")

    def save_counts(self) -> None:
        for name, count in self.counts.items():
            self.problem(f"count:{name}", count)
        self.counts.clear()


def transfer(writer: str, number: int) -> Callable[[apsw.Connection], None]:
    """A transaction that leaves the sum of all accounts at zero, and says that it was there."""
    amount, (payer, payee) = random.randint(1, 1000), random.sample(range(ACCOUNTS), 2)

    def operation(connection: apsw.Connection) -> None:
        move = "update account set value = value + ? where id = ?"
        connection.execute(move, (-amount, payer))
        connection.execute(move, (amount, payee))
        connection.execute("insert into journal values (?, ?)", (writer, number))

    return operation


def check_snapshot(records: Records, reader: Reader) -> None:
    """Look at a snapshot twice, with time between for others to spoil it."""
    half = "select sum(value) from account where id % 2 = ?"
    expected = records.acknowledged
    with reader as connection:
        (even,) = next(connection.execute(half, (0,)))
        time.sleep(random.random() * 0.004)
        (odd,) = next(connection.execute(half, (1,)))
        newest = "select max(number) from journal where writer = ?"
        (seen,) = next(connection.execute(newest, (records.writer,)))
    if even + odd != 0:
        records.problem("torn read", f"{even} + {odd}")
    if (-1 if seen is None else seen) < expected:
        records.problem("lost while running", f"{expected} was acknowledged, {seen} is the last")
    records.counts["snapshots"] += 1


# -- the processes -----------------------------------------------------------------------------


class Core:
    """The process in which everything happens at once, each in a thread of its own."""

    def __init__(self, path: str, records: Records, without: frozenset[str]) -> None:
        self.path = path
        self.records = records
        self.store = Store(path, without)

    def write(self) -> None:
        store, records = self.store, self.records
        for number in itertools.count():
            store.write(transfer(records.writer, number))
            records.acknowledge(number)
            if store.log_pages > CHECKPOINT_PAGES and number % 20 == 0:
                store.checkpoint()
            if number % 500 == 0:
                records.counts.update({f"checkpoints {k}": v for k, v in store.checkpoints.items()})
                store.checkpoints.clear()
                records.save_counts()
            time.sleep(0.0002)

    def read(self) -> None:
        reader = self.store.reader()
        while True:
            try:
                check_snapshot(self.records, reader)
            except apsw.Error as error:
                self.records.problem("read in the core", f"{type(error).__name__}: {error}")

    def copy_the_folder(self) -> None:
        folder = os.path.dirname(self.path)
        while True:
            with audit.allow():
                shutil.copytree(folder, f"{folder}-copy", dirs_exist_ok=True)
            self.records.counts["folder copies"] += 1
            time.sleep(0.02)

    def open_with_the_other_sqlite(self) -> None:
        while True:
            with audit.allow():
                other = sqlite3.connect(self.path, timeout=1)
            try:
                other.execute("select count(*) from account").fetchall()
            except sqlite3.OperationalError as error:
                self.records.counts[f"stdlib in the core: {error}"] += 1
            except sqlite3.DatabaseError as error:
                self.records.problem("stdlib in the core", error)
            other.close()
            self.records.counts["stdlib connections"] += 1
            time.sleep(random.random() * 0.003)

    def run(self) -> None:
        bodies = [self.write, self.read, self.read]
        bodies += [self.copy_the_folder, self.open_with_the_other_sqlite]
        threads = [threading.Thread(target=self._run, args=(body,)) for body in bodies]
        for thread in threads:
            thread.start()

    def _run(self, body: Callable[[], None]) -> None:
        try:
            body()
        except BaseException as error:
            self.records.problem(f"{body.__name__} ended", f"{type(error).__name__}: {error}")
            raise


def core(path: str, records: Records, without: frozenset[str]) -> None:
    Core(path, records, without).run()


def visitor(path: str, records: Records, without: frozenset[str]) -> None:
    numbers = itertools.count()
    while True:
        store = Store(path, without)
        reader = store.reader()
        for _ in range(random.randint(1, 30)):
            number = next(numbers)
            store.write(transfer(records.writer, number))
            records.acknowledge(number)
            if random.random() < 0.2:
                check_snapshot(records, reader)
        if random.random() < 0.5:
            store.checkpoint()
        reader.close()
        store.close()
        records.counts["visits"] += 1
        records.save_counts()
        time.sleep(random.random() * 0.01)


def stranger(path: str, records: Records, without: frozenset[str]) -> None:
    while True:
        try:
            with contextlib.closing(sqlite3.connect(path, timeout=1)) as other:
                other.execute("select count(*) from account").fetchall()
        except sqlite3.OperationalError as error:
            records.counts[f"stranger: {error}"] += 1
        except sqlite3.DatabaseError as error:
            records.problem("stranger", error)
        records.counts["stranger's connections"] += 1
        records.save_counts()
        time.sleep(random.random() * 0.02)


ROLES = {"core": core, "visitor": visitor, "stranger": stranger}


def play(role: str, folder: Path, without: frozenset[str]) -> None:
    records = Records(folder, role)
    try:
        ROLES[role](str(folder / "data" / "stress.db"), records, without)
    except BaseException as error:
        records.problem(role, f"{type(error).__name__}: {error}")
        raise


# -- the run -----------------------------------------------------------------------------------


def create(path: Path) -> None:
    path.parent.mkdir(parents=True)
    connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", "wal")
    connection.execute(
        "create table account (id integer primary key, value integer, padding text);"
        "create table journal (writer text, number integer, primary key (writer, number))"
        " without rowid"
    )
    rows = [(number, PADDING) for number in range(ACCOUNTS)]
    connection.executemany("insert into account values (?, 0, ?)", rows)
    connection.close()


def start(role: str, folder: Path, without: frozenset[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, __file__, "--role", role, "--folder", str(folder)]
    command += [f"--without={name}" for name in without]
    with open(folder / "stderr.txt", "ab") as stderr:
        return subprocess.Popen(command, stderr=stderr)


def run(
    folder: Path, seconds: float, without: frozenset[str], visitors: int = 2
) -> dict[str, object]:
    """Run the stress in an empty folder and return what was found."""
    create(folder / "data" / "stress.db")
    roles = ["core", *["visitor"] * visitors, *["stranger"] * bool(visitors)]
    processes = [start(role, folder, without) for role in roles]
    deaths: Counter[str] = Counter()
    kills = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(random.random() * 0.5)
        if visitors and random.random() < 0.5:
            victim = random.randint(1, visitors)
            processes[victim].kill()
            processes[victim].wait()
            kills += 1
        for index, role in enumerate(roles):
            code = processes[index].poll()
            if code is None:
                continue
            if code != -signal.SIGKILL:
                name = signal.Signals(-code).name if code < 0 else f"exit status {code}"
                deaths[f"{role} died: {name}"] += 1
            processes[index] = start(role, folder, without)
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()
    return {"killed": kills, **inspect_remains(folder), "deaths": dict(deaths)}


def inspect_remains(folder: Path) -> dict[str, object]:
    """Compare the file with what the dead processes left in theirs."""
    problems: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for file in folder.glob("*.events"):
        for line in file.read_text().splitlines():
            kind, detail = json.loads(line)
            if kind.startswith("count:"):
                counts[kind.removeprefix("count:")] += int(detail)
            else:
                problems[kind if len(detail) > 300 or " + " in detail else f"{kind}: {detail}"] += 1
    acknowledged = {
        (file.stem, int(number))
        for file in folder.glob("*.acks")
        for number in file.read_text().splitlines()
    }
    found: dict[str, object] = {"acknowledged": len(acknowledged), **counts}
    try:
        connection = apsw.Connection(str(folder / "data" / "stress.db"))
        found["integrity"] = str(connection.pragma("integrity_check"))[:200]
        kept = set(connection.execute("select writer, number from journal").fetchall())
        found["missing"] = len(acknowledged - kept)
        found["sum"] = next(connection.execute("select sum(value) from account"))[0]
        connection.close()
    except apsw.Error as error:
        found["integrity"] = f"{type(error).__name__}: {error}"
    found["problems"] = dict(problems.most_common(8))
    return found


def is_clean(found: dict[str, object]) -> bool:
    whole = found.get("integrity") == "ok" and found.get("missing") == 0 and found.get("sum") == 0
    return whole and not found["problems"] and not found["deaths"]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--without", action="append", choices=DEFENCES, default=[])
    parser.add_argument("--visitors", type=int, default=2, help="0: the core is alone")
    parser.add_argument("--folder", type=Path, required="--role" in sys.argv)
    parser.add_argument("--role", choices=list(ROLES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    without = frozenset(arguments.without)
    if arguments.role:
        play(arguments.role, arguments.folder, without)
        return 0
    import tempfile

    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary) / "stress"
        found = run(folder, arguments.seconds, without, arguments.visitors)
    found["is_clean"] = is_clean(found)
    print(json.dumps(found, indent=2))
    return 0 if found["is_clean"] else 1


if __name__ == "__main__":
    sys.exit(main())
