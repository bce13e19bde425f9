"""The flow run and task run that the running code is in."""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

from embedded_orch.engine import log_settings
from embedded_orch.engine.cancellation import Cancellation
from embedded_orch.engine.links import Links
from embedded_orch.engine.occurrences import Occurrences

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from embedded_orch.engine.connection import AnyConnection
    from embedded_orch.engine.engine import Engine
    from embedded_orch.engine.hits import Hits
    from embedded_orch.engine.keeping import Keeping
    from embedded_orch.engine.options import Match, OnChange, OnCrash
    from embedded_orch.engine.records import Choices, Records
    from embedded_orch.engine.runner import Runner
    from embedded_orch.engine.specs import FlowSpec, Spec, TaskSpec
    from embedded_orch.engine.task_record import TaskRecord
    from embedded_orch.engine.transactions import BaseTransaction
    from embedded_orch.values import InputsHash


class FlowRunContext:
    """One attempt at a flow run: made when the function is called, gone when it returns.

    Attributes:
        engine: that runs it.
        flow: what runs.
        run_id: the flow run.
        name: of the run.
        epoch: in which this process owns the run.
        run_count: which attempt this is.
        records: what earlier attempts have on record; None when there was none.
        has_records: whether earlier attempts may have completed some calls.
        choices: what was chosen for this resume, which goes for the flows that it calls too.
        on_change: what it leads to that a resumed run has changed.
        match: how calls find their records.
        on_crash: what becomes of the run when its process dies.
        parameters: what the flow was called with.
        tags: of the run.
        start_time: of this attempt, in microseconds since 1970 UTC.
        log_prints: whether what it prints is kept.
        caller: the flow run that calls it, if any.
        links: which task run made which objects.
        occurrences: which of equal calls a call is.
        keeping: how its value is kept, and those of what it calls that say nothing else.
        cancellation: of the run, which somebody may ask for.
        hits: of its tasks, which may be announced; they are awaited when None.
        is_over: whether the attempt has ended, with all that it submitted.
    """

    __slots__ = (
        "__weakref__",
        "_counting",
        "_numbers",
        "_pauses",
        "_runner",
        "_waits",
        "caller",
        "cancellation",
        "choices",
        "engine",
        "epoch",
        "flow",
        "has_loose_ends",
        "has_records",
        "hits",
        "is_over",
        "keeping",
        "links",
        "log_prints",
        "match",
        "name",
        "occurrences",
        "on_change",
        "on_crash",
        "parameters",
        "records",
        "run_count",
        "run_id",
        "start_time",
        "tags",
    )

    def __init__(
        self,
        engine: Engine,
        flow: FlowSpec,
        *,
        run_id: UUID,
        name: str,
        epoch: int,
        run_count: int,
        on_crash: OnCrash,
        parameters: Mapping[str, Any],
        tags: tuple[str, ...],
        start_time: int,
        caller: FlowRunContext | None,
        keeping: Keeping,
        cancellation: Cancellation | None = None,
        has_records: bool = False,
        choices: Choices | None = None,
        hits: Hits | None = None,
    ) -> None:
        self.engine = engine
        self.flow = flow
        self.run_id = run_id
        self.name = name
        self.epoch = epoch
        self.run_count = run_count
        self.records: Records | None = None
        self.has_records = has_records
        self.choices = choices
        self.hits = hits
        chosen = None if choices is None else choices.on_change
        self.on_change: OnChange = (
            chosen or flow.options.on_change or ("keep" if caller is None else caller.on_change)
        )
        matched = None if choices is None else choices.match
        self.match: Match = (
            matched or flow.options.match or ("inputs" if caller is None else caller.match)
        )
        self.on_crash: OnCrash = on_crash
        self.parameters = parameters
        self.tags = tags
        self.start_time = start_time
        self.caller = caller
        self.links = Links()
        self.keeping = keeping
        self.cancellation: Cancellation = cancellation or Cancellation(
            run_id, name, None if caller is None else caller.cancellation
        )
        self.log_prints = prints_are_kept(flow, caller)
        self.is_over = False
        # A state of a run that it called could not be written: it is not what its row says.
        self.has_loose_ends = False
        self.occurrences = Occurrences(lets_go=not has_records)
        self._counting = threading.Lock()
        self._runner: Runner | None = None
        self._pauses = 0
        self._waits: dict[str, int] = {}
        self._numbers: dict[tuple[UUID | None, str], int] = {}

    def next_number(self, task: TaskSpec, parent: UUID | None) -> int:
        """Which call of a task by one caller this is, from 0; they are counted as they are made.

        Not when they begin: where tasks are submitted, a thread may bring any of them first.
        """
        place = parent, task.key
        with self._counting:
            number = self._numbers.get(place, 0)
            self._numbers[place] = number + 1
        return number

    def calls_made(self, parent: UUID | None, task_key: str) -> int:
        """How many calls of a task one caller has made in this attempt."""
        return self._numbers.get((parent, task_key), 0)

    def next_pause(self, key: str | None) -> str:
        """The key of the next pause of the run: its place, when none is given."""
        with self._counting:
            self._pauses += 1
            return key or str(self._pauses)

    def next_wait(self, what: str, key: str | None) -> str:
        """The key of the next wait of a kind: its place among them, when none is given."""
        with self._counting:
            place = self._waits[what] = self._waits.get(what, 0) + 1
            return key or str(place)

    @property
    def flow_run_id(self) -> UUID:
        """The flow run."""
        return self.run_id

    @property
    def task_run_id(self) -> None:
        """None: it is not in a task run."""
        return

    @property
    def label(self) -> str:
        """The run, for people."""
        return self.name

    @property
    def runner(self) -> Runner:
        """Where submitted tasks run; made with the first of them."""
        with self._counting:
            if self._runner is None:
                from embedded_orch.engine.runner import Runner

                source = self.flow.options.task_runner
                self._runner = Runner() if source is None else source.open_runner()
            return self._runner

    @property
    def has_runner(self) -> bool:
        """Whether something was submitted."""
        return self._runner is not None

    def running_names(self) -> list[str]:
        """The names of submitted task runs that have begun and have not ended."""
        return [] if self._runner is None else self._runner.running_names()

    def abandon_runner(self) -> None:
        """Cancel and interrupt what was submitted, and wait for nothing."""
        if self._runner is not None:
            self._runner.interrupt()

    def stop_runner(self, *, is_interrupting: bool) -> None:
        """Cancel submitted tasks that have not begun, and wait for those that have.

        Args:
            is_interrupting: have those that have begun end now.
        """
        if self._runner is not None:
            if is_interrupting:
                self._runner.interrupt()
            self._runner.stop()

    def __repr__(self) -> str:
        return f"<FlowRunContext {self.name} {self.run_id}>"


class TaskRunContext:
    """One attempt at a task run: made when the function is called, gone when it returns.

    Attributes:
        engine: that runs it.
        task: what runs.
        flow_run: the flow run it belongs to, if any.
        run_id: the task run.
        name: of the run.
        run_count: which attempt this is.
        parameters: what the task was called with.
        inputs: their hash, where the record of the call is found by it.
        tags: of the run.
        start_time: of this attempt, in microseconds since 1970 UTC.
        around: what the call was made in: a block of a transaction, or the task run that made it.
        is_tracker: whether it only stands for a flow that was called.
        record: what stands of it in the database.
        log_prints: whether what it prints is kept.
    """

    __slots__ = (
        "__weakref__",
        "_connection",
        "_transaction",
        "around",
        "engine",
        "flow_run",
        "inputs",
        "is_tracker",
        "log_prints",
        "name",
        "parameters",
        "record",
        "run_count",
        "run_id",
        "start_time",
        "tags",
        "task",
    )

    def __init__(
        self,
        engine: Engine,
        task: TaskSpec,
        flow_run: FlowRunContext | None,
        *,
        run_id: UUID,
        name: str,
        run_count: int,
        parameters: Mapping[str, Any],
        inputs: InputsHash | None,
        tags: tuple[str, ...],
        start_time: int,
        around: BaseTransaction | TaskRunContext | None,
        is_tracker: bool,
        record: TaskRecord,
    ) -> None:
        self.engine = engine
        self.task = task
        self.flow_run = flow_run
        self.run_id = run_id
        self.name = name
        self.run_count = run_count
        self.parameters = parameters
        self.inputs = inputs
        self.tags = tags
        self.start_time = start_time
        self.around = around
        self.is_tracker = is_tracker
        self.record = record
        self.log_prints = prints_are_kept(task, flow_run)
        self._transaction: BaseTransaction | None = None
        self._connection: AnyConnection | None = None

    @property
    def flow_run_id(self) -> UUID | None:
        """The flow run it belongs to, if any."""
        return None if self.flow_run is None else self.flow_run.run_id

    @property
    def task_run_id(self) -> UUID:
        """The task run."""
        return self.run_id

    @property
    def label(self) -> str:
        """The run, for people."""
        return self.name if self.flow_run is None else f"{self.flow_run.name}/{self.name}"

    @property
    def transaction(self) -> BaseTransaction:
        """The transaction that this task run is; made when it is asked for."""
        if self._transaction is None:
            from embedded_orch.engine.transactions import transaction_of

            self._transaction = transaction_of(self)
        return self._transaction

    @property
    def is_in_transaction(self) -> bool:
        """Whether its end matters to a transaction: one here, one around it, or its hooks."""
        if self.is_tracker:
            return False
        if self._transaction is not None or transaction_context.get() is not None:
            return True
        hooks = self.task.options.hooks
        return bool(hooks["on_commit"] or hooks["on_rollback"])

    @property
    def connection(self) -> AnyConnection:
        """The user's own SQL in this attempt; nothing is open until something is executed."""
        if self._connection is None:
            from embedded_orch.engine.connection import AsyncTaskConnection, TaskConnection

            kind = AsyncTaskConnection if self.task.is_async else TaskConnection
            self._connection = kind(self.engine.database)
        return self._connection

    @property
    def open_connection(self) -> AnyConnection | None:
        """The same, if something was executed."""
        connection = self._connection
        return connection if connection is not None and connection.is_open else None

    def __repr__(self) -> str:
        return f"<TaskRunContext {self.name} {self.run_id}>"


RunContext = FlowRunContext | TaskRunContext

flow_run_context: ContextVar[FlowRunContext | None] = ContextVar("flow_run", default=None)
task_run_context: ContextVar[TaskRunContext | None] = ContextVar("task_run", default=None)
transaction_context: ContextVar[BaseTransaction | None] = ContextVar("transaction", default=None)


class HeldSlots(NamedTuple):
    """A claim on slots, and who holds them: a thread, and a task of an event loop if in one."""

    claim_id: UUID
    thread: int
    task: object | None


holds_slots: ContextVar[tuple[HeldSlots, ...]] = ContextVar("holds_slots", default=())
"""The slots that the running code and its callers hold, the outermost first.

Who holds some is not kept behind those who wait. What runs beside the holder, as a submitted task
does, inherits them, but the holder need not wait for it.
"""

_PLACE: tuple[ContextVar[Any], ...] = (
    flow_run_context,
    task_run_context,
    transaction_context,
    holds_slots,
)


def place_here() -> tuple[object, ...]:
    """Which runs and which transaction the code here is in, and whether it holds slots."""
    return tuple([variable.get() for variable in _PLACE])


def go_to(place: tuple[object, ...]) -> None:
    """The code that follows is there, whichever context it has.

    Where code may go on in another context, as that of a generator does, tokens cannot be reset.
    """
    for variable, value in zip(_PLACE, place, strict=True):
        variable.set(value)


def current_flow_run() -> FlowRunContext | None:
    """The flow run that the running code is in, if it goes on.

    Code of a run that is over is in none: a thread or task that its function left behind, or the
    caller, when Ctrl-C came just before the context was put back.
    """
    found = flow_run_context.get()
    return None if found is None or found.is_over else found


def current_task_run() -> TaskRunContext | None:
    """The task run that the running code is in, if its flow run goes on."""
    found = task_run_context.get()
    return found if found is not None and is_going_on(found) else None


def is_going_on(run: RunContext) -> bool:
    """Whether a run, or the flow run that it belongs to, is not over."""
    flow_run = run if isinstance(run, FlowRunContext) else run.flow_run
    return flow_run is None or not flow_run.is_over


def prints_are_kept(spec: FlowSpec | TaskSpec, caller: FlowRunContext | None) -> bool:
    """Whether a run says so, or the flow run that calls it, or the environment."""
    option = spec.options.log_prints
    if option is not None:
        return option
    return log_settings.log_prints() if caller is None else caller.log_prints


def current_run() -> Spec | None:
    """What the innermost run is a run of, if there is one that goes on."""
    task_run, flow_run = current_task_run(), current_flow_run()
    if task_run is not None:
        return task_run.task
    return None if flow_run is None else flow_run.flow


def surrounding() -> BaseTransaction | TaskRunContext | None:
    """What the running code is in: the block of a transaction, or a task run, the inner one."""
    block, task_run = transaction_context.get(), current_task_run()
    if task_run is None or (block is not None and block.opened_in is task_run):
        return block
    return task_run
