"""The rules of task runs, in the order in which they are asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from embedded_orch import times
from embedded_orch.orchestration.jitter import clamped_poisson
from embedded_orch.orchestration.rules import (
    ANY,
    COPY_SCHEDULED_TIME,
    WAIT_FOR_SCHEDULED_TIME,
    Rule,
    has_retries_left,
    is_plain_running,
    reject,
    retry_delay,
    wait_for_retry,
)
from embedded_orch.orchestration.values import LONGEST_CACHE_KEY, Amendment, Objection, Verdict
from embedded_orch.states import TERMINAL_TYPES, StateDetails, StateType

if TYPE_CHECKING:
    from embedded_orch.orchestration.rules import Answer
    from embedded_orch.orchestration.values import CachedResult, Facts, Proposal, Run

AWAITING_SLOT = "AwaitingConcurrencySlot"
"""The name of the state in which a run waits for a slot."""
IS_CACHED = "a cached result was found"
"""Why a run is not begun whose result is cached."""
# Prefect's first guess of the seconds for which a slot is held, and how far a wait differs from it.
_OCCUPANCY = 2.0
_JITTER = 0.3


def _take_cached(run: Run, proposal: Proposal, facts: Facts, now: int) -> Answer:
    if facts.cached is None or not proposal.details.cache_key or proposal.details.refresh_cache:
        return None
    found = with_cached(proposal, facts.cached)
    return Objection(Verdict.REJECT, IS_CACHED, proposal=found)


def with_cached(running: Proposal, cached: CachedResult) -> Proposal:
    """The COMPLETED state that takes the place of a RUNNING one whose result is cached."""
    return msgspec.structs.replace(
        running,
        type=StateType.COMPLETED,
        name="Cached",
        message="the result of an earlier run with the same cache key",
        data=cached.data,
        data_format=cached.data_format,
    )


def _refuse_long_key(run: Run, proposal: Proposal, facts: Facts, now: int) -> Answer:
    """The run completes all the same; that its result is not cached is what the answer says."""
    length = len(proposal.details.cache_key or "")
    if length <= LONGEST_CACHE_KEY:
        return None
    reason = f"its cache key has {length} characters, and may have {LONGEST_CACHE_KEY}"
    return Objection(Verdict.REJECT, reason, proposal=proposal)


def _leave_terminal(run: Run, proposal: Proposal, facts: Facts, now: int) -> Answer:
    if proposal.type in (StateType.CANCELLING, StateType.PAUSED, StateType.CRASHED):
        return Objection(Verdict.ABORT, f"the run has ended as {run.state_name}")
    if run.has_value:
        return reject(run, "the run has completed with a value")
    flow_run = facts.flow_run
    is_later_attempt = flow_run is not None and run.flow_run_run_count < flow_run.run_count
    if is_later_attempt and is_plain_running(proposal):
        return Amendment(msgspec.structs.replace(proposal, name="Retrying"))
    return None


def _only_in_a_running_flow(run: Run, proposal: Proposal, facts: Facts, now: int) -> Answer:
    flow_run = facts.flow_run
    if flow_run is None or flow_run.state_type is StateType.RUNNING:
        return None
    if flow_run.state_type is not StateType.PAUSED:
        state = flow_run.state_type or "without a state"
        return Objection(Verdict.ABORT, f"its flow run is {state}")
    if run.state_name == "NotReady":
        return reject(run, "its flow run is paused")
    pause = flow_run.state_details
    not_ready = msgspec.structs.replace(
        proposal,
        type=StateType.PAUSED,
        name="NotReady",
        message="the flow run is paused",
        details=StateDetails(
            pause_timeout=pause.pause_timeout, pause_reschedule=pause.pause_reschedule
        ),
    )
    return Objection(Verdict.REJECT, "its flow run is paused", proposal=not_ready)


def _secure_slots(run: Run, proposal: Proposal, facts: Facts, now: int) -> Answer:
    """A run that has to wait for slots of its tags says so; whoever runs it is told when to come.

    The store takes the slots with the state that is accepted, in the same transaction.
    """
    slots = facts.slots
    if slots is None or not (slots.waits_for or slots.refusal):
        return None
    if slots.refusal is not None:
        return Objection(Verdict.ABORT, slots.refusal)
    reason = f"waits for a slot of {', '.join(slots.waits_for)}"
    if run.state_name == AWAITING_SLOT:
        delay = clamped_poisson(_OCCUPANCY, factor=_JITTER, chance=proposal.chance)
        return Objection(Verdict.WAIT, reason, delay_seconds=delay)
    details = StateDetails(scheduled_time=times.datetime_from_microseconds(now))
    waiting = msgspec.structs.replace(
        proposal, type=StateType.SCHEDULED, name=AWAITING_SLOT, message=reason, details=details
    )
    return Objection(Verdict.REJECT, reason, proposal=waiting)


def _retry_failed(run: Run, proposal: Proposal, facts: Facts, now: int) -> Answer:
    """A retry without a delay begins at once, and the last failure says that it is."""
    if not has_retries_left(run, proposal):
        details = msgspec.structs.replace(proposal.details, retriable=False)
        return Amendment(msgspec.structs.replace(proposal, details=details))
    delay = retry_delay(run, proposal)
    retrying = msgspec.structs.replace(proposal, type=StateType.RUNNING, name="Retrying")
    if delay > 0 or _only_in_a_running_flow(run, retrying, facts, now) is not None:
        return wait_for_retry(proposal, now, delay)
    return Objection(Verdict.REJECT, "the run has retries left", proposal=retrying)


def _rename_reruns(run: Run, proposal: Proposal, facts: Facts, now: int) -> Answer:
    if run.run_count == 0 or not is_plain_running(proposal):
        return None
    name = "Retrying" if run.state_name == "AwaitingRetry" else "Rerunning"
    return Amendment(msgspec.structs.replace(proposal, name=name))


CORE_TASK_POLICY: tuple[Rule, ...] = (
    Rule("CacheRetrieval", ANY | {None}, frozenset({StateType.RUNNING}), _take_cached),
    Rule("HandleTaskTerminalStateTransitions", TERMINAL_TYPES, ANY, _leave_terminal),
    Rule(
        "PreventRunningTasksFromStoppedFlows",
        ANY | {None},
        frozenset({StateType.RUNNING}),
        _only_in_a_running_flow,
    ),
    Rule("SecureTaskConcurrencySlots", ANY | {None}, frozenset({StateType.RUNNING}), _secure_slots),
    COPY_SCHEDULED_TIME,
    WAIT_FOR_SCHEDULED_TIME,
    Rule(
        "RetryFailedTasks",
        frozenset({StateType.RUNNING}),
        frozenset({StateType.FAILED}),
        _retry_failed,
    ),
    # A run that has ended begins anew with attempt 1, so it is no rerun.
    Rule("RenameReruns", ANY - TERMINAL_TYPES, frozenset({StateType.RUNNING}), _rename_reruns),
    Rule("CacheInsertion", ANY | {None}, frozenset({StateType.COMPLETED}), _refuse_long_key),
)

# A new task run's first states, and a state that is set by force, are asked nothing.
MINIMAL_TASK_POLICY: tuple[Rule, ...] = ()
