"""The engine is written once, for synchronous and asynchronous callers alike.

A flow call or task call is a generator. Where it would have to wait, for the database, for a time,
for the user's function, it yields an effect that says what it waits for and goes on with the
answer. ``drive`` performs the effects in the calling thread; ``drive_async`` awaits them, on
asyncio and on trio. So there are no two engines that drift apart, and the generators read as if
everything were synchronous.
"""

from __future__ import annotations

import math
import sys
import time
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from embedded_orch.db.bell import Bell
from embedded_orch.engine.workers import current_worker, doze_here

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping

    from embedded_orch.db.port import Announced, Database, Transaction
    from embedded_orch.db.waiting_room import Waiter
    from embedded_orch.engine.contexts import FlowRunContext
    from embedded_orch.engine.futures import Future

R = TypeVar("R")
T_co = TypeVar("T_co", covariant=True)


class Effect(Protocol):
    """Something to wait for."""

    def perform(self) -> Any:
        """Do it in this thread."""
        ...

    def perform_async(self) -> Coroutine[Any, Any, Any]:
        """Do it without blocking the event loop."""
        ...


if TYPE_CHECKING:
    Steps = Generator[Effect, Any, R]


class Write(Generic[R]):
    """A write whose commit is awaited."""

    __slots__ = ("_after", "_database", "_operation")

    def __init__(
        self,
        database: Database,
        operation: Callable[[Transaction], R],
        *,
        after: Announced | None = None,
    ) -> None:
        self._database = database
        self._operation = operation
        self._after = after

    def perform(self) -> R:
        """Do it in this thread."""
        return self._database.write(self._operation, after=self._after)

    def perform_async(self) -> Coroutine[Any, Any, R]:
        """Do it without blocking the event loop, and to its end even when cancelled."""
        # No coroutine around a coroutine: a thousand of them are looked at by the collector.
        return _to_the_end(self._begin_async)

    def _begin_async(self) -> Awaitable[R]:
        return self._database.write_async(self._operation, after=self._after)


class Read(Generic[R]):
    """A read on a snapshot."""

    __slots__ = ("_database", "_operation")

    def __init__(self, database: Database, operation: Callable[[Transaction], R]) -> None:
        self._database = database
        self._operation = operation

    def perform(self) -> R:
        """Do it in this thread."""
        return self._database.read(self._operation)

    async def perform_async(self) -> R:
        """Do it without blocking the event loop."""
        return await self._database.read_async(self._operation)


class Call:
    """The user's function; an ``async def`` one when the call is driven asynchronously."""

    __slots__ = ("_args", "_function", "_kwargs")

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
        self._function = function
        self._args = args
        self._kwargs = kwargs

    def perform(self) -> Any:
        """Do it in this thread."""
        worker = current_worker()
        if worker is None:
            return self._function(*self._args, **self._kwargs)
        with worker.code:
            return self._function(*self._args, **self._kwargs)

    async def perform_async(self) -> Any:
        """Do it without blocking the event loop."""
        answer: Awaitable[Any] = self._function(*self._args, **self._kwargs)
        return await answer


class Invoke:
    """A function of the user's beside the run, plain or ``async def`` whatever drives the run."""

    __slots__ = ("_args", "_function")

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._function = function
        self._args = args

    def perform(self) -> Any:
        """Do it in this thread; a coroutine runs to its end on a loop of its own."""
        answer = self._function(*self._args)
        if not hasattr(answer, "__await__"):
            return answer
        from embedded_orch.engine.running import run_to_end

        return run_to_end(answer)

    async def perform_async(self) -> Any:
        """Do it without blocking the event loop where it does not block itself."""
        answer = self._function(*self._args)
        return await answer if hasattr(answer, "__await__") else answer


class Ask:
    """A function that may wait for a database, a lock, a disk or a network; never ``async def``."""

    __slots__ = ("_arguments", "_method")

    def __init__(self, method: Callable[..., Any], *arguments: object) -> None:
        self._method = method
        self._arguments = arguments

    def perform(self) -> Any:
        """Do it in this thread."""
        return self._method(*self._arguments)

    async def perform_async(self) -> Any:
        """Do it without blocking the event loop."""
        import anyio.to_thread

        return await anyio.to_thread.run_sync(self._method, *self._arguments)


class Shielded:
    """Another effect, awaited to its end although the code around is being cancelled."""

    __slots__ = ("_effect",)

    def __init__(self, effect: Effect) -> None:
        self._effect = effect

    def perform(self) -> Any:
        """Do it in this thread."""
        return self._effect.perform()

    async def perform_async(self) -> Any:
        """Do it without blocking the event loop; a second ``task.cancel()`` does interrupt it."""
        import anyio

        with anyio.CancelScope(shield=True):
            return await self._effect.perform_async()


class Sleep:
    """Some seconds."""

    __slots__ = ("_seconds", "_sleep")

    def __init__(self, seconds: float, sleep: Callable[[float], None]) -> None:
        self._seconds = seconds
        self._sleep = sleep

    def perform(self) -> None:
        """Do it in this thread."""
        if self._sleep is time.sleep:
            # A retry that nobody waits for any more is not slept for.
            doze_here(Bell(), self._seconds)
        else:
            self._sleep(self._seconds)

    async def perform_async(self) -> None:
        """Do it without blocking the event loop."""
        import anyio

        doze = _doze_of(self._sleep)
        if doze is None:
            await anyio.sleep(self._seconds)
            return
        bell = Bell()
        await _in_a_thread(lambda: doze(bell, self._seconds), until=bell.ring)


class Turn:
    """The ring of a waiter's bell, or some seconds; whether it was the bell.

    Args:
        waiter: that waits.
        seconds: at most so long; None for as long as it takes.
        sleep: of the process; time.sleep where time goes by itself.
    """

    __slots__ = ("_seconds", "_sleep", "_waiter")

    def __init__(
        self,
        waiter: Waiter,
        seconds: float | None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._waiter = waiter
        self._seconds = seconds
        self._sleep = sleep

    def perform(self) -> bool:
        """Do it in this thread; an interruption of the code in it ends it."""
        if self._seconds is None or self._sleep is time.sleep:
            return self._waiter.wait(self._seconds, doze_here)
        doze = _doze_of(self._sleep)
        if doze is not None:
            return self._waiter.wait(self._seconds, doze)
        return self._waiter.wait(self._seconds, lambda _, seconds: self._sleep(seconds or 0))

    async def perform_async(self) -> bool:
        """Do it without blocking the event loop."""
        doze, waiter = _doze_of(self._sleep), self._waiter
        if doze is None or self._seconds is None:
            return await waiter.wait_async(self._seconds)
        return await _in_a_thread(lambda: waiter.wait(self._seconds, doze), until=waiter.ring)


class WaitFor:
    """Futures that an argument contains."""

    __slots__ = ("_future",)

    def __init__(self, future: Future[Any]) -> None:
        self._future = future

    def perform(self) -> None:
        """Do it in this thread."""
        self._future.wait()

    async def perform_async(self) -> None:
        """Do it without blocking the event loop."""
        await self._future.wait_async()


class Stop:
    """The end of what a flow run submitted.

    Args:
        flow_run: that ends.
        is_interrupting: whether tasks that have begun are interrupted, and not just waited for.
    """

    __slots__ = ("_flow_run", "_is_interrupting")

    def __init__(self, flow_run: FlowRunContext, *, is_interrupting: bool) -> None:
        self._flow_run = flow_run
        self._is_interrupting = is_interrupting

    def perform(self) -> None:
        """Do it in this thread."""
        self._flow_run.stop_runner(is_interrupting=self._is_interrupting)

    async def perform_async(self) -> None:
        """Do it without blocking the event loop, and to its end even when cancelled."""
        if not self._flow_run.has_runner:
            return
        from anyio.to_thread import run_sync

        try:
            await run_sync(self.perform, abandon_on_cancel=True)
        except BaseException:
            # Cancelled: what has begun is not waited for any longer than it takes to end it.
            self._is_interrupting = True
            await _to_the_end(lambda: run_sync(self.perform))
            raise


def _doze_of(sleep: Callable[[float], None]) -> Callable[[Bell, float | None], object] | None:
    """How one waits for a bell or a time on a clock that does not go by itself; else None."""
    doze: Callable[[Bell, float | None], object] | None = getattr(sleep, "doze", None)
    return doze


async def _in_a_thread(wait: Callable[[], R], *, until: Callable[[], object]) -> R:
    """Wait in a thread of its own; ``until`` ends the wait of a task that is cancelled."""
    import anyio
    from anyio.to_thread import run_sync

    try:
        return await run_sync(wait, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1))
    except BaseException:
        until()
        raise


async def _to_the_end(begin: Callable[[], Awaitable[R]]) -> R:
    """Await work that may be begun twice, whatever cancels this task meanwhile.

    Cancelled, the work is begun again: behind a shield, which keeps off what anyio and trio cancel.
    ``task.cancel()`` of asyncio goes through that: then the work is begun once more, and the task
    is cancelled again where it awaits next. The shield is made only then, since making one costs a
    tenth of what a task does.
    """
    try:
        return await begin()
    except BaseException as error:
        if not _is_from_scope(error) and not _is_from_task_cancel(error):
            raise
        # A scope cancels again by itself what awaits in it.
        cancelled = None if _is_from_scope(error) else error
    import anyio

    outcome = None
    with anyio.CancelScope(shield=True):
        outcome = await _as_often_as_cancelled(begin, cancelled)
    assert outcome is not None, "a shield that nobody cancels"
    answer, cancelled = outcome
    if cancelled is not None:
        _cancel_later(cancelled)
    return answer


async def _as_often_as_cancelled(
    begin: Callable[[], Awaitable[R]], cancelled: BaseException | None
) -> tuple[R, BaseException | None]:
    while True:
        try:
            return await begin(), cancelled
        except BaseException as error:
            if not _is_from_task_cancel(error):
                raise
            cancelled = error


def _is_from_scope(error: BaseException) -> bool:
    """Whether a scope of anyio's or trio's cancelled the task; asked outside of any shield."""
    trio = sys.modules.get("trio")
    if trio is not None and isinstance(error, trio.Cancelled):
        return True
    if not _is_from_task_cancel(error) or "cancel scope" not in str(error):
        return False
    import anyio

    return anyio.current_effective_deadline() == -math.inf


def _is_from_task_cancel(error: BaseException) -> bool:
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and isinstance(error, asyncio.CancelledError)


def _cancel_later(cancelled: BaseException) -> None:
    import asyncio

    task = asyncio.current_task()
    if task is not None:
        # Timeouts and task groups count the cancellations of a task: the number stays the same.
        task.uncancel()
        task.cancel(*cancelled.args)


def drive(steps: Steps[R]) -> R:
    """Run a call to its end in this thread; returns or raises what it returns or raises.

    Whatever is raised is thrown into the steps, wherever it comes. The interpreter looks for Ctrl-C
    where something is called and where a loop jumps back, so nothing is called in the two handlers,
    and the outer one is there for the jump of the loop around the inner one.
    """
    # With what only generators have: whether they have ended.
    generator: Any = steps
    resume: Callable[[Any], Effect] = steps.send
    value: Any = None
    while True:
        try:
            while True:
                try:
                    while True:
                        effect = resume(value)
                        value = effect.perform()
                        resume = steps.send
                except BaseException as error:  # thrown into the steps that wait
                    if generator.gi_frame is None:
                        if type(error) is StopIteration:
                            ending: R = error.value
                            return ending
                        raise
                    resume, value = steps.throw, error
        except BaseException as error:
            if generator.gi_frame is None:
                raise
            resume, value = steps.throw, error


async def drive_async(steps: Steps[R]) -> R:
    """Run a call to its end in this task; as :func:`drive`."""
    generator: Any = steps
    resume: Callable[[Any], Effect] = steps.send
    value: Any = None
    while True:
        try:
            while True:
                try:
                    while True:
                        effect = resume(value)
                        value = await effect.perform_async()
                        resume = steps.send
                except BaseException as error:  # thrown into the steps that wait
                    if generator.gi_frame is None:
                        if type(error) is StopIteration:
                            ending: R = error.value
                            return ending
                        raise
                    resume, value = steps.throw, error
        except BaseException as error:
            if generator.gi_frame is None:
                raise
            resume, value = steps.throw, error


def have_ended(steps: Steps[Any]) -> bool:
    """Whether the steps of a call have returned or raised."""
    return getattr(steps, "gi_frame", None) is None


def ending_of_steps(error: BaseException) -> Any:
    """What steps that have ended returned; raises what they raised."""
    if isinstance(error, StopIteration):
        return error.value
    raise error
