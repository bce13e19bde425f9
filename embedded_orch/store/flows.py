"""Flows by name."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from embedded_orch.store.transitions import encode_struct

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedded_orch.db.port import Transaction


class FlowRow(msgspec.Struct, frozen=True):
    """A flow as it is read for people."""

    id: UUID
    name: str
    tags: list[str]
    created: int


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


def get_flows(tx: Transaction, ids: Sequence[UUID]) -> list[FlowRow]:
    """The flows with these ids, in this order; those that do not exist are left out."""
    rows = tx.rows("flow.get_many", ids=encode_struct([str(id) for id in ids]))
    return [FlowRow(*row) for row in rows]
