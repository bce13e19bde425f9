"""The flows and runs of a database, to get, find and count."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from embedded_orch import errors, times
from embedded_orch.engine.effects import drive
from embedded_orch.engine.moving import moved
from embedded_orch.engine.pause_deadlines import expire_pauses
from embedded_orch.filters import (
    FlowFilters,
    FlowRunFilters,
    FlowRunSort,
    TaskRunFilters,
    TaskRunSort,
    as_uuid,
    checked,
    order,
)
from embedded_orch.proposals import SetStateStatus, creating, proposing
from embedded_orch.runs import FlowRecord, FlowRun, TaskRun
from embedded_orch.states import Cancelling, Pending
from embedded_orch.store import finding, flow_runs, flows, run_history, task_runs
from embedded_orch.store.run_graph import run_graph
from embedded_orch.store.run_history import CalendarStep

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime, timedelta
    from typing import Any, Unpack
    from uuid import UUID

    from embedded_orch.db.port import Database, Transaction
    from embedded_orch.engine.engine import Engine
    from embedded_orch.flows import Flow
    from embedded_orch.process import Process
    from embedded_orch.proposals import OrchestrationResult
    from embedded_orch.states import State
    from embedded_orch.store.finding import Cursor
    from embedded_orch.store.run_graph import RunGraph
    from embedded_orch.store.run_history import Bucket

    Filters = Mapping[str, object]

PAGE = 200

RecordT = TypeVar("RecordT")


class Records(Generic[RecordT]):
    """What the collections have in common. Any thread may use it."""

    _what: ClassVar[str] = "record"

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, id: UUID | str) -> RecordT:
        """One of them.

        Raises:
            RunNotFound: none has this id.
        """
        run_id = as_uuid(id, self._what)
        found = self._database.read(lambda tx: self._get(tx, [run_id]))
        if not found:
            raise errors.RunNotFound(f"no {self._what} has the id {id} in {self._database.url}")
        return found[0]

    def _pages(self, filters: Filters, sort: str) -> Iterator[RecordT]:
        """All that fit, read a page at a time as they are taken."""
        after: Cursor | None = None
        while True:
            page, after = self._page(filters, sort, after)
            yield from page
            if after is None:
                return

    def _page(
        self, filters: Filters, sort: str, after: Cursor | None
    ) -> tuple[list[RecordT], Cursor | None]:
        def operation(tx: Transaction) -> tuple[list[RecordT], Cursor | None]:
            ids, end = self._find(tx, filters, sort, after)
            return self._get(tx, ids), end

        return self._database.read(operation)

    def _get(self, tx: Transaction, ids: Sequence[UUID]) -> list[RecordT]:
        raise TypeError("a collection says how its records are read")

    def _find(
        self, tx: Transaction, filters: Filters, sort: str, after: Cursor | None
    ) -> tuple[list[UUID], Cursor | None]:
        raise TypeError("a collection says how its records are found")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._database.url}>"


class Flows(Records[FlowRecord]):
    """The flows that have run."""

    _what: ClassVar[str] = "flow"

    def find(self, **filters: Unpack[FlowFilters]) -> Iterator[FlowRecord]:
        """The flows that fit all filters, newest first.

        Raises:
            UnknownFilter: there is no such filter, or it cannot have this value.
        """
        return self._pages(self._checked(filters), finding.NEWEST_FIRST)

    def count(self, **filters: Unpack[FlowFilters]) -> int:
        """How many flows fit all filters.

        Raises:
            UnknownFilter: there is no such filter, or it cannot have this value.
        """
        found = self._checked(filters)
        return self._database.read(lambda tx: finding.count_flows(tx, found))

    def _checked(self, filters: FlowFilters) -> Filters:
        return checked(self._what, dict(filters), FlowFilters.__annotations__)

    def _get(self, tx: Transaction, ids: Sequence[UUID]) -> list[FlowRecord]:
        return [FlowRecord(row) for row in flows.get_flows(tx, ids)]

    def _find(
        self, tx: Transaction, filters: Filters, sort: str, after: Cursor | None
    ) -> tuple[list[UUID], Cursor | None]:
        return finding.find_flow_ids(tx, filters, after=after, limit=PAGE)


class FlowRuns(Records[FlowRun]):
    """Flow runs; the filters are those of :class:`embedded_orch.filters.FlowRunFilters`."""

    _what: ClassVar[str] = "flow run"

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine.database)
        self._engine = engine
        self._process = engine.process

    def find(
        self,
        *,
        sort: FlowRunSort | str = FlowRunSort.ID_DESC,
        limit: int | None = None,
        **filters: Unpack[FlowRunFilters],
    ) -> Iterator[FlowRun]:
        """The runs that fit all filters, read a page at a time as they are taken.

        Args:
            sort: the order; newest first when not given. Those by name, by start and by expected
                start read only what is taken; those by end and by next scheduled start look at
                every run.
            limit: how many at most.
            filters: what the runs have to fit.

        Raises:
            UnknownFilter: there is no such filter or order, or it cannot have this value.
        """
        by = order(self._what, sort, FlowRunSort)
        return some(self._pages(_flow_run_filters(filters), by), limit)

    def count(self, **filters: Unpack[FlowRunFilters]) -> int:
        """How many runs fit all filters.

        Raises:
            UnknownFilter: there is no such filter, or it cannot have this value.
        """
        found = _flow_run_filters(filters)
        return self._database.read(lambda tx: finding.count(tx, "flow_run", found))

    def history(
        self,
        *,
        start: datetime,
        end: datetime,
        step: timedelta | CalendarStep,
        zone: str = "UTC",
        **filters: Unpack[FlowRunFilters],
    ) -> list[Bucket]:
        """Count the runs that fit by the time at which they were expected to start.

        Args:
            start: where the first bucket begins.
            end: buckets begin before this.
            step: the length of a bucket, at least a second, or a step in the calendar of ``zone``.
            zone: whose calendar, by its IANA name.
            filters: what the runs have to fit.

        Returns:
            All buckets in order of time, also those without a run, 500 at most.

        Raises:
            ConfigurationError: there would be more than 500 buckets, or a value cannot be.
        """
        length = step if isinstance(step, CalendarStep) else times.microseconds(step)
        first = times.microseconds_from_datetime(start)
        last = times.microseconds_from_datetime(end)
        found, now = _flow_run_filters(filters), self._process.now()
        return self._database.read(
            lambda tx: run_history.run_history(
                tx, start=first, end=last, step=length, now=now, zone=zone, filters=found
            )
        )

    def create(
        self,
        flow: Flow[..., Any],
        name: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        tags: Iterable[str] | None = None,
        state: State | None = None,
        *,
        idempotency_key: str | None = None,
    ) -> FlowRun:
        """Record a run that nobody runs yet; ``flow.resume(run.id)`` runs it, in any process.

        Args:
            flow: whose run it is.
            name: of the run; made up when not given.
            parameters: what to call the flow with; defaults are filled in.
            tags: of the run, beside those of the flow and of the code around.
            state: to begin in; PENDING when not given.
            idempotency_key: when the flow has a run with it, that one is returned as it is.

        Raises:
            ParameterBindError: the parameters do not fit the flow.
            ParameterTypeError: one is not, and cannot become, what the flow declares.
            ConfigurationError: tags or a state that cannot be.
        """
        return self.get(
            self._database.write(
                creating(
                    self._process,
                    flow.spec,
                    name=name,
                    parameters=parameters or {},
                    tags=tags or (),
                    state=state or Pending(),
                    idempotency_key=idempotency_key,
                )
            )
        )

    def set_state(
        self, run_id: UUID | str, state: State, force: bool = False
    ) -> OrchestrationResult:
        """Propose a state for a run, whoever runs it; see docs/states.md for what may follow what.

        Args:
            run_id: the run.
            state: such as ``Cancelling()``, from :mod:`embedded_orch.states`.
            force: store it although a rule objects; the few that nothing overrides are asked.

        Returns:
            ``status`` (ACCEPT, REJECT, WAIT or ABORT), ``details`` with the reason, and the
            ``state`` that the run has now.

        Raises:
            RunNotFound: no flow run has this id.
            ConfigurationError: it is no state, or says something that no state can.
            ValueNotStorable: its data would not come back equal and of their type.
        """
        id = as_uuid(run_id, self._what)
        result = self._database.write(
            proposing(self._process, "flow_run", id, state, force=bool(force))
        )
        drive(moved(self._engine, id))
        return result

    def cancel(self, run_id: UUID | str) -> FlowRun:
        """Have a run end as CANCELLED, and all that it has called.

        One that runs, here or in another process, becomes CANCELLING: its code is interrupted, its
        submitted tasks and the flows that it called end first, and hooks of ``on_cancellation``
        are called. What is blocked in C goes on until it returns, and is named by the state then.
        One that nobody runs is CANCELLED at once.

        Args:
            run_id: the run.

        Returns:
            The run as it is now: CANCELLING or CANCELLED.

        Raises:
            RunNotFound: no flow run has this id.
            RunNotCancellable: it has ended otherwise.
        """
        result = self.set_state(run_id, Cancelling())
        run = self.get(run_id)
        if result.status is SetStateStatus.ABORT and not (run.state and run.state.is_cancelled()):
            raise errors.RunNotCancellable(
                f"flow run {run.name} ({run.id}) cannot be cancelled: it has ended as "
                f"{run.state_name}"
            )
        return run

    def graph(self, run_id: UUID | str) -> RunGraph:
        """Which calls a run has made, and which of them waited for which, as data to draw.

        A flow that it called is one node; its own graph is asked for by ``child_flow_run_id``.

        Raises:
            RunNotFound: no flow run has this id.
        """
        id = as_uuid(run_id, self._what)
        return self._database.read(lambda tx: run_graph(tx, flow_run_id=id))

    def get(self, id: UUID | str) -> FlowRun:
        """One of them.

        Raises:
            RunNotFound: none has this id.
        """
        found = super().get(id)
        return super().get(id) if self._end_late_pauses([found]) else found

    def _page(
        self, filters: Filters, sort: str, after: Cursor | None
    ) -> tuple[list[FlowRun], Cursor | None]:
        page, end = super()._page(filters, sort, after)
        if self._end_late_pauses(page):
            return super()._page(filters, sort, after)
        return page, end

    def _end_late_pauses(self, runs: Sequence[FlowRun]) -> bool:
        """End what was paused and not resumed in time; whether there was any."""
        timeouts = [
            run.state.state_details.pause_timeout
            for run in runs
            if run.state is not None and run.state.is_paused()
        ]
        if not timeouts:
            return False
        now = times.datetime_from_microseconds(self._process.now())
        is_late = any(timeout is not None and timeout < now for timeout in timeouts)
        return is_late and bool(drive(expire_pauses(self._engine)))

    def _get(self, tx: Transaction, ids: Sequence[UUID]) -> list[FlowRun]:
        return [FlowRun(self._database, row) for row in flow_runs.get_flow_runs(tx, ids)]

    def _find(
        self, tx: Transaction, filters: Filters, sort: str, after: Cursor | None
    ) -> tuple[list[UUID], Cursor | None]:
        return finding.find_ids(tx, "flow_run", filters, order=sort, after=after, limit=PAGE)


class TaskRuns(Records[TaskRun]):
    """Task runs; the filters are those of :class:`embedded_orch.filters.TaskRunFilters`."""

    _what: ClassVar[str] = "task run"

    def __init__(self, database: Database, process: Process) -> None:
        super().__init__(database)
        self._process = process

    def find(
        self,
        *,
        sort: TaskRunSort | str = TaskRunSort.ID_DESC,
        limit: int | None = None,
        **filters: Unpack[TaskRunFilters],
    ) -> Iterator[TaskRun]:
        """The runs that fit all filters, read a page at a time as they are taken.

        Args:
            sort: the order; newest first when not given. No task pays for an index of another
                order, so those look at every run that fits.
            limit: how many at most.
            filters: what the runs have to fit.

        Raises:
            UnknownFilter: there is no such filter or order, or it cannot have this value.
        """
        by = order(self._what, sort, TaskRunSort)
        return some(self._pages(_task_run_filters(filters), by), limit)

    def count(self, **filters: Unpack[TaskRunFilters]) -> int:
        """How many runs fit all filters.

        Raises:
            UnknownFilter: there is no such filter, or it cannot have this value.
        """
        found = _task_run_filters(filters)
        return self._database.read(lambda tx: finding.count(tx, "task_run", found))

    def set_state(
        self, run_id: UUID | str, state: State, force: bool = False
    ) -> OrchestrationResult:
        """Propose a state for a run, whoever runs it: as :meth:`FlowRuns.set_state`."""
        id = as_uuid(run_id, self._what)
        return self._database.write(
            proposing(self._process, "task_run", id, state, force=bool(force))
        )

    def _get(self, tx: Transaction, ids: Sequence[UUID]) -> list[TaskRun]:
        return [TaskRun(self._database, row) for row in task_runs.get_task_runs(tx, ids)]

    def _find(
        self, tx: Transaction, filters: Filters, sort: str, after: Cursor | None
    ) -> tuple[list[UUID], Cursor | None]:
        return finding.find_ids(tx, "task_run", filters, order=sort, after=after, limit=PAGE)


def _flow_run_filters(filters: FlowRunFilters) -> Filters:
    return checked("flow run", dict(filters), FlowRunFilters.__annotations__)


def _task_run_filters(filters: TaskRunFilters) -> Filters:
    return checked("task run", dict(filters), TaskRunFilters.__annotations__)


def some(records: Iterator[RecordT], limit: int | None) -> Iterator[RecordT]:
    """The first ``limit`` of them; all when it is None."""
    if limit is None:
        return records
    if limit < 0:
        raise errors.UnknownFilter(f"limit={limit}: it is a number of records, 0 or more")
    return islice(records, limit)
