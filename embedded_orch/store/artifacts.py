"""Artifacts: what runs show to people, and which of each key is the newest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedded_orch.db.port import Transaction


class NewArtifact(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact that is about to be made; its data as JSON text."""

    id: UUID
    key: str | None
    type: str | None
    description: str | None
    data: str
    metadata: Mapping[str, str] | None
    flow_run_id: UUID | None
    task_run_id: UUID | None


class ArtifactRow(msgspec.Struct, frozen=True):
    """An artifact as it is stored."""

    id: UUID
    key: str | None
    type: str | None
    description: str | None
    data: Any
    metadata: dict[str, str] | None
    flow_run_id: UUID | None
    task_run_id: UUID | None
    created: int
    updated: int


def create_artifact(tx: Transaction, new: NewArtifact, *, now: int) -> ArtifactRow:
    """Make an artifact, the newest of its key; nothing when its id is there already."""
    tx.run(
        "artifact.insert",
        id=new.id,
        key=new.key,
        type=new.type,
        description=new.description,
        json_data=new.data,
        metadata=None if new.metadata is None else _json(new.metadata),
        flow_run_id=new.flow_run_id,
        task_run_id=new.task_run_id,
        now=now,
    )
    if new.key is not None:
        tx.run("artifact_collection.upsert", key=new.key, latest_id=new.id, now=now)
    return get_artifacts(tx, [new.id])[0]


def update_artifact(
    tx: Transaction, *, id: UUID, data: str | None, description: str | None, now: int
) -> bool:
    """Set the given fields of an artifact; whether there is one."""
    return tx.run("artifact.update", id=id, json_data=data, description=description, now=now) > 0


def delete_artifact(tx: Transaction, *, id: UUID, now: int) -> bool:
    """Remove an artifact, whose key then means the one before it; whether there was one."""
    key: str | None = tx.value("artifact.key_of", id=id)
    was_there = tx.run("artifact.delete", id=id) > 0
    if was_there and key is not None:
        newest: UUID | None = tx.value("artifact.newest_of_key", key=key)
        if newest is None:
            tx.run("artifact_collection.delete", key=key)
        else:
            tx.run("artifact_collection.set_latest", key=key, latest_id=newest, now=now)
    return was_there


def get_artifacts(tx: Transaction, ids: Sequence[UUID]) -> list[ArtifactRow]:
    """The artifacts with these ids, in this order; those that do not exist are left out."""
    encoded = _json([str(id) for id in ids])
    return [ArtifactRow(*row) for row in tx.rows("artifact.get_many", ids=encoded)]


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
