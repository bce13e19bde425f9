"""What must be true of every database, whatever happened to those that wrote it.

The one judge of all fault tests. ``problems`` looks at a database and ``changes`` at what became of
it later; both answer with sentences, and with none when all is well. ``sound_records`` is for those
that judge states of a file: it raises at the first of them.

What is checked, and where it comes from:

- a history is a path of the state table, in the order of time, and its last state that of the run;
- the counts and times of a run are those of its history, and it ended after it began;
- what is COMPLETED has a value that can be read, and a value that was recorded never changes;
- a history only grows, and no run goes away;
- a run that has not ended has somebody or something that will move it: a living owner, a due time,
  an answer that it waits for, or ``on_crash="resume"``;
- what a run that has ended called has ended;
- the slots held of a limit are not more than it has, and the dead hold neither slots nor locks;
- no row names a run that is not there.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import apsw

from embedded_orch.db.sqlite.connecting import APPLICATION_ID
from embedded_orch.errors import MissingResult
from tests.faults.power_cuts import TornOperation
from tests.faults.run_records import ENDS, NOTHING, Asked, Records, RunRow, read_runs

NAMES = {
    "PENDING": {"Pending", "Submitting", "NotReady"},
    "RUNNING": {"Running", "Retrying", "Rerunning"},
    "SCHEDULED": {"Scheduled", "AwaitingRetry", "AwaitingConcurrencySlot", "Resuming", "Late"},
    "COMPLETED": {"Completed", "Cached", "RolledBack"},
    "FAILED": {"Failed", "TimedOut"},
    "CRASHED": {"Crashed"},
    "CANCELLED": {"Cancelled", "Superseded"},
    "CANCELLING": {"Cancelling"},
    "PAUSED": {"Paused", "Suspended"},
}
_ENDED = {"FAILED", "CRASHED", "CANCELLED"}
STEPS = {
    "SCHEDULED": {"SCHEDULED", "PENDING", "RUNNING", "CANCELLING", "CRASHED", *_ENDED},
    "PENDING": {"PENDING", "SCHEDULED", "RUNNING", "CANCELLING", "COMPLETED", *_ENDED},
    # To itself by a retry without a delay.
    "RUNNING": {"RUNNING", "SCHEDULED", "PAUSED", "CANCELLING", *ENDS},
    "PAUSED": {"RUNNING", "SCHEDULED", "CANCELLING", *_ENDED},
    # To itself to say what of it is blocked.
    "CANCELLING": {"CANCELLING", "CANCELLED", "CRASHED"},
    # Undone with its transaction, and then begun anew; or superseded, to be run again.
    "COMPLETED": {"COMPLETED", "RUNNING", "CANCELLED"},
    **{end: {"RUNNING", "PENDING", "SCHEDULED"} for end in _ENDED},
}

_SLOTS_BEYOND_LIMIT = """
    SELECT name, slot_limit, sum(slots)
    FROM concurrency_limit JOIN slot_claim ON limit_id = id AND state = 'HOLDING'
    WHERE is_active = {true} GROUP BY name, slot_limit HAVING sum(slots) > slot_limit
"""
_KEPT_BY_THE_DEAD = (
    ("slots of a limit", "SELECT count(*) FROM slot_claim WHERE owner_id IN {dead}"),
    ("locks of cache keys", "SELECT count(*) FROM cache_lock WHERE owner_id IN {dead}"),
)
_DEAD = "(SELECT id FROM process WHERE ended IS NOT NULL)"
# Lines of a task run may be stored before its announced start, and outlive it.
_WITHOUT_A_RUN = (
    (
        "lines of a log",
        (
            "SELECT count(*) FROM log WHERE flow_run_id IS NOT NULL"
            " AND flow_run_id NOT IN (SELECT id FROM flow_run)"
        ),
    ),
    (
        "task runs without the task run that called them",
        (
            "SELECT count(*) FROM task_run WHERE parent_task_run_id IS NOT NULL"
            " AND parent_task_run_id NOT IN (SELECT id FROM task_run)"
            " AND flow_run_id NOT IN (SELECT flow_run_id FROM removal)"
        ),
    ),
    (
        "flow runs without the task run that called them",
        (
            "SELECT count(*) FROM flow_run WHERE parent_task_run_id IS NOT NULL"
            " AND parent_task_run_id NOT IN (SELECT id FROM task_run)"
        ),
    ),
)
_STRANDED = f"""
    SELECT id, state_name FROM flow_run WHERE
        (state_type IN ('PENDING', 'RUNNING', 'CANCELLING') AND on_crash = 'fail'
            AND (owner_id IS NULL OR owner_id IN {_DEAD}))
        OR (state_type = 'SCHEDULED' AND on_crash = 'fail' AND next_scheduled_start_time IS NULL
            AND state_name <> 'Resuming' AND (owner_id IS NULL OR owner_id IN {_DEAD}))
        OR state_type IS NULL
"""


def problems(asked: Asked) -> list[str]:
    """What is wrong with a database that nobody writes to, and whose dead have been buried."""
    records = read_runs(asked)
    found = [*_of_all_runs(records)]
    found += _unfinished_below_ended(records)
    yes = "1" if _is_sqlite(asked) else "true"
    for name, limit, held in asked(_SLOTS_BEYOND_LIMIT.replace("{true}", yes)):
        found.append(f"{held} slots of {name} are held, which has {limit}")
    for what, query in _KEPT_BY_THE_DEAD:
        [(count,)] = asked(query.format(dead=_DEAD))
        if count:
            found.append(f"{count} {what} are kept by processes that have ended")
    for what, query in _WITHOUT_A_RUN:
        [(count,)] = asked(query)
        if count:
            found.append(f"{count} {what} name a run that is not there")
    for id, state in asked(_STRANDED):
        found.append(f"flow run {id} is {state}, and nothing will move it")
    return found


def unburied(asked: Asked) -> list[str]:
    """What is wrong with a database that nobody has open, and that was opened after each death."""
    [(count,)] = asked("SELECT count(*) FROM process WHERE ended IS NULL")
    return [f"{count} processes have died, and were not found dead"] if count else []


def _is_sqlite(asked: Asked) -> bool:
    [(type,)] = asked("SELECT cast(1 = 1 AS text)")
    return bool(type == "1")


def changes(before: Records, after: Records) -> list[str]:
    """What a database may not have lost or changed between two looks at it."""
    found = []
    later = {run.id: run for run in after.all_runs}
    for run in before.all_runs:
        if run.id not in later:
            if not _is_ancient(run):
                found.append(f"{run} is gone")
        elif later[run.id].history[: len(run.history)] != run.history:
            found.append(f"the history of {run} was changed")
    return found


def _is_ancient(run: RunRow) -> bool:
    """Whether it ended before 2017, as no run of a test does by itself: retention removes it."""
    return run.end_time is not None and run.end_time < 1_483_228_800_000_000


def sound_records(connection: apsw.Connection) -> Records:
    """Every run of a file, which may be one without our schema.

    Raises:
        TornOperation: a run is not as any transaction of ours leaves it.
    """
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").get
    version = connection.pragma("user_version")
    if tables == version == connection.pragma("application_id") == 0:
        return NOTHING
    if connection.pragma("application_id") != APPLICATION_ID or not version:
        raise TornOperation(f"{tables} tables, and marked as no database of ours")
    records = read_runs(connection.execute)
    for problem in _of_all_runs(records):
        raise TornOperation(problem)
    for run in records.flow_runs.values():
        if run.parent_task_run_id not in {None, *records.task_runs}:
            raise TornOperation(f"{run}: its task run is not there")
    return records


def _of_all_runs(records: Records) -> Iterator[str]:
    trackers = {run.parent_task_run_id for run in records.flow_runs.values()}
    for run in records.all_runs:
        yield from problems_of(run, is_tracker=run.id in trackers)


def problems_of(run: RunRow, *, is_tracker: bool = False) -> list[str]:
    """What is wrong with one run, by its row and its history.

    Args:
        run: the run.
        is_tracker: whether it stands for a flow run, and follows that whatever its own rules say:
            a call that failed, since the flow run was at work elsewhere, does not end that.
    """
    if not run.history:
        return [f"{run}: it has no state"]
    found = [*_of_history(run, is_tracker=is_tracker), *_of_value(run), *_of_counts(run)]
    return [f"{run}: {problem}" for problem in found]


def _of_history(run: RunRow, *, is_tracker: bool) -> Iterator[str]:
    history = run.history
    last = history[-1]
    if (last.timestamp, last.id, last.type, last.name) != run.state:
        yield f"its row says {run.state}, its history {last}"
    if history[0].type not in {"PENDING", "SCHEDULED"}:
        yield f"it began as {history[0].type}"
    for earlier, later in pairwise(history):
        is_undone = earlier.type == "COMPLETED" and "RolledBack" in {earlier.name, later.name}
        steps = ENDS if is_tracker and earlier.type in _ENDED else set[str]()
        is_cached = earlier.type in _ENDED and later.name == "Cached"
        is_possible = later.type in STEPS[earlier.type] or later.type in steps or is_cached
        if not is_possible or (earlier.type == "COMPLETED" and not is_undone):
            yield f"no rule leads from {earlier.type} to {later.type}"
        if earlier.timestamp >= later.timestamp:
            yield f"{later.name} came at {later.timestamp}, after {earlier.timestamp}"
    for state in history:
        if state.name not in NAMES[state.type]:
            yield f"a {state.type} state has the name {state.name}"
    if len({state.id for state in history}) != len(history):
        yield "one of its states is there twice"


def _of_value(run: RunRow) -> Iterator[str]:
    for state in run.history:
        is_value = state.data is not None and state.data_format == "json"
        if is_value is not (state.type == "COMPLETED" and state.name != "RolledBack"):
            yield f"{state.name} with {state.data_format} data"
    if run.is_completed and run.history[-1].data is not None:
        try:
            run.value()
        except MissingResult as error:
            yield f"its value cannot be read: {error}"


def _of_counts(run: RunRow) -> Iterator[str]:
    history = run.history
    if run.run_count != (counted := _counted_attempts(run)):
        yield f"it counts {run.run_count} attempts, and its history has {counted}"
    ran = sum(b.timestamp - a.timestamp for a, b in pairwise(history) if a.type == "RUNNING")
    if run.total_run_time != ran:
        yield f"it ran {run.total_run_time} us, and by its history {ran} us"
    # What ended without running, as a cached result does, began with its end.
    begins = (state for state in history if state.type == "RUNNING" or state.type in ENDS)
    started = next((state.timestamp for state in begins), None)
    if run.start_time != started:
        yield f"it started at {run.start_time}, and by its history at {started}"
    last_of_ends = _first_of_last_ends(run)
    if run.end_time != last_of_ends:
        yield f"it ended at {run.end_time}, and by its history at {last_of_ends}"


def _counted_attempts(run: RunRow) -> int:
    count = 0
    for index, state in enumerate(run.history):
        before = run.history[index - 1].type if index else None
        if before in ENDS and state.type not in ENDS and not run.is_flow_run:
            # A task run that ended and begins anew has all its retries again.
            count = 0
        if state.type == "RUNNING" and not _goes_on_after_pause(run, index):
            count += 1
    return count


def _goes_on_after_pause(run: RunRow, index: int) -> bool:
    before = run.history[index - 1]
    if before.type == "SCHEDULED" and before.name == "Resuming":
        before = run.history[index - 2]
    return before.type == "PAUSED"


def _first_of_last_ends(run: RunRow) -> int | None:
    """When a run ended that has; it may have got more than one final state in a row."""
    found = None
    for state in run.history:
        if state.type not in ENDS:
            found = None
        elif found is None:
            found = state.timestamp
    return found


def _unfinished_below_ended(records: Records) -> Iterator[str]:
    for task in records.task_runs.values():
        above = records.flow_runs.get(task.flow_run_id or b"")
        if above is not None and above.has_ended and not task.has_ended:
            yield f"{task} is {task.state[3]}, and its flow run {above} {above.state[3]}"
    for flow in records.flow_runs.values():
        caller = records.task_runs.get(flow.parent_task_run_id or b"")
        if caller is not None and caller.has_ended and not flow.has_ended:
            yield f"{flow} is {flow.state[3]}, and {caller}, which called it, {caller.state[3]}"
