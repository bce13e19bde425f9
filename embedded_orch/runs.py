"""Flow runs and task runs, as people read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

import msgspec

from embedded_orch import times, values
from embedded_orch.orchestration.values import Policy
from embedded_orch.process import OWN
from embedded_orch.states import TERMINAL_TYPES, StateType
from embedded_orch.store import flow_runs, task_runs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime, timedelta

    from embedded_orch.db.port import Database
    from embedded_orch.logs import LogLine
    from embedded_orch.states import State
    from embedded_orch.store.flow_runs import FlowRunRow
    from embedded_orch.store.flows import FlowRow
    from embedded_orch.store.task_runs import TaskRunRow


class FlowRecord:
    """A flow as the database knows it: by its name.

    Attributes:
        id: of the flow.
        name: of the flow.
        tags: of the flow.
    """

    __slots__ = ("_created", "id", "name", "tags")

    def __init__(self, row: FlowRow) -> None:
        self.id: UUID = row.id
        self.name = row.name
        self.tags = list(row.tags)
        self._created = row.created

    @property
    def created(self) -> datetime:
        """When it first ran, UTC."""
        return times.datetime_from_microseconds(self._created)

    def __repr__(self) -> str:
        return f"<FlowRecord {self.name} {self.id}>"


class Run:
    """What flow runs and task runs have in common. A snapshot: reading it again is a new one.

    Attributes:
        id: of the run.
        name: for people.
        state: the current state.
        run_count: how often it was attempted.
    """

    __slots__ = ("_database", "_row", "id", "name", "run_count", "state")

    def __init__(self, database: Database, row: FlowRunRow | TaskRunRow) -> None:
        self._database = database
        self._row = row
        self.id: UUID = row.id
        self.name: str = row.name
        self.state: State | None = row.state
        self.run_count: int = row.run_count

    @property
    def state_id(self) -> UUID | None:
        """The id of its state."""
        return None if self.state is None else self.state.id

    @property
    def state_type(self) -> StateType | None:
        """The type of its state."""
        return None if self.state is None else self.state.type

    @property
    def state_name(self) -> str | None:
        """The name of its state."""
        return None if self.state is None else self.state.name

    @property
    def created(self) -> datetime:
        """When it was made, UTC."""
        return times.datetime_from_microseconds(self._row.created)

    @property
    def updated(self) -> datetime:
        """When it was last changed, UTC: of a task run, when it came to its state."""
        return times.datetime_from_microseconds(self._row.updated)

    @property
    def expected_start_time(self) -> datetime | None:
        """When it was first due, UTC."""
        return times.optional_datetime(self._row.expected_start_time)

    @property
    def next_scheduled_start_time(self) -> datetime | None:
        """When it is due next, UTC; None unless it is SCHEDULED."""
        return times.optional_datetime(self._row.next_scheduled_start_time)

    @property
    def start_time(self) -> datetime | None:
        """When it first ran, UTC."""
        return times.optional_datetime(self._row.start_time)

    @property
    def end_time(self) -> datetime | None:
        """When it ended, UTC."""
        return times.optional_datetime(self._row.end_time)

    @property
    def total_run_time(self) -> timedelta:
        """How long it has been RUNNING, over all attempts that ended."""
        return times.duration(self._row.total_run_time)

    @property
    def estimated_run_time(self) -> timedelta:
        """:attr:`total_run_time`, and since when it is RUNNING now, if it is."""
        if self.state is None or self.state_type is not StateType.RUNNING:
            return self.total_run_time
        running = OWN.now() - self.state.timestamp_microseconds
        return times.duration(self._row.total_run_time + max(0, running))

    @property
    def estimated_start_time_delta(self) -> timedelta:
        """How late it began; of a run that has not, how late it is now."""
        expected, started = self._row.expected_start_time, self._row.start_time
        if expected is None or (started is None and self.state_type in TERMINAL_TYPES):
            return times.duration(0)
        return times.duration(max(0, (OWN.now() if started is None else started) - expected))

    @property
    def tags(self) -> list[str]:
        """Its tags."""
        return list(self._row.tags or ())

    @property
    def labels(self) -> dict[str, Any]:
        """Its labels."""
        return dict(self._row.labels or {})

    @property
    def empirical_policy(self) -> Policy:
        """What it may do by itself: its retries."""
        return msgspec.convert(self._row.empirical_policy or {}, Policy)

    def logs(
        self, *, limit: int | None = None, min_level: int | str | None = None
    ) -> Iterator[LogLine]:
        """What it has logged, oldest first; read when asked for.

        A flow run's lines are those of its task runs too, and not those of flows that they called.

        Args:
            limit: how many lines at most.
            min_level: a number or a name of ``logging``, inclusive.

        Raises:
            UnknownFilter: an argument cannot have its value.
        """
        from embedded_orch.logs import Logs

        found = Logs(self._database)
        if isinstance(self, FlowRun):
            return found.find(flow_run_id=self.id, min_level=min_level, limit=limit)
        return found.find(task_run_id=self.id, min_level=min_level, limit=limit)

    def __repr__(self) -> str:
        state = self.state.name if self.state is not None else "no state"
        return f"<{type(self).__name__} {self.name} {self.id}: {state}>"


class FlowRun(Run):
    """One run of a flow.

    Attributes:
        flow_name: of the flow.
        on_crash: what becomes of it when its process dies.
    """

    __slots__ = ("_flow_row", "flow_name", "on_crash")

    def __init__(self, database: Database, row: FlowRunRow) -> None:
        super().__init__(database, row)
        self._flow_row = row
        self.flow_name = row.flow_name
        self.on_crash = row.on_crash

    @property
    def flow_id(self) -> UUID:
        """The flow."""
        return self._flow_row.flow_id

    @property
    def flow_version(self) -> str | None:
        """The version that the flow had."""
        return self._flow_row.flow_version

    @property
    def idempotency_key(self) -> str | None:
        """The key under which it was made, so that it is made once."""
        return self._flow_row.idempotency_key

    @property
    def deployment_id(self) -> UUID | None:
        """The deployment that it is a run of, if any."""
        return self._flow_row.deployment_id

    @property
    def parent_task_run_id(self) -> UUID | None:
        """The task run that called it, for a flow that a flow called."""
        return self._flow_row.parent_task_run_id

    @property
    def parameters(self) -> dict[str, Any]:
        """What it was called with, as far as that could be stored."""
        found = values.decode(self._flow_row.parameters)
        assert isinstance(found, dict)
        return found

    @property
    def unstored_parameters(self) -> dict[str, str]:
        """Name and type of the parameters that could not be stored."""
        return dict(self._flow_row.unstored_parameters)

    @property
    def history(self) -> list[State]:
        """All its states, oldest first; read when asked for."""
        return self._database.read(
            lambda tx: flow_runs.flow_run_history(
                tx, run_id=self.id, parent_task_run_id=self.parent_task_run_id
            )
        )


class TaskRunResult(msgspec.Struct, frozen=True):
    """A task run that another one depends on."""

    id: UUID
    input_type: Literal["task_run"] = "task_run"


class TaskRun(Run):
    """One run of a task: one call of it.

    Attributes:
        task_key: the qualified name of the task's function.
        dynamic_key: which call of it.
    """

    __slots__ = ("_task_row", "dynamic_key", "task_key")

    def __init__(self, database: Database, row: TaskRunRow) -> None:
        super().__init__(database, row)
        self._task_row = row
        self.task_key = row.task_key
        self.dynamic_key = row.dynamic_key

    @property
    def flow_run_id(self) -> UUID | None:
        """The flow run it belongs to, if any."""
        return self._task_row.flow_run_id

    @property
    def parent_task_run_id(self) -> UUID | None:
        """The task run that called it, for a task that a task called."""
        return self._task_row.parent_task_run_id

    @property
    def task_inputs(self) -> dict[str, list[TaskRunResult]]:
        """The task runs that it depends on: by parameter, and under ``wait_for``.

        Those are runs whose future or state the parameter was or held, or whose result it held:
        that very object, in the same flow run. ``__parents__`` has the task run that called it.
        """
        rows = self._task_row.task_inputs or {}
        found = {
            name: [TaskRunResult(UUID(each["id"])) for each in inputs]
            for name, inputs in rows.items()
        }
        parent = self._task_row.parent_task_run_id
        return found if parent is None else {**found, "__parents__": [TaskRunResult(parent)]}

    @property
    def task_version(self) -> str | None:
        """The version that the task had."""
        return self._task_row.task_version

    @property
    def flow_run_run_count(self) -> int:
        """Which attempt of its flow run it ran in last."""
        return self._task_row.flow_run_run_count

    @property
    def history(self) -> list[State]:
        """All its states, oldest first; read when asked for."""
        return self._database.read(
            lambda tx: task_runs.task_run_history(tx, run_id=self.id, flow_run_id=self.flow_run_id)
        )
