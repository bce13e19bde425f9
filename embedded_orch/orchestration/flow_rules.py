"""The rules of flow runs, in the order in which they are asked.

A rule of Prefect's that asks for a deployment, because without one nobody could run the flow again,
asks here whether the run can be resumed at all: ``flow.resume`` continues a run without one. The
rules about slots of deployments come with deployments; their places are between
``PreventPendingTransitions`` and ``EnsureOnlyScheduledFlowsMarkedLate``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from embedded_orch import times
from embedded_orch.orchestration.rules import (
    ANY,
    COPY_SCHEDULED_TIME,
    WAIT_FOR_SCHEDULED_TIME,
    Rule,
    copy_scheduled_time,
    has_retries_left,
    reject,
    retry_delay,
    wait_for_retry,
    with_policy,
)
from embedded_orch.orchestration.values import Objection, Verdict
from embedded_orch.states import NO_DETAILS, TERMINAL_TYPES, StateDetails, StateType, is_value

if TYPE_CHECKING:
    from embedded_orch.orchestration.rules import Answer
    from embedded_orch.orchestration.values import Facts, Proposal, Run

_AFTER_A_PAUSE = TERMINAL_TYPES | {StateType.RUNNING, StateType.SCHEDULED, StateType.CANCELLING}


def _prevent_duplicates(run: Run, proposal: Proposal, facts: Facts, now: int) -> Answer:
    transition_id = proposal.details.transition_id
    if transition_id is None or transition_id != run.state_details.transition_id:
        return None
    return reject(run, "this transition was made before")


def _leave_terminal(run: Run, proposal: Proposal, facts: Facts, now: int) -> Answer:
    if proposal.type in (StateType.CANCELLING, StateType.PAUSED, StateType.CRASHED):
        return Objection(Verdict.ABORT, f"the run has ended as {run.state_name}")
    if proposal.type in TERMINAL_TYPES:
        return _prevent_result_loss(run, proposal, facts, now)
    if run.has_value:
        return reject(run, "the run has completed with a value")
    if proposal.type is StateType.SCHEDULED and not run.is_resumable:
        return Objection(Verdict.ABORT, "nothing says how the flow of the run is found again")
    is_scheduled = proposal.type is StateType.SCHEDULED
    policy = msgspec.structs.replace(
        run.policy,
        resuming=False,
        pause_keys=(),
        retry_type="reschedule" if is_scheduled else None,
    )
    return with_policy(run, proposal, policy)


def _prevent_result_loss(run: Run, proposal: Proposal, facts: Facts, now: int) -> Answer:
    if not run.has_value or proposal.type is not StateType.COMPLETED:
        return None
    if proposal.data is not None and is_value(proposal.data_format):
        return None
    return reject(run, "the run has completed with a value, which this state would lose")


def _only_end_cancelling(run: Run, proposal: Proposal, facts: Facts, now: int) -> Answer:
    return reject(run, "the run is being cancelled, and can only become CANCELLED")


def _cancel_at_once(run: Run, proposal: Proposal, facts: Facts, now: int) -> Answer:
    if run.state_type is StateType.SCHEDULED:
        is_idle = not run.has_infrastructure or run.state_name == "Resuming"
    else:
        is_idle = run.state_details.pause_reschedule
    if not is_idle:
        return None
    cancelled = msgspec.structs.replace(
        proposal,
        type=StateType.CANCELLED,
        name="Cancelled",
        # The same transition again is still the same one.
        details=StateDetails(transition_id=proposal.details.transition_id),
    )
    return Objection(
        Verdict.REJECT, "nothing of the run has to be stopped first", proposal=cancelled
    )


def _prevent_pending(run: Run, proposal: Proposal, facts: Facts, now: int) -> Answer:
    is_substate = run.state_type is StateType.PENDING and proposal.name not in (
        run.state_name,
        "Pending",
    )
    if is_substate:
        return copy_scheduled_time(run, proposal, facts, now)
    return Objection(Verdict.ABORT, f"the run is {run.state_name} already")


def _only_scheduled_is_late(run: Run, proposal: Proposal, facts: Facts, now: int) -> Answer:
    if proposal.name != "Late":
        return None
    if run.state_type is not StateType.SCHEDULED:
        return reject(run, "only a scheduled run can be late")
    return reject(run, "the run is late already") if run.state_name == "Late" else None


def _enter_pause(run: Run, proposal: Proposal, facts: Facts, now: int) -> Answer:
    if run.state_type is None:
        return Objection(Verdict.ABORT, "a run without a state cannot pause")
    if run.state_type is not StateType.RUNNING:
        return reject(run, "only a running run can pause")
    key = proposal.details.pause_key or str(proposal.id)
    if key in run.policy.pause_keys:
        return reject(run, f"the run has paused for the key {key!r} before")
    if proposal.details.pause_reschedule:
        if run.parent_task_run_id is not None:
            return Objection(Verdict.ABORT, "a run that a flow called cannot be suspended")
        if not run.is_resumable:
            return Objection(Verdict.ABORT, "nothing says how the flow of the run is found again")
    policy = msgspec.structs.replace(run.policy, pause_keys=(*run.policy.pause_keys, key))
    return with_policy(run, proposal, policy)


def _leave_pause(run: Run, proposal: Proposal, facts: Facts, now: int) -> Answer:
    if proposal.type not in _AFTER_A_PAUSE:
        return reject(run, "a paused run can only go on, be scheduled, cancelled or ended")
    if proposal.type is StateType.CANCELLING:
        return None
    goes_on = proposal.type not in TERMINAL_TYPES
    if goes_on and run.state_details.pause_reschedule and not run.is_resumable:
        return reject(run, "nothing says how the flow of the run is found again")
    timeout = run.state_details.pause_timeout
    is_over = timeout is not None and times.microseconds_from_datetime(timeout) < now
    if is_over and proposal.type is not StateType.FAILED:
        failed = msgspec.structs.replace(
            proposal,
            type=StateType.FAILED,
            name="Failed",
            message="the run was paused, and not resumed in time",
            details=NO_DETAILS,
            data=None,
            data_format=None,
        )
        return Objection(Verdict.REJECT, "the time to resume the run is over", proposal=failed)
    if not goes_on:
        return None
    return with_policy(run, proposal, msgspec.structs.replace(run.policy, resuming=True))


def _retry_failed(run: Run, proposal: Proposal, facts: Facts, now: int) -> Answer:
    if not has_retries_left(run, proposal):
        return with_policy(run, proposal, msgspec.structs.replace(run.policy, retry_type=None))
    objection = wait_for_retry(proposal, now, retry_delay(run, proposal))
    policy = msgspec.structs.replace(
        run.policy, resuming=False, pause_keys=(), retry_type="in_process"
    )
    return msgspec.structs.replace(objection, policy=policy)


_BYPASS_CANCELLING = Rule(
    "BypassCancellingFlowRunsWithNoInfra",
    frozenset({StateType.SCHEDULED, StateType.PAUSED}),
    frozenset({StateType.CANCELLING}),
    _cancel_at_once,
)

CORE_FLOW_POLICY: tuple[Rule, ...] = (
    Rule("PreventDuplicateTransitions", ANY, ANY, _prevent_duplicates),
    Rule("HandleFlowTerminalStateTransitions", TERMINAL_TYPES, ANY, _leave_terminal),
    Rule(
        "EnforceCancellingToCancelled",
        frozenset({StateType.CANCELLING}),
        ANY - {StateType.CANCELLED},
        _only_end_cancelling,
    ),
    _BYPASS_CANCELLING,
    Rule(
        "PreventPendingTransitions",
        frozenset(
            {StateType.PENDING, StateType.RUNNING, StateType.CANCELLING, StateType.CANCELLED}
        ),
        frozenset({StateType.PENDING}),
        _prevent_pending,
    ),
    Rule(
        "EnsureOnlyScheduledFlowsMarkedLate",
        ANY | {None},
        frozenset({StateType.SCHEDULED}),
        _only_scheduled_is_late,
    ),
    Rule("HandlePausingFlows", ANY | {None}, frozenset({StateType.PAUSED}), _enter_pause),
    Rule("HandleResumingPausedFlows", frozenset({StateType.PAUSED}), ANY, _leave_pause),
    COPY_SCHEDULED_TIME,
    WAIT_FOR_SCHEDULED_TIME,
    Rule(
        "RetryFailedFlows",
        frozenset({StateType.RUNNING}),
        frozenset({StateType.FAILED}),
        _retry_failed,
    ),
)

# What is asked of a new run's first states and of a state that is set by force.
MINIMAL_FLOW_POLICY: tuple[Rule, ...] = (
    Rule("PreventResultDataLoss", TERMINAL_TYPES, TERMINAL_TYPES, _prevent_result_loss),
    _BYPASS_CANCELLING,
)
