"""Each rule of flow runs, a row for each of its cases, in the order in which they are asked."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from embedded_orch import times
from embedded_orch.orchestration.flow_rules import CORE_FLOW_POLICY, MINIMAL_FLOW_POLICY
from embedded_orch.orchestration.transition import decide
from embedded_orch.orchestration.values import Policy, Verdict
from embedded_orch.states import ERROR, TERMINAL_TYPES, StateDetails, StateType
from tests.orchestration.runs import (
    CANCELLED,
    CANCELLING,
    COMPLETED,
    CRASHED,
    FAILED,
    NOW,
    PAUSED,
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

ACCEPT, REJECT, ABORT = Verdict.ACCEPT, Verdict.REJECT, Verdict.ABORT


def test_rules_are_asked_in_the_order_of_the_documentation() -> None:
    assert [rule.name for rule in CORE_FLOW_POLICY] == [
        "PreventDuplicateTransitions",
        "HandleFlowTerminalStateTransitions",
        "EnforceCancellingToCancelled",
        "BypassCancellingFlowRunsWithNoInfra",
        "PreventPendingTransitions",
        "EnsureOnlyScheduledFlowsMarkedLate",
        "HandlePausingFlows",
        "HandleResumingPausedFlows",
        "CopyScheduledTime",
        "WaitForScheduledTime",
        "RetryFailedFlows",
    ]
    assert [rule.name for rule in MINIMAL_FLOW_POLICY] == [
        "PreventResultDataLoss",
        "BypassCancellingFlowRunsWithNoInfra",
    ]


# -- the same proposal, the same transition, and a run that was moved meanwhile -------------------


def test_same_proposal_again_is_accepted_and_stores_nothing() -> None:
    proposal = a_proposal(RUNNING)
    first = decide(a_run(PENDING), proposal, now=NOW)

    again = decide(first.run, proposal, now=NOW + SECOND)

    assert (again.verdict, again.proposal, again.is_repeat) == (ACCEPT, None, True)
    assert again.run == first.run


@pytest.mark.parametrize(
    ("run", "type"),
    [
        (a_run(RUNNING, run_count=1, policy=Policy(retries=1)), FAILED),
        (a_run(SCHEDULED), CANCELLING),
    ],
)
def test_same_proposal_again_is_answered_with_the_state_that_was_put_in_its_place(
    run: Any, type: StateType
) -> None:
    proposal = a_proposal(type)
    first = decide(run, proposal, now=NOW)

    again = decide(first.run, proposal, now=NOW)

    assert first.verdict is again.verdict is REJECT
    assert (again.proposal, again.run) == (None, first.run)


@pytest.mark.parametrize(
    ("before", "now", "force", "verdict"),
    [
        (an_id(5), an_id(5), False, REJECT),
        (an_id(5), an_id(6), False, ACCEPT),
        (None, an_id(5), False, ACCEPT),
        (an_id(5), None, False, ACCEPT),
        (None, None, False, ACCEPT),
        (an_id(5), an_id(5), True, ACCEPT),
    ],
)
@pytest.mark.parametrize("type", [RUNNING, COMPLETED])
def test_transition_is_made_once(
    before: Any, now: Any, force: bool, verdict: Verdict, type: StateType
) -> None:
    run = a_run(RUNNING, state_details=StateDetails(transition_id=before))
    details = StateDetails(transition_id=now)

    decision = proposed(run, type, details=details, force=force)

    assert decision.verdict is verdict
    assert decision.run.run_count == run.run_count + (verdict is ACCEPT and type is RUNNING)


@pytest.mark.parametrize("force", [True, False])
def test_proposal_is_void_when_the_run_was_moved_meanwhile(force: bool) -> None:
    waiting = a_run(SCHEDULED, state_id=an_id(7))

    assert proposed(waiting, RUNNING, follows=an_id(7), force=force).verdict is ACCEPT
    moved = proposed(waiting, RUNNING, follows=an_id(8), force=force)
    assert (moved.verdict, moved.run) == (ABORT, waiting)
    assert "Scheduled by now" in (moved.reason or "")


# -- HandleFlowTerminalStateTransitions ----------------------------------------------------------


@pytest.mark.parametrize("leaving", sorted(TERMINAL_TYPES))
def test_run_goes_on_after_its_end_as_if_it_had_not_paused(leaving: StateType) -> None:
    policy = Policy(retries=3, retry_type="in_process", resuming=True, pause_keys=("a",))
    run = a_run(leaving, policy=policy)

    again, later = accepted(run, RUNNING), accepted(run, SCHEDULED)

    assert again.policy == Policy(retries=3)
    assert later.policy == Policy(retries=3, retry_type="reschedule")
    assert (again.run_count, again.end_time) == (1, None)


@pytest.mark.parametrize("entering", [SCHEDULED, PENDING, RUNNING])
def test_completed_run_with_a_value_keeps_it(entering: StateType) -> None:
    run = a_run(COMPLETED, has_value=True)

    decision = proposed(run, entering)

    assert (decision.verdict, decision.run) == (REJECT, run)
    assert proposed(run, entering, force=True).verdict is ACCEPT


@pytest.mark.parametrize("force", [True, False])
@pytest.mark.parametrize(
    ("has_value", "entering", "fields", "verdict"),
    [
        (True, COMPLETED, {}, REJECT),
        (True, COMPLETED, {"data": b"{}", "data_format": ERROR}, REJECT),
        (True, COMPLETED, WITH_VALUE, ACCEPT),
        (False, COMPLETED, {}, ACCEPT),
        (True, FAILED, {}, ACCEPT),
        (True, CANCELLED, {}, ACCEPT),
    ],
)
def test_value_of_a_completed_run_is_not_lost_to_one_without(
    has_value: bool, entering: StateType, fields: dict[str, Any], verdict: Verdict, force: bool
) -> None:
    run = a_run(COMPLETED, has_value=has_value)

    assert proposed(run, entering, force=force, **fields).verdict is verdict


@pytest.mark.parametrize("leaving", sorted(TERMINAL_TYPES))
def test_run_that_nobody_could_resume_is_not_scheduled_again(leaving: StateType) -> None:
    run = a_run(leaving, is_resumable=False)

    decision = proposed(run, SCHEDULED)

    assert (decision.verdict, decision.run) == (ABORT, run)
    assert proposed(run, RUNNING).verdict is ACCEPT


# -- BypassCancellingFlowRunsWithNoInfra ---------------------------------------------------------


@pytest.mark.parametrize("force", [True, False])
@pytest.mark.parametrize(
    ("state", "fields", "becomes"),
    [
        (SCHEDULED, {}, CANCELLED),
        (SCHEDULED, {"has_infrastructure": True}, CANCELLING),
        (SCHEDULED, {"has_infrastructure": True, "state_name": "Resuming"}, CANCELLED),
        (PAUSED, {}, CANCELLING),
        (PAUSED, {"state_details": StateDetails(pause_reschedule=True)}, CANCELLED),
        (PENDING, {}, CANCELLING),
        (RUNNING, {}, CANCELLING),
    ],
)
def test_run_without_a_process_is_cancelled_at_once(
    state: StateType, fields: dict[str, Any], becomes: StateType, force: bool
) -> None:
    details = StateDetails(transition_id=an_id(5), pause_key="a")

    decision = proposed(
        a_run(state, **fields), CANCELLING, message="stop", details=details, force=force
    )

    assert decision.run.state_type is becomes
    assert decision.run.state_name == becomes.value.capitalize()
    assert decision.verdict is (ACCEPT if becomes is CANCELLING else REJECT)
    assert decision.proposal is not None
    assert decision.proposal.message == "stop"
    kept = details if becomes is CANCELLING else StateDetails(transition_id=an_id(5))
    assert decision.proposal.details == kept


# -- PreventPendingTransitions -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "proposed_name", "verdict"),
    [
        ("Pending", "Pending", ABORT),
        ("Pending", "Submitting", ACCEPT),
        ("Submitting", "Submitting", ABORT),
        ("Submitting", "Pending", ABORT),
        ("Submitting", "InfrastructurePending", ACCEPT),
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


# -- EnsureOnlyScheduledFlowsMarkedLate ----------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "name", "verdict"),
    [
        (SCHEDULED, "Scheduled", ACCEPT),
        (SCHEDULED, "AwaitingRetry", ACCEPT),
        (SCHEDULED, "Late", REJECT),
        (PENDING, "Pending", REJECT),
        (RUNNING, "Running", REJECT),
        (PAUSED, "Paused", REJECT),
        (COMPLETED, "Completed", REJECT),
        (CANCELLING, "Cancelling", REJECT),
    ],
)
def test_only_a_scheduled_run_becomes_late_and_only_once(
    state: StateType, name: str, verdict: Verdict
) -> None:
    run = a_run(state, state_name=name)

    decision = proposed(run, SCHEDULED, name="Late")

    assert decision.verdict is verdict
    assert decision.run.state_name == ("Late" if verdict is ACCEPT else name)
    assert proposed(run, SCHEDULED, name="Late", force=True).verdict is ACCEPT


def test_run_without_a_state_is_not_late() -> None:
    assert proposed(a_run(), SCHEDULED, name="Late").verdict is REJECT
    assert proposed(a_run(), SCHEDULED).verdict is ACCEPT


# -- HandlePausingFlows --------------------------------------------------------------------------


SUSPENSION = StateDetails(pause_reschedule=True)


@pytest.mark.parametrize(
    ("run", "details", "verdict"),
    [
        (a_run(), StateDetails(), ABORT),
        (a_run(PENDING), StateDetails(), REJECT),
        (a_run(RUNNING), StateDetails(), ACCEPT),
        (a_run(RUNNING), StateDetails(pause_key="a"), ACCEPT),
        (a_run(RUNNING, policy=Policy(pause_keys=("a",))), StateDetails(pause_key="a"), REJECT),
        (a_run(RUNNING, policy=Policy(pause_keys=("a",))), StateDetails(pause_key="b"), ACCEPT),
        (a_run(RUNNING, policy=Policy(pause_keys=("a",))), StateDetails(), ACCEPT),
        (a_run(RUNNING), SUSPENSION, ACCEPT),
        (a_run(RUNNING, is_resumable=False), SUSPENSION, ABORT),
        (a_run(RUNNING, is_resumable=False), StateDetails(), ACCEPT),
        (a_run(RUNNING, parent_task_run_id=an_id(8)), SUSPENSION, ABORT),
        (a_run(RUNNING, parent_task_run_id=an_id(8)), StateDetails(), ACCEPT),
    ],
)
def test_run_pauses(run: Any, details: StateDetails, verdict: Verdict) -> None:
    decision = proposed(run, PAUSED, details=details)

    assert decision.verdict is verdict
    assert (decision.run.state_type is PAUSED) == (verdict is ACCEPT)
    keys = (details.pause_key or str(an_id(2)),) if verdict is ACCEPT else ()
    assert decision.run.policy.pause_keys == (*run.policy.pause_keys, *keys)


# -- HandleResumingPausedFlows -------------------------------------------------------------------


@pytest.mark.parametrize("entering", [RUNNING, SCHEDULED])
def test_resuming_is_no_new_attempt(entering: StateType) -> None:
    run = a_run(PAUSED, run_count=1, policy=Policy(pause_keys=("a",)))

    resumed = accepted(run, entering)

    assert resumed.policy == Policy(pause_keys=("a",), resuming=entering is SCHEDULED)
    if entering is SCHEDULED:
        resumed = accepted(accepted(resumed, PENDING, id=an_id(3)), RUNNING, id=an_id(4))
    assert (resumed.run_count, resumed.policy) == (1, Policy(pause_keys=("a",)))
    assert accepted(resumed, RUNNING, id=an_id(5)).run_count == 2


@pytest.mark.parametrize("end", sorted(TERMINAL_TYPES))
def test_run_that_is_to_be_resumed_and_ends_is_not_resuming(end: StateType) -> None:
    waiting = accepted(a_run(PAUSED, run_count=1), SCHEDULED)

    assert accepted(waiting, end, id=an_id(3)).policy.resuming is False


@pytest.mark.parametrize(
    ("run", "entering", "verdict"),
    [
        (a_run(PAUSED, state_details=SUSPENSION), RUNNING, ACCEPT),
        (a_run(PAUSED, state_details=SUSPENSION, is_resumable=False), RUNNING, REJECT),
        (a_run(PAUSED, state_details=SUSPENSION, is_resumable=False), SCHEDULED, REJECT),
        (a_run(PAUSED, state_details=SUSPENSION, is_resumable=False), CANCELLED, ACCEPT),
        (a_run(PAUSED, state_details=SUSPENSION, is_resumable=False), CANCELLING, REJECT),
        (a_run(PAUSED, is_resumable=False), RUNNING, ACCEPT),
    ],
)
def test_suspended_run_goes_on_where_its_flow_is_found_again(
    run: Any, entering: StateType, verdict: Verdict
) -> None:
    assert proposed(run, entering).verdict is verdict


@pytest.mark.parametrize("seconds", [-1, 0, 1])
@pytest.mark.parametrize(
    ("entering", "late"),
    [
        (RUNNING, "Failed"),
        (SCHEDULED, "Failed"),
        (COMPLETED, "Failed"),
        (CANCELLED, "Failed"),
        (CRASHED, "Failed"),
        (FAILED, "TimedOut"),
        (CANCELLING, "TimedOut"),
        (PENDING, "Paused"),
        (PAUSED, "Paused"),
    ],
)
def test_pause_ends_in_time(entering: StateType, late: str, seconds: int) -> None:
    timeout = times.datetime_from_microseconds(NOW + seconds * SECOND)
    run = a_run(PAUSED, state_details=StateDetails(pause_timeout=timeout))

    decision = proposed(run, entering, name="TimedOut", **WITH_VALUE)

    if seconds < 0 and late == "Failed":
        assert (decision.verdict, decision.run.state_type) == (REJECT, FAILED)
        assert decision.proposal is not None
        assert (decision.proposal.message or "").endswith("not resumed in time")
        assert decision.proposal.data is None
    assert decision.run.state_name == (
        late if seconds < 0 or entering in (PENDING, PAUSED) else "TimedOut"
    )


# -- CopyScheduledTime, WaitForScheduledTime: both kinds of run ----------------------------------


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
    due = at(NOW + 3 * SECOND // 2)
    run = a_run(leaving, is_flow_run=is_flow_run, state_details=due)

    decision = proposed(run, RUNNING)

    assert (decision.verdict, decision.delay_seconds) == (Verdict.WAIT, 1.5)
    assert (decision.proposal, decision.run) == (None, run)
    assert proposed(run, RUNNING, force=True).verdict is ACCEPT


@pytest.mark.parametrize("scheduled_time", [None, NOW - SECOND, NOW])
@pytest.mark.parametrize("leaving", [SCHEDULED, PENDING])
def test_running_does_not_wait_for_a_time_that_has_come(
    leaving: StateType, scheduled_time: int | None
) -> None:
    run = a_run(leaving, state_details=at(scheduled_time))

    assert proposed(run, RUNNING).verdict is ACCEPT


@pytest.mark.parametrize("leaving", [SCHEDULED, PENDING])
def test_running_does_not_wait_again_when_the_clock_is_set_back(leaving: StateType) -> None:
    run = a_run(leaving, state_details=at(NOW + SECOND), state_timestamp=NOW + SECOND)

    assert proposed(run, RUNNING).verdict is ACCEPT


def test_running_does_not_wait_where_nothing_is_scheduled() -> None:
    run = a_run(PAUSED, state_details=at(NOW + SECOND))

    assert proposed(run, RUNNING).verdict is ACCEPT


def test_scheduled_without_a_time_is_due_now() -> None:
    run = accepted(a_run(), SCHEDULED)

    assert (run.state_details, run.next_scheduled_start_time) == (at(NOW), NOW)


# -- RetryFailedFlows, and what it has in common with RetryFailedTasks ---------------------------


@pytest.mark.parametrize("is_flow_run", [True, False])
@pytest.mark.parametrize(
    ("retries", "run_count", "verdict"),
    [(0, 1, ACCEPT), (1, 1, REJECT), (1, 2, ACCEPT), (2, 2, REJECT), (2, 3, ACCEPT)],
)
def test_failure_is_retried_while_retries_are_left(
    is_flow_run: bool, retries: int, run_count: int, verdict: Verdict
) -> None:
    policy = Policy(retries=retries, retry_delay=1)
    run = a_run(RUNNING, is_flow_run=is_flow_run, run_count=run_count, policy=policy)

    decision = proposed(run, FAILED)

    assert decision.verdict is verdict
    assert decision.run.state_name == ("Failed" if verdict is ACCEPT else "AwaitingRetry")
    assert proposed(run, FAILED, force=True).run.state_name == "Failed"


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
@pytest.mark.parametrize("is_flow_run", [True, False])
def test_retry_is_due_after_its_delay(
    is_flow_run: bool, delay: float | tuple[float, ...], run_count: int, seconds: float
) -> None:
    policy = Policy(retries=9, retry_delay=delay)
    run = a_run(RUNNING, is_flow_run=is_flow_run, run_count=run_count, policy=policy)

    decision = proposed(run, FAILED)

    assert decision.run.next_scheduled_start_time == NOW + seconds * SECOND


@pytest.mark.parametrize("delay", [0, 0.0, ()])
def test_retry_of_a_flow_without_a_delay_is_awaited_all_the_same(
    delay: float | tuple[float, ...],
) -> None:
    policy = Policy(retries=1, retry_delay=delay)
    run = proposed(a_run(RUNNING, run_count=1, policy=policy), FAILED).run

    assert (run.state_name, run.next_scheduled_start_time) == ("AwaitingRetry", NOW)


def test_retry_is_due_after_a_delay_that_chance_decides() -> None:
    policy = Policy(retries=1, retry_delay=10, retry_jitter_factor=0.5)
    run = a_run(RUNNING, run_count=1, policy=policy)

    decision = proposed(run, FAILED, chance=1.0)

    assert decision.run.next_scheduled_start_time == NOW + 15 * SECOND


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


def test_retry_keeps_the_message_and_the_error_of_the_failure() -> None:
    run = a_run(RUNNING, run_count=1, policy=Policy(retries=1))

    decision = proposed(run, FAILED, message="no disk", data=b"{}", data_format="error")

    waiting = decision.proposal
    assert waiting is not None
    assert waiting.type is SCHEDULED
    assert (waiting.message, waiting.data, waiting.data_format) == ("no disk", b"{}", "error")


def test_retry_of_a_flow_is_made_by_its_own_process_and_may_pause_again() -> None:
    policy = Policy(retries=1, pause_keys=("a",))
    waiting = proposed(a_run(RUNNING, run_count=1, policy=policy), FAILED).run

    again = accepted(waiting, RUNNING, id=an_id(3))
    failed = accepted(again, FAILED, id=an_id(4))

    assert waiting.policy == again.policy == Policy(retries=1, retry_type="in_process")
    assert (again.state_name, again.run_count) == ("Running", 2)
    assert failed.policy == Policy(retries=1)


@pytest.mark.parametrize("is_flow_run", [True, False])
def test_failure_that_is_not_retriable_is_final(is_flow_run: bool) -> None:
    run = a_run(RUNNING, is_flow_run=is_flow_run, run_count=1, policy=Policy(retries=5))

    assert accepted(run, FAILED, details=StateDetails(retriable=False)).state_type is FAILED


@pytest.mark.parametrize("is_flow_run", [True, False])
def test_failure_of_what_does_not_run_is_not_retried(is_flow_run: bool) -> None:
    run = a_run(PENDING, is_flow_run=is_flow_run, run_count=1, policy=Policy(retries=5))

    assert accepted(run, FAILED).state_type is FAILED


# -- an objection drops what earlier rules amended -----------------------------------------------


def test_rule_that_objects_leaves_the_policy_as_it_was() -> None:
    policy = Policy(retry_type="in_process", pause_keys=("a",))
    run = a_run(COMPLETED, policy=policy)

    decision = proposed(run, SCHEDULED, name="Late")

    assert (decision.verdict, decision.run) == (REJECT, run)


def test_flow_run_keeps_a_name_that_somebody_chose() -> None:
    run = accepted(a_run(RUNNING, run_count=1), RUNNING, name="Warming")

    assert (run.state_name, run.run_count) == ("Warming", 2)
    assert msgspec.structs.replace(run, state_name="Running") == accepted(
        a_run(RUNNING, run_count=1), RUNNING
    )
