"""Time limits of calls: what has not returned in time is interrupted, and counts as a failure.

What may be interrupted at any time, because its run is cancelled, has a limit without a time.

On an event loop a cancel scope does it. Plain code is interrupted by one thread that watches the
limits of the whole process and ends when there has been none for a while. In the main thread it
sends SIGURG, whose handler raises; the signal ends a wait in C too, means nothing to anybody else,
does nothing where it is not handled, and leaves SIGALRM and its timer to the user. In other
threads, and where the user handles SIGURG, the exception is raised at the next bytecode: what is
blocked in C goes on until it returns. In either case the call is over, and is recorded, when its
code has ended, never while it still runs.

What is raised is no Exception, so that neither the user's code nor a task that is called inside
takes it for a failure of its own. Where limits are nested, the outermost that has run out ends its
call.

Signal handlers and threads belong to the process, and so does the watch, which is the one object
of this module.
"""

from __future__ import annotations

import os
import signal
import threading
from importlib import import_module
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

from embedded_orch.db.bell import Bell
from embedded_orch.engine.effects import Call
from embedded_orch.engine.inputs import futures_in
from embedded_orch.engine.workers import interruptible_here
from embedded_orch.errors import RunTimedOut

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from types import FrameType
    from uuid import UUID

    from embedded_orch.engine.futures import Future
    from embedded_orch.engine.workers import Interruptible

# How long the watch stays when there is nothing to watch.
_IDLE_SECONDS = 5.0
_NEVER = float("inf")
_FREE = (signal.SIG_DFL, signal.SIG_IGN, None)

# What ``signal`` makes its functions of. Those turn numbers and handlers into enums and back, which
# costs ten times what they do; each flow run calls four.
_signal = import_module("_signal")
_handler_of: Callable[[int], Any] = _signal.getsignal
_handle: Callable[[int, Any], Any] = _signal.signal

_here = threading.local()


class _Expired(BaseException):
    """Raised in a user's function whose time is up."""

    def __str__(self) -> str:
        return "a call around it was cancelled, or its time limit ran out"


class Allowance:
    """The time that one attempt at a run has.

    Attributes:
        deadline: when it is over, on the monotonic clock.
    """

    __slots__ = ("_kind", "_run_id", "_seconds", "deadline")

    def __init__(self, seconds: float, kind: Literal["Flow", "Task"], run_id: UUID) -> None:
        self.deadline = monotonic() + seconds
        self._seconds = seconds
        self._kind = kind
        self._run_id = run_id

    def perform(self, call: Callable[[], Any]) -> Any:
        """What a call returns, if it does in time."""
        return within(self.deadline - monotonic(), call, self.error)

    async def perform_async(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """What an awaited call returns, if it does in time."""
        import anyio

        with anyio.move_on_after(self.deadline - monotonic()):
            return await call()
        raise self.error()

    def error(self) -> RunTimedOut:
        """What is raised when it is over."""
        return RunTimedOut(
            f"{self._kind} run exceeded timeout of {self._seconds} second(s)", self._run_id
        )

    def futures_in(self, value: Any) -> list[Future[Any]]:
        """The futures that the run waits for in what its function returned: those of a flow."""
        return futures_in(value) if self._kind == "Flow" else []


class TimedCall(Call):
    """The function of a flow or task with a time limit; for a flow with the futures it returns.

    Args:
        function: that is called.
        args: of the function.
        kwargs: of the function.
        allowance: the time that it has.
    """

    __slots__ = ("_allowance",)

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        allowance: Allowance,
    ) -> None:
        super().__init__(function, args, kwargs)
        self._allowance = allowance

    def perform(self) -> Any:
        """Do it in this thread."""
        return self._allowance.perform(self._perform)

    def _perform(self) -> Any:
        value = super().perform()
        for future in self._allowance.futures_in(value):
            future.wait()
        return value

    async def perform_async(self) -> Any:
        """Do it without blocking the event loop."""
        return await self._allowance.perform_async(self._perform_async)

    async def _perform_async(self) -> Any:
        value = await super().perform_async()
        for future in self._allowance.futures_in(value):
            await future.wait_async()
        return value


def within(
    seconds: float | None,
    call: Callable[[], Any],
    error: Callable[[], Exception],
    *,
    begun: Callable[[Limit], object] | None = None,
) -> Any:
    """What a call returns, if it does in time.

    Args:
        seconds: how long it may take; None until somebody ends it.
        call: the call.
        error: makes what is raised when it takes longer.
        begun: told of the limit, for those who end it by :meth:`Limit.expire`.
    """
    with interruptible_here() as code:
        limit = Limit(seconds, code)
        try:
            try:
                limit.start()
                if begun is not None:
                    begun(limit)
                return call()
            finally:
                limit.stop()
        except BaseException as raised:
            # Again: the first stop may be what was interrupted.
            limit.stop()
            if isinstance(raised, _Expired) and limit.is_outermost_expired:
                raise error() from raised
            raise


class Limit:
    """The time that one call in this thread has.

    Attributes:
        deadline: when it is over, on the monotonic clock; infinity when it has no time.
        outer: the limit of a call around it, if any.
        way: into its thread.
        is_active: whether the call goes on.
        has_expired: whether the time was over while it did.
        is_raised: whether the signal has raised that.
    """

    __slots__ = ("_lock", "deadline", "has_expired", "is_active", "is_raised", "outer", "way")

    def __init__(self, seconds: float | None, code: Interruptible) -> None:
        self.deadline = _NEVER if seconds is None else monotonic() + seconds
        self.has_expired = False
        self.is_active = True
        self.is_raised = False
        self._lock = threading.Lock()
        self.outer: Limit | None = getattr(_here, "limit", None)
        self.way = self.outer.way if self.outer is not None else _way_into(code)

    def start(self) -> None:
        """From here on the call may be interrupted."""
        self.way.open()
        _here.limit = self
        if self.deadline != _NEVER:
            _watch.add(self)

    def stop(self) -> None:
        """From here on it is not; may be called twice."""
        with self._lock:
            self.is_active = False
        if self.deadline != _NEVER:
            _watch.discard(self)
        if self.has_expired:
            self.way.take_back()
        _here.limit = self.outer
        if self.outer is None:
            self.way.close()

    def expire(self) -> None:
        """Interrupt the call, unless it has ended; called by whoever sees that it is over."""
        with self._lock:
            if self.is_active:
                # Before it is sent: who gets it asks whose it is.
                self.has_expired = True
                self.has_expired = self.way.send()

    def raise_if_due(self) -> None:
        """Raise what is due in this thread, once; called where the signal arrives."""
        limit: Limit | None = self
        due: list[Limit] = []
        while limit is not None:
            if limit.has_expired and limit.is_active and not limit.is_raised:
                due.append(limit)
            limit = limit.outer
        for each in due:
            each.is_raised = True
        if due:
            raise _Expired

    @property
    def is_outermost_expired(self) -> bool:
        """Whether it is this one whose call ends."""
        outer = self.outer
        while outer is not None:
            if outer.has_expired:
                return False
            outer = outer.outer
        return self.has_expired


class _BySignal:
    """The way into the main thread: a signal that its handler turns into an exception."""

    __slots__ = ("_previous", "_thread_id")

    def __init__(self, previous: Any) -> None:
        self._thread_id = threading.get_ident()
        self._previous = previous

    def open(self) -> None:
        """Handle the signal."""
        _handle(signal.SIGURG, _raise_what_is_due)

    def send(self) -> bool:
        """Interrupt the thread; whether it will be."""
        signal.pthread_kill(self._thread_id, signal.SIGURG)
        return True

    def take_back(self) -> None:
        """Nothing: the handler looks whether what it raises is wanted."""

    def close(self) -> None:
        """Leave the signal as it was."""
        if _handler_of(signal.SIGURG) is _raise_what_is_due:
            _handle(signal.SIGURG, self._previous)


class _ByException:
    """The way into any other thread."""

    __slots__ = ("_code",)

    def __init__(self, code: Interruptible) -> None:
        self._code = code

    def open(self) -> None:
        """Nothing."""

    def send(self) -> bool:
        """Interrupt the thread; whether it will be."""
        return self._code.send(_Expired)

    def take_back(self) -> None:
        """What was sent and has not arrived is not to."""
        self._code.take_back()

    def close(self) -> None:
        """Nothing."""


def _way_into(code: Interruptible) -> _BySignal | _ByException:
    if threading.current_thread() is threading.main_thread():
        handler = _handler_of(signal.SIGURG)
        if handler is _raise_what_is_due:
            # Of a limit whose end was interrupted.
            return _BySignal(signal.SIG_DFL)
        if handler in _FREE:
            return _BySignal(handler)
    return _ByException(code)


def _raise_what_is_due(_: int, __: FrameType | None) -> None:
    limit: Limit | None = getattr(_here, "limit", None)
    if limit is not None:
        limit.raise_if_due()


class _Watch:
    """The thread that sees when a limit has run out."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._limits: set[Limit] = set()
        self._next = float("inf")
        self._bell = Bell()
        self._thread: threading.Thread | None = None

    def add(self, limit: Limit) -> None:
        """Watch a limit."""
        with self._lock:
            self._limits.add(limit)
            is_next = limit.deadline < self._next
            if is_next:
                self._next = limit.deadline
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._run, name="embedded_orch time limits", daemon=True
                )
                self._thread.start()
        if is_next:
            self._bell.ring()

    def discard(self, limit: Limit) -> None:
        """Watch it no more."""
        with self._lock:
            self._limits.discard(limit)

    def _run(self) -> None:
        while True:
            due, next_one = self._due()
            for limit in due:
                limit.expire()
            if next_one is not None:
                self._bell.wait(next_one - monotonic())
            elif not self._bell.wait(_IDLE_SECONDS) and self._leaves():
                return

    def _due(self) -> tuple[list[Limit], float | None]:
        """The limits that have run out, and when the next one does."""
        with self._lock:
            now = monotonic()
            due = [limit for limit in self._limits if limit.deadline <= now]
            self._limits.difference_update(due)
            self._next = min((limit.deadline for limit in self._limits), default=float("inf"))
            return due, self._next if self._limits else None

    def _leaves(self) -> bool:
        with self._lock:
            if self._limits:
                return False
            self._thread = None
            return True

    def reset(self) -> None:
        """In a forked child: the thread is not there, and its lock may be taken."""
        self.__init__()  # type: ignore[misc]


_watch = _Watch()
os.register_at_fork(after_in_child=_watch.reset)
