"""Event loops in threads of their own, for what is submitted.

anyio's portal would be this, if a thread that runs a trio loop could call one: that is refused as
blocking, and a flow on trio could submit nothing. So work is only left here, by the primitive that
each loop has for it, and nobody waits for more than that.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

from embedded_orch.engine.running import copied_context

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from anyio import Event
    from anyio.abc import TaskGroup

    Soon = Callable[[Callable[[], object]], object]


class Loop:
    """One event loop and its thread, from :meth:`open` to :meth:`close`.

    Args:
        backend: "asyncio" or "trio".
    """

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._is_ready = threading.Event()
        self._failure: BaseException | None = None
        self._soon: Soon | None = None
        self._group: TaskGroup | None = None
        self._is_over: Event | None = None
        self._thread = threading.Thread(
            target=self._run, name=f"embedded_orch {backend} loop", daemon=True
        )

    def open(self) -> None:
        """Start the thread, and wait until the loop runs."""
        self._thread.start()
        self._is_ready.wait()
        if self._failure is not None:
            raise self._failure

    def start(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a coroutine function, in the context of the caller; it must not raise.

        Any thread may call this, one that runs a loop too.
        """
        group, soon, context = self._group, self._soon, copied_context(self._backend)
        assert group is not None, "a loop that is ready has a group"
        assert soon is not None, "a loop that is ready can be called"
        soon(lambda: context.run(group.start_soon, run))

    def cancel(self) -> None:
        """Cancel everything that was started and has not ended."""
        if self._group is not None:
            self._call(self._group.cancel_scope.cancel)

    def close(self) -> None:
        """Wait until everything that was started has ended, and end the thread."""
        if not self._thread.is_alive():
            # It could not be opened, or was interrupted before.
            return
        self._is_ready.wait()
        if self._is_over is not None:
            self._call(self._is_over.set)
        self._thread.join()

    def _call(self, function: Callable[[], object]) -> None:
        if self._soon is None:
            # It could not be opened.
            return
        try:
            self._soon(function)
        except RuntimeError:
            # It has ended meanwhile, by another who closed it.
            return

    def _run(self) -> None:
        import anyio

        try:
            anyio.run(self._serve, backend=self._backend)
        except BaseException as error:
            # Whoever waits for the loop raises it; there is nobody else to tell.
            self._failure = error
            if self._is_ready.is_set():
                raise
        finally:
            self._is_ready.set()

    async def _serve(self) -> None:
        import anyio

        self._is_over = anyio.Event()
        async with anyio.create_task_group() as group:
            self._group = group
            self._soon = _call_soon()
            self._is_ready.set()
            await self._is_over.wait()

    def __repr__(self) -> str:
        return f"<Loop {self._backend}>"


def _call_soon() -> Soon:
    """How any thread has something called in the loop that runs here."""
    trio = sys.modules.get("trio")
    if trio is not None:
        try:
            soon: Soon = trio.lowlevel.current_trio_token().run_sync_soon
        except RuntimeError:
            # trio is imported, and this loop is not its.
            return _asyncio_call_soon()
        return soon
    return _asyncio_call_soon()


def _asyncio_call_soon() -> Soon:
    import asyncio

    return asyncio.get_running_loop().call_soon_threadsafe
