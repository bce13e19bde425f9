"""The final state that a return value stands for, determined as Prefect 3 does.

A plain value completes the run. A state that the function made is the end of the run as it is. The
state of another run, or a list, tuple or set of states and nothing else, makes it what they became.
"""

from __future__ import annotations

from types import GeneratorType
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from embedded_orch import errors
from embedded_orch.engine import results
from embedded_orch.engine.effects import WaitFor
from embedded_orch.engine.futures import Future
from embedded_orch.engine.inputs import futures_in, states_in
from embedded_orch.engine.walking import PLAIN
from embedded_orch.states import State, StateGroup, StateType, is_state_iterable
from embedded_orch.states.details import BAD_ENDS

if TYPE_CHECKING:
    from embedded_orch.engine.effects import Steps
    from embedded_orch.engine.keeping import Keeping
    from embedded_orch.orchestration.values import Proposal
    from embedded_orch.process import Process

# What a function can say of a run that it has ended. Paused has not, and goes on later.
_ENDS = frozenset(
    {
        StateType.COMPLETED,
        StateType.FAILED,
        StateType.CRASHED,
        StateType.CANCELLED,
        StateType.PAUSED,
    }
)


def tells_the_end(value: object) -> bool:
    """Whether a value stands for more than itself: a state, a future, several, a generator."""
    if type(value) in PLAIN:
        return False
    if isinstance(value, State | Future | GeneratorType):
        return True
    return (
        isinstance(value, list | tuple | set)
        and bool(value)
        and all(isinstance(item, State | Future) for item in value)
    )


def settled(value: Any) -> Steps[Any]:
    """A value with the final states of the futures in it, which are waited for."""
    futures = futures_in(value)
    for future in futures:
        yield WaitFor(future)
    return states_in(value) if futures else value


def outcome_of(
    value: Any,
    process: Process,
    keeping: Keeping,
    *,
    run_name: str,
    not_kept: str | None = None,
) -> tuple[Proposal, State]:
    """The state to propose for what a function returned, and the same with its value at hand.

    Args:
        value: that it returned, with states for futures.
        process: that runs it.
        keeping: how its value is kept.
        run_name: for messages.
        not_kept: why the value is not stored, if so.

    Raises:
        ConfigurationError: it returned a state in which no run can end.
        ValueNotStorable: it was asked for that the value be stored, and it cannot be.
        Exception: what a generator raised, of which the value is the list.
    """
    if isinstance(value, GeneratorType):
        value = list(value)
    if isinstance(value, State) and _is_made_by_user(value):
        return _as_it_is(value, process, keeping, run_name)
    if isinstance(value, State) or is_state_iterable(value):
        return _of_all(value, process)
    if not_kept is not None:
        completed = results.ended(process.new_id(), process.now(), StateType.COMPLETED, None)
        completed = replace(completed, message=f"the result was not stored: {not_kept}")
    else:
        completed = results.completed(
            process.new_id(), process.now(), value, keeping, run_name=run_name
        )
    return completed, results.with_value(results.state_of(completed), value, keeping)


def _is_made_by_user(state: State) -> bool:
    details = state.state_details
    return details.flow_run_id is None and details.task_run_id is None


def _as_it_is(
    state: State, process: Process, keeping: Keeping, run_name: str
) -> tuple[Proposal, State]:
    if state.type not in _ENDS:
        raise errors.ConfigurationError(
            f"{run_name} returned {state!r}, in which no run can end; return a value, or a state "
            f"that is Completed, Failed, Cancelled, Crashed or Paused"
        )
    if state.is_completed():
        proposal = results.completed(
            process.new_id(), process.now(), state.data, keeping, run_name=run_name
        )
        message = state.message or proposal.message
    else:
        error = state.data if isinstance(state.data, BaseException) else None
        proposal = results.ended(process.new_id(), process.now(), state.type, error)
        message = state.message or (state.data if isinstance(state.data, str) else None)
    proposal = replace(proposal, name=state.name, message=message, details=state.state_details)
    found = results.state_of(proposal)
    return proposal, (
        found.with_value(state.data) if state.is_completed() else found.with_error(state.data)
    )


def _of_all(value: Any, process: Process) -> tuple[Proposal, State]:
    group = StateGroup([value] if isinstance(value, State) else list(value))
    if group.all_completed():
        kind, message = StateType.COMPLETED, "All states completed."
    elif group.any_cancelled():
        kind, message = StateType.CANCELLED, _counted(group, group.cancelled_count, "cancelled")
    elif group.any_paused():
        kind, message = StateType.PAUSED, _counted(group, group.paused_count, "paused")
    elif group.any_failed():
        kind, message = StateType.FAILED, _counted(group, group.fail_count, "failed")
    else:
        kind, message = StateType.FAILED, _counted(group, group.not_final_count, "are not final")
    proposal = replace(results.ended(process.new_id(), process.now(), kind, None), message=message)
    state = results.state_of(proposal)
    if group.all_completed():
        return proposal, state.with_value(value)
    if any(each.type in BAD_ENDS for each in group.states):
        return proposal, state.with_error(value)
    # None of them has an error that could be raised.
    first = next(each for each in group.states if not each.is_completed())
    return proposal, state.with_error(errors.FailedRun(f"{message} The first: {first!r}"))


def _counted(group: StateGroup, count: int, what: str) -> str:
    return f"{count}/{group.total_count} states {what}."
