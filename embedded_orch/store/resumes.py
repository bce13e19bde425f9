"""What is written when a run is resumed: how often that was, and what of it is to be run again."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from embedded_orch.orchestration.values import Proposal
from embedded_orch.states import TERMINAL_TYPES, StateType
from embedded_orch.store import caching
from embedded_orch.store.transitions import crash, propose

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedded_orch.db.port import Transaction

SUPERSEDED = "Superseded"
"""The name of the state of a run that has completed, and is to be run again nevertheless."""
_FIRST = UUID(int=0)
_NAMED = 5
"""How many task runs a message names."""


# -- running again what has completed --------------------------------------------------------------


def supersede(
    tx: Transaction, *, run_id: UUID, first: UUID, now: int, new_id: Callable[[], UUID]
) -> None:
    """Have the completed calls of a flow run made again, from one of them on.

    With it goes what called them, since nobody makes a call inside of a task that counts as
    completed; and the flow runs that they called, as a whole. All of it stays in the histories. The
    ids of the states are made here: a second time there is nothing left to set.

    Args:
        tx: a write transaction.
        run_id: the flow run.
        first: the task run of the first of the calls.
        now: microseconds since 1970 UTC.
        new_id: makes the ids of the states.
    """
    row = tx.row("flow_run.for_transition", id=run_id)
    if row is not None and row[1] == StateType.COMPLETED:
        propose(
            tx, "flow_run", run_id=run_id, proposal=_superseded(new_id(), now), now=now, epoch=None
        )
    ids: list[UUID] = []
    caller: UUID | None = tx.value("task_run.caller_of", id=first)
    while caller is not None:
        ids.append(caller)
        caller = tx.value("task_run.caller_of", id=caller)
    rows = tx.rows("task_run.to_supersede", flow_run_id=run_id, first_id=first)
    for task_run_id in [*ids, *(id for (id,) in rows)]:
        _supersede_call(tx, task_run_id, now=now, new_id=new_id)


def _supersede_call(
    tx: Transaction, task_run_id: UUID, *, now: int, new_id: Callable[[], UUID]
) -> None:
    child = tx.row("flow_run.child_of", parent_task_run_id=task_run_id)
    if child is not None and child[1] == StateType.COMPLETED:
        # It takes the task run that tracks it along.
        supersede(tx, run_id=child[0], first=_FIRST, now=now, new_id=new_id)
        return
    row = tx.row("task_run.for_transition", id=task_run_id)
    if row is None or row[1] != StateType.COMPLETED:
        return
    # By force: the rules keep a value that is there.
    propose(
        tx,
        "task_run",
        run_id=task_run_id,
        proposal=_superseded(new_id(), now),
        now=now,
        epoch=None,
        force=True,
    )
    caching.forget_of_run(tx, run_id=task_run_id)


def _superseded(id: UUID, now: int) -> Proposal:
    return Proposal(
        id=id,
        type=StateType.CANCELLED,
        name=SUPERSEDED,
        timestamp=now,
        message="what it completed with does not count any more: it is to be run again",
    )


# -- resuming without being asked to ---------------------------------------------------------------


def count_automatic(tx: Transaction, *, run_id: UUID, now: int) -> tuple[int, int]:
    """Which automatic resume in a row this one is, and how many calls of the run have completed.

    One more completed call, also in a flow that it called, begins a new row. A run that only slept,
    or waited for a signal, has not killed its process, and is not counted.

    Args:
        tx: a write transaction.
        run_id: the run, as its process left it.
        now: microseconds since 1970 UTC.
    """
    row = tx.row("flow_run.auto_resumes", id=run_id)
    completed: int = tx.value("task_run.completed_below", flow_run_id=run_id)
    before = 0 if row is None or completed > row[1] else row[0]
    waits = tx.value("flow_run_wait.open_below", flow_run_id=run_id, now=now)
    is_waiting = waits and not tx.rows("task_run.running_below", flow_run_id=run_id, limit=1)
    return before if is_waiting else before + 1, completed


def give_up(
    tx: Transaction, *, run_id: UUID, limit: int, now: int, new_id: Callable[[], UUID]
) -> bool:
    """Set a run Crashed for good that was resumed too often in vain; whether it was.

    Nothing when somebody has taken it since.

    Args:
        tx: a write transaction.
        run_id: the run.
        limit: how many automatic resumes in a row it may have.
        now: microseconds since 1970 UTC.
        new_id: makes the ids of the states.
    """
    left = tx.row("flow_run.left_behind", id=run_id)
    if left is None:
        return False
    number, _ = count_automatic(tx, run_id=run_id, now=now)
    if number <= limit:
        return False
    rows = tx.rows("task_run.running_below", flow_run_id=run_id, limit=_NAMED)
    running = ", ".join(f"task run {name} ({key})" for name, key in rows)
    message = (
        f"{_times(limit)} before one more task had completed; running when it died: "
        f"{running or 'no task, but the flow itself'}. Resume it by hand once that is mended"
    )
    _crash_all(tx, run_id, epoch=left[0], message=message, now=now, new_id=new_id)
    return True


def _times(limit: int) -> str:
    if limit == 0:
        return "it is not resumed without being asked to, and its process died"
    often = "once" if limit == 1 else f"{limit} times in a row"
    return f"resumed {often}, and each time its process died"


def _crash_all(
    tx: Transaction,
    run_id: UUID,
    *,
    epoch: int | None,
    message: str,
    now: int,
    new_id: Callable[[], UUID],
) -> None:
    for (task_run_id,) in tx.rows("task_run.unfinished_of_flow_run", flow_run_id=run_id):
        child = tx.row("flow_run.child_of", parent_task_run_id=task_run_id)
        if child is not None and StateType(child[1]) not in TERMINAL_TYPES:
            _crash_all(tx, child[0], epoch=None, message=message, now=now, new_id=new_id)
    crash(tx, "flow_run", run_id=run_id, new_id=new_id, now=now, message=message, epoch=epoch)
