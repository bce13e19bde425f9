"""A thread that works off a queue a few milliseconds after something came in, or at once.

It starts with the first thing that comes in. While work keeps coming it looks every few ms, so that
whoever adds to the queue pays nothing for waking it. After half a second without work it parks,
and the next one to add something wakes it.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from embedded_orch.db.bell import Bell

if TYPE_CHECKING:
    from collections.abc import Callable

# How long an announced write may wait for a commit to go with.
_SOON_SECONDS = 0.010
# The thread parks, and waits to be woken, after this long without work.
_PARK_AFTER_SECONDS = 0.5
# After work that failed: the disk is full, or the server is away.
_PAUSE_SECONDS = 0.5


class Flusher:
    """The thread of one queue. Any thread may wake it; whoever made it stops it.

    Args:
        name: of the thread.
        has_work: whether the queue holds something.
        work: takes from the queue what there is, or less.
        rest: called before the thread parks.
        soon_seconds: how long what came in may wait.
    """

    def __init__(
        self,
        name: str,
        *,
        has_work: Callable[[], bool],
        work: Callable[[], None],
        rest: Callable[[], None] | None = None,
        soon_seconds: float = _SOON_SECONDS,
    ) -> None:
        self._name = name
        self._has_work = has_work
        self._work = work
        self._rest = rest
        self._soon_seconds = soon_seconds
        self._bell = Bell()
        self._is_parked = True
        self._is_urgent = False
        self._is_stopping = False
        self._thread: threading.Thread | None = None
        # Entered again by a signal handler that interrupts the starting.
        self._starting = threading.RLock()

    def wake_soon(self) -> None:
        """Something was put into the queue; it is worked off within ``soon_seconds``."""
        if self._is_parked:
            self._wake()

    def wake_now(self) -> None:
        """Something was put into the queue that somebody waits for."""
        # Told already: it takes the flag back before it looks into the queue. Not so when it is
        # parked: whoever set the flag may have been interrupted before the ring.
        if self._is_urgent and not self._is_parked:
            return
        self._is_urgent = True
        self._wake()

    def stop(self) -> None:
        """End the thread, after what it is doing. It does not start again."""
        with self._starting:
            self._is_stopping = True
        if self._thread is not None:
            self._bell.ring()
            self._thread.join()

    def _wake(self) -> None:
        if self._thread is not None:
            self._bell.ring()
            return
        try:
            self._start()
        except RuntimeError:
            # No thread is to be had: from Python 3.12 on while the interpreter exits, and threads
            # of the user's still run flows. What nobody waits for goes with the next write.
            if self._is_urgent:
                self._is_urgent = False
                self._attempt(self._work)

    def _start(self) -> None:
        with self._starting:
            if self._thread is None and not self._is_stopping:
                self._is_parked = False
                thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
                # Before it runs: a signal handler that comes here once more finds it.
                self._thread = thread
                try:
                    thread.start()
                except BaseException:
                    self._thread = None
                    self._is_parked = True
                    raise

    def _serve(self) -> None:
        last_work = time.monotonic()
        here = threading.current_thread()
        while not self._is_stopping and self._thread is here:
            # A waker sets the flag before it rings, so a flag that is missed here has rung.
            if not self._is_urgent:
                self._bell.wait(self._soon_seconds)
            self._is_urgent = False
            if self._has_work():
                self._attempt(self._work)
                last_work = time.monotonic()
            elif time.monotonic() - last_work > _PARK_AFTER_SECONDS:
                self._park()
                last_work = time.monotonic()
        # One whose starting was interrupted leaves to another, which perhaps this was meant for.
        self._bell.ring()

    def _park(self) -> None:
        if self._rest is not None:
            self._attempt(self._rest)
        self._is_parked = True
        # Whoever came just before the flag was set did not wake us.
        if not self._has_work() and not self._is_stopping:
            self._bell.wait()
        self._is_parked = False

    def _attempt(self, what: Callable[[], None]) -> None:
        try:
            what()
        except Exception as error:  # noqa: BLE001 - the thread must outlive a full disk
            # Those who wait have their answer; what nobody waits for is still queued.
            _report(self._name, error)
            self._bell.wait(_PAUSE_SECONDS)


def _report(name: str, error: Exception) -> None:
    import logging

    from embedded_orch.errors import DatabaseError

    logging.getLogger("embedded_orch.db").warning(
        "%s: %s", name, error, exc_info=None if isinstance(error, DatabaseError) else error
    )
