"""Flow runs: made, moved, fenced, taken over, found and counted, on every backend."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedded_orch import errors, times
from embedded_orch.collections import FlowRuns
from embedded_orch.engine import results
from embedded_orch.engine.engine import Engine
from embedded_orch.orchestration.values import Policy, Run, Verdict
from embedded_orch.process import Process
from embedded_orch.states import TERMINAL_TYPES, StateDetails, StateType
from embedded_orch.store import flow_runs, processes
from tests.store.builders import (
    PATHS,
    a_flow_run,
    a_new_flow_run,
    a_proposal,
    a_task_run,
    an_owner,
    everything,
    flow_history,
    flow_run,
    proposals,
    task_history,
    write_flow_run,
)

if TYPE_CHECKING:
    from embedded_orch.db.port import Database, Transaction
    from embedded_orch.orchestration.values import Decision, Proposal

UNKNOWN = UUID(int=5)
RUNNING = StateType.RUNNING


def flow_runs_in(database: Database) -> FlowRuns:
    return FlowRuns(Engine(database, Process(), None))


def propose(
    database: Database, run_id: UUID, proposal: Proposal, *, epoch: int | None = None
) -> Decision:
    now = proposal.timestamp
    return database.write(
        lambda tx: flow_runs.propose_flow_state(
            tx, run_id=run_id, proposal=proposal, now=now, epoch=epoch
        )
    )


def propose_from(database: Database, left: Run, proposal: Proposal) -> Decision:
    now = proposal.timestamp
    return database.write(lambda tx: flow_runs.propose_from(tx, left, proposal, now=now, epoch=0))


def take_over(
    database: Database,
    process: Process,
    run_id: UUID,
    *,
    epoch: int = 0,
    states: list[Proposal] | None = None,
    owner_id: UUID | None = None,
) -> Run:
    owner = owner_id or an_owner(database, process).id
    states = states or [a_proposal(process, StateType.RUNNING)]
    now = process.now()
    return database.write(
        lambda tx: flow_runs.take_over(
            tx,
            run_id=run_id,
            owner_id=owner,
            epoch=epoch,
            states=states,
            now=now,
            new_id=process.new_id,
        )
    )


# -- making --------------------------------------------------------------------------------------


def test_run_is_read_back_as_it_was_made(database: Database, process: Process) -> None:
    owner = an_owner(database, process)
    new = a_new_flow_run(
        process,
        owner_id=owner.id,
        on_crash="resume",
        parameters='{"root": "/tmp"}',
        unstored_parameters={"connection": "sqlite3:Connection"},
        parameters_hash=b"h" * 16,
        entrypoint="module:flow",
        flow_version="3",
        tags=["nightly", "ärger"],
        parent_task_run_id=UNKNOWN,
    )
    states = proposals(process, StateType.RUNNING)
    now = process.now()

    database.write(lambda tx: flow_runs.create_flow_run(tx, new, states, now=now))

    found = flow_run(database, new.id)
    assert found.state is not None
    assert (found.id, found.flow_id, found.flow_name) == (new.id, new.flow_id, "etl")
    assert (found.name, found.owner_id, found.on_crash) == ("brave-otter", owner.id, "resume")
    assert (found.parameters, found.unstored_parameters) == (
        '{"root": "/tmp"}',
        {"connection": "sqlite3:Connection"},
    )
    assert (found.entrypoint, found.flow_version) == ("module:flow", "3")
    assert (found.tags, found.parent_task_run_id) == (["nightly", "ärger"], UNKNOWN)
    assert (found.epoch, found.run_count, found.created) == (0, 1, now)
    assert (found.state.id, found.state.name) == (states[1].id, "Running")
    assert found.start_time == found.state.timestamp_microseconds
    assert found.expected_start_time == states[0].timestamp
    assert flow_history(database, new.id) == ["Pending", "Running"]


def test_making_a_run_twice_makes_one(database: Database, process: Process) -> None:
    new, states = a_new_flow_run(process), proposals(process, StateType.RUNNING)

    first = database.write(lambda tx: flow_runs.create_flow_run(tx, new, states, now=1))
    written = everything(database)
    second = database.write(lambda tx: flow_runs.create_flow_run(tx, new, states, now=1))

    assert first == second
    assert everything(database) == written


def test_owner_that_is_not_written_down_as_alive_is_written_down_with_its_run(
    database: Database, process: Process
) -> None:
    """Seen to fail without the question after the process in the statement that makes a run."""
    row = an_owner(database, process)
    asked: list[bool] = []

    def make() -> None:
        new, states = a_new_flow_run(process, owner_id=row.id), proposals(process, RUNNING)

        def operation(tx: Transaction) -> None:
            def register() -> None:
                asked.append(True)
                processes.register(tx, row, now=process.now())

            flow_runs.create_flow_run(tx, new, states, now=process.now(), register=register)

        database.write(operation)

    make()
    asked.clear()
    make()
    assert asked == []
    database.write(lambda tx: processes.end(tx, id=row.id, now=process.now()))
    make()

    assert asked == [True]
    assert [each.id for each in database.read(processes.not_ended)] == [row.id]


def test_runs_of_one_flow_share_its_row(database: Database, process: Process) -> None:
    first, second = (flow_run(database, a_flow_run(database, process)) for _ in range(2))

    assert first.flow_id == second.flow_id


@pytest.mark.parametrize("state", PATHS)
def test_run_may_be_made_in_any_state(
    database: Database, process: Process, state: StateType
) -> None:
    found = flow_run(database, a_flow_run(database, process, state))

    assert found.state is not None
    assert found.state.type is state


# -- states --------------------------------------------------------------------------------------


def test_accepted_state_is_stored_with_all_that_it_says(
    database: Database, process: Process
) -> None:
    run_id = a_flow_run(database, process)
    proposal = a_proposal(
        process,
        StateType.FAILED,
        name="TimedOut",
        message="too slow \N{SNAIL}",
        details=StateDetails(retriable=False),
        data=b"\x00\xff",
        data_format="error",
    )

    decision = propose(database, run_id, proposal, epoch=0)

    found = flow_run(database, run_id)
    assert decision.verdict is Verdict.ACCEPT
    assert found.state is not None
    assert (found.state.id, found.state.type, found.state.name) == (
        proposal.id,
        StateType.FAILED,
        "TimedOut",
    )
    assert found.state.message == "too slow \N{SNAIL}"
    assert found.state.state_details == StateDetails(retriable=False, flow_run_id=run_id)
    assert (found.state._data, found.state._data_format) == (b"\x00\xff", "error")
    assert found.end_time == found.state.timestamp_microseconds
    assert found.total_run_time > 0


def test_details_of_a_state_come_back_whole(database: Database, process: Process) -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    details = StateDetails(
        child_flow_run_id=UNKNOWN,
        scheduled_time=moment,
        cache_key="k",
        cache_expiration=moment.astimezone(timezone(timedelta(hours=2))),
        deferred=False,
        untrackable_result=True,
        pause_timeout=moment,
        pause_reschedule=True,
        pause_key="1",
        run_input_keyset={"schema": "paused-1-schema"},
        refresh_cache=True,
        retriable=False,
        transition_id=UNKNOWN,
        task_parameters_id=UNKNOWN,
        traceparent="00-1-2-01",
        deployment_concurrency_lease_id=UNKNOWN,
    )
    run_id = a_flow_run(database, process)

    propose(database, run_id, a_proposal(process, StateType.FAILED, details=details))

    found = flow_run(database, run_id).state
    assert found is not None
    own = msgspec.structs.replace(details, flow_run_id=run_id)
    assert found.state_details == own
    history = database.read(lambda tx: flow_runs.flow_run_history(tx, run_id=run_id))
    assert history[-1].state_details == own
    assert history[0].state_details == StateDetails(flow_run_id=run_id)


def test_state_of_an_unknown_run_is_an_error(database: Database, process: Process) -> None:
    with pytest.raises(errors.RunNotFound, match=str(UNKNOWN)):
        propose(database, UNKNOWN, a_proposal(process, StateType.RUNNING))


def test_aborted_state_leaves_no_trace(database: Database, process: Process) -> None:
    run_id = a_flow_run(database, process, StateType.COMPLETED)
    written = everything(database)

    decision = propose(database, run_id, a_proposal(process, StateType.CRASHED))

    assert decision.verdict is Verdict.ABORT
    assert everything(database) == written


def test_run_that_was_cancelled_as_nobodys_is_not_cancelled_again_by_who_comes_back(
    database: Database, process: Process
) -> None:
    """As in the simulation with seed 551, where CANCELLED stood in a history twice."""
    run_id = a_flow_run(database, process, StateType.RUNNING)

    def cancel() -> Decision:
        cancelled = a_proposal(process, StateType.CANCELLED)
        return database.write(
            lambda tx: flow_runs.end_cancelled(
                tx,
                run_id=run_id,
                cancelled=cancelled,
                now=cancelled.timestamp,
                epoch=0,
                new_id=process.new_id,
            )
        )

    first = cancel()
    written = everything(database)
    second = cancel()

    assert (first.verdict, second.verdict) == (Verdict.ACCEPT, Verdict.ABORT)
    assert everything(database) == written


class TestCancellingWhatNobodyRuns:
    """The process that ran it was only stopped, and comes back.

    As in the simulation with seed 2949, where it ended as Completed what had been Cancelled.
    """

    @staticmethod
    def cancel(
        database: Database, process: Process, run_id: UUID, *, is_cancelling: bool = True
    ) -> None:
        run, now = flow_run(database, run_id), process.now()
        cancelled = a_proposal(process, StateType.CANCELLED) if is_cancelling else None
        for _ in range(2):
            # Its commit may be in doubt.
            database.write(
                lambda tx: flow_runs.cancel_left(
                    tx,
                    run_id=run_id,
                    gone_id=run.owner_id,
                    epoch=run.epoch,
                    cancelled=cancelled,
                    now=now,
                    new_id=process.new_id,
                )
            )

    @pytest.mark.parametrize("state", [StateType.CANCELLING, StateType.CANCELLED])
    def test_its_process_changes_nothing_more(
        self, database: Database, process: Process, state: StateType
    ) -> None:
        owner_id = an_owner(database, process).id
        run_id = a_flow_run(database, process, state, owner_id=owner_id)
        call = a_task_run(database, process, flow_run_id=run_id)
        child_id = a_flow_run(database, process, owner_id=owner_id, parent_task_run_id=call)

        self.cancel(database, process, run_id, is_cancelling=state is StateType.CANCELLING)
        written = everything(database)

        for id in (run_id, child_id):
            assert flow_history(database, id)[-1] == "Cancelled"
            for ending in (StateType.COMPLETED, StateType.CANCELLED):
                with pytest.raises(errors.OwnershipLost):
                    propose(database, id, a_proposal(process, ending), epoch=0)
        assert task_history(database, call)[-1] == "Cancelled"
        assert everything(database) == written

    def test_a_child_that_another_process_runs_is_left_to_it(
        self, database: Database, process: Process
    ) -> None:
        owner_id, other_id = (an_owner(database, process).id for _ in range(2))
        run_id = a_flow_run(database, process, StateType.CANCELLING, owner_id=owner_id)
        call = a_task_run(database, process, flow_run_id=run_id)
        child_id = a_flow_run(database, process, owner_id=other_id, parent_task_run_id=call)

        self.cancel(database, process, run_id)

        assert [flow_run(database, id).epoch for id in (run_id, child_id)] == [1, 0]

    def test_one_that_was_resumed_meanwhile_is_left_to_who_did(
        self, database: Database, process: Process
    ) -> None:
        run_id = a_flow_run(database, process, StateType.CANCELLING)
        before = flow_run(database, run_id)
        propose(database, run_id, a_proposal(process, StateType.CANCELLED))
        take_over(database, process, run_id)
        written = everything(database)

        with pytest.raises(errors.OwnershipLost):
            database.write(
                lambda tx: flow_runs.cancel_left(
                    tx,
                    run_id=run_id,
                    gone_id=before.owner_id,
                    epoch=before.epoch,
                    cancelled=a_proposal(process, StateType.CANCELLED),
                    now=process.now(),
                    new_id=process.new_id,
                )
            )

        assert everything(database) == written


def test_scheduled_run_waits_until_it_is_due(database: Database, process: Process) -> None:
    now = process.now()
    due = StateDetails(scheduled_time=times.datetime_from_microseconds(now + 2_000_000))
    run_id = a_flow_run(database, process, StateType.PENDING)
    propose(database, run_id, a_proposal(process, StateType.SCHEDULED, details=due))

    running = a_proposal(process, StateType.RUNNING, timestamp=now)

    decision = propose(database, run_id, running)
    assert (decision.verdict, decision.delay_seconds) == (Verdict.WAIT, 2.0)
    running = a_proposal(process, StateType.RUNNING, timestamp=now + 2_000_000)
    assert propose(database, run_id, running).verdict is Verdict.ACCEPT


@pytest.mark.parametrize("retries", [0, 1])
def test_proposing_a_state_twice_answers_and_writes_the_same(
    database: Database, process: Process, retries: int
) -> None:
    run_id = a_flow_run(database, process, policy=Policy(retries=retries))
    proposal = a_proposal(process, StateType.FAILED)

    first = propose(database, run_id, proposal, epoch=0)
    written = everything(database)
    second = propose(database, run_id, proposal, epoch=0)

    assert first.verdict is second.verdict
    assert first.verdict is (Verdict.REJECT if retries else Verdict.ACCEPT)
    assert everything(database) == written


def test_owner_of_an_earlier_epoch_is_refused_and_writes_nothing(
    database: Database, process: Process
) -> None:
    """Seen to fail without ``check_epoch`` in ``propose``."""
    run_id = a_flow_run(database, process)
    take_over(database, process, run_id)
    written = everything(database)

    with pytest.raises(errors.OwnershipLost, match=str(run_id)):
        propose(database, run_id, a_proposal(process, StateType.COMPLETED), epoch=0)

    assert everything(database) == written


class TestProposingToARunAsItsOwnerHasLeftIt:
    """What is written is what proposing writes that reads the run first."""

    @pytest.fixture
    def left(self, database: Database, process: Process) -> Run:
        new = a_new_flow_run(process)
        states, now = proposals(process, RUNNING), process.now()
        return database.write(lambda tx: flow_runs.create_flow_run(tx, new, states, now=now))

    @pytest.mark.parametrize("type", sorted(TERMINAL_TYPES))
    def test_it_ends(
        self, database: Database, process: Process, left: Run, type: StateType
    ) -> None:
        ending = a_proposal(process, type, message="so it is")
        read = flow_run(database, a_flow_run(database, process))

        decision = propose_from(database, left, ending)

        found = flow_run(database, left.id)
        assert decision.verdict is Verdict.ACCEPT
        assert (found.state, found.run_count) == (results.state_of(ending), 1)
        assert (found.start_time, found.end_time) == (left.start_time, ending.timestamp)
        assert found.total_run_time == ending.timestamp - (left.start_time or 0)
        assert (found.epoch, found.name, found.tags) == (0, read.name, read.tags)
        assert flow_history(database, left.id) == ["Pending", "Running", ending.name]

    @pytest.mark.parametrize("retries", [0, 1])
    def test_twice_answers_and_writes_the_same(
        self, database: Database, process: Process, retries: int
    ) -> None:
        new = a_new_flow_run(process, policy=Policy(retries=retries))
        states, now = proposals(process, RUNNING), process.now()
        left = database.write(lambda tx: flow_runs.create_flow_run(tx, new, states, now=now))
        failed = a_proposal(process, StateType.FAILED)

        first = propose_from(database, left, failed)
        written = everything(database)
        second = propose_from(database, left, failed)

        assert first.verdict is second.verdict
        assert first.verdict is (Verdict.REJECT if retries else Verdict.ACCEPT)
        assert everything(database) == written

    def test_the_rules_are_asked_where_somebody_has_moved_it(
        self, database: Database, process: Process, left: Run
    ) -> None:
        """Seen to fail without the last state in the statement."""
        propose(database, left.id, a_proposal(process, StateType.CANCELLING))

        decision = propose_from(database, left, a_proposal(process, StateType.COMPLETED))

        assert decision.verdict is Verdict.REJECT
        assert flow_history(database, left.id) == ["Pending", "Running", "Cancelling"]

    def test_an_owner_of_an_earlier_epoch_is_refused_and_writes_nothing(
        self, database: Database, process: Process, left: Run
    ) -> None:
        """Seen to fail without the epoch in the statement."""
        database.write(
            lambda tx: tx.run("flow_run.next_epoch", id=left.id, epoch=0, now=process.now())
        )
        written = everything(database)

        with pytest.raises(errors.OwnershipLost, match=str(left.id)):
            propose_from(database, left, a_proposal(process, StateType.COMPLETED))

        assert everything(database) == written


def test_somebody_who_owns_nothing_may_propose(database: Database, process: Process) -> None:
    run_id = a_flow_run(database, process)
    take_over(database, process, run_id)

    decision = propose(database, run_id, a_proposal(process, StateType.CANCELLING), epoch=None)

    assert decision.verdict is Verdict.ACCEPT


def test_history_keeps_every_state_in_order(database: Database, process: Process) -> None:
    run_id = a_flow_run(database, process, StateType.PENDING)
    for type in (StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.COMPLETED):
        # One timestamp for all: the order must come from the states themselves.
        propose(database, run_id, a_proposal(process, type, timestamp=1))

    history = database.read(lambda tx: flow_runs.flow_run_history(tx, run_id=run_id))
    stamps = [state.timestamp_microseconds for state in history]

    assert [state.name for state in history] == [
        "Pending",
        "Scheduled",
        "Pending",
        "Running",
        "Completed",
    ]
    assert stamps == sorted(set(stamps))


def test_history_of_an_unknown_run_is_empty(database: Database) -> None:
    assert flow_history(database, UNKNOWN) == []


# -- taking over ---------------------------------------------------------------------------------


def test_take_over_changes_owner_and_epoch_and_runs_again(
    database: Database, process: Process
) -> None:
    first, second = an_owner(database, process), an_owner(database, process)
    run_id = a_flow_run(database, process, owner_id=first.id)
    states = [a_proposal(process, StateType.CRASHED), a_proposal(process, StateType.RUNNING)]

    run = take_over(database, process, run_id, owner_id=second.id, states=states)

    found = flow_run(database, run_id)
    assert (found.epoch, found.owner_id, found.run_count) == (1, second.id, 2)
    assert (run.state_type, run.run_count) == (StateType.RUNNING, 2)
    assert flow_history(database, run_id) == ["Pending", "Running", "Crashed", "Running"]


def test_take_over_crashes_the_task_runs_that_were_left_unfinished(
    database: Database, process: Process
) -> None:
    run_id = a_flow_run(database, process)
    left = a_task_run(database, process, StateType.RUNNING, flow_run_id=run_id)
    done = a_task_run(database, process, StateType.COMPLETED, flow_run_id=run_id)
    elsewhere = a_task_run(
        database, process, StateType.RUNNING, flow_run_id=a_flow_run(database, process)
    )

    take_over(database, process, run_id)

    assert task_history(database, left)[-1] == "Crashed"
    assert task_history(database, done)[-1] == "Completed"
    assert task_history(database, elsewhere)[-1] == "Running"


def test_taking_over_twice_answers_and_writes_the_same(
    database: Database, process: Process
) -> None:
    run_id = a_flow_run(database, process)
    owner = an_owner(database, process).id
    states = [a_proposal(process, StateType.CRASHED), a_proposal(process, StateType.RUNNING)]

    first = take_over(database, process, run_id, owner_id=owner, states=states)
    written = everything(database)
    second = take_over(database, process, run_id, owner_id=owner, states=states)

    assert first == second
    assert everything(database) == written


def test_only_the_first_takes_a_run_over(database: Database, process: Process) -> None:
    run_id = a_flow_run(database, process)
    loser = an_owner(database, process).id
    take_over(database, process, run_id, epoch=0)
    written = everything(database)

    with pytest.raises(errors.RunNotResumable, match=f"brave-otter.*{run_id}"):
        take_over(database, process, run_id, epoch=0, owner_id=loser)

    assert everything(database) == written


def test_take_over_that_the_rules_refuse_changes_nothing(
    database: Database, process: Process
) -> None:
    run_id = a_flow_run(database, process, StateType.COMPLETED)
    owner = an_owner(database, process).id
    written = everything(database)

    with pytest.raises(errors.RunNotResumable, match="Paused"):
        take_over(
            database,
            process,
            run_id,
            owner_id=owner,
            states=[a_proposal(process, StateType.PAUSED)],
        )

    assert everything(database) == written


def test_unknown_run_is_not_taken_over(database: Database, process: Process) -> None:
    with pytest.raises(errors.RunNotFound, match=str(UNKNOWN)):
        take_over(database, process, UNKNOWN)


# -- reading -------------------------------------------------------------------------------------


def test_runs_come_in_the_order_of_the_ids_asked_for(database: Database, process: Process) -> None:
    ids = [a_flow_run(database, process) for _ in range(3)]
    wanted = [ids[2], UNKNOWN, ids[0], ids[1]]

    rows = database.read(lambda tx: flow_runs.get_flow_runs(tx, wanted))

    assert [row.id for row in rows] == [ids[2], ids[0], ids[1]]


def unfinished(database: Database, digest: bytes, flow_name: str = "etl") -> UUID | None:
    return database.read(
        lambda tx: flow_runs.unfinished_with_parameters(
            tx, flow_name=flow_name, parameters_hash=digest
        )
    )


def test_newest_unfinished_run_with_equal_parameters_is_found(
    database: Database, process: Process
) -> None:
    same, other = b"a" * 16, b"b" * 16
    a_flow_run(database, process, StateType.FAILED, parameters_hash=same)
    newest = a_flow_run(database, process, StateType.CRASHED, parameters_hash=same)
    a_flow_run(database, process, StateType.COMPLETED, parameters_hash=same)
    a_flow_run(database, process, StateType.FAILED, parameters_hash=other)
    a_flow_run(database, process, StateType.FAILED, parameters_hash=same, flow_name="copy")

    assert unfinished(database, same) == newest


def test_unfinished_run_may_still_run(database: Database, process: Process) -> None:
    """Of a process that died, whose runs nobody has set Crashed so far."""
    digest = b"a" * 16
    a_flow_run(database, process, StateType.FAILED, parameters_hash=digest)
    newest = a_flow_run(database, process, RUNNING, parameters_hash=digest)
    a_flow_run(database, process, RUNNING, parameters_hash=b"b" * 16)
    a_flow_run(database, process, RUNNING, parameters_hash=digest, flow_name="copy")
    child = {"parent_task_run_id": UNKNOWN}
    a_flow_run(database, process, RUNNING, parameters_hash=digest, **child)

    assert unfinished(database, digest) == newest


@pytest.mark.parametrize("flow_name", ["etl", "never-run"])
def test_no_unfinished_run_is_no_error(
    database: Database, process: Process, flow_name: str
) -> None:
    a_flow_run(database, process, StateType.COMPLETED, parameters_hash=b"a" * 16)

    assert unfinished(database, b"a" * 16, flow_name) is None


def test_run_that_another_flow_called_is_left_to_its_caller(
    database: Database, process: Process
) -> None:
    a_flow_run(
        database, process, StateType.FAILED, parameters_hash=b"a" * 16, parent_task_run_id=UNKNOWN
    )

    assert unfinished(database, b"a" * 16) is None


def test_newest_child_of_a_task_run_is_found(database: Database, process: Process) -> None:
    a_flow_run(database, process, StateType.FAILED, parent_task_run_id=UNKNOWN)
    newest = a_flow_run(database, process, StateType.FAILED, parent_task_run_id=UNKNOWN)
    a_flow_run(database, process)

    found = database.read(lambda tx: flow_runs.child_of(tx, parent_task_run_id=UNKNOWN))

    assert found is not None
    assert found.id == newest
    assert database.read(lambda tx: flow_runs.child_of(tx, parent_task_run_id=newest)) is None


def test_runs_to_resume_are_those_of_dead_owners_that_ask_for_it(
    database: Database, process: Process
) -> None:
    dead, alive = an_owner(database, process), an_owner(database, process)
    wanted = [
        a_flow_run(database, process, state, owner_id=dead.id, on_crash="resume", entrypoint="m:f")
        for state in (StateType.RUNNING, StateType.PENDING, StateType.SCHEDULED)
    ]
    a_flow_run(database, process, StateType.COMPLETED, owner_id=dead.id, on_crash="resume")
    a_flow_run(database, process, owner_id=dead.id, on_crash="fail")
    a_flow_run(database, process, owner_id=alive.id, on_crash="resume")
    a_flow_run(database, process, owner_id=dead.id, on_crash="resume", parent_task_run_id=UNKNOWN)
    database.write(lambda tx: processes.end(tx, id=dead.id, now=1))

    assert database.read(flow_runs.to_resume) == [(id, "etl", "m:f") for id in wanted]


# -- finding -------------------------------------------------------------------------------------

FLOWS = ("etl", "copy")
NAMES = ("brave-otter", "shy-owl")
STATES = (StateType.COMPLETED, StateType.FAILED, StateType.RUNNING)
TAGS = ("a", "b", 'q"%_')

filters = st.fixed_dictionaries(
    {},
    optional={
        "flow_name": st.sampled_from([*FLOWS, "never-run"]),
        "name": st.sampled_from([*NAMES, "nobody"]),
        "state_type": st.sampled_from([*STATES, StateType.PAUSED]),
        "state_name": st.sampled_from(["Completed", "Running", "nothing"]),
        "tags": st.lists(st.sampled_from(TAGS), unique=True),
    },
)


def some_runs(database: Database, process: Process) -> list[dict[str, Any]]:
    """One run of each combination, as the model of them, oldest first."""

    def write(tx: Any) -> list[dict[str, Any]]:
        made = []
        for number in range(2 * 2 * 3 * 8):
            number, flow = divmod(number, 2)
            number, name = divmod(number, 2)
            number, state = divmod(number, 3)
            tags = [tag for position, tag in enumerate(TAGS) if number & (1 << position)]
            fields = {"flow_name": FLOWS[flow], "name": NAMES[name], "tags": tags}
            id = write_flow_run(tx, process, STATES[state], **fields)
            made.append({"id": id, "state_type": STATES[state], **fields})
        return made

    return database.write(write)


def fits(run: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return all(
        set(value) <= set(run["tags"])
        if name == "tags"
        else run["state_type"].value.capitalize() == value
        if name == "state_name"
        else run[name] == value
        for name, value in wanted.items()
    )


def test_runs_are_found_and_counted_as_a_model_says(database: Database, process: Process) -> None:
    model = some_runs(database, process)
    runs = flow_runs_in(database)

    @settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(wanted=filters)
    def check(wanted: dict[str, Any]) -> None:
        expected = [run["id"] for run in reversed(model) if fits(run, wanted)]
        assert [run.id for run in runs.find(**wanted)] == expected
        assert runs.count(**wanted) == len(expected)

    check()


def test_listing_goes_on_from_its_place_while_new_runs_come(
    database: Database, process: Process
) -> None:
    def write(tx: Any) -> list[UUID]:
        return [write_flow_run(tx, process, StateType.PENDING) for _ in range(450)]

    ids = database.write(write)
    listing = flow_runs_in(database).find(flow_name="etl")

    found = []
    for position, run in enumerate(listing):
        found.append(run.id)
        if position % 100 == 0:
            a_flow_run(database, process)

    assert found == list(reversed(ids))


def test_listing_reads_no_more_than_is_taken(database: Database, process: Process) -> None:
    def write(tx: Any) -> None:
        for _ in range(401):
            write_flow_run(tx, process, StateType.PENDING)

    database.write(write)
    reads: list[int] = []

    class Counting(FlowRuns):
        def _find(self, *args: Any, **named: Any) -> Any:
            ids, end = super()._find(*args, **named)
            reads.append(len(ids))
            return ids, end

    listing = Counting(Engine(database, process, None)).find()
    next(listing)
    assert reads == [200]
    assert len(list(listing)) == 400
    assert reads == [200, 200, 1]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"flow": "etl"}, "id, name, name_like, tags"),
        ({"state_type": "DONE"}, "COMPLETED"),
        ({"tags": 3}, "list of texts"),
        ({"tags": [3]}, "list of texts"),
        ({"name": 3}, "a text or a list"),
    ],
)
def test_filter_that_cannot_be_is_refused(
    database: Database, wanted: dict[str, Any], said: str
) -> None:
    runs = flow_runs_in(database)

    with pytest.raises(errors.UnknownFilter, match=said):
        runs.find(**wanted)
    with pytest.raises(errors.UnknownFilter, match=said):
        runs.count(**wanted)


def test_one_tag_may_be_given_as_text(database: Database, process: Process) -> None:
    tagged = a_flow_run(database, process, tags=["etl", "x"])
    a_flow_run(database, process, tags=["e", "t", "l"])

    assert [run.id for run in flow_runs_in(database).find(tags="etl")] == [tagged]


@pytest.mark.parametrize("form", [str, UUID, lambda id: id.hex])
def test_run_is_got_by_its_id_in_any_form(database: Database, process: Process, form: Any) -> None:
    run_id = a_flow_run(database, process)

    assert flow_runs_in(database).get(form(str(run_id) if form is UUID else run_id)).id == run_id


@pytest.mark.parametrize("id", [UNKNOWN, str(UNKNOWN), "no-id", ""])
def test_run_that_does_not_exist_is_not_got(database: Database, id: Any) -> None:
    with pytest.raises(errors.RunNotFound, match="flow run"):
        flow_runs_in(database).get(id)
