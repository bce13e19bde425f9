"""The statements of every task run and flow run, as SQLite plans them."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

import embedded_orch
from embedded_orch.db.statements import Catalog


@pytest.mark.parametrize(
    "name",
    [
        "task_run.insert_owned",
        "task_run.insert",
        "task_run.update_state",
        "task_run_state.insert",
        "task_run_state.insert_begun",
        "task_run_state.insert_whole",
        "flow_run.insert",
        "flow_run.update_state",
        "flow_run_state.insert",
        "flow_run_state.insert_begun",
    ],
)
def test_no_table_is_made_for_a_statement_each_time_it_runs(tmp_path: Path, name: str) -> None:
    path = tmp_path / "orch.db"
    embedded_orch.open(path).close()
    statement = Catalog("sqlite")[name]
    connection = apsw.Connection(str(path))
    values = [1] * len(statement.parameters)
    steps = [row[1] for row in connection.execute(f"explain {statement.sql}", values)]
    connection.close()
    assert "OpenWrite" in steps
    assert not {"OpenEphemeral", "OpenAutoindex", "SorterOpen"} & set(steps)
