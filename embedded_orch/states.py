"""States of runs: their types, their names, and the state object.

The types and the names in use are Prefect 3's. A type is one of nine; a name is free text that
says more ("AwaitingRetry" is a SCHEDULED state), and is the capitalised type when nobody gave one.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec

from embedded_orch import errors, times, values

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID


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

# How the data of a state is encoded.
VALUE = "json"
ERROR = "error"


class StateDetails(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What a state says beyond its type, name and message."""

    scheduled_time: int | None = None
    """When a SCHEDULED run is due, in microseconds since 1970 UTC."""
    retriable: bool | None = None
    """False when a failure is final whatever the retries."""


class State:
    """One state of a run. The value or error of a run that just ended is at hand in memory.

    Attributes:
        id: also the id of the event that announces it.
        type: a :class:`StateType`.
        name: what people call it.
        timestamp: when it was entered, UTC.
        message: what happened, for people; may be None.
        state_details: a :class:`StateDetails`.
    """

    __slots__ = (
        "_data",
        "_data_format",
        "_error",
        "_has_value",
        "_value",
        "id",
        "message",
        "name",
        "state_details",
        "timestamp_microseconds",
        "type",
    )

    def __init__(
        self,
        *,
        id: UUID,
        type: StateType,
        name: str,
        timestamp: int,
        message: str | None = None,
        state_details: StateDetails | None = None,
        data: bytes | None = None,
        data_format: str | None = None,
    ) -> None:
        self.id = id
        self.type = type
        self.name = name
        self.timestamp_microseconds = timestamp
        self.message = message
        self.state_details = state_details or StateDetails()
        self._data = data
        self._data_format = data_format
        self._has_value = False
        self._value: Any = None
        self._error: BaseException | None = None

    @property
    def timestamp(self) -> datetime:
        """When it was entered, UTC."""
        return times.datetime_from_microseconds(self.timestamp_microseconds)

    def is_scheduled(self) -> bool:
        """Whether the run waits for a time."""
        return self.type is StateType.SCHEDULED

    def is_pending(self) -> bool:
        """Whether the run is about to start."""
        return self.type is StateType.PENDING

    def is_running(self) -> bool:
        """Whether the run is running."""
        return self.type is StateType.RUNNING

    def is_completed(self) -> bool:
        """Whether the run finished well."""
        return self.type is StateType.COMPLETED

    def is_failed(self) -> bool:
        """Whether the run finished with an error."""
        return self.type is StateType.FAILED

    def is_crashed(self) -> bool:
        """Whether the run was interrupted."""
        return self.type is StateType.CRASHED

    def is_cancelled(self) -> bool:
        """Whether the run was cancelled."""
        return self.type is StateType.CANCELLED

    def is_paused(self) -> bool:
        """Whether the run is paused."""
        return self.type is StateType.PAUSED

    def is_final(self) -> bool:
        """Whether the run has ended."""
        return self.type in TERMINAL_TYPES

    def with_value(self, value: object) -> State:
        """The same state with the value at hand, so that it need not be read back."""
        self._has_value = True
        self._value = value
        return self

    def with_error(self, error: BaseException | None) -> State:
        """The same state with the exception itself at hand."""
        self._error = error
        return self

    @property
    def has_result(self) -> bool:
        """Whether :meth:`result` has a value to return."""
        return self.is_completed() and (self._has_value or self._data is not None)

    def result(self, raise_on_failure: bool = True) -> Any:
        """The value that the run returned.

        Args:
            raise_on_failure: raise what the run ended with when it did not complete; else return
                that exception.

        Raises:
            MissingResult: it completed, and the value was not kept.
            UnfinishedRun: it has not ended.
            Exception: what the run raised, or FailedRun, CrashedRun, CancelledRun where only the
                message is known.
        """
        if self.is_completed():
            return self._completed_value()
        error = self._exception()
        if raise_on_failure or not self.is_final():
            raise error
        return error

    def _completed_value(self) -> Any:
        if self._has_value:
            return self._value
        if self._data is None:
            raise errors.MissingResult(
                "the run completed, and its value was not kept: "
                f"{self.message or 'no reason given'}"
            )
        return values.decode(self._data)

    def _exception(self) -> BaseException:
        if self._error is not None:
            return self._error
        message = self.message or f"the run is {self.name}"
        if self.is_failed():
            return errors.FailedRun(message)
        if self.is_crashed():
            return errors.CrashedRun(message)
        if self.is_cancelled():
            return errors.CancelledRun(message)
        if self.is_paused():
            return errors.PausedRun(message)
        return errors.UnfinishedRun(f"the run has no result yet: it is {self.name}")

    @property
    def error_details(self) -> dict[str, str] | None:
        """Type, message and traceback of the exception that ended the run, as text."""
        if self._data is None or self._data_format != ERROR:
            return None
        found: dict[str, str] = msgspec.json.decode(self._data, type=dict[str, str])
        return found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, State) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        message = f", message={self.message!r}" if self.message else ""
        return f"{self.name}(type={self.type.value}{message})"
