"""What a state consists of: its type, and what it says beyond its name."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from embedded_orch import errors, times

if TYPE_CHECKING:
    from collections.abc import Mapping


class StateType(StrEnum):
    """What a run does, as far as rules are concerned."""

    SCHEDULED = "SCHEDULED"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    CRASHED = "CRASHED"
    PAUSED = "PAUSED"
    CANCELLING = "CANCELLING"


TERMINAL_TYPES = frozenset(
    {StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED, StateType.CRASHED}
)
TERMINAL_STATES = TERMINAL_TYPES
"""Prefect's name of it."""

BAD_ENDS = TERMINAL_TYPES - {StateType.COMPLETED}

# How the data of a state is encoded: a value as tagged JSON, or the text of an error. Every other
# format is a value too, and names the serializer that wrote it.
VALUE = "json"
ERROR = "error"


def is_value(data_format: str | None) -> bool:
    """Whether the data of a state are a value."""
    return data_format is not None and data_format != ERROR


class StateDetails(msgspec.Struct, omit_defaults=True, kw_only=True, frozen=True):
    """What a state says beyond its type, name and message. Times are aware datetimes."""

    flow_run_id: UUID | None = None
    """The flow run whose state it is, or to which the task run belongs."""
    task_run_id: UUID | None = None
    """The task run whose state it is, or that called the flow run."""
    child_flow_run_id: UUID | None = None
    """Of a task run that called a flow: the flow run."""
    scheduled_time: datetime | None = None
    """When a SCHEDULED run is due."""
    cache_key: str | None = None
    """Under which the result may be found by other runs."""
    cache_expiration: datetime | None = None
    """Until when it may be."""
    deferred: bool | None = None
    """Whether a task run waits for a worker of tasks."""
    untrackable_result: bool = False
    """Whether the value cannot be followed into other runs."""
    pause_timeout: datetime | None = None
    """Until when a paused run may be resumed."""
    pause_reschedule: bool = False
    """Whether the pause is a suspension: the process ended, and resuming starts another."""
    pause_key: str | None = None
    """Which pause it is; a run pauses once for each key."""
    run_input_keyset: dict[str, str] | None = None
    """Under which keys the input that a pause waits for is stored."""
    refresh_cache: bool | None = None
    """Whether the run is made although a cached result would do."""
    retriable: bool | None = None
    """False when a failure is final whatever the retries."""
    transition_id: UUID | None = None
    """Of the attempt to enter the state: a second one with the same id stores nothing."""
    task_parameters_id: UUID | None = None
    """Under which the parameters of a deferred task run are stored."""
    traceparent: str | None = None
    """The trace that the run belongs to (W3C Trace Context)."""
    deployment_concurrency_lease_id: UUID | None = None
    """The slot of its deployment that the run holds."""


NO_DETAILS = StateDetails()
"""What most states have to say: the same object for all of them."""


def type_of(text: str) -> StateType:
    """A state type by its text.

    Raises:
        ConfigurationError: there is none.
    """
    try:
        return StateType(text)
    except ValueError as error:
        raise errors.ConfigurationError(
            f"there is no state type {text!r}; there are {', '.join(StateType)}"
        ) from error


def details_of(fields: Mapping[str, Any]) -> StateDetails:
    """Details from a mapping of their fields.

    Raises:
        ConfigurationError: there is no such field, or it cannot have the value.
    """
    unknown = sorted(set(fields) - set(StateDetails.__struct_fields__))
    if unknown:
        raise errors.ConfigurationError(f"state_details have no {', '.join(map(repr, unknown))}")
    try:
        return msgspec.convert(dict(fields), StateDetails)
    except msgspec.ValidationError as error:
        raise errors.ConfigurationError(f"state_details: {error}") from error


def checked_details(details: StateDetails) -> StateDetails:
    """The same details, once they are known to be such as are stored.

    Raises:
        ConfigurationError: a value is of another type than its field, or a time has no zone.
    """
    if details is NO_DETAILS:
        return details
    found = details_of(msgspec.structs.asdict(details))
    for moment in (found.scheduled_time, found.cache_expiration, found.pause_timeout):
        if moment is not None:
            times.microseconds_from_datetime(moment)
    return found
