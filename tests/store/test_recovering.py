"""What a dead process left, set right once: in any order, in turns, and asked for again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedded_orch.db.port import Database
from embedded_orch.process import Process
from embedded_orch.states import StateType
from embedded_orch.store import caching, limits, processes, recovering, slots
from embedded_orch.store.processes import ProcessRow
from embedded_orch.store.recovering import NOTHING, Recovered
from tests.store.builders import (
    a_flow_run,
    a_task_run,
    an_owner,
    everything,
    flow_history,
    flow_run,
    task_history,
    task_run,
)

STATES = [
    StateType.SCHEDULED,
    StateType.PENDING,
    StateType.RUNNING,
    StateType.COMPLETED,
    StateType.CRASHED,
    StateType.PAUSED,
    StateType.CANCELLING,
]
RUNS = st.lists(st.tuples(st.sampled_from(STATES), st.sampled_from(["fail", "resume"])), max_size=5)
quick = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def a_dead_process(
    database: Database, process: Process, runs: Sequence[tuple[StateType, str]]
) -> tuple[ProcessRow, list[UUID]]:
    """A process, and runs of it: each with a task run, and one outside of flows."""
    row = an_owner(database, process)
    ids = []
    for state, on_crash in runs:
        run_id = a_flow_run(database, process, state, owner_id=row.id, on_crash=on_crash)
        a_task_run(database, process, flow_run_id=run_id)
        ids.append(run_id)
    a_task_run(database, process, owner_id=row.id)
    return row, ids


def bury(database: Database, process: Process, row: ProcessRow, *, limit: int = 500) -> Recovered:
    """Bury a process in as many turns as it takes."""
    found, is_left = NOTHING, True
    while is_left:
        done, is_left = one_turn(database, process, row, limit=limit)
        found += done
    return found


def one_turn(
    database: Database, process: Process, row: ProcessRow, **fields: Any
) -> tuple[Recovered, bool]:
    named = {"epoch": row.epoch, "message": "it died", "limit": 500, **fields}
    now = process.now()
    return database.write(
        lambda tx: recovering.bury(tx, id=row.id, now=now, new_id=process.new_id, **named)
    )


@quick
@given(runs=RUNS)
def test_recovery_twice_is_recovery_once(
    database: Database, process: Process, runs: list[tuple[StateType, str]]
) -> None:
    row, _ = a_dead_process(database, process, runs)
    bury(database, process, row)
    once = everything(database)

    assert bury(database, process, row) == NOTHING
    assert everything(database) == once


@quick
@given(runs=RUNS, limit=st.integers(1, 6))
def test_recovery_in_turns_is_recovery_at_once(
    database: Database, process: Process, runs: list[tuple[StateType, str]], limit: int
) -> None:
    at_once, in_turns = (a_dead_process(database, process, runs) for _ in range(2))

    bury(database, process, at_once[0])
    bury(database, process, in_turns[0], limit=limit)

    for one, other in zip(at_once[1], in_turns[1], strict=True):
        assert flow_history(database, one) == flow_history(database, other)
        assert flow_run(database, one).epoch == flow_run(database, other).epoch


@quick
@given(runs=RUNS)
def test_every_run_has_ended_or_waits_for_somebody_who_may_go_on(
    database: Database, process: Process, runs: list[tuple[StateType, str]]
) -> None:
    row, ids = a_dead_process(database, process, runs)

    found = bury(database, process, row)

    for (state, on_crash), id in zip(runs, ids, strict=True):
        end = flow_run(database, id).state
        assert end is not None
        was_at_work = state in (StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING)
        if state is StateType.CANCELLING:
            assert (end.name, id in found.crashed) == ("Cancelled", True)
        elif was_at_work and on_crash == "fail":
            assert (end.name, id in found.crashed) == ("Crashed", True)
        else:
            assert (end.type, id in found.crashed) == (state, False)
            assert (id in found.resumable) == (was_at_work and on_crash == "resume")


def test_task_run_outside_of_flows_is_crashed_and_fenced(
    database: Database, process: Process
) -> None:
    row = an_owner(database, process)
    run_id = a_task_run(database, process, owner_id=row.id)
    others = a_task_run(database, process, owner_id=an_owner(database, process).id)

    assert bury(database, process, row).task_runs == (run_id,)

    assert task_history(database, run_id)[-1] == "Crashed"
    assert task_run(database, others).state is not None
    assert task_history(database, others)[-1] == "Running"


def test_slots_and_locks_are_free_with_the_last_run(database: Database, process: Process) -> None:
    row = an_owner(database, process)
    a_flow_run(database, process, owner_id=row.id)
    limit_id, claim_id = process.new_id(), process.new_id()
    claim = slots.Claim(id=claim_id, names=("db",), slots=1, owner_id=row.id)
    database.write(
        lambda tx: limits.create(
            tx,
            id=limit_id,
            name="db",
            slot_limit=1,
            slot_decay_per_second=0,
            is_active=True,
            now=process.now(),
        )
    )
    database.write(lambda tx: slots.take(tx, claim, now=process.now(), waits=True))
    database.write(
        lambda tx: caching.lock(tx, key="key", holder="me", owner_id=row.id, now=process.now())
    )

    bury(database, process, row)

    assert database.read(lambda tx: tx.value("slot_claim.held", limit_id=limit_id)) == 0
    assert database.read(lambda tx: caching.lock_holder(tx, key="key")) is None


def test_process_that_came_back_since_it_was_found_dead_is_not_buried(
    database: Database, process: Process
) -> None:
    row = an_owner(database, process)
    bury(database, process, row)
    database.write(lambda tx: processes.register(tx, row, now=process.now()))
    run_id = a_flow_run(database, process, owner_id=row.id)

    assert one_turn(database, process, row) == (NOTHING, False)
    assert flow_history(database, run_id)[-1] == "Running"


def test_process_that_was_heard_of_since_its_lease_ended_is_not_buried(
    database: Database, process: Process
) -> None:
    row = an_owner(database, process, lease=60_000_000)

    assert one_turn(database, process, row, is_by_lease=True) == (NOTHING, False)
    assert [each.id for each in database.read(processes.not_ended)] == [row.id]


def test_process_says_goodbye_whatever_epoch_it_is_in(database: Database, process: Process) -> None:
    row = an_owner(database, process)
    bury(database, process, row)
    database.write(lambda tx: processes.register(tx, row, now=process.now()))

    done, _ = one_turn(database, process, row, epoch=None)

    assert done.processes == (row.id,)


def test_what_was_done_is_said_in_words(process: Process) -> None:
    one, two, three = (process.new_id() for _ in range(3))

    found = Recovered(processes=(one,), crashed=(two, three), put_back=(one,))

    assert str(found) == (
        "1 dead process(es) found, 2 flow run(s) set Crashed, "
        "1 flow run(s) put back into their queue"
    )
    assert str(NOTHING) == "nothing to recover"
    assert not NOTHING
