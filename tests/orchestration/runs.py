"""Runs and proposals with good defaults, and what becomes of them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from embedded_orch import times
from embedded_orch.orchestration.transition import decide
from embedded_orch.orchestration.values import (
    NO_FACTS,
    Decision,
    Facts,
    FlowRunFacts,
    Proposal,
    Run,
    Verdict,
)
from embedded_orch.states import TERMINAL_TYPES, VALUE, StateDetails, StateType

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


def in_flow(state: StateType | None, *, run_count: int = 1, **details: Any) -> Facts:
    """What the rules know of the flow run of a task run."""
    return Facts(flow_run=FlowRunFacts(run_count, state, StateDetails(**details)))


def a_proposal(type: StateType, **fields: Any) -> Proposal:
    named = {"id": an_id(2), "name": type.value.capitalize(), "timestamp": NOW}
    return Proposal(type=type, **{**named, **fields})


def at(scheduled_time: int | None) -> StateDetails:
    return StateDetails(scheduled_time=times.optional_datetime(scheduled_time))


def proposed(
    run: Run, type: StateType, *, facts: Facts = NO_FACTS, force: bool = False, **fields: Any
) -> Decision:
    return decide(run, a_proposal(type, **fields), now=NOW, facts=facts, force=force)


def accepted(run: Run, type: StateType, **fields: Any) -> Run:
    """The run after a proposal that is accepted."""
    decision = proposed(run, type, **fields)
    assert decision.verdict is Verdict.ACCEPT
    assert decision.proposal is not None
    return decision.run


WITH_VALUE: dict[str, Any] = {"data": b"1", "data_format": VALUE}
