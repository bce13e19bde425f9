"""Work pools and the queues in them: what workers serve, in which order, and how much at once.

A pool is made with a queue named "default". Queues are served by priority, 1 first; within a pool
no two have the same. Who changes a queue holds its pool's row, so that two changes of the same
pool, or a change and a claim, take turns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from embedded_orch.errors import ConfigurationError
from embedded_orch.store.names import check_name
from embedded_orch.store.transitions import encode_struct

if TYPE_CHECKING:
    from embedded_orch.db.port import Transaction

DEFAULT_QUEUE = "default"
_POLLED_LATELY = 60_000_000
"""Microseconds for which a poll counts as a sign that somebody serves a queue."""


class WorkPool(msgspec.Struct, frozen=True):
    """A pool as it is stored. A limit of 0 blocks it; None sets no limit."""

    id: UUID
    name: str
    description: str | None
    type: str
    base_job_template: dict[str, Any]
    is_paused: bool
    concurrency_limit: int | None
    default_queue_id: UUID
    status: str
    created: int
    updated: int


class WorkPoolFields(msgspec.Struct, frozen=True, kw_only=True):
    """Fields of a pool to set; those left out stay as they are."""

    description: str | UnsetType | None = UNSET
    base_job_template: Mapping[str, Any] | UnsetType = UNSET
    is_paused: bool | UnsetType = UNSET
    concurrency_limit: int | UnsetType | None = UNSET


class WorkQueue(msgspec.Struct, frozen=True):
    """A queue as it is stored. A limit of 0 blocks it; None sets no limit."""

    id: UUID
    work_pool_id: UUID
    name: str
    description: str
    is_paused: bool
    concurrency_limit: int | None
    priority: int
    status: str
    last_polled: int | None
    created: int
    updated: int


class WorkQueueFields(msgspec.Struct, frozen=True, kw_only=True):
    """Fields of a queue to set; those left out stay as they are."""

    description: str | UnsetType = UNSET
    is_paused: bool | UnsetType = UNSET
    concurrency_limit: int | UnsetType | None = UNSET
    priority: int | UnsetType = UNSET


_NO_POOL_FIELDS = WorkPoolFields()
_NO_QUEUE_FIELDS = WorkQueueFields()


def given(fields: msgspec.Struct) -> dict[str, Any]:
    """The fields that are set, by name."""
    values = {name: getattr(fields, name) for name in fields.__struct_fields__}
    return {name: value for name, value in values.items() if value is not UNSET}


# -- pools -----------------------------------------------------------------------------------------


def upsert_work_pool(
    tx: Transaction,
    *,
    id: UUID,
    queue_id: UUID,
    name: str,
    now: int,
    type: str = "process",
    fields: WorkPoolFields = _NO_POOL_FIELDS,
) -> WorkPool:
    """Make a pool with its default queue, or set the given fields of the one that is there.

    Args:
        tx: a write transaction.
        id: for the pool, when no pool has the name yet.
        queue_id: for its default queue, likewise.
        name: the pool's name.
        now: microseconds since 1970 UTC.
        type: what kind of workers serve it; settled when it is made.
        fields: what else to set.

    Raises:
        ConfigurationError: the name or a value cannot be, or the pool is of another type.
    """
    check_name("work pool", name)
    made = tx.run(
        "work_pool.insert", id=id, name=name, type=type, default_queue_id=queue_id, now=now
    )
    if made:
        tx.run(
            "work_queue.insert",
            id=queue_id,
            work_pool_id=id,
            name=DEFAULT_QUEUE,
            priority=1,
            now=now,
        )
    pool = update_work_pool(tx, name=name, now=now, fields=fields)
    if pool.type != type:
        raise ConfigurationError(
            f"work pool {name!r} is of type {pool.type!r}, and that does not change; make one of "
            f"type {type!r} under another name"
        )
    return pool


def update_work_pool(tx: Transaction, *, name: str, now: int, fields: WorkPoolFields) -> WorkPool:
    """Set the given fields of a pool, such as its pause and its limit.

    Raises:
        ConfigurationError: no pool has the name, or a value cannot be.
    """
    values = given(fields)
    _check_limit("work pool", name, values)
    old = lock_work_pool(tx, name=name)
    status = _status(old.status, is_paused=values.get("is_paused", old.is_paused), is_served=False)
    pool = msgspec.structs.replace(old, **values, status=status, updated=now)
    tx.run(
        "work_pool.update",
        id=pool.id,
        description=pool.description,
        base_job_template=encode_struct(pool.base_job_template),
        is_paused=pool.is_paused,
        concurrency_limit=pool.concurrency_limit,
        status=pool.status,
        now=now,
    )
    return pool


def get_work_pool(tx: Transaction, *, name: str) -> WorkPool | None:
    """The pool of this name, or None."""
    row = tx.row("work_pool.get", name=name)
    return None if row is None else WorkPool(*row)


def lock_work_pool(tx: Transaction, *, name: str) -> WorkPool:
    """The pool of this name, to oneself until the transaction ends.

    Raises:
        ConfigurationError: no pool has the name.
    """
    row = tx.row("work_pool.get_locked", name=name)
    if row is None:
        known = ", ".join(repr(pool.name) for pool in find_work_pools(tx))
        raise ConfigurationError(f"there is no work pool {name!r}; there are: {known or 'none'}")
    return WorkPool(*row)


def find_work_pools(tx: Transaction, *, name_contains: str | None = None) -> list[WorkPool]:
    """Pools by name; a part of it matches as it is, in either case of the letters A to Z."""
    return [WorkPool(*row) for row in tx.rows("work_pool.find", text=name_contains)]


# -- queues ----------------------------------------------------------------------------------------


def upsert_work_queue(
    tx: Transaction,
    *,
    id: UUID,
    pool_name: str,
    name: str,
    now: int,
    fields: WorkQueueFields = _NO_QUEUE_FIELDS,
) -> WorkQueue:
    """Make a queue, or set the given fields of the one that is there.

    A new queue without a priority gets the smallest that is free. One that is given moves the
    queue that has it, and those right behind, by one.

    Args:
        tx: a write transaction.
        id: for the queue, when the pool has none of this name yet.
        pool_name: the pool.
        name: the queue's name.
        now: microseconds since 1970 UTC.
        fields: what else to set.

    Raises:
        ConfigurationError: no pool has the name, or a value cannot be.
    """
    check_name("work queue", name)
    pool = lock_work_pool(tx, name=pool_name)
    if tx.row("work_queue.get", work_pool_id=pool.id, name=name) is None:
        tx.run(
            "work_queue.insert",
            id=id,
            work_pool_id=pool.id,
            name=name,
            priority=_first_free_priority(tx, pool_id=pool.id, queue_id=id, at_least=1),
            now=now,
        )
    return update_work_queue(tx, pool_name=pool_name, name=name, now=now, fields=fields)


def update_work_queue(
    tx: Transaction, *, pool_name: str, name: str, now: int, fields: WorkQueueFields
) -> WorkQueue:
    """Set the given fields of a queue, such as its pause, its limit and its priority.

    Raises:
        ConfigurationError: no pool or queue has the name, or a value cannot be.
    """
    values = given(fields)
    _check_limit("work queue", name, values)
    pool = lock_work_pool(tx, name=pool_name)
    row = tx.row("work_queue.get", work_pool_id=pool.id, name=name)
    if row is None:
        raise unknown_queues(tx, pool, [name])
    old = WorkQueue(*row)
    status = _status(
        old.status,
        is_paused=values.get("is_paused", old.is_paused),
        is_served=old.last_polled is not None and now - old.last_polled <= _POLLED_LATELY,
    )
    queue = msgspec.structs.replace(old, **values, status=status, updated=now)
    if "priority" in values:
        _make_room(tx, queue, now=now)
    tx.run(
        "work_queue.update",
        id=queue.id,
        description=queue.description,
        is_paused=queue.is_paused,
        concurrency_limit=queue.concurrency_limit,
        priority=queue.priority,
        status=queue.status,
        now=now,
    )
    return queue


def find_work_queue(tx: Transaction, *, pool_name: str, name: str) -> WorkQueue:
    """One queue of a pool.

    Raises:
        ConfigurationError: no pool or queue has the name.
    """
    pool = get_work_pool(tx, name=pool_name)
    if pool is None:
        raise ConfigurationError(f"there is no work pool {pool_name!r}")
    row = tx.row("work_queue.get", work_pool_id=pool.id, name=name)
    if row is None:
        raise unknown_queues(tx, pool, [name])
    return WorkQueue(*row)


def find_work_queues(
    tx: Transaction, *, pool_name: str, name_contains: str | None = None
) -> list[WorkQueue]:
    """The queues of a pool in the order in which they are served.

    Args:
        tx: a transaction.
        pool_name: the pool; without one of this name there are no queues.
        name_contains: a part of the name; it matches as it is, in either case of the letters A
            to Z.
    """
    pool = get_work_pool(tx, name=pool_name)
    if pool is None:
        return []
    rows = tx.rows("work_queue.find", work_pool_id=pool.id, text=name_contains)
    return [WorkQueue(*row) for row in rows]


def mark_polled(
    tx: Transaction, *, pool_name: str, queue_names: Sequence[str] | None = None, now: int
) -> None:
    """Write down that a worker asked queues for runs, and with them their deployments.

    Args:
        tx: a write transaction.
        pool_name: the pool.
        queue_names: the queues; all of the pool when not given.
        now: microseconds since 1970 UTC.

    Raises:
        ConfigurationError: no pool or queue has the name.
    """
    pool = lock_work_pool(tx, name=pool_name)
    names = checked_queue_names(tx, pool, queue_names)
    tx.run("work_queue.mark_polled", work_pool_id=pool.id, names=names, now=now)
    tx.run("deployment.mark_polled", work_pool_id=pool.id)


def checked_queue_names(tx: Transaction, pool: WorkPool, names: Sequence[str] | None) -> str | None:
    """Names of queues as a JSON array, all of which the pool has; None stands for all queues.

    Raises:
        ConfigurationError: the pool does not have one of them.
    """
    if names is None:
        return None
    encoded = encode_struct(list(names))
    unknown = tx.rows("work_queue.unknown_names", work_pool_id=pool.id, names=encoded)
    if unknown:
        raise unknown_queues(tx, pool, [name for (name,) in unknown])
    return encoded


def unknown_queues(tx: Transaction, pool: WorkPool, names: Sequence[str]) -> ConfigurationError:
    """The error for names that no queue of a pool has."""
    rows = tx.rows("work_queue.find", work_pool_id=pool.id, text=None)
    known = ", ".join(repr(WorkQueue(*row).name) for row in rows)
    wanted = ", ".join(map(repr, names))
    return ConfigurationError(
        f"work pool {pool.name!r} has no work queue {wanted}; it has: {known}"
    )


def _make_room(tx: Transaction, queue: WorkQueue, *, now: int) -> None:
    """Move the others so that the queue's priority is its own."""
    if queue.priority < 1:
        raise ConfigurationError(
            f"work queue {queue.name!r} cannot have the priority {queue.priority}: 1 is the first"
        )
    free = _first_free_priority(
        tx, pool_id=queue.work_pool_id, queue_id=queue.id, at_least=queue.priority
    )
    tx.run(
        "work_queue.shift_priorities",
        work_pool_id=queue.work_pool_id,
        id=queue.id,
        from_priority=queue.priority,
        free_priority=free,
        now=now,
    )


def _first_free_priority(tx: Transaction, *, pool_id: UUID, queue_id: UUID, at_least: int) -> int:
    return int(
        tx.value(
            "work_queue.first_free_priority", work_pool_id=pool_id, id=queue_id, at_least=at_least
        )
    )


def _status(old: str, *, is_paused: bool, is_served: bool) -> str:
    if is_paused:
        return "PAUSED"
    if old == "PAUSED":
        return "READY" if is_served else "NOT_READY"
    return old


def _check_limit(kind: str, name: str, values: Mapping[str, Any]) -> None:
    limit = values.get("concurrency_limit")
    if limit is not None and limit < 0:
        raise ConfigurationError(
            f"{kind} {name!r} cannot have the concurrency limit {limit}; 0 blocks it, None sets "
            f"no limit"
        )
