"""Removing runs that ended long ago, with all that belongs to them.

A run goes as a tree: the flow run that nobody called, what it called, and what they called, or
nothing of it. The tree is looked at by a read; the transaction that begins to remove it sees
whether it is still as it was, and marks all of its flow runs (table ``removal``). From there on
nobody can resume them, so it does no harm that a large tree takes several transactions, and that a
process may die between two of them: whoever comes next goes on with what is marked.

Everything here removes at most so many rows, and may be done by several processes at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from embedded_orch.states import StateType
from embedded_orch.store import caching

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedded_orch.db.port import Transaction

COMPLETED = (StateType.COMPLETED,)
UNFINISHED = (StateType.FAILED, StateType.CRASHED, StateType.CANCELLED)
"""The states of runs that ended otherwise, and that may be resumed."""

_FIRST = UUID(int=0)
_MARKER = "last step of removal "
# A process that dies leaves its marker, and this many of them are kept.
_MOST_MARKERS = 64


class Removed(msgspec.Struct):
    """How many of each kind were removed, or would be.

    Attributes:
        flow_runs: with their states, inputs and owed hooks.
        task_runs: with their states.
        log_lines: of those runs.
        artifacts: of those runs.
        cached_results: that had expired, and where it is asked for those of the runs.
        processes: that ran something once, and that no run names any more.
    """

    flow_runs: int = 0
    task_runs: int = 0
    log_lines: int = 0
    artifacts: int = 0
    cached_results: int = 0
    processes: int = 0

    def add(self, other: Removed) -> None:
        """Count more."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def total(self) -> int:
        """All of them."""
        return sum(getattr(self, name) for name in self.__struct_fields__)


class Extent(msgspec.Struct, frozen=True):
    """What goes with a run.

    Attributes:
        artifacts: its artifacts, but for the newest of each key.
        cached_results: what it has cached and that does not expire by itself.
    """

    artifacts: bool
    cached_results: bool


class Node(msgspec.Struct, frozen=True):
    """One flow run of a tree, as it was seen.

    Attributes:
        id: of the run.
        depth: how many runs called one another above it.
        state_id: of its state.
        is_over: whether it has ended, and no living process is about to call its hooks.
    """

    id: UUID
    depth: int
    state_id: UUID | None
    is_over: bool


class Root(msgspec.Struct, frozen=True):
    """A flow run that nobody called, and when it ended."""

    id: UUID
    end_time: int


def ended_flow_runs(
    tx: Transaction, *, type: StateType, before: int, after: Root | None, limit: int
) -> list[Root]:
    """Flow runs that nobody called and that ended in a state before a time; oldest ends first.

    Args:
        tx: a transaction.
        type: of the state.
        before: microseconds since 1970 UTC.
        after: the last one of the page before.
        limit: how many at most.
    """
    last = after or Root(_FIRST, -(1 << 62))
    rows = tx.rows(
        "retention.ended_flow_runs",
        state_type=type.value,
        end_time_before=before,
        after_end_time=last.end_time,
        after_id=last.id,
        limit=limit,
    )
    return [Root(id, end_time) for id, _, end_time in rows]


def tree_of(tx: Transaction, root_id: UUID) -> list[Node]:
    """A flow run with all that it called."""
    rows = tx.rows("retention.tree_of", flow_run_id=root_id)
    return [Node(id, depth, state_id, bool(is_over)) for id, depth, state_id, is_over in rows]


def may_go(tree: Sequence[Node]) -> bool:
    """Whether all of a tree is over."""
    return all(node.is_over for node in tree)


def mark(tx: Transaction, tree: Sequence[Node]) -> bool:
    """Begin to remove a tree; False, and nothing is changed, when it is not as it was seen."""
    runs = _json([{"id": str(each.id), "state_id": str(each.state_id)} for each in tree])
    if len(tx.rows("retention.unchanged", runs=runs)) != len(tree):
        return False
    tx.run("retention.mark", runs=_json([{"id": str(e.id), "depth": e.depth} for e in tree]))
    return True


def remove_marked(tx: Transaction, extent: Extent, *, limit: int) -> tuple[Removed, bool]:
    """Remove some of what is marked: at most ``limit`` rows, and those that go along with them.

    Returns:
        What was removed, and whether nothing is left that is marked.
    """
    removed = Removed()
    while removed.total < limit:
        row = tx.row("retention.next_marked")
        if row is None:
            return removed, True
        run_id, owner_id = row
        removed.add(_remove_below(tx, run_id, extent, room=limit - removed.total))
        if removed.total >= limit:
            break
        removed.flow_runs += tx.run("retention.delete_flow_run", flow_run_id=run_id)
        if owner_id is not None:
            removed.processes += tx.run("retention.delete_process", process_id=owner_id)
    return removed, False


def _remove_below(tx: Transaction, run_id: UUID, extent: Extent, *, room: int) -> Removed:
    """Remove what belongs to a flow run; something is left of it only when all the room is used."""
    removed = Removed()
    removed.log_lines = tx.run("retention.delete_logs", flow_run_id=run_id, limit=room)
    if extent.artifacts and removed.total < room:
        removed.artifacts = tx.run(
            "retention.delete_artifacts", flow_run_id=run_id, limit=room - removed.total
        )
    if removed.total < room:
        left = room - removed.total
        rows = tx.rows("retention.task_runs_of", flow_run_id=run_id, limit=left)
        removed.add(_remove_task_runs(tx, [id for (id,) in rows], extent))
    return removed


def _remove_task_runs(tx: Transaction, ids: Sequence[UUID], extent: Extent) -> Removed:
    removed = Removed()
    if not ids:
        return removed
    encoded = _ids(ids)
    if extent.cached_results:
        removed.cached_results = tx.run("retention.delete_cached_results", ids=encoded)
    removed.task_runs = tx.run("retention.delete_task_runs", ids=encoded)
    return removed


def remove_task_runs_outside_flows(
    tx: Transaction, extent: Extent, *, type: StateType, before: int, limit: int
) -> tuple[Removed, bool]:
    """Remove some task runs that no flow called and that ended in a state before a time.

    Returns:
        What was removed, and whether none is left.
    """
    removed = Removed()
    rows = tx.rows(
        "retention.ended_task_runs", state_type=type.value, end_time_before=before, limit=limit
    )
    gone: list[UUID] = []
    for (id,) in rows:
        room = limit - removed.total - len(gone)
        if room <= 0:
            break
        lines = tx.run("retention.delete_logs_of_task_run", task_run_id=id, limit=room)
        removed.log_lines += lines
        if extent.artifacts and lines < room:
            shown = tx.run(
                "retention.delete_artifacts_of_task_run", task_run_id=id, limit=room - lines
            )
            removed.artifacts += shown
            lines += shown
        if lines < room:
            gone.append(id)
    removed.add(_remove_task_runs(tx, gone, extent))
    return removed, len(gone) == len(rows) < limit


def remove_expired_results(tx: Transaction, *, now: int) -> Removed:
    """Remove the cached results that nobody can find any more."""
    return Removed(cached_results=caching.forget_expired(tx, now=now))


def remove_processes(
    tx: Transaction, *, before: int, after: UUID | None, limit: int
) -> tuple[Removed, UUID | None]:
    """Remove some processes that ended before a time and that no run names.

    Args:
        tx: a write transaction.
        before: microseconds since 1970 UTC.
        after: the last one that was looked at; None to begin with the oldest.
        limit: how many are looked at.

    Returns:
        What was removed, and the last one that was looked at; None at the end.
    """
    rows = tx.rows("retention.ended_processes", after_id=after or _FIRST, limit=limit)
    removed = Removed()
    for id, ended in rows:
        if ended is not None and ended < before:
            removed.processes += tx.run("retention.delete_process", process_id=id)
    return removed, rows[-1][0] if len(rows) == limit else None


def is_last_step(tx: Transaction, step_id: UUID, *, of: UUID) -> bool:
    """Whether a transaction was the last one of a removal that did something.

    Args:
        tx: a write transaction.
        step_id: the transaction, as :func:`note_step` has noted it in it.
        of: the removal.
    """
    return bool(tx.value("upkeep.position", name=f"{_MARKER}{of}") == step_id)


def note_step(tx: Transaction, step_id: UUID, *, of: UUID, now: int) -> None:
    """Note in a transaction of a removal which one it is.

    Each removal has a marker of its own: what another one commits between a commit that is in doubt
    and its repeat must not hide that it got through.
    """
    tx.run("upkeep.note", name=f"{_MARKER}{of}", now=now, position_id=step_id)


def forget_old_steps(tx: Transaction, *, of: UUID) -> None:
    """Forget the markers of removals that are over, but for the newest; never that of this one."""
    tx.run(
        "upkeep.forget_notes",
        name=f"{_MARKER}{of}",
        names=f"{_MARKER}%",
        limit=_MOST_MARKERS,
    )


# -- counting what would be removed ----------------------------------------------------------------


def count_trees(tx: Transaction, trees: Sequence[Sequence[Node]], extent: Extent) -> Removed:
    """What would be removed with some trees."""
    ids = [node.id for tree in trees for node in tree]
    if not ids:
        return Removed()
    counted = _counted(tx.row("retention.counts", ids=_ids(ids)), extent)
    counted.flow_runs = len(ids)
    return counted


def count_task_runs_outside_flows(
    tx: Transaction, extent: Extent, *, type: StateType, before: int
) -> Removed:
    """What would be removed of task runs that no flow called."""
    rows = tx.rows(
        "retention.ended_task_runs", state_type=type.value, end_time_before=before, limit=1 << 31
    )
    if not rows:
        return Removed()
    row = tx.row("retention.counts_of_task_runs", ids=_ids([id for (id,) in rows]))
    return _counted(None if row is None else (len(rows), *row), extent)


def count_expired_results(tx: Transaction, *, now: int) -> Removed:
    """How many cached results nobody can find any more."""
    return Removed(cached_results=int(tx.value("retention.expired_results", now=now)))


def _counted(row: tuple[Any, ...] | None, extent: Extent) -> Removed:
    assert row is not None, "a row of counts is always there"
    task_runs, log_lines, artifacts, cached_results = row
    return Removed(
        task_runs=task_runs,
        log_lines=log_lines,
        artifacts=artifacts if extent.artifacts else 0,
        cached_results=cached_results if extent.cached_results else 0,
    )


def _ids(ids: Sequence[UUID]) -> str:
    return _json([str(id) for id in ids])


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
