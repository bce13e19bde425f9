"""What a run ends with, as it is stored: its value, or its error as text."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from embedded_orch import values
from embedded_orch.errors import (
    ConfigurationError,
    MissingResult,
    RunError,
    RunTimedOut,
    ValueNotStorable,
)
from embedded_orch.orchestration.values import Proposal
from embedded_orch.states import ERROR, VALUE, State, StateType, checked_details, is_value
from embedded_orch.values.text import storable_text

if TYPE_CHECKING:
    from uuid import UUID

    from embedded_orch.engine.keeping import Keeping
    from embedded_orch.orchestration.values import Run

_log = logging.getLogger("embedded_orch.engine")


def completed(id: UUID, now: int, value: object, keeping: Keeping, *, run_name: str) -> Proposal:
    """COMPLETED, with the value if it is to be stored and can be; else with what says why not.

    Raises:
        ValueNotStorable: it was asked for that it be stored, and it cannot be.
    """
    data = data_format = message = None
    if keeping.is_stored:
        try:
            data, data_format = keeping.encode(value)
        except ValueNotStorable as error:
            if keeping.is_required:
                raise
            # As text: who keeps the record would keep the value, by the frames of the error.
            _log.warning("%s: %s", run_name, str(error))
            message = storable_text(f"the result was not stored: {error}")
    else:
        message = "the result was not stored: persist_result=False"
    return Proposal(
        id=id,
        type=StateType.COMPLETED,
        name="Completed",
        timestamp=now,
        message=message,
        data=data,
        data_format=data_format,
    )


def with_value(state: State, value: object, keeping: Keeping) -> State:
    """A COMPLETED state with its value at hand, unless that is to be read when asked for."""
    state.places = keeping.places
    if not keeping.is_at_hand and state.has_result:
        return state
    return state.with_value(value)


def failed(
    id: UUID,
    now: int,
    error: BaseException,
    *,
    kind: str,
    run_id: UUID | None = None,
    what: str | None = None,
) -> Proposal:
    """FAILED, with the error as text: exceptions are never pickled.

    A TimeoutError makes it TimedOut, also one that is not of the run's own time limit.

    Args:
        id: of the state.
        now: its time.
        error: that the function raised.
        kind: of the run, "Flow" or "Task".
        run_id: of the run.
        what: failed, where it is not the function.
    """
    is_timeout = isinstance(error, TimeoutError)
    if isinstance(error, RunTimedOut) and error.run_id == run_id:
        message = str(error)
    elif is_timeout:
        message = f"{kind} run failed due to timeout: {_describe(error)}"
    else:
        message = f"{what or f'{kind} run encountered an exception'}: {_describe(error)}"
    return Proposal(
        id=id,
        type=StateType.FAILED,
        name="TimedOut" if is_timeout else "Failed",
        timestamp=now,
        message=message,
        data=_encode_error(error),
        data_format=ERROR,
    )


def crashed(
    id: UUID, now: int, error: BaseException, *, kind: str, message: str | None = None
) -> Proposal:
    """CRASHED, by what interrupted the run, or by what the message says."""
    return Proposal(
        id=id,
        type=StateType.CRASHED,
        name="Crashed",
        timestamp=now,
        message=message or f"{kind} run was interrupted: {_describe(error)}",
        data=_encode_error(error),
        data_format=ERROR,
    )


def ended(id: UUID, now: int, type: StateType, error: BaseException | None) -> Proposal:
    """A state that a function says its run ended with, with the error as text if there is one."""
    return Proposal(
        id=id,
        type=type,
        name=type.value.capitalize(),
        timestamp=now,
        data=None if error is None else _encode_error(error),
        data_format=None if error is None else ERROR,
    )


def cancelled(id: UUID, now: int, message: str) -> Proposal:
    """CANCELLED."""
    return Proposal(
        id=id, type=StateType.CANCELLED, name="Cancelled", timestamp=now, message=message
    )


def proposal_of(state: object, *, id: UUID, now: int) -> Proposal:
    """A state that a user made, as a proposal: a new state, entered now.

    Raises:
        ConfigurationError: it is no state, or says something that no state can.
        ValueNotStorable: its data would not come back equal and of their type.
    """
    if not isinstance(state, State):
        raise ConfigurationError(f"{state!r} is no state; make one, such as states.Completed()")
    texts: list[object] = [state.name, state.message or ""]
    if not all(isinstance(text, str) for text in texts):
        raise ConfigurationError(f"the name and the message of {state!r} have to be texts")
    error = state.exception() if state.is_bad_end() and state.data is not None else None
    data, data_format = state.stored
    message = state.message
    if error is not None:
        data, data_format = _encode_error(error), ERROR
        message = message or (str(error) if isinstance(error, RunError) else _describe(error))
    elif state.data is not None:
        data, data_format = values.encode(state.data, name="the data of the state"), VALUE
    return Proposal(
        id=id,
        type=state.type,
        name=storable_text(state.name),
        timestamp=now,
        message=None if message is None else storable_text(message),
        details=checked_details(state.state_details),
        data=data,
        data_format=data_format,
    )


def state_of(proposal: Proposal) -> State:
    """The state object of what was stored."""
    return State.recorded(
        proposal.id,
        proposal.type,
        proposal.name,
        proposal.timestamp,
        message=proposal.message,
        details=proposal.details,
        data=proposal.data,
        data_format=proposal.data_format,
    )


def as_stored(state: State, stored: Proposal) -> State:
    """A state with its value or error at hand, as it was stored."""
    return state.as_stored(name=stored.name, timestamp=stored.timestamp, details=stored.details)


def state_of_run(run: Run, message: str | None) -> State:
    """The state that a run is in, as far as its rules know it."""
    assert run.state_type is not None
    return State(
        id=run.state_id,
        type=run.state_type,
        name=run.state_name,
        timestamp=run.state_timestamp,
        message=message,
        state_details=run.state_details,
    )


def decode_recorded(
    data: bytes | None, data_format: str | None, keeping: Keeping
) -> tuple[bool, object]:
    """Whether a stored value can be had again, and the value.

    A value that is missing or cannot be read is no failure of the run: its call runs again. Bytes
    that may run anything when they are read are read only where the task has chosen them.
    """
    if data is None or not is_value(data_format):
        return False, None
    try:
        return True, values.load_stored(
            data, data_format, runs_code=keeping.runs_code, places=keeping.places
        )
    except MissingResult as error:
        _log.warning("a stored result cannot be read, its call runs again: %s", error)
        return False, None


def _describe(error: BaseException) -> str:
    return storable_text(f"{type(error).__name__}: {_text_of(error)}".removesuffix(": "))


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as failure:  # noqa: BLE001 - the __str__ of a user's class
        return f"<its text could not be made: {type(failure).__name__}>"


def _encode_error(error: BaseException) -> bytes:
    import traceback

    text = {
        "type": f"{type(error).__module__}:{type(error).__qualname__}",
        "message": _text_of(error),
        "traceback": "".join(traceback.format_exception(error)),
    }
    clean = {key: storable_text(value) for key, value in text.items()}
    return msgspec.json.encode(clean)
