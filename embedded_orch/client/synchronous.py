"""The synchronous client: flows, their runs and task runs of one orchestrator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from embedded_orch.client.records import RecordsOfRuns, page
from embedded_orch.client.schemas.parts import asked_by
from embedded_orch.engine.results import proposal_of
from embedded_orch.errors import OptionNotSupported, RunNotFound
from embedded_orch.filters import FlowRunSort, TaskRunSort
from embedded_orch.states import Pending, State
from embedded_orch.store import task_runs
from embedded_orch.store.flows import ensure_flow
from embedded_orch.store.task_runs import NewTaskRun

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from uuid import UUID

    from embedded_orch.client.schemas.filters import FlowFilter, FlowRunFilter, TaskRunFilter
    from embedded_orch.flows import Flow
    from embedded_orch.proposals import OrchestrationResult
    from embedded_orch.runs import FlowRecord, FlowRun, TaskRun
    from embedded_orch.tasks import Task


class SyncPrefectClient(RecordsOfRuns):
    """Runs of one orchestrator. Any thread may use it, as long as the orchestrator is open.

    Args:
        orchestrator: whose runs.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """There is nothing to close: the orchestrator stays open."""

    def api_healthcheck(self) -> Exception | None:
        """What keeps the database from being read; None when nothing does."""
        try:
            self._orchestrator.sql("select 1")
        except Exception as error:  # noqa: BLE001 - the answer, as Prefect's client gives it
            return error
        return None

    # -- flows -----------------------------------------------------------------------------------

    def create_flow(self, flow: Flow[..., Any]) -> UUID:
        """The id of a flow, which is known from then on."""
        return self.create_flow_from_name(flow.name)

    def create_flow_from_name(self, flow_name: str) -> UUID:
        """The id of the flow of this name, which is known from then on."""
        process = self._orchestrator.engine.process
        id, now = process.new_id(), process.now()
        return self._orchestrator.database.write(
            lambda tx: ensure_flow(tx, id=id, name=flow_name, now=now)
        )

    def read_flow(self, flow_id: UUID) -> FlowRecord:
        """A flow.

        Raises:
            RunNotFound: none has this id.
        """
        return self._orchestrator.flows.get(flow_id)

    def read_flow_by_name(self, flow_name: str) -> FlowRecord:
        """The flow of this name.

        Raises:
            RunNotFound: there is none.
        """
        for found in self._orchestrator.flows.find(name=flow_name):
            return found
        raise RunNotFound(f"no flow is called {flow_name!r} in {self._orchestrator.url}")

    def read_flows(
        self,
        *,
        flow_filter: FlowFilter | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[FlowRecord]:
        """Flows that fit, newest first."""
        wanted = asked_by(flow_filter)
        ids = wanted.pop("id", None)
        found = self._orchestrator.flows.find(**wanted)
        fitting = (each for each in found if ids is None or each.id in ids)
        return page(fitting, limit, offset)

    # -- flow runs -------------------------------------------------------------------------------

    def create_flow_run(  # noqa: PLR0917 - Prefect's parameters, in its order
        self,
        flow: Flow[..., Any],
        name: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        tags: Iterable[str] | None = None,
        parent_task_run_id: None = None,
        state: State[Any] | None = None,
    ) -> FlowRun:
        """Record a run that nobody runs yet; ``flow.resume(run.id)`` runs it.

        Args:
            flow: whose run.
            name: of the run; made up when not given.
            parameters: what it is to be called with; its defaults are filled in.
            context: taken for the sake of programs that give it.
            tags: of the run, besides those of the flow.
            parent_task_run_id: None: the runs of flows that a flow calls are made by calling them.
            state: its first state; Pending when not given.

        Raises:
            OptionNotSupported: it is to be a part of another run.
            ParameterBindError: the parameters do not fit the flow.
        """
        if parent_task_run_id is not None:
            raise OptionNotSupported(
                "create_flow_run(parent_task_run_id=...): call the flow in the task instead"
            )
        runs = self._orchestrator.flow_runs
        return runs.create(flow, name, parameters, tags, state)

    def read_flow_run(self, flow_run_id: UUID) -> FlowRun:
        """A flow run.

        Raises:
            RunNotFound: none has this id.
        """
        return self._orchestrator.flow_runs.get(flow_run_id)

    def read_flow_runs(
        self,
        *,
        flow_filter: FlowFilter | None = None,
        flow_run_filter: FlowRunFilter | None = None,
        sort: FlowRunSort | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[FlowRun]:
        """Flow runs that fit all that is given, 200 at most."""
        wanted = {**_of_flow(flow_filter), **asked_by(flow_run_filter)}
        found = self._orchestrator.flow_runs.find(sort=sort or FlowRunSort.ID_DESC, **wanted)
        return page(found, limit, offset)

    def count_flow_runs(
        self,
        *,
        flow_filter: FlowFilter | None = None,
        flow_run_filter: FlowRunFilter | None = None,
    ) -> int:
        """How many flow runs fit all that is given."""
        wanted = {**_of_flow(flow_filter), **asked_by(flow_run_filter)}
        return self._orchestrator.flow_runs.count(**wanted)

    def read_flow_run_states(self, flow_run_id: UUID) -> list[State[Any]]:
        """All states of a flow run, oldest first.

        Raises:
            RunNotFound: none has this id.
        """
        return self.read_flow_run(flow_run_id).history

    def set_flow_run_state(
        self, flow_run_id: UUID | str, state: State[Any], force: bool = False
    ) -> OrchestrationResult:
        """Propose a state for a flow run; see ``orch.flow_runs.set_state()``."""
        return self._orchestrator.flow_runs.set_state(flow_run_id, state, force)

    # -- task runs -------------------------------------------------------------------------------

    def create_task_run(  # noqa: PLR0917 - Prefect's parameters, in its order
        self,
        task: Task[..., Any],
        flow_run_id: UUID | None,
        dynamic_key: str,
        id: UUID | None = None,
        name: str | None = None,
        extra_tags: Iterable[str] | None = None,
        state: State[Any] | None = None,
    ) -> TaskRun:
        """Make a task run; the one that is there when the call has one already.

        Args:
            task: what is called.
            flow_run_id: the flow run that it belongs to, if any.
            dynamic_key: which call of the task it is; no other task of the run has the same where
                it begins with ``~``, as those of calls do.
            id: of the run.
            name: of the run; the task's when not given.
            extra_tags: besides those of the task.
            state: its first state; Pending when not given.
        """
        spec, process = task.spec, self._orchestrator.engine.process
        if flow_run_id is not None:
            there = self._task_run_of_call(flow_run_id, spec.key, dynamic_key)
            if there is not None:
                return there
        new = NewTaskRun(
            id=id or process.new_id(),
            flow_run_id=flow_run_id,
            parent_task_run_id=None,
            name=name or spec.name,
            task_key=spec.key,
            dynamic_key=dynamic_key,
            source_hash=spec.recorded_source,
            tags=list(dict.fromkeys([*spec.tags, *(extra_tags or ())])),
            policy=spec.policy,
        )
        now = process.now()
        first = proposal_of(state or Pending(), id=process.new_id(), now=now)
        self._orchestrator.database.write(
            lambda tx: task_runs.start_task_run(tx, new, [first], now=now, epoch=None)
        )
        return self._orchestrator.task_runs.get(new.id)

    def _task_run_of_call(
        self, flow_run_id: UUID, task_key: str, dynamic_key: str
    ) -> TaskRun | None:
        call = self._orchestrator.database.read(
            lambda tx: task_runs.find_call(
                tx, flow_run_id=flow_run_id, task_key=task_key, dynamic_key=dynamic_key
            )
        )
        return None if call is None else self._orchestrator.task_runs.get(call.id)

    def read_task_run(self, task_run_id: UUID) -> TaskRun:
        """A task run.

        Raises:
            RunNotFound: none has this id.
        """
        return self._orchestrator.task_runs.get(task_run_id)

    def read_task_runs(
        self,
        *,
        flow_filter: FlowFilter | None = None,
        flow_run_filter: FlowRunFilter | None = None,
        task_run_filter: TaskRunFilter | None = None,
        sort: TaskRunSort | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[TaskRun]:
        """Task runs that fit all that is given, 200 at most."""
        wanted = asked_by(task_run_filter)
        of_flow_runs = {**_of_flow(flow_filter), **asked_by(flow_run_filter)}
        if of_flow_runs:
            found_runs = [run.id for run in self._orchestrator.flow_runs.find(**of_flow_runs)]
            given = wanted.get("flow_run_id")
            wanted["flow_run_id"] = [id for id in found_runs if given is None or id in given]
        found = self._orchestrator.task_runs.find(sort=sort or TaskRunSort.ID_DESC, **wanted)
        return page(found, limit, offset)

    def read_task_run_states(self, task_run_id: UUID) -> list[State[Any]]:
        """All states of a task run, oldest first.

        Raises:
            RunNotFound: none has this id.
        """
        return self.read_task_run(task_run_id).history

    def set_task_run_state(
        self, task_run_id: UUID | str, state: State[Any], force: bool = False
    ) -> OrchestrationResult:
        """Propose a state for a task run; see ``orch.task_runs.set_state()``."""
        return self._orchestrator.task_runs.set_state(task_run_id, state, force)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._orchestrator.url}>"


def _of_flow(flow_filter: FlowFilter | None) -> dict[str, Any]:
    """A filter of flows as one of their runs: ``name`` is ``flow_name``."""
    return {f"flow_{name}": value for name, value in asked_by(flow_filter).items()}
