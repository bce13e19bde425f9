"""What tests put into a database, with good defaults for what a test is not about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from embedded_orch.db.port import Database
from embedded_orch.orchestration.values import Decision, Proposal
from embedded_orch.process import Process
from embedded_orch.states import StateType
from embedded_orch.store.claims import ClaimedRun, NewRun, claim_runs, enqueue_runs
from embedded_orch.store.flow_runs import propose_flow_state
from embedded_orch.store.flows import ensure_flow
from embedded_orch.store.queues import (
    WorkPool,
    WorkPoolFields,
    WorkQueue,
    WorkQueueFields,
    upsert_work_pool,
    upsert_work_queue,
)

SECOND = 1_000_000
NOON = 1_767_268_800 * SECOND
"""2026-01-01 12:00 UTC, in microseconds."""


class Builder:
    """Puts flows, pools, queues and runs into one database, and claims from it.

    Args:
        database: where.
        process: whose ids.
    """

    def __init__(self, database: Database, process: Process) -> None:
        self.database = database
        self.process = process

    def flow(self, name: str = "report") -> UUID:
        id = self.process.new_id()
        return self.database.write(lambda tx: ensure_flow(tx, id=id, name=name, now=NOON))

    def pool(self, name: str = "pool", **fields: Any) -> WorkPool:
        id, queue_id = self.process.new_id(), self.process.new_id()
        return self.database.write(
            lambda tx: upsert_work_pool(
                tx, id=id, queue_id=queue_id, name=name, now=NOON, fields=WorkPoolFields(**fields)
            )
        )

    def queue(self, name: str, pool_name: str = "pool", **fields: Any) -> WorkQueue:
        id = self.process.new_id()
        return self.database.write(
            lambda tx: upsert_work_queue(
                tx,
                id=id,
                pool_name=pool_name,
                name=name,
                now=NOON,
                fields=WorkQueueFields(**fields),
            )
        )

    def new_run(self, flow_id: UUID, **fields: Any) -> NewRun:
        """A run that is not in the database yet, due at noon."""
        defaults: dict[str, Any] = {
            "id": self.process.new_id(),
            "state_id": self.process.new_id(),
            "name": "brave-otter",
            "scheduled_time": NOON,
        }
        return NewRun(flow_id=flow_id, **{**defaults, **fields})

    def enqueue(self, runs: Sequence[NewRun], now: int = NOON) -> list[UUID]:
        return self.database.write(lambda tx: enqueue_runs(tx, runs, now=now))

    def runs(self, flow_id: UUID, count: int, **fields: Any) -> list[UUID]:
        """As many runs, in the database."""
        return self.enqueue([self.new_run(flow_id, **fields) for _ in range(count)])

    def run_due(self, flow_id: UUID, queue: WorkQueue, seconds: int, **fields: Any) -> UUID:
        """A run, in the database, that is due so many seconds after noon."""
        due = NOON + seconds * SECOND
        run = self.new_run(flow_id, work_queue_id=queue.id, scheduled_time=due, **fields)
        return self.enqueue([run])[0]

    def set_state(
        self, run_id: UUID, type: StateType, name: str | None = None, now: int = NOON
    ) -> Decision:
        proposal = Proposal(
            id=self.process.new_id(), type=type, name=name or type.capitalize(), timestamp=now
        )
        return self.database.write(
            lambda tx: propose_flow_state(tx, run_id=run_id, proposal=proposal, now=now, epoch=None)
        )

    def claim(
        self, limit: int = 100, pool_name: str = "pool", now: int = NOON, **fields: Any
    ) -> list[ClaimedRun]:
        claim_id = fields.pop("claim_id", None) or self.process.new_id()
        state_ids = fields.pop("state_ids", None) or [self.process.new_id() for _ in range(limit)]
        return self.database.write(
            lambda tx: claim_runs(
                tx,
                claim_id=claim_id,
                state_ids=state_ids,
                pool_name=pool_name,
                now=now,
                **fields,
            )
        )


def select(database: Database, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
    """The rows of a statement in the driver's numbered form, as the driver gives them."""
    opened = database.begin()
    try:
        return list(opened.execute(sql, parameters))
    finally:
        opened.roll_back()
