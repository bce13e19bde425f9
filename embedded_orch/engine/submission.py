"""A task call that runs beside its caller, and settles a future."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedded_orch import errors
from embedded_orch.engine import results
from embedded_orch.engine.effects import drive, drive_async
from embedded_orch.engine.futures import Future
from embedded_orch.engine.runner import ENDED
from embedded_orch.engine.running import backend_of_running_loop, copied_context
from embedded_orch.engine.workers import Job

if TYPE_CHECKING:
    from embedded_orch.engine.runner import Runner
    from embedded_orch.engine.task_call import TaskCall
    from embedded_orch.states import State


def submit(call: TaskCall, runner: Runner) -> Future[Any]:
    """Have a runner run a call, in the context of the caller.

    Raises:
        MissingContextError: the flow run of the runner has ended.
    """
    future: Future[Any] = Future(call.name, call.run_id, call.engine.task_run_state)
    runner.prepare(call)
    if call.is_async:

        async def run_async() -> None:
            try:
                state = await drive_async(call.steps())
            except BaseException as error:  # noqa: BLE001 - whoever waits for the future gets it
                # Whatever left this task, a cancellation too, would stop the others' loop.
                state = _interrupted(call, runner, error)
            _finish(future, call, state)

        runner.submit_async(run_async, backend=backend_of_running_loop())
        return future

    context = copied_context(None)

    def run() -> None:
        try:
            state = context.run(drive, call.steps())
        except BaseException as error:  # noqa: BLE001 - whoever waits for the future gets it
            state = _interrupted(call, runner, error)
        _finish(future, call, state)

    def cancel(error: BaseException) -> None:
        future.finish(_cancelled(call, error))

    runner.submit(Job(call.name, run, cancel), after=call.upstream)
    return future


def _finish(future: Future[Any], call: TaskCall, state: State) -> None:
    # It may have been on record under another id, and is named when it begins.
    future.task_run_id, future.name = call.run_id, call.name
    future.finish(state)


def _interrupted(call: TaskCall, runner: Runner, error: BaseException) -> State:
    """The state of a call that was left by what is no failure of its function."""
    process = call.engine.process
    if runner.is_interrupted and not isinstance(error, Exception):
        # Not the cancellation itself, which would pass for one of whoever asks for the result.
        return _cancelled(call, errors.CancelledRun(ENDED))
    crashed = results.crashed(process.new_id(), process.now(), error, kind="Task")
    return results.state_of(crashed).with_error(error)


def _cancelled(call: TaskCall, error: BaseException) -> State:
    process = call.engine.process
    cancelled = results.cancelled(process.new_id(), process.now(), str(error))
    return results.state_of(cancelled).with_error(error)
