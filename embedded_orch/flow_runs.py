"""Pausing, suspending and resuming flow runs, in the module where Prefect has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedded_orch import errors
from embedded_orch.states.state import awaits

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from embedded_orch.engine.contexts import FlowRunContext
    from embedded_orch.engine.effects import Steps
    from embedded_orch.engine.engine import Engine
    from embedded_orch.engine.pausing import PauseRequest


def pause_flow_run(
    wait_for_input: Any = None,
    timeout: float = 3600,
    poll_interval: float = 10,
    key: str | None = None,
) -> Any:
    """Pause the flow run that the calling code is in, until somebody resumes it.

    Its process waits; tasks that were submitted go on. In asynchronous code this is awaited.

    Args:
        wait_for_input: what it has to be answered: a ``RunInput``, another class with fields, or
            any type.
        timeout: seconds after which the run fails.
        poll_interval: at most so many seconds between two looks at what other processes do.
        key: of the pause; a run pauses once for each. Its place among the pauses of the run when
            not given.

    Returns:
        The answer; None when it waits for none.

    Raises:
        MissingContextError: no flow is running here.
        FlowPauseTimeout: it was not resumed in time.
        RunNotPausable: it cannot pause as it is.
        ConfigurationError: a value that an argument cannot have.
    """
    steps = _pausing(wait_for_input, timeout, poll_interval, key)
    return _awaited(steps) if awaits() else _driven(steps)


async def apause_flow_run(
    wait_for_input: Any = None,
    timeout: float = 3600,  # noqa: ASYNC109 - Prefect's name
    poll_interval: float = 10,
    key: str | None = None,
) -> Any:
    """:func:`pause_flow_run`, awaited whatever the code around."""
    return await _awaited(_pausing(wait_for_input, timeout, poll_interval, key))


def suspend_flow_run(
    wait_for_input: Any = None,
    flow_run_id: UUID | str | None = None,
    timeout: float | None = None,
    key: str | None = None,
) -> Any:
    """Suspend a flow run: its process does its part no further, and another one may continue it.

    It is continued by ``flow.resume(run_id)``, in any process; where it waits for input,
    :func:`resume_flow_run` comes before that. Tasks that completed are not run again. In
    asynchronous code this is awaited.

    Args:
        wait_for_input: what it has to be answered, as in :func:`pause_flow_run`.
        flow_run_id: another run than the one that the calling code is in; it goes on to the next
            task that it calls.
        timeout: seconds after which it has failed; None for as long as it takes.
        key: of the pause, as in :func:`pause_flow_run`.

    Returns:
        The answer, when the run has come here before and was resumed.

    Raises:
        Pause: it is suspended; flow runs let it pass.
        MissingContextError: no flow is running here, or a task is.
        RunNotPausable: a flow called it, or it is not running.
        RunNotFound: no flow run has the id.
    """
    steps = _suspending(wait_for_input, flow_run_id, timeout, key)
    return _awaited(steps) if awaits() else _driven(steps)


async def asuspend_flow_run(
    wait_for_input: Any = None,
    flow_run_id: UUID | str | None = None,
    timeout: float | None = None,  # noqa: ASYNC109 - Prefect's name
    key: str | None = None,
) -> Any:
    """:func:`suspend_flow_run`, awaited whatever the code around."""
    return await _awaited(_suspending(wait_for_input, flow_run_id, timeout, key))


def resume_flow_run(flow_run_id: UUID | str, run_input: Mapping[str, Any] | None = None) -> Any:
    """Let a paused flow run go on, in whatever process it waits.

    One that nobody waits for, as it was suspended or its process died, is SCHEDULED as "Resuming",
    for ``flow.resume(run_id)``. In asynchronous code this is awaited.

    Args:
        flow_run_id: the run.
        run_input: the fields of the input that it waits for.

    Raises:
        RunNotFound: no flow run has the id.
        NotPausedError: it is not paused.
        FlowPauseTimeout: its time is over.
        RunInputError: the input does not fit; the message names each field, and the run stays
            paused.
    """
    steps = _resuming(flow_run_id, run_input)
    return _awaited(steps) if awaits() else _driven(steps)


async def aresume_flow_run(
    flow_run_id: UUID | str, run_input: Mapping[str, Any] | None = None
) -> None:
    """:func:`resume_flow_run`, awaited whatever the code around."""
    await _awaited(_resuming(flow_run_id, run_input))


def _pausing(
    wait_for_input: Any, timeout: float, poll_interval: float, key: str | None
) -> Steps[Any]:
    from embedded_orch.engine.pausing import pause

    request = _request(wait_for_input, timeout, poll_interval, key, is_suspension=False)
    return pause(_context("paused"), request)


def _suspending(
    wait_for_input: Any, flow_run_id: UUID | str | None, timeout: float | None, key: str | None
) -> Steps[Any]:
    from embedded_orch.engine.contexts import current_flow_run, current_task_run
    from embedded_orch.engine.pausing import pause, suspend_other
    from embedded_orch.filters import as_uuid

    request = _request(wait_for_input, timeout, 1.0, key, is_suspension=True)
    here = current_flow_run()
    found = None if flow_run_id is None else as_uuid(flow_run_id, "flow run")
    if found is not None and (here is None or here.run_id != found):
        return suspend_other(_engine(here), found, request)
    context = _context("suspended")
    if current_task_run() is not None:
        raise errors.MissingContextError(
            "a flow run is suspended by its flow, and this is a task; let the flow do it"
        )
    return pause(context, request)


def _resuming(flow_run_id: UUID | str, run_input: Mapping[str, Any] | None) -> Steps[None]:
    from embedded_orch.engine.contexts import current_flow_run
    from embedded_orch.engine.pausing import resume
    from embedded_orch.filters import as_uuid

    return resume(_engine(current_flow_run()), as_uuid(flow_run_id, "flow run"), run_input)


def _request(
    wait_for_input: Any,
    timeout: float | None,
    poll_interval: float,
    key: str | None,
    *,
    is_suspension: bool,
) -> PauseRequest:
    from embedded_orch.engine.pausing import PauseRequest
    from embedded_orch.engine.run_inputs import WantedInput

    for name, seconds in (("timeout", timeout), ("poll_interval", poll_interval)):
        if seconds is not None and not seconds >= 0:
            raise errors.ConfigurationError(f"{name}={seconds!r}: it is a number of seconds")
    return PauseRequest(
        key=key,
        timeout_seconds=timeout,
        poll_seconds=max(poll_interval, 0.01),
        wanted=None if wait_for_input is None else WantedInput(wait_for_input),
        is_suspension=is_suspension,
    )


def _context(what: str) -> FlowRunContext:
    from embedded_orch.engine.contexts import current_flow_run

    found = current_flow_run()
    if found is None:
        raise errors.MissingContextError(
            f"a flow run is {what} from inside of it, and no flow is running here"
        )
    return found


def _engine(here: FlowRunContext | None) -> Engine:
    from embedded_orch.orchestrator import registry

    return registry.current().engine if here is None else here.engine


def _driven(steps: Steps[Any]) -> Any:
    from embedded_orch.engine.effects import drive

    return drive(steps)


async def _awaited(steps: Steps[Any]) -> Any:
    from embedded_orch.engine.effects import drive_async

    return await drive_async(steps)
