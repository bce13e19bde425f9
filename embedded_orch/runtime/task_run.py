"""The task run that the running code is in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedded_orch.engine.contexts import current_task_run
from embedded_orch.runtime.overriding import Attribute, json, value_of

if TYPE_CHECKING:
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


def _id() -> str | None:
    here = current_task_run()
    return None if here is None else str(here.run_id)


def _name() -> str | None:
    here = current_task_run()
    return None if here is None else here.name


def _tags() -> list[str]:
    here = current_task_run()
    return [] if here is None else list(here.tags)


def _parameters() -> dict[str, Any]:
    here = current_task_run()
    return {} if here is None else dict(here.parameters)


def _run_count() -> int:
    here = current_task_run()
    return 0 if here is None else here.run_count


def _task_name() -> str | None:
    here = current_task_run()
    return None if here is None else here.task.name


def _none() -> None:
    return None


_ATTRIBUTES = {
    "id": Attribute(_id),
    "name": Attribute(_name),
    "tags": Attribute(_tags, json),
    "parameters": Attribute(_parameters, json),
    "run_count": Attribute(_run_count, int),
    "task_name": Attribute(_task_name),
    "api_url": Attribute(_none),
    "ui_url": Attribute(_none),
}


def __getattr__(name: str) -> Any:
    return value_of("task_run", name, _ATTRIBUTES)


def __dir__() -> list[str]:
    return sorted(__all__)
