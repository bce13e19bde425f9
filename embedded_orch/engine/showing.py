"""Runs as the user's hooks and conditions are given them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedded_orch import errors
from embedded_orch.engine.effects import Read
from embedded_orch.engine.run_logging import (
    FLOW_RUNS,
    TASK_RUNS,
    RunElsewhere,
    RunLogger,
    logger_of_run_elsewhere,
)
from embedded_orch.runs import FlowRun, TaskRun
from embedded_orch.store import flow_runs, task_runs

if TYPE_CHECKING:
    from uuid import UUID

    from embedded_orch.db.port import Database, Transaction
    from embedded_orch.engine.engine import Engine


def flow_run_shown(database: Database, run_id: UUID) -> Read[FlowRun]:
    """A flow run as it is on record; RunNotFound if it was removed."""

    def read(tx: Transaction) -> FlowRun:
        for row in flow_runs.get_flow_runs(tx, [run_id]):
            return FlowRun(database, row)
        raise errors.RunNotFound(f"flow run {run_id} is not in {database.url} any more")

    return Read(database, read)


def task_run_shown(database: Database, run_id: UUID) -> Read[TaskRun]:
    """A task run as it is on record; RunNotFound if it was removed."""

    def read(tx: Transaction) -> TaskRun:
        for row in task_runs.get_task_runs(tx, [run_id]):
            return TaskRun(database, row)
        raise errors.RunNotFound(f"task run {run_id} is not in {database.url} any more")

    return Read(database, read)


def logger_of_shown(engine: Engine, run: FlowRun | TaskRun) -> RunLogger:
    """The logger of a run that need not be the one that the running code is in."""
    if isinstance(run, FlowRun):
        here = RunElsewhere(engine, run.id, None, run.name)
        return logger_of_run_elsewhere(FLOW_RUNS, here, {"flow_run_name": run.name})
    here = RunElsewhere(engine, run.flow_run_id, run.id, run.name)
    return logger_of_run_elsewhere(TASK_RUNS, here, {"task_run_name": run.name})
