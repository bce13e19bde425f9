"""What runs inside a virtual process: coroutines that stop wherever the engine would have to wait.

Such a stop is a :class:`Wait`. It says when the thread can go on and what is done then; the machine
decides who goes on next, and nothing happens in between. So a whole machine of processes and
threads runs in one thread of one process, and a seed says all of what happens in it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.simulation.virtual_process import VirtualProcess


class Killed(BaseException):
    """Raised in whatever a process does after SIGKILL; it must have no effect any more."""


class Cancelled(BaseException):
    """The cancellation of what a thread awaits, as an event loop would raise it."""

    def __init__(self, scope: object) -> None:
        super().__init__("cancelled")
        self.scope = scope


class Wait:
    """A place where a thread stops.

    Args:
        what: for the trace.
        action: done by the machine when the thread goes on; its answer is that of the await.
        ready: whether what is waited for has come; None for what has nothing to wait for.
        seconds: after which it goes on in any case; None for never.
        is_shielded: a cancellation waits until it is done.
        is_losable: whether a fault may keep the thread from noticing that it is ready.
    """

    __slots__ = (
        "action",
        "due",
        "is_deaf",
        "is_losable",
        "is_shielded",
        "ready",
        "seconds",
        "what",
    )

    def __init__(
        self,
        what: str,
        action: Callable[[], Any] | None = None,
        *,
        ready: Callable[[], bool] | None = None,
        seconds: float | None = None,
        is_shielded: bool = False,
        is_losable: bool = False,
    ) -> None:
        self.what = what
        self.action = action
        self.ready = ready
        self.seconds = seconds
        self.is_shielded = is_shielded
        self.is_losable = is_losable
        self.is_deaf = False
        # On the machine's time, in microseconds; set when the thread comes here.
        self.due: int | None = None

    def __await__(self) -> Generator[Wait, Any, Any]:
        return (yield self)

    def is_ready(self, time: int) -> bool:
        if self.due is not None and time >= self.due:
            return True
        if self.ready is None:
            return self.seconds is None
        return not self.is_deaf and self.ready()


class Thread:
    """One coroutine of a virtual process.

    Attributes:
        wait: where it has stopped; None before it begins.
        answer: of the wait's action, when that is done and the thread has not heard of it yet.
        runner: that it was submitted to, if any.
    """

    def __init__(
        self,
        process: VirtualProcess,
        name: str,
        coroutine: Coroutine[Wait, Any, Any],
        context: Context,
        runner: object = None,
    ) -> None:
        self.process = process
        self.name = name
        self.context = context
        self.runner = runner
        self.wait: Wait | None = None
        self.answer: tuple[Any, BaseException | None] | None = None
        self.answered_at = 0
        self.has_ended = False
        self._coroutine = coroutine
        self._cancellations: list[Cancelled] = []

    def cancel(self, scope: object) -> None:
        """Raise a cancellation where it waits, as soon as that can be."""
        self._cancellations.append(Cancelled(scope))

    @property
    def is_cancelled_here(self) -> bool:
        is_shielded = self.wait is not None and self.wait.is_shielded
        return bool(self._cancellations) and not is_shielded

    def take_cancellation(self) -> Cancelled:
        return self._cancellations.pop(0)

    def go_on(self, value: Any, error: BaseException | None) -> None:
        """Run to the next stop, or to the end.

        Raises:
            BaseException: what the coroutine raised at its end.
        """
        try:
            if error is not None:
                self.wait = self.context.run(self._coroutine.throw, error)
            else:
                self.wait = self.context.run(self._coroutine.send, value)
        except StopIteration:
            self.has_ended = True
        except BaseException:
            self.has_ended = True
            raise

    def tear_down(self) -> None:
        """Leave the coroutine, whose every further step raises :class:`Killed`."""
        while not self.has_ended:
            try:
                self.go_on(None, Killed())
            except BaseException:
                # Whatever a dead process raises is heard by nobody.
                assert self.has_ended
        self._coroutine.close()

    def __repr__(self) -> str:
        return f"<{self.process.name}/{self.name}>"
