"""Each I/O call fails in turn while flows run: what a call answered is true, and all goes on.

A call that returned is on record. One that raised raised an error of ours, and is not on record,
neither now nor later, unless the error says that this is not known.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import apsw
import pytest

import embedded_orch
from embedded_orch import Flow, Orchestrator, errors, flow, task
from tests.faults.nth_fault_vfs import Fates, Fault, FaultKind, Sweep, Trial, attempt, sweep
from tests.faults.orchestrator_workload import Step, operation, value_of_task
from tests.faults.run_records import Records, read_records

R = TypeVar("R")

FLOWS = 3
CHECKPOINT_PAGES = 25
POSITIONS = 5
"""Of each kind and way in a normal run; all of them under soak."""

_BUSY_TIMEOUT_SECONDS = 0.02
"""Nobody else has the files, and the one that says that they are busy says so again."""


class Stumbled(Exception):
    """Raised by the first attempt of a task that is to be retried."""


class Caller:
    """Calls flows and tasks, takes every error as it comes, and writes down what it was told.

    Flow n makes the calls n01, n02, and so on. Operations are steps of calls, as they are counted in
    ``orchestrator_workload``: COMPLETED of each, and STARTED where it is written before the function
    is called.
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
        for call in (first + 1, first + 2):
            self.call(lambda call=call: self._ordinary(call), call)
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
        if _descriptors() != descriptors:
            fates.problems.append(f"descriptors left: {_descriptors()} of {descriptors}")

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
        with embedded_orch.open(path) as orch:
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
        return read_records(connection)
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
    durability: str,
    folder: Path,
    *,
    kinds: Iterable[FaultKind] = FaultKind,
    at_most: int | None = POSITIONS,
) -> Sweep:
    result = sweep(
        OrchestratorSubject(durability), kinds=kinds, folder=str(folder), at_most=at_most
    )
    print(result)
    return result
