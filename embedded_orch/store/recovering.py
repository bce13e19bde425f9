"""What becomes of the runs, slots, claims and locks of a process that is gone.

Each operation here is one transaction that may be killed anywhere, repeated, and done by several at
once: whoever comes second finds nothing left to do. Whatever is taken from a process is taken by
another epoch, so that one which was not dead, and comes back, changes nothing of it any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from embedded_orch import times
from embedded_orch.errors import OwnershipLost
from embedded_orch.orchestration.values import Proposal
from embedded_orch.states import StateDetails, StateType
from embedded_orch.store import processes
from embedded_orch.store.transitions import crash, encode_struct, propose

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from embedded_orch.db.port import Transaction

_TO_RESUME = frozenset({StateType.PENDING, StateType.RUNNING, StateType.SCHEDULED})


class Recovered(msgspec.Struct, frozen=True, kw_only=True):
    """What was done about processes that are gone.

    Attributes:
        processes: those that were found dead, and have nothing left.
        crashed: flow runs that are Crashed now, or Cancelled where that was asked for.
        resumable: flow runs that wait to be resumed, since they ask for it.
        put_back: flow runs that were claimed from a queue and not begun: they wait there again.
        task_runs: task runs outside of flows that are Crashed now.
    """

    processes: tuple[UUID, ...] = ()
    crashed: tuple[UUID, ...] = ()
    resumable: tuple[UUID, ...] = ()
    put_back: tuple[UUID, ...] = ()
    task_runs: tuple[UUID, ...] = ()

    def __add__(self, other: Recovered) -> Recovered:
        return Recovered(
            processes=self.processes + other.processes,
            crashed=self.crashed + other.crashed,
            resumable=self.resumable + other.resumable,
            put_back=self.put_back + other.put_back,
            task_runs=self.task_runs + other.task_runs,
        )

    def __bool__(self) -> bool:
        """Whether there was anything to do."""
        return self != NOTHING

    def __str__(self) -> str:
        counts = (
            (len(self.processes), "dead process(es) found"),
            (len(self.crashed), "flow run(s) set Crashed"),
            (len(self.resumable), "flow run(s) to be resumed"),
            (len(self.put_back), "flow run(s) put back into their queue"),
            (len(self.task_runs), "task run(s) set Crashed"),
        )
        found = ", ".join(f"{count} {what}" for count, what in counts if count)
        return found or "nothing to recover"


NOTHING = Recovered()


def bury(
    tx: Transaction,
    *,
    id: UUID,
    epoch: int | None,
    now: int,
    new_id: Callable[[], UUID],
    message: str,
    limit: int,
    is_by_lease: bool = False,
) -> tuple[Recovered, bool]:
    """Set right what a dead process has left, and write down that it has ended.

    Its runs become Crashed, except those that ask to be resumed and those that are paused; what it
    had claimed from a queue and not begun goes back there. With the last of them the process ends,
    and what it held of slots and locks is free. So this may stop anywhere and go on.

    Args:
        tx: a write transaction.
        id: the process.
        epoch: in which it was found dead; nothing is done when it has come back since. None for
            itself, which says goodbye.
        now: microseconds since 1970 UTC.
        new_id: makes the ids of the new states.
        message: what to say of the runs.
        limit: how many runs to set at most.
        is_by_lease: whether it was found dead by its lease alone; nothing is done when it was heard
            of since.

    Returns:
        What was done, and whether something is left.
    """
    row = tx.row("process.to_bury", id=id)
    if row is None or epoch not in (None, row[0]) or (is_by_lease and not row[1]):
        return NOTHING, False
    put_back = _put_back(tx, id, now=now, new_id=new_id, message=message, limit=limit)
    crashed = _crash_flow_runs(tx, id, now=now, new_id=new_id, message=message, limit=limit)
    task_runs = _crash_task_runs(tx, id, now=now, new_id=new_id, message=message, limit=limit)
    if limit in (len(put_back), len(crashed), len(task_runs)):
        return Recovered(crashed=crashed, put_back=put_back, task_runs=task_runs), True
    resumable = _leave(tx, tx.rows("flow_run.to_leave", owner_id=id), now=now)
    processes.end(tx, id=id, now=now)
    return (
        Recovered(
            processes=(id,),
            crashed=crashed,
            resumable=resumable,
            put_back=put_back,
            task_runs=task_runs,
        ),
        False,
    )


def root_of(tx: Transaction, *, run_id: UUID) -> UUID:
    """The flow run that called a flow run, or that called that one, and so on; else itself."""
    while True:
        caller: UUID | None = tx.value("flow_run.caller_of", id=run_id)
        if caller is None:
            return run_id
        run_id = caller


def take_away(
    tx: Transaction,
    *,
    run_id: UUID,
    ended_id: UUID,
    now: int,
    new_id: Callable[[], UUID],
    message: str,
) -> Recovered:
    """Take a run with all that it called from its process; nothing when it has ended.

    It becomes what it would if that process had died: Crashed, or to be resumed. Its slots and
    locks are free.

    Args:
        tx: a write transaction.
        run_id: the run; no other one called it.
        ended_id: for a row that says which process had the run, and has it no more.
        now: microseconds since 1970 UTC.
        new_id: makes the ids of the new states.
        message: what to say of the runs.
    """
    tx.row("flow_run.for_transition", id=run_id)
    family = tx.rows("flow_run.family", id=run_id)
    if not family or family[0][0] != run_id or family[0][2] in (None, ended_id):
        return NOTHING
    owner_id = family[0][2]
    holders = [id for id, *_ in family]
    for id, *_ in family:
        found = tx.rows("task_run.unfinished_of_flow_run", flow_run_id=id)
        holders += [task_run_id for (task_run_id,) in found]
    found_owner = processes.get(tx, id=owner_id)
    if found_owner is None:
        return NOTHING
    row = msgspec.structs.replace(found_owner[0], id=ended_id)
    processes.register_ended(tx, row, now=now)
    crashed: list[UUID] = []
    left: list[tuple[Any, ...]] = []
    for id, epoch, _, on_crash, state_type in family:
        tx.run("flow_run.leave_to", id=id, owner_id=ended_id, epoch=epoch, now=now)
        is_to_crash = on_crash == "fail" or state_type == StateType.CANCELLING
        if is_to_crash and state_type != StateType.PAUSED:
            crash(tx, "flow_run", run_id=id, new_id=new_id, now=now, message=message)
            crashed.append(id)
        else:
            left.append((id, epoch, on_crash, state_type))
    ids = encode_struct([str(id) for id in holders])
    tx.run("slot_claim.delete_of_holders", owner_id=owner_id, holder_ids=ids)
    tx.run("cache_lock.delete_of_holders", owner_id=owner_id, holder_ids=ids)
    return Recovered(crashed=tuple(crashed), resumable=_to_resume(left))


def _put_back(
    tx: Transaction,
    owner_id: UUID,
    *,
    now: int,
    new_id: Callable[[], UUID],
    message: str,
    limit: int,
) -> tuple[UUID, ...]:
    rows = tx.rows("flow_run.to_put_back", owner_id=owner_id, limit=limit)
    for run_id, epoch, fields in rows:
        due = (fields or {}).get("scheduled_time")
        scheduled = Proposal(
            id=new_id(),
            type=StateType.SCHEDULED,
            name="Scheduled",
            timestamp=now,
            message=f"back in its queue: {message}",
            details=StateDetails(
                scheduled_time=times.datetime_from_microseconds(now if due is None else due)
            ),
        )
        propose(tx, "flow_run", run_id=run_id, proposal=scheduled, now=now, epoch=epoch, force=True)
        tx.run("flow_run.put_back", id=run_id, epoch=epoch, now=now)
    return tuple(run_id for run_id, *_ in rows)


def _crash_flow_runs(
    tx: Transaction,
    owner_id: UUID,
    *,
    now: int,
    new_id: Callable[[], UUID],
    message: str,
    limit: int,
) -> tuple[UUID, ...]:
    rows = tx.rows("flow_run.to_crash", owner_id=owner_id, limit=limit)
    for run_id, epoch in rows:
        try:
            crash(
                tx, "flow_run", run_id=run_id, new_id=new_id, now=now, message=message, epoch=epoch
            )
        except OwnershipLost:
            # Somebody took it over since these rows were read, and runs it.
            continue
        tx.run("flow_run.next_epoch", id=run_id, epoch=epoch, now=now)
    return tuple(run_id for run_id, _ in rows)


def _crash_task_runs(
    tx: Transaction,
    owner_id: UUID,
    *,
    now: int,
    new_id: Callable[[], UUID],
    message: str,
    limit: int,
) -> tuple[UUID, ...]:
    rows = tx.rows("task_run.to_crash", owner_id=owner_id, limit=limit)
    for (run_id,) in rows:
        crash(tx, "task_run", run_id=run_id, new_id=new_id, now=now, message=message)
        tx.run("task_run.next_epoch", id=run_id)
    return tuple(run_id for (run_id,) in rows)


def _leave(tx: Transaction, rows: Sequence[tuple[Any, ...]], *, now: int) -> tuple[UUID, ...]:
    """Fence off the last owner of runs that stay as they are; those of them to be resumed."""
    for run_id, epoch, *_ in rows:
        tx.run("flow_run.next_epoch", id=run_id, epoch=epoch, now=now)
    return _to_resume(rows)


def _to_resume(rows: Sequence[tuple[Any, ...]]) -> tuple[UUID, ...]:
    return tuple(
        run_id
        for run_id, _, on_crash, state_type in rows
        if on_crash == "resume" and state_type in _TO_RESUME
    )
