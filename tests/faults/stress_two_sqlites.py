"""Everything that makes POSIX drop SQLite's locks, at once, against one database file.

    python tests/faults/stress_two_sqlites.py --seconds 30
    python tests/faults/stress_two_sqlites.py --without flock

In one process, the *core*, an open orchestrator: writers, sessions and readers, copies of the
folder, and connections of the standard sqlite3 module, opened and closed in loops behind the back
of the audit hook. Beside it *visitors*, processes that open the orchestrator as the core does,
read, write and close, and are killed now and then; and a *stranger*, a process that reads through
the standard sqlite3 module. At the end all are killed at once, and the file is looked at: is every
commit there that was acknowledged, is it whole, did a snapshot ever see half of a transaction, did
anybody die of SIGBUS.

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
from typing import TYPE_CHECKING, cast

import apsw

import embedded_orch
from embedded_orch import errors
from embedded_orch.db import file_locks
from embedded_orch.db.sqlite import audit
from embedded_orch.db.sqlite.checkpoints import Checkpoints
from embedded_orch.db.sqlite.reader_lock import ReaderLock

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedded_orch import Orchestrator
    from embedded_orch.db.port import Transaction
    from embedded_orch.db.sqlite.database import SQLiteDatabase
    from embedded_orch.db.sqlite.transaction import SQLiteTransaction

DEFENCES = ("flock", "pins", "pin-shm", "pin-database", "reader-lock", "no-ckpt-on-close")
ACCOUNTS = 16
CHECKPOINT_PAGES = 200
# A row fills a page, so that the halves of a transaction lie on different pages.
PADDING = "x" * 3000
TABLES = """
    create table account (id integer primary key, value integer, padding text);
    create table journal (writer text, number integer, primary key (writer, number)) without rowid
"""
MOVE = "update account set value = value + :amount where id = :id"
NOTE = "insert into journal values (:writer, :number)"


# -- the database, and what is taken away of it ------------------------------------------------


def open_database(path: str, without: frozenset[str]) -> Orchestrator:
    orchestrator = embedded_orch.open(
        path, busy_timeout_seconds=20.0, checkpoint_pages=CHECKPOINT_PAGES
    )
    take_away(cast("SQLiteDatabase", orchestrator.database), without)
    return orchestrator


def take_away(database: SQLiteDatabase, without: frozenset[str]) -> None:
    guard = database.guard
    readers = database._readers
    assert guard is not None
    assert readers is not None
    shm, file = guard._pins
    if "flock" in without:
        guard.acquire_write = lambda **_: None  # type: ignore[method-assign]
        guard.release_write = lambda: None  # type: ignore[method-assign]
    if without & {"pins", "pin-shm"}:
        file_locks.set_lock(shm, file_locks.no_lock(128))
    if without & {"pins", "pin-database"}:
        file_locks.set_lock(file, file_locks.no_lock(0x40000002, 510))
    if "reader-lock" in without:
        guard.reader_lock = lambda: ReaderLock(  # type: ignore[method-assign]
            guard, file_locks.CLOSED
        )
    if "no-ckpt-on-close" in without:
        readers._connect = lambda: closing_as_sqlite_does(database._connect_reader())
        database.with_connection(closing_as_sqlite_does)
        log_of(database).empty_log = lambda **_: None  # type: ignore[method-assign]


def closing_as_sqlite_does(connection: apsw.Connection) -> apsw.Connection:
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
    return connection


def log_of(database: SQLiteDatabase) -> Checkpoints:
    assert database._writer.checkpoints is not None
    return database._writer.checkpoints


def count_checkpoints(records: Records) -> None:
    """Have the checkpoints of this process counted, and those that found no gap."""
    copy_log = Checkpoints._copy_log

    def copy_and_count(checkpoints: Checkpoints, mode: int, *, holding_readers: bool) -> None:
        try:
            copy_log(checkpoints, mode, holding_readers=holding_readers)
        except apsw.BusyError:
            records.counts["checkpoints put off"] += 1
            raise
        records.counts["checkpoints"] += 1

    Checkpoints._copy_log = copy_and_count  # type: ignore[method-assign]


# -- what is written and read ------------------------------------------------------------------


class Records:
    """What one writer or reader leaves behind in files, so that kill -9 loses none of it."""

    def __init__(self, folder: Path, role: str) -> None:
        self.writer = f"{role}-{os.getpid()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self.acks = os.open(folder / f"{self.writer}.acks", flags, 0o600)
        self.events = os.open(folder / f"{self.writer}.events", flags, 0o600)
        self.counts: Counter[str] = Counter()
        self.largest: dict[str, float] = {}
        self.acknowledged = -1

    def acknowledge(self, number: int) -> None:
        os.write(self.acks, b"%d\n" % number)
        self.acknowledged = number

    def measure(self, name: str, value: float) -> None:
        if value > self.largest.get(name, -1):
            self.largest[name] = value
            self.event(f"largest:{name}", value)

    def event(self, kind: str, detail: object) -> None:
        os.write(self.events, json.dumps([kind, str(detail)]).encode() + b"\n")

    def save_counts(self) -> None:
        counts, self.counts = self.counts, Counter()
        for name, count in counts.items():
            self.event(f"count:{name}", count)


class Transfer:
    """A transaction that leaves the sum of all accounts at zero, and says that it was there."""

    def __init__(self, writer: str, number: int) -> None:
        amount, (payer, payee) = random.randint(1, 1000), random.sample(range(ACCOUNTS), 2)
        self.statements: list[tuple[str, dict[str, object]]] = [
            (MOVE, {"amount": -amount, "id": payer}),
            (MOVE, {"amount": amount, "id": payee}),
            (NOTE, {"writer": writer, "number": number}),
        ]

    def __call__(self, tx: Transaction) -> None:
        """As an operation, which runs in one transaction with those of others."""
        for sql, values in self.statements:
            cast("SQLiteTransaction", tx).connection.execute(sql, values)

    def in_session(self, orchestrator: Orchestrator) -> None:
        """As a person's own statements, in a transaction that stays open meanwhile."""
        with orchestrator.session(begin_transaction=True) as session:
            for sql, values in self.statements:
                session.execute(sql, values)


def check_snapshot(orchestrator: Orchestrator, records: Records, writer: Records) -> None:
    """Look at a snapshot twice, with time between for others to spoil it."""
    half = "select sum(value) from account where id % 2 = ?"
    expected = writer.acknowledged
    pause = random.random() * 0.004

    def look(tx: Transaction) -> tuple[int, int, int | None]:
        connection = cast("SQLiteTransaction", tx).connection
        even: int = connection.execute(half, (0,)).get
        time.sleep(pause)
        odd: int = connection.execute(half, (1,)).get
        newest = "select max(number) from journal where writer = ?"
        return even, odd, connection.execute(newest, (writer.writer,)).get

    began = time.monotonic()
    even, odd, seen = orchestrator.database.read(look)
    records.measure("longest read in ms", round((time.monotonic() - began - pause) * 1000, 1))
    if even + odd != 0:
        records.event("torn read", f"{even} + {odd}")
    if (-1 if seen is None else seen) < expected:
        records.event("lost while running", f"{expected} was acknowledged, {seen} is the last")
    records.counts["snapshots"] += 1


# -- the processes -----------------------------------------------------------------------------


class Core:
    """The process in which everything happens at once, each in a thread of its own."""

    def __init__(self, path: str, records: Records, without: frozenset[str]) -> None:
        self.path = path
        self.folder = Path(path).parents[1]
        self.records = records
        self.orchestrator = open_database(path, without)
        self.writers = [Records(self.folder, f"core-writer-{number}") for number in range(3)]

    def write(self, records: Records) -> None:
        database = cast("SQLiteDatabase", self.orchestrator.database)
        log = log_of(database)
        for number in itertools.count():
            database.write(Transfer(records.writer, number))
            records.acknowledge(number)
            records.measure("log pages at most", log.log_pages)
            time.sleep(0.0002)

    def write_in_sessions(self, records: Records) -> None:
        for number in itertools.count():
            Transfer(records.writer, number).in_session(self.orchestrator)
            records.acknowledge(number)
            time.sleep(0.0002)

    def read(self) -> None:
        while True:
            try:
                check_snapshot(self.orchestrator, self.records, random.choice(self.writers))
            except errors.DatabaseError as error:
                self.records.event("read in the core", f"{type(error).__name__}: {error}")

    def copy_the_folder(self) -> None:
        while True:
            with audit.allow():
                shutil.copytree(
                    os.path.dirname(self.path), self.folder / "copy", dirs_exist_ok=True
                )
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
                self.records.event("stdlib in the core", error)
            other.close()
            self.records.counts["stdlib connections"] += 1
            time.sleep(random.random() * 0.003)

    def save_counts(self) -> None:
        while True:
            time.sleep(0.25)
            self.records.save_counts()

    def run(self) -> None:
        count_checkpoints(self.records)
        first, second, third = self.writers
        bodies: list[tuple[Callable[..., None], tuple[Records, ...]]] = [
            (self.write, (first,)),
            (self.write, (second,)),
            (self.write_in_sessions, (third,)),
            (self.read, ()),
            (self.read, ()),
            (self.copy_the_folder, ()),
            (self.open_with_the_other_sqlite, ()),
            (self.save_counts, ()),
        ]
        for body, arguments in bodies:
            threading.Thread(target=self._run, args=(body, *arguments)).start()

    def _run(self, body: Callable[..., None], *arguments: Records) -> None:
        try:
            body(*arguments)
        except BaseException as error:
            self.records.event(f"{body.__name__} ended", f"{type(error).__name__}: {error}")
            raise


def core(path: str, records: Records, without: frozenset[str]) -> None:
    Core(path, records, without).run()


def visitor(path: str, records: Records, without: frozenset[str]) -> None:
    count_checkpoints(records)
    numbers = itertools.count()
    while True:
        orchestrator = open_database(path, without)
        for _ in range(random.randint(1, 30)):
            number = next(numbers)
            orchestrator.database.write(Transfer(records.writer, number))
            records.acknowledge(number)
            if random.random() < 0.2:
                check_snapshot(orchestrator, records, records)
        orchestrator.close()
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
            records.event("stranger", error)
        records.counts["stranger's connections"] += 1
        records.save_counts()
        time.sleep(random.random() * 0.02)


ROLES = {"core": core, "visitor": visitor, "stranger": stranger}


def play(role: str, folder: Path, without: frozenset[str]) -> None:
    records = Records(folder, role)
    try:
        ROLES[role](str(folder / "data" / "stress.db"), records, without)
    except BaseException as error:
        records.event(role, f"{type(error).__name__}: {error}")
        raise


# -- the run -----------------------------------------------------------------------------------


def create(path: Path) -> None:
    def fill(tx: Transaction) -> None:
        tx.script(TABLES)
        rows = [(number, PADDING) for number in range(ACCOUNTS)]
        connection = cast("SQLiteTransaction", tx).connection
        connection.executemany("insert into account values (?, 0, ?)", rows)

    with embedded_orch.open(path) as orchestrator:
        orchestrator.database.write(fill)


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
    largest: dict[str, float] = {}
    for file in folder.glob("*.events"):
        for line in file.read_text().splitlines():
            kind, detail = json.loads(line)
            if kind.startswith("count:"):
                counts[kind.removeprefix("count:")] += int(detail)
            elif kind.startswith("largest:"):
                name = kind.removeprefix("largest:")
                largest[name] = max(largest.get(name, 0.0), float(detail))
            else:
                problems[kind if len(detail) > 300 or " + " in detail else f"{kind}: {detail}"] += 1
    acknowledged = {
        (file.stem, int(number))
        for file in folder.glob("*.acks")
        for number in file.read_text().splitlines()
    }
    found: dict[str, object] = {"acknowledged": len(acknowledged), **counts, **largest}
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
