"""Results that other runs may use, by their cache keys, and who computes one now.

A result has a row of its own beside the state that it came from: looking it up is one step, and it
may outlive its run. The lock of a key belongs to a task run and its process, and ends with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from embedded_orch import times
from embedded_orch.orchestration.values import LONGEST_CACHE_KEY, CachedResult
from embedded_orch.store import result_files

if TYPE_CHECKING:
    from embedded_orch.db.port import Transaction
    from embedded_orch.orchestration.values import Proposal, WrittenFile


class LockHolder(msgspec.Struct, frozen=True):
    """Who holds the lock of a key: a task run, or whoever a user's code says, of one process."""

    holder: str
    owner_id: UUID


def find(tx: Transaction, *, key: str, now: int) -> CachedResult | None:
    """What is cached under a key and has not expired."""
    row = tx.row("cached_result.get", key=key, now=now)
    return None if row is None else CachedResult(bytes(row[0]), row[1])


def find_to_take(tx: Transaction, *, key: str, now: int) -> CachedResult | None:
    """:func:`find`, in a transaction that has a run take what is found for its own."""
    found = find(tx, key=key, now=now)
    if found is not None and result_files.may_be_removed(tx, found):
        # Once more: what it names could have been removed before this transaction forbade that.
        return find(tx, key=key, now=now)
    return found


def keep(tx: Transaction, *, run_id: UUID, state: Proposal, now: int) -> None:
    """Cache the value of a COMPLETED state under the key that it names; an older one is replaced.

    Nothing when it names none, or has no value.
    """
    key = state.details.cache_key
    if not key or state.data is None or len(key) > LONGEST_CACHE_KEY:
        return
    expiration = state.details.cache_expiration
    tx.run(
        "cached_result.put",
        key=key,
        expiration=None if expiration is None else times.microseconds_from_datetime(expiration),
        task_run_id=run_id,
        state_id=state.id,
        data=state.data,
        data_format=state.data_format,
        now=now,
    )


def put(
    tx: Transaction,
    *,
    key: str,
    data: bytes,
    data_format: str,
    expiration: int | None,
    ids: tuple[UUID, UUID],
    now: int,
    file: WrittenFile | None = None,
) -> None:
    """Keep a value under a key that no run has computed; an older one is replaced.

    Args:
        tx: a write transaction.
        key: 1 to 2000 characters.
        data: the encoded value.
        data_format: how it is encoded.
        expiration: microseconds since 1970 UTC; None: it does not expire.
        ids: that stand in the place of those of a run and of its state.
        now: microseconds since 1970 UTC.
        file: that the data name, if they name one.
    """
    if file is not None:
        result_files.ensure(tx, file)
    tx.run(
        "cached_result.put",
        key=key,
        expiration=expiration,
        task_run_id=ids[0],
        state_id=ids[1],
        data=data,
        data_format=data_format,
        now=now,
    )


def forget_of_run(tx: Transaction, *, run_id: UUID) -> None:
    """Drop what a task run has cached: it was undone."""
    tx.run("cached_result.delete_of_run", task_run_id=run_id)


def forget_expired(tx: Transaction, *, now: int) -> int:
    """Drop what nobody can find any more; how many."""
    return tx.run("cached_result.delete_expired", now=now)


def lock(tx: Transaction, *, key: str, holder: str, owner_id: UUID, now: int) -> LockHolder:
    """Take the lock of a key if it is free; who holds it then."""
    found = None
    while found is None:
        tx.run("cache_lock.take", key=key, holder=holder, owner_id=owner_id, now=now)
        # None on Postgres, when its holder gave it back between the two: then it is free.
        found = lock_holder(tx, key=key)
    return found


def lock_holder(tx: Transaction, *, key: str) -> LockHolder | None:
    """Who holds the lock of a key."""
    row = tx.row("cache_lock.get", key=key)
    return None if row is None else LockHolder(*row)


def unlock(tx: Transaction, *, key: str, holder: str) -> bool:
    """Give the lock of a key back; whether it was held by them."""
    return tx.run("cache_lock.release", key=key, holder=holder) > 0
