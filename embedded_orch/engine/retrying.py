"""What a task run says of a retry when it fails: its condition, and the chance for its jitter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from embedded_orch.engine.effects import Invoke
from embedded_orch.engine.showing import logger_of_shown, task_run_shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedded_orch.engine.effects import Steps
    from embedded_orch.engine.engine import Engine
    from embedded_orch.engine.specs import TaskSpec
    from embedded_orch.orchestration.values import Proposal
    from embedded_orch.runs import TaskRun
    from embedded_orch.states import State


def not_retriable(failed: Proposal) -> Proposal:
    """The same failure, final whatever the retries."""
    return replace(failed, details=replace(failed.details, retriable=False))


def weighed(engine: Engine, task: TaskSpec, failed: Proposal, state: State) -> Steps[Proposal]:
    """A failure with what the rules, which are pure, need for the retry that may follow.

    Args:
        engine: on which the task runs.
        task: that failed, and has retries left.
        failed: the state to propose.
        state: the same for people, of its run, with the exception at hand.
    """
    condition = task.options.retry_condition_fn
    if condition is not None and not (yield from _holds(engine, task, condition, state)):
        return not_retriable(failed)
    if task.policy.retry_jitter_factor:
        return replace(failed, chance=engine.process.chance())
    return failed


def _holds(
    engine: Engine, task: TaskSpec, condition: Callable[..., object], state: State
) -> Steps[bool]:
    """What the condition says; no when it raises."""
    run_id = state.state_details.task_run_id
    assert run_id is not None, "the state is of a task run"
    run: TaskRun = yield task_run_shown(engine.database, run_id)
    try:
        answer: object = yield Invoke(condition, (task.decorated, run, state))
    except Exception:  # noqa: BLE001 - the user's function may raise anything
        # Whether to retry is not known, so it is not done.
        logger_of_shown(engine, run).exception("not retried: the retry_condition_fn raised")
        return False
    return bool(answer)
