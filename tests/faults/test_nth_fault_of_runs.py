"""Each I/O call fails in turn while flows run: what a call answered is true, and all goes on.

A call that returned is on record. One that raised raised an error of ours, and is not on record,
neither now nor later, unless the error says that this is not known.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import pytest

import embedded_orch
from embedded_orch import Flow, Orchestrator, errors, flow, task
from embedded_orch.process import Process
from embedded_orch.store.flows import ensure_flow
from tests.faults.invariants import sound_records
from tests.faults.nth_fault_vfs import (
    Fates,
    Fault,
    FaultKind,
    FaultyFile,
    FaultyVFS,
    Sweep,
    ours_unreported,
    sweep,
)
from tests.faults.orchestrator_workload import Step, operation, value_of_task
from tests.faults.run_records import Records
from tests.programs import copy_with_log

FLOWS = 3
CHECKPOINT_PAGES = 25
POSITIONS = 4
"""Of each kind and way in a normal run; all of them under soak."""
OPERATIONS_OF_A_FLOW = 13
VFS = "faulty-while-flows-run"

_BUSY_TIMEOUT_SECONDS = 0.02
"""Nobody else has the files, and the one that says that they are busy says so again."""


class Stumbled(Exception):
    """Raised by the first attempt of a task that is to be retried."""


class Caller:
    """Calls flows and tasks, takes every error as it comes, and writes down what it was told.

    Flow n makes the calls n01, n02, and so on. Operations are steps of calls, as they are counted
    in ``orchestrator_workload``: COMPLETED of each, and STARTED where that is awaited.
    """

    def __init__(self, fates: Fates) -> None:
        self._fates = fates
        self._stumbled: set[int] = set()
        self.flow: Flow[[int], dict[str, object]] = flow(name="faulty")(self._flow_body)
        self._section = flow(name="section")(self._section_body)
        self._ordinary = task(name="ordinary")(self._ordinary_body)
        self._stumbling = task(name="stumbling", retries=1)(self._stumbling_body)
        self._careful = task(name="careful", record_start="before")(self._careful_body)

    def open(self, path: str, **settings: object) -> Orchestrator | None:
        """An orchestrator, or None if that raised."""
        opened: list[Orchestrator] = []
        self.told(lambda: opened.append(embedded_orch.open(path, **settings)))
        return opened[0] if opened else None

    def call(self, function: Callable[[], object], call: int, *, starts: bool = False) -> None:
        """Make a call; ``starts`` when its start is on record before its function is called."""
        started, completed = (operation(call, step) for step in (Step.STARTED, Step.COMPLETED))
        error = self.told(function)
        if error is None:
            self._fates.acknowledged.add(completed)
            return
        at_the_end = not starts or started in self._fates.acknowledged
        if not at_the_end:
            self._fates.refused.add(completed)
        failed = completed if at_the_end else started
        if isinstance(error, errors.CommitOutcomeUnknown):
            self._fates.unknown[failed] = None
        else:
            self._fates.refused.add(failed)

    def told(self, function: Callable[[], object]) -> Exception | None:
        """What a call raised; that it was no error of ours is a problem."""
        try:
            function()
        except errors.OrchestratorError as error:
            return error
        except Exception as error:
            self._fates.problems.append(f"raised to the caller: {error!r}")
            return error
        return None

    # -- functions of flows and tasks ------------------------------------------------------------

    def _flow_body(self, number: int) -> dict[str, object]:
        self._fates.acknowledged.add(operation(number, Step.STARTED))
        first = number * 100
        self.call(lambda: self._ordinary(first + 1), first + 1)
        self.call(lambda: self._ordinary(first + 2), first + 2)
        mapped = range(first + 3, first + 6)
        for call, future in zip(mapped, self._ordinary.map(mapped), strict=True):
            self.call(future.result, call)
        self.call(lambda: self._stumbling(first + 6), first + 6)
        self.call(lambda: self._careful(first + 7), first + 7, starts=True)
        self.call(lambda: self._section(first + 8), first + 8, starts=True)
        return {"call": number}

    def _section_body(self, number: int) -> dict[str, object]:
        self._fates.acknowledged.add(operation(number, Step.STARTED))
        self.call(lambda: self._ordinary(number * 100), number * 100)
        return {"call": number}

    def _ordinary_body(self, call: int) -> dict[str, object]:
        return value_of_task(call)

    def _careful_body(self, call: int) -> dict[str, object]:
        self._fates.acknowledged.add(operation(call, Step.STARTED))
        return value_of_task(call)

    def _stumbling_body(self, call: int) -> dict[str, object]:
        if call not in self._stumbled:
            self._stumbled.add(call)
            raise Stumbled(str(call))
        return value_of_task(call)


class OrchestratorSubject:
    """Flows on the orchestrator, which is closed in the end, as a ``with`` block does.

    Args:
        durability: of the database.
    """

    def __init__(self, durability: str) -> None:
        self._durability = durability

    def script(self, path: str, vfs: str, fates: Fates) -> None:
        threads, descriptors = set(threading.enumerate()), _descriptors()
        caller = Caller(fates)
        orch: Orchestrator | None = None
        for number in range(1, FLOWS + 1):
            orch = orch or caller.open(
                path,
                vfs=vfs,
                durability=self._durability,
                checkpoint_pages=CHECKPOINT_PAGES,
                busy_timeout_seconds=_BUSY_TIMEOUT_SECONDS,
            )
            if orch is not None:
                self._run_and_read(orch, caller, number)
        if orch is not None:
            caller.told(orch.close)
        left = [each.name for each in threading.enumerate() if each not in threads]
        fates.problems += [f"the thread {name!r} is left" for name in left]
        # Fewer may be left, of what other tests have dropped and Python has closed meanwhile.
        if _descriptors() > descriptors:
            fates.problems.append(f"descriptors left: {_descriptors()}, and {descriptors} before")

    def _run_and_read(self, orch: Orchestrator, caller: Caller, number: int) -> None:
        caller.call(lambda: caller.flow(number), number, starts=True)
        caller.told(orch.task_runs.count)
        caller.told(lambda: [run.history for run in orch.flow_runs.find(flow_name="faulty")])
        caller.told(lambda: orch.sql("select count(*) from task_run_states").scalar())

    def held(self, path: str) -> frozenset[int]:
        return frozenset(_held(_records(path)))

    def goes_on(self, path: str) -> bool:
        before = self.held(path)
        fates = Fates()
        caller = Caller(fates)
        with embedded_orch.open(path, durability="off") as orch:
            for run in orch.flow_runs.find(flow_name="faulty"):
                caller.flow.resume(run.id)
            caller.call(lambda: caller.flow(FLOWS + 1), FLOWS + 1, starts=True)
        if fates.problems or fates.refused or fates.unknown:
            return False
        held = self.held(path)
        return operation(FLOWS + 1, Step.COMPLETED) in held and before <= held


def _records(path: str) -> Records:
    connection = apsw.Connection(path)
    try:
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        problems = connection.execute("PRAGMA integrity_check").get
        if problems != "ok":
            raise apsw.CorruptError(f"integrity_check: {problems}")
        if connection.execute("PRAGMA foreign_key_check").get is not None:
            raise apsw.CorruptError("foreign_key_check: a row without its parent")
        return sound_records(connection)
    finally:
        connection.close()


def _held(records: Records) -> Iterable[int]:
    for run in records.flow_runs.values():
        yield operation(run.call, Step.STARTED)
        if run.is_completed and run.parent_task_run_id is None:
            yield operation(run.call, Step.COMPLETED)
    for run in records.task_runs.values():
        if run.key.endswith("_careful_body"):
            yield operation(records.flow_runs[run.flow_run_id].call * 100 + 7, Step.STARTED)
        if run.is_completed:
            yield operation(run.value()["call"], Step.COMPLETED)


def _descriptors() -> int:
    return len(os.listdir("/dev/fd"))


def a_sweep(
    subject: OrchestratorSubject,
    folder: Path,
    *,
    kinds: Iterable[FaultKind] = FaultKind,
    at_most: int | None = POSITIONS,
) -> Sweep:
    result = sweep(subject, kinds=kinds, folder=str(folder), at_most=at_most)
    print(result)
    return result


@contextmanager
def a_faulty_vfs(kind: FaultKind) -> Iterator[FaultyVFS]:
    """A VFS of the name ``VFS`` in which nothing fails yet."""
    vfs = FaultyVFS(VFS, Fault(kind, nth=1 << 62, sticky=False))
    try:
        with ours_unreported(vfs):
            yield vfs
    finally:
        vfs.unregister()


def fail(vfs: FaultyVFS, *, after: int, sticky: bool = False) -> None:
    """Have a call fail, after so many that do not, and perhaps all that come later."""
    vfs.fault = Fault(vfs.fault.kind, nth=vfs.calls + after + 1, sticky=sticky)


# -- What must hold ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("durability", ["normal", "full"])
def test_what_flows_were_told_is_true_whatever_call_fails(durability: str, tmp_path: Path) -> None:
    """Seen to fail in two ways.

    When a commit that raised was answered as one that did not happen: "refused before COMMIT and
    yet there". And when an orchestrator whose close failed kept the lock that says that its owner
    lives: a descriptor was left, and its runs could not be resumed.
    """
    result = a_sweep(OrchestratorSubject(durability), tmp_path)

    assert {trial.fault.kind for trial in result.trials} == set(FaultKind)
    assert result.violations == []


@pytest.mark.parametrize("kind", [kind for kind in FaultKind if kind is not FaultKind.CANTOPEN])
def test_after_one_fault_the_same_orchestrator_works_on(kind: FaultKind, tmp_path: Path) -> None:
    """It fails in the first flow; nothing that the second one does is refused."""
    fates = Fates()
    caller = Caller(fates)
    with (
        a_faulty_vfs(kind) as vfs,
        embedded_orch.open(tmp_path / "orch.db", vfs=VFS, durability="full"),
    ):
        fail(vfs, after=3)
        caller.call(lambda: caller.flow(1), 1, starts=True)
        acknowledged = set(fates.acknowledged)
        not_acknowledged = fates.refused | set(fates.unknown)
        caller.call(lambda: caller.flow(2), 2, starts=True)

    assert len(vfs.raised) == 1
    assert len(fates.acknowledged - acknowledged) == OPERATIONS_OF_A_FLOW
    assert fates.refused | set(fates.unknown) == not_acknowledged
    assert fates.problems == []


@pytest.mark.parametrize("kind", [FaultKind.FULL, FaultKind.WRITE, FaultKind.BUSY])
def test_closing_on_a_disk_that_has_failed_leaves_no_thread_and_no_descriptor(
    kind: FaultKind, tmp_path: Path
) -> None:
    """Seen to fail when the thread was stopped only after what was announced had been committed."""
    threads, descriptors = set(threading.enumerate()), _descriptors()
    with a_faulty_vfs(kind) as vfs:
        orch = embedded_orch.open(
            tmp_path / "orch.db", vfs=VFS, busy_timeout_seconds=_BUSY_TIMEOUT_SECONDS
        )
        fail(vfs, after=0, sticky=True)
        new_id = Process().new_id()
        orch.database.announce(lambda tx: ensure_flow(tx, id=new_id, name="report", now=1))
        with contextlib.suppress(errors.DatabaseError):
            orch.close()

    assert set(threading.enumerate()) == threads
    assert _descriptors() <= descriptors


def test_a_checkpoint_that_cannot_hold_readers_back_is_no_error_of_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk has no room for the note to the readers either, in a lock file that was empty.

    Seen to fail when only SQLite's errors put a checkpoint off: a flow call raised ``OSError``, and
    its run was on record.
    """
    fates = Fates()
    caller = Caller(fates)
    refused: list[int] = []

    def no_room(descriptor: int, data: bytes, offset: int) -> int:
        refused.append(descriptor)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with embedded_orch.open(tmp_path / "orch.db", checkpoint_pages=1) as orch:
        caller.flow(1)
        with orch.session(read_only=True, begin_transaction=True) as session:
            session.execute("select count(*) from flow")
            monkeypatch.setattr(os, "pwrite", no_room)
            other = threading.Thread(
                target=lambda: caller.call(lambda: caller.flow(2), 2, starts=True)
            )
            other.start()
            other.join()

    assert refused != []
    assert fates.problems == []
    assert fates.refused == set()
    assert operation(2, Step.COMPLETED) in fates.acknowledged


@pytest.mark.parametrize(
    ("is_there_from_before", "error"),
    [(False, errors.DatabaseFull), (True, errors.CommitOutcomeUnknown)],
)
def test_a_commit_without_room_for_its_last_page_is_told_as_who_opens_the_file_next_finds_it(
    is_there_from_before: bool,
    error: type[errors.DatabaseError],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A log that began anew may hold at its place, from before, just what has no room now.

    Seen to fail when a commit on a full disk was always answered as one that did not happen.
    """
    path, copy = tmp_path / "orch.db", tmp_path / "copy.db"
    write = FaultyFile.xWrite
    is_full, is_last = False, False

    def write_if_there_is_room(file: FaultyFile, data: bytes, offset: int) -> None:
        nonlocal is_last
        if is_full and is_last:
            if is_there_from_before:
                write(file, data, offset)
            vfs.raised.append(apsw.FullError())
            raise vfs.raised[-1]
        write(file, data, offset)
        # The head of a frame, and in it that it ends a commit.
        is_last = len(data) == 24 and data[4:8] != bytes(4)

    monkeypatch.setattr(FaultyFile, "xWrite", write_if_there_is_room)
    fates = Fates()
    caller = Caller(fates)
    with (
        a_faulty_vfs(FaultKind.FULL) as vfs,
        embedded_orch.open(path, vfs=VFS, durability="full"),
    ):
        is_full = True
        with pytest.raises(error):
            caller.flow(1)
        copy_with_log(path, copy)
        is_full = False
        caller.call(lambda: caller.flow(2), 2, starts=True)

    assert len(_records(str(copy)).flow_runs) == is_there_from_before
    assert operation(2, Step.COMPLETED) in fates.acknowledged
    assert fates.problems == []


# -- What must be found, or the sweep is blind ---------------------------------------------------


class Boasting(OrchestratorSubject):
    """Tells the caller that it is done whatever was raised."""

    def script(self, path: str, vfs: str, fates: Fates) -> None:
        super().script(path, vfs, fates)
        fates.acknowledged |= fates.refused | set(fates.unknown)
        fates.refused.clear()
        fates.unknown.clear()


class Despairing(OrchestratorSubject):
    """Tells the caller that nothing was done, once something was refused."""

    def script(self, path: str, vfs: str, fates: Fates) -> None:
        super().script(path, vfs, fates)
        if fates.refused:
            fates.refused |= fates.acknowledged
            fates.acknowledged.clear()


class Blunt(OrchestratorSubject):
    """Hands the errors of the driver on as they are."""

    def script(self, path: str, vfs: str, fates: Fates) -> None:
        Caller(fates).told(lambda: apsw.Connection(path, vfs=vfs).pragma("journal_mode", "wal"))
        super().script(path, vfs, fates)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("subject", "finding"),
    [
        (Boasting, "acknowledged and lost"),
        (Despairing, "refused before COMMIT and yet there"),
        (Blunt, "raised to the caller: FullError"),
    ],
)
def test_what_is_not_true_is_a_violation(
    subject: type[OrchestratorSubject], finding: str, tmp_path: Path
) -> None:
    result = a_sweep(subject("normal"), tmp_path, kinds=(FaultKind.FULL,), at_most=3)

    assert any(finding in violation for violation in result.violations)


# -- At length -----------------------------------------------------------------------------------


@pytest.mark.soak
@pytest.mark.parametrize("kind", FaultKind)
@pytest.mark.parametrize("durability", ["normal", "full"])
def test_what_flows_were_told_is_true_for_each_call_that_fails(
    durability: str, kind: FaultKind, tmp_path: Path
) -> None:
    result = a_sweep(OrchestratorSubject(durability), tmp_path, kinds=(kind,), at_most=None)

    assert result.violations == []
