"""Filters of what runs leave behind: log lines, artifacts and variables."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar
from uuid import UUID

from embedded_orch.client.schemas.parts import Operator, Part, Whole


class LogFilterLevel(Part):
    """By level; both bounds belong to the range."""

    asks: ClassVar[dict[str, str]] = {"ge_": "min_level", "le_": "max_level"}
    ge_: int | None = None
    le_: int | None = None


class LogFilterTimestamp(Part):
    """By when it was logged; both bounds belong to the range."""

    asks: ClassVar[dict[str, str]] = {"before_": "timestamp_before", "after_": "timestamp_after"}
    before_: datetime | None = None
    after_: datetime | None = None


class LogFilterFlowRunId(Part):
    """By flow run; the lines of its task runs are among them."""

    asks: ClassVar[dict[str, str]] = {"any_": "flow_run_id"}
    any_: list[UUID] | None = None


class LogFilterTaskRunId(Part):
    """By task run."""

    asks: ClassVar[dict[str, str]] = {"any_": "task_run_id", "is_null_": "!has_task_run"}
    any_: list[UUID] | None = None
    is_null_: bool | None = None


class LogFilterTextSearch(Part):
    """By what is in the message or in the name of the logger."""

    asks: ClassVar[dict[str, str]] = {"query": "text"}
    query: str


class LogFilter(Whole):
    """Log lines that fit all parts."""

    level: LogFilterLevel | None = None
    timestamp: LogFilterTimestamp | None = None
    flow_run_id: LogFilterFlowRunId | None = None
    task_run_id: LogFilterTaskRunId | None = None
    text: LogFilterTextSearch | None = None


class ArtifactFilterId(Part):
    """By id."""

    asks: ClassVar[dict[str, str]] = {"any_": "id"}
    any_: list[UUID] | None = None


class ArtifactFilterKey(Part):
    """By key: one of some, one like another, any or none."""

    asks: ClassVar[dict[str, str]] = {"any_": "key", "like_": "key_like", "exists_": "has_key"}
    any_: list[str] | None = None
    like_: str | None = None
    exists_: bool | None = None


class ArtifactFilterFlowRunId(Part):
    """By the flow run that made it."""

    asks: ClassVar[dict[str, str]] = {"any_": "flow_run_id"}
    any_: list[UUID] | None = None


class ArtifactFilterTaskRunId(Part):
    """By the task run that made it."""

    asks: ClassVar[dict[str, str]] = {"any_": "task_run_id"}
    any_: list[UUID] | None = None


class ArtifactFilterType(Part):
    """By type."""

    asks: ClassVar[dict[str, str]] = {"any_": "type", "not_any_": "not_type"}
    any_: list[str] | None = None
    not_any_: list[str] | None = None


class ArtifactFilter(Whole):
    """Artifacts that fit all parts."""

    id: ArtifactFilterId | None = None
    key: ArtifactFilterKey | None = None
    flow_run_id: ArtifactFilterFlowRunId | None = None
    task_run_id: ArtifactFilterTaskRunId | None = None
    type: ArtifactFilterType | None = None


class ArtifactCollectionFilterLatestId(ArtifactFilterId):
    """By the id of the newest of a key."""


class ArtifactCollectionFilterKey(ArtifactFilterKey):
    """By key: one of some, one like another, any or none."""


class ArtifactCollectionFilterFlowRunId(ArtifactFilterFlowRunId):
    """By the flow run that made it."""


class ArtifactCollectionFilterTaskRunId(ArtifactFilterTaskRunId):
    """By the task run that made it."""


class ArtifactCollectionFilterType(ArtifactFilterType):
    """By type."""


class ArtifactCollectionFilter(Whole):
    """The newest artifacts of their keys that fit all parts."""

    latest_id: ArtifactCollectionFilterLatestId | None = None
    key: ArtifactCollectionFilterKey | None = None
    flow_run_id: ArtifactCollectionFilterFlowRunId | None = None
    task_run_id: ArtifactCollectionFilterTaskRunId | None = None
    type: ArtifactCollectionFilterType | None = None


class VariableFilterId(Part):
    """By id."""

    asks: ClassVar[dict[str, str]] = {"any_": "id"}
    any_: list[UUID] | None = None


class VariableFilterName(Part):
    """By name."""

    asks: ClassVar[dict[str, str]] = {"any_": "name", "like_": "name_like"}
    any_: list[str] | None = None
    like_: str | None = None


class VariableFilterTags(Part):
    """By tags: all of some, none at all."""

    asks: ClassVar[dict[str, str]] = {"all_": "tags", "is_null_": "!has_tags"}
    operator: Operator = Operator.and_
    all_: list[str] | None = None
    is_null_: bool | None = None


class VariableFilter(Whole):
    """Variables that fit all parts."""

    id: VariableFilterId | None = None
    name: VariableFilterName | None = None
    tags: VariableFilterTags | None = None
