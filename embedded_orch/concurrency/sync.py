"""Slots of concurrency limits for synchronous code."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from embedded_orch.concurrency.blocks import Block, as_names, rate_steps
from embedded_orch.engine.effects import drive
from embedded_orch.engine.workers import raise_in
from embedded_orch.errors import (
    AcquireConcurrencySlotTimeoutError,
    ConcurrencyLeaseLost,
    ConcurrencySlotAcquisitionError,
)

if TYPE_CHECKING:
    from collections.abc import Generator

    from embedded_orch.concurrency.blocks import Holder

__all__ = [
    "AcquireConcurrencySlotTimeoutError",
    "ConcurrencyLeaseLost",
    "ConcurrencySlotAcquisitionError",
    "concurrency",
    "rate_limit",
]


@contextmanager
def concurrency(
    names: str | list[str] | None,
    occupy: int = 1,
    timeout_seconds: float | None = None,
    max_retries: int | None = None,
    lease_duration: float = 300,
    strict: bool = False,
    holder: Holder | None = None,
    raise_on_lease_renewal_failure: bool | None = None,
) -> Generator[None]:
    """Hold slots of concurrency limits while the block runs.

    The slots of all limits are taken at once. Claims on a limit are served in the order in which
    they were made; a block inside another one does not stand in line, since those before it may be
    waiting for what the outer one holds. A holder whose process dies has given its slots back.

    Args:
        names: of the limits; None for none. Those that are not active ask for nothing, nor do
            those that do not exist, which are warned about.
        occupy: how many slots of each of them.
        timeout_seconds: how long to wait for them; None: as long as it takes.
        max_retries: how often to look again, a second apart or when something was given back;
            None: as often as it takes.
        lease_duration: on a server that several hosts share, for how many seconds the others
            believe that the slots are held while they hear nothing of this host. On one host it
            is known who lives.
        strict: a limit that does not exist is an error.
        holder: for people: an object or mapping with a ``type`` and an ``id``; the running task
            run or flow run when not given.
        raise_on_lease_renewal_failure: end the block when its slots were lost, instead of warning;
            as ``strict`` says when not given.

    Raises:
        AcquireConcurrencySlotTimeoutError: a TimeoutError: they were not free in time.
        ConcurrencySlotAcquisitionError: they cannot be had: more are asked for than the limit
            has, no retries are left, or, if ``strict``, a limit does not exist.
        ConcurrencyLeaseLost: the block was ended, since its slots were lost.
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
    thread = threading.get_ident()
    try:
        drive(block.enter(lambda: raise_in(thread, ConcurrencyLeaseLost)))
        yield
    except ConcurrencyLeaseLost as error:
        # Raised from outside, as a class alone.
        raise (block.loss() if block.is_lost else error) from None
    finally:
        try:
            drive(block.leave())
        except BaseException:
            # Interrupted: a slot that is kept now is kept until the process ends.
            drive(block.leave())
            raise


def rate_limit(
    names: str | list[str] | None,
    occupy: int = 1,
    timeout_seconds: float | None = None,
    strict: bool = False,
) -> None:
    """Spend slots of concurrency limits that decay, waiting until there are some.

    Args:
        names: of the limits; each has a ``slot_decay_per_second``, at which its slots come back.
        occupy: how many slots of each of them.
        timeout_seconds: how long to wait for them; None: as long as it takes.
        strict: a limit that does not exist is an error.

    Raises:
        AcquireConcurrencySlotTimeoutError: a TimeoutError: there were none in time.
        ConcurrencySlotAcquisitionError: there cannot be any: a limit does not decay or has fewer,
            or, if ``strict``, does not exist.
    """
    listed = as_names(names)
    if listed:
        drive(rate_steps(listed, occupy=occupy, timeout_seconds=timeout_seconds, strict=strict))
