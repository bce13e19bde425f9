"""The state object."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeGuard, overload

import msgspec

from embedded_orch import errors, times, values
from embedded_orch.process import OWN
from embedded_orch.states.details import (
    BAD_ENDS,
    ERROR,
    NO_DETAILS,
    TERMINAL_TYPES,
    StateDetails,
    StateType,
    details_of,
    type_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime
    from uuid import UUID

    # Type checkers know it without the package; at run time a plain TypeVar does.
    from typing_extensions import TypeVar

    from embedded_orch.values.places import Places

    R = TypeVar("R", default=Any)
else:
    from typing import TypeVar

    R = TypeVar("R")


class _Absent:
    """There is no value at hand, which None would be one."""

    __slots__ = ()


_ABSENT = _Absent()


class State(Generic[R]):
    """One state of a run. The value or error of a run that just ended is at hand in memory.

    Attributes:
        id: also the id of the event that announces it.
        type: a :class:`StateType`.
        name: what people call it.
        timestamp: when it was entered, UTC.
        message: what happened, for people; may be None.
        state_details: a :class:`StateDetails`.
        places: where the value is, if it is not in the state itself; None where it is.
    """

    __slots__ = (
        "_at_hand",
        "_data",
        "_data_format",
        "_details",
        "_flow_run_id",
        "_task_run_id",
        "id",
        "message",
        "name",
        "places",
        "timestamp_microseconds",
        "type",
    )

    def __init__(
        self,
        *,
        type: StateType | str,
        name: str | None = None,
        message: str | None = None,
        data: Any = None,
        state_details: StateDetails | Mapping[str, Any] | None = None,
        id: UUID | None = None,
        timestamp: datetime | int | None = None,
        data_format: str | None = None,
    ) -> None:
        """A state as it may be proposed for a run, or returned by one.

        Args:
            type: what the run does.
            name: what people call it; the capitalised type when not given.
            message: what happened, for people.
            data: the value that the run returned; of a bad end, the exception, its text, or the
                states that made it bad.
            state_details: more of it.
            id: a new one when not given.
            timestamp: when it was entered, as an aware datetime or as microseconds since 1970
                UTC; now when not given.
            data_format: for bytes that are stored: how they are encoded.

        Raises:
            ConfigurationError: there is no such type, or a value that it cannot have.
        """
        self.type = type if isinstance(type, StateType) else type_of(type)
        self.id = id if id is not None else OWN.new_id()
        self.name = name or self.type.value.capitalize()
        if isinstance(timestamp, int):
            self.timestamp_microseconds = timestamp
        elif timestamp is None:
            self.timestamp_microseconds = OWN.now()
        else:
            self.timestamp_microseconds = times.microseconds_from_datetime(timestamp)
        self.message = message
        self._flow_run_id: UUID | None = None
        self._task_run_id: UUID | None = None
        details = NO_DETAILS if state_details is None else state_details
        self._details = details if isinstance(details, StateDetails) else details_of(details)
        if self.type is StateType.SCHEDULED and self._details.scheduled_time is None:
            now = times.datetime_from_microseconds(OWN.now())
            self._details = msgspec.structs.replace(self._details, scheduled_time=now)
        self._at_hand: Any = _ABSENT
        self._data: bytes | None = None
        self._data_format = data_format
        self.places: Places | None = None
        if data_format is not None:
            self._data = data
        elif data is not None:
            self._at_hand = data

    @classmethod
    def recorded(
        cls,
        id: UUID,
        type: StateType,
        name: str,
        timestamp: int,
        *,
        message: str | None,
        details: StateDetails,
        data: bytes | None,
        data_format: str | None,
    ) -> State[Any]:
        """A state as it is on record: nothing of it is to be found out or looked over.

        Args:
            id: of the state.
            type: what the run does.
            name: what people call it.
            timestamp: when it was entered, in microseconds since 1970 UTC.
            message: what happened, for people.
            details: more of it.
            data: what is stored of its value or its error.
            data_format: how that is encoded.
        """
        state: State[Any] = object.__new__(cls)
        state.id = id
        state.type = type
        state.name = name
        state.timestamp_microseconds = timestamp
        state.message = message
        state.places = None
        state._flow_run_id = state._task_run_id = None
        state._details = details
        state._at_hand = _ABSENT
        state._data = data
        state._data_format = data_format
        return state

    @property
    def timestamp(self) -> datetime:
        """When it was entered, UTC."""
        return times.datetime_from_microseconds(self.timestamp_microseconds)

    @property
    def state_details(self) -> StateDetails:
        """What it says beyond its type, name and message."""
        found = self._details
        flow_run_id, task_run_id = self._flow_run_id, self._task_run_id
        if flow_run_id is None and task_run_id is None:
            return found
        return msgspec.structs.replace(
            found,
            flow_run_id=flow_run_id or found.flow_run_id,
            task_run_id=task_run_id or found.task_run_id,
        )

    @property
    def data(self) -> Any:
        """The value or the error while it is at hand in memory; :meth:`result` also reads it."""
        return None if self._at_hand is _ABSENT else self._at_hand

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

    def is_cancelling(self) -> bool:
        """Whether the run is about to be cancelled."""
        return self.type is StateType.CANCELLING

    def is_paused(self) -> bool:
        """Whether the run is paused."""
        return self.type is StateType.PAUSED

    def is_final(self) -> bool:
        """Whether the run has ended."""
        return self.type in TERMINAL_TYPES

    def is_bad_end(self) -> bool:
        """Whether the run has ended, and not well."""
        return self.type in BAD_ENDS

    @property
    def stored(self) -> tuple[bytes | None, str | None]:
        """What is stored of its value or its error, and how that is encoded."""
        return self._data, self._data_format

    def kept_as(self, data: bytes | None, data_format: str | None) -> State[R]:
        """The same state, of which this is stored."""
        self._data = data
        self._data_format = data_format
        return self

    def with_value(self, value: object) -> State[Any]:
        """The same state with the value at hand, so that it need not be read back."""
        self._at_hand = value
        return self

    def with_error(self, error: object) -> State[R]:
        """The same state with what made it bad at hand: the exception itself, or states."""
        self._at_hand = _ABSENT if error is None else error
        return self

    def of_run(self, *, flow_run_id: UUID | None, task_run_id: UUID | None) -> State[R]:
        """The same state, which says whose it is; one that a user made says nothing of that."""
        self._flow_run_id = flow_run_id
        self._task_run_id = task_run_id
        return self

    def as_stored(self, *, name: str, timestamp: int, details: StateDetails) -> State[R]:
        """The same state, as it was entered: a rule may name it, and no two enter at one time."""
        self.name = name
        self.timestamp_microseconds = timestamp
        self._details = details
        return self

    def fresh_copy(self) -> State[R]:
        """The same state as a new one: with another id, entered now."""
        copy: State[R] = type(self)(
            type=self.type,
            name=self.name,
            message=self.message,
            data=self._data,
            data_format=self._data_format,
            state_details=self.state_details,
        )
        copy._at_hand = self._at_hand
        copy.places = self.places
        return copy

    @property
    def has_result(self) -> bool:
        """Whether :meth:`result` has a value to return."""
        return self.is_completed() and (self._at_hand is not _ABSENT or self._data is not None)

    @overload
    def result(
        self, raise_on_failure: Literal[True] = ..., retry_result_failure: bool = ...
    ) -> R: ...
    @overload
    def result(
        self, raise_on_failure: bool = ..., retry_result_failure: bool = ...
    ) -> R | BaseException: ...
    def result(self, raise_on_failure: bool = True, retry_result_failure: bool = True) -> Any:
        """The value that the run returned.

        In asynchronous code, as with Prefect, this is awaited: ``await state.result()``.

        Args:
            raise_on_failure: raise what the run ended with when it did not complete; else return
                that.
            retry_result_failure: as with Prefect; a value that is stored here is there at once.

        Raises:
            MissingResult: it completed, and the value was not kept.
            UnfinishedRun: it has not ended; PausedRun when it is paused.
            Exception: what the run raised, of several states that of the first that did not
                complete; FailedRun, CrashedRun, CancelledRun where only the message is known.
        """
        if awaits():
            return self.aresult(raise_on_failure, retry_result_failure)
        return self.result_now(raise_on_failure)

    async def aresult(
        self, raise_on_failure: bool = True, retry_result_failure: bool = True
    ) -> R | BaseException:
        """:meth:`result`, awaited whatever the code around."""
        if self._at_hand is _ABSENT and values.is_outside(self._data_format):
            import anyio.to_thread

            read: R | BaseException = await anyio.to_thread.run_sync(
                self.result_now, raise_on_failure
            )
            return read
        found: R | BaseException = self.result_now(raise_on_failure)
        return found

    def result_now(self, raise_on_failure: bool = True) -> Any:
        """:meth:`result`, never awaited whatever the code around."""
        if self.is_completed():
            return self._completed_value()
        if not self.is_final():
            raise self._unfinished()
        if not raise_on_failure and self._at_hand is not _ABSENT:
            return self._at_hand
        error = self.exception()
        if raise_on_failure:
            raise error
        return error

    def exception(self) -> BaseException:
        """What to raise for a run that did not end well.

        Raises:
            ConfigurationError: it is not FAILED, CRASHED or CANCELLED, or its data are neither an
                exception nor a text nor states.
        """
        if not self.is_bad_end():
            raise errors.ConfigurationError(f"{self!r} is no failed, crashed or cancelled state")
        cause = self._at_hand
        if isinstance(cause, BaseException):
            return cause
        if isinstance(cause, State):
            return cause.exception()
        if is_state_iterable(cause):
            for state in cause:
                if state.is_bad_end():
                    return state.exception()
            raise errors.ConfigurationError(f"none of the states of {self!r} ended badly")
        if cause is _ABSENT or isinstance(cause, str):
            said = self.message or f"the run is {self.name}" if cause is _ABSENT else cause
            return _KINDS[self.type](said)
        raise errors.ConfigurationError(
            f"{self!r} was made with data={cause!r}, which is no error; give an exception, a text "
            f"or states"
        )

    def _completed_value(self) -> Any:
        if self._at_hand is not _ABSENT:
            return self._at_hand
        return self.stored_value(runs_code=True)

    def stored_value(self, *, runs_code: bool) -> Any:
        """The value of a COMPLETED state as it is stored, whether or not it is at hand.

        Args:
            runs_code: whether bytes are read that may run anything when they are.

        Raises:
            MissingResult: it was not kept, or cannot be read.
        """
        if self._data is None:
            raise errors.MissingResult(
                "the run completed, and its value was not kept: "
                f"{self.message or 'no reason given'}"
            )
        return values.load_stored(
            self._data, self._data_format, runs_code=runs_code, places=self.places
        )

    def _unfinished(self) -> BaseException:
        if isinstance(self._at_hand, BaseException):
            # A call that could not be made, and is told why.
            return self._at_hand
        if self.is_paused():
            return errors.PausedRun(self.message or f"the run is {self.name}")
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

    def __str__(self) -> str:
        said = [repr(self.message)] if self.message else []
        if self.name != self.type.value.capitalize():
            said.append(f"type={self.type.value}")
        return f"{self.name}({', '.join(said)})"


_KINDS = {
    StateType.FAILED: errors.FailedRun,
    StateType.CRASHED: errors.CrashedRun,
    StateType.CANCELLED: errors.CancelledRun,
}


def awaits() -> bool:
    """Whether the caller is asynchronous code: its innermost run is, or without one a loop runs.

    What is not imported runs nothing: the engine is looked for and not imported, for it stands
    above this.
    """
    engine = sys.modules.get("embedded_orch.engine.contexts")
    run = None if engine is None else engine.current_run()
    if run is not None:
        return bool(run.is_async)
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return False
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def is_state(obj: object) -> TypeGuard[State[Any]]:
    """Whether it is a state."""
    return isinstance(obj, State)


def is_state_iterable(obj: object) -> TypeGuard[Iterable[State[Any]]]:
    """Whether it is a list, tuple or set of states and nothing else, and has one at least."""
    if not isinstance(obj, list | set | tuple) or not obj:
        return False
    return all(isinstance(item, State) for item in obj)
