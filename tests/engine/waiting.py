"""Waiting for what other threads do, bounded, and without a clock in the assertion."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 30.0
"""Seconds after which a test that waits has failed."""


def until(condition: Callable[[], object], what: str) -> None:
    """Wait until a condition holds that nobody announces."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"never came: {what}"
        threading.Event().wait(0.002)


def passed(event: threading.Event) -> None:
    """Wait for an event."""
    assert event.wait(PATIENCE), "an event that was waited for never came"


async def until_async(condition: Callable[[], object], what: str) -> None:
    """Wait until a condition holds that nobody announces, without blocking the loop."""
    import anyio

    with anyio.move_on_after(PATIENCE):
        while not condition():
            await anyio.sleep(0.002)
    assert condition(), f"never came: {what}"
