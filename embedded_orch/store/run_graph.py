"""The graph of a flow run: its calls, and which of them waited for which."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from embedded_orch.errors import RunNotFound
from embedded_orch.states import StateType
from embedded_orch.store.flow_runs import get_flow_runs

if TYPE_CHECKING:
    from embedded_orch.db.port import Transaction


class GraphNode(msgspec.Struct, frozen=True, kw_only=True):
    """One call in a flow run. Times are microseconds since 1970 UTC.

    Attributes:
        id: of the task run.
        kind: ``task-run``, or ``flow-run`` for a flow that was called.
        label: its name.
        child_flow_run_id: the flow run, where a flow was called.
        state_type: of its current state.
        start_time: when it first ran.
        end_time: when it ended.
        parents: the calls whose results or states it took, or that it waited for.
        children: those that took its own.
        encapsulating: the calls that it was made in, the outermost first.
    """

    id: UUID
    kind: str
    label: str
    child_flow_run_id: UUID | None
    state_type: StateType | None
    start_time: int | None
    end_time: int | None
    parents: list[UUID]
    children: list[UUID]
    encapsulating: list[UUID]


class RunGraph(msgspec.Struct, frozen=True):
    """The graph of a flow run.

    Attributes:
        nodes: in the order in which the calls began.
        root_node_ids: of those that waited for nothing and were made in nothing.
    """

    nodes: list[GraphNode]
    root_node_ids: list[UUID]


def run_graph(tx: Transaction, *, flow_run_id: UUID) -> RunGraph:
    """The graph of a flow run, without those of the flows that it called.

    Raises:
        RunNotFound: no flow run has this id.
    """
    rows = tx.rows("task_run.graph", flow_run_id=flow_run_id)
    if not rows and not get_flow_runs(tx, [flow_run_id]):
        raise RunNotFound(f"no flow run has the id {flow_run_id} in this database")
    callers: dict[UUID, UUID | None] = {row[0]: row[5] for row in rows}
    parents = {row[0]: _inputs(row[6], callers) for row in rows}
    children: dict[UUID, list[UUID]] = {id: [] for id in callers}
    for id, found in parents.items():
        for parent in found:
            children[parent].append(id)
    nodes = [
        GraphNode(
            id=row[0],
            kind="task-run" if row[7] is None else "flow-run",
            label=row[1] if row[8] is None else row[8],
            child_flow_run_id=row[7],
            state_type=None if row[2] is None else StateType(row[2]),
            start_time=row[3],
            end_time=row[4],
            parents=parents[row[0]],
            children=children[row[0]],
            encapsulating=_around(row[0], callers),
        )
        for row in rows
    ]
    return RunGraph(nodes, [each.id for each in nodes if not each.parents + each.encapsulating])


def _inputs(recorded: object, known: dict[UUID, UUID | None]) -> list[UUID]:
    """The runs among the inputs that are calls of the same flow run, each once."""
    if not isinstance(recorded, dict):
        return []
    ids = [UUID(each["id"]) for inputs in recorded.values() for each in inputs]
    return [id for id in dict.fromkeys(ids) if id in known]


def _around(id: UUID, callers: dict[UUID, UUID | None]) -> list[UUID]:
    found: list[UUID] = []
    caller = callers.get(id)
    while caller is not None and caller in callers:
        found.insert(0, caller)
        caller = callers[caller]
    return found
