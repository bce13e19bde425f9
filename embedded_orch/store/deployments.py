"""Deployments: a flow with parameters and a queue, under a name of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from embedded_orch.errors import ConfigurationError
from embedded_orch.store.names import check_name
from embedded_orch.store.queues import given
from embedded_orch.store.transitions import encode_struct

if TYPE_CHECKING:
    from embedded_orch.db.port import Transaction

OLDEST = UUID(int=0)
"""An id before every other: where a listing begins."""


class Deployment(msgspec.Struct, frozen=True):
    """A deployment as it is stored. Its parameters are encoded JSON."""

    id: UUID
    flow_id: UUID
    name: str
    version: str | None
    description: str | None
    tags: list[str]
    labels: dict[str, Any]
    parameters: str
    parameter_openapi_schema: dict[str, Any] | None
    enforce_parameter_schema: bool
    paused: bool
    path: str | None
    entrypoint: str | None
    job_variables: dict[str, Any]
    work_queue_id: UUID | None
    concurrency_limit: int | None
    concurrency_options: dict[str, Any] | None
    status: str
    last_polled: int | None
    created: int
    updated: int


class DeploymentFields(msgspec.Struct, frozen=True, kw_only=True):
    """Fields of a deployment to set; those left out stay as they are."""

    version: str | UnsetType | None = UNSET
    description: str | UnsetType | None = UNSET
    tags: Sequence[str] | UnsetType = UNSET
    labels: Mapping[str, Any] | UnsetType = UNSET
    parameters: str | UnsetType = UNSET
    """A JSON object, encoded."""
    parameter_openapi_schema: Mapping[str, Any] | UnsetType | None = UNSET
    enforce_parameter_schema: bool | UnsetType = UNSET
    paused: bool | UnsetType = UNSET
    path: str | UnsetType | None = UNSET
    entrypoint: str | UnsetType | None = UNSET
    job_variables: Mapping[str, Any] | UnsetType = UNSET
    work_queue_id: UUID | UnsetType | None = UNSET
    concurrency_limit: int | UnsetType | None = UNSET
    concurrency_options: Mapping[str, Any] | UnsetType | None = UNSET


_NO_FIELDS = DeploymentFields()


def upsert_deployment(
    tx: Transaction,
    *,
    id: UUID,
    flow_id: UUID,
    name: str,
    now: int,
    fields: DeploymentFields = _NO_FIELDS,
) -> Deployment:
    """Make a deployment, or set the given fields of the one that is there.

    The row is put there first and then locked, read and written whole, so that two callers who
    set different fields of a new deployment at once both have their way.

    Args:
        tx: a write transaction.
        id: for the deployment, when the flow has none of this name yet.
        flow_id: the flow.
        name: the deployment's name.
        now: microseconds since 1970 UTC.
        fields: what to set.

    Raises:
        ConfigurationError: the name or a value cannot be.
    """
    check_name("deployment", name)
    values = given(fields)
    limit = values.get("concurrency_limit")
    if limit is not None and limit < 1:
        raise ConfigurationError(
            f"deployment {name!r} cannot have the concurrency limit {limit}: it would never run; "
            f"pause it, or leave the limit out"
        )
    tx.run("deployment.insert", id=id, flow_id=flow_id, name=name, now=now)
    (row,) = tx.rows("deployment.get_locked", flow_id=flow_id, name=name)
    deployment = msgspec.structs.replace(Deployment(*row), **values, updated=now)
    tx.run("deployment.update", now=now, **_columns(deployment))
    return deployment


def get_deployment(tx: Transaction, *, flow_id: UUID, name: str) -> Deployment | None:
    """The deployment of this flow and name, or None."""
    row = tx.row("deployment.get", flow_id=flow_id, name=name)
    return None if row is None else Deployment(*row)


def find_deployments(
    tx: Transaction,
    *,
    flow_id: UUID | None = None,
    name_contains: str | None = None,
    all_tags: Sequence[str] | None = None,
    any_tags: Sequence[str] | None = None,
    after: UUID = OLDEST,
    limit: int = 200,
) -> list[Deployment]:
    """A page of the deployments that fit all that is given, oldest first.

    Args:
        tx: a transaction.
        flow_id: of this flow.
        name_contains: a part of the name; it matches as it is, in either case of the letters A
            to Z.
        all_tags: it has every one of these tags.
        any_tags: it has at least one of these tags.
        after: the id of the last one on the page before.
        limit: how many at most.
    """
    rows = tx.rows(
        "deployment.find",
        flow_id=flow_id,
        text=name_contains,
        all_tags=None if all_tags is None else encode_struct(list(all_tags)),
        any_tags=None if any_tags is None else encode_struct(list(any_tags)),
        after=after,
        limit=limit,
    )
    return [Deployment(*row) for row in rows]


def _columns(deployment: Deployment) -> dict[str, object]:
    """The columns that an update writes."""
    return {
        "id": deployment.id,
        "version": deployment.version,
        "description": deployment.description,
        "tags": encode_struct(deployment.tags),
        "labels": encode_struct(deployment.labels),
        "parameters": deployment.parameters,
        "parameter_openapi_schema": _optional_json(deployment.parameter_openapi_schema),
        "enforce_parameter_schema": deployment.enforce_parameter_schema,
        "paused": deployment.paused,
        "path": deployment.path,
        "entrypoint": deployment.entrypoint,
        "job_variables": encode_struct(deployment.job_variables),
        "work_queue_id": deployment.work_queue_id,
        "concurrency_limit": deployment.concurrency_limit,
        "concurrency_options": _optional_json(deployment.concurrency_options),
    }


def _optional_json(value: object) -> str | None:
    return None if value is None else encode_struct(value)
