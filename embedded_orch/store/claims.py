"""Handing out runs: put into queues in bulk, and claimed from them a few at a time.

A claim takes the runs that are due in the open queues of a pool and makes them PENDING in the same
transaction, so a run is given to one caller only. The pool's row is locked first: claims of one
pool take turns, and on Postgres the statements after it see what the claim before it took, without
which two at once could both count the same free slots.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from embedded_orch.errors import ConfigurationError
from embedded_orch.orchestration.values import Policy
from embedded_orch.store.queues import checked_queue_names, lock_work_pool
from embedded_orch.store.transitions import encode_struct

if TYPE_CHECKING:
    from embedded_orch.db.port import Transaction

MOST_IN_A_CLAIM = 200
_BEGINNING = -(1 << 63)
_END = (1 << 63) - 1


class NewRun(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A flow run that is about to be scheduled. Times are microseconds since 1970 UTC.

    What is as of most runs is left out when it is encoded: reading it is a tenth of storing a run.
    """

    id: UUID
    flow_id: UUID
    name: str
    state_id: UUID
    scheduled_time: int
    work_queue_id: UUID | None = None
    deployment_id: UUID | None = None
    deployment_version: str | None = None
    idempotency_key: str | None = None
    """The flow has at most one run with this key."""
    parameters: str = "{}"
    """A JSON object, encoded."""
    entrypoint: str | None = None
    flow_version: str | None = None
    tags: Sequence[str] = ()
    labels: Mapping[str, Any] = {}
    empirical_policy: Policy = Policy()
    created_by: Mapping[str, Any] | None = None
    job_variables: Mapping[str, Any] = {}
    auto_scheduled: bool = False


class ClaimedRun(msgspec.Struct, frozen=True):
    """A flow run that a claim took. Its parameters are encoded JSON."""

    id: UUID
    flow_id: UUID
    name: str
    run_count: int
    epoch: int
    """What its new owner writes in; an earlier owner's writes are refused."""
    deployment_id: UUID | None
    work_queue_id: UUID
    entrypoint: str | None
    parameters: str
    tags: list[str]
    job_variables: dict[str, Any]
    state_id: UUID
    """Of its PENDING state."""
    state_timestamp: int
    scheduled_time: int


def enqueue_runs(tx: Transaction, runs: Sequence[NewRun], *, now: int) -> list[UUID]:
    """Insert many SCHEDULED flow runs with their states; those that are there stay as they are.

    No rule is asked: a new run has no state that one could object to leaving.

    Args:
        tx: a write transaction.
        runs: the runs. With a key that another run of the flow has, nothing is inserted.
        now: microseconds since 1970 UTC.

    Returns:
        For each run the id of the one that stands in the table: its own, or, for a key that was
        taken, that of the older run.
    """
    if not runs:
        return []
    encoded = encode_struct(runs)
    if tx.dialect == "postgres":
        made = tx.value("claim.insert_runs", runs=encoded, now=now)
    else:
        made = tx.run("claim.insert_runs", runs=encoded, now=now)
        tx.run("claim.insert_first_states", runs=encoded)
    if made == len(runs):
        return [run.id for run in runs]
    return [run_id for (run_id,) in tx.rows("claim.standing_runs", runs=encoded)]


def claim_runs(
    tx: Transaction,
    *,
    claim_id: UUID,
    state_ids: Sequence[UUID],
    pool_name: str,
    now: int,
    queue_names: Sequence[str] | None = None,
    scheduled_before: int | None = None,
    scheduled_after: int | None = None,
    owner_id: UUID | None = None,
) -> list[ClaimedRun]:
    """Take the next runs of a pool and make them PENDING.

    Queues are served by priority; within a queue the earliest run comes first, then the lowest id.
    Runs that are PENDING or RUNNING hold slots of their queue and of the pool, also those of a
    paused queue. Paused pools and queues give nothing. A run that its own process is about to
    retry is not given either.

    Args:
        tx: a write transaction.
        claim_id: of this claim; the same one again returns what it took the first time.
        state_ids: for the new states; as many runs at most are taken, and no more than 200.
        pool_name: the pool.
        now: microseconds since 1970 UTC.
        queue_names: which of its queues; all when not given.
        scheduled_before: only runs that are due at this time, in microseconds since 1970 UTC.
        scheduled_after: only runs that are not due before this time.
        owner_id: the process that will run them.

    Returns:
        The runs, in the order in which they should start.

    Raises:
        ConfigurationError: no pool or queue has the name, or the number of ids cannot be.
    """
    if not 1 <= len(state_ids) <= MOST_IN_A_CLAIM:
        raise ConfigurationError(
            f"a claim takes 1 to {MOST_IN_A_CLAIM} runs, and {len(state_ids)} were asked for"
        )
    # Ascending, so that the order of the claim can be read back from its states.
    state_ids = sorted(state_ids)
    pool = lock_work_pool(tx, name=pool_name)
    names = checked_queue_names(tx, pool, queue_names)
    limit = 0 if pool.is_paused else len(state_ids)
    if limit and pool.concurrency_limit is not None:
        held = int(tx.value("claim.count_holders", work_pool_id=pool.id))
        limit = min(limit, pool.concurrency_limit - held)
    if limit <= 0:
        return _claimed(tx, claim_id, state_ids)
    candidates = tx.rows(
        "claim.candidates",
        claim_id=claim_id,
        work_pool_id=pool.id,
        queue_names=names,
        scheduled_after=_BEGINNING if scheduled_after is None else scheduled_after,
        scheduled_before=_END if scheduled_before is None else scheduled_before,
        limit=limit,
    )
    if not candidates:
        return _claimed(tx, claim_id, state_ids)
    claimed = encode_struct(
        [
            {"id": run_id, "state_id": state_id, "scheduled_time": scheduled_time}
            for (run_id, scheduled_time), state_id in zip(candidates, state_ids, strict=False)
        ]
    )
    owned = {"claim_id": claim_id, "owner_id": owner_id}
    if tx.dialect == "postgres":
        return _claimed_runs(tx.rows("claim.set_pending", claimed=claimed, now=now, **owned))
    # The states first, before the runs forget when they were due.
    tx.run("claim.insert_pending_states", claimed=claimed, now=now)
    tx.run("claim.set_pending", claimed=claimed, now=now, **owned)
    return _claimed(tx, claim_id, state_ids)


def _claimed(tx: Transaction, claim_id: UUID, state_ids: Sequence[UUID]) -> list[ClaimedRun]:
    """What this claim has taken before."""
    encoded = encode_struct(list(state_ids))
    return _claimed_runs(tx.rows("claim.claimed", claim_id=claim_id, state_ids=encoded))


def _claimed_runs(rows: Sequence[tuple[Any, ...]]) -> list[ClaimedRun]:
    return [ClaimedRun(*[*row[:-1], row[-1]["scheduled_time"]]) for row in rows]
