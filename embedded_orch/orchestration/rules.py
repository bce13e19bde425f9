"""The rules that may object to a transition, in the order in which they are asked.

A rule names the states that it is about, by the type that the run has and the type that was
intended, and answers with nothing (no objection), with a completed proposal, or with a decision.
The names and the behaviour are Prefect 3's.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

import msgspec

from embedded_orch import times
from embedded_orch.orchestration.values import Decision, Proposal, Run, Verdict
from embedded_orch.states import TERMINAL_TYPES, StateType

if TYPE_CHECKING:
    from collections.abc import Callable

    Answer = Decision | Proposal | None
    Question = Callable[[Run, Proposal, int], Answer]

_ANY = frozenset(StateType)
_MICROSECONDS = 1_000_000


class Rule(msgspec.Struct, frozen=True):
    """One rule: which transitions it is about, and its question."""

    name: str
    leaving: AbstractSet[StateType]
    entering: AbstractSet[StateType]
    ask: Question

    def applies_to(self, current: StateType | None, intended: StateType) -> bool:
        """Whether the rule is about this pair; a run without a state leaves none."""
        return current in self.leaving and intended in self.entering


def _leave_terminal(run: Run, proposal: Proposal, now: int) -> Answer:
    if proposal.type in (StateType.CANCELLING, StateType.PAUSED, StateType.CRASHED):
        return Decision(Verdict.ABORT, f"the run has ended as {run.state_name}")
    return None


def _leave_terminal_task(run: Run, proposal: Proposal, now: int) -> Answer:
    objection = _leave_terminal(run, proposal, now)
    attempt = run.flow_run_attempt
    is_later_attempt = attempt is not None and run.flow_run_run_count < attempt
    if objection is None and is_later_attempt and _is_plain_running(proposal):
        return msgspec.structs.replace(proposal, name="Retrying")
    return objection


def _prevent_pending(run: Run, proposal: Proposal, now: int) -> Answer:
    is_substate = run.state_type is StateType.PENDING and proposal.name not in (
        run.state_name,
        "Pending",
    )
    if is_substate:
        return _copy_scheduled_time(run, proposal, now)
    return Decision(Verdict.ABORT, f"the run is {run.state_name} already")


def _copy_scheduled_time(run: Run, proposal: Proposal, now: int) -> Answer:
    scheduled_time = run.state_details.scheduled_time
    if proposal.details.scheduled_time is not None or scheduled_time is None:
        return None
    details = msgspec.structs.replace(proposal.details, scheduled_time=scheduled_time)
    return msgspec.structs.replace(proposal, details=details)


def _wait_for_scheduled_time(run: Run, proposal: Proposal, now: int) -> Answer:
    scheduled_time = run.state_details.scheduled_time
    if scheduled_time is None:
        return None
    delay = (times.microseconds_from_datetime(scheduled_time) - now) / _MICROSECONDS
    if delay <= 0:
        return None
    return Decision(Verdict.WAIT, "the run is scheduled for later", delay_seconds=delay)


def _retry_failed(run: Run, proposal: Proposal, now: int) -> Answer:
    if not _has_retries_left(run, proposal):
        return None
    return _wait_for_retry(proposal, now, _delay(run, proposal))


def _retry_failed_task(run: Run, proposal: Proposal, now: int) -> Answer:
    """As of a flow, but a retry without a delay begins at once, and the last failure says so."""
    if not _has_retries_left(run, proposal):
        details = msgspec.structs.replace(proposal.details, retriable=False)
        return msgspec.structs.replace(proposal, details=details)
    delay = _delay(run, proposal)
    if delay > 0:
        return _wait_for_retry(proposal, now, delay)
    retrying = msgspec.structs.replace(proposal, type=StateType.RUNNING, name="Retrying")
    return Decision(Verdict.REJECT, "the run has retries left", proposal=retrying)


def _has_retries_left(run: Run, proposal: Proposal) -> bool:
    return proposal.details.retriable is not False and run.run_count <= run.policy.retries


def _delay(run: Run, proposal: Proposal) -> float:
    return run.policy.delay(run.run_count, chance=proposal.chance)


def _wait_for_retry(proposal: Proposal, now: int, delay: float) -> Answer:
    due = now + int(delay * _MICROSECONDS)
    details = msgspec.structs.replace(
        proposal.details, scheduled_time=times.datetime_from_microseconds(due)
    )
    waiting = msgspec.structs.replace(
        proposal, type=StateType.SCHEDULED, name="AwaitingRetry", details=details
    )
    return Decision(Verdict.REJECT, "the run has retries left", proposal=waiting)


def _rename_reruns(run: Run, proposal: Proposal, now: int) -> Answer:
    if run.run_count == 0 or not _is_plain_running(proposal):
        return None
    name = "Retrying" if run.state_name == "AwaitingRetry" else "Rerunning"
    return msgspec.structs.replace(proposal, name=name)


def _is_plain_running(proposal: Proposal) -> bool:
    """Whether it is RUNNING under no name of its own, which a rule may give it."""
    return proposal.type is StateType.RUNNING and proposal.name == "Running"


_COPY_SCHEDULED_TIME = Rule(
    "CopyScheduledTime",
    frozenset({StateType.SCHEDULED}),
    frozenset({StateType.PENDING}),
    _copy_scheduled_time,
)
_WAIT_FOR_SCHEDULED_TIME = Rule(
    "WaitForScheduledTime",
    frozenset({StateType.SCHEDULED, StateType.PENDING}),
    frozenset({StateType.RUNNING}),
    _wait_for_scheduled_time,
)
FLOW_RULES = (
    Rule("HandleFlowTerminalStateTransitions", TERMINAL_TYPES, _ANY, _leave_terminal),
    Rule(
        "PreventPendingTransitions",
        frozenset(
            {StateType.PENDING, StateType.RUNNING, StateType.CANCELLING, StateType.CANCELLED}
        ),
        frozenset({StateType.PENDING}),
        _prevent_pending,
    ),
    _COPY_SCHEDULED_TIME,
    _WAIT_FOR_SCHEDULED_TIME,
    Rule(
        "RetryFailedFlows",
        frozenset({StateType.RUNNING}),
        frozenset({StateType.FAILED}),
        _retry_failed,
    ),
)

TASK_RULES = (
    Rule("HandleTaskTerminalStateTransitions", TERMINAL_TYPES, _ANY, _leave_terminal_task),
    _COPY_SCHEDULED_TIME,
    _WAIT_FOR_SCHEDULED_TIME,
    Rule(
        "RetryFailedTasks",
        frozenset({StateType.RUNNING}),
        frozenset({StateType.FAILED}),
        _retry_failed_task,
    ),
    # A run that has ended begins anew with attempt 1, so it is no rerun.
    Rule(
        "RenameReruns",
        _ANY - TERMINAL_TYPES,
        frozenset({StateType.RUNNING}),
        _rename_reruns,
    ),
)
