"""Flows on the real orchestrator as a workload for ``power_cuts``, and the check that goes with it.

Every call of a flow or task has a number, from which its arguments, its value and the numbers of
the calls inside it follow: flow 7 calls tasks 701, 702, ... and, as 709, a flow that calls 70901. A
call takes up to three steps that are operations to ``power_cuts``, each with what acknowledges it:

=============  =======================================  ========================================
step           it is there when the database holds      the caller knows it is there when
=============  =======================================  ========================================
``STARTED``    the run, in its first states             the function of a flow is called, and that
                                                        of a task with ``record_start="before"``;
                                                        of another task when the call returns
``RETRIED``    the failure, and the second attempt      the function is called again
``COMPLETED``  COMPLETED, with the value                the call returns
=============  =======================================  ========================================

``begun`` is marked as late as the step allows: STARTED before the call, COMPLETED as the last thing
that the function does. So what ``power_cuts`` says of holes holds for each of them.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from enum import IntEnum
from functools import cache
from random import Random
from uuid import UUID

import apsw

import embedded_orch
from embedded_orch import Flow, flow, task
from embedded_orch.engine.contexts import task_run_context
from tests.faults.invariants import sound_records
from tests.faults.power_cuts import OpenDatabase, TornOperation
from tests.faults.recording_vfs import Log
from tests.faults.run_records import Records, RunRow

OPENED = 0
"""The operation that makes the schema."""
# A log so short that the workload checkpoints it again and again, and begins it anew.
CHECKPOINT_PAGES = 40
_BUSY_TIMEOUT_SECONDS = 20.0

_ONE_BY_ONE = (1, 2)
_MAPPED = (3, 4, 5, 6)
_STUMBLING = 7
_CAREFUL = 8
_SECTION = 9
_IN_SECTION = (1, 2)


class Step(IntEnum):
    """What happens in a call, and may be there or not after a crash."""

    STARTED = 0
    RETRIED = 1
    COMPLETED = 2


def operation(call: int, step: Step) -> int:
    """The number of a step of a call; calls are counted from 1."""
    return call * len(Step) + step


def calls_in(call: int, places: Sequence[int]) -> list[int]:
    """The numbers of the calls at these places of a flow."""
    return [call * 100 + place for place in places]


@cache
def value_of_task(call: int) -> dict[str, object]:
    """What task ``call`` returns: a record of up to six pages."""
    random = Random(call)
    return {"call": call, "filling": "x" * random.choice((10, 10, 300, 3_000, 24_000))}


@cache
def value_of_flow(call: int) -> dict[str, object]:
    """What flow ``call`` returns: its number, and those of the calls that it made."""
    if call > 100:
        return {"call": call, "made": calls_in(call, _IN_SECTION)}
    made = [*_ONE_BY_ONE, *_MAPPED, _STUMBLING, _CAREFUL, _SECTION]
    return {"call": call, "made": calls_in(call, made)}


class Stumbled(Exception):
    """Raised by the first attempt of a task that is to be retried."""


class Ledger:
    """What was called, and what its callers were told. Safe for threads.

    Args:
        log: which gets the marks.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self.run_of: dict[bytes, int] = {}
        self.bodies: Counter[int] = Counter()
        self._lock = threading.Lock()

    def begins(self, call: int, step: Step) -> None:
        """The step may be written from now on."""
        self._log.mark(begun=operation(call, step))

    def is_done(self, call: int, *steps: Step) -> None:
        """The caller knows that the steps are there."""
        for step in steps:
            self._log.mark(acknowledged=operation(call, step))

    def enter(self, call: int, run_id: UUID | None = None) -> int:
        """A function was called: how many times by now. A task names its run."""
        with self._lock:
            if run_id is not None:
                self.run_of[run_id.bytes] = call
            self.bodies[call] += 1
            return self.bodies[call]


class Calls:
    """The flows and tasks of the workload, which tell one ledger what they do.

    Attributes:
        report: a flow whose crashed runs are set Crashed.
        lasting: the same, with runs that are left to ``resume_crashed()``.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.report: Flow[[int], dict[str, object]] = flow(name="report")(self._report)
        self.lasting = flow(name="lasting", on_crash="resume")(self._report)
        self._section = flow(name="section")(self._section_body)
        self._ordinary = task(name="ordinary")(self._ordinary_body)
        self._stumbling = task(name="stumbling", retries=1)(self._stumbling_body)
        self._careful = task(name="careful", record_start="before")(self._careful_body)

    def flow_for(self, call: int) -> Flow[[int], dict[str, object]]:
        """Which flow runs ``call``."""
        return self.lasting if call % 2 else self.report

    def run(self, call: int) -> None:
        """Call a flow from outside."""
        self._ledger.begins(call, Step.STARTED)
        value = self.flow_for(call)(call)
        self._ledger.is_done(call, Step.COMPLETED)
        assert value == value_of_flow(call), value

    # -- functions of flows ----------------------------------------------------------------------

    def _report(self, call: int) -> dict[str, object]:
        self._ledger.enter(call)
        self._ledger.is_done(call, Step.STARTED)
        made = [self._one(self._ordinary, each) for each in calls_in(call, _ONE_BY_ONE)]
        made += self._all(calls_in(call, _MAPPED))
        stumbling, careful, section = calls_in(call, (_STUMBLING, _CAREFUL, _SECTION))
        made += [
            self._one(self._stumbling, stumbling),
            self._one(self._careful, careful),
            self._one(self._section, section),
        ]
        self._ledger.begins(call, Step.COMPLETED)
        return {"call": call, "made": made}

    def _section_body(self, call: int) -> dict[str, object]:
        self._ledger.enter(call)
        self._ledger.is_done(call, Step.STARTED)
        made = [self._one(self._ordinary, each) for each in calls_in(call, _IN_SECTION)]
        self._ledger.begins(call, Step.COMPLETED)
        return {"call": call, "made": made}

    def _one(self, what: Callable[[int], dict[str, object]], call: int) -> object:
        self._ledger.begins(call, Step.STARTED)
        value = what(call)
        self._ledger.is_done(call, Step.STARTED, Step.COMPLETED)
        return value["call"]

    def _all(self, calls: list[int]) -> list[object]:
        for call in calls:
            self._ledger.begins(call, Step.STARTED)
        made = []
        for call, future in zip(calls, self._ordinary.map(calls), strict=True):
            made.append(future.result()["call"])
            self._ledger.is_done(call, Step.STARTED, Step.COMPLETED)
        return made

    # -- functions of tasks ----------------------------------------------------------------------

    def _ordinary_body(self, call: int) -> dict[str, object]:
        self._ledger.enter(call, _task_run_id())
        self._ledger.begins(call, Step.COMPLETED)
        return value_of_task(call)

    def _careful_body(self, call: int) -> dict[str, object]:
        self._ledger.enter(call, _task_run_id())
        self._ledger.is_done(call, Step.STARTED)
        self._ledger.begins(call, Step.COMPLETED)
        return value_of_task(call)

    def _stumbling_body(self, call: int) -> dict[str, object]:
        if self._ledger.enter(call, _task_run_id()) == 1:
            self._ledger.begins(call, Step.RETRIED)
            raise Stumbled(str(call))
        self._ledger.is_done(call, Step.RETRIED)
        self._ledger.begins(call, Step.COMPLETED)
        return value_of_task(call)


def _task_run_id() -> UUID:
    context = task_run_context.get()
    assert context is not None
    return context.run_id


class OrchestratorWorkload:
    """Flow calls on the recorded database, which is opened twice.

    Args:
        size: how many flow calls, half of them before the database is closed and opened again.
        threads: how many make them at the same time.
        journal: of the database.
    """

    def __init__(self, *, size: int = 12, threads: int = 1, journal: str = "wal") -> None:
        self._size = size
        self._threads = threads
        self._journal = journal
        self._ledger = Ledger(Log())

    @classmethod
    def after(cls, ledger: Ledger) -> OrchestratorWorkload:
        """One that knows a database which others filled, by the ledger of their calls."""
        made = cls()
        made._ledger = ledger
        return made

    def __call__(self, open_database: OpenDatabase, log: Log) -> None:
        self._ledger = Ledger(log)
        calls = Calls(self._ledger)
        log.mark(begun=OPENED)
        for half in (range(1, self._size // 2 + 1), range(self._size // 2 + 1, self._size + 1)):
            with embedded_orch.open(
                open_database.path,
                vfs=open_database.vfs,
                durability=open_database.durability,
                journal=self._journal,
                checkpoint_pages=CHECKPOINT_PAGES,
                busy_timeout_seconds=_BUSY_TIMEOUT_SECONDS,
            ):
                if half[0] == 1:
                    log.mark(acknowledged=OPENED)
                self._share_out(calls, half)

    def _share_out(self, calls: Calls, numbers: range) -> None:
        raised: list[BaseException] = []

        def work(share: range) -> None:
            try:
                for call in share:
                    calls.run(call)
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

    # -- what is left ----------------------------------------------------------------------------

    def held_operations(self, connection: apsw.Connection) -> frozenset[int]:
        """The steps that a database holds.

        Raises:
            TornOperation: one is there in part, or a value is not what was returned.
        """
        records = sound_records(connection)
        if not records.has_schema:
            return frozenset()
        for run in records.all_runs:
            _expect_a_whole_start(run)
        held = {OPENED}
        for run in records.flow_runs.values():
            held.add(operation(run.call, Step.STARTED))
            if run.is_completed:
                _expect(run, value_of_flow(run.call))
                if run.parent_task_run_id is None:
                    held.add(operation(run.call, Step.COMPLETED))
        for run in records.task_runs.values():
            held |= self._held_of(run, records)
        return frozenset(held)

    def _held_of(self, run: RunRow, records: Records) -> set[int]:
        if run.key.endswith("_section_body"):
            # It stands for a flow run of its own, which is written before it is COMPLETED.
            if not run.is_completed:
                return set()
            children = records.children(run)
            if [child.is_completed for child in children] != [True]:
                raise TornOperation(f"{run.key} is COMPLETED, and its flow runs are {children}")
            _expect(run, value_of_flow(children[0].call))
            return {operation(children[0].call, Step.COMPLETED)}
        call = self._ledger.run_of.get(run.id)
        if call is None:
            raise TornOperation(f"{run.key} {run.id.hex()} is there and was never called")
        held = {operation(call, Step.STARTED)}
        if run.attempts > 1:
            held.add(operation(call, Step.RETRIED))
        if run.is_completed:
            _expect(run, value_of_task(call))
            held.add(operation(call, Step.COMPLETED))
        return held

    def go_on(self, path: str) -> None:
        """Open a database and resume every run in it; what is completed must not run again.

        Raises:
            TornOperation: something ran again, did not run, or returned something else.
        """
        before = _completed_calls(path, self._ledger)
        ledger = Ledger(Log())
        calls = Calls(ledger)
        with embedded_orch.open(path, durability="off") as orch:
            orch.resume_crashed(calls.lasting)
            runs = [run for run in orch.flow_runs.find() if run.parent_task_run_id is None]
            for run in runs:
                call = run.parameters["call"]
                value = calls.flow_for(call).resume(run.id)
                if value != value_of_flow(call):
                    raise TornOperation(f"flow {call}, resumed, returned {value}")
        again = before & set(ledger.bodies)
        if again:
            raise TornOperation(f"calls {sorted(again)} were completed and were made again")
        ledger.run_of.update(self._ledger.run_of)
        after = _completed_calls(path, ledger)
        due = {each for run in runs for each in _calls_below(run.parameters["call"])}
        if after != due:
            raise TornOperation(f"calls {sorted(after ^ due)} are not as they should be at the end")


def _completed_calls(path: str, ledger: Ledger) -> set[int]:
    connection = apsw.Connection(path)
    try:
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        records = sound_records(connection)
    finally:
        connection.close()
    flows = {run.call for run in records.flow_runs.values() if run.is_completed}
    tasks = {id for id, run in records.task_runs.items() if run.is_completed}
    return flows | {call for id, call in ledger.run_of.items() if id in tasks}


def _calls_below(call: int) -> set[int]:
    section = calls_in(call, (_SECTION,))[0]
    inner = [*_ONE_BY_ONE, *_MAPPED, _STUMBLING, _CAREFUL]
    return {call, section, *calls_in(call, inner), *calls_in(section, _IN_SECTION)}


def _expect_a_whole_start(run: RunRow) -> None:
    first = [state.type for state in run.history[:2]]
    if first != ["PENDING", "RUNNING"]:
        raise TornOperation(f"{run} began with {first}, which are written together")
    if run.flow_run_id is None:
        raise TornOperation(f"{run} belongs to no flow run")


def _expect(run: RunRow, value: object) -> None:
    if run.value() != value:
        raise TornOperation(f"{run.key} {run.id.hex()} holds a value that it never returned")
