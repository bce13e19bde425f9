"""What a lock manager can do."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class LockManager(Protocol):
    """Locks of keys. A holder is a text; who holds a key may take it again."""

    def acquire_lock(
        self,
        key: str,
        holder: str,
        acquire_timeout: float | None = None,
        hold_timeout: float | None = None,
    ) -> bool:
        """Take the lock of a key, waiting for it; whether it was taken.

        Args:
            key: of the lock.
            holder: who takes it.
            acquire_timeout: seconds to wait at most; None: as long as it takes.
            hold_timeout: seconds after which it is free by itself; None: never.
        """
        ...

    async def aacquire_lock(
        self,
        key: str,
        holder: str,
        acquire_timeout: float | None = None,
        hold_timeout: float | None = None,
    ) -> bool:
        """:meth:`acquire_lock` without blocking the event loop."""
        ...

    def release_lock(self, key: str, holder: str) -> None:
        """Give the lock of a key back.

        Raises:
            ValueError: that holder does not hold it.
        """
        ...

    def is_locked(self, key: str) -> bool:
        """Whether somebody holds it."""
        ...

    def is_lock_holder(self, key: str, holder: str) -> bool:
        """Whether that holder does."""
        ...

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Wait until nobody holds it; whether that came in time."""
        ...

    async def await_for_lock(
        self,
        key: str,
        timeout: float | None = None,  # noqa: ASYNC109 - Prefect's name
    ) -> bool:
        """:meth:`wait_for_lock` without blocking the event loop."""
        ...
