"""The runs that a database holds, read past the data layer, so that it is seen as a fault left it.

``Asked`` is whatever runs a query on it: a connection of bare apsw, of bare psycopg, or a session
of the orchestrator. Whether what is found may be is judged in ``invariants``.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from uuid import UUID

import apsw

from embedded_orch import Orchestrator, values

Asked = Callable[[str], Iterable[Sequence[Any]]]

ENDS = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})


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
    flow_run_id: bytes | None
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
    def is_flow_run(self) -> bool:
        return self.parameters is not None

    @property
    def is_completed(self) -> bool:
        return bool(self.history) and self.history[-1].type == "COMPLETED"

    @property
    def has_ended(self) -> bool:
        return self.state[2] in ENDS

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
            MissingResult: it cannot be read.
        """
        data = self.history[-1].data
        assert data is not None
        return values.decode(data)

    def __str__(self) -> str:
        return f"{self.key} {self.id.hex()}"


class Records(NamedTuple):
    """All runs of a database, by id."""

    has_schema: bool
    flow_runs: dict[bytes, RunRow]
    task_runs: dict[bytes, RunRow]

    @property
    def all_runs(self) -> list[RunRow]:
        return [*self.flow_runs.values(), *self.task_runs.values()]

    def children(self, task_run: RunRow) -> list[RunRow]:
        """The flow runs that a task run called."""
        return [run for run in self.flow_runs.values() if run.parent_task_run_id == task_run.id]


NOTHING = Records(has_schema=False, flow_runs={}, task_runs={})


def read_runs(asked: Asked) -> Records:
    """Every run of a database that has our schema."""
    return Records(True, _runs(asked, "flow_run"), _runs(asked, "task_run"))


def _runs(asked: Asked, table: str) -> dict[bytes, RunRow]:
    histories: dict[bytes, list[StateRow]] = defaultdict(list)
    for id, *state in asked(
        f"SELECT {table}_id, timestamp, id, type, name, data, data_format"
        f" FROM {table}_state ORDER BY {table}_id, timestamp"
    ):
        histories[as_bytes(id)].append(StateRow._make(map(_plain, state)))
    key = "(SELECT name FROM flow WHERE flow.id = flow_id), cast(parameters as text)"
    flow_run_id = "id"
    if table == "task_run":
        key, flow_run_id = "task_key, NULL", "flow_run_id"
    runs = {}
    for found in asked(
        f"SELECT id, {flow_run_id}, parent_task_run_id, {key}, state_timestamp, state_id,"
        f" state_type, state_name, run_count, start_time, end_time, total_run_time FROM {table}"
    ):
        row = [_plain(value) for value in found]
        runs[row[0]] = RunRow._make([*row[:5], tuple(row[5:9]), *row[9:], histories[row[0]]])
    return runs


def _plain(value: Any) -> Any:
    return value.bytes if isinstance(value, UUID) else value


def as_bytes(id: UUID | bytes) -> bytes:
    """An id as the SQLite variant of the schema has it."""
    return id.bytes if isinstance(id, UUID) else id


@contextmanager
def asking_bare(url: str) -> Iterator[Asked]:
    """Queries to a database that nobody has open, through its driver alone."""
    if url.startswith("postgresql"):
        import psycopg

        with psycopg.connect(url, options="-c search_path=embedded_orch") as server:
            yield lambda sql: server.execute(sql.encode()).fetchall()
        return
    connection = apsw.Connection(url)
    try:
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        yield connection.execute
    finally:
        connection.close()


@contextmanager
def asking(orch: Orchestrator) -> Iterator[Asked]:
    """Queries to an open orchestrator, all of one snapshot."""
    with orch.session(read_only=True, begin_transaction=True) as session:
        yield session.execute
