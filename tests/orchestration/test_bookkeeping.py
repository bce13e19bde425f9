"""What storing a state changes on its run: one transform each."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedded_orch.orchestration.bookkeeping import bookkeep
from embedded_orch.orchestration.transition import (
    begin,
    complete,
    decide,
    is_plain_beginning,
    is_plain_completion,
    is_plain_life,
    is_plain_taking,
    live,
    take,
)
from embedded_orch.orchestration.values import NO_FACTS, CachedResult, Facts, Policy, Proposal, Run
from embedded_orch.states import TERMINAL_TYPES, StateDetails, StateType
from tests.orchestration.runs import (
    CANCELLED,
    COMPLETED,
    FAILED,
    NOW,
    PENDING,
    RUNNING,
    SCHEDULED,
    SECOND,
    WITH_VALUE,
    a_proposal,
    a_run,
    accepted,
    an_id,
    at,
    proposed,
)


def after(run: Run, state: Proposal) -> Run:
    return bookkeep(run, state, run.policy, NO_FACTS)


def test_states_of_a_run_never_share_a_timestamp() -> None:
    run = a_run(RUNNING, state_timestamp=NOW)

    decision = proposed(run, COMPLETED, timestamp=NOW)

    assert decision.proposal is not None
    assert decision.proposal.timestamp == NOW + 1


def test_clock_that_was_set_back_does_not_reorder_a_history() -> None:
    run = a_run(RUNNING, state_timestamp=NOW + 10 * SECOND)

    assert accepted(run, COMPLETED, timestamp=NOW).state_timestamp == NOW + 10 * SECOND + 1


def test_state_is_copied_onto_the_run() -> None:
    run = after(a_run(PENDING), a_proposal(RUNNING, name="Warming"))

    assert (run.state_id, run.state_type, run.state_name, run.state_timestamp) == (
        an_id(2),
        RUNNING,
        "Warming",
        NOW,
    )


def test_start_time_is_the_first_running() -> None:
    first = after(a_run(PENDING), a_proposal(RUNNING))
    second = after(first, a_proposal(RUNNING, timestamp=NOW + SECOND))

    assert (first.start_time, second.start_time) == (NOW, NOW)


@pytest.mark.parametrize("end", sorted(TERMINAL_TYPES))
def test_end_time_is_the_first_end(end: StateType) -> None:
    ended = after(a_run(RUNNING, start_time=5), a_proposal(end))
    moved = after(ended, a_proposal(CANCELLED, timestamp=NOW + SECOND))

    assert (ended.start_time, ended.end_time, moved.end_time) == (5, NOW, NOW)


def test_run_that_ends_without_running_starts_at_its_end() -> None:
    assert after(a_run(PENDING), a_proposal(CANCELLED)).start_time == NOW


@pytest.mark.parametrize("entering", sorted(set(StateType) - TERMINAL_TYPES))
def test_end_time_is_cleared_when_a_run_goes_on(entering: StateType) -> None:
    run = after(a_run(FAILED, start_time=5), a_proposal(entering))

    assert (run.start_time, run.end_time) == (5, None)


@pytest.mark.parametrize("entering", StateType)
def test_time_in_running_is_summed(entering: StateType) -> None:
    run = after(a_run(RUNNING, total_run_time=7), a_proposal(entering))

    assert run.total_run_time == SECOND + 7


@pytest.mark.parametrize("leaving", sorted(set(StateType) - {RUNNING}))
def test_time_out_of_running_is_not_summed(leaving: StateType) -> None:
    assert after(a_run(leaving, total_run_time=7), a_proposal(RUNNING)).total_run_time == 7


def test_expected_start_time_is_set_once() -> None:
    scheduled = after(a_run(), a_proposal(SCHEDULED, details=at(NOW + SECOND)))
    later = after(scheduled, a_proposal(SCHEDULED, details=at(NOW + 9 * SECOND)))

    assert (scheduled.expected_start_time, later.expected_start_time) == (NOW + SECOND,) * 2
    assert after(a_run(), a_proposal(PENDING)).expected_start_time == NOW


def test_next_scheduled_start_time_lasts_while_scheduled() -> None:
    scheduled = after(a_run(), a_proposal(SCHEDULED, details=at(NOW + SECOND)))
    pending = after(scheduled, a_proposal(PENDING, details=at(NOW + SECOND)))

    assert (scheduled.next_scheduled_start_time, pending.next_scheduled_start_time) == (
        NOW + SECOND,
        None,
    )


@pytest.mark.parametrize("is_flow_run", [True, False])
def test_entering_running_is_counted(is_flow_run: bool) -> None:
    first = after(a_run(PENDING, is_flow_run=is_flow_run), a_proposal(RUNNING))
    second = after(first, a_proposal(RUNNING))

    assert (first.run_count, second.run_count) == (1, 2)


@pytest.mark.parametrize("entering", StateType)
def test_resuming_ends_with_running_or_an_end(entering: StateType) -> None:
    run = after(a_run(PENDING, policy=Policy(retries=2, resuming=True)), a_proposal(entering))

    is_over = entering is RUNNING or entering in TERMINAL_TYPES
    assert run.policy == Policy(retries=2, resuming=not is_over)
    assert run.run_count == 0


def test_run_has_a_value_while_it_is_completed_with_one() -> None:
    completed = after(a_run(RUNNING), a_proposal(COMPLETED, **WITH_VALUE))

    assert completed.has_value
    assert not after(completed, a_proposal(FAILED, **WITH_VALUE)).has_value
    assert not after(completed, a_proposal(COMPLETED)).has_value


# -- a beginning, in one step ---------------------------------------------------------------------


@given(st.booleans(), st.integers(-2, 2), st.integers(0, 3), st.sampled_from(["Running", "Warm"]))
def test_beginning_in_one_step_is_the_two_states_one_by_one(
    is_flow_run: bool, gap: int, retries: int, name: str
) -> None:
    run = a_run(is_flow_run=is_flow_run, policy=Policy(retries=retries))
    pending = a_proposal(PENDING, id=an_id(2))
    running = a_proposal(RUNNING, id=an_id(3), name=name, timestamp=NOW + gap)
    first = decide(run, pending, now=NOW, force=True)
    second = decide(first.run, running, now=NOW, force=True)

    assert is_plain_beginning([pending, running])
    assert begin(run, pending, running) == (second.run, [first.proposal, second.proposal])


@pytest.mark.parametrize(
    "states",
    [
        [a_proposal(PENDING)],
        [a_proposal(PENDING), a_proposal(PENDING)],
        [a_proposal(SCHEDULED), a_proposal(RUNNING)],
        [a_proposal(PENDING), a_proposal(RUNNING, message="resumed")],
        [a_proposal(PENDING, details=StateDetails(cache_key="k")), a_proposal(RUNNING)],
        [a_proposal(PENDING), a_proposal(RUNNING, data=b"1", data_format="json")],
    ],
)
def test_beginning_that_says_more_is_no_plain_one(states: list[Proposal]) -> None:
    assert not is_plain_beginning(states)


# -- a whole life, in one step --------------------------------------------------------------------


@given(
    st.integers(-2, 2),
    st.integers(-2, 2),
    st.integers(0, 3),
    st.sampled_from([("json", b"1"), (None, None), ("error", b"{}")]),
    st.none() | st.text(max_size=3),
)
def test_life_in_one_step_is_its_three_states_one_by_one(
    began: int,
    ended: int,
    retries: int,
    stored: tuple[str | None, bytes | None],
    message: str | None,
) -> None:
    run = a_run(policy=Policy(retries=retries))
    states = [
        a_proposal(PENDING, id=an_id(2)),
        a_proposal(RUNNING, id=an_id(3), timestamp=NOW + began),
    ]
    ending = a_proposal(
        COMPLETED,
        id=an_id(4),
        timestamp=NOW + ended,
        message=message,
        data_format=stored[0],
        data=stored[1],
    )
    begun, first_two = begin(run, *states)
    last = decide(begun, ending, now=NOW)

    assert is_plain_life(states, ending)
    assert live(run, states, ending) == (last, [*first_two, last.proposal])


@pytest.mark.parametrize(
    "ending",
    [
        a_proposal(FAILED),
        a_proposal(COMPLETED, follows=an_id(9)),
        a_proposal(COMPLETED, details=StateDetails(cache_key="k")),
    ],
)
def test_end_that_the_rules_look_at_is_of_no_plain_life(ending: Proposal) -> None:
    assert not is_plain_life([a_proposal(PENDING), a_proposal(RUNNING)], ending)


# -- an end, in one step --------------------------------------------------------------------------


@given(
    st.booleans(),
    st.integers(-2, 2),
    st.integers(0, 5 * SECOND),
    st.sampled_from([("json", b"1"), (None, None), ("error", b"{}")]),
    st.none() | st.text(max_size=3),
    st.booleans(),
)
def test_completion_in_one_step_is_what_the_rules_make_of_it(
    is_flow_run: bool,
    gap: int,
    ran_before: int,
    stored: tuple[str | None, bytes | None],
    message: str | None,
    force: bool,
) -> None:
    run = a_run(
        RUNNING,
        is_flow_run=is_flow_run,
        state_timestamp=NOW,
        start_time=NOW - SECOND,
        expected_start_time=NOW - 2 * SECOND,
        total_run_time=ran_before,
        run_count=2,
        policy=Policy(retries=1, pause_keys=("p",)),
    )
    completed = a_proposal(
        COMPLETED,
        timestamp=NOW + gap,
        message=message,
        data_format=stored[0],
        data=stored[1],
        details=StateDetails(child_flow_run_id=an_id(8)),
    )

    assert is_plain_completion(run, completed)
    assert complete(run, completed) == decide(run, completed, now=NOW, force=force)


@pytest.mark.parametrize(
    ("run", "completed"),
    [
        (a_run(PENDING, start_time=NOW), a_proposal(COMPLETED)),
        (a_run(RUNNING), a_proposal(COMPLETED)),
        (a_run(RUNNING, start_time=NOW, end_time=NOW), a_proposal(COMPLETED)),
        (a_run(RUNNING, start_time=NOW, policy=Policy(resuming=True)), a_proposal(COMPLETED)),
        (a_run(RUNNING, start_time=NOW), a_proposal(COMPLETED, id=an_id(1))),
        (a_run(RUNNING, start_time=NOW), a_proposal(COMPLETED, follows=an_id(9))),
        (a_run(RUNNING, start_time=NOW), a_proposal(FAILED)),
    ],
)
def test_completion_that_changes_more_is_no_plain_one(run: Run, completed: Proposal) -> None:
    assert not is_plain_completion(run, completed)


# -- a cached result, in one step -----------------------------------------------------------------


@given(st.integers(-2, 2), st.integers(0, 3), st.sampled_from(["json", "pickle", "error"]))
def test_taking_in_one_step_is_the_two_states_one_by_one(
    gap: int, retries: int, data_format: str
) -> None:
    run = a_run(is_flow_run=False, policy=Policy(retries=retries), flow_run_run_count=2)
    cached = CachedResult(b"1", data_format)
    pending = a_proposal(PENDING, id=an_id(2))
    running = a_proposal(
        RUNNING, id=an_id(3), timestamp=NOW + gap, details=StateDetails(cache_key="k")
    )
    first = decide(run, pending, now=NOW, force=True)
    second = decide(first.run, running, now=NOW, facts=Facts(cached=cached))

    assert is_plain_taking([pending], running)
    assert take(run, pending, running, cached) == (second, [first.proposal, second.proposal])


_WITH_KEY = StateDetails(cache_key="k")


@pytest.mark.parametrize(
    ("states", "running"),
    [
        ([a_proposal(SCHEDULED)], a_proposal(RUNNING, details=_WITH_KEY)),
        ([a_proposal(PENDING)], a_proposal(RUNNING)),
        ([a_proposal(PENDING)], a_proposal(PENDING, details=_WITH_KEY)),
        ([a_proposal(PENDING)], a_proposal(RUNNING, details=_WITH_KEY, follows=an_id(9))),
        (
            [a_proposal(PENDING)],
            a_proposal(RUNNING, details=StateDetails(cache_key="k", refresh_cache=True)),
        ),
        (
            [a_proposal(PENDING), a_proposal(RUNNING)],
            a_proposal(RUNNING, details=_WITH_KEY),
        ),
    ],
)
def test_taking_about_which_the_rules_are_asked_is_no_plain_one(
    states: list[Proposal], running: Proposal
) -> None:
    assert not is_plain_taking(states, running)
