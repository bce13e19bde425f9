"""Each rule of task runs, a row for each of its cases, in the order in which they are asked.

What task runs have in common with flow runs (scheduled times, retries) is in test_flow_rules.py.
"""

from __future__ import annotations

from typing import Any

import pytest

from embedded_orch import times
from embedded_orch.orchestration.task_rules import CORE_TASK_POLICY, MINIMAL_TASK_POLICY
from embedded_orch.orchestration.values import NO_FACTS, Facts, Policy, Verdict
from embedded_orch.states import TERMINAL_TYPES, StateDetails, StateType
from tests.orchestration.runs import (
    CANCELLED,
    COMPLETED,
    FAILED,
    NOW,
    PAUSED,
    PENDING,
    RUNNING,
    SCHEDULED,
    WITH_VALUE,
    a_task_run,
    accepted,
    an_id,
    in_flow,
    proposed,
)


def test_rules_are_asked_in_the_order_of_the_documentation() -> None:
    assert [rule.name for rule in CORE_TASK_POLICY] == [
        "CacheRetrieval",
        "HandleTaskTerminalStateTransitions",
        "PreventRunningTasksFromStoppedFlows",
        "SecureTaskConcurrencySlots",
        "CopyScheduledTime",
        "WaitForScheduledTime",
        "RetryFailedTasks",
        "RenameReruns",
        "CacheInsertion",
    ]
    assert MINIMAL_TASK_POLICY == ()


# -- HandleTaskTerminalStateTransitions ----------------------------------------------------------


@pytest.mark.parametrize("fields", [{}, WITH_VALUE])
@pytest.mark.parametrize("entering", [SCHEDULED, PENDING, RUNNING, COMPLETED, FAILED, CANCELLED])
def test_completed_task_run_with_a_value_keeps_it(
    entering: StateType, fields: dict[str, Any]
) -> None:
    run = a_task_run(COMPLETED, has_value=True)

    decision = proposed(run, entering, **fields)

    assert (decision.verdict, decision.run) == (Verdict.REJECT, run)
    assert proposed(run, entering, force=True, **fields).verdict is Verdict.ACCEPT


@pytest.mark.parametrize("leaving", sorted(TERMINAL_TYPES))
def test_task_run_of_an_earlier_attempt_is_retrying(leaving: StateType) -> None:
    run = a_task_run(leaving, run_count=3, flow_run_run_count=1)

    again = accepted(run, RUNNING, facts=in_flow(RUNNING, run_count=2))

    assert (again.state_name, again.run_count, again.flow_run_run_count) == ("Retrying", 1, 2)


@pytest.mark.parametrize(("facts", "attempt"), [(NO_FACTS, 0), (in_flow(RUNNING, run_count=2), 2)])
@pytest.mark.parametrize("leaving", sorted(TERMINAL_TYPES))
def test_task_run_that_begins_anew_in_the_same_attempt_is_running(
    leaving: StateType, facts: Facts, attempt: int
) -> None:
    run = a_task_run(leaving, run_count=3, flow_run_run_count=attempt)

    again = accepted(run, RUNNING, facts=facts)

    assert (again.state_name, again.run_count) == ("Running", 1)


@pytest.mark.parametrize("leaving", sorted(TERMINAL_TYPES))
@pytest.mark.parametrize("entering", [SCHEDULED, PENDING])
def test_task_run_that_leaves_its_end_has_no_attempts(
    leaving: StateType, entering: StateType
) -> None:
    assert accepted(a_task_run(leaving, run_count=3), entering).run_count == 0


def test_task_run_that_moves_from_end_to_end_keeps_its_attempts() -> None:
    assert accepted(a_task_run(FAILED, run_count=3), COMPLETED).run_count == 3


# -- PreventRunningTasksFromStoppedFlows ---------------------------------------------------------


@pytest.mark.parametrize("is_suspended", [True, False])
def test_task_run_in_a_paused_flow_run_is_not_ready_for_as_long_as_that(is_suspended: bool) -> None:
    until = times.datetime_from_microseconds(NOW)
    facts = in_flow(
        PAUSED, pause_timeout=until, pause_reschedule=is_suspended, pause_key="not copied"
    )

    decision = proposed(a_task_run(PENDING), RUNNING, facts=facts)

    assert decision.verdict is Verdict.REJECT
    assert (decision.run.state_type, decision.run.state_name) == (PAUSED, "NotReady")
    assert decision.run.state_details == StateDetails(
        pause_timeout=until, pause_reschedule=is_suspended
    )
    asked_again = proposed(decision.run, RUNNING, facts=facts, id=an_id(3))
    assert (asked_again.verdict, asked_again.proposal) == (Verdict.REJECT, None)


def test_task_run_outside_of_a_flow_runs() -> None:
    assert proposed(a_task_run(PENDING), RUNNING, facts=NO_FACTS).verdict is Verdict.ACCEPT


@pytest.mark.parametrize("entering", sorted(set(StateType) - {RUNNING}))
def test_task_run_of_a_stopped_flow_run_may_do_all_but_run(entering: StateType) -> None:
    decision = proposed(a_task_run(PENDING), entering, facts=in_flow(CANCELLED))

    assert decision.verdict is Verdict.ACCEPT


# -- RetryFailedTasks: see test_flow_rules.py for what flows have too ----------------------------


@pytest.mark.parametrize("delay", [0, 0.0, (), (0,), (3.0, 0)])
def test_retry_of_a_task_without_a_delay_begins_at_once(delay: float | tuple[float, ...]) -> None:
    run = a_task_run(RUNNING, run_count=2, policy=Policy(retries=9, retry_delay=delay))

    decision = proposed(run, FAILED, message="no disk", facts=in_flow(RUNNING, run_count=4))

    assert (decision.verdict, decision.run.run_count) == (Verdict.REJECT, 3)
    assert decision.run.flow_run_run_count == 4
    retrying = decision.proposal
    assert retrying is not None
    assert (retrying.type, retrying.name, retrying.message) == (RUNNING, "Retrying", "no disk")


@pytest.mark.parametrize("state", sorted(set(StateType) - {RUNNING}))
def test_retry_of_a_task_does_not_begin_in_a_flow_run_that_does_not_run(state: StateType) -> None:
    run = a_task_run(RUNNING, run_count=1, policy=Policy(retries=1))

    waiting = proposed(run, FAILED, facts=in_flow(state)).run

    assert (waiting.state_name, waiting.next_scheduled_start_time) == ("AwaitingRetry", NOW)


def test_last_failure_of_a_task_says_that_it_is_final() -> None:
    run = a_task_run(RUNNING, run_count=2, policy=Policy(retries=1))

    assert accepted(run, FAILED).state_details.retriable is False


# -- RenameReruns, UpdateFlowRunTrackerOnTasks ---------------------------------------------------


@pytest.mark.parametrize(
    ("state", "state_name", "run_count", "name"),
    [
        (PENDING, "Pending", 0, "Running"),
        (PENDING, "Pending", 1, "Rerunning"),
        (RUNNING, "Running", 1, "Rerunning"),
        (SCHEDULED, "AwaitingRetry", 1, "Retrying"),
        (SCHEDULED, "Scheduled", 1, "Rerunning"),
        (PAUSED, "NotReady", 0, "Running"),
    ],
)
def test_task_run_that_runs_again_is_named_for_it(
    state: StateType, state_name: str, run_count: int, name: str
) -> None:
    run = a_task_run(state, state_name=state_name, run_count=run_count)

    assert accepted(run, RUNNING).state_name == name


def test_task_run_keeps_a_name_that_somebody_chose() -> None:
    run = a_task_run(RUNNING, run_count=1)

    assert accepted(run, RUNNING, name="Warming").state_name == "Warming"
    assert accepted(run, RUNNING, force=True).state_name == "Running"


@pytest.mark.parametrize("entering", StateType)
def test_task_run_remembers_in_which_attempt_of_its_flow_run_it_ran(entering: StateType) -> None:
    run = a_task_run(PENDING, flow_run_run_count=1)

    after = accepted(run, entering, facts=in_flow(RUNNING, run_count=4))

    assert after.flow_run_run_count == (4 if entering is RUNNING else 1)
