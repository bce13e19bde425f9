"""What a database holds after the process was killed or the power was cut, at every point.

A workload runs once over a ``RecordingVFS`` and marks its operations. Then the log is played back
to many points, the files that may be found there are written into a fresh folder, SQLite recovers
them, and a verdict says whether what it holds is allowed:

- ``killed_states``: the process died, the operating system lives. Every prefix of the writes, and
  every write left half done. Whatever the durability, all that was acknowledged must be there.
- ``power_cut_states``: chosen by a seed; the model is told in ``recording_vfs``. ``full`` must hold
  everything acknowledged. ``normal`` may lose the latest operations, but must hold the earlier
  ones whole, with no hole. ``off`` promises nothing, and is run because the harness must find
  damage there: if it does not, it would not find any elsewhere.

An operation that was in flight at the cut may be there or not, wholly. Holes are judged by what the
log proves: an operation that was acknowledged before another began must not be missing while the
later one is there. So concurrent operations, and those of one group commit, may come in any order.

A workload is a callable ``(open_database, log) -> None``. It opens the database through
``open_database()``, or takes ``open_database.path`` and ``.vfs`` and opens it in its own way, with
the durability named there; marks every operation by a number of its own; and leaves the file open
or closed as it likes. The ``check`` that goes with it is ``(connection) -> numbers held``, and
raises ``TornOperation`` where one is there in part. ``RawWorkload`` is such a pair on bare apsw.

State number n of a seed is a function of the seed, n and the log. SQLite salts its WAL from the
operating system's entropy, so two recordings differ in those bytes, but not in what is done when.

    python -m tests.faults.power_cuts --durability full --states 5000 --seed 7
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from enum import Enum
from random import Random

import apsw
import msgspec

from tests.faults.recording_vfs import Disk, Log, Mark, RecordingVFS, Write

SYNCHRONOUS = {"full": "FULL", "normal": "NORMAL", "off": "OFF"}

Check = Callable[[apsw.Connection], frozenset[int]]
Workload = Callable[["OpenDatabase", Log], None]


class TornOperation(Exception):
    """An operation is there in part: what one transaction wrote was not kept or lost as one."""


class Verdict(Enum):
    """What became of the operations, from good to bad."""

    WHOLE = "all acknowledged are there"
    SHORTENED = "the latest acknowledged are lost, the earlier ones whole"
    HOLE = "one is lost, a later one is there"
    TORN = "one is there in part"
    CORRUPT = "the file is damaged"


ALLOWED_AFTER_POWER_CUT = {
    "full": frozenset({Verdict.WHOLE}),
    "normal": frozenset({Verdict.WHOLE, Verdict.SHORTENED}),
    # Nothing is promised: the same measure as for normal, which it must fail.
    "off": frozenset({Verdict.WHOLE, Verdict.SHORTENED}),
}
ALLOWED_AFTER_KILL = frozenset({Verdict.WHOLE})


class OpenDatabase:
    """Opens the recorded database. Call it for a connection with the settings of ``durability``."""

    def __init__(self, path: str, vfs: str, durability: str) -> None:
        self.path = path
        self.vfs = vfs
        self.durability = durability

    def __call__(self) -> apsw.Connection:
        connection = apsw.Connection(self.path, vfs=self.vfs)
        connection.set_busy_timeout(10_000)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={SYNCHRONOUS[self.durability]}")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA wal_autocheckpoint=0")
        # The last to close would checkpoint in one go: the workload does it in steps of its own.
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        return connection


def record(
    workload: Workload,
    *,
    durability: str,
    folder: str,
    held_at_start: frozenset[int] = frozenset(),
) -> Log:
    """Run a workload once on ``recorded.db`` in ``folder`` and give the log of what it did.

    If the file exists, closed, it is taken as durable, with the operations ``held_at_start`` in it.
    """
    log = Log(held_at_start)
    path = os.path.join(folder, "recorded.db")
    name = f"recording-{id(log):x}"
    vfs = RecordingVFS(name, path, log)
    try:
        workload(OpenDatabase(path, name, durability), log)
    finally:
        vfs.unregister()
    return log


class State(msgspec.Struct, frozen=True):
    """Files that may be found, and where in the log this was."""

    number: int
    position: int
    files: dict[str, bytes]


def killed_states(log: Log) -> Iterator[State]:
    """Every state that a killed process can leave: each prefix, and each write half done."""
    disk = Disk(log)
    number = 0
    for position, entry in enumerate(log.entries):
        if isinstance(entry, Mark):
            continue
        if isinstance(entry, Write):
            half = disk.files_with_part_of(entry)
            if half is not None:
                yield State(number, position, half)
                number += 1
        disk.play(entry)
        disk.settle()
        yield State(number, position + 1, disk.files())
        number += 1


def power_cut_states(
    log: Log, *, seed: int, states: int, only: int | None = None
) -> Iterator[State]:
    """States that a power cut can leave, ``states`` of them, or only the one of that number.

    They come in the order of the log, not of their numbers: so it is played back once.
    """
    cuts: list[tuple[int, int, Random]] = []
    for number in range(states):
        random = Random(f"{seed}/{number}")
        cuts.append((random.randint(0, len(log.entries)), number, random))
    disk = Disk(log)
    played = 0
    for position, number, random in sorted(cuts, key=lambda cut: cut[:2]):
        for entry in log.entries[played:position]:
            disk.play(entry)
        played = position
        if only in {None, number}:
            yield State(number, position, disk.files_after_power_cut(random))


class History:
    """What the marks of a log say about the operations at each of its points."""

    def __init__(self, log: Log) -> None:
        # Before the first entry, and in no order among themselves.
        self._begun = dict.fromkeys(log.held_at_start, -1)
        self._acknowledged = dict.fromkeys(log.held_at_start, -1)
        for position, entry in enumerate(log.entries):
            if isinstance(entry, Mark):
                if entry.begun is not None:
                    self._begun[entry.begun] = position
                if entry.acknowledged is not None:
                    self._acknowledged[entry.acknowledged] = position

    def judge(self, position: int, held: frozenset[int]) -> tuple[Verdict, str]:
        """The verdict on a state cut before entry ``position``, and what is wrong with it.

        Raises:
            ValueError: an operation is held that had not begun: the workload marks too late.
        """
        early = [n for n in held if self._begun.get(n, position) >= position]
        if early:
            raise ValueError(f"operations {early} are held but had not begun")
        lost = {n for n, at in self._acknowledged.items() if at < position} - held
        if not lost:
            return Verdict.WHOLE, ""
        first_lost = min(lost, key=self._acknowledged.__getitem__)
        later = [n for n in held if self._begun[n] > self._acknowledged[first_lost]]
        if later:
            return Verdict.HOLE, f"operation {first_lost} is lost, {min(later)} is there"
        return Verdict.SHORTENED, f"{len(lost)} lost, from operation {first_lost} on"


class Finding(msgspec.Struct, frozen=True):
    """One state that is not allowed, with what it takes to see it again."""

    state: int
    position: int
    verdict: Verdict
    detail: str


class Survey(msgspec.Struct):
    """The verdicts on many states."""

    counts: dict[Verdict, int]
    findings: list[Finding]

    @property
    def states(self) -> int:
        return sum(self.counts.values())

    def __str__(self) -> str:
        lines = [f"{self.states} states, {len(self.findings)} not allowed"]
        lines += [f"  {self.counts[verdict]:6}  {verdict.value}" for verdict in Verdict]
        lines += [
            f"  state {finding.state}, cut before entry {finding.position}: "
            f"{finding.verdict.name}, {finding.detail}"
            for finding in self.findings[:5]
        ]
        return "\n".join(lines)


def survey(
    log: Log,
    states: Iterator[State],
    *,
    check: Check,
    allowed: frozenset[Verdict],
    folder: str,
) -> Survey:
    """Recover each state in a fresh folder below ``folder`` and judge it."""
    history = History(log)
    result = Survey(counts=dict.fromkeys(Verdict, 0), findings=[])
    for state in states:
        verdict, detail = _verdict_on(state, history, check, folder)
        result.counts[verdict] += 1
        if verdict not in allowed:
            result.findings.append(Finding(state.number, state.position, verdict, detail))
    return result


def _verdict_on(state: State, history: History, check: Check, folder: str) -> tuple[Verdict, str]:
    fresh = tempfile.mkdtemp(dir=folder)
    try:
        for name, content in state.files.items():
            with open(os.path.join(fresh, name), "wb") as file:
                file.write(content)
        held = _recover(os.path.join(fresh, "recorded.db"), check)
    except TornOperation as torn:
        return Verdict.TORN, str(torn)
    except apsw.Error as error:
        return Verdict.CORRUPT, f"{type(error).__name__}: {error}"
    finally:
        shutil.rmtree(fresh)
    return history.judge(state.position, held)


def _recover(path: str, check: Check) -> frozenset[int]:
    """What a database holds once SQLite has recovered it; raises apsw.Error if it is damaged."""
    connection = apsw.Connection(path)
    try:
        # The folder goes when this closes: a last checkpoint would cost more than all the rest.
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.execute("PRAGMA synchronous=OFF")
        problems = connection.execute("PRAGMA integrity_check(1)").get
        if problems != "ok":
            raise apsw.CorruptError(f"integrity_check: {problems}")
        if connection.execute("PRAGMA foreign_key_check").get is not None:
            raise apsw.CorruptError("foreign_key_check: a row without its parent")
        return check(connection)
    finally:
        connection.close()


# -- A workload on bare apsw ---------------------------------------------------------------------

_SCHEMA = """
    CREATE TABLE run (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, state TEXT NOT NULL);
    CREATE TABLE state (
        run_id INTEGER NOT NULL REFERENCES run (id), sequence INTEGER NOT NULL, name TEXT NOT NULL,
        PRIMARY KEY (run_id, sequence)
    ) WITHOUT ROWID;
    CREATE TABLE result (run_id INTEGER PRIMARY KEY REFERENCES run (id), body BLOB NOT NULL);
    CREATE TABLE total (id INTEGER PRIMARY KEY, runs INTEGER NOT NULL);
    INSERT INTO total VALUES (1, 0);
"""
_STATES = ("Pending", "Running", "Completed")


def create_schema(connection: apsw.Connection) -> None:
    """Operation 0: the tables, within the caller's transaction."""
    connection.execute(_SCHEMA)


def write_run(connection: apsw.Connection, number: int) -> None:
    """The rows of operation ``number`` (from 1), within the caller's transaction.

    A run, its three states, its result of up to three pages, and a count of all runs, whose page
    every operation writes again: so that old and new pages, mixed, are seen.
    """
    connection.execute("INSERT INTO run VALUES (?, ?, 'Pending')", (number, f"run-{number}"))
    for sequence, name in enumerate(_STATES):
        connection.execute("INSERT INTO state VALUES (?, ?, ?)", (number, sequence, name))
    connection.execute("INSERT INTO result VALUES (?, ?)", (number, _body(number)))
    connection.execute("UPDATE run SET state = 'Completed' WHERE id = ?", (number,))
    connection.execute("UPDATE total SET runs = runs + 1")


def held_operations(connection: apsw.Connection) -> frozenset[int]:
    """The operations a database holds.

    Raises:
        TornOperation: one is there in part, or its result is not what was written.
    """
    tables = connection.execute("SELECT count(*) FROM sqlite_schema WHERE type = 'table'").get
    if tables == 0:
        return frozenset()
    total = connection.execute("SELECT runs FROM total WHERE id = 1").get
    held = {0}
    for number, state, body, states in connection.execute(
        "SELECT run.id, run.state, result.body,"
        " (SELECT count(*) FROM state WHERE run_id = run.id)"
        " FROM run LEFT JOIN result ON result.run_id = run.id"
    ):
        if (state, body, states) != ("Completed", _body(number), len(_STATES)):
            raise TornOperation(f"operation {number}: {state}, {states} states")
        held.add(number)
    results = connection.execute("SELECT count(*) FROM result").get
    if total != len(held) - 1 or results != total:
        raise TornOperation(f"{len(held) - 1} runs, {results} results, and a total of {total}")
    return frozenset(held)


_BODIES: dict[int, bytes] = {}


def _body(number: int) -> bytes:
    if number not in _BODIES:
        random = Random(number)
        _BODIES[number] = random.randbytes(random.choice((40, 900, 4_000, 11_000)))
    return _BODIES[number]


class RawWorkload:
    """Operations on bare apsw, with the settings of the real thing: see ``OpenDatabase``.

    Args:
        operations: how many, besides the schema.
        checkpoint_every: a passive checkpoint after so many operations, and each fourth time one
            that cuts the WAL to nothing, as upkeep does when idle.
        threads: how many connections share the work, each in a thread of its own.
    """

    def __init__(
        self, *, operations: int = 250, checkpoint_every: int = 23, threads: int = 1
    ) -> None:
        self._operations = operations
        self._checkpoint_every = checkpoint_every
        self._threads = threads

    def __call__(self, open_database: OpenDatabase, log: Log) -> None:
        log.mark(begun=0)
        connection = open_database()
        connection.execute("BEGIN IMMEDIATE")
        create_schema(connection)
        connection.execute("COMMIT")
        log.mark(acknowledged=0)
        numbers = range(1, self._operations + 1)
        if self._threads == 1:
            self._perform(connection, log, numbers)
        else:
            self._perform_in_threads(open_database, log, numbers)
        connection.close()

    def _perform(self, connection: apsw.Connection, log: Log, numbers: range) -> None:
        for number in numbers:
            log.mark(begun=number)
            connection.execute("BEGIN IMMEDIATE")
            write_run(connection, number)
            connection.execute("COMMIT")
            log.mark(acknowledged=number)
            if number % self._checkpoint_every == 0:
                idle = number % (4 * self._checkpoint_every) == 0
                connection.execute(f"PRAGMA wal_checkpoint({'TRUNCATE' if idle else 'PASSIVE'})")

    def _perform_in_threads(self, open_database: OpenDatabase, log: Log, numbers: range) -> None:
        raised: list[BaseException] = []

        def work(share: range) -> None:
            try:
                connection = open_database()
                self._perform(connection, log, share)
                connection.close()
            except BaseException as error:
                raised.append(error)

        threads = [
            threading.Thread(target=work, args=(numbers[first :: self._threads],))
            for first in range(self._threads)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if raised:
            raise raised[0]


# -- Command line --------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """Survey the raw workload and print the counts; 0 if the durability kept its promise.

    For ``off`` 0 means that damage was found, as it must be.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.faults.power_cuts", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--durability", choices=sorted(SYNCHRONOUS), default="full")
    parser.add_argument("--states", type=int, default=5000, help="power cuts to draw")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="judge only the state of this number")
    parser.add_argument("--operations", type=int, default=250)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--killed", action="store_true", help="every killed state as well")
    options = parser.parse_args(arguments)

    with tempfile.TemporaryDirectory() as folder:
        workload = RawWorkload(operations=options.operations, threads=options.threads)
        log = record(workload, durability=options.durability, folder=folder)
        print(f"seed {options.seed}, durability {options.durability}, {len(log.entries)} entries")
        cuts = survey(
            log,
            power_cut_states(log, seed=options.seed, states=options.states, only=options.only),
            check=held_operations,
            allowed=ALLOWED_AFTER_POWER_CUT[options.durability],
            folder=folder,
        )
        print(f"power cuts: {cuts}")
        kept = bool(cuts.findings) == (options.durability == "off")
        if options.killed:
            kills = survey(
                log,
                killed_states(log),
                check=held_operations,
                allowed=ALLOWED_AFTER_KILL,
                folder=folder,
            )
            print(f"kills: {kills}")
            kept = kept and not kills.findings
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
