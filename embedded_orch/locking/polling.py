"""A lock manager that is told how to try, and knows how to wait."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from embedded_orch.process import OWN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FIRST_PAUSE = 0.001
_LAST_PAUSE = 0.1


class PollingLocks:
    """What the lock managers have in common: a try that does not wait, and the waiting."""

    def try_lock(self, key: str, holder: str, hold_timeout: float | None) -> bool:
        """Take the lock if it is free; whether it is that holder's now."""
        raise TypeError(f"{type(self).__name__} does not say how a lock is taken")

    def is_locked(self, key: str) -> bool:
        """Whether somebody holds it."""
        raise TypeError(f"{type(self).__name__} does not say whether a key is locked")

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
            holder: who takes it; who holds it already has it.
            acquire_timeout: seconds to wait at most; None: as long as it takes.
            hold_timeout: seconds after which it is free by itself; None: never.
        """
        return _poll(lambda: self.try_lock(key, holder, hold_timeout), acquire_timeout)

    async def aacquire_lock(
        self,
        key: str,
        holder: str,
        acquire_timeout: float | None = None,
        hold_timeout: float | None = None,
    ) -> bool:
        """:meth:`acquire_lock` without blocking the event loop."""
        return await _poll_async(lambda: self.try_lock(key, holder, hold_timeout), acquire_timeout)

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Wait until nobody holds it; whether that came in time."""
        return _poll(lambda: not self.is_locked(key), timeout)

    async def await_for_lock(
        self,
        key: str,
        timeout: float | None = None,  # noqa: ASYNC109 - Prefect's name
    ) -> bool:
        """:meth:`wait_for_lock` without blocking the event loop."""
        return await _poll_async(lambda: not self.is_locked(key), timeout)


def _poll(condition: Callable[[], bool], timeout: float | None) -> bool:
    for pause in _pauses(timeout):
        if condition():
            return True
        OWN.sleep(pause)
    return condition()


async def _poll_async(condition: Callable[[], bool], seconds: float | None) -> bool:
    import anyio

    for pause in _pauses(seconds):
        if condition():
            return True
        await anyio.sleep(pause)
    return condition()


def _pauses(timeout: float | None) -> Iterator[float]:
    """Seconds to wait between two looks, more and more, until the time is over."""
    deadline = None if timeout is None else time.monotonic() + timeout
    pause = _FIRST_PAUSE
    while deadline is None or time.monotonic() < deadline:
        left = pause if deadline is None else deadline - time.monotonic()
        yield max(0.0, min(pause, left))
        pause = min(pause * 1.6, _LAST_PAUSE)
