"""The task run that the running code is in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedded_orch.engine.contexts import current_task_run
from embedded_orch.runtime.here import attributes_of, none, told_of
from embedded_orch.runtime.overriding import Attribute, value_of

if TYPE_CHECKING:
    from embedded_orch.engine.contexts import TaskRunContext

    id: str | None
    """Of the run."""
    name: str | None
    """Of the run."""
    tags: list[str]
    """Of the run."""
    parameters: dict[str, Any]
    """What it was called with: the values themselves."""
    run_count: int
    """Which attempt this is, from 1 on."""
    task_name: str | None
    """Of the task."""
    api_url: str | None
    """None: there is no server."""
    ui_url: str | None
    """None: there is no server."""

__all__ = ["api_url", "id", "name", "parameters", "run_count", "tags", "task_name", "ui_url"]


def _task_name(here: TaskRunContext) -> str:
    return here.task.name


_ATTRIBUTES = attributes_of(current_task_run) | {
    "task_name": Attribute(told_of(current_task_run, _task_name, none)),
}


def __getattr__(name: str) -> Any:
    return value_of("task_run", name, _ATTRIBUTES)


def __dir__() -> list[str]:
    return sorted(__all__)
