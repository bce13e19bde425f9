"""A bell: one thread sleeps until another rings. A lock used as a binary semaphore.

``threading.Event`` would do, at twenty times the price: this is made for every write. And Ctrl-C
can fall between the taking of its Condition and the block, after which who rings waits for ever.
"""

from __future__ import annotations

import threading


class Bell:
    """Rings once for any number of rings before the sleeper wakes."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def ring(self) -> None:
        """Wake the sleeper, or the next one to sleep."""
        try:
            self._lock.release()
        except RuntimeError:
            # Rung already, and nobody awake yet: one waking serves both.
            return

    def wait(self, seconds: float | None = None) -> bool:
        """Sleep until it rings; False when ``seconds`` went by instead. None: for ever."""
        if seconds is None:
            return self._lock.acquire()
        return self._lock.acquire(timeout=min(max(0.0, seconds), threading.TIMEOUT_MAX))
