"""Inputs of flow runs: values as JSON text, each under a key of its run."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from embedded_orch.store.transitions import encode_struct

if TYPE_CHECKING:
    from collections.abc import Iterable

    from embedded_orch.db.port import Transaction


class InputRow(msgspec.Struct, frozen=True):
    """One input; its value is JSON text."""

    id: UUID
    key: str
    value: str
    sender: str | None
    created: int


def create_input(
    tx: Transaction,
    *,
    id: UUID,
    flow_run_id: UUID,
    key: str,
    value: str,
    sender: str | None,
    now: int,
) -> bool:
    """Write an input; False when its key was taken by another before."""
    made = tx.run(
        "flow_run_input.insert",
        flow_run_id=flow_run_id,
        key=key,
        id=id,
        value=value,
        sender=sender,
        now=now,
    )
    if made:
        return True
    found = read_input(tx, flow_run_id=flow_run_id, key=key)
    return found is not None and found.id == id


def put_input(
    tx: Transaction, *, id: UUID, flow_run_id: UUID, key: str, value: str, now: int
) -> None:
    """Write an input, in place of one that has the key."""
    tx.run(
        "flow_run_input.put",
        flow_run_id=flow_run_id,
        key=key,
        id=id,
        value=value,
        sender=None,
        now=now,
    )


def read_input(tx: Transaction, *, flow_run_id: UUID, key: str) -> InputRow | None:
    """The input of a run that has the key, if any."""
    row = tx.row("flow_run_input.get", flow_run_id=flow_run_id, key=key)
    return None if row is None else InputRow(*row)


def delete_input(tx: Transaction, *, flow_run_id: UUID, key: str) -> bool:
    """Delete an input; whether it was there."""
    return bool(tx.run("flow_run_input.delete", flow_run_id=flow_run_id, key=key))


def inputs_with_prefix(
    tx: Transaction, *, flow_run_id: UUID, prefix: str, exclude_keys: Iterable[str], limit: int
) -> list[InputRow]:
    """Inputs of a run whose keys begin alike, oldest first."""
    rows = tx.rows(
        "flow_run_input.with_prefix",
        flow_run_id=flow_run_id,
        key=prefix,
        names=encode_struct(sorted(exclude_keys)),
        limit=limit,
    )
    return [InputRow(*row) for row in rows]
