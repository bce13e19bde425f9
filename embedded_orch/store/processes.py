"""Processes that run something here, as they wrote themselves down."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from embedded_orch.store import caching

if TYPE_CHECKING:
    from embedded_orch.db.port import Transaction


class ProcessRow(msgspec.Struct, frozen=True):
    """A process as it wrote itself down.

    Attributes:
        lease: how long other hosts believe in it unheard, in microseconds; None where no other host
            can be.
        epoch: how often it was taken for dead, and came back.
        is_overdue: whether it has not been heard of for the length of its lease, by the database's
            clock; not written, but read.
    """

    id: UUID
    host: str
    boot_id: str | None
    pid: int
    pid_started: int | None
    life_file: str | None
    life_slot: int | None
    lease: int | None = None
    epoch: int = 0
    is_overdue: bool = False


def register(tx: Transaction, process: ProcessRow, *, now: int) -> None:
    """Write a process down; nothing when it is there.

    One that was taken for dead is back by that, with none of the runs that it had then.
    """
    tx.run(
        "process.register",
        id=process.id,
        host=process.host,
        boot_id=process.boot_id,
        pid=process.pid,
        pid_started=process.pid_started,
        life_file=process.life_file,
        life_slot=process.life_slot,
        lease=process.lease,
        now=now,
    )


def register_ended(tx: Transaction, process: ProcessRow, *, now: int) -> None:
    """Write down a process that has ended already; nothing when it is there."""
    tx.run(
        "process.register_ended",
        id=process.id,
        host=process.host,
        boot_id=process.boot_id,
        pid=process.pid,
        pid_started=process.pid_started,
        life_file=process.life_file,
        life_slot=process.life_slot,
        epoch=process.epoch,
        now=now,
    )


def renew(tx: Transaction, *, id: UUID, now: int) -> bool:
    """Say to other hosts that a process lives; False when it was not believed any more.

    Nothing, and True, for a process that is not written down.
    """
    if tx.run("process.renew", id=id, now=now):
        return True
    found = get(tx, id=id)
    return found is None or not found[1]


def not_ended(tx: Transaction) -> list[ProcessRow]:
    """The processes that have not said goodbye: they live, or died."""
    return [ProcessRow(*row) for row in tx.rows("process.not_ended")]


def get(tx: Transaction, *, id: UUID) -> tuple[ProcessRow, bool] | None:
    """A process, and whether it is known to have ended."""
    row = tx.row("process.get", id=id)
    return None if row is None else (ProcessRow(*row[:-1]), row[-1] is not None)


def end(tx: Transaction, *, id: UUID, now: int) -> None:
    """Write down that a process has ended, and with it all that it claimed.

    Cached results that have expired go in the same transaction: somebody has to clean up, now and
    then.
    """
    tx.run("slot_claim.delete_of_owner", owner_id=id)
    tx.run("cache_lock.delete_of_owner", owner_id=id)
    caching.forget_expired(tx, now=now)
    tx.run("process.end", id=id, now=now)
