"""Functions of the user's that are called when a run has entered a state.

They are called in the order of their list, once the state is stored. One that raises is logged on
the run, and changes nothing. None is called for a run that was deleted meanwhile.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from embedded_orch import errors
from embedded_orch.engine.effects import Invoke, Shielded
from embedded_orch.engine.showing import flow_run_shown, logger_of_shown, task_run_shown
from embedded_orch.states import StateType

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from embedded_orch.engine.effects import Effect, Steps
    from embedded_orch.engine.engine import Engine
    from embedded_orch.engine.options import Options
    from embedded_orch.engine.specs import FlowSpec, Spec, TaskSpec
    from embedded_orch.runs import FlowRun, TaskRun
    from embedded_orch.states import State

_log = logging.getLogger("embedded_orch.engine")

_OPTIONS = {
    StateType.RUNNING: "on_running",
    StateType.COMPLETED: "on_completion",
    StateType.FAILED: "on_failure",
    StateType.CANCELLED: "on_cancellation",
    StateType.CRASHED: "on_crashed",
}


def hooks_on(options: Options, type: StateType) -> Sequence[Callable[..., Any]]:
    """The hooks for states of a type; decorated functions may get more at any time."""
    return tuple(options.hooks.get(_OPTIONS.get(type, ""), ()))


def has_final_hooks(options: Options) -> bool:
    """Whether there are hooks for the end of a run, however it ends."""
    # Most have none at all, which is told without a loop of ours.
    return options.has_hooks and any(
        hooks for option, hooks in options.hooks.items() if option != "on_running"
    )


def call_flow_hooks(
    engine: Engine, flow: FlowSpec, state: State, *, is_interrupted: bool = False
) -> Steps[None]:
    """Call the hooks of a flow for a state of one of its runs.

    Args:
        engine: on which it runs.
        flow: what runs.
        state: that was stored; it says whose it is.
        is_interrupted: call them to their end although the code around is being cancelled.
    """
    hooks = hooks_on(flow.options, state.type)
    run_id = state.state_details.flow_run_id if hooks else None
    if run_id is not None:
        shown = flow_run_shown(engine.database, run_id)
        yield from _call(engine, hooks, flow, shown, state, is_interrupted=is_interrupted)


def call_task_hooks(engine: Engine, task: TaskSpec, state: State) -> Steps[None]:
    """Call the hooks of a task for a state of one of its runs."""
    hooks = hooks_on(task.options, state.type)
    run_id = state.state_details.task_run_id if hooks else None
    if run_id is not None:
        shown = task_run_shown(engine.database, run_id)
        yield from _call(engine, hooks, task, shown, state, is_interrupted=False)


def _call(
    engine: Engine,
    hooks: Sequence[Callable[..., Any]],
    spec: Spec,
    shown: Effect,
    state: State,
    *,
    is_interrupted: bool,
) -> Steps[None]:
    def kept(effect: Effect) -> Effect:
        return Shielded(effect) if is_interrupted else effect

    try:
        run: FlowRun | TaskRun = yield kept(shown)
    except errors.RunNotFound as gone:
        # Somebody has deleted it since it has ended. It had nothing more to write.
        _log.warning("the hooks for the state %s are not called: %s", state.name, gone)
        return
    for hook in hooks:
        try:
            yield kept(Invoke(hook, (spec.decorated, run, state)))
        except Exception:  # noqa: BLE001 - the user's function may raise anything
            logger_of_shown(engine, run).exception(
                "the hook %s for the state %s raised", _name_of(hook), state.name
            )


def _name_of(hook: Callable[..., Any]) -> str:
    # Of a partial, the function that it calls.
    named: object = getattr(hook, "func", hook)
    return str(getattr(named, "__name__", type(hook).__name__))
