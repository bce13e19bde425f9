"""Which flow runs have ended and are owed the calls of their hooks, because their process died."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

if TYPE_CHECKING:
    from embedded_orch.db.port import Transaction


class DueHooks(msgspec.Struct, frozen=True):
    """A flow run that has ended, and whose hooks nobody is known to have called to the end."""

    flow_run_id: UUID
    epoch: int
    claim_id: UUID | None
    claimer_id: UUID | None
    owner_id: UUID | None
    flow_name: str
    entrypoint: str | None

    @property
    def holder_id(self) -> UUID | None:
        """The process that calls them, should it live."""
        return self.claimer_id or self.owner_id


def owe(tx: Transaction, *, flow_run_id: UUID, epoch: int) -> None:
    """Note that a run has hooks to be called when it ends."""
    tx.run("owed_hooks.owe", flow_run_id=flow_run_id, epoch=epoch)


def settle(tx: Transaction, *, flow_run_id: UUID, epoch: int) -> None:
    """Note that they were called; nothing when the run was taken over since ``epoch``."""
    tx.run("owed_hooks.settle", flow_run_id=flow_run_id, epoch=epoch)


def due(tx: Transaction) -> list[DueHooks]:
    """The runs that have ended, oldest first; processes that live may be calling their hooks."""
    return [DueHooks(*row) for row in tx.rows("owed_hooks.due")]


def claim(tx: Transaction, seen: DueHooks, *, claim_id: UUID, by: UUID) -> bool:
    """Take the hooks of a run, unless somebody else took them since they were seen.

    Args:
        tx: a write transaction.
        seen: the run, as it was found.
        claim_id: of this attempt: the same one may claim twice.
        by: the process that is going to call them.
    """
    return bool(
        tx.run(
            "owed_hooks.claim",
            flow_run_id=seen.flow_run_id,
            epoch=seen.epoch,
            seen_claim_id=seen.claim_id,
            claim_id=claim_id,
            claimer_id=by,
        )
    )
