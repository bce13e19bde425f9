"""Claims: which runs a pool gives out, in which order, and to one caller only."""

from __future__ import annotations

from uuid import UUID

import msgspec
import pytest

from embedded_orch import errors, times
from embedded_orch.orchestration.transition import decide
from embedded_orch.orchestration.values import Policy, Proposal, Run
from embedded_orch.states import StateDetails, StateType
from embedded_orch.store.claims import ClaimedRun
from embedded_orch.store.flow_runs import (
    FlowRunRow,
    check_owner,
    flow_run_history,
    get_flow_runs,
)
from embedded_orch.store.processes import ProcessRow, register
from tests.builders import NOON, SECOND, Builder


def ids(runs: list[ClaimedRun]) -> list[UUID]:
    return [run.id for run in runs]


def read_run(build: Builder, id: UUID) -> FlowRunRow:
    return build.database.read(lambda tx: get_flow_runs(tx, [id]))[0]


# -- the executed checks of the specification ------------------------------------------------------


@pytest.fixture
def three_queues(build: Builder) -> dict[str, UUID]:
    """Queues hi, default and lo (limit 1) in this order, with runs named by queue and second."""
    build.pool()
    hi = build.queue("hi", priority=1)
    lo = build.queue("lo", concurrency_limit=1)
    default = build.queue("default")
    flow_id = build.flow()
    due = [(lo, -30), (lo, -20), (default, -25), (hi, -5), (hi, -10), (hi, 600)]
    return {
        f"{queue.name} {seconds:+}": build.run_due(flow_id, queue, seconds)
        for queue, seconds in due
    }


def named(runs: dict[str, UUID], claimed: list[ClaimedRun]) -> list[str]:
    names = {id: name for name, id in runs.items()}
    return [names[run.id] for run in claimed]


def test_queues_by_priority_then_runs_by_time_and_the_limit_of_a_queue_cuts(
    build: Builder, three_queues: dict[str, UUID]
) -> None:
    claimed = build.claim(scheduled_before=NOON + 10 * SECOND)

    assert named(three_queues, claimed) == ["hi -10", "hi -5", "default -25", "lo -30"]


def test_a_second_claim_gets_nothing_that_the_first_got(
    build: Builder, three_queues: dict[str, UUID]
) -> None:
    """Where Prefect's claim only lists, ours takes; and lo's one slot is held by lo -30."""
    build.claim(scheduled_before=NOON + 10 * SECOND)

    assert build.claim(scheduled_before=NOON + 10 * SECOND) == []


def test_without_a_bound_runs_of_the_future_come_before_lower_priorities(
    build: Builder, three_queues: dict[str, UUID]
) -> None:
    claimed = build.claim()

    assert named(three_queues, claimed) == ["hi -10", "hi -5", "hi +600", "default -25", "lo -30"]


def test_the_limit_of_the_pool_cuts_over_all_queues(
    build: Builder, three_queues: dict[str, UUID]
) -> None:
    build.pool(concurrency_limit=2)

    claimed = build.claim(scheduled_before=NOON + 10 * SECOND)

    assert named(three_queues, claimed) == ["hi -10", "hi -5"]


def test_a_pending_run_holds_a_slot_of_the_pool(
    build: Builder, three_queues: dict[str, UUID]
) -> None:
    build.pool(concurrency_limit=2)
    build.set_state(three_queues["hi -5"], StateType.PENDING)

    claimed = build.claim(scheduled_before=NOON + 10 * SECOND)

    assert named(three_queues, claimed) == ["hi -10"]


def test_a_paused_pool_gives_nothing(build: Builder, three_queues: dict[str, UUID]) -> None:
    build.pool(is_paused=True)

    assert build.claim() == []


# -- which runs ------------------------------------------------------------------------------------


def test_both_ends_of_the_window_belong_to_it(build: Builder) -> None:
    queue = build.queue("default", build.pool().name)
    flow_id = build.flow()
    runs = [build.run_due(flow_id, queue, seconds) for seconds in (-2, -1, 0, 1)]

    claimed = build.claim(scheduled_after=NOON - SECOND, scheduled_before=NOON)

    assert ids(claimed) == runs[1:3]


def test_runs_that_are_due_at_the_same_time_come_by_id(build: Builder) -> None:
    queue_id = build.pool().default_queue_id
    flow_id = build.flow()
    runs = [build.new_run(flow_id, work_queue_id=queue_id) for _ in range(5)]
    build.enqueue(list(reversed(runs)))

    assert ids(build.claim(3)) + ids(build.claim(3)) == [run.id for run in runs]


def test_only_the_named_queues_give(build: Builder, three_queues: dict[str, UUID]) -> None:
    claimed = build.claim(queue_names=["lo", "default"], scheduled_before=NOON)

    assert named(three_queues, claimed) == ["default -25", "lo -30"]


def test_no_names_are_no_queues(build: Builder, three_queues: dict[str, UUID]) -> None:
    assert build.claim(queue_names=[]) == []


def test_a_paused_queue_gives_nothing_and_the_others_go_on(
    build: Builder, three_queues: dict[str, UUID]
) -> None:
    build.queue("hi", is_paused=True)

    claimed = build.claim(scheduled_before=NOON)

    assert named(three_queues, claimed) == ["default -25", "lo -30"]


def test_runs_of_a_paused_queue_hold_slots_of_the_pool(
    build: Builder, three_queues: dict[str, UUID]
) -> None:
    """Prefect counts them on SQLite and not on Postgres; here they count on both."""
    build.set_state(three_queues["hi -10"], StateType.PENDING)
    build.set_state(three_queues["hi -5"], StateType.RUNNING)
    build.queue("hi", is_paused=True)
    build.pool(concurrency_limit=3)

    claimed = build.claim(scheduled_before=NOON)

    assert named(three_queues, claimed) == ["default -25"]


@pytest.mark.parametrize("limited", ["pool", "queue"])
def test_a_limit_of_0_blocks(build: Builder, limited: str) -> None:
    build.pool(concurrency_limit=0 if limited == "pool" else None)
    queue = build.queue("default", concurrency_limit=0 if limited == "queue" else None)
    build.run_due(build.flow(), queue, 0)

    assert build.claim() == []


def test_a_limit_below_what_is_held_already_takes_nothing_back_and_gives_nothing(
    build: Builder,
) -> None:
    queue = build.queue("default", build.pool().name)
    flow_id = build.flow()
    runs = [build.run_due(flow_id, queue, 0) for _ in range(4)]
    held = ids(build.claim(2))
    build.queue("default", concurrency_limit=1)

    assert build.claim() == []
    assert held == runs[:2]


@pytest.mark.parametrize(
    ("type", "name", "holds"),
    [
        (StateType.PENDING, "Pending", True),
        (StateType.PENDING, "Submitting", True),
        (StateType.RUNNING, "Running", True),
        (StateType.CANCELLING, "Cancelling", False),
        (StateType.SCHEDULED, "AwaitingConcurrencySlot", False),
        (StateType.COMPLETED, "Completed", False),
    ],
)
def test_pending_and_running_runs_hold_slots_and_no_others(
    build: Builder, type: StateType, name: str, holds: bool
) -> None:
    build.pool()
    queue = build.queue("default", concurrency_limit=1)
    flow_id = build.flow()
    holder, waiting = build.run_due(flow_id, queue, 1), build.run_due(flow_id, queue, 2)
    build.set_state(holder, type, name, now=NOON + 5 * SECOND)

    claimed = build.claim(scheduled_after=NOON + 2 * SECOND)

    assert ids(claimed) == ([] if holds else [waiting])


def test_a_run_that_its_own_process_retries_is_given_to_nobody(build: Builder) -> None:
    queue_id = build.pool().default_queue_id
    policies = [Policy(retry_type="in_process"), Policy(retry_type="reschedule"), Policy()]
    flow_id = build.flow()
    runs = [
        build.new_run(flow_id, work_queue_id=queue_id, empirical_policy=policy)
        for policy in policies
    ]
    build.enqueue(runs)

    assert ids(build.claim()) == [run.id for run in runs[1:]]


def test_runs_of_another_pool_and_of_no_queue_stay(build: Builder) -> None:
    build.pool()
    other = build.pool("other")
    flow_id = build.flow()
    build.runs(flow_id, 1)
    build.runs(flow_id, 1, work_queue_id=other.default_queue_id)

    assert build.claim() == []


# -- what becomes of them --------------------------------------------------------------------------


def test_a_claimed_run_is_what_the_rules_make_of_a_pending_proposal(build: Builder) -> None:
    queue_id = build.pool().default_queue_id
    run = build.new_run(build.flow(), work_queue_id=queue_id, scheduled_time=NOON - SECOND)
    build.enqueue([run], now=NOON - 5 * SECOND)

    (claimed,) = build.claim()

    due = StateDetails(scheduled_time=times.datetime_from_microseconds(NOON - SECOND))
    decision = decide(
        Run(
            id=run.id,
            is_flow_run=True,
            state_id=run.state_id,
            state_type=StateType.SCHEDULED,
            state_name="Scheduled",
            state_timestamp=NOON - 5 * SECOND,
            state_details=due,
            expected_start_time=NOON - SECOND,
            next_scheduled_start_time=NOON - SECOND,
        ),
        Proposal(id=claimed.state_id, type=StateType.PENDING, name="Pending", timestamp=NOON),
        now=NOON,
    )
    expected, stored = decision.run, decision.proposal
    assert expected is not None
    assert stored is not None
    row = read_run(build, run.id)
    assert row.state is not None
    assert stored.details == due
    assert row.state.state_details == msgspec.structs.replace(due, flow_run_id=run.id)
    assert (row.state.id, row.state.name, row.state.timestamp_microseconds) == (
        expected.state_id,
        expected.state_name,
        expected.state_timestamp,
    )
    for field in ("run_count", "start_time", "end_time", "total_run_time"):
        assert getattr(row, field) == getattr(expected, field)
    assert row.expected_start_time == expected.expected_start_time == NOON - SECOND
    assert row.next_scheduled_start_time is expected.next_scheduled_start_time is None


def test_a_claim_says_what_a_worker_needs(build: Builder) -> None:
    queue_id = build.pool().default_queue_id
    run = build.new_run(
        build.flow(),
        work_queue_id=queue_id,
        deployment_id=build.process.new_id(),
        entrypoint="flows.py:report",
        parameters='{"x":1}',
        tags=["a"],
        job_variables={"env": {}},
    )
    build.enqueue([run])
    state_id = build.process.new_id()

    (claimed,) = build.claim(state_ids=[state_id])

    assert claimed == ClaimedRun(
        id=run.id,
        flow_id=run.flow_id,
        name=run.name,
        run_count=0,
        epoch=1,
        deployment_id=run.deployment_id,
        work_queue_id=queue_id,
        entrypoint="flows.py:report",
        parameters='{"x":1}',
        tags=["a"],
        job_variables={"env": {}},
        state_id=state_id,
        state_timestamp=NOON + 1,
        scheduled_time=NOON,
    )


def test_a_clock_that_was_set_back_does_not_disorder_a_history(build: Builder) -> None:
    queue = build.queue("default", build.pool().name)
    run_id = build.run_due(build.flow(), queue, 0)

    build.claim(now=NOON - 60 * SECOND)

    history = build.database.read(lambda tx: flow_run_history(tx, run_id=run_id))
    assert [(state.type, state.timestamp_microseconds) for state in history] == [
        (StateType.SCHEDULED, NOON),
        (StateType.PENDING, NOON + 1),
    ]


def test_a_run_is_its_claimers_and_an_earlier_owner_is_fenced_off(build: Builder) -> None:
    queue = build.queue("default", build.pool().name)
    run_id = build.run_due(build.flow(), queue, 0)
    owner = ProcessRow(build.process.new_id(), "here", None, 1, None, None, None)
    build.database.write(lambda tx: register(tx, owner, now=NOON))

    (first,) = build.claim(owner_id=owner.id)
    build.set_state(run_id, StateType.SCHEDULED, "AwaitingRetry")
    (second,) = build.claim(scheduled_before=None)

    assert read_run(build, run_id).owner_id is None
    assert (first.epoch, second.epoch) == (1, 2)
    with pytest.raises(errors.OwnershipLost):
        build.database.write(lambda tx: check_owner(tx, run_id=run_id, epoch=first.epoch))


# -- the same claim again --------------------------------------------------------------------------


def test_the_same_claim_again_returns_what_it_took(
    build: Builder, three_queues: dict[str, UUID]
) -> None:
    claim_id = build.process.new_id()
    state_ids = [build.process.new_id() for _ in range(3)]
    first = build.claim(claim_id=claim_id, state_ids=state_ids)

    second = build.claim(claim_id=claim_id, state_ids=state_ids, now=NOON + SECOND)

    assert second == first
    assert named(three_queues, second) == ["hi -10", "hi -5", "hi +600"]


def test_the_same_claim_again_takes_nothing_else_when_its_runs_have_moved_on(
    build: Builder,
) -> None:
    queue = build.queue("default", build.pool().name)
    flow_id = build.flow()
    runs = [build.run_due(flow_id, queue, seconds) for seconds in (0, 1)]
    claim_id, state_ids = build.process.new_id(), [build.process.new_id()]
    (first,) = build.claim(claim_id=claim_id, state_ids=state_ids)
    build.set_state(first.id, StateType.RUNNING)
    build.pool(is_paused=True)

    again = build.claim(claim_id=claim_id, state_ids=state_ids)

    assert [(run.id, run.state_id) for run in again] == [(runs[0], first.state_id)]


def test_ids_for_states_are_used_in_ascending_order_however_they_are_given(
    build: Builder,
) -> None:
    queue = build.queue("default", build.pool().name)
    flow_id = build.flow()
    runs = [build.run_due(flow_id, queue, seconds) for seconds in (0, 1, 2)]
    state_ids = [build.process.new_id() for _ in range(4)]

    claimed = build.claim(state_ids=list(reversed(state_ids)))

    assert [(run.id, run.state_id) for run in claimed] == list(zip(runs, state_ids, strict=False))


# -- what cannot be --------------------------------------------------------------------------------


def test_an_unknown_pool_or_queue_is_an_error_and_takes_nothing(
    build: Builder, three_queues: dict[str, UUID]
) -> None:
    with pytest.raises(errors.ConfigurationError, match="'west'"):
        build.claim(pool_name="west")
    with pytest.raises(
        errors.ConfigurationError, match=r"no work queue 'mid'.*'hi', 'default', 'lo'"
    ):
        build.claim(queue_names=["hi", "mid"])

    assert len(build.claim()) == 5


@pytest.mark.parametrize("count", [0, 201])
def test_a_claim_takes_1_to_200(build: Builder, count: int) -> None:
    build.pool()

    with pytest.raises(errors.ConfigurationError, match=f"{count} were asked for"):
        build.claim(count)


def test_a_claim_of_200_takes_200(build: Builder) -> None:
    pool = build.pool()
    build.runs(build.flow(), 201, work_queue_id=pool.default_queue_id)

    assert len(build.claim(200)) == 200
