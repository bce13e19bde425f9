"""What is on record of why a run is where it is, read in one transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from embedded_orch.store import processes
from embedded_orch.store.flow_runs import FlowRunRow, get_flow_runs
from embedded_orch.store.processes import ProcessRow
from embedded_orch.store.slots import Held
from embedded_orch.store.task_runs import TaskRunRow, get_task_runs

if TYPE_CHECKING:
    from embedded_orch.db.port import Transaction

_MOST = 10
"""Task runs, and holders of slots, that are read at most."""


class WantedSlot(msgspec.Struct, frozen=True):
    """A limit whose slots a run waits for, and who has them."""

    name: str
    slot_limit: int
    since: int
    holders: tuple[tuple[Held, str | None, ProcessRow | None], ...]
    """Each claim, the name of the run that made it, and its process."""


class OpenWait(msgspec.Struct, frozen=True):
    """What a run waits for by itself: a signal, or a time."""

    signal: str | None
    deadline: int | None


class Queue(msgspec.Struct, frozen=True):
    """The queue that a run waits in."""

    name: str
    pool_name: str
    is_paused: bool
    pool_is_paused: bool
    concurrency_limit: int | None
    pool_concurrency_limit: int | None


class Record(msgspec.Struct, frozen=True):
    """A run, and all that its explanation takes."""

    flow_run: FlowRunRow | None
    task_run: TaskRunRow | None
    owner: ProcessRow | None
    has_ended: bool
    at_work: tuple[TaskRunRow, ...] = ()
    child: FlowRunRow | None = None
    upstream: tuple[TaskRunRow, ...] = ()
    slots: tuple[WantedSlot, ...] = ()
    waits: tuple[OpenWait, ...] = ()
    queue: Queue | None = None


def read_record(tx: Transaction, *, run_id: UUID, now: int) -> Record | None:
    """What is on record of a flow run or task run; None when there is neither of this id.

    Args:
        tx: a transaction.
        run_id: the run.
        now: microseconds since 1970 UTC.
    """
    flow_runs = get_flow_runs(tx, [run_id])
    if flow_runs:
        return _of_flow_run(tx, flow_runs[0], now=now)
    task_runs = get_task_runs(tx, [run_id])
    return _of_task_run(tx, task_runs[0]) if task_runs else None


def _of_flow_run(tx: Transaction, run: FlowRunRow, *, now: int) -> Record:
    owner, has_ended = _owner(tx, run.owner_id)
    ids = [row[0] for row in tx.rows("task_run.unfinished_of_flow_run", flow_run_id=run.id)]
    queue = tx.row("work_queue.of_flow_run", flow_run_id=run.id)
    return Record(
        flow_run=run,
        task_run=None,
        owner=owner,
        has_ended=has_ended,
        at_work=tuple(get_task_runs(tx, ids[:_MOST])),
        slots=_slots(tx, run.owner_id, run.id),
        waits=tuple(
            OpenWait(*row) for row in tx.rows("flow_run_wait.open", flow_run_id=run.id, now=now)
        ),
        queue=None if queue is None else Queue(*queue),
    )


def _of_task_run(tx: Transaction, run: TaskRunRow) -> Record:
    owner_id = tx.value("task_run.owner_of", id=run.id)
    owner, has_ended = _owner(tx, owner_id)
    flow_runs = [] if run.flow_run_id is None else get_flow_runs(tx, [run.flow_run_id])
    child = tx.row("flow_run.child_of", parent_task_run_id=run.id)
    return Record(
        flow_run=flow_runs[0] if flow_runs else None,
        task_run=run,
        owner=owner,
        has_ended=has_ended,
        child=None if child is None else get_flow_runs(tx, [child[0]])[0],
        upstream=tuple(get_task_runs(tx, _upstream(run))),
        slots=_slots(tx, owner_id, run.id),
    )


def _owner(tx: Transaction, owner_id: UUID | None) -> tuple[ProcessRow | None, bool]:
    found = None if owner_id is None else processes.get(tx, id=owner_id)
    return (None, False) if found is None else found


def _upstream(run: TaskRunRow) -> list[UUID]:
    ids = [UUID(each["id"]) for inputs in (run.task_inputs or {}).values() for each in inputs]
    return list(dict.fromkeys(ids))[:_MOST]


def _slots(tx: Transaction, owner_id: UUID | None, run_id: UUID) -> tuple[WantedSlot, ...]:
    """The limits that a run waits for, and who holds their slots."""
    if owner_id is None:
        return ()
    rows = tx.rows("slot_claim.waiting_of_holder", owner_id=owner_id, holder_id=run_id)
    return tuple(
        WantedSlot(name, slot_limit, since, _holders(tx, limit_id))
        for limit_id, name, slot_limit, since in rows
    )


def _holders(
    tx: Transaction, limit_id: UUID
) -> tuple[tuple[Held, str | None, ProcessRow | None], ...]:
    held = [Held(*row) for row in tx.rows("slot_claim.of_limit", limit_id=limit_id)]
    holding = [claim for claim in held if claim.state == "HOLDING"][:_MOST]
    ids = [claim.holder_id for claim in holding if claim.holder_id is not None]
    names = {run.id: run.name for run in get_flow_runs(tx, ids)}
    names |= {run.id: run.name for run in get_task_runs(tx, ids)}
    return tuple(
        (
            claim,
            None if claim.holder_id is None else names.get(claim.holder_id),
            _owner(tx, claim.owner_id)[0],
        )
        for claim in holding
    )
