"""The flow run that the running code is in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedded_orch import process, times
from embedded_orch.engine.contexts import FlowRunContext, current_flow_run
from embedded_orch.engine.showing import flow_run_shown, task_run_shown
from embedded_orch.runtime.here import attributes_of, none, told_of
from embedded_orch.runtime.overriding import Attribute, json, moment, value_of

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from embedded_orch.runs import FlowRun

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
    scheduled_start_time: datetime
    """When it was first due, UTC; the time now outside of a run."""
    flow_name: str | None
    """Of the flow."""
    flow_version: str | None
    """Of the flow."""
    parent_flow_run_id: str | None
    """The flow run that called it, if any."""
    root_flow_run_id: str | None
    """The one at the top: that called the one that called it, and so on; itself when none did."""
    parent_deployment_id: str | None
    """None: there are no deployments yet."""
    job_variables: dict[str, Any] | None
    """Empty: there are no deployments yet."""
    api_url: str | None
    """None: there is no server."""
    ui_url: str | None
    """None: there is no server."""

__all__ = [
    "api_url",
    "flow_name",
    "flow_version",
    "id",
    "job_variables",
    "name",
    "parameters",
    "parent_deployment_id",
    "parent_flow_run_id",
    "root_flow_run_id",
    "run_count",
    "scheduled_start_time",
    "tags",
    "ui_url",
]


def _scheduled_start_time() -> datetime:
    here = current_flow_run()
    if here is None:
        return times.datetime_from_microseconds(process.OWN.now())
    found = _on_record(here).expected_start_time
    return times.datetime_from_microseconds(here.start_time) if found is None else found


def _parent_flow_run_id() -> str | None:
    here = current_flow_run()
    found = None if here is None else _caller_of(here)
    return None if found is None else str(found)


def _root_flow_run_id() -> str | None:
    here = current_flow_run()
    if here is None:
        return None
    while here.caller is not None:
        here = here.caller
    root, above = here.run_id, _caller_of(here)
    while above is not None:
        root, above = above, _caller_on_record(here, above)
    return str(root)


def _caller_of(here: FlowRunContext) -> UUID | None:
    if here.caller is not None:
        return here.caller.run_id
    # Only a run that was taken over by itself can have a caller that does not run here.
    return _caller_on_record(here, here.run_id) if here.has_records else None


def _caller_on_record(here: FlowRunContext, run_id: UUID) -> UUID | None:
    database = here.engine.database
    tracked_by = flow_run_shown(database, run_id).perform().parent_task_run_id
    if tracked_by is None:
        return None
    return task_run_shown(database, tracked_by).perform().flow_run_id


def _on_record(here: FlowRunContext) -> FlowRun:
    return flow_run_shown(here.engine.database, here.run_id).perform()


_ATTRIBUTES = attributes_of(current_flow_run) | {
    "scheduled_start_time": Attribute(_scheduled_start_time, moment),
    "flow_name": Attribute(told_of(current_flow_run, lambda here: here.flow.name, none)),
    "flow_version": Attribute(told_of(current_flow_run, lambda here: here.flow.version, none)),
    "parent_flow_run_id": Attribute(_parent_flow_run_id),
    "root_flow_run_id": Attribute(_root_flow_run_id),
    "parent_deployment_id": Attribute(none),
    "job_variables": Attribute(told_of(current_flow_run, lambda _: {}, none), json),
}


def __getattr__(name: str) -> Any:
    return value_of("flow_run", name, _ATTRIBUTES)


def __dir__() -> list[str]:
    return sorted(__all__)
