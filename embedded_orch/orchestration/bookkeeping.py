"""What storing a state changes on its run, whatever the rules said: Prefect's transforms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from embedded_orch import times
from embedded_orch.states import TERMINAL_TYPES, StateType, is_value

if TYPE_CHECKING:
    from embedded_orch.orchestration.values import Facts, Policy, Proposal, Run


def bookkeep(run: Run, state: Proposal, policy: Policy, facts: Facts) -> Run:
    """The run after ``state`` is stored: its state, times and counts.

    Args:
        run: the run before it.
        state: what is stored.
        policy: of the run, as the rules leave it.
        facts: of a task run: which attempt its flow run is in.
    """
    enters_running = state.type is StateType.RUNNING
    is_scheduled = state.type is StateType.SCHEDULED
    scheduled_time = _due(state) if is_scheduled else None
    start_time, end_time = _start_and_end(run, state)
    total_run_time = run.total_run_time
    if run.state_type is StateType.RUNNING and run.state_timestamp is not None:
        total_run_time += max(0, state.timestamp - run.state_timestamp)
    expected = run.expected_start_time
    if expected is None:
        expected = scheduled_time if scheduled_time is not None else state.timestamp
    flow_run_run_count = run.flow_run_run_count
    if enters_running and facts.flow_run is not None:
        flow_run_run_count = facts.flow_run.run_count
    # What was paused and goes on is in the attempt that it was in.
    is_attempt = enters_running and not policy.resuming
    if policy.resuming and (enters_running or state.type in TERMINAL_TYPES):
        policy = msgspec.structs.replace(policy, resuming=False)
    return msgspec.structs.replace(
        run,
        state_id=state.id,
        state_type=state.type,
        state_name=state.name,
        state_timestamp=state.timestamp,
        state_details=state.details,
        has_value=state.type is StateType.COMPLETED and is_value(state.data_format),
        run_count=_attempts_before(run, state) + is_attempt,
        flow_run_run_count=flow_run_run_count,
        expected_start_time=expected,
        next_scheduled_start_time=scheduled_time,
        start_time=start_time,
        end_time=end_time,
        total_run_time=total_run_time,
        policy=policy,
    )


def _attempts_before(run: Run, state: Proposal) -> int:
    """The attempts that count: a task run that begins anew has all its retries again."""
    leaves_its_end = run.state_type in TERMINAL_TYPES and state.type not in TERMINAL_TYPES
    return 0 if leaves_its_end and not run.is_flow_run else run.run_count


def _start_and_end(run: Run, state: Proposal) -> tuple[int | None, int | None]:
    start_time, end_time = run.start_time, run.end_time
    if state.type is StateType.RUNNING and start_time is None:
        start_time = state.timestamp
    if state.type in TERMINAL_TYPES:
        if end_time is None:
            end_time = state.timestamp
            start_time = start_time if start_time is not None else state.timestamp
    elif run.state_type in TERMINAL_TYPES:
        end_time = None
    return start_time, end_time


def _due(state: Proposal) -> int | None:
    scheduled_time = state.details.scheduled_time
    return None if scheduled_time is None else times.microseconds_from_datetime(scheduled_time)
