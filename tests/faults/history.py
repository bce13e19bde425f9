"""What must be true of every database of ours, whatever happened to the processes that used it.

``problems_in`` reads the tables past the data layer and says in words what no order of whole
transactions could have left. It is asked after every kind of fault: kills, cut power, stopped
processes, lost connections. ``problems_at_rest`` says more of a database that nobody uses, and in
which everything that could end has ended.

The package's own code judges nothing here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple
from uuid import UUID

Select = Callable[[str], Sequence[tuple[Any, ...]]]
"""Runs a query without parameters; ids may come as bytes or as UUID."""

ENDS = {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"}
_ANEW = {"RUNNING", "SCHEDULED", "PENDING", "COMPLETED"}
# What our own engine does; a person may set more by hand.
STEPS: dict[str, set[str]] = {
    # Not ready still; waiting for a slot; taken from a cache.
    "PENDING": {"PENDING", "SCHEDULED", "RUNNING", "COMPLETED", "FAILED", "CANCELLED", "CRASHED"},
    "SCHEDULED": {"SCHEDULED", "RUNNING", "COMPLETED", "CANCELLING", "CANCELLED", "CRASHED"},
    # A retry without a delay is RUNNING again.
    "RUNNING": {"RUNNING", "SCHEDULED", "PAUSED", "CANCELLING", *ENDS},
    "PAUSED": {"RUNNING", "SCHEDULED", "FAILED", "CANCELLING", "CANCELLED"},
    "CANCELLING": {"CANCELLING", "CANCELLED"},
    # Resumed.
    "FAILED": _ANEW,
    "CRASHED": _ANEW,
    "CANCELLED": _ANEW,
    # Undone by the transaction that it is a part of.
    "COMPLETED": {"COMPLETED"},
}
_FIRST = {"PENDING", "SCHEDULED"}


class StateRow(NamedTuple):
    """One state of a history."""

    run_id: str
    timestamp: int
    id: str
    type: str
    name: str
    data: Any
    data_format: str | None


class RunRow(NamedTuple):
    """A flow run or a task run."""

    kind: str
    id: str
    flow_run_id: str | None
    """Of a flow run its own."""
    parent_task_run_id: str | None
    state: tuple[int | None, str | None, str | None, str | None]
    run_count: int
    start_time: int | None
    end_time: int | None
    total_run_time: int
    owner_id: str | None
    due: int | None
    history: list[StateRow]

    @property
    def state_type(self) -> str | None:
        return self.state[2]

    @property
    def has_ended(self) -> bool:
        return self.state_type in ENDS

    @property
    def is_not_ready(self) -> bool:
        """Whether it rests as Pending, since a run before it did not complete."""
        return self.state[2:] == ("PENDING", "NotReady")

    def __str__(self) -> str:
        return f"{self.kind} {self.id} ({self.state[3]})"


class Records(NamedTuple):
    """All runs of a database, by id."""

    flow_runs: dict[str, RunRow]
    task_runs: dict[str, RunRow]

    def all(self) -> Iterator[RunRow]:
        yield from self.flow_runs.values()
        yield from self.task_runs.values()


def problems_in(select: Select) -> list[str]:
    """What is wrong in a database; nothing, however its processes ended."""
    records = read_records(select)
    found = [f"{run}: {problem}" for run in records.all() for problem in _problems_of(run)]
    found += [f"{run}: {problem}" for run in records.all() for problem in _loose_ends(run, records)]
    return [*found, *_problems_with_slots(select), *_problems_with_logs(select, records)]


def problems_at_rest(select: Select) -> list[str]:
    """What is wrong in a database that no process has open, and where nothing is left to do."""
    records = read_records(select)
    found = [
        f"{run}: it has neither ended nor does it wait for anybody"
        for run in records.all()
        if not (run.has_ended or run.is_not_ready or run.state_type == "PAUSED")
    ]
    for what, query in _LEFT_BEHIND.items():
        count = select(query)[0][0]
        found += [f"{count} {what} left behind"] if count else []
    return [*problems_in(select), *found]


_LEFT_BEHIND = {
    "processes that have not said goodbye are": "SELECT count(*) FROM process WHERE ended IS NULL",
    "claims on slots are": "SELECT count(*) FROM slot_claim",
    "locks of cache keys are": "SELECT count(*) FROM cache_lock",
}


def read_records(select: Select) -> Records:
    """Every run of a database, with its history."""
    return Records(_runs(select, "flow_run"), _runs(select, "task_run"))


def _runs(select: Select, table: str) -> dict[str, RunRow]:
    histories: dict[str, list[StateRow]] = defaultdict(list)
    for row in select(
        f"SELECT {table}_id, timestamp, id, type, name, data, data_format FROM {table}_state"
        f" ORDER BY {table}_id, timestamp"
    ):
        state = StateRow(_id(row[0]) or "", row[1], _id(row[2]) or "", *row[3:])
        histories[state.run_id].append(state)
    own = "id, parent_task_run_id" if table == "flow_run" else "flow_run_id, parent_task_run_id"
    owner = "owner_id" if table == "flow_run" else "NULL"
    runs = {}
    for row in select(
        f"SELECT id, {own}, state_timestamp, state_id, state_type, state_name, run_count,"
        f" start_time, end_time, total_run_time, {owner}, next_scheduled_start_time FROM {table}"
    ):
        id = _id(row[0]) or ""
        state = (row[3], _id(row[4]), row[5], row[6])
        runs[id] = RunRow(
            table,
            id,
            _id(row[1]),
            _id(row[2]),
            state,
            *row[7:11],
            owner_id=_id(row[11]),
            due=row[12],
            history=histories.pop(id, []),
        )
    for id, states in histories.items():
        # Foreign keys forbid it, if they are on.
        runs[id] = RunRow(table, id, None, None, (None,) * 4, 0, None, None, 0, None, None, states)
    return runs


def _id(value: Any) -> str | None:
    if value is None:
        return None
    return value.hex if isinstance(value, UUID) else bytes(value).hex()


def _problems_of(run: RunRow) -> Iterator[str]:
    """A history that is a legal path, and a row that says what it ends with."""
    if not run.history:
        yield "it has no state"
        return
    last = run.history[-1]
    if (last.timestamp, last.id, last.type, last.name) != run.state:
        yield f"its row says {run.state}, and its history ends with {last}"
    if run.history[0].type not in _FIRST:
        yield f"it began as {run.history[0].type}"
    if len({state.id for state in run.history}) != len(run.history):
        yield "one of its states is there twice"
    for before, after in pairwise(run.history):
        if not _may_follow(before, after):
            yield f"no rule leads from {before.name} ({before.type}) to {after.name} ({after.type})"
    yield from _problems_with_times(run)
    values = {bytes(state.data) for state in run.history if _has_value(state)}
    if len(values) > 1:
        yield f"it has completed with {len(values)} different values"


def _may_follow(before: StateRow, after: StateRow) -> bool:
    if before.type == "COMPLETED" and after.type == "RUNNING":
        # A value that nobody can read is made again.
        return not _has_value(before)
    return after.type in STEPS[before.type]


def _has_value(state: StateRow) -> bool:
    return state.type == "COMPLETED" and state.data is not None and state.name != "RolledBack"


def _problems_with_times(run: RunRow) -> Iterator[str]:
    last = run.history[-1]
    if run.has_ended != (run.end_time is not None):
        yield f"it is {last.type}, and its end_time is {run.end_time}"
    if run.end_time is not None and run.start_time is not None and run.end_time < run.start_time:
        yield f"it ended {run.start_time - run.end_time} us before it began"
    ran = sum(
        after.timestamp - before.timestamp
        for before, after in pairwise(run.history)
        if before.type == "RUNNING"
    )
    if run.total_run_time != ran:
        yield f"it ran {run.total_run_time} us, and by its history {ran} us"
    attempts = sum(state.type == "RUNNING" for state in run.history)
    if run.run_count > attempts:
        yield f"it counts {run.run_count} attempts, and its history has {attempts}"


def _loose_ends(run: RunRow, records: Records) -> Iterator[str]:
    """Whoever has not ended has somebody or something that moves it on."""
    flow_run = records.flow_runs.get(run.flow_run_id or "")
    parent = records.task_runs.get(run.parent_task_run_id or "")
    if run.flow_run_id is not None and flow_run is None:
        yield "its flow run is not there"
    if run.parent_task_run_id is not None and parent is None:
        yield "the task run that made it is not there"
    if run.has_ended or run.is_not_ready:
        return
    if run.kind == "flow_run":
        # A suspended run lets its owner go, and waits for a person.
        if run.owner_id is None and run.due is None and run.state_type != "PAUSED":
            yield "it has not ended, and has neither an owner nor a time at which it is due"
        if parent is not None and parent.has_ended:
            yield f"it has not ended, and the task run that tracks it is {parent.state[3]}"
    elif flow_run is not None and flow_run.has_ended:
        yield f"it has not ended, and its flow run is {flow_run.state[3]}"


def _problems_with_slots(select: Select) -> list[str]:
    held = select(
        "SELECT concurrency_limit.name, slot_limit, sum(slots) FROM slot_claim"
        " JOIN concurrency_limit ON concurrency_limit.id = limit_id"
        " WHERE state = 'HOLDING' GROUP BY concurrency_limit.id, concurrency_limit.name, slot_limit"
    )
    found = [
        f"{slots} slots of {name} are held, and there are {limit}"
        for name, limit, slots in held
        if slots > limit
    ]
    orphans = select(
        "SELECT count(*) FROM slot_claim LEFT JOIN process ON process.id = owner_id"
        " WHERE process.id IS NULL OR process.ended IS NOT NULL"
    )[0][0]
    return [*found, *([f"{orphans} claims are of a process that has ended"] if orphans else [])]


def _problems_with_logs(select: Select, records: Records) -> list[str]:
    found = []
    for flow_run_id, task_run_id in select("SELECT flow_run_id, task_run_id FROM log"):
        for id, runs in (
            (_id(flow_run_id), records.flow_runs),
            (_id(task_run_id), records.task_runs),
        ):
            if id is not None and id not in runs:
                found.append(f"a line was logged by run {id}, which is not there")
    return found
