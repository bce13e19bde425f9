"""What can be mended of what a check finds, without guessing: each a part of one transaction.

The history of a run is taken for the truth: it is only ever appended to, while the columns of the
run are written over. What belongs to a run that is gone cannot be seen by anybody, and is removed.
A run is never removed: one whose flow is gone gets a flow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

import msgspec

from embedded_orch.store import slots
from embedded_orch.store.transitions import crash

if TYPE_CHECKING:
    from embedded_orch.db.port import Transaction

Kind = Literal["flow_run", "task_run"]

_MESSAGE = "found by `db repair`: nothing was running it any more"


class Repairer(msgspec.Struct, frozen=True):
    """Who repairs.

    Attributes:
        now: microseconds since 1970 UTC.
        new_id: makes the ids of states.
    """

    now: int
    new_id: Callable[[], UUID]


Mend = Callable[["Transaction", Sequence[Any], Repairer], None]
"""Mends what one row of a check tells of."""

# By what names and what is named: the statement, and what it does in words.
_REFERENCES: dict[tuple[str, str], tuple[str, str]] = {
    ("flow_run_state", "flow_run"): ("delete_flow_run_states", "they are removed"),
    ("task_run_state", "task_run"): ("delete_task_run_states", "they are removed"),
    ("task_run", "flow_run"): ("delete_task_runs", "they are removed"),
    ("flow_run_input", "flow_run"): ("delete_inputs", "they are removed"),
    ("flow_run_wait", "flow_run"): ("delete_waits", "they are removed"),
    ("owed_hooks", "flow_run"): ("delete_owed_hooks", "they are removed"),
    ("removal", "flow_run"): ("delete_removals", "they are removed"),
    ("slot_claim", "concurrency_limit"): ("delete_claims", "they are removed"),
    ("work_queue", "work_pool"): ("delete_queues", "they are removed"),
    ("deployment", "flow"): ("delete_deployments", "they are removed"),
    ("flow_run", "process"): ("forget_owners", "they belong to nobody"),
    ("owed_hooks", "process"): ("forget_claimers", "nobody has taken them"),
    ("flow_run", "work_queue"): ("forget_queues_of_runs", "they wait in no queue"),
    ("deployment", "work_queue"): ("forget_queues_of_deployments", "they have no queue"),
    ("work_pool", "work_queue"): ("forget_default_queues", "they have no default queue"),
}
_LOST_FLOWS = 1_000


def remedy_of_reference(row: Sequence[Any]) -> str | None:
    """What is done about rows that name a row that is not there."""
    child, parent, how_many = row
    if (child, parent) == ("flow_run", "flow"):
        return "they get a flow, named 'recovered' and its id"
    found = _REFERENCES.get((child, parent))
    return found[1] if found is not None and how_many else None


def reference(tx: Transaction, row: Sequence[Any], repairer: Repairer) -> None:
    """Mend all rows of a table that name a row of another one that is not there."""
    child, parent, _ = row
    if (child, parent) == ("flow_run", "flow"):
        for (flow_id,) in tx.rows("mending.lost_flows", limit=_LOST_FLOWS):
            name = f"recovered {flow_id}"
            tx.run("mending.insert_flow", flow_id=flow_id, name=name, now=repairer.now)
        return
    name = f"mending.{_REFERENCES[child, parent][0]}"
    takes_time = child in ("flow_run", "deployment", "work_pool") and parent != "flow"
    tx.run(name, **({"now": repairer.now} if takes_time else {}))


def _changed(kind: str, repairer: Repairer) -> dict[str, object]:
    """When a row was changed, as a parameter; of a task run its state says that."""
    return {} if kind == "task_run" else {"now": repairer.now}


def by_id(statement: str, kind: str) -> Mend:
    """A mend that is one statement about the row whose id comes first."""

    def mend(tx: Transaction, row: Sequence[Any], repairer: Repairer) -> None:
        tx.run(f"mending.{statement}", **{f"{kind}_id": row[0]}, **_changed(kind, repairer))

    return mend


def state_of(kind: Kind) -> Mend:
    """Make the state of a run the last of its history; the other way where it has none."""

    def mend(tx: Transaction, row: Sequence[Any], repairer: Repairer) -> None:
        named = {f"{kind}_id": row[0]}
        if not tx.run(f"mending.{kind}_from_history", **named, **_changed(kind, repairer)):
            tx.run(f"mending.history_of_{kind}", **named)

    return mend


def crash_flow_run(tx: Transaction, row: Sequence[Any], repairer: Repairer) -> None:
    """Set a flow run Crashed, with the task runs that it left unfinished."""
    _crash(tx, "flow_run", row[0], repairer)


def crash_task_run(tx: Transaction, row: Sequence[Any], repairer: Repairer) -> None:
    """Set a task run Crashed."""
    _crash(tx, "task_run", row[0], repairer)


def _crash(tx: Transaction, kind: Kind, run_id: UUID, repairer: Repairer) -> None:
    crash(tx, kind, run_id=run_id, new_id=repairer.new_id, now=repairer.now, message=_MESSAGE)


def give_back_slots(tx: Transaction, row: Sequence[Any], repairer: Repairer) -> None:
    """Free the slots of a claim, and its place in the line."""
    slots.release(tx, claim_id=row[0], now=repairer.now)


def unlock(tx: Transaction, row: Sequence[Any], _: Repairer) -> None:
    """Free the lock of a cache key."""
    tx.run("mending.delete_lock", key=row[0])


def logs(tx: Transaction, row: Sequence[Any], _: Repairer) -> None:
    """Remove what was logged by a run that is gone."""
    flow_run_id, task_run_id, _ = row
    if flow_run_id is not None:
        tx.run("mending.delete_logs", flow_run_id=flow_run_id)
    else:
        tx.run("mending.delete_logs_of_task_run", task_run_id=task_run_id)


def artifact_key(tx: Transaction, row: Sequence[Any], repairer: Repairer) -> None:
    """Have a key of artifacts name its newest one, or remove it."""
    key, _, newest_id = row
    if newest_id is None:
        tx.run("artifact_collection.delete", key=key)
    else:
        tx.run("artifact_collection.set_latest", key=key, latest_id=newest_id, now=repairer.now)
