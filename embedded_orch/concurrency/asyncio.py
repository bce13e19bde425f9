"""Slots of concurrency limits for asynchronous code, on asyncio and on trio."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from embedded_orch.concurrency.blocks import Block, as_names, rate_steps
from embedded_orch.db.handoff import call_in_running_loop
from embedded_orch.engine.effects import drive_async
from embedded_orch.errors import (
    AcquireConcurrencySlotTimeoutError,
    ConcurrencyLeaseLost,
    ConcurrencySlotAcquisitionError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from embedded_orch.concurrency.blocks import Holder

__all__ = [
    "AcquireConcurrencySlotTimeoutError",
    "ConcurrencyLeaseLost",
    "ConcurrencySlotAcquisitionError",
    "concurrency",
    "rate_limit",
]


@asynccontextmanager
async def concurrency(
    names: str | list[str] | None,
    occupy: int = 1,
    timeout_seconds: float | None = None,
    max_retries: int | None = None,
    lease_duration: float = 300,
    strict: bool = False,
    holder: Holder | None = None,
    raise_on_lease_renewal_failure: bool | None = None,
) -> AsyncGenerator[None]:
    """Hold slots of concurrency limits while the block runs.

    As :func:`embedded_orch.concurrency.sync.concurrency`, without blocking the event loop. A task
    that is cancelled gives back what it took, and its place when it waits.
    """
    listed = as_names(names)
    if not listed:
        yield
        return
    block = Block(
        listed,
        occupy=occupy,
        timeout_seconds=timeout_seconds,
        max_retries=max_retries,
        lease_duration=lease_duration,
        strict=strict,
        holder=holder,
        raises_on_loss=raise_on_lease_renewal_failure,
    )
    if block.can_be_ended:
        async with _ended_on_loss(block):
            yield
        return
    try:
        await drive_async(block.enter())
        yield
    finally:
        await drive_async(block.leave())


@asynccontextmanager
async def _ended_on_loss(block: Block) -> AsyncGenerator[None]:
    import anyio

    scope = anyio.CancelScope()
    try:
        await drive_async(block.enter(call_in_running_loop(scope.cancel)))
        with scope:
            yield
        if scope.cancelled_caught:
            raise block.loss()
    finally:
        await drive_async(block.leave())


async def rate_limit(
    names: str | list[str] | None,
    occupy: int = 1,
    timeout_seconds: float | None = None,
    strict: bool = False,
) -> None:
    """Spend slots of concurrency limits that decay, waiting until there are some.

    As :func:`embedded_orch.concurrency.sync.rate_limit`, without blocking the event loop.
    """
    listed = as_names(names)
    if listed:
        await drive_async(
            rate_steps(listed, occupy=occupy, timeout_seconds=timeout_seconds, strict=strict)
        )
