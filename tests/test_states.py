"""States: what they say of themselves, and the result that they stand for."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from embedded_orch import State, StateType, errors, values
from embedded_orch.states import ERROR, VALUE, StateDetails

ALL = list(StateType)


def a_state(type: StateType = StateType.COMPLETED, **fields: Any) -> State:
    named = {"id": UUID(int=7), "name": type.value.capitalize(), "timestamp": 1_500_000}
    return State(type=type, **{**named, **fields})


QUESTIONS = {
    StateType.SCHEDULED: State.is_scheduled,
    StateType.PENDING: State.is_pending,
    StateType.RUNNING: State.is_running,
    StateType.COMPLETED: State.is_completed,
    StateType.FAILED: State.is_failed,
    StateType.CRASHED: State.is_crashed,
    StateType.CANCELLED: State.is_cancelled,
    StateType.PAUSED: State.is_paused,
}


@pytest.mark.parametrize("type", ALL)
def test_state_answers_for_its_type_alone(type: StateType) -> None:
    state = a_state(type)

    assert [each for each, ask in QUESTIONS.items() if ask(state)] == (
        [type] if type in QUESTIONS else []
    )
    assert state.is_final() == (type.value in ("COMPLETED", "FAILED", "CANCELLED", "CRASHED"))


def test_timestamp_is_an_aware_moment() -> None:
    assert a_state().timestamp == datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("type", "error"),
    [
        (StateType.FAILED, errors.FailedRun),
        (StateType.CRASHED, errors.CrashedRun),
        (StateType.CANCELLED, errors.CancelledRun),
        (StateType.PAUSED, errors.PausedRun),
        (StateType.SCHEDULED, errors.UnfinishedRun),
        (StateType.PENDING, errors.UnfinishedRun),
        (StateType.RUNNING, errors.UnfinishedRun),
        (StateType.CANCELLING, errors.UnfinishedRun),
    ],
)
def test_result_of_a_run_that_did_not_complete_is_an_error_of_its_kind(
    type: StateType, error: type[Exception]
) -> None:
    state = a_state(type, message="no disk")

    with pytest.raises(error) as caught:
        state.result()
    assert isinstance(caught.value, errors.RunError)
    if state.is_final():
        assert str(caught.value) == "no disk"
        returned = state.result(raise_on_failure=False)
        assert (builtin_type(returned), str(returned)) == (error, "no disk")
    else:
        with pytest.raises(error):
            state.result(raise_on_failure=False)


builtin_type = type


def test_result_raises_the_exception_itself_while_it_is_at_hand() -> None:
    error = LookupError("mine")
    state = a_state(StateType.FAILED).with_error(error)

    with pytest.raises(LookupError) as caught:
        state.result()
    assert caught.value is error
    assert state.result(raise_on_failure=False) is error


@pytest.mark.parametrize("value", [None, 0, [], {"a": (1, {2})}])
def test_result_of_a_completed_run_is_its_value(value: object) -> None:
    at_hand = a_state().with_value(value)
    stored = a_state(data=values.encode(value), data_format=VALUE)

    assert at_hand.result() is value
    assert (stored.result(), builtin_type(stored.result())) == (value, builtin_type(value))
    assert at_hand.has_result
    assert stored.has_result


def test_result_that_was_not_kept_is_an_error_that_says_why() -> None:
    state = a_state(message="the result was not stored: a lock")

    assert not state.has_result
    with pytest.raises(errors.MissingResult, match="a lock"):
        state.result()


def test_error_is_told_as_text() -> None:
    data = b'{"type":"builtins:ValueError","message":"no","traceback":"..."}'
    state = a_state(StateType.FAILED, data=data, data_format=ERROR)

    assert state.error_details == {
        "type": "builtins:ValueError",
        "message": "no",
        "traceback": "...",
    }
    assert a_state().error_details is None


def test_states_are_equal_by_their_ids() -> None:
    assert a_state() == a_state(StateType.FAILED)
    assert a_state() != a_state(id=UUID(int=8))
    assert a_state() != "Completed"
    assert len({a_state(), a_state(message="again")}) == 1


def test_state_is_printed_with_its_name_type_and_message() -> None:
    state = a_state(StateType.SCHEDULED, name="AwaitingRetry", message="no disk")

    assert repr(state) == "AwaitingRetry(type=SCHEDULED, message='no disk')"
    assert repr(a_state()) == "Completed(type=COMPLETED)"


def test_details_of_a_state_are_its_own() -> None:
    assert a_state().state_details == StateDetails()
    assert a_state(state_details=StateDetails(scheduled_time=3)).state_details.scheduled_time == 3
