"""Waiting that survives the process: for a time, and for a signal."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from embedded_orch import errors
from embedded_orch.states.state import awaits

if TYPE_CHECKING:
    from uuid import UUID

    from embedded_orch.engine.contexts import FlowRunContext
    from embedded_orch.engine.effects import Steps


def sleep_for(duration: float | timedelta, *, key: str | None = None, suspend: bool = False) -> Any:
    """Sleep in a flow; a run whose process died meanwhile sleeps the rest when it is resumed.

    In asynchronous code this is awaited.

    Args:
        duration: seconds, or a timedelta, from the first time at which the run comes here.
        key: of the sleep: lower-case letters, digits and dashes. Its place among the sleeps of the
            run when not given; sleeps that go on at the same time need keys.
        suspend: let the process go. The run is ``Suspended``, and ``orch.resume_due()`` continues
            it in whatever process calls it once the time has come.

    Raises:
        Pause: the run is suspended; flow runs let it pass.
        MissingContextError: no flow is running here, or a task is.
        RunNotPausable: it cannot be suspended, as a flow called it.
        ConfigurationError: a value that an argument cannot have.
    """
    return _here(_sleeping(_duration("duration", duration), key, suspend))


async def asleep_for(
    duration: float | timedelta, *, key: str | None = None, suspend: bool = False
) -> None:
    """:func:`sleep_for`, awaited whatever the code around."""
    await _awaited(_sleeping(_duration("duration", duration), key, suspend))


def sleep_until(time: datetime, *, key: str | None = None, suspend: bool = False) -> Any:
    """:func:`sleep_for`, until a time: a datetime with its time zone."""
    return _here(_sleeping(_moment(time), key, suspend))


async def asleep_until(time: datetime, *, key: str | None = None, suspend: bool = False) -> None:
    """:func:`sleep_until`, awaited whatever the code around."""
    await _awaited(_sleeping(_moment(time), key, suspend))


def wait_for_signal(
    name: str,
    *,
    type: Any = None,
    timeout: float | timedelta | None = None,
    key: str | None = None,
    suspend: bool = False,
) -> Any:
    """Wait in a flow until the run is sent a signal; its value.

    The signal counts whenever it is sent, also before the run waits for it, and while no process
    runs it. The first one of a name stands: a run that waits for the name again gets its value
    again. In asynchronous code this is awaited.

    Args:
        name: of the signal: lower-case letters, digits and dashes.
        type: what the value has to be, as in :func:`pause_flow_run`; any JSON when not given.
        timeout: seconds, or a timedelta, from the first time at which the run comes here.
        key: of the wait; its place among those of the run for this signal when not given.
        suspend: let the process go, as in :func:`sleep_for`; the signal makes the run due.

    Raises:
        SignalTimeout: it was not sent in time; also when the run comes here again.
        RunInputError: what was sent before the run waited for it does not fit.
        Pause: the run is suspended; flow runs let it pass.
        MissingContextError: no flow is running here, or a task is.
        RunNotPausable: it cannot be suspended, as a flow called it.
        ConfigurationError: a value that an argument cannot have.
    """
    return _here(_receiving(name, type, timeout, key, suspend))


async def await_for_signal(
    name: str,
    *,
    type: Any = None,
    timeout: float | timedelta | None = None,  # noqa: ASYNC109 - as in wait_for_signal
    key: str | None = None,
    suspend: bool = False,
) -> Any:
    """:func:`wait_for_signal`, awaited whatever the code around."""
    return await _awaited(_receiving(name, type, timeout, key, suspend))


def send_signal(run_id: UUID | str, name: str, value: Any = None) -> bool:
    """Send a signal to a flow run, in whatever process it waits, or is going to.

    Args:
        run_id: the run.
        name: of the signal.
        value: anything that JSON holds; dataclasses too.

    Returns:
        Whether it counts: False when the run was sent one of this name before, which stands.

    Raises:
        RunNotFound: no flow run has the id.
        SignalRefused: the run has completed.
        RunInputError: the value is no JSON, or is not what the run waits for, which waits on.
        ConfigurationError: the name cannot be.
    """
    from embedded_orch.engine.effects import drive
    from embedded_orch.engine.waits import send
    from embedded_orch.filters import as_uuid
    from embedded_orch.orchestrator import current_engine

    return drive(send(current_engine(), as_uuid(run_id, "flow run"), name, value))


def _sleeping(deadline: int | timedelta, key: str | None, suspend: bool) -> Steps[None]:
    from embedded_orch.engine.waits import sleep

    return sleep(_context("sleeps"), deadline, key, is_suspending=suspend)


def _receiving(
    name: str, kind: Any, timeout: float | timedelta | None, key: str | None, suspend: bool
) -> Steps[Any]:
    from embedded_orch.engine.run_inputs import WantedInput
    from embedded_orch.engine.waits import receive

    return receive(
        _context("waits for a signal"),
        name,
        None if kind is None else WantedInput(kind),
        None if timeout is None else _duration("timeout", timeout),
        key,
        is_suspending=suspend,
    )


def _context(what: str) -> FlowRunContext:
    from embedded_orch.engine.contexts import current_flow_run, current_task_run

    found = current_flow_run()
    if found is None or current_task_run() is not None:
        where = "no flow is running here" if found is None else "this is a task; let the flow do it"
        raise errors.MissingContextError(f"a flow run {what} by its flow, and {where}")
    return found


def _duration(name: str, given: float | timedelta) -> timedelta:
    try:
        found = given if isinstance(given, timedelta) else timedelta(seconds=given)
    except (TypeError, ValueError, OverflowError):
        found = None
    if found is None or found < timedelta(0):
        raise errors.ConfigurationError(
            f"{name}={given!r}: it is a number of seconds, or a timedelta"
        )
    return found


def _moment(time: object) -> int:
    from embedded_orch.times import microseconds_from_datetime

    if not isinstance(time, datetime):
        raise errors.ConfigurationError(f"time={time!r}: it is a datetime with its time zone")
    return microseconds_from_datetime(time)


def _here(steps: Steps[Any]) -> Any:
    if awaits():
        return _awaited(steps)
    from embedded_orch.engine.effects import drive

    return drive(steps)


async def _awaited(steps: Steps[Any]) -> Any:
    from embedded_orch.engine.effects import drive_async

    return await drive_async(steps)
