"""States: what they say of themselves, and the result that they stand for."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from embedded_orch import State, StateType, errors, flow, states, task, times, values
from embedded_orch.process import OWN
from embedded_orch.states import (
    ERROR,
    VALUE,
    AwaitingRetry,
    Cancelled,
    Completed,
    Crashed,
    Failed,
    Late,
    Paused,
    Pending,
    Running,
    Scheduled,
    StateDetails,
    StateGroup,
    Suspended,
    get_state_exception,
    is_state,
    is_state_iterable,
    raise_state_exception,
)
from tests.opened import opened

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
    StateType.CANCELLING: State.is_cancelling,
    StateType.PAUSED: State.is_paused,
}


@pytest.mark.parametrize("type", ALL)
def test_state_answers_for_its_type_alone(type: StateType) -> None:
    state = a_state(type)

    assert [each for each, ask in QUESTIONS.items() if ask(state)] == [type]
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


@pytest.mark.parametrize(
    ("state", "as_repr", "as_text"),
    [
        (Completed(), "Completed(type=COMPLETED)", "Completed()"),
        (Failed(message="no"), "Failed(type=FAILED, message='no')", "Failed('no')"),
        (Late(), "Late(type=SCHEDULED)", "Late(type=SCHEDULED)"),
        (
            AwaitingRetry(message="no disk"),
            "AwaitingRetry(type=SCHEDULED, message='no disk')",
            "AwaitingRetry('no disk', type=SCHEDULED)",
        ),
    ],
)
def test_state_is_printed_with_its_name_type_and_message(
    state: State, as_repr: str, as_text: str
) -> None:
    assert (repr(state), str(state)) == (as_repr, as_text)


# -- states that users make ----------------------------------------------------------------------

MADE = {
    "Scheduled": StateType.SCHEDULED,
    "Late": StateType.SCHEDULED,
    "AwaitingRetry": StateType.SCHEDULED,
    "AwaitingConcurrencySlot": StateType.SCHEDULED,
    "Pending": StateType.PENDING,
    "Submitting": StateType.PENDING,
    "InfrastructurePending": StateType.PENDING,
    "Running": StateType.RUNNING,
    "Retrying": StateType.RUNNING,
    "Completed": StateType.COMPLETED,
    "Failed": StateType.FAILED,
    "Cancelled": StateType.CANCELLED,
    "Crashed": StateType.CRASHED,
    "Paused": StateType.PAUSED,
    "Suspended": StateType.PAUSED,
    "Cancelling": StateType.CANCELLING,
}


@pytest.mark.parametrize(("name", "type"), MADE.items())
def test_state_is_made_by_its_name(name: str, type: StateType) -> None:
    make = getattr(states, name)

    made, renamed = make(message="why", data=3), make(name="Mine")

    assert (made.type, made.name, made.message, made.data) == (type, name, "why", 3)
    assert (renamed.type, renamed.name) == (type, "Mine")


@pytest.mark.parametrize("type", ALL)
def test_state_without_more_is_named_for_its_type_and_enters_it_now(type: StateType) -> None:
    before = OWN.now()
    first, second = State(type=type), State(type=type.value)

    assert first.name == second.name == type.value.capitalize()
    assert first.type is second.type is type
    assert first.id < second.id
    assert before <= first.timestamp_microseconds <= second.timestamp_microseconds <= OWN.now()
    due = first.state_details.scheduled_time
    assert (due is not None) == (type is StateType.SCHEDULED)
    assert due is None or times.microseconds_from_datetime(due) >= before


@pytest.mark.parametrize("type", ["completed", "Completed", "DONE", ""])
def test_type_that_there_is_not_is_refused(type: str) -> None:
    with pytest.raises(errors.ConfigurationError, match="SCHEDULED, PENDING"):
        State(type=type)


def test_timestamp_without_a_time_zone_is_refused() -> None:
    with pytest.raises(errors.ConfigurationError, match="time zone"):
        State(type="RUNNING", timestamp=datetime(2026, 1, 1))  # noqa: DTZ001 - that is the mistake


TOMORROW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize("make", [Scheduled, Late, AwaitingRetry, states.AwaitingConcurrencySlot])
def test_scheduled_state_is_due_when_it_says(make: Callable[..., State]) -> None:
    details = StateDetails(cache_key="k")

    given = make(scheduled_time=TOMORROW, state_details=details)

    assert given.state_details == StateDetails(cache_key="k", scheduled_time=TOMORROW)
    assert make(state_details={"scheduled_time": TOMORROW}).state_details.scheduled_time == TOMORROW
    with pytest.raises(ValueError, match="state_details have one"):
        make(scheduled_time=TOMORROW, state_details={"scheduled_time": TOMORROW})


@pytest.mark.parametrize(
    ("arguments", "details"),
    [
        ({}, StateDetails()),
        ({"pause_key": "k"}, StateDetails(pause_key="k")),
        ({"pause_expiration_time": TOMORROW}, StateDetails(pause_timeout=TOMORROW)),
        (
            {"pause_expiration_time": TOMORROW, "state_details": StateDetails(cache_key="c")},
            StateDetails(pause_timeout=TOMORROW, cache_key="c"),
        ),
        ({"state_details": {"pause_key": "k"}}, StateDetails(pause_key="k")),
    ],
)
def test_pause_says_how_long_it_lasts(arguments: dict[str, Any], details: StateDetails) -> None:
    suspended = msgspec.structs.replace(details, pause_reschedule=True)

    assert Paused(**arguments).state_details == details
    assert Paused(reschedule=True, **arguments).state_details == suspended
    assert Suspended(**arguments).state_details == suspended


def test_pause_with_a_number_of_seconds_ends_that_long_from_now() -> None:
    before = datetime.now(UTC)
    ends = Paused(timeout_seconds=60).state_details.pause_timeout

    assert ends is not None
    assert before <= ends - timedelta(seconds=60) <= datetime.now(UTC)


@pytest.mark.parametrize("make", [Paused, Suspended])
@pytest.mark.parametrize(
    "arguments",
    [
        {"timeout_seconds": 1, "pause_expiration_time": TOMORROW},
        {"timeout_seconds": 1, "state_details": {"pause_timeout": TOMORROW}},
        {"pause_expiration_time": TOMORROW, "state_details": {"pause_timeout": TOMORROW}},
    ],
)
def test_pause_that_ends_at_two_times_is_refused(
    make: Callable[..., State], arguments: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="time"):
        make(**arguments)


def test_details_of_a_state_are_its_own() -> None:
    details = StateDetails(cache_key="k")

    assert Running().state_details == StateDetails()
    assert Running(state_details=details).state_details == details
    assert Running(state_details={"cache_key": "k"}).state_details == details


@pytest.mark.parametrize(
    "details", [{"cache_keys": "k"}, {"cache_key": 3}, {"scheduled_time": "tomorrow"}]
)
def test_details_that_there_are_not_are_refused(details: dict[str, Any]) -> None:
    with pytest.raises(errors.ConfigurationError, match="state_details"):
        Running(state_details=details)


def test_state_of_a_run_says_whose_it_is() -> None:
    run, child = UUID(int=1), UUID(int=2)
    state = Running(state_details=StateDetails(cache_key="k"))

    assert state.of_run(flow_run_id=run, task_run_id=child) is state
    assert state.state_details == StateDetails(flow_run_id=run, task_run_id=child, cache_key="k")


def test_fresh_copy_differs_by_its_id_and_its_time_alone() -> None:
    state = Paused(message="why", name="Waiting", data=[1], pause_key="k")
    copy = state.fresh_copy()

    assert copy.id > state.id
    assert copy.timestamp_microseconds >= state.timestamp_microseconds
    for field in ("type", "name", "message", "data", "state_details"):
        assert getattr(copy, field) == getattr(state, field)
    stored = a_state(data=values.encode((1,)), data_format=VALUE)
    assert stored.fresh_copy().result() == (1,)


# -- results of states that users make -----------------------------------------------------------

MINE = LookupError("mine")


@pytest.mark.parametrize("value", [3, "text", [1], Completed(), Failed(message="inner")])
def test_result_of_a_completed_state_is_its_data(value: object) -> None:
    assert Completed(data=value).result() is value


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        (Failed(), errors.FailedRun, "the run is Failed"),
        (Failed(message="m"), errors.FailedRun, "m"),
        (Failed(message="m", data="text"), errors.FailedRun, "text"),
        (Crashed(data="text"), errors.CrashedRun, "text"),
        (Cancelled(data="text"), errors.CancelledRun, "text"),
        (Failed(data=MINE), LookupError, "mine"),
        (Failed(data=Crashed(message="inner")), errors.CrashedRun, "inner"),
        (Failed(data=[Completed(), Failed(data=MINE)]), LookupError, "mine"),
        (Failed(data=(Running(), Cancelled(message="c"))), errors.CancelledRun, "c"),
        (Failed(data={Failed(data=Failed(data=MINE))}), LookupError, "mine"),
        (Failed(data=[Completed()]), ValueError, "none of the states"),
        (Failed(data=Completed()), ValueError, "no failed, crashed or cancelled"),
        (Failed(data=3), ValueError, "no error"),
        (Failed(data=[]), ValueError, "no error"),
    ],
)
def test_bad_end_raises_the_first_failure_that_it_holds(
    state: State, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        state.result()
    with pytest.raises(error, match=message):
        raise_state_exception(state)
    if error is not ValueError:
        assert isinstance(get_state_exception(state), error)
    data = state.data
    if data is not None:
        assert state.result(raise_on_failure=False) is data


@pytest.mark.parametrize("state", [Completed(), Running(), Paused(), Scheduled(), Pending()])
def test_state_that_is_no_bad_end_has_no_exception(state: State) -> None:
    assert raise_state_exception(state) is None
    with pytest.raises(ValueError, match="no failed, crashed or cancelled"):
        get_state_exception(state)


# -- asynchronous code awaits, as with Prefect ---------------------------------------------------


def test_in_a_running_loop_a_result_is_awaited() -> None:
    async def main() -> list[object]:
        error = get_state_exception(Failed(data=MINE))
        assert inspect.isawaitable(error)
        asking = raise_state_exception(Failed(data=MINE))
        assert inspect.isawaitable(asking)
        with pytest.raises(LookupError):
            await asking
        nothing = raise_state_exception(Completed())
        assert inspect.isawaitable(nothing)
        return [await Completed(data=1).result(), await error, await nothing]  # type: ignore[misc]

    assert asyncio.run(main()) == [1, MINE, None]


def test_the_innermost_run_says_whether_a_result_is_awaited() -> None:
    @task
    def plain() -> object:
        return Completed(data=1).result()

    @flow
    async def later() -> list[object]:
        value = Completed(data=2).result()
        assert inspect.isawaitable(value)
        return [plain(), await value]

    @flow
    def outer() -> object:
        return Completed(data=3).result()

    async def main() -> list[object]:
        return [outer(), *await later()]

    with opened(":memory:"):
        assert asyncio.run(main()) == [3, 1, 2]


# -- several states ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        ([], False),
        ([Completed()], True),
        ((Completed(), Failed()), True),
        ({Completed()}, True),
        ({"a": Completed()}, False),
        ([Completed(), 1], False),
        (Completed(), False),
        (3, False),
        (iter([Completed()]), False),
    ],
)
def test_states_and_nothing_else_are_told_apart(value: object, answer: bool) -> None:
    assert is_state_iterable(value) is answer
    assert is_state(value) is isinstance(value, State)


def test_states_are_counted_by_type() -> None:
    mixed = StateGroup([Completed(), Failed(), Running(), Paused(), Cancelled(), Crashed()])
    good = StateGroup([Completed(), Completed()])

    assert (mixed.total_count, mixed.final_count, mixed.not_final_count) == (6, 4, 2)
    assert (mixed.fail_count, mixed.cancelled_count, mixed.paused_count) == (2, 1, 1)
    assert mixed.any_failed()
    assert mixed.any_cancelled()
    assert mixed.any_paused()
    assert not mixed.all_completed()
    assert not mixed.all_final()
    assert good.all_completed()
    assert good.all_final()
    assert [good.any_failed(), good.any_cancelled(), good.any_paused()] == [False] * 3
    assert good.counts_message() == "total=2, 'COMPLETED'=2"
    assert repr(StateGroup([Failed(), Running()])) == (
        "StateGroup<total=2, not_final=1, 'FAILED'=1, 'RUNNING'=1>"
    )
