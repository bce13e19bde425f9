"""The runs that a database holds, read past the data layer, and what must be true of them.

``read_records`` takes a connection of bare apsw, so that what a crash left behind is seen as it is,
and refuses whatever no order of whole transactions could have left: a history that does not lead to
the state of its run, a step that no rule allows, a COMPLETED without its value.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import apsw

from embedded_orch import values
from embedded_orch.db.migrations import migrations
from embedded_orch.db.sqlite.connecting import APPLICATION_ID
from embedded_orch.errors import MissingResult
from tests.faults.power_cuts import TornOperation

NAMES = {
    "PENDING": {"Pending"},
    "RUNNING": {"Running", "Retrying", "Rerunning"},
    "SCHEDULED": {"AwaitingRetry"},
    "COMPLETED": {"Completed"},
    "FAILED": {"Failed"},
    "CRASHED": {"Crashed"},
}
STEPS = {
    ("PENDING", "RUNNING"),
    ("RUNNING", "COMPLETED"),
    ("RUNNING", "FAILED"),
    # A retry without a delay.
    ("RUNNING", "RUNNING"),
    ("RUNNING", "SCHEDULED"),
    ("SCHEDULED", "RUNNING"),
    ("RUNNING", "CRASHED"),
    ("SCHEDULED", "CRASHED"),
    ("CRASHED", "RUNNING"),
    ("FAILED", "RUNNING"),
}
ENDS = {"COMPLETED", "FAILED", "CRASHED"}


class StateRow(NamedTuple):
    """One state of a history."""

    timestamp: int
    id: bytes
    type: str
    name: str
    data: bytes | None
    data_format: str | None


class RunRow(NamedTuple):
    """A flow run or a task run, with the copy of its last state that its row holds."""

    id: bytes
    flow_run_id: bytes
    """Of a flow run its own."""
    parent_task_run_id: bytes | None
    key: str
    """Of a flow run its flow's name, of a task run its task's key."""
    parameters: str | None
    state: tuple[int | None, bytes | None, str | None, str | None]
    run_count: int
    start_time: int | None
    end_time: int | None
    total_run_time: int
    history: list[StateRow]

    @property
    def is_completed(self) -> bool:
        return self.history[-1].type == "COMPLETED"

    @property
    def attempts(self) -> int:
        """How often it was RUNNING in all."""
        return sum(state.type == "RUNNING" for state in self.history)

    @property
    def call(self) -> int:
        """Of a flow run: its only parameter, a number."""
        (found,) = json.loads(self.parameters or "{}").values()
        assert isinstance(found, int)
        return found

    def value(self) -> Any:
        """Of a run that is COMPLETED: what it returned.

        Raises:
            TornOperation: it cannot be read.
        """
        data = self.history[-1].data
        assert data is not None
        try:
            return values.decode(data)
        except MissingResult as error:
            raise TornOperation(f"{self.key} {self.id.hex()}: {error}") from error


class Records(NamedTuple):
    """All runs of a database, by id."""

    has_schema: bool
    flow_runs: dict[bytes, RunRow]
    task_runs: dict[bytes, RunRow]

    def children(self, task_run: RunRow) -> list[RunRow]:
        """The flow runs that a task run called."""
        return [run for run in self.flow_runs.values() if run.parent_task_run_id == task_run.id]


def read_records(connection: apsw.Connection) -> Records:
    """Every run of a database.

    Raises:
        TornOperation: a run is not as any transaction of ours leaves it.
    """
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").get
    version = connection.pragma("user_version")
    if tables == version == connection.pragma("application_id") == 0:
        return Records(has_schema=False, flow_runs={}, task_runs={})
    if connection.pragma("application_id") != APPLICATION_ID or not version:
        raise TornOperation(f"{tables} tables, and marked as no database of ours")
    flow_runs = _runs(connection, "flow_run")
    task_runs = _runs(connection, "task_run")
    for run in (*flow_runs.values(), *task_runs.values()):
        for problem in _problems(run):
            raise TornOperation(f"{run.key} {run.id.hex()}: {problem}")
    for run in flow_runs.values():
        if run.parent_task_run_id not in {None, *task_runs}:
            raise TornOperation(f"{run.key} {run.id.hex()}: its task run is not there")
    return Records(version == len(migrations("sqlite")), flow_runs, task_runs)


def _runs(connection: apsw.Connection, table: str) -> dict[bytes, RunRow]:
    histories: dict[bytes, list[StateRow]] = defaultdict(list)
    for id, *state in connection.execute(
        f"SELECT {table}_id, timestamp, id, type, name, data, data_format"
        f" FROM {table}_state ORDER BY {table}_id, timestamp"
    ):
        histories[id].append(StateRow(*state))
    key = "(SELECT name FROM flow WHERE flow.id = flow_id), parameters"
    flow_run_id = "id"
    if table == "task_run":
        key, flow_run_id = "task_key, NULL", "flow_run_id"
    runs = {}
    for row in connection.execute(
        f"SELECT id, {flow_run_id}, parent_task_run_id, {key}, state_timestamp, state_id,"
        f" state_type, state_name, run_count, start_time, end_time, total_run_time FROM {table}"
    ):
        if row[1] is None:
            raise TornOperation(f"task run {row[0].hex()} belongs to no flow run")
        runs[row[0]] = RunRow._make([*row[:5], row[5:9], *row[9:], histories[row[0]]])
    return runs


def _problems(run: RunRow) -> Iterator[str]:
    history = run.history
    if not history:
        yield "it has no state"
        return
    last = history[-1]
    if (last.timestamp, last.id, last.type, last.name) != run.state:
        yield f"its row says {run.state}, its history {last}"
    types = [state.type for state in history]
    if types[:2] != ["PENDING", "RUNNING"]:
        yield f"it began with {types[:2]}, which are written together"
    for step in pairwise(types):
        if step not in STEPS:
            yield f"no rule leads from {step[0]} to {step[1]}"
    for state in history:
        if state.name not in NAMES[state.type]:
            yield f"a {state.type} state has the name {state.name}"
        if (state.type == "COMPLETED") is not (state.data_format == "json"):
            yield f"{state.type} with {state.data_format} data"
    if len({state.id for state in history}) != len(history):
        yield "one of its states is there twice"
    yield from _problems_with_counts(run)


def _problems_with_counts(run: RunRow) -> Iterator[str]:
    history = run.history
    # What ended and began anew counts its attempts anew, when it is a task run.
    since = 0
    if run.parameters is None:
        ends = [n for n, state in enumerate(history[:-1]) if state.type in ENDS]
        since = ends[-1] if ends else 0
    attempts = sum(state.type == "RUNNING" for state in history[since:])
    if run.run_count != attempts:
        yield f"it counts {run.run_count} attempts, and its history has {attempts}"
    ran = sum(b.timestamp - a.timestamp for a, b in pairwise(history) if a.type == "RUNNING")
    if run.total_run_time != ran:
        yield f"it ran {run.total_run_time} us, and by its history {ran} us"
    started = next(state.timestamp for state in history if state.type == "RUNNING")
    if run.start_time != started:
        yield f"it started at {run.start_time}, and by its history at {started}"
    ended = history[-1].timestamp if history[-1].type in ENDS else None
    if run.end_time != ended:
        yield f"it ended at {run.end_time}, and by its history at {ended}"
