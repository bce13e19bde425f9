"""The run that the running code is in, as user code reads it."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from embedded_orch import times
from embedded_orch.engine import contexts
from embedded_orch.engine.showing import flow_run_shown, task_run_shown
from embedded_orch.engine.tags import current_tags, tags
from embedded_orch.errors import MissingContextError

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from embedded_orch.engine.transactions import BaseTransaction
    from embedded_orch.flows import Flow
    from embedded_orch.runs import FlowRun, TaskRun
    from embedded_orch.tasks import Task

__all__ = [
    "FlowRunContext",
    "MissingContextError",
    "TagsContext",
    "TaskRunContext",
    "get_run_context",
    "tags",
]


class RunHere:
    """A run that goes on here. What is known without asking is; the rest is read when asked for.

    Attributes:
        id: of the run.
        name: for people.
        tags: of the run.
        run_count: which attempt this is.
    """

    def __init__(self, here: contexts.FlowRunContext | contexts.TaskRunContext) -> None:
        self._here = here
        self.id: UUID = here.run_id
        self.name = here.name
        self.tags = list(here.tags)
        self.run_count = here.run_count

    def __getattr__(self, name: str) -> Any:
        """What a run on record has, as of now."""
        if name.startswith("_"):
            raise AttributeError(f"a run has no attribute {name!r}")
        return getattr(self._read(), name)

    def _read(self) -> FlowRun | TaskRun:
        raise TypeError("a run says how it is read")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.id}>"


class FlowRunHere(RunHere):
    """A flow run that goes on here; see :class:`embedded_orch.FlowRun`.

    Attributes:
        parameters: what it was called with: the values themselves.
    """

    def __init__(self, here: contexts.FlowRunContext) -> None:
        super().__init__(here)
        self.parameters = dict(here.parameters)

    def _read(self) -> FlowRun:
        return flow_run_shown(self._here.engine.database, self.id).perform()


class TaskRunHere(RunHere):
    """A task run that goes on here; see :class:`embedded_orch.TaskRun`.

    Attributes:
        flow_run_id: the flow run it belongs to, if any.
        task_key: the qualified name of the task's function.
    """

    def __init__(self, here: contexts.TaskRunContext) -> None:
        super().__init__(here)
        self.flow_run_id = None if here.flow_run is None else here.flow_run.run_id
        self.task_key = here.task.key

    def _read(self) -> TaskRun:
        return task_run_shown(self._here.engine.database, self.id).perform()


class FlowRunContext:
    """The flow run that the running code is in.

    Attributes:
        flow: the flow.
        parameters: what it was called with, by parameter.
        here: the engine's own, for ours that are given this one.
    """

    def __init__(self, here: contexts.FlowRunContext) -> None:
        self.here = here
        decorated: Any = here.flow.decorated
        self.flow: Flow[..., Any] = decorated
        self.parameters = dict(here.parameters)

    @cached_property
    def flow_run(self) -> FlowRunHere:
        """The run."""
        return FlowRunHere(self.here)

    @cached_property
    def start_time(self) -> datetime:
        """When this attempt began, UTC."""
        return times.datetime_from_microseconds(self.here.start_time)

    @property
    def transaction(self) -> BaseTransaction:
        """The block of a transaction that the running code is in.

        Raises:
            MissingContextError: it is in none.
        """
        from embedded_orch.transactions import get_transaction

        found = get_transaction()
        if found is None:
            raise MissingContextError(
                "no transaction is open in this flow; use `with transaction():` around this"
            )
        return found

    @classmethod
    def get(cls) -> Self | None:
        """The one of the running code; None where no flow runs."""
        here = contexts.current_flow_run()
        return None if here is None else cls(here)

    def __repr__(self) -> str:
        return f"<FlowRunContext {self.flow_run.name}>"


class TaskRunContext:
    """The task run that the running code is in.

    Attributes:
        task: the task.
        parameters: what it was called with, by parameter.
        here: the engine's own, for ours that are given this one.
    """

    def __init__(self, here: contexts.TaskRunContext) -> None:
        self.here = here
        decorated: Any = here.task.decorated
        self.task: Task[..., Any] = decorated
        self.parameters = dict(here.parameters)

    @cached_property
    def task_run(self) -> TaskRunHere:
        """The run."""
        return TaskRunHere(self.here)

    @cached_property
    def start_time(self) -> datetime:
        """When this attempt began, UTC."""
        return times.datetime_from_microseconds(self.here.start_time)

    @property
    def transaction(self) -> BaseTransaction:
        """The transaction that this task run is; its ``connection`` commits with its completion."""
        return self.here.transaction

    @classmethod
    def get(cls) -> Self | None:
        """The one of the running code; None where no task runs."""
        here = contexts.current_task_run()
        return None if here is None else cls(here)

    def __repr__(self) -> str:
        return f"<TaskRunContext {self.task_run.name}>"


class TagsContext:
    """The tags that runs called here get.

    Attributes:
        current_tags: of all blocks of :func:`tags` around the running code.
    """

    def __init__(self) -> None:
        self.current_tags = set(current_tags())

    @classmethod
    def get(cls) -> Self:
        """Those of the running code."""
        return cls()


def get_run_context() -> FlowRunContext | TaskRunContext:
    """The innermost run that the running code is in: its task run, else its flow run.

    Raises:
        MissingContextError: no flow and no task runs here.
    """
    found = TaskRunContext.get() or FlowRunContext.get()
    if found is None:
        raise MissingContextError(
            "get_run_context() was called where no flow and no task runs; call it inside one"
        )
    return found
