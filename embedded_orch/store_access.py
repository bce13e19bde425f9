"""``orch.store``: pools, queues, deployments, claims and histories. Provisional.

These parts of the data layer are complete and tested, and get an API of their own with the features
that use them. Until then they are reached here; names and signatures may still change. Each call is
one transaction. Times are aware datetimes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from embedded_orch import errors, values
from embedded_orch.engine.names import run_name
from embedded_orch.store import claims, deployments, flows, queues
from embedded_orch.store.claims import NewRun
from embedded_orch.store.deployments import DeploymentFields
from embedded_orch.store.queues import WorkPoolFields, WorkQueueFields
from embedded_orch.times import microseconds_from_datetime

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from embedded_orch.db.port import Transaction
    from embedded_orch.engine.engine import Engine
    from embedded_orch.store.claims import ClaimedRun
    from embedded_orch.store.deployments import Deployment
    from embedded_orch.store.queues import WorkPool, WorkQueue


class Store:
    """The parts of one database that have no API of their own yet. Any thread may use it."""

    def __init__(self, engine: Engine) -> None:
        self._database = engine.database
        self._process = engine.process
        self._owner = engine.owner

    # -- pools, queues and deployments -----------------------------------------------------------

    def upsert_work_pool(self, name: str, *, type: str = "process", **fields: Any) -> WorkPool:
        """Make a work pool with its default queue, or set the given fields of the one there is.

        Args:
            name: of the pool.
            type: of a new pool.
            fields: those of :class:`embedded_orch.store.queues.WorkPoolFields`.
        """
        id, queue_id, now = self._new_id(), self._new_id(), self._process.now()
        given = _fields(WorkPoolFields, fields)
        return self._database.write(
            lambda tx: queues.upsert_work_pool(
                tx, id=id, queue_id=queue_id, name=name, now=now, type=type, fields=given
            )
        )

    def upsert_work_queue(self, pool_name: str, name: str, **fields: Any) -> WorkQueue:
        """Make a queue of a pool, or set the given fields of the one there is.

        Args:
            pool_name: the pool.
            name: of the queue.
            fields: those of :class:`embedded_orch.store.queues.WorkQueueFields`.
        """
        id, now = self._new_id(), self._process.now()
        given = _fields(WorkQueueFields, fields)
        return self._database.write(
            lambda tx: queues.upsert_work_queue(
                tx, id=id, pool_name=pool_name, name=name, now=now, fields=given
            )
        )

    def find_work_pools(self, *, name_contains: str | None = None) -> list[WorkPool]:
        """The work pools, by name."""
        return self._database.read(
            lambda tx: queues.find_work_pools(tx, name_contains=name_contains)
        )

    def find_work_queues(
        self, pool_name: str, *, name_contains: str | None = None
    ) -> list[WorkQueue]:
        """The queues of a pool, by priority."""
        return self._database.read(
            lambda tx: queues.find_work_queues(tx, pool_name=pool_name, name_contains=name_contains)
        )

    def mark_polled(self, pool_name: str, *, queue_names: Sequence[str] | None = None) -> None:
        """Write down that somebody asked the queues of a pool for work."""
        now = self._process.now()
        self._database.write(
            lambda tx: queues.mark_polled(tx, pool_name=pool_name, queue_names=queue_names, now=now)
        )

    def upsert_deployment(self, flow_name: str, name: str, **fields: Any) -> Deployment:
        """Make a deployment of a flow, or set the given fields of the one there is.

        Args:
            flow_name: the flow; made when there is none of this name.
            name: of the deployment.
            fields: those of :class:`embedded_orch.store.deployments.DeploymentFields`, with
                ``parameters`` as a mapping.
        """
        id, flow_id, now = self._new_id(), self._new_id(), self._process.now()
        if "parameters" in fields:
            fields = {**fields, "parameters": _parameters(fields["parameters"])}
        given = _fields(DeploymentFields, fields)
        return self._database.write(
            lambda tx: deployments.upsert_deployment(
                tx,
                id=id,
                flow_id=flows.ensure_flow(tx, id=flow_id, name=flow_name, now=now),
                name=name,
                now=now,
                fields=given,
            )
        )

    def find_deployments(
        self,
        *,
        name_contains: str | None = None,
        all_tags: Sequence[str] | None = None,
        any_tags: Sequence[str] | None = None,
    ) -> list[Deployment]:
        """The first 200 deployments that fit all that is given, oldest first."""
        return self._database.read(
            lambda tx: deployments.find_deployments(
                tx, name_contains=name_contains, all_tags=all_tags, any_tags=any_tags
            )
        )

    # -- the work queue --------------------------------------------------------------------------

    def enqueue(
        self,
        flow_name: str,
        *,
        pool_name: str,
        times: Sequence[datetime],
        queue_name: str = "default",
        parameters: Mapping[str, Any] | None = None,
        idempotency_keys: Sequence[str | None] | None = None,
    ) -> list[UUID]:
        """Schedule a run of a flow for each time, all in one transaction.

        Args:
            flow_name: the flow; made when there is none of this name.
            pool_name: the pool that claims them.
            times: when each is due.
            queue_name: the queue of the pool.
            parameters: of all of them.
            idempotency_keys: one for each, or none: the flow has at most one run with a key.

        Returns:
            The ids of the runs: of those that are new, and of those that had the key before.

        Raises:
            ConfigurationError: there is no such pool or queue, or a time names no moment.
        """
        keys = idempotency_keys or [None] * len(times)
        due = [microseconds_from_datetime(time) for time in times]
        flow_id, now = self._new_id(), self._process.now()
        encoded = _parameters(parameters or {})
        ids = [(self._new_id(), self._new_id(), self._name()) for _ in due]

        def operation(tx: Any) -> list[UUID]:
            queue = queues.find_work_queue(tx, pool_name=pool_name, name=queue_name)
            flow = flows.ensure_flow(tx, id=flow_id, name=flow_name, now=now)
            runs = [
                NewRun(
                    id=id,
                    flow_id=flow,
                    name=name,
                    state_id=state_id,
                    scheduled_time=time,
                    work_queue_id=queue.id,
                    idempotency_key=key,
                    parameters=encoded,
                )
                for (id, state_id, name), time, key in zip(ids, due, keys, strict=True)
            ]
            return claims.enqueue_runs(tx, runs, now=now)

        return self._database.write(operation)

    def claim(
        self,
        pool_name: str,
        *,
        queue_names: Sequence[str] | None = None,
        scheduled_before: datetime | None = None,
        scheduled_after: datetime | None = None,
        limit: int = 100,
    ) -> list[ClaimedRun]:
        """Take due runs of a pool and set them PENDING, in one transaction; none is taken twice.

        They belong to this orchestrator, and are back in their queues when it is closed or dies
        before they have begun.

        Args:
            pool_name: the pool.
            queue_names: only from these queues; all of the pool when not given.
            scheduled_before: only runs due up to this; any when not given.
            scheduled_after: only runs due from this on.
            limit: how many at most, 200 or fewer.

        Raises:
            ConfigurationError: there is no such pool or queue.
        """
        claim_id, now = self._new_id(), self._process.now()
        state_ids = [self._new_id() for _ in range(limit)]
        before, after = (
            None if time is None else microseconds_from_datetime(time)
            for time in (scheduled_before, scheduled_after)
        )
        owner = self._owner

        def operation(tx: Transaction) -> list[ClaimedRun]:
            owner.register(tx)
            return claims.claim_runs(
                tx,
                claim_id=claim_id,
                state_ids=state_ids,
                pool_name=pool_name,
                now=now,
                queue_names=queue_names,
                scheduled_before=before,
                scheduled_after=after,
                owner_id=owner.id,
            )

        return self._database.write(operation)

    def _new_id(self) -> UUID:
        return self._process.new_id()

    def _name(self) -> str:
        return run_name(self._process.random_bytes(4))

    def __repr__(self) -> str:
        return f"<Store of {self._database.url}>"


def _fields(kind: type[Any], fields: Mapping[str, Any]) -> Any:
    unknown = sorted(set(fields) - set(kind.__struct_fields__))
    if unknown:
        raise errors.ConfigurationError(
            f"{', '.join(map(repr, unknown))}: no such field; there are "
            f"{', '.join(kind.__struct_fields__)}"
        )
    try:
        return msgspec.convert(dict(fields), kind)
    except msgspec.ValidationError as error:
        raise errors.ConfigurationError(str(error)) from error


def _parameters(parameters: Mapping[str, Any]) -> str:
    encoded, unstored = values.encode_parameters(parameters)
    if unstored:
        name, kind = next(iter(unstored.items()))
        raise errors.ValueNotStorable(
            f"the parameter {name!r} is a {kind}, which cannot be stored for a later run"
        )
    return encoded
