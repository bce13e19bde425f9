"""Task runs: begun, moved, fenced by their flow run, found again by their call, on each backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedded_orch import errors
from embedded_orch.collections import TaskRuns
from embedded_orch.orchestration.values import Policy, Verdict
from embedded_orch.process import Process
from embedded_orch.states import StateDetails, StateType
from embedded_orch.store import flow_runs, task_runs
from tests.store.builders import (
    PATHS,
    a_flow_run,
    a_new_task_run,
    a_proposal,
    a_task_run,
    an_owner,
    everything,
    proposals,
    task_history,
    task_run,
    write_flow_run,
    write_task_run,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedded_orch.db.port import Database, Transaction
    from embedded_orch.orchestration.values import Decision, Proposal
    from embedded_orch.store.task_runs import Call, NewTaskRun

UNKNOWN = UUID(int=5)


def start(
    database: Database, new: NewTaskRun, states: list[Proposal], *, epoch: int | None = None
) -> object:
    return database.write(
        lambda tx: task_runs.start_task_run(tx, new, states, now=states[0].timestamp, epoch=epoch)
    )


def propose(
    database: Database, run_id: UUID, proposal: Proposal, *, epoch: int | None = None
) -> Decision:
    now = proposal.timestamp
    return database.write(
        lambda tx: task_runs.propose_task_state(
            tx, run_id=run_id, proposal=proposal, now=now, epoch=epoch
        )
    )


def start_and_complete(
    tx: Transaction,
    new: NewTaskRun,
    states: list[Proposal],
    completed: Proposal,
    *,
    is_all: bool = True,
) -> Decision:
    now = states[0].timestamp
    return task_runs.start_and_complete(tx, new, states, completed, now=now, epoch=0, is_all=is_all)


def undone(
    database: Database, operation: Callable[[Transaction], Decision]
) -> tuple[Decision, dict[str, list[tuple[Any, ...]]]]:
    """The answer of an operation and every row after it; then it is rolled back."""
    opened = database.begin()
    try:
        answer = operation(opened.transaction)
        tables = {
            table: sorted(opened.execute(f"select * from {table}", ()), key=repr)
            for table in ("task_run", "task_run_state", "cached_result")
        }
        return answer, tables
    finally:
        opened.roll_back()


def lose(database: Database, process: Process, flow_run_id: UUID) -> None:
    """Another process takes the flow run over."""
    owner = an_owner(database, process).id
    running = a_proposal(process, StateType.RUNNING)
    database.write(
        lambda tx: flow_runs.take_over(
            tx,
            run_id=flow_run_id,
            owner_id=owner,
            epoch=0,
            states=[running],
            now=running.timestamp,
            new_id=process.new_id,
        )
    )


# -- beginning -----------------------------------------------------------------------------------


def test_run_is_read_back_as_it_was_begun(database: Database, process: Process) -> None:
    flow_run_id = a_flow_run(database, process)
    new = a_new_task_run(
        process,
        flow_run_id=flow_run_id,
        parent_task_run_id=UNKNOWN,
        dynamic_key="abc-0",
        source_hash="f00",
        tags=["slow", "ärger"],
        flow_run_run_count=1,
    )
    states = proposals(process, StateType.RUNNING)

    start(database, new, states, epoch=0)

    found = task_run(database, new.id)
    assert found.state is not None
    assert (found.id, found.flow_run_id, found.parent_task_run_id) == (
        new.id,
        flow_run_id,
        UNKNOWN,
    )
    assert (found.name, found.task_key, found.dynamic_key) == ("load-1a2", "load", "abc-0")
    assert (found.source_hash, found.tags, found.run_count) == ("f00", ["slow", "ärger"], 1)
    assert (found.state.id, found.state.name) == (states[1].id, "Running")
    assert found.start_time == found.state.timestamp_microseconds
    assert (found.created, found.expected_start_time) == (states[0].timestamp,) * 2
    assert task_history(database, new.id) == ["Pending", "Running"]


def test_beginning_a_run_twice_begins_one(database: Database, process: Process) -> None:
    new = a_new_task_run(process, flow_run_id=a_flow_run(database, process))
    states = proposals(process, StateType.RUNNING)

    first = start(database, new, states, epoch=0)
    written = everything(database)
    second = start(database, new, states, epoch=0)

    assert first == second
    assert everything(database) == written


@pytest.mark.parametrize("in_flow", [True, False])
def test_one_call_has_one_run(database: Database, process: Process, in_flow: bool) -> None:
    flow_run_id = a_flow_run(database, process) if in_flow else None
    a_task_run(database, process, flow_run_id=flow_run_id, dynamic_key="abc-0")
    written = everything(database)

    with pytest.raises(errors.ConstraintViolated):
        a_task_run(database, process, flow_run_id=flow_run_id, dynamic_key="abc-0")

    assert everything(database) == written


def test_run_of_a_flow_run_that_is_not_there_is_refused(
    database: Database, process: Process
) -> None:
    with pytest.raises(errors.ConstraintViolated):
        a_task_run(database, process, flow_run_id=UNKNOWN)


def test_owner_that_lost_the_flow_run_begins_nothing(database: Database, process: Process) -> None:
    """Seen to fail without ``check_owner`` in ``start_task_run``."""
    flow_run_id = a_flow_run(database, process)
    lose(database, process, flow_run_id)
    written = everything(database)
    new = a_new_task_run(process, flow_run_id=flow_run_id)

    with pytest.raises(errors.OwnershipLost, match=str(flow_run_id)):
        start(database, new, proposals(process, StateType.RUNNING), epoch=0)

    assert everything(database) == written


# -- beginning and completing in one write -------------------------------------------------------


@pytest.mark.parametrize("is_all", [True, False], ids=["all", "with more"])
@pytest.mark.parametrize("cache_key", [None, "k", "k" * 2001])
def test_start_and_completion_in_one_write_leave_what_two_leave(
    database: Database, process: Process, cache_key: str | None, is_all: bool
) -> None:
    new = a_new_task_run(process, flow_run_id=a_flow_run(database, process), flow_run_run_count=1)
    states = proposals(process, StateType.RUNNING)
    details = StateDetails(cache_key=cache_key)
    completed = a_proposal(
        process, StateType.COMPLETED, data=b"7", data_format="json", details=details
    )

    def in_one(tx: Transaction) -> Decision:
        return start_and_complete(tx, new, states, completed, is_all=is_all)

    def in_two(tx: Transaction) -> Decision:
        task_runs.start_task_run(tx, new, states, now=states[0].timestamp, epoch=0)
        return task_runs.propose_task_state(
            tx, run_id=new.id, proposal=completed, now=completed.timestamp, epoch=0
        )

    one, rows_of_one = undone(database, in_one)
    two, rows_of_two = undone(database, in_two)

    assert rows_of_one == rows_of_two
    assert (one.verdict, one.reason, one.proposal) == (two.verdict, two.reason, two.proposal)
    assert len(rows_of_one["task_run_state"]) == 3
    assert bool(rows_of_one["cached_result"]) is (cache_key == "k")


def test_start_and_completion_repeated_change_nothing(database: Database, process: Process) -> None:
    new = a_new_task_run(process, flow_run_id=a_flow_run(database, process))
    states, completed = (
        proposals(process, StateType.RUNNING),
        a_proposal(process, StateType.COMPLETED),
    )
    first = database.write(lambda tx: start_and_complete(tx, new, states, completed))
    written = everything(database)

    second = database.write(lambda tx: start_and_complete(tx, new, states, completed))

    assert (first.verdict, second.verdict) == (Verdict.ACCEPT, Verdict.ACCEPT)
    assert second.is_repeat
    assert everything(database) == written


def test_completion_is_written_where_only_the_start_was(
    database: Database, process: Process
) -> None:
    new = a_new_task_run(process, flow_run_id=a_flow_run(database, process))
    states, completed = (
        proposals(process, StateType.RUNNING),
        a_proposal(process, StateType.COMPLETED),
    )
    start(database, new, states, epoch=0)

    database.write(lambda tx: start_and_complete(tx, new, states, completed))

    assert task_history(database, new.id) == ["Pending", "Running", "Completed"]
    found = task_run(database, new.id)
    assert (found.run_count, found.end_time) == (1, completed.timestamp)


def test_owner_that_lost_the_flow_run_completes_nothing(
    database: Database, process: Process
) -> None:
    flow_run_id = a_flow_run(database, process)
    lose(database, process, flow_run_id)
    written = everything(database)
    new = a_new_task_run(process, flow_run_id=flow_run_id)
    states, completed = (
        proposals(process, StateType.RUNNING),
        a_proposal(process, StateType.COMPLETED),
    )

    with pytest.raises(errors.OwnershipLost, match=str(flow_run_id)):
        database.write(lambda tx: start_and_complete(tx, new, states, completed))

    assert everything(database) == written


# -- states --------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", PATHS)
def test_run_may_come_to_any_state(database: Database, process: Process, state: StateType) -> None:
    found = task_run(database, a_task_run(database, process, state))

    assert found.state is not None
    assert found.state.type is state


def test_state_of_an_unknown_run_is_an_error(database: Database, process: Process) -> None:
    with pytest.raises(errors.RunNotFound, match="task run"):
        propose(database, UNKNOWN, a_proposal(process, StateType.RUNNING))


@pytest.mark.parametrize("retries", [0, 1])
def test_proposing_a_state_twice_answers_and_writes_the_same(
    database: Database, process: Process, retries: int
) -> None:
    run_id = a_task_run(database, process, policy=Policy(retries=retries))
    proposal = a_proposal(process, StateType.FAILED)

    first = propose(database, run_id, proposal)
    written = everything(database)
    second = propose(database, run_id, proposal)

    assert first.verdict is second.verdict
    assert first.verdict is (Verdict.REJECT if retries else Verdict.ACCEPT)
    assert everything(database) == written


def test_owner_that_lost_the_flow_run_moves_none_of_its_task_runs(
    database: Database, process: Process
) -> None:
    """Seen to fail without ``check_epoch`` in ``propose``."""
    flow_run_id = a_flow_run(database, process)
    run_id = a_task_run(database, process, flow_run_id=flow_run_id)
    lose(database, process, flow_run_id)
    written = everything(database)

    with pytest.raises(errors.OwnershipLost, match="taken over"):
        propose(database, run_id, a_proposal(process, StateType.COMPLETED), epoch=0)

    assert everything(database) == written


def test_run_outside_of_flows_is_of_an_epoch_of_its_own(
    database: Database, process: Process
) -> None:
    run_id = a_task_run(database, process)
    database.write(lambda tx: tx.run("task_run.next_epoch", id=run_id))

    with pytest.raises(errors.OwnershipLost):
        propose(database, run_id, a_proposal(process, StateType.COMPLETED), epoch=0)
    decision = propose(database, run_id, a_proposal(process, StateType.COMPLETED), epoch=1)

    assert decision.verdict is Verdict.ACCEPT


def test_run_of_an_earlier_attempt_of_its_flow_run_is_retrying(
    database: Database, process: Process
) -> None:
    flow_run_id = a_flow_run(database, process)
    run_id = a_task_run(
        database,
        process,
        flow_run_id=flow_run_id,
        flow_run_run_count=1,
        policy=Policy(retries=1),
    )
    lose(database, process, flow_run_id)

    propose(database, run_id, a_proposal(process, StateType.RUNNING))

    assert task_history(database, run_id) == ["Pending", "Running", "Crashed", "Retrying"]
    assert task_run(database, run_id).run_count == 1
    # It is of this attempt now, and has its retry again.
    retry = propose(database, run_id, a_proposal(process, StateType.FAILED))
    assert retry.verdict is Verdict.REJECT
    propose(database, run_id, a_proposal(process, StateType.CANCELLED))
    propose(database, run_id, a_proposal(process, StateType.RUNNING))
    assert task_history(database, run_id)[-1] == "Running"


# -- calls ---------------------------------------------------------------------------------------


def find_call(database: Database, flow_run_id: UUID, key: str = "abc-0") -> Call | None:
    return database.read(
        lambda tx: task_runs.find_call(
            tx, flow_run_id=flow_run_id, task_key="load", dynamic_key=key
        )
    )


def test_record_of_a_call_has_its_result(database: Database, process: Process) -> None:
    flow_run_id = a_flow_run(database, process)
    run_id = a_task_run(
        database, process, flow_run_id=flow_run_id, dynamic_key="abc-0", source_hash="f00"
    )
    completed = a_proposal(process, StateType.COMPLETED, data=b"42", data_format="json")
    propose(database, run_id, completed)

    found = find_call(database, flow_run_id)

    assert found is not None
    assert (found.id, found.state_type, found.source_hash) == (
        run_id,
        StateType.COMPLETED,
        "f00",
    )
    assert (found.data, found.data_format) == (b"42", "json")


def test_call_is_of_its_own_flow_run_and_key(database: Database, process: Process) -> None:
    flow_run_id = a_flow_run(database, process)
    a_task_run(database, process, flow_run_id=flow_run_id, dynamic_key="abc-0")

    assert find_call(database, flow_run_id, "abc-1") is None
    assert find_call(database, a_flow_run(database, process)) is None


def test_runs_come_in_the_order_of_the_ids_asked_for(database: Database, process: Process) -> None:
    ids = [a_task_run(database, process) for _ in range(3)]
    wanted = [ids[2], UNKNOWN, ids[0], ids[1]]

    rows = database.read(lambda tx: task_runs.get_task_runs(tx, wanted))

    assert [row.id for row in rows] == [ids[2], ids[0], ids[1]]


# -- finding -------------------------------------------------------------------------------------

NAMES, KEYS = ("load-1a2", "load-9ff"), ("load", "Sink.write")
STATES = (StateType.COMPLETED, StateType.FAILED, StateType.RUNNING)


def some_runs(database: Database, process: Process) -> list[dict[str, Any]]:
    """Two runs of each combination, as the model of them, oldest first."""

    def write(tx: Any) -> list[dict[str, Any]]:
        flow_run_ids = [write_flow_run(tx, process), write_flow_run(tx, process), None]
        made = []
        for number in range(3 * 2 * 2 * 3 * 2):
            number, flow_run = divmod(number, 3)
            number, name = divmod(number, 2)
            number, key = divmod(number, 2)
            number, state = divmod(number, 3)
            fields = {
                "flow_run_id": flow_run_ids[flow_run],
                "name": NAMES[name],
                "task_key": KEYS[key],
            }
            id = write_task_run(tx, process, STATES[state], **fields)
            made.append({"id": id, "state_type": STATES[state], **fields})
        return made

    return database.write(write)


def test_runs_are_found_and_counted_as_a_model_says(database: Database, process: Process) -> None:
    model = some_runs(database, process)
    runs = TaskRuns(database, Process())
    flow_run_ids = sorted({run["flow_run_id"] for run in model if run["flow_run_id"]})
    filters = st.fixed_dictionaries(
        {},
        optional={
            "flow_run_id": st.sampled_from([*flow_run_ids, str(flow_run_ids[0]), UNKNOWN]),
            "name": st.sampled_from([*NAMES, "nobody"]),
            "task_key": st.sampled_from([*KEYS, "nothing"]),
            "state_type": st.sampled_from([*STATES, StateType.PAUSED]),
            "state_name": st.sampled_from(["Completed", "Failed", "nothing"]),
        },
    )

    def fits(run: dict[str, Any], wanted: dict[str, Any]) -> bool:
        said = {**run, "state_name": run["state_type"].value.capitalize()}
        return all(str(said[name]) == str(value) for name, value in wanted.items())

    @settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(wanted=filters)
    def check(wanted: dict[str, Any]) -> None:
        expected = [run["id"] for run in reversed(model) if fits(run, wanted)]
        assert [run.id for run in runs.find(**wanted)] == expected
        assert runs.count(**wanted) == len(expected)

    check()


@pytest.mark.parametrize("filters", [{}, {"name": "load-1a2"}, {"state_type": "RUNNING"}, None])
def test_listing_goes_on_from_its_place_while_new_runs_come(
    database: Database, process: Process, filters: dict[str, Any] | None
) -> None:
    flow_run_id = a_flow_run(database, process)
    if filters is None:
        filters = {"flow_run_id": flow_run_id}

    def write(tx: Any) -> list[UUID]:
        return [write_task_run(tx, process, flow_run_id=flow_run_id) for _ in range(250)]

    ids = database.write(write)

    found = []
    for position, run in enumerate(TaskRuns(database, Process()).find(**filters)):
        found.append(run.id)
        if position % 50 == 0:
            a_task_run(database, process, flow_run_id=flow_run_id)

    assert found == list(reversed(ids))


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"flow_name": "etl"}, "flow_run_id, has_flow_run, task_key"),
        ({"state_type": "DONE"}, "COMPLETED"),
        ({"flow_run_id": 3}, "no id"),
        ({"task_key": b"x"}, "give a text or a list"),
    ],
)
def test_filter_that_cannot_be_is_refused(
    database: Database, wanted: dict[str, Any], said: str
) -> None:
    runs = TaskRuns(database, Process())

    with pytest.raises(errors.UnknownFilter, match=said):
        runs.find(**wanted)
    with pytest.raises(errors.UnknownFilter, match=said):
        runs.count(**wanted)


def test_run_that_does_not_exist_is_not_got(database: Database) -> None:
    with pytest.raises(errors.RunNotFound, match="task run"):
        TaskRuns(database, Process()).get(UNKNOWN)
