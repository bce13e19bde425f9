"""Ending a flow run early, from any thread, wherever its function runs.

The function of a flow runs in a thread or on a loop that is the user's. Where it would be called,
or waited for, it can be reached: plain code by an exception at its next bytecode, a coroutine by
the cancellation of what it awaits.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from embedded_orch.db.handoff import call_in_running_loop
from embedded_orch.engine.workers import Interruption, interruptible_here

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedded_orch.engine.contexts import FlowRunContext
    from embedded_orch.engine.effects import Effect


class Cancellation:
    """Whether one flow run is to end early, and how it is reached. Any thread may ask for it.

    Attributes:
        attempt: that goes on, if one does.
    """

    __slots__ = ("_lock", "_reach", "_reason", "attempt")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reason: str | None = None
        self._reach: Callable[[str], object] | None = None
        self.attempt: FlowRunContext | None = None

    @property
    def reason(self) -> str | None:
        """Why the run is to end; None if it is not."""
        return self._reason

    def request(self, reason: str) -> None:
        """Have the run end, with what it submitted; the first reason counts."""
        with self._lock:
            if self._reason is not None:
                return
            self._reason = reason
            reach, attempt = self._reach, self.attempt
            if reach is not None:
                reach(reason)
        if attempt is not None:
            attempt.abandon_runner()

    def enter(self, reach: Callable[[str], object]) -> None:
        """From here on the run can be reached.

        Raises:
            Interruption: it is to end.
        """
        with self._lock:
            if self._reason is not None:
                raise Interruption(self._reason)
            self._reach = reach

    def leave(self) -> None:
        """From here on it cannot."""
        with self._lock:
            self._reach = None


class Cancellable:
    """Another effect, which ends when its flow run is to end."""

    __slots__ = ("_cancellation", "_effect")

    def __init__(self, cancellation: Cancellation, effect: Effect) -> None:
        self._cancellation = cancellation
        self._effect = effect

    def perform(self) -> Any:
        """Do it in this thread."""
        code = interruptible_here()
        self._cancellation.enter(code.interrupt)
        try:
            with code:
                return self._effect.perform()
        finally:
            self._cancellation.leave()
            if self._cancellation.reason is not None:
                # What this thread does next is not meant.
                code.forget(self._cancellation.reason)

    async def perform_async(self) -> Any:
        """Do it without blocking the event loop."""
        import anyio

        with anyio.CancelScope() as scope:
            cancel = call_in_running_loop(scope.cancel)
            self._cancellation.enter(lambda _: cancel())
            try:
                return await self._effect.perform_async()
            finally:
                self._cancellation.leave()
        raise Interruption(self._cancellation.reason)
