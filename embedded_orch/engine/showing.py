"""Runs as the user's hooks and conditions are given them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedded_orch.engine.effects import Read
from embedded_orch.runs import FlowRun, TaskRun
from embedded_orch.store import flow_runs, task_runs

if TYPE_CHECKING:
    from uuid import UUID

    from embedded_orch.db.port import Database, Transaction


def flow_run_shown(database: Database, run_id: UUID) -> Read[FlowRun]:
    """A flow run as it is on record."""

    def read(tx: Transaction) -> FlowRun:
        [row] = flow_runs.get_flow_runs(tx, [run_id])
        return FlowRun(database, row)

    return Read(database, read)


def task_run_shown(database: Database, run_id: UUID) -> Read[TaskRun]:
    """A task run as it is on record."""

    def read(tx: Transaction) -> TaskRun:
        [row] = task_runs.get_task_runs(tx, [run_id])
        return TaskRun(database, row)

    return Read(database, read)
