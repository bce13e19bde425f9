"""States as users make them: ``Completed(message=...)``, ``Paused(timeout_seconds=60)``."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import msgspec

from embedded_orch import errors, times
from embedded_orch.process import OWN
from embedded_orch.states.details import NO_DETAILS, StateDetails, StateType, details_of
from embedded_orch.states.state import State

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID


class StateFields(TypedDict, total=False):
    """What every function that makes a state takes: see :class:`State`."""

    name: str | None
    message: str | None
    data: Any
    state_details: StateDetails | Mapping[str, Any] | None
    id: UUID | None
    timestamp: datetime | int | None


def Scheduled(  # noqa: N802 - Prefect's name, as of all of these
    cls: type[State[Any]] = State,
    scheduled_time: datetime | None = None,
    **fields: Unpack[StateFields],
) -> State[Any]:
    """SCHEDULED, due at ``scheduled_time``; now when not given."""
    if scheduled_time is not None:
        details = _given_details(fields)
        if details.scheduled_time is not None:
            raise errors.ConfigurationError("scheduled_time is given, and state_details have one")
        fields["state_details"] = msgspec.structs.replace(details, scheduled_time=scheduled_time)
    return cls(type=StateType.SCHEDULED, **fields)


def Completed(cls: type[State[Any]] = State, **fields: Unpack[StateFields]) -> State[Any]:  # noqa: N802
    """COMPLETED."""
    return cls(type=StateType.COMPLETED, **fields)


def Running(cls: type[State[Any]] = State, **fields: Unpack[StateFields]) -> State[Any]:  # noqa: N802
    """RUNNING."""
    return cls(type=StateType.RUNNING, **fields)


def Failed(cls: type[State[Any]] = State, **fields: Unpack[StateFields]) -> State[Any]:  # noqa: N802
    """FAILED."""
    return cls(type=StateType.FAILED, **fields)


def Crashed(cls: type[State[Any]] = State, **fields: Unpack[StateFields]) -> State[Any]:  # noqa: N802
    """CRASHED."""
    return cls(type=StateType.CRASHED, **fields)


def Cancelling(cls: type[State[Any]] = State, **fields: Unpack[StateFields]) -> State[Any]:  # noqa: N802
    """CANCELLING."""
    return cls(type=StateType.CANCELLING, **fields)


def Cancelled(cls: type[State[Any]] = State, **fields: Unpack[StateFields]) -> State[Any]:  # noqa: N802
    """CANCELLED."""
    return cls(type=StateType.CANCELLED, **fields)


def Pending(cls: type[State[Any]] = State, **fields: Unpack[StateFields]) -> State[Any]:  # noqa: N802
    """PENDING."""
    return cls(type=StateType.PENDING, **fields)


def Paused(  # noqa: N802
    cls: type[State[Any]] = State,
    timeout_seconds: float | None = None,
    pause_expiration_time: datetime | None = None,
    reschedule: bool = False,
    pause_key: str | None = None,
    **fields: Unpack[StateFields],
) -> State[Any]:
    """PAUSED.

    Args:
        cls: the class of the state.
        timeout_seconds: how long it may be resumed.
        pause_expiration_time: until when instead.
        reschedule: whether resuming starts another process: a suspension.
        pause_key: a run pauses once for each key.
        fields: see :class:`State`.

    Raises:
        ConfigurationError: both times are given, or ``state_details`` have one too.
    """
    if timeout_seconds is not None:
        if pause_expiration_time is not None:
            raise errors.ConfigurationError(
                "timeout_seconds and pause_expiration_time are given; give one of them"
            )
        now = times.datetime_from_microseconds(OWN.now())
        pause_expiration_time = now + timedelta(seconds=timeout_seconds)
    details = _given_details(fields)
    if pause_expiration_time is not None and details.pause_timeout is not None:
        raise errors.ConfigurationError("a time-out is given, and state_details have one")
    fields["state_details"] = msgspec.structs.replace(
        details,
        pause_timeout=pause_expiration_time or details.pause_timeout,
        pause_reschedule=reschedule or details.pause_reschedule,
        pause_key=pause_key or details.pause_key,
    )
    return cls(type=StateType.PAUSED, **fields)


def Suspended(  # noqa: N802
    cls: type[State[Any]] = State,
    timeout_seconds: float | None = None,
    pause_expiration_time: datetime | None = None,
    pause_key: str | None = None,
    **fields: Unpack[StateFields],
) -> State[Any]:
    """PAUSED as "Suspended": resuming starts another process. Arguments as for :func:`Paused`."""
    return Paused(
        cls,
        timeout_seconds=timeout_seconds,
        pause_expiration_time=pause_expiration_time,
        reschedule=True,
        pause_key=pause_key,
        **_named("Suspended", fields),
    )


def AwaitingRetry(  # noqa: N802
    cls: type[State[Any]] = State,
    scheduled_time: datetime | None = None,
    **fields: Unpack[StateFields],
) -> State[Any]:
    """SCHEDULED as "AwaitingRetry"."""
    return Scheduled(cls, scheduled_time, **_named("AwaitingRetry", fields))


def AwaitingConcurrencySlot(  # noqa: N802
    cls: type[State[Any]] = State,
    scheduled_time: datetime | None = None,
    **fields: Unpack[StateFields],
) -> State[Any]:
    """SCHEDULED as "AwaitingConcurrencySlot"."""
    return Scheduled(cls, scheduled_time, **_named("AwaitingConcurrencySlot", fields))


def Late(  # noqa: N802
    cls: type[State[Any]] = State,
    scheduled_time: datetime | None = None,
    **fields: Unpack[StateFields],
) -> State[Any]:
    """SCHEDULED as "Late"."""
    return Scheduled(cls, scheduled_time, **_named("Late", fields))


def Retrying(cls: type[State[Any]] = State, **fields: Unpack[StateFields]) -> State[Any]:  # noqa: N802
    """RUNNING as "Retrying"."""
    return cls(type=StateType.RUNNING, **_named("Retrying", fields))


def Submitting(cls: type[State[Any]] = State, **fields: Unpack[StateFields]) -> State[Any]:  # noqa: N802
    """PENDING as "Submitting"."""
    return cls(type=StateType.PENDING, **_named("Submitting", fields))


def InfrastructurePending(  # noqa: N802
    cls: type[State[Any]] = State, **fields: Unpack[StateFields]
) -> State[Any]:
    """PENDING as "InfrastructurePending"."""
    return cls(type=StateType.PENDING, **_named("InfrastructurePending", fields))


def _named(name: str, fields: StateFields) -> StateFields:
    return fields if fields.get("name") else {**fields, "name": name}


def _given_details(fields: StateFields) -> StateDetails:
    given = fields.get("state_details")
    if given is None:
        return NO_DETAILS
    return given if isinstance(given, StateDetails) else details_of(given)
