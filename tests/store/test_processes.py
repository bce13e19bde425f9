"""Processes written down, and what becomes of the runs of those that died, on every backend."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from embedded_orch.states import StateType
from embedded_orch.store import processes, recovering
from tests.store.builders import (
    a_flow_run,
    a_task_run,
    an_owner,
    everything,
    flow_history,
    flow_run,
    task_history,
)

if TYPE_CHECKING:
    from embedded_orch.db.port import Database
    from embedded_orch.process import Process

UNKNOWN = UUID(int=5)


def bury(database: Database, process: Process, id: UUID, *, limit: int = 500) -> int:
    """How many runs were set."""
    now = process.now()
    done, _ = database.write(
        lambda tx: recovering.bury(
            tx, id=id, epoch=0, now=now, new_id=process.new_id, message="it died", limit=limit
        )
    )
    return len(done.crashed)


def test_process_is_read_back_as_it_wrote_itself_down(database: Database, process: Process) -> None:
    row = an_owner(database, process, life_file="8:15", life_slot=2**62 - 1, pid_started=2**40)

    assert database.read(lambda tx: processes.get(tx, id=row.id)) == (row, False)
    assert database.read(processes.not_ended) == [row]


def test_process_that_knows_little_of_itself_is_written_down_too(
    database: Database, process: Process
) -> None:
    row = an_owner(database, process, boot_id=None, pid_started=None)

    assert database.read(processes.not_ended) == [row]


def test_process_is_written_down_once(database: Database, process: Process) -> None:
    row = an_owner(database, process)
    written = everything(database)

    database.write(lambda tx: processes.register(tx, row, now=process.now()))

    assert everything(database) == written


def test_unknown_process_is_no_process(database: Database) -> None:
    assert database.read(lambda tx: processes.get(tx, id=UNKNOWN)) is None


def test_process_ends_once(database: Database, process: Process) -> None:
    row = an_owner(database, process)
    database.write(lambda tx: processes.end(tx, id=row.id, now=1))
    written = everything(database)

    database.write(lambda tx: processes.end(tx, id=row.id, now=2))

    assert everything(database) == written
    assert database.read(processes.not_ended) == []
    assert database.read(lambda tx: processes.get(tx, id=row.id)) == (row, True)


@pytest.mark.parametrize(
    ("state", "end"),
    [
        (StateType.SCHEDULED, "Crashed"),
        (StateType.PENDING, "Crashed"),
        (StateType.RUNNING, "Crashed"),
        # That it ends is what was asked for.
        (StateType.CANCELLING, "Cancelled"),
    ],
)
def test_runs_of_a_dead_process_are_crashed(
    database: Database, process: Process, state: StateType, end: str
) -> None:
    row = an_owner(database, process)
    run_id = a_flow_run(database, process, state, owner_id=row.id)

    assert bury(database, process, row.id) == 1

    found = flow_run(database, run_id)
    assert found.state is not None
    assert (found.state.name, found.state.message) == (end, "it died")
    assert database.read(processes.not_ended) == []


def test_task_runs_of_a_dead_process_are_crashed_with_their_flow_run(
    database: Database, process: Process
) -> None:
    row = an_owner(database, process)
    run_id = a_flow_run(database, process, owner_id=row.id)
    left = a_task_run(database, process, StateType.RUNNING, flow_run_id=run_id)
    done = a_task_run(database, process, StateType.COMPLETED, flow_run_id=run_id)

    bury(database, process, row.id)

    assert task_history(database, left)[-1] == "Crashed"
    assert task_history(database, done)[-1] == "Completed"


def test_runs_that_are_not_at_work_or_not_its_own_are_left_in_their_states(
    database: Database, process: Process
) -> None:
    row, other = an_owner(database, process), an_owner(database, process)
    ended = [
        a_flow_run(database, process, state, owner_id=row.id)
        for state in (StateType.COMPLETED, StateType.FAILED)
    ]
    others = a_flow_run(database, process, StateType.RUNNING, owner_id=other.id)
    paused = a_flow_run(database, process, StateType.PAUSED, owner_id=row.id)
    resumable = a_flow_run(database, process, StateType.RUNNING, owner_id=row.id, on_crash="resume")
    before = everything(database)["flow_run_state"]

    assert bury(database, process, row.id) == 0

    assert everything(database)["flow_run_state"] == before
    # Nobody who comes back goes on with what somebody else may go on with.
    assert [flow_run(database, id).epoch for id in (*ended, others)] == [0, 0, 0]
    assert [flow_run(database, id).epoch for id in (paused, resumable)] == [1, 1]


def test_burying_goes_by_turns_and_ends_the_process_with_the_last(
    database: Database, process: Process
) -> None:
    row = an_owner(database, process)
    runs = [a_flow_run(database, process, owner_id=row.id) for _ in range(5)]

    turns = [bury(database, process, row.id, limit=2) for _ in range(2)]
    assert [row.id] == [found.id for found in database.read(processes.not_ended)]
    turns.append(bury(database, process, row.id, limit=2))

    assert turns == [2, 2, 1]
    assert database.read(processes.not_ended) == []
    assert {flow_history(database, run)[-1] for run in runs} == {"Crashed"}


def test_burying_twice_writes_nothing_more(database: Database, process: Process) -> None:
    row = an_owner(database, process)
    a_flow_run(database, process, owner_id=row.id)
    bury(database, process, row.id)
    written = everything(database)

    assert bury(database, process, row.id) == 0
    assert everything(database) == written
