"""Filters in the form of Prefect's client: ``FlowRunFilter(name=FlowRunFilterName(any_=["x"]))``.

Each says what it asks for with the filters of :mod:`embedded_orch.filters`. A part may be given as
a dict. Parts are joined by AND; an ``operator`` that asks for OR is refused.
"""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar
from uuid import UUID

from embedded_orch.client.schemas.parts import Operator, Part, Whole
from embedded_orch.client.schemas.record_filters import (
    ArtifactCollectionFilter,
    ArtifactCollectionFilterFlowRunId,
    ArtifactCollectionFilterKey,
    ArtifactCollectionFilterLatestId,
    ArtifactCollectionFilterTaskRunId,
    ArtifactCollectionFilterType,
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterId,
    ArtifactFilterKey,
    ArtifactFilterTaskRunId,
    ArtifactFilterType,
    LogFilter,
    LogFilterFlowRunId,
    LogFilterLevel,
    LogFilterTaskRunId,
    LogFilterTextSearch,
    LogFilterTimestamp,
    VariableFilter,
    VariableFilterId,
    VariableFilterName,
    VariableFilterTags,
)
from embedded_orch.states import StateType

__all__ = [
    "ArtifactCollectionFilter",
    "ArtifactCollectionFilterFlowRunId",
    "ArtifactCollectionFilterKey",
    "ArtifactCollectionFilterLatestId",
    "ArtifactCollectionFilterTaskRunId",
    "ArtifactCollectionFilterType",
    "ArtifactFilter",
    "ArtifactFilterFlowRunId",
    "ArtifactFilterId",
    "ArtifactFilterKey",
    "ArtifactFilterTaskRunId",
    "ArtifactFilterType",
    "FlowFilter",
    "FlowFilterId",
    "FlowFilterName",
    "FlowRunFilter",
    "FlowRunFilterDeploymentId",
    "FlowRunFilterEndTime",
    "FlowRunFilterExpectedStartTime",
    "FlowRunFilterFlowVersion",
    "FlowRunFilterId",
    "FlowRunFilterIdempotencyKey",
    "FlowRunFilterName",
    "FlowRunFilterNextScheduledStartTime",
    "FlowRunFilterParentFlowRunId",
    "FlowRunFilterParentTaskRunId",
    "FlowRunFilterStartTime",
    "FlowRunFilterState",
    "FlowRunFilterStateName",
    "FlowRunFilterStateType",
    "FlowRunFilterTags",
    "FlowRunFilterWorkQueueName",
    "LogFilter",
    "LogFilterFlowRunId",
    "LogFilterLevel",
    "LogFilterTaskRunId",
    "LogFilterTextSearch",
    "LogFilterTimestamp",
    "Operator",
    "Part",
    "TaskRunFilter",
    "TaskRunFilterEndTime",
    "TaskRunFilterFlowRunId",
    "TaskRunFilterId",
    "TaskRunFilterName",
    "TaskRunFilterStartTime",
    "TaskRunFilterState",
    "TaskRunFilterStateName",
    "TaskRunFilterStateType",
    "TaskRunFilterSubFlowRuns",
    "TaskRunFilterTags",
    "VariableFilter",
    "VariableFilterId",
    "VariableFilterName",
    "VariableFilterTags",
    "Whole",
]


class FlowFilterId(Part):
    """By id."""

    asks: ClassVar[dict[str, str]] = {"any_": "id"}
    any_: list[UUID] | None = None


class FlowFilterName(Part):
    """By name."""

    asks: ClassVar[dict[str, str]] = {"any_": "name", "like_": "name_like"}
    any_: list[str] | None = None
    like_: str | None = None


class FlowFilter(Whole):
    """Flows that fit all parts."""

    id: FlowFilterId | None = None
    name: FlowFilterName | None = None


class FlowRunFilterId(Part):
    """By id."""

    asks: ClassVar[dict[str, str]] = {"any_": "id", "not_any_": "not_id"}
    any_: list[UUID] | None = None
    not_any_: list[UUID] | None = None


class FlowRunFilterName(FlowFilterName):
    """By name."""


class FlowRunFilterTags(Part):
    """By tags: all of some, any of some, none at all."""

    asks: ClassVar[dict[str, str]] = {"all_": "tags", "any_": "any_tag", "is_null_": "!has_tags"}
    operator: Operator = Operator.and_
    all_: list[str] | None = None
    any_: list[str] | None = None
    is_null_: bool | None = None


class FlowRunFilterDeploymentId(Part):
    """By deployment."""

    asks: ClassVar[dict[str, str]] = {"any_": "deployment_id", "is_null_": "!has_deployment"}
    operator: Operator = Operator.and_
    any_: list[UUID] | None = None
    is_null_: bool | None = None


class FlowRunFilterWorkQueueName(Part):
    """By the queue in which it waits."""

    asks: ClassVar[dict[str, str]] = {"any_": "work_queue_name"}
    operator: Operator = Operator.and_
    any_: list[str] | None = None


class FlowRunFilterStateType(Part):
    """By the type of its state."""

    asks: ClassVar[dict[str, str]] = {"any_": "state_type", "not_any_": "not_state_type"}
    any_: list[StateType] | None = None
    not_any_: list[StateType] | None = None


class FlowRunFilterStateName(Part):
    """By the name of its state."""

    asks: ClassVar[dict[str, str]] = {"any_": "state_name", "not_any_": "not_state_name"}
    any_: list[str] | None = None
    not_any_: list[str] | None = None


class FlowRunFilterState(Whole):
    """By its state."""

    type: FlowRunFilterStateType | None = None
    name: FlowRunFilterStateName | None = None


class FlowRunFilterFlowVersion(Part):
    """By the version of its flow."""

    asks: ClassVar[dict[str, str]] = {"any_": "flow_version"}
    any_: list[str] | None = None


class FlowRunFilterStartTime(Part):
    """By when it started; both bounds belong to the range."""

    asks: ClassVar[dict[str, str]] = {
        "before_": "start_time_before",
        "after_": "start_time_after",
        "is_null_": "!has_start_time",
    }
    before_: datetime | None = None
    after_: datetime | None = None
    is_null_: bool | None = None


class FlowRunFilterEndTime(Part):
    """By when it ended; both bounds belong to the range."""

    asks: ClassVar[dict[str, str]] = {
        "before_": "end_time_before",
        "after_": "end_time_after",
        "is_null_": "!has_end_time",
    }
    before_: datetime | None = None
    after_: datetime | None = None
    is_null_: bool | None = None


class FlowRunFilterExpectedStartTime(Part):
    """By when it was expected to start; both bounds belong to the range."""

    asks: ClassVar[dict[str, str]] = {
        "before_": "expected_start_time_before",
        "after_": "expected_start_time_after",
    }
    before_: datetime | None = None
    after_: datetime | None = None


class FlowRunFilterNextScheduledStartTime(Part):
    """By when it is due next; both bounds belong to the range."""

    asks: ClassVar[dict[str, str]] = {
        "before_": "next_scheduled_start_time_before",
        "after_": "next_scheduled_start_time_after",
    }
    before_: datetime | None = None
    after_: datetime | None = None


class FlowRunFilterParentFlowRunId(Part):
    """By the flow run that called it."""

    asks: ClassVar[dict[str, str]] = {"any_": "parent_flow_run_id"}
    operator: Operator = Operator.and_
    any_: list[UUID] | None = None


class FlowRunFilterParentTaskRunId(Part):
    """By the task run that tracks it in its caller."""

    asks: ClassVar[dict[str, str]] = {"any_": "parent_task_run_id", "is_null_": "!is_subflow"}
    operator: Operator = Operator.and_
    any_: list[UUID] | None = None
    is_null_: bool | None = None


class FlowRunFilterIdempotencyKey(Part):
    """By its idempotency key."""

    asks: ClassVar[dict[str, str]] = {"any_": "idempotency_key", "not_any_": "not_idempotency_key"}
    any_: list[str] | None = None
    not_any_: list[str] | None = None


class FlowRunFilter(Whole):
    """Flow runs that fit all parts."""

    id: FlowRunFilterId | None = None
    name: FlowRunFilterName | None = None
    tags: FlowRunFilterTags | None = None
    deployment_id: FlowRunFilterDeploymentId | None = None
    work_queue_name: FlowRunFilterWorkQueueName | None = None
    state: FlowRunFilterState | None = None
    flow_version: FlowRunFilterFlowVersion | None = None
    start_time: FlowRunFilterStartTime | None = None
    end_time: FlowRunFilterEndTime | None = None
    expected_start_time: FlowRunFilterExpectedStartTime | None = None
    next_scheduled_start_time: FlowRunFilterNextScheduledStartTime | None = None
    parent_flow_run_id: FlowRunFilterParentFlowRunId | None = None
    parent_task_run_id: FlowRunFilterParentTaskRunId | None = None
    idempotency_key: FlowRunFilterIdempotencyKey | None = None


class TaskRunFilterId(FlowFilterId):
    """By id."""


class TaskRunFilterName(FlowFilterName):
    """By name."""


class TaskRunFilterTags(Part):
    """By tags: all of some, none at all."""

    asks: ClassVar[dict[str, str]] = {"all_": "tags", "is_null_": "!has_tags"}
    operator: Operator = Operator.and_
    all_: list[str] | None = None
    is_null_: bool | None = None


class TaskRunFilterStateType(Part):
    """By the type of its state."""

    asks: ClassVar[dict[str, str]] = {"any_": "state_type"}
    any_: list[StateType] | None = None


class TaskRunFilterStateName(Part):
    """By the name of its state."""

    asks: ClassVar[dict[str, str]] = {"any_": "state_name"}
    any_: list[str] | None = None


class TaskRunFilterState(Whole):
    """By its state."""

    type: TaskRunFilterStateType | None = None
    name: TaskRunFilterStateName | None = None


class TaskRunFilterStartTime(FlowRunFilterStartTime):
    """By when it started; both bounds belong to the range."""


class TaskRunFilterEndTime(FlowRunFilterEndTime):
    """By when it ended; both bounds belong to the range."""


class TaskRunFilterSubFlowRuns(Part):
    """By whether it tracks a flow that was called."""

    asks: ClassVar[dict[str, str]] = {"exists_": "has_subflow"}
    exists_: bool | None = None


class TaskRunFilterFlowRunId(Part):
    """By flow run."""

    asks: ClassVar[dict[str, str]] = {"any_": "flow_run_id", "is_null_": "!has_flow_run"}
    operator: Operator = Operator.and_
    any_: list[UUID] | None = None
    is_null_: bool | None = None


class TaskRunFilter(Whole):
    """Task runs that fit all parts."""

    id: TaskRunFilterId | None = None
    name: TaskRunFilterName | None = None
    tags: TaskRunFilterTags | None = None
    state: TaskRunFilterState | None = None
    start_time: TaskRunFilterStartTime | None = None
    end_time: TaskRunFilterEndTime | None = None
    subflow_runs: TaskRunFilterSubFlowRuns | None = None
    flow_run_id: TaskRunFilterFlowRunId | None = None
