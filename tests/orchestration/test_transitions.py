"""The rules of runs against the tables that they follow, and against a plain model of a run."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedded_orch import times
from embedded_orch.orchestration.bookkeeping import bookkeep
from embedded_orch.orchestration.transition import decide
from embedded_orch.orchestration.values import Decision, Policy, Proposal, Run, Verdict
from embedded_orch.states import TERMINAL_TYPES, StateDetails, StateType

NOW = 1_700_000_000_000_000
SECOND = 1_000_000

SCHEDULED, PENDING, RUNNING = StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING
COMPLETED, FAILED, CANCELLED = StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED
CRASHED, PAUSED, CANCELLING = StateType.CRASHED, StateType.PAUSED, StateType.CANCELLING


def an_id(number: int) -> UUID:
    return UUID(int=number)


def a_run(state: StateType | None = None, *, is_flow_run: bool = True, **fields: Any) -> Run:
    """A run that has been in ``state`` for a second."""
    if state is not None:
        named = {
            "state_id": an_id(1),
            "state_type": state,
            "state_name": state.value.capitalize(),
            "state_timestamp": NOW - SECOND,
            "end_time": NOW - SECOND if state in TERMINAL_TYPES else None,
            "run_count": 1 if state is RUNNING else 0,
        }
        fields = {**named, **fields}
    return Run(id=an_id(99), is_flow_run=is_flow_run, **fields)


def a_task_run(state: StateType | None = None, **fields: Any) -> Run:
    return a_run(state, is_flow_run=False, **fields)


def a_proposal(type: StateType, **fields: Any) -> Proposal:
    named = {"id": an_id(2), "name": type.value.capitalize(), "timestamp": NOW}
    return Proposal(type=type, **{**named, **fields})


def at(scheduled_time: int | None) -> StateDetails:
    return StateDetails(scheduled_time=times.optional_datetime(scheduled_time))


def proposed(run: Run, type: StateType, **fields: Any) -> Decision:
    return decide(run, a_proposal(type, **fields), now=NOW)


def accepted(run: Run, type: StateType, **fields: Any) -> Run:
    """The run after a proposal that is accepted."""
    decision = proposed(run, type, **fields)
    assert decision.verdict is Verdict.ACCEPT
    assert decision.run is not None
    return decision.run


COLUMNS = (SCHEDULED, PENDING, RUNNING, COMPLETED, FAILED, CANCELLED, CRASHED, PAUSED, CANCELLING)
VERDICTS = {"A": Verdict.ACCEPT, "X": Verdict.ABORT, "R": Verdict.REJECT}

# Prefect's executed matrix for flow runs. A small letter is what becomes of the pair while the
# rules of pausing and cancelling are not there; the capital beside it is Prefect's.
#                SCHED PEND RUN  COMPL FAIL CANCD CRASH PAUSED CANCING
FLOW_MATRIX = """
    SCHEDULED    A     A    A    A     A    A     A     a/R    a/R
    PENDING      A     X    A    A     A    A     A     a/R    A
    RUNNING      A     X    A    A     A    A     A     A      A
    COMPLETED    A     A    A    A     A    A     X     X      X
    FAILED       A     A    A    A     A    A     X     X      X
    CANCELLED    A     X    A    A     A    A     X     X      X
    CRASHED      A     A    A    A     A    A     X     X      X
    PAUSED       A     a/R  A    A     A    A     A     a/R    A
    CANCELLING   a/R   x/R  a/R  a/R   a/R  A     a/R   a/R    a/R
"""
# All is accepted, except that what has ended neither crashes, pauses nor is being cancelled.
TASK_MATRIX = """
    SCHEDULED    A     A    A    A     A    A     A     A      A
    PENDING      A     A    A    A     A    A     A     A      A
    RUNNING      A     A    A    A     A    A     A     A      A
    COMPLETED    A     A    A    A     A    A     X     X      X
    FAILED       A     A    A    A     A    A     X     X      X
    CANCELLED    A     A    A    A     A    A     X     X      X
    CRASHED      A     A    A    A     A    A     X     X      X
    PAUSED       A     A    A    A     A    A     A     A      A
    CANCELLING   A     A    A    A     A    A     A     A      A
"""


def cells(matrix: str) -> list[tuple[StateType, StateType, Verdict]]:
    found = []
    for line in matrix.strip().splitlines():
        leaving, *row = line.split()
        assert len(row) == len(COLUMNS)
        for entering, letter in zip(COLUMNS, row, strict=True):
            found.append((StateType(leaving), entering, VERDICTS[letter[0].upper()]))
    return found


@pytest.mark.parametrize(("leaving", "entering", "verdict"), cells(FLOW_MATRIX))
def test_flow_run_moves_as_the_matrix_says(
    leaving: StateType, entering: StateType, verdict: Verdict
) -> None:
    assert proposed(a_run(leaving), entering).verdict is verdict


@pytest.mark.parametrize(("leaving", "entering", "verdict"), cells(TASK_MATRIX))
def test_task_run_moves_as_the_matrix_says(
    leaving: StateType, entering: StateType, verdict: Verdict
) -> None:
    assert proposed(a_task_run(leaving), entering).verdict is verdict


@pytest.mark.parametrize("is_flow_run", [True, False])
@pytest.mark.parametrize("entering", StateType)
def test_new_run_may_begin_in_any_state(is_flow_run: bool, entering: StateType) -> None:
    decision = proposed(a_run(is_flow_run=is_flow_run), entering)

    assert decision.verdict is Verdict.ACCEPT
    assert decision.run is not None
    assert decision.run.state_type is entering


# -- PreventDuplicateTransitions -----------------------------------------------------------------


def test_same_proposal_again_is_accepted_and_stores_nothing() -> None:
    proposal = a_proposal(RUNNING)
    first = decide(a_run(PENDING), proposal, now=NOW)
    assert first.run is not None

    again = decide(first.run, proposal, now=NOW + SECOND)

    assert (again.verdict, again.proposal, again.is_repeat) == (Verdict.ACCEPT, None, True)
    assert again.run == first.run


def test_same_failure_again_is_answered_with_the_same_retry() -> None:
    proposal = a_proposal(FAILED)
    first = decide(a_run(RUNNING, run_count=1, policy=Policy(retries=1)), proposal, now=NOW)
    assert first.run is not None

    again = decide(first.run, proposal, now=NOW)

    assert first.verdict is again.verdict is Verdict.REJECT
    assert again.proposal is None


# -- PreventPendingTransitions -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "proposed_name", "verdict"),
    [
        ("Pending", "Pending", Verdict.ABORT),
        ("Pending", "Submitting", Verdict.ACCEPT),
        ("Submitting", "Submitting", Verdict.ABORT),
        ("Submitting", "Pending", Verdict.ABORT),
        ("Submitting", "InfrastructurePending", Verdict.ACCEPT),
    ],
)
def test_pending_flow_run_only_moves_on_to_another_name(
    name: str, proposed_name: str, verdict: Verdict
) -> None:
    run = a_run(PENDING, state_name=name)

    assert proposed(run, PENDING, name=proposed_name).verdict is verdict


def test_pending_flow_run_that_moves_on_keeps_its_scheduled_time() -> None:
    run = a_run(PENDING, state_details=at(NOW + SECOND))

    assert accepted(run, PENDING, name="Submitting").state_details == at(NOW + SECOND)


# -- CopyScheduledTime, WaitForScheduledTime -----------------------------------------------------


@pytest.mark.parametrize("is_flow_run", [True, False])
def test_pending_takes_over_the_scheduled_time(is_flow_run: bool) -> None:
    run = a_run(SCHEDULED, is_flow_run=is_flow_run, state_details=at(NOW + SECOND))

    assert accepted(run, PENDING).state_details == at(NOW + SECOND)


@pytest.mark.parametrize("is_flow_run", [True, False])
def test_pending_keeps_a_scheduled_time_of_its_own(is_flow_run: bool) -> None:
    run = a_run(SCHEDULED, is_flow_run=is_flow_run, state_details=at(NOW + SECOND))

    assert accepted(run, PENDING, details=at(NOW + 5)).state_details == at(NOW + 5)


@pytest.mark.parametrize("is_flow_run", [True, False])
@pytest.mark.parametrize("leaving", [SCHEDULED, PENDING])
def test_running_waits_for_the_scheduled_time(leaving: StateType, is_flow_run: bool) -> None:
    run = a_run(leaving, is_flow_run=is_flow_run, state_details=at(NOW + 3 * SECOND // 2))

    decision = proposed(run, RUNNING)

    assert (decision.verdict, decision.delay_seconds) == (Verdict.WAIT, 1.5)
    assert decision.proposal is None


@pytest.mark.parametrize("scheduled_time", [None, NOW - SECOND, NOW])
@pytest.mark.parametrize("leaving", [SCHEDULED, PENDING])
def test_running_does_not_wait_for_a_time_that_has_come(
    leaving: StateType, scheduled_time: int | None
) -> None:
    run = a_run(leaving, state_details=at(scheduled_time))

    assert proposed(run, RUNNING).verdict is Verdict.ACCEPT


def test_running_does_not_wait_where_nothing_is_scheduled() -> None:
    run = a_run(PAUSED, state_details=at(NOW + SECOND))

    assert proposed(run, RUNNING).verdict is Verdict.ACCEPT


def test_scheduled_without_a_time_is_due_now() -> None:
    run = accepted(a_run(), SCHEDULED)

    assert (run.state_details, run.next_scheduled_start_time) == (at(NOW), NOW)


# -- RetryFailed ---------------------------------------------------------------------------------


@pytest.mark.parametrize("is_flow_run", [True, False])
@pytest.mark.parametrize(
    ("retries", "run_count", "verdict"),
    [
        (0, 1, Verdict.ACCEPT),
        (1, 1, Verdict.REJECT),
        (1, 2, Verdict.ACCEPT),
        (2, 2, Verdict.REJECT),
        (2, 3, Verdict.ACCEPT),
    ],
)
def test_failure_is_retried_while_retries_are_left(
    is_flow_run: bool, retries: int, run_count: int, verdict: Verdict
) -> None:
    policy = Policy(retries=retries)
    run = a_run(RUNNING, is_flow_run=is_flow_run, run_count=run_count, policy=policy)

    assert proposed(run, FAILED).verdict is verdict


@pytest.mark.parametrize(
    ("delay", "run_count", "seconds"),
    [
        (2.5, 1, 2.5),
        (2.5, 3, 2.5),
        ((1.0, 4.0), 1, 1),
        ((1.0, 4.0), 2, 4),
        ((1.0, 4.0), 3, 4),
    ],
)
def test_retry_is_due_after_its_delay(
    delay: float | tuple[float, ...], run_count: int, seconds: float
) -> None:
    policy = Policy(retries=9, retry_delay=delay)

    decision = proposed(a_task_run(RUNNING, run_count=run_count, policy=policy), FAILED)

    assert decision.run is not None
    assert decision.run.state_name == "AwaitingRetry"
    assert decision.run.next_scheduled_start_time == NOW + seconds * SECOND


@pytest.mark.parametrize("delay", [0, 0.0, (), (0,), (3.0, 0)])
def test_retry_of_a_task_without_a_delay_begins_at_once(delay: float | tuple[float, ...]) -> None:
    policy = Policy(retries=9, retry_delay=delay)

    decision = proposed(a_task_run(RUNNING, run_count=2, policy=policy), FAILED, message="no disk")

    assert (decision.verdict, decision.run and decision.run.run_count) == (Verdict.REJECT, 3)
    retrying = decision.proposal
    assert retrying is not None
    assert (retrying.type, retrying.name, retrying.message) == (RUNNING, "Retrying", "no disk")


def test_retry_of_a_flow_without_a_delay_is_awaited_all_the_same() -> None:
    decision = proposed(a_run(RUNNING, run_count=1, policy=Policy(retries=1)), FAILED)

    assert decision.run is not None
    assert (decision.run.state_name, decision.run.next_scheduled_start_time) == (
        "AwaitingRetry",
        NOW,
    )


def test_last_failure_of_a_task_says_that_it_is_final() -> None:
    run = a_task_run(RUNNING, run_count=2, policy=Policy(retries=1))

    assert accepted(run, FAILED).state_details.retriable is False


@pytest.mark.parametrize("factor", [0.1, 0.3, 2.0])
def test_jittered_delays_lie_around_their_average(factor: float) -> None:
    policy = Policy(retries=9, retry_delay=10, retry_jitter_factor=factor)
    steps = 2000

    delays = [policy.delay(1, chance=(n + 0.5) / steps) for n in range(steps)]

    assert delays == sorted(delays)
    assert policy.delay(1, chance=1) == pytest.approx(10 * (1 + factor))
    assert sum(delays) / steps == pytest.approx(10, rel=0.05)


def test_no_delay_is_not_jittered_and_no_jitter_leaves_a_delay() -> None:
    assert Policy(retry_delay=0, retry_jitter_factor=0.5).delay(1, chance=0.9) == 0
    assert Policy(retry_delay=7, retry_jitter_factor=0).delay(1, chance=0.9) == 7
    assert 0 <= Policy(retry_delay=7, retry_jitter_factor=99).delay(1, chance=0) < 0.01


def test_retry_is_due_after_a_delay_that_chance_decides() -> None:
    policy = Policy(retries=1, retry_delay=10, retry_jitter_factor=0.5)
    run = a_task_run(RUNNING, run_count=1, policy=policy)

    decision = proposed(run, FAILED, chance=1.0)

    assert decision.run is not None
    assert decision.run.next_scheduled_start_time == NOW + 15 * SECOND


def test_retry_keeps_the_message_and_the_error_of_the_failure() -> None:
    run = a_run(RUNNING, run_count=1, policy=Policy(retries=1))

    decision = proposed(run, FAILED, message="no disk", data=b"{}", data_format="error")

    waiting = decision.proposal
    assert waiting is not None
    assert waiting.type is SCHEDULED
    assert (waiting.message, waiting.data, waiting.data_format) == ("no disk", b"{}", "error")


def test_failure_that_is_not_retriable_is_final() -> None:
    run = a_task_run(RUNNING, run_count=1, policy=Policy(retries=5))

    assert accepted(run, FAILED, details=StateDetails(retriable=False)).state_type is FAILED


def test_failure_of_what_does_not_run_is_not_retried() -> None:
    run = a_task_run(PENDING, run_count=1, policy=Policy(retries=5))

    assert accepted(run, FAILED).state_type is FAILED


def test_retried_flow_run_is_running_and_counted() -> None:
    waiting = proposed(a_run(RUNNING, run_count=1, policy=Policy(retries=1)), FAILED).run
    assert waiting is not None

    again = accepted(waiting, RUNNING, id=an_id(3))

    assert (again.state_name, again.run_count) == ("Running", 2)


# -- RenameReruns, HandleTaskTerminalStateTransitions --------------------------------------------


@pytest.mark.parametrize(
    ("state", "state_name", "run_count", "name"),
    [
        (PENDING, "Pending", 0, "Running"),
        (PENDING, "Pending", 1, "Rerunning"),
        (RUNNING, "Running", 1, "Rerunning"),
        (SCHEDULED, "AwaitingRetry", 1, "Retrying"),
        (SCHEDULED, "Scheduled", 1, "Rerunning"),
    ],
)
def test_task_run_that_runs_again_is_named_for_it(
    state: StateType, state_name: str, run_count: int, name: str
) -> None:
    run = a_task_run(state, state_name=state_name, run_count=run_count)

    assert accepted(run, RUNNING).state_name == name


def test_task_run_keeps_a_name_that_somebody_chose() -> None:
    assert accepted(a_task_run(RUNNING, run_count=1), RUNNING, name="Warming").state_name == (
        "Warming"
    )


def test_flow_run_that_runs_again_is_running() -> None:
    assert accepted(a_run(RUNNING, run_count=1), RUNNING).state_name == "Running"


@pytest.mark.parametrize("leaving", sorted(TERMINAL_TYPES))
def test_task_run_of_an_earlier_attempt_is_retrying(leaving: StateType) -> None:
    run = a_task_run(leaving, run_count=3, flow_run_run_count=1, flow_run_attempt=2)

    again = accepted(run, RUNNING)

    assert (again.state_name, again.run_count, again.flow_run_run_count) == ("Retrying", 1, 2)


@pytest.mark.parametrize("attempts", [{}, {"flow_run_run_count": 2, "flow_run_attempt": 2}])
@pytest.mark.parametrize("leaving", sorted(TERMINAL_TYPES))
def test_task_run_that_begins_anew_in_the_same_attempt_is_running(
    leaving: StateType, attempts: dict[str, int]
) -> None:
    again = accepted(a_task_run(leaving, run_count=3, **attempts), RUNNING)

    assert (again.state_name, again.run_count) == ("Running", 1)


@pytest.mark.parametrize("leaving", sorted(TERMINAL_TYPES))
@pytest.mark.parametrize("entering", [SCHEDULED, PENDING])
def test_task_run_that_leaves_its_end_has_no_attempts(
    leaving: StateType, entering: StateType
) -> None:
    assert accepted(a_task_run(leaving, run_count=3), entering).run_count == 0


def test_task_run_that_moves_from_end_to_end_keeps_its_attempts() -> None:
    assert accepted(a_task_run(FAILED, run_count=3), COMPLETED).run_count == 3


def test_flow_run_that_leaves_its_end_keeps_its_attempts() -> None:
    assert accepted(a_run(FAILED, run_count=3), RUNNING).run_count == 4


# -- what storing a state changes, one transform each --------------------------------------------


def test_states_of_a_run_never_share_a_timestamp() -> None:
    run = a_run(RUNNING, state_timestamp=NOW)

    decision = proposed(run, COMPLETED, timestamp=NOW)

    assert decision.proposal is not None
    assert decision.proposal.timestamp == NOW + 1


def test_clock_that_was_set_back_does_not_reorder_a_history() -> None:
    run = a_run(RUNNING, state_timestamp=NOW + 10 * SECOND)

    assert accepted(run, COMPLETED, timestamp=NOW).state_timestamp == NOW + 10 * SECOND + 1


def test_state_is_copied_onto_the_run() -> None:
    run = bookkeep(a_run(PENDING), a_proposal(RUNNING, name="Warming"))

    assert (run.state_id, run.state_type, run.state_name, run.state_timestamp) == (
        an_id(2),
        RUNNING,
        "Warming",
        NOW,
    )


def test_start_time_is_the_first_running() -> None:
    first = bookkeep(a_run(PENDING), a_proposal(RUNNING))
    second = bookkeep(first, a_proposal(RUNNING, timestamp=NOW + SECOND))

    assert (first.start_time, second.start_time) == (NOW, NOW)


@pytest.mark.parametrize("end", sorted(TERMINAL_TYPES))
def test_end_time_is_the_first_end(end: StateType) -> None:
    ended = bookkeep(a_run(RUNNING, start_time=5), a_proposal(end))
    moved = bookkeep(ended, a_proposal(CANCELLED, timestamp=NOW + SECOND))

    assert (ended.start_time, ended.end_time, moved.end_time) == (5, NOW, NOW)


def test_run_that_ends_without_running_starts_at_its_end() -> None:
    assert bookkeep(a_run(PENDING), a_proposal(CANCELLED)).start_time == NOW


@pytest.mark.parametrize("entering", sorted(set(StateType) - TERMINAL_TYPES))
def test_end_time_is_cleared_when_a_run_goes_on(entering: StateType) -> None:
    run = bookkeep(a_run(FAILED, start_time=5), a_proposal(entering))

    assert (run.start_time, run.end_time) == (5, None)


@pytest.mark.parametrize("entering", StateType)
def test_time_in_running_is_summed(entering: StateType) -> None:
    run = bookkeep(a_run(RUNNING, total_run_time=7), a_proposal(entering))

    assert run.total_run_time == SECOND + 7


@pytest.mark.parametrize("leaving", sorted(set(StateType) - {RUNNING}))
def test_time_out_of_running_is_not_summed(leaving: StateType) -> None:
    assert bookkeep(a_run(leaving, total_run_time=7), a_proposal(RUNNING)).total_run_time == 7


def test_expected_start_time_is_set_once() -> None:
    scheduled = bookkeep(a_run(), a_proposal(SCHEDULED, details=at(NOW + SECOND)))
    later = bookkeep(scheduled, a_proposal(SCHEDULED, details=at(NOW + 9 * SECOND)))

    assert (scheduled.expected_start_time, later.expected_start_time) == (NOW + SECOND,) * 2
    assert bookkeep(a_run(), a_proposal(PENDING)).expected_start_time == NOW


def test_next_scheduled_start_time_lasts_while_scheduled() -> None:
    scheduled = bookkeep(a_run(), a_proposal(SCHEDULED, details=at(NOW + SECOND)))
    pending = bookkeep(scheduled, a_proposal(PENDING, details=at(NOW + SECOND)))

    assert (scheduled.next_scheduled_start_time, pending.next_scheduled_start_time) == (
        NOW + SECOND,
        None,
    )


@pytest.mark.parametrize("is_flow_run", [True, False])
def test_entering_running_is_counted(is_flow_run: bool) -> None:
    first = bookkeep(a_run(PENDING, is_flow_run=is_flow_run), a_proposal(RUNNING))
    second = bookkeep(first, a_proposal(RUNNING))

    assert (first.run_count, second.run_count) == (1, 2)


# -- any proposals at all ------------------------------------------------------------------------


def microseconds(moment: datetime | None) -> int | None:
    return None if moment is None else times.microseconds_from_datetime(moment)


class Model:
    """A run as a dict and its history as a list: what the rules and transforms say, in words."""

    def __init__(self, *, is_flow_run: bool, retries: int, delay: float) -> None:
        self.is_flow_run, self.retries, self.delay = is_flow_run, retries, delay
        self.history: list[dict[str, Any]] = []

    @property
    def current(self) -> dict[str, Any]:
        return self.history[-1] if self.history else {"type": None, "at": None, "due": None}

    def verdict(self, proposal: Proposal, now: int) -> Verdict:
        here, to = self.current["type"], proposal.type
        if here in TERMINAL_TYPES and to in (CANCELLING, PAUSED, CRASHED):
            return Verdict.ABORT
        if self.is_flow_run and to is PENDING:
            moves_on = here is PENDING and proposal.name not in ("Pending", self.current["name"])
            if here in (PENDING, RUNNING, CANCELLING, CANCELLED) and not moves_on:
                return Verdict.ABORT
        if to is RUNNING and here in (SCHEDULED, PENDING) and (self.current["due"] or 0) > now:
            return Verdict.WAIT
        is_final = proposal.details.retriable is False
        if (here, to) == (RUNNING, FAILED) and not is_final and self.runs <= self.retries:
            return Verdict.REJECT
        return Verdict.ACCEPT

    def store(self, decision: Decision) -> None:
        state = decision.proposal
        assert state is not None
        self.history.append(
            {
                "type": state.type,
                "name": state.name,
                "at": state.timestamp,
                "due": microseconds(state.details.scheduled_time),
            }
        )

    @property
    def runs(self) -> int:
        count = 0
        for before, state in zip([None, *self.history], self.history, strict=False):
            leaves_end = before is not None and before["type"] in TERMINAL_TYPES
            if leaves_end and state["type"] not in TERMINAL_TYPES and not self.is_flow_run:
                count = 0
            count += state["type"] is RUNNING
        return count

    @property
    def run_time(self) -> int:
        pairs = zip(self.history, self.history[1:], strict=False)
        return sum(after["at"] - state["at"] for state, after in pairs if state["type"] is RUNNING)

    @property
    def start(self) -> int | None:
        starts = (
            s["at"] for s in self.history if s["type"] is RUNNING or s["type"] in TERMINAL_TYPES
        )
        return next(starts, None)

    @property
    def end(self) -> int | None:
        end = None
        for state in self.history:
            if state["type"] not in TERMINAL_TYPES:
                end = None
            elif end is None:
                end = state["at"]
        return end

    @property
    def expected(self) -> int | None:
        if not self.history:
            return None
        first = self.history[0]
        return first["due"] if first["type"] is SCHEDULED else first["at"]


proposals = st.lists(
    st.tuples(
        st.sampled_from(StateType),
        st.sampled_from([None, "Late", "Submitting"]),
        st.integers(-3, 5),
        st.sampled_from([None, None, -2, 2, 7]),
        st.sampled_from([None, None, False]),
    ),
    max_size=20,
)


@settings(max_examples=300, deadline=None)
@given(
    is_flow_run=st.booleans(),
    retries=st.integers(0, 3),
    delay=st.sampled_from([0, 2]),
    steps=proposals,
)
def test_any_proposals_leave_a_run_that_agrees_with_its_history(
    is_flow_run: bool,
    retries: int,
    delay: int,
    steps: list[tuple[StateType, str | None, int, int | None, bool | None]],
) -> None:
    policy = Policy(retries=retries, retry_delay=delay)
    run = Run(id=an_id(99), is_flow_run=is_flow_run, policy=policy)
    model = Model(is_flow_run=is_flow_run, retries=retries, delay=delay)
    now = NOW
    for number, (type, name, step, due, retriable) in enumerate(steps):
        now += step * SECOND
        scheduled_time = None if due is None else now + due * SECOND
        proposal = a_proposal(
            type,
            id=an_id(1000 + number),
            name=name or type.value.capitalize(),
            timestamp=now,
            details=StateDetails(
                scheduled_time=times.optional_datetime(scheduled_time), retriable=retriable
            ),
        )
        decision = decide(run, proposal, now=now)

        assert decision.verdict is model.verdict(proposal, now)
        if decision.run is None:
            assert decision.reason
            continue
        model.store(decision)
        run = decision.run
        assert (run.state_type, run.state_timestamp) == (
            model.current["type"],
            model.current["at"],
        )
        assert run.state_id == proposal.id
        assert run.run_count == model.runs
        assert run.total_run_time == model.run_time
        assert (run.start_time, run.end_time) == (model.start, model.end)
        assert run.expected_start_time == model.expected
        is_scheduled = run.state_type is SCHEDULED
        assert run.next_scheduled_start_time == (model.current["due"] if is_scheduled else None)
    stamps = [state["at"] for state in model.history]
    assert stamps == sorted(set(stamps))
    assert (run.end_time is not None) == (run.state_type in TERMINAL_TYPES)


@settings(max_examples=300, deadline=None)
@given(
    is_flow_run=st.booleans(),
    state=st.sampled_from([None, *StateType]),
    type=st.sampled_from(StateType),
    name=st.sampled_from(["", "Running", "AwaitingRetry", "Pending"]),
    counts=st.tuples(st.integers(0, 5), st.integers(0, 5), st.none() | st.integers(0, 5)),
    moments=st.tuples(*[st.none() | st.integers(0, 2 * NOW)] * 4),
    retries=st.integers(0, 5),
    delays=st.lists(st.floats(0, 1e9), max_size=3),
)
def test_every_pair_has_a_decision(
    is_flow_run: bool,
    state: StateType | None,
    type: StateType,
    name: str,
    counts: tuple[int, int, int | None],
    moments: tuple[int | None, int | None, int | None, int | None],
    retries: int,
    delays: list[float],
) -> None:
    run = a_run(
        state,
        is_flow_run=is_flow_run,
        run_count=counts[0],
        flow_run_run_count=counts[1],
        flow_run_attempt=counts[2],
        state_details=at(moments[0]),
        start_time=moments[1],
        policy=Policy(retries=retries, retry_delay=tuple(delays)),
    )
    details = at(moments[2])

    decision = proposed(run, type, name=name, timestamp=moments[3] or 0, details=details)

    assert isinstance(decision.verdict, Verdict)
    is_stored = decision.proposal is not None
    assert is_stored == (decision.run is not None)
    assert is_stored == (decision.verdict in (Verdict.ACCEPT, Verdict.REJECT))
    assert (decision.delay_seconds > 0) == (decision.verdict is Verdict.WAIT)
