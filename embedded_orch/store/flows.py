"""Flows by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uuid import UUID

    from embedded_orch.db.port import Transaction


def ensure_flow(tx: Transaction, *, id: UUID, name: str, now: int) -> UUID:
    """The id of the flow of this name; ``id`` when it is new."""
    found: UUID | None = tx.value("flow.id_by_name", name=name)
    if found is None:
        tx.run("flow.insert", id=id, name=name, now=now)
        found = tx.value("flow.id_by_name", name=name)
    assert found is not None, f"flow {name} was inserted and is not there"
    return found


def flow_id(tx: Transaction, *, name: str) -> UUID | None:
    """The id of the flow of this name, or None."""
    found: UUID | None = tx.value("flow.id_by_name", name=name)
    return found
