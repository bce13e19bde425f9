"""How an event loop waits for an answer that another thread gives, on asyncio and on trio.

The loop's own primitive for it in each: a future set through ``call_soon_threadsafe``, or a parked
task rescheduled through a trio token. Nothing here blocks, and no thread is borrowed.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class Answer(Protocol):
    """What the waiting task holds."""

    def notify(self) -> None:
        """Called by the answering thread, once."""
        ...

    def call(self, function: Callable[[], object]) -> None:
        """Have a function called in the loop."""
        ...

    async def wait(self) -> None:
        """Return after :meth:`notify`; raises the cancellation of the task."""
        ...


def answer_for_running_loop() -> Answer:
    """An answer that the running task can wait for."""
    trio = sys.modules.get("trio")
    if trio is not None:
        try:
            return TrioAnswer(trio.lowlevel.current_trio_token())
        except RuntimeError:
            # trio is imported, and this loop is not its.
            return AsyncioAnswer()
    return AsyncioAnswer()


def call_in_running_loop(function: Callable[[], object]) -> Callable[[], None]:
    """What has a function called in the loop that runs here, when another thread calls it."""
    answer = answer_for_running_loop()
    return lambda: answer.call(function)


class AsyncioAnswer:
    """An asyncio future, set from another thread."""

    __slots__ = ("_future", "_loop")

    def __init__(self) -> None:
        import asyncio

        self._loop = asyncio.get_running_loop()
        self._future = self._loop.create_future()

    def notify(self) -> None:
        """Called by the answering thread, once."""
        self.call(self._set)

    def call(self, function: Callable[[], object]) -> None:
        """Have a function called in the loop."""
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:
            # The loop was closed while the answer was on its way: nobody waits any more.
            return

    def _set(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    async def wait(self) -> None:
        """Return after :meth:`notify`; raises the cancellation of the task."""
        await self._future


class TrioAnswer:
    """A trio event, set from another thread."""

    __slots__ = ("_event", "_token")

    def __init__(self, token: _TrioToken) -> None:
        import trio

        self._token = token
        self._event = trio.Event()

    def notify(self) -> None:
        """Called by the answering thread, once."""
        self.call(self._event.set)

    def call(self, function: Callable[[], object]) -> None:
        """Have a function called in the loop."""
        import trio

        try:
            self._token.run_sync_soon(function)
        except trio.RunFinishedError:
            # The run ended while the answer was on its way: nobody waits any more.
            return

    async def wait(self) -> None:
        """Return after :meth:`notify`; raises the cancellation of the task."""
        await self._event.wait()


class _TrioToken(Protocol):
    def run_sync_soon(self, sync_fn: Callable[[], object]) -> None: ...
