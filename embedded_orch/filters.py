"""The filters and orders of flows, flow runs and task runs, and what their values may be.

A filter takes one value or several, of which a run has to fit one. ``not_`` before a name excludes,
``_like`` behind it looks for a part of the name, whatever its case and with ``%`` and ``_`` as they
are, ``_after`` and ``_before`` are inclusive bounds, ``has_`` asks whether there is one at all. All
filters that are given have to fit. One that is None is none.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, TypedDict
from uuid import UUID

from embedded_orch import errors, times
from embedded_orch.states import StateType

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Texts = str | Iterable[str]
    Ids = UUID | str | Iterable[UUID | str]
    Types = StateType | str | Iterable[StateType | str]


class FlowRunSort(StrEnum):
    """Orders of flow runs. A run that has not started is sorted by when it is expected to."""

    ID_DESC = "ID_DESC"
    START_TIME_ASC = "START_TIME_ASC"
    START_TIME_DESC = "START_TIME_DESC"
    EXPECTED_START_TIME_ASC = "EXPECTED_START_TIME_ASC"
    EXPECTED_START_TIME_DESC = "EXPECTED_START_TIME_DESC"
    NAME_ASC = "NAME_ASC"
    NAME_DESC = "NAME_DESC"
    NEXT_SCHEDULED_START_TIME_ASC = "NEXT_SCHEDULED_START_TIME_ASC"
    END_TIME_DESC = "END_TIME_DESC"


class TaskRunSort(StrEnum):
    """Orders of task runs."""

    ID_DESC = "ID_DESC"
    EXPECTED_START_TIME_ASC = "EXPECTED_START_TIME_ASC"
    EXPECTED_START_TIME_DESC = "EXPECTED_START_TIME_DESC"
    NAME_ASC = "NAME_ASC"
    NAME_DESC = "NAME_DESC"
    NEXT_SCHEDULED_START_TIME_ASC = "NEXT_SCHEDULED_START_TIME_ASC"
    END_TIME_DESC = "END_TIME_DESC"


class VariableSort(StrEnum):
    """Orders of variables."""

    CREATED_DESC = "CREATED_DESC"
    UPDATED_DESC = "UPDATED_DESC"
    NAME_ASC = "NAME_ASC"
    NAME_DESC = "NAME_DESC"


class ArtifactSort(StrEnum):
    """Orders of artifacts. Those without a key are sorted as if it were empty."""

    ID_DESC = "ID_DESC"
    CREATED_DESC = "CREATED_DESC"
    UPDATED_DESC = "UPDATED_DESC"
    KEY_ASC = "KEY_ASC"
    KEY_DESC = "KEY_DESC"


class FlowFilters(TypedDict, total=False):
    """Filters of flows."""

    name: Texts | None
    name_like: str | None


class RunFilters(TypedDict, total=False):
    """What flow runs and task runs are both found by."""

    id: Ids | None
    name: Texts | None
    name_like: str | None
    tags: Texts | None
    """All of these."""
    any_tag: Texts | None
    has_tags: bool | None
    state_type: Types | None
    state_name: Texts | None
    start_time_after: datetime | None
    start_time_before: datetime | None
    has_start_time: bool | None
    end_time_after: datetime | None
    end_time_before: datetime | None
    has_end_time: bool | None
    expected_start_time_after: datetime | None
    expected_start_time_before: datetime | None
    parent_task_run_id: Ids | None


class FlowRunFilters(RunFilters, total=False):
    """Filters of flow runs."""

    not_id: Ids | None
    flow_id: Ids | None
    flow_name: Texts | None
    flow_name_like: str | None
    flow_version: Texts | None
    not_state_type: Types | None
    not_state_name: Texts | None
    next_scheduled_start_time_after: datetime | None
    next_scheduled_start_time_before: datetime | None
    parent_flow_run_id: Ids | None
    is_subflow: bool | None
    idempotency_key: Texts | None
    not_idempotency_key: Texts | None
    deployment_id: Ids | None
    has_deployment: bool | None
    work_queue_name: Texts | None


class TaskRunFilters(RunFilters, total=False):
    """Filters of task runs."""

    flow_run_id: Ids | None
    has_flow_run: bool | None
    task_key: Texts | None
    has_subflow: bool | None


class VariableFilters(TypedDict, total=False):
    """Filters of variables."""

    id: Ids | None
    name: Texts | None
    name_like: str | None
    tags: Texts | None
    """All of these."""
    any_tag: Texts | None
    has_tags: bool | None


class ArtifactFilters(TypedDict, total=False):
    """Filters of artifacts."""

    id: Ids | None
    key: Texts | None
    key_like: str | None
    has_key: bool | None
    flow_run_id: Ids | None
    task_run_id: Ids | None
    type: Texts | None
    not_type: Texts | None
    is_latest: bool | None
    """Whether it is the newest of its key."""


def checked(
    what: str, filters: Mapping[str, object], known: Mapping[str, object]
) -> dict[str, object]:
    """The filters as :mod:`embedded_orch.store.finding` takes them.

    Args:
        what: the kind of record, for messages.
        filters: as they were given.
        known: the annotations of the filters that there are.

    Raises:
        UnknownFilter: there is no such filter, or it cannot have this value.
    """
    unknown = sorted(set(filters) - set(known))
    if unknown:
        raise errors.UnknownFilter(
            f"{what}s have no filter {', '.join(map(repr, unknown))}; there are {', '.join(known)}"
        )
    found: dict[str, object] = {}
    for name, value in filters.items():
        if value is not None:
            condition, convert = _condition(name)
            found[condition] = convert(name, value)
    return found


def order(what: str, sort: str, known: type[StrEnum]) -> str:
    """The name of an order.

    Raises:
        UnknownFilter: the records cannot be sorted so.
    """
    try:
        return str(known(str(sort)))
    except ValueError as error:
        raise errors.UnknownFilter(
            f"{what}s cannot be sorted by {sort!r}; there are {', '.join(known)}"
        ) from error


def as_uuid(value: UUID | str, what: str) -> UUID:
    """An id, from itself or from its text.

    Raises:
        RunNotFound: it is no id, so nothing has it.
    """
    if isinstance(value, UUID):
        return value
    try:
        return UUID(value)
    except (ValueError, AttributeError, TypeError) as error:
        raise errors.RunNotFound(f"{value!r} is no id of a {what}") from error


def _condition(name: str) -> tuple[str, Callable[[str, object], object]]:
    """What a filter is called by the statements, and how its value becomes theirs."""
    if name in ("tags", "any_tag"):
        return name.replace("any_tag", "any_tags"), _texts
    if name.startswith(("has_", "is_")):
        return name, _flag
    if name.endswith("_like"):
        return name, _text
    if name.endswith(("_time_after", "_time_before")):
        return name, _moment
    if name.endswith("state_type"):
        return f"{name}s", _types
    return f"{name}s", _ids if name.endswith(("id", "_id")) else _texts


def _several(value: object) -> list[object]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        return [value]
    return list(value)


def _texts(name: str, value: object) -> list[str]:
    found = [each for each in _several(value) if isinstance(each, str)]
    if len(found) != len(_several(value)):
        raise errors.UnknownFilter(f"{name}={value!r}: give a text or a list of texts")
    return found


def _ids(name: str, value: object) -> list[UUID]:
    found: list[UUID] = []
    for each in _several(value):
        if not isinstance(each, UUID | str):
            raise errors.UnknownFilter(f"{name}={value!r} is no id, nor a list of ids")
        found.append(as_uuid(each, name.removesuffix("_id").removeprefix("not_").replace("_", " ")))
    return found


def _types(name: str, value: object) -> list[str]:
    try:
        return [StateType(str(each)).value for each in _several(value)]
    except ValueError as error:
        raise errors.UnknownFilter(
            f"{name}={value!r} is unknown; there are {', '.join(StateType)}"
        ) from error


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise errors.UnknownFilter(f"{name}={value!r} is no text")
    return value


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise errors.UnknownFilter(f"{name}={value!r}: it is True or False")
    return value


def _moment(name: str, value: object) -> int:
    if not isinstance(value, datetime):
        raise errors.UnknownFilter(f"{name}={value!r} is no datetime")
    if value.tzinfo is None:
        raise errors.UnknownFilter(f"{name}={value!r} has no time zone; give it one, such as UTC")
    return times.microseconds_from_datetime(value)
