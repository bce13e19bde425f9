"""Processes that run something here, and what becomes of the runs of those that died."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from embedded_orch.errors import OwnershipLost
from embedded_orch.store import caching
from embedded_orch.store.transitions import crash

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedded_orch.db.port import Transaction


class ProcessRow(msgspec.Struct, frozen=True):
    """A process as it wrote itself down."""

    id: UUID
    host: str
    boot_id: str | None
    pid: int
    pid_started: int | None
    life_file: str | None
    life_slot: int | None


def register(tx: Transaction, process: ProcessRow, *, now: int) -> None:
    """Write a process down; nothing when it is there."""
    tx.run(
        "process.insert",
        id=process.id,
        host=process.host,
        boot_id=process.boot_id,
        pid=process.pid,
        pid_started=process.pid_started,
        life_file=process.life_file,
        life_slot=process.life_slot,
        started=now,
    )


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


def bury(
    tx: Transaction, *, id: UUID, now: int, new_id: Callable[[], UUID], message: str, limit: int
) -> int:
    """Set the runs of a dead process Crashed, except those that ask to be resumed.

    The process is written down as ended by the turn that finds no more runs to set, so that this
    may stop anywhere and go on.

    Args:
        tx: a write transaction.
        id: the process.
        now: microseconds since 1970 UTC.
        new_id: makes the ids of the new states.
        message: what to say of them.
        limit: how many runs to set at most.

    Returns:
        How many runs were set; fewer than ``limit`` when none is left.
    """
    rows = tx.rows("flow_run.to_crash", owner_id=id, limit=limit)
    for run_id, epoch in rows:
        try:
            crash(
                tx, "flow_run", run_id=run_id, new_id=new_id, now=now, message=message, epoch=epoch
            )
        except OwnershipLost:
            # Somebody took it over since these rows were read, and runs it.
            continue
    if len(rows) < limit:
        end(tx, id=id, now=now)
    return len(rows)
