"""Locks of keys among the threads and tasks of one process."""

from __future__ import annotations

import threading
import time
from typing import Self

from embedded_orch.locking.polling import PollingLocks


class MemoryLockManager(PollingLocks):
    """Locks that one process has. There is one in each process, whoever asks for it."""

    _instance: MemoryLockManager | None = None
    _making = threading.Lock()

    # As with Prefect: two policies that name one each mean the same locks.
    def __new__(cls) -> Self:
        """The one of this process."""
        with cls._making:
            if not isinstance(cls._instance, cls):
                made = super().__new__(cls)
                made._locks = {}
                made._guard = threading.Lock()
                cls._instance = made
            return cls._instance

    _locks: dict[str, tuple[str, float | None]]
    _guard: threading.Lock

    def try_lock(self, key: str, holder: str, hold_timeout: float | None) -> bool:
        """Take the lock if it is free; whether it is that holder's now."""
        with self._guard:
            found = self._holder(key)
            if found is None:
                until = None if hold_timeout is None else time.monotonic() + hold_timeout
                self._locks[key] = holder, until
            return found in (None, holder)

    def release_lock(self, key: str, holder: str) -> None:
        """Give the lock of a key back.

        Raises:
            ValueError: that holder does not hold it.
        """
        with self._guard:
            if self._holder(key) != holder:
                raise ValueError(f"{holder!r} does not hold the lock of {key!r}")
            del self._locks[key]

    def is_locked(self, key: str) -> bool:
        """Whether somebody holds it."""
        with self._guard:
            return self._holder(key) is not None

    def is_lock_holder(self, key: str, holder: str) -> bool:
        """Whether that holder does."""
        with self._guard:
            return self._holder(key) == holder

    def _holder(self, key: str) -> str | None:
        holder, until = self._locks.get(key, (None, None))
        if until is not None and time.monotonic() >= until:
            del self._locks[key]
            return None
        return holder

    def __repr__(self) -> str:
        return f"<MemoryLockManager with {len(self._locks)} locks>"
