"""The final state that a flow's return value stands for, determined as Prefect 3 does."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from embedded_orch.engine import results
from embedded_orch.engine.futures import Future
from embedded_orch.orchestration.values import Proposal
from embedded_orch.states import State, StateType

if TYPE_CHECKING:
    from embedded_orch.process import Process

_COLLECTIONS = (list, tuple, set, frozenset)
# The first of these among states that did not all complete names the whole.
_WORST_FIRST = (StateType.CANCELLED, StateType.PAUSED)


def outcome_of(value: Any, process: Process, *, run_name: str) -> tuple[Proposal, State]:
    """The state to propose for what a flow returned, and the same with its value at hand.

    A plain value completes the run. A future or a state, or a list, tuple or set of nothing else,
    makes it what they became: COMPLETED only when all of them are.
    """
    states = _states_in(value)
    now = process.now()
    if states is None:
        completed = results.completed(process.new_id(), now, value, run_name=run_name)
        return completed, results.state_of(completed).with_value(value)
    counts = Counter(state.type for state in states)
    if counts[StateType.COMPLETED] == len(states):
        answer = states[0] if isinstance(value, Future | State) else states
        proposal = Proposal(
            id=process.new_id(),
            type=StateType.COMPLETED,
            name="Completed",
            timestamp=now,
            message="All states completed.",
        )
        return proposal, results.state_of(proposal).with_value(answer)
    kind = next((kind for kind in _WORST_FIRST if counts[kind]), StateType.FAILED)
    bad = next(state for state in states if not state.is_completed())
    unfinished = len(states) - counts[StateType.COMPLETED]
    proposal = Proposal(
        id=process.new_id(),
        type=kind,
        name=kind.value.capitalize(),
        timestamp=now,
        message=f"{unfinished}/{len(states)} states did not complete; the first: {bad!r}",
    )
    error = bad.result_now(raise_on_failure=False) if bad.is_final() else None
    return proposal, results.state_of(proposal).with_error(error)


def _states_in(value: Any) -> list[State] | None:
    """The states that a value consists of; None when it is a plain value."""
    if isinstance(value, Future | State):
        return [_state(value)]
    if isinstance(value, _COLLECTIONS) and value:
        items = list(value)
        if all(isinstance(item, Future | State) for item in items):
            return [_state(item) for item in items]
    return None


def _state(item: Future[Any] | State) -> State:
    if isinstance(item, State):
        return item
    item.wait()
    return item.state
