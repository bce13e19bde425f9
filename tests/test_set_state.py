"""States that somebody sets from outside of a run, and what its owner makes of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from embedded_orch import Orchestrator, State, errors, flow, task
from embedded_orch.proposals import (
    OrchestrationResult,
    SetStateStatus,
    StateAbortDetails,
    StateAcceptDetails,
    StateRejectDetails,
    StateWaitDetails,
)
from embedded_orch.states import (
    Cancelled,
    Cancelling,
    Completed,
    Crashed,
    Failed,
    Paused,
    Pending,
    Running,
    Scheduled,
    StateDetails,
)
from tests.opened import Clock, opened, states, the_flow_run, the_run_of

UNKNOWN = UUID(int=5)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def orch(url: str, clock: Clock) -> Iterator[Orchestrator]:
    with opened(url, clock) as orchestrator:
        yield orchestrator


@task
def load(name: str) -> str:
    return name.upper()


@flow
def report(name: str) -> str:
    return load(name)


@pytest.fixture
def run_id(orch: Orchestrator) -> UUID:
    """A flow run that has completed."""
    report("a")
    return the_flow_run(orch).id


# -- what is answered ----------------------------------------------------------------------------


def test_accepted_state_is_the_state_of_the_run(orch: Orchestrator, run_id: UUID) -> None:
    answer = orch.flow_runs.set_state(run_id, Failed(message="checked by hand"))

    assert answer.status is SetStateStatus.ACCEPT
    assert answer.status == "ACCEPT"
    assert answer.details == StateAcceptDetails()
    assert answer.details.type == "accept_details"
    found = orch.flow_runs.get(run_id)
    assert answer.state == found.state
    assert (found.state and found.state.name, found.state and found.state.message) == (
        "Failed",
        "checked by hand",
    )
    assert states(found) == ["Pending", "Running", "Completed", "Failed"]


def test_rejected_state_leaves_the_run_as_it_is(orch: Orchestrator, run_id: UUID) -> None:
    answer = orch.flow_runs.set_state(str(run_id), Running())

    assert answer.status is SetStateStatus.REJECT
    assert isinstance(answer.details, StateRejectDetails)
    assert "completed with a value" in (answer.details.reason or "")
    assert answer.state is not None
    assert answer.state.result() == "A"
    assert states(orch.flow_runs.get(run_id)) == ["Pending", "Running", "Completed"]


def test_rejected_state_may_be_replaced_by_another(orch: Orchestrator, run_id: UUID) -> None:
    orch.flow_runs.set_state(run_id, Scheduled(), force=True)

    answer = orch.flow_runs.set_state(run_id, Cancelling(message="no need"))

    assert answer.status is SetStateStatus.REJECT
    assert answer.state is not None
    assert (answer.state.name, answer.state.message) == ("Cancelled", "no need")


def test_aborted_state_says_why(orch: Orchestrator, run_id: UUID) -> None:
    answer = orch.flow_runs.set_state(run_id, Crashed())

    assert answer.status is SetStateStatus.ABORT
    assert answer.details == StateAbortDetails("the run has ended as Completed")
    assert answer.state is not None
    assert answer.state.is_completed()


def test_run_that_is_scheduled_for_later_is_waited_for(
    orch: Orchestrator, run_id: UUID, clock: Clock
) -> None:
    due = datetime.fromtimestamp(clock.now() / 1e6, UTC) + timedelta(seconds=60)
    orch.flow_runs.set_state(run_id, Scheduled(scheduled_time=due), force=True)

    answer = orch.flow_runs.set_state(run_id, Running())

    assert answer.status is SetStateStatus.WAIT
    assert isinstance(answer.details, StateWaitDetails)
    assert answer.details.delay_seconds == pytest.approx(60, abs=1)
    assert answer.state is not None
    assert answer.state.state_details.scheduled_time == due


@pytest.mark.parametrize("force", [False, True])
def test_force_overrides_what_the_rules_object_to(
    orch: Orchestrator, run_id: UUID, force: bool
) -> None:
    answer = orch.flow_runs.set_state(run_id, Paused(), force=force)

    assert answer.status is (SetStateStatus.ACCEPT if force else SetStateStatus.ABORT)
    assert (orch.flow_runs.get(run_id).end_time is None) == force


def test_state_of_a_task_run_is_set_alike(orch: Orchestrator, run_id: UUID) -> None:
    run = the_run_of(orch, load)

    rejected = orch.task_runs.set_state(run.id, Failed())
    forced = orch.task_runs.set_state(str(run.id), Failed(), force=True)

    assert (rejected.status, forced.status) == (SetStateStatus.REJECT, SetStateStatus.ACCEPT)
    assert states(run) == ["Pending", "Running", "Completed", "Failed"]
    assert forced.state is not None
    assert forced.state.state_details.task_run_id == run.id


# -- what is stored ------------------------------------------------------------------------------


def test_state_is_stored_as_a_new_one_with_all_that_it_says(
    orch: Orchestrator, run_id: UUID, clock: Clock
) -> None:
    state = Paused(name="Checking", message="a \0 b \ud800", pause_key="k", id=UNKNOWN, timestamp=1)

    answer = orch.flow_runs.set_state(run_id, state, force=True)

    found = answer.state
    assert found is not None
    assert found.id != UNKNOWN
    assert abs(found.timestamp_microseconds - clock.now()) < 10**6
    assert (found.name, found.message) == ("Checking", "a \\0 b \\ud800")
    assert found.state_details == StateDetails(flow_run_id=run_id, pause_key="k")
    assert state.id == UNKNOWN


@pytest.mark.parametrize("value", [1, None, {"a": (1, 2)}])
def test_value_of_a_completed_state_is_the_result_of_the_run(
    orch: Orchestrator, run_id: UUID, value: object
) -> None:
    answer = orch.flow_runs.set_state(run_id, Completed(data=value), force=True)

    assert answer.state is not None
    if value is None:
        assert answer.status is SetStateStatus.REJECT
    else:
        assert answer.state.result() == value
        assert report.resume(run_id) == value


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (LookupError("no page"), "LookupError: no page"),
        ("no page", "no page"),
        ([Completed(), Failed(message="inner")], "inner"),
    ],
)
def test_error_of_a_failed_state_is_kept_as_text(
    orch: Orchestrator, run_id: UUID, data: Any, message: str
) -> None:
    answer = orch.flow_runs.set_state(run_id, Failed(data=data))

    assert answer.state is not None
    with pytest.raises(errors.FailedRun, match=message):
        answer.state.result()
    told = answer.state.error_details
    assert told is not None
    assert told["message"] == message.removeprefix("LookupError: ")


@pytest.mark.parametrize(
    ("state", "error"),
    [
        ("Completed", errors.ConfigurationError),
        (None, errors.ConfigurationError),
        (Failed(data=3), errors.ConfigurationError),
        (Failed(name=3), errors.ConfigurationError),  # type: ignore[arg-type]
        (Failed(message=[1]), errors.ConfigurationError),  # type: ignore[arg-type]
        (
            Running(state_details=StateDetails(scheduled_time="now")),  # type: ignore[arg-type]
            errors.ConfigurationError,
        ),
        (Scheduled(scheduled_time=datetime(2026, 1, 1)), errors.ConfigurationError),  # noqa: DTZ001
        (Completed(data=object()), errors.ValueNotStorable),
    ],
)
def test_state_that_cannot_be_stored_changes_nothing(
    orch: Orchestrator, run_id: UUID, state: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        orch.flow_runs.set_state(run_id, state, force=True)

    assert states(orch.flow_runs.get(run_id)) == ["Pending", "Running", "Completed"]


@pytest.mark.parametrize("id", [UNKNOWN, str(UNKNOWN), "no id"])
def test_run_that_there_is_not_is_an_error(orch: Orchestrator, id: UUID | str) -> None:
    for runs in (orch.flow_runs, orch.task_runs):
        with pytest.raises(errors.RunNotFound):
            runs.set_state(id, Completed())


def test_transition_is_made_once(orch: Orchestrator, run_id: UUID) -> None:
    failed = Failed(state_details=StateDetails(transition_id=UNKNOWN))

    answers = [orch.flow_runs.set_state(run_id, failed) for _ in range(2)]

    assert [answer.status.value for answer in answers] == ["ACCEPT", "REJECT"]
    assert states(orch.flow_runs.get(run_id))[-2:] == ["Completed", "Failed"]


# -- what the owner of a run makes of it ---------------------------------------------------------


def told(orch: Orchestrator, *proposals: State) -> list[OrchestrationResult]:
    """The only flow run is told so, from outside of it."""
    run_id = the_flow_run(orch).id
    return [orch.flow_runs.set_state(run_id, proposal) for proposal in proposals]


def until_interrupted() -> None:
    """Go on until somebody ends it."""
    for _ in range(3000):
        time.sleep(0.01)
    raise AssertionError("nobody ended it")


@pytest.mark.parametrize("told_state", [Cancelling(), Cancelled()])
def test_run_that_is_told_to_cancel_is_interrupted_and_cancelled(
    orch: Orchestrator, told_state: State
) -> None:
    calls = []

    @flow(retries=3)
    def told_to_cancel() -> None:
        calls.append(1)
        assert told(orch, told_state)[0].status is SetStateStatus.ACCEPT
        until_interrupted()

    with pytest.raises(errors.CancelledRun):
        told_to_cancel()

    assert len(calls) == 1
    history = states(the_flow_run(orch))
    assert history[:3] == ["Pending", "Running", told_state.name]
    assert history[-1] == "Cancelled"


def test_run_that_is_told_to_cancel_at_its_end_is_cancelled_all_the_same(
    orch: Orchestrator,
) -> None:
    """Also when the function fails before it is interrupted: it is not retried."""
    calls = []

    @flow(retries=3)
    def told_to_cancel() -> None:
        calls.append(1)
        told(orch, Cancelling())
        raise LookupError

    with pytest.raises(errors.CancelledRun):
        told_to_cancel()

    assert len(calls) == 1
    assert states(the_flow_run(orch)) == ["Pending", "Running", "Cancelling", "Cancelled"]


@pytest.mark.parametrize("delay", [0, 5])
def test_task_of_a_run_that_is_told_to_cancel_is_not_retried(
    orch: Orchestrator, delay: int
) -> None:
    calls = []

    @task(retries=3, retry_delay_seconds=delay)
    def fail() -> None:
        calls.append(1)
        told(orch, Cancelling())
        raise LookupError

    @flow
    def told_to_cancel() -> None:
        fail()

    with pytest.raises(errors.CancelledRun):
        told_to_cancel()

    assert len(calls) == 1
    assert states(the_run_of(orch, fail)).count("Running") == 1
    assert the_run_of(orch, fail).run_count == 1
    assert states(the_flow_run(orch))[-1] == "Cancelled"


def test_run_that_is_cancelled_while_it_waits_for_its_retry_does_not_run_again(
    orch: Orchestrator, clock: Clock
) -> None:
    calls = []

    @flow(retries=3, retry_delay_seconds=60)
    def waits() -> None:
        calls.append(1)
        raise LookupError

    sleep = clock.sleep

    def cancel_then_sleep(seconds: float) -> None:
        assert told(orch, Cancelling())[0].status is SetStateStatus.REJECT
        sleep(seconds)

    orch.engine.process.sleep = cancel_then_sleep
    with pytest.raises(errors.CancelledRun):
        waits()

    assert len(calls) == 1
    assert states(the_flow_run(orch)) == ["Pending", "Running", "AwaitingRetry", "Cancelled"]


def test_task_of_a_paused_run_is_retried_once_that_goes_on(
    orch: Orchestrator, clock: Clock
) -> None:
    @task(retries=1)
    def fail_once() -> str:
        if the_run_of(orch, fail_once).run_count == 1:
            told(orch, Paused())
            raise LookupError
        return "done"

    @flow
    def paused() -> str:
        return fail_once()

    sleep = clock.sleep

    def resume_in_the_third_nap(seconds: float) -> None:
        sleep(seconds)
        if len(clock.slept) == 3:
            told(orch, Running())

    orch.engine.process.sleep = resume_in_the_third_nap

    assert paused() == "done"
    assert clock.naps == [1, 2, 3]
    assert states(the_run_of(orch, fail_once)) == [
        *("Pending", "Running", "AwaitingRetry", "NotReady", "Rerunning", "Completed")
    ]
    assert the_flow_run(orch).run_count == 1


@pytest.mark.parametrize("end", [Failed(), Completed()])
def test_end_that_somebody_set_is_followed_by_that_of_the_function(
    orch: Orchestrator, end: State
) -> None:
    @flow
    def goes_on() -> str:
        told(orch, end)
        return "done"

    assert goes_on() == "done"

    assert states(the_flow_run(orch)) == ["Pending", "Running", end.name, "Completed"]


def test_pending_state_of_a_run_that_runs_is_refused(orch: Orchestrator) -> None:
    @flow
    def goes_on() -> list[str]:
        return [answer.status.value for answer in told(orch, Pending(), Running(), Scheduled())]

    assert goes_on() == ["ABORT", "ACCEPT", "ACCEPT"]
    assert states(the_flow_run(orch))[-1] == "Completed"


@pytest.mark.parametrize("fails", [True, False])
def test_state_that_a_call_gives_is_the_one_that_is_stored(url: str, fails: bool) -> None:
    """The clock is set back while the function runs; the history keeps its order."""
    clock = Clock()

    @flow
    def sets_the_clock_back() -> str:
        clock.sleep(-60)
        if fails:
            raise LookupError
        return "done"

    with opened(url, clock) as orch:
        state = sets_the_clock_back(return_state=True)
        run = the_flow_run(orch)

    assert run.state is not None
    assert (state.id, state.timestamp, state.name) == (
        run.state.id,
        run.state.timestamp,
        run.state.name,
    )
    assert state.state_details == run.state.state_details
    assert run.start_time is not None
    assert state.timestamp > run.start_time
