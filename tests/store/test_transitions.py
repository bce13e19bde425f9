"""Any proposals, in any order and from any number of threads, leave rows that agree."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

import embedded_orch
from embedded_orch import errors
from embedded_orch.db.port import Database
from embedded_orch.db.statements import schema_folder
from embedded_orch.orchestration.values import Policy, Proposal, Run, Verdict
from embedded_orch.process import Process
from embedded_orch.states import State, StateDetails, StateType
from embedded_orch.store import flow_runs, recovering, task_runs
from embedded_orch.store.transitions import _gathered, propose
from tests.orchestration.model import Machine, walk
from tests.store.builders import (
    a_flow_run,
    a_new_flow_run,
    a_new_task_run,
    a_proposal,
    a_task_run,
    an_owner,
    everything,
    flow_run,
    proposals,
    task_history,
    task_run,
)

if TYPE_CHECKING:
    from embedded_orch.db.port import Transaction
    from embedded_orch.orchestration.values import Decision

KINDS = ("flow_run", "task_run")
Kind = Literal["flow_run", "task_run"]


def a_run(database: Database, process: Process, kind: Kind, policy: Policy) -> UUID:
    if kind == "flow_run":
        return a_flow_run(database, process, StateType.PENDING, policy=policy)
    return a_task_run(database, process, StateType.PENDING, policy=policy)


def put(
    database: Database,
    kind: Kind,
    run_id: UUID,
    proposal: Proposal,
    *,
    epoch: int | None = None,
    force: bool = False,
) -> Decision:
    now = proposal.timestamp
    return database.write(
        lambda tx: propose(
            tx, kind, run_id=run_id, proposal=proposal, now=now, epoch=epoch, force=force
        )
    )


def history(database: Database, kind: Kind, run_id: UUID) -> list[State]:
    read = flow_runs.flow_run_history if kind == "flow_run" else task_runs.task_run_history
    return database.read(lambda tx: read(tx, run_id=run_id))


def row_of(database: Database, kind: Kind, run_id: UUID) -> Any:
    return (flow_run if kind == "flow_run" else task_run)(database, run_id)


class StoreMachine(Machine):
    """The run is a row, read back after each proposal as the rules and as people read it."""

    database: Database
    process: Process

    def make(self, *, is_flow_run: bool, policy: Policy) -> None:
        self.kind: Kind = "flow_run" if is_flow_run else "task_run"
        self.now = self.process.now()
        self.number = self.process.new_id().int & ~1
        if is_flow_run:
            new = a_new_flow_run(self.process, entrypoint="etl:etl", policy=policy)
            self.database.write(lambda tx: flow_runs.create_flow_run(tx, new, [], now=self.now))
            self.run_id = new.id
        else:
            self.flow_run_id = a_flow_run(self.database, self.process)
            task = a_new_task_run(self.process, flow_run_id=self.flow_run_id, policy=policy)
            self.database.write(
                lambda tx: task_runs.start_task_run(tx, task, [], now=self.now, epoch=None)
            )
            self.run_id = task.id

    def put(self, proposal: Proposal, now: int, *, force: bool) -> Decision:
        return put(self.database, self.kind, self.run_id, proposal, force=force)

    def move_flow_run(self, state: StateType, attempt: int) -> None:
        proposal = a_proposal(self.process, state)
        decision = put(self.database, "flow_run", self.flow_run_id, proposal, force=True)
        assert (decision.run.state_type, decision.run.run_count) == (state, attempt)

    def read(self) -> Run:
        proposal = a_proposal(self.process, StateType.PENDING)

        def gather(tx: Transaction) -> Run:
            row = tx.row(f"{self.kind}.for_transition", id=self.run_id)
            assert row is not None
            return _gathered(tx, self.kind, self.run_id, row, proposal, now=proposal.timestamp)[0]

        return self.database.write(gather)

    def read_history(self) -> list[tuple[StateType, str, int]]:
        states = history(self.database, self.kind, self.run_id)
        row = row_of(self.database, self.kind, self.run_id)
        assert row.state == (states[-1] if states else None)
        return [(each.type, each.name, each.timestamp_microseconds) for each in states]


def test_any_proposals_leave_rows_that_agree_with_the_history(
    database: Database, process: Process
) -> None:
    class Here(StoreMachine):
        pass

    Here.database, Here.process = database, process
    for seed in range(2 if database.dialect == "postgres" else 6):
        walk(Here(), seed, steps=40)
    count = 8 if database.dialect == "postgres" else 20
    run_state_machine_as_test(
        Here, settings=settings(max_examples=count, stateful_step_count=15, deadline=None)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_threads_that_propose_at_once_lose_no_state(
    database: Database, process: Process, kind: Kind
) -> None:
    run_id = a_run(database, process, kind, Policy())
    barrier = threading.Barrier(4)

    def move() -> int:
        barrier.wait(30)
        stored = 0
        for _ in range(10):
            stored += (
                put(database, kind, run_id, a_proposal(process, StateType.RUNNING)).verdict
                is Verdict.ACCEPT
            )
        return stored

    with ThreadPoolExecutor(4) as pool:
        stored = sum(future.result() for future in [pool.submit(move) for _ in range(4)])

    states = history(database, kind, run_id)
    assert stored == 40
    assert len(states) == 41
    row = row_of(database, kind, run_id)
    assert (row.state, row.run_count) == (states[-1], 40)
    stamps = [state.timestamp_microseconds for state in states]
    assert stamps == sorted(set(stamps))


# -- one path ------------------------------------------------------------------------------------


def test_states_are_stored_on_one_path_only() -> None:
    """Every state row is one that the rules decided on.

    Runs of the work queue are inserted and claimed many at a time, by statements of their own;
    tests/store/test_claims.py holds what those write against the rules. The repair of a database
    puts the state of a run back whose history was lost, as it stands on the run.
    """
    statements = Path(schema_folder()) / "statements"
    inserting = set()
    for file in statements.glob("*.sql"):
        for block in file.read_text(encoding="utf-8").split("-- name: ")[1:]:
            if re.search(r"insert into (flow_run|task_run)_state\b", block):
                inserting.add(f"{file.stem}.{block.split()[0]}")
    package = Path(embedded_orch.__file__).parent
    sources = {path: path.read_text(encoding="utf-8") for path in package.rglob("*.py")}

    def users(text: str) -> list[str]:
        return [path.relative_to(package).as_posix() for path in sources if text in sources[path]]

    assert inserting == {
        "flow_run_state.insert",
        "flow_run_state.insert_begun",
        "task_run_state.insert",
        "task_run_state.insert_begun",
        "task_run_state.insert_ended",
        "task_run_state.insert_whole",
        "task_run.insert_whole",
        "claim.insert_first_states",
        "claim.insert_pending_states",
        "claim.insert_runs",
        "claim.set_pending",
        "mending.history_of_flow_run",
        "mending.history_of_task_run",
    }
    assert users("_state.insert") == ["store/transitions.py"]
    assert users("task_run.insert_whole") == ["store/task_runs.py"]
    for statement in inserting:
        if statement.startswith("claim."):
            assert users(statement) == ["store/claims.py"]
    assert users("mending.history_of_") == ["store/mending.py"]
    calls = re.findall(r"(?<!def )_insert_state\(", sources[package / "store/transitions.py"])
    # Of a new run, of one that is new and has ended, of a run that was decided on; and of one that
    # was so as its owner knows it, and of the task run that tracks it.
    assert len(calls) == 5


# -- the task run of a flow run that a flow called -----------------------------------------------


def test_tracking_task_run_follows_its_flow_run_in_the_same_transaction(
    database: Database, process: Process
) -> None:
    caller = a_flow_run(database, process)
    tracker = a_task_run(database, process, flow_run_id=caller)
    child = a_flow_run(
        database, process, parent_task_run_id=tracker, policy=Policy(retries=1), entrypoint="a:b"
    )
    assert task_history(database, tracker) == ["Pending", "Running"]

    for type in (StateType.FAILED, StateType.RUNNING, StateType.COMPLETED):
        put(database, "flow_run", child, a_proposal(process, type, message="why"))

    assert flow_names(database, child) == [
        *("Pending", "Running", "AwaitingRetry", "Running", "Completed")
    ]
    assert task_history(database, tracker) == flow_names(database, child)
    followed = history(database, "task_run", tracker)[-1]
    own = history(database, "flow_run", child)[-1]
    assert (followed.message, followed.timestamp) == ("why", own.timestamp)
    assert followed.id != own.id
    assert followed.state_details.child_flow_run_id == child
    assert own.state_details.child_flow_run_id is None
    read = flow_run(database, child).state
    assert read is not None
    assert read.state_details.task_run_id == tracker


def test_tracking_task_run_follows_whatever_its_own_rules_say(
    database: Database, process: Process
) -> None:
    tracker = a_task_run(database, process, flow_run_id=a_flow_run(database, process))
    child = a_flow_run(database, process, parent_task_run_id=tracker)
    value = {"data": b"1", "data_format": "json"}
    put(database, "flow_run", child, a_proposal(process, StateType.COMPLETED, **value))

    forced = put(database, "flow_run", child, a_proposal(process, StateType.CANCELLING), force=True)

    assert forced.verdict is Verdict.ACCEPT
    assert task_history(database, tracker)[-2:] == ["Completed", "Cancelling"]
    assert task_run(database, tracker).end_time is None


def test_flow_run_whose_tracking_task_run_is_gone_moves_alone(
    database: Database, process: Process
) -> None:
    child = a_flow_run(database, process, parent_task_run_id=process.new_id())

    assert put(database, "flow_run", child, a_proposal(process, StateType.FAILED)).run.end_time


class TestATrackingTaskRunThatBeganWithItsFlowRun:
    """The owner of both knows how it has left them."""

    @pytest.fixture
    def begun(self, database: Database, process: Process) -> tuple[Run, Run]:
        task = a_new_task_run(process, flow_run_id=a_flow_run(database, process))
        new = a_new_flow_run(process, parent_task_run_id=task.id)
        now = process.now()

        def operation(tx: Transaction) -> tuple[Run, Run]:
            states = proposals(process, StateType.RUNNING)
            tracker = task_runs.start_task_run(tx, task, states, now=now, epoch=0)
            states = proposals(process, StateType.RUNNING)
            child = flow_runs.create_flow_run(tx, new, states, now=now, has_parent_begun=True)
            return tracker, child

        return database.write(operation)

    def end(self, database: Database, begun: tuple[Run, Run], ending: Proposal) -> Decision:
        tracker, child = begun
        return database.write(
            lambda tx: flow_runs.propose_from(
                tx, child, ending, now=ending.timestamp, epoch=0, parent=tracker
            )
        )

    def test_ends_with_it(
        self, database: Database, process: Process, begun: tuple[Run, Run]
    ) -> None:
        tracker, child = begun
        value = {"data": b"1", "data_format": "json"}
        ending = a_proposal(process, StateType.COMPLETED, message="why", **value)

        decision = self.end(database, begun, ending)

        assert decision.verdict is Verdict.ACCEPT
        assert flow_names(database, child.id) == ["Pending", "Running", "Completed"]
        assert task_history(database, tracker.id) == ["Pending", "Running", "Completed"]
        row = task_run(database, tracker.id)
        assert row.state is not None
        assert (row.state.message, row.state.stored) == ("why", (b"1", "json"))
        assert row.state.state_details.child_flow_run_id == child.id
        assert row.end_time == ending.timestamp
        assert row.total_run_time == ending.timestamp - (tracker.start_time or 0)

    def test_follows_it_where_somebody_has_moved_it(
        self, database: Database, process: Process, begun: tuple[Run, Run]
    ) -> None:
        """Seen to fail without the last state in the statement."""
        tracker, _ = begun
        put(database, "task_run", tracker.id, a_proposal(process, StateType.CANCELLING), force=True)

        self.end(database, begun, a_proposal(process, StateType.COMPLETED))

        assert task_history(database, tracker.id)[-2:] == ["Cancelling", "Completed"]
        row = task_run(database, tracker.id)
        assert row.total_run_time < (row.end_time or 0) - (tracker.start_time or 0)

    def test_ends_once(self, database: Database, process: Process, begun: tuple[Run, Run]) -> None:
        ending = a_proposal(process, StateType.FAILED)

        self.end(database, begun, ending)
        written = everything(database)
        self.end(database, begun, ending)

        assert everything(database) == written


def flow_names(database: Database, run_id: UUID) -> list[str]:
    return [state.name for state in history(database, "flow_run", run_id)]


# -- what rules read and write beside the run ----------------------------------------------------


def test_pauses_that_a_run_has_entered_are_remembered(database: Database, process: Process) -> None:
    run_id = a_flow_run(database, process)
    paused = StateDetails(pause_key="a")
    verdicts = [
        put(database, "flow_run", run_id, a_proposal(process, type, details=paused)).verdict
        for type in (StateType.PAUSED, StateType.RUNNING, StateType.PAUSED)
    ]

    assert verdicts == [Verdict.ACCEPT, Verdict.ACCEPT, Verdict.REJECT]
    assert flow_run(database, run_id).run_count == 1


def test_transition_is_stored_once(database: Database, process: Process) -> None:
    run_id = a_flow_run(database, process)
    same = StateDetails(transition_id=process.new_id())

    for _ in range(2):
        decision = put(
            database, "flow_run", run_id, a_proposal(process, StateType.RUNNING, details=same)
        )

    assert decision.verdict is Verdict.REJECT
    assert flow_names(database, run_id) == ["Pending", "Running", "Running"]


@pytest.mark.parametrize(
    ("fields", "verdict"),
    [
        ({}, Verdict.ABORT),
        ({"entrypoint": "etl:etl"}, Verdict.ACCEPT),
        ({"entrypoint": "etl:etl", "parent_task_run_id": UUID(int=5)}, Verdict.ABORT),
    ],
)
def test_run_is_suspended_when_its_flow_is_found_again(
    database: Database, process: Process, fields: dict[str, Any], verdict: Verdict
) -> None:
    run_id = a_flow_run(database, process, **fields)
    suspended = a_proposal(process, StateType.PAUSED, details=StateDetails(pause_reschedule=True))

    assert put(database, "flow_run", run_id, suspended).verdict is verdict


def test_task_run_in_a_paused_flow_run_is_not_ready_until_that_goes_on(
    database: Database, process: Process
) -> None:
    flow_run_id = a_flow_run(database, process)
    run_id = a_task_run(database, process, StateType.PENDING, flow_run_id=flow_run_id)
    details = StateDetails(pause_timeout=State(type="RUNNING").timestamp, pause_key="a")
    pause = a_proposal(process, StateType.PAUSED, details=details)
    put(database, "flow_run", flow_run_id, pause)

    put(database, "task_run", run_id, a_proposal(process, StateType.RUNNING))

    found = history(database, "task_run", run_id)[-1]
    assert (found.name, found.state_details.pause_timeout) == ("NotReady", details.pause_timeout)
    put(database, "flow_run", flow_run_id, a_proposal(process, StateType.RUNNING), force=True)
    put(database, "task_run", run_id, a_proposal(process, StateType.RUNNING))
    assert task_history(database, run_id) == ["Pending", "NotReady", "Running"]


def test_write_that_meets_a_take_over_on_its_way_is_refused(
    database: Database, process: Process
) -> None:
    """The take-over has changed the epoch and not yet committed when the old owner writes.

    Seen to fail on Postgres when the flow run of a task run is read without a lock.
    """
    flow_run_id = a_flow_run(database, process)
    task_run_id = a_task_run(database, process, StateType.RUNNING, flow_run_id=flow_run_id)
    owner = an_owner(database, process).id
    has_taken, may_commit = threading.Event(), threading.Event()

    def take(tx: Transaction) -> None:
        running = a_proposal(process, StateType.RUNNING)
        flow_runs.take_over(
            tx,
            run_id=flow_run_id,
            owner_id=owner,
            epoch=0,
            states=[running],
            now=running.timestamp,
            new_id=process.new_id,
        )
        has_taken.set()
        assert may_commit.wait(30)

    def finish() -> object:
        completed = a_proposal(process, StateType.COMPLETED)
        return put(database, "task_run", task_run_id, completed, epoch=0)

    with ThreadPoolExecutor(2) as pool:
        taking = pool.submit(database.write, take)
        assert has_taken.wait(30)
        finishing = pool.submit(finish)
        until_blocked(database, process)
        may_commit.set()
        taking.result(30)
        with pytest.raises(errors.OwnershipLost):
            finishing.result(30)

    assert task_history(database, task_run_id)[-1] == "Crashed"


def test_run_that_is_taken_over_while_its_dead_owner_is_buried_goes_on(
    database: Database, process: Process
) -> None:
    """The one who buries has read the runs of the dead when another takes one of them over.

    Seen to fail on Postgres when the epoch was not looked at: the run was Crashed under its owner.
    """
    dead, heir = an_owner(database, process).id, an_owner(database, process).id
    run_id = a_flow_run(database, process, owner_id=dead)
    other = a_flow_run(database, process, owner_id=dead)
    has_taken, may_commit = threading.Event(), threading.Event()

    def take(tx: Transaction) -> None:
        flow_runs.take_over(
            tx,
            run_id=run_id,
            owner_id=heir,
            epoch=0,
            states=[
                a_proposal(process, StateType.CRASHED),
                a_proposal(process, StateType.RUNNING),
            ],
            now=process.now(),
            new_id=process.new_id,
        )
        has_taken.set()
        assert may_commit.wait(30)

    def bury() -> object:
        now = process.now()
        return database.write(
            lambda tx: recovering.bury(
                tx, id=dead, epoch=0, now=now, new_id=process.new_id, message="it died", limit=9
            )
        )

    with ThreadPoolExecutor(2) as pool:
        taking = pool.submit(database.write, take)
        assert has_taken.wait(30)
        burying = pool.submit(bury)
        until_blocked(database, process)
        may_commit.set()
        taking.result(30)
        burying.result(30)

    assert flow_names(database, run_id)[-2:] == ["Crashed", "Running"]
    assert flow_names(database, other)[-1] == "Crashed"


def until_blocked(database: Database, process: Process) -> None:
    """Wait until somebody waits for a lock of the server; a SQLite writer has no such wait."""
    if database.dialect == "sqlite":
        return
    query = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
    for _ in range(3000):
        opened = database.begin(read_only=True)
        try:
            if opened.execute(query, ())[0][0]:
                return
        finally:
            opened.roll_back()
        process.sleep(0.01)
    raise AssertionError("nobody waits for the take-over")
