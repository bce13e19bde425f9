"""The operations of the table, as what is put to the test by ``nth_fault_vfs`` and ``power_cuts``.

Both count operations by numbers: here 0 stands for the schema, and the calls of an operation follow
in the order of their names. A call begins when its function is entered, and is acknowledged when
its caller was told.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from unittest import mock

import apsw

import embedded_orch
from embedded_orch import errors
from tests.faults import watched_flows
from tests.faults.invariants import changes, sound_records
from tests.faults.nth_fault_vfs import Fates
from tests.faults.observing import Lines, Seen, calls_on_record, look
from tests.faults.operations import Operation
from tests.faults.power_cuts import OpenDatabase, TornOperation
from tests.faults.recording_vfs import Log
from tests.faults.watched_flows import watched_by
from tests.warm_parent import run_forked

# So small that operations meet checkpoints, and what is wrong with them.
CHECKPOINT_PAGES = 25
# How long runs wait for an answer: their states are looked at long after they were recorded, and
# what had not come by then would have come too late.
_PATIENCE_OF_STATES = 24 * 3600.0
# Long enough for the threads of an operation to wait for each other, on a busy machine too.
_BUSY_TIMEOUT_SECONDS = 0.5


class Numbers:
    """The calls of an operation by their numbers."""

    def __init__(self, operation: Operation) -> None:
        names = operation.calls | operation.undone | operation.at_least_once
        self._number_of = {name: number for number, name in enumerate(sorted(names), start=1)}

    def of(self, call: str) -> int:
        return self._number_of[call]

    def held(self, seen: Seen) -> frozenset[int]:
        """What a database holds, with the schema if it is there."""
        if not seen.records.has_schema:
            return frozenset()
        return frozenset({0, *self.of_all(seen.calls)})

    def of_all(self, calls: Iterable[str]) -> Iterator[int]:
        """Those of the operation; others may be there, and are to be removed by it."""
        return (self._number_of[call] for call in calls if call in self._number_of)


def prepared(operation: Operation, folder: Path) -> Path:
    """A folder with what is there before the operation, made by a process that may have died."""
    made = folder / "prepared"
    made.mkdir()
    if operation.name == "opening":
        return made
    program = """
        import sys
        from tests.faults.kill_points import prepare
        from tests.faults.operations import OPERATIONS
        prepare(OPERATIONS[sys.argv[1]], sys.argv[2])
    """
    ended = run_forked(program, operation.name, made / "orch.db")
    assert ended.returncode in {0, -9}, ended.stderr
    # What the dead have left in the log belongs to the file from here on.
    connection = apsw.Connection(str(made / "orch.db"))
    connection.pragma("wal_checkpoint(truncate)")
    connection.close()
    return made


def put(prepared: Path, path: str) -> None:
    """Copy what was prepared to where an attempt has its database."""
    for file in prepared.iterdir():
        shutil.copy(file, path + file.name.removeprefix("orch.db"))


def problems_at_the_end(operation: Operation, path: str, before: Seen, lines: Lines) -> list[str]:
    """What is wrong with a database on which an operation was begun, and then brought to its end.

    Args:
        operation: which one.
        path: of the database.
        before: what it held before it was brought to its end.
        lines: what was called on the way there.
    """
    after = look(operation, path)
    again = set(lines.calls("entered")) & set(before.calls) - operation.at_least_once
    found = [f"{call} was on record, and was called again" for call in sorted(again)]
    found += changes(before.records, after.records)
    found += after.problems
    if set(after.calls) - operation.undone != operation.calls:
        found.append(f"on record at the end: {sorted(after.calls)}")
    if dict(after.loaded) != dict.fromkeys(operation.loaded, 1):
        found.append(f"rows at the end: {dict(after.loaded)}")
    if operation.check is not None:
        found += operation.check(path)
    return found


def carry_on(operation: Operation, path: str) -> list[str]:
    """Bring an operation to its end on a well disk; what is wrong then."""
    before = look(operation, path)
    with tempfile.TemporaryDirectory() as folder:
        lines = Lines(Path(folder) / "witness")
        with (
            operation.arranged(),
            watched_by(lines),
            embedded_orch.open(path, durability="off") as orch,
        ):
            operation.act(orch)
        return problems_at_the_end(operation, path, before, lines)


# -- each call of the operating system fails in turn -----------------------------------------------


class FateOfCalls:
    """A witness: who was told is acknowledged, who was only entered is not known about."""

    def __init__(self, fates: Fates, numbers: Numbers) -> None:
        self._fates = fates
        self._numbers = numbers

    def entered(self, call: str) -> None:
        self._fates.unknown.setdefault(self._numbers.of(call), None)

    def told(self, call: str) -> None:
        self._fates.acknowledged.add(self._numbers.of(call))


class FaultyOperation:
    """An operation on a disk that fails, as the sweep of ``nth_fault_vfs`` wants it.

    Args:
        operation: which one.
        folder: where what comes before it is prepared, once.
    """

    def __init__(self, operation: Operation, folder: Path) -> None:
        self._operation = operation
        self._numbers = Numbers(operation)
        self._prepared = prepared(operation, folder)

    def script(self, path: str, vfs: str, fates: Fates) -> None:
        put(self._prepared, path)
        # The schema may be made by a call that was not acknowledged.
        fates.unknown[0] = None
        at_first = look(self._operation, path)
        fates.acknowledged |= self._numbers.held(at_first)
        threads, descriptors = set(threading.enumerate()), _descriptors()
        with (
            self._operation.arranged(),
            watched_by(FateOfCalls(fates, self._numbers)),
            mock.patch.object(watched_flows, "patience_seconds", 5.0),
        ):
            try:
                with embedded_orch.open(
                    path,
                    vfs=vfs,
                    checkpoint_pages=CHECKPOINT_PAGES,
                    busy_timeout_seconds=_BUSY_TIMEOUT_SECONDS,
                ) as orch:
                    self._operation.act(orch)
                # All is done, so nothing is unknown.
                fates.acknowledged |= {0, *map(self._numbers.of, self._operation.calls)}
                fates.unknown.clear()
            except Exception as error:
                if not _is_ours(error):
                    fates.problems.append(f"raised to the caller: {error!r}")
                # What was not acknowledged may be there or not.
                for number in fates.acknowledged:
                    fates.unknown.pop(number, None)
        new = [each for each in threading.enumerate() if each not in threads]
        for thread in new:
            # Those of an event loop that has ended are told to end, and do so by themselves.
            thread.join(5)
        left = [each.name for each in new if each.is_alive()]
        fates.problems += [f"the thread {name!r} is left" for name in left]
        if _descriptors() > descriptors:
            fates.problems.append(f"descriptors left: {_descriptors()}, and {descriptors} before")

    def held(self, path: str) -> frozenset[int]:
        if not os.path.exists(path):
            return frozenset()
        return _held(self._operation, self._numbers, path)

    def goes_on(self, path: str) -> bool:
        found = carry_on(self._operation, path)
        if found:
            raise TornOperation("; ".join(found))
        return True


def _is_ours(error: BaseException) -> bool:
    """Whether it is what a user gets; a task group raises several at once."""
    if isinstance(error, ExceptionGroup):
        return all(_is_ours(each) for each in error.exceptions)
    return isinstance(error, errors.OrchestratorError)


def _descriptors() -> int:
    return len(os.listdir("/dev/fd"))


def _held(operation: Operation, numbers: Numbers, path: str) -> frozenset[int]:
    connection = apsw.Connection(path)
    try:
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        for query in ("PRAGMA integrity_check(1)", "PRAGMA foreign_key_check"):
            for damage in connection.execute(query):
                if damage != ("ok",):
                    raise apsw.CorruptError(f"{query}: {damage}")
        return held_in(operation, numbers, connection)
    finally:
        connection.close()


def held_in(operation: Operation, numbers: Numbers, connection: apsw.Connection) -> frozenset[int]:
    """The calls that a file holds, each with what belongs to it.

    Raises:
        TornOperation: one is there in part.
    """
    records = sound_records(connection)
    if not records.has_schema:
        return frozenset()
    calls = calls_on_record(records)
    for query in operation.queries:
        calls.update(name for (name,) in connection.execute(query))
    loaded = frozenset[str]()
    if operation.loaded and calls_table(connection):
        loaded = frozenset(call for (call,) in connection.execute("select call from loaded"))
    due = {row for row in operation.loaded if row.split(",")[0] in calls}
    if loaded != due:
        raise TornOperation(f"rows {sorted(loaded)} are there, with the calls {sorted(calls)}")
    return frozenset({0, *numbers.of_all(calls)})


def calls_table(connection: apsw.Connection) -> bool:
    """Whether the table is there that tasks write to themselves."""
    return bool(connection.execute("select count(*) from sqlite_schema where name = 'loaded'").get)


# -- the power is cut ------------------------------------------------------------------------------


class MarksOfCalls:
    """A witness that marks a log, each call when it is first entered and first told."""

    def __init__(self, log: Log, numbers: Numbers) -> None:
        self._log = log
        self._numbers = numbers
        self._marked: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def entered(self, call: str) -> None:
        if self._is_first("entered", call):
            self._log.mark(begun=self._numbers.of(call))

    def told(self, call: str) -> None:
        if self._is_first("told", call):
            self._log.mark(acknowledged=self._numbers.of(call))

    def _is_first(self, what: str, call: str) -> bool:
        with self._lock:
            is_first = (what, call) not in self._marked
            self._marked.add((what, call))
            return is_first


class RecordedOperation:
    """An operation as a workload of ``power_cuts``.

    Args:
        operation: which one.
        folder: where what comes before it is prepared, once.
    """

    def __init__(self, operation: Operation, folder: Path) -> None:
        self.operation = operation
        self._numbers = Numbers(operation)
        self._prepared = prepared(operation, folder)

    def lay_out(self, path: str) -> frozenset[int]:
        """Put there what comes before it; what that holds."""
        put(self._prepared, path)
        return self._numbers.held(look(self.operation, path))

    def __call__(self, open_database: OpenDatabase, log: Log) -> None:
        if 0 not in log.held_at_start:
            log.mark(begun=0)
        with (
            self.operation.arranged(),
            mock.patch.object(watched_flows, "patience_seconds", _PATIENCE_OF_STATES),
            watched_by(MarksOfCalls(log, self._numbers)),
            embedded_orch.open(
                open_database.path,
                vfs=open_database.vfs,
                durability=open_database.durability,
                checkpoint_pages=CHECKPOINT_PAGES,
                busy_timeout_seconds=20,
            ) as orch,
        ):
            if 0 not in log.held_at_start:
                log.mark(acknowledged=0)
            self.operation.act(orch)

    def held(self, connection: apsw.Connection) -> frozenset[int]:
        """The calls that a database holds; raises TornOperation."""
        return held_in(self.operation, self._numbers, connection)

    def go_on(self, path: str) -> None:
        """Bring it to its end.

        Raises:
            TornOperation: something is wrong then.
        """
        found = carry_on(self.operation, path)
        if found:
            raise TornOperation("; ".join(found))
