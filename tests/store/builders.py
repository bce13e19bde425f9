"""Rows with good defaults, written by the store's own operations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedded_orch.orchestration.values import Proposal
from embedded_orch.states import StateType
from embedded_orch.store import flow_runs, processes, task_runs
from embedded_orch.store.flow_runs import FlowRunRow, NewFlowRun
from embedded_orch.store.processes import ProcessRow
from embedded_orch.store.task_runs import NewTaskRun, TaskRunRow

if TYPE_CHECKING:
    from uuid import UUID

    from embedded_orch.db.port import Database, Transaction
    from embedded_orch.process import Process

PATHS = {
    StateType.SCHEDULED: [StateType.SCHEDULED],
    StateType.PENDING: [StateType.PENDING],
    StateType.RUNNING: [StateType.PENDING, StateType.RUNNING],
    StateType.COMPLETED: [StateType.PENDING, StateType.RUNNING, StateType.COMPLETED],
    StateType.FAILED: [StateType.PENDING, StateType.RUNNING, StateType.FAILED],
    StateType.CANCELLED: [StateType.PENDING, StateType.CANCELLED],
    StateType.CRASHED: [StateType.PENDING, StateType.RUNNING, StateType.CRASHED],
    StateType.PAUSED: [StateType.PENDING, StateType.RUNNING, StateType.PAUSED],
    StateType.CANCELLING: [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING],
}
"""How a run comes to each state."""


def a_proposal(process: Process, type: StateType, **fields: Any) -> Proposal:
    named = {"id": process.new_id(), "name": type.value.capitalize(), "timestamp": process.now()}
    return Proposal(type=type, **{**named, **fields})


def proposals(process: Process, state: StateType) -> list[Proposal]:
    """The states of a run that has come to ``state``."""
    return [a_proposal(process, type) for type in PATHS[state]]


def a_new_flow_run(process: Process, **fields: Any) -> NewFlowRun:
    named = {
        "id": process.new_id(),
        "flow_id": process.new_id(),
        "flow_name": "etl",
        "name": "brave-otter",
        "owner_id": None,
    }
    return NewFlowRun(**{**named, **fields})


def write_flow_run(
    tx: Transaction, process: Process, state: StateType = StateType.RUNNING, **fields: Any
) -> UUID:
    new = a_new_flow_run(process, **fields)
    flow_runs.create_flow_run(tx, new, proposals(process, state), now=process.now())
    return new.id


def a_flow_run(
    database: Database, process: Process, state: StateType = StateType.RUNNING, **fields: Any
) -> UUID:
    """The id of a flow run in ``state``."""
    return database.write(lambda tx: write_flow_run(tx, process, state, **fields))


def a_new_task_run(process: Process, **fields: Any) -> NewTaskRun:
    named = {
        "id": process.new_id(),
        "flow_run_id": None,
        "parent_task_run_id": None,
        "name": "load-1a2",
        "task_key": "load",
        "dynamic_key": str(process.new_id()),
    }
    return NewTaskRun(**{**named, **fields})


def write_task_run(
    tx: Transaction, process: Process, state: StateType = StateType.RUNNING, **fields: Any
) -> UUID:
    new = a_new_task_run(process, **fields)
    task_runs.start_task_run(tx, new, proposals(process, state), now=process.now(), epoch=None)
    return new.id


def a_task_run(
    database: Database, process: Process, state: StateType = StateType.RUNNING, **fields: Any
) -> UUID:
    """The id of a task run in ``state``."""
    return database.write(lambda tx: write_task_run(tx, process, state, **fields))


def an_owner(database: Database, process: Process, **fields: Any) -> ProcessRow:
    """A process that is written down."""
    named = {
        "id": process.new_id(),
        "host": "here",
        "boot_id": "boot",
        "pid": 7,
        "pid_started": 1,
        "life_file": None,
        "life_slot": None,
    }
    row = ProcessRow(**{**named, **fields})
    database.write(lambda tx: processes.register(tx, row, now=process.now()))
    return row


def flow_run(database: Database, run_id: UUID) -> FlowRunRow:
    return database.read(lambda tx: flow_runs.get_flow_runs(tx, [run_id]))[0]


def task_run(database: Database, run_id: UUID) -> TaskRunRow:
    return database.read(lambda tx: task_runs.get_task_runs(tx, [run_id]))[0]


def flow_history(database: Database, run_id: UUID) -> list[str]:
    found = database.read(lambda tx: flow_runs.flow_run_history(tx, run_id=run_id))
    return [state.name for state in found]


def task_history(database: Database, run_id: UUID) -> list[str]:
    found = database.read(lambda tx: task_runs.task_run_history(tx, run_id=run_id))
    return [state.name for state in found]


TABLES = ("flow", "flow_run", "flow_run_state", "task_run", "task_run_state", "process")


def everything(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Every row, to see that nothing was written."""
    opened = database.begin(read_only=True)
    try:
        return {
            table: sorted(opened.execute(f"select * from {table}", ()), key=repr)
            for table in TABLES
        }
    finally:
        opened.roll_back()
