"""The tables for people: read by any SQLite tool, from another process, without ours."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

import embedded_orch
from embedded_orch import Orchestrator, flow, task

A_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}")
VIEWS = ("flows", "flow_runs", "task_runs", "flow_run_states", "task_run_states")

Read = Callable[[str], list[dict[str, Any]]]


@task(tags=["io"])
def double(number: int) -> int:
    return 2 * number


@task
def fail() -> None:
    raise ValueError("on purpose")


@flow
def doubled(numbers: list[int]) -> list[int]:
    return [double(number) for number in numbers]


@flow
def failing() -> None:
    fail()


@pytest.fixture
def orch(tmp_path: Path) -> Iterator[Orchestrator]:
    """A file with a run that completed and one that failed, open here."""
    with embedded_orch.open(tmp_path / "orch.db") as opened:
        doubled([21])
        with pytest.raises(ValueError, match="on purpose"):
            failing()
        yield opened


@pytest.fixture
def read(orch: Orchestrator, tmp_path: Path) -> Read:
    """Rows as the standard library's SQLite gives them to another process, meanwhile."""

    def read(sql: str) -> list[dict[str, Any]]:
        program = (
            "import json, sqlite3, sys\n"
            "connection = sqlite3.connect(sys.argv[1])\n"
            "connection.row_factory = sqlite3.Row\n"
            "print(json.dumps([dict(row) for row in connection.execute(sys.argv[2])]))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "orch.db"), sql],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found

    return read


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_holds_text_and_numbers_alone(read: Read, view: str) -> None:
    # A BLOB would not be JSON.
    rows = read(f"select * from {view}")

    assert len(rows) >= 2


def test_ids_are_text_as_python_writes_them(read: Read, orch: Orchestrator) -> None:
    written = {row["id"] for row in read("select id from flow_runs")}

    assert written == {str(run.id) for run in orch.flow_runs.find()}
    assert {row["id"] for row in read("select id from task_runs")} == {
        str(run.id) for run in orch.task_runs.find()
    }


def test_views_are_joined_by_their_ids(read: Read) -> None:
    rows = read(
        "select flow_runs.flow_name, task_runs.name, task_run_states.name as state"
        " from flow_runs join task_runs on task_runs.flow_run_id = flow_runs.id"
        " join task_run_states on task_run_states.task_run_id = task_runs.id"
        " where task_run_states.type in ('COMPLETED', 'FAILED') order by flow_runs.id"
    )

    assert [(row["flow_name"], row["state"]) for row in rows] == [
        ("doubled", "Completed"),
        ("failing", "Failed"),
    ]


@pytest.mark.parametrize(
    ("view", "columns"),
    [
        ("flows", ["created"]),
        ("flow_runs", ["state_timestamp", "start_time", "end_time", "created"]),
        ("task_runs", ["state_timestamp", "start_time", "end_time", "created"]),
        ("flow_run_states", ["timestamp"]),
        ("task_run_states", ["timestamp"]),
    ],
)
def test_times_are_text_that_sqlite_can_reckon_with(
    read: Read, view: str, columns: list[str]
) -> None:
    for column in columns:
        rows = read(f"select {column} as time, julianday({column}) as day from {view}")

        assert all(A_TIME.fullmatch(row["time"]) for row in rows)
        assert all(isinstance(row["day"], float) for row in rows)


def test_times_are_utc_and_to_the_millisecond(read: Read, orch: Orchestrator) -> None:
    run = next(orch.flow_runs.find(flow_name="doubled"))
    assert run.start_time is not None

    (row,) = read("select start_time from flow_runs where flow_name = 'doubled'")

    shown = datetime.fromisoformat(row["start_time"]).replace(tzinfo=UTC)
    assert abs((shown - run.start_time).total_seconds()) < 0.0011


def test_what_a_run_was_called_with_and_returned_is_json(read: Read) -> None:
    (run,) = read("select parameters, tags from flow_runs where flow_name = 'doubled'")
    (state,) = read("select value from flow_run_states where type = 'COMPLETED'")

    assert json.loads(run["parameters"]) == {"numbers": [21]}
    assert json.loads(run["tags"]) == []
    assert json.loads(state["value"]) == [42]
    assert read("select tags from task_runs where task_key like '%double%'") == [{"tags": '["io"]'}]


def test_an_error_is_told_by_its_message(read: Read) -> None:
    (row,) = read("select message, value from flow_run_states where type = 'FAILED'")

    assert "ValueError: on purpose" in row["message"]
    assert row["value"] is None


def test_durations_are_seconds(read: Read) -> None:
    rows = read("select total_run_time_seconds as seconds from flow_runs")

    assert all(isinstance(row["seconds"], float) and 0 <= row["seconds"] < 60 for row in rows)


def test_our_own_sql_reads_the_same(read: Read, orch: Orchestrator) -> None:
    for view in VIEWS:
        ours = orch.sql(f"select * from {view}")

        assert ours.dicts() == read(f"select * from {view}")


def test_both_engines_have_the_same_views_with_the_same_columns(
    postgres_server: Any, orch: Orchestrator
) -> None:
    with embedded_orch.open(postgres_server.new_database()) as other:
        for view in VIEWS:
            columns = orch.sql(f"select * from {view}").columns

            assert other.sql(f"select * from {view}").columns == columns


def test_ids_are_uuids(read: Read) -> None:
    for row in read("select id, flow_run_id from task_runs"):
        assert UUID(row["id"]).version == UUID(row["flow_run_id"]).version == 7
