"""Why a run is where it is, and what would move it, for each way of being."""

from __future__ import annotations

import asyncio
import os
import threading
from datetime import UTC, datetime, timedelta

import pytest

from embedded_orch import (
    Orchestrator,
    errors,
    flow,
    pause_flow_run,
    sleep_for,
    suspend_flow_run,
    task,
)
from embedded_orch.concurrency.sync import concurrency
from embedded_orch.process import process_facts
from embedded_orch.recovery import Explanation, Reason
from embedded_orch.states import StateType
from embedded_orch.store import flow_runs
from tests.engine.waiting import passed, until
from tests.opened import opened, the_flow_run
from tests.store.builders import a_flow_run, a_task_run, an_owner


def a_dead_owner(orch: Orchestrator) -> object:
    row = an_owner(orch.database, orch.engine.process, host=process_facts().host, boot_id="before")
    return row.id


def why_from_within(orch: Orchestrator, name: str) -> Explanation:
    return orch.why(the_flow_run(orch, flow_name=name).id)


def test_run_that_is_running_says_where_and_since_when(url: str) -> None:
    found: list[Explanation] = []
    with opened(url) as orch:

        @task
        def asking() -> None:
            found.append(why_from_within(orch, "working"))

        @flow
        def working() -> None:
            asking()

        working()

    [answer] = found
    assert answer.reason is Reason.RUNNING
    assert answer.owner is not None
    assert (answer.owner.pid, answer.owner.life) == (os.getpid(), "alive")
    assert f"it is running in process {os.getpid()} on" in str(answer)
    assert [each.kind for each in answer.waits_for] == ["task run"]


def test_run_that_has_ended_says_how(url: str) -> None:
    @flow
    def failing() -> None:
        raise ValueError("no more")

    with opened(url) as orch:
        failing(return_state=True)
        run = the_flow_run(orch)

        answer = asyncio.run(orch.awhy(str(run.id)))

    assert answer.reason is Reason.FINISHED
    assert "it has ended as Failed" in answer.text
    assert "no more" in answer.text
    assert ".resume(" in answer.next


def test_unknown_run_is_not_explained(url: str) -> None:
    with opened(url) as orch, pytest.raises(errors.RunNotFound, match="no flow run and no task"):
        orch.why(orch.engine.process.new_id())


@pytest.mark.parametrize("url", ["file", "postgres"], indirect=True)
def test_run_whose_process_died_says_so_before_and_after_it_is_recovered(url: str) -> None:
    with opened(url) as orch:
        owner_id = a_dead_owner(orch)
        run_id = a_flow_run(
            orch.database, orch.engine.process, owner_id=owner_id, on_crash="resume"
        )

        before = orch.why(run_id)
        orch.recover()
        after = orch.why(run_id)

    assert (before.reason, "orch.recover()" in before.next) == (Reason.OWNER_DIED, True)
    assert (after.reason, "resume_crashed()" in after.next) == (Reason.TO_BE_RESUMED, True)
    assert after.owner is not None
    assert after.owner.life == "dead"


def test_run_that_waits_for_a_slot_says_who_holds_it(url: str) -> None:
    with opened(url) as orch:
        orch.concurrency_limits.create("db", 1)
        may_leave = threading.Event()

        @flow
        def waiting() -> None:
            with concurrency("db"):
                pass

        def in_thread() -> None:
            with orch:
                waiting()

        with concurrency("db"):
            thread = threading.Thread(target=in_thread)
            thread.start()
            until(lambda: orch.concurrency_limits.get("db").waiting, "it waits")

            answer = why_from_within(orch, "waiting")
            may_leave.set()
        passed(may_leave)
        thread.join()

    assert answer.reason is Reason.WAITING_FOR_SLOT
    [blocker] = answer.waits_for
    assert (blocker.kind, blocker.name) == ("slot", "db")
    assert blocker.owner is not None
    assert blocker.owner.pid == os.getpid()
    assert "1 of 1 slot(s) of 'db' held by" in str(answer)


def test_paused_run_says_until_when_and_who_lets_it_go_on(url: str) -> None:
    with opened(url) as orch:

        @flow
        def asking() -> None:
            pause_flow_run(timeout=600)

        def in_thread() -> None:
            with orch:
                asking(return_state=True)

        thread = threading.Thread(target=in_thread)
        thread.start()
        until(lambda: orch.flow_runs.count(state_type="PAUSED"), "it is paused")
        answer = why_from_within(orch, "asking")
        orch.flow_runs.cancel(answer.run_id)
        thread.join()

    assert answer.reason is Reason.PAUSED
    assert answer.until is not None
    assert "resume_flow_run(" in answer.next


def test_suspended_run_says_that_it_waits_for_input(url: str) -> None:
    with opened(url) as orch:

        @flow
        def asking() -> int:
            return suspend_flow_run(wait_for_input=int)

        asking(return_state=True)
        answer = why_from_within(orch, "asking")

    assert answer.reason is Reason.SUSPENDED
    assert "run_input=" in answer.next


def test_run_that_sleeps_for_a_day_says_until_when(url: str) -> None:
    with opened(url) as orch:

        @flow
        def sleeping() -> None:
            sleep_for(timedelta(days=1), suspend=True)

        sleeping(return_state=True)
        answer = why_from_within(orch, "sleeping")

    assert (answer.reason, answer.next) == (
        Reason.SUSPENDED,
        "orch.resume_due(), once that has come",
    )
    assert ["it sleeps until" in each.text for each in answer.waits_for] == [True]


@pytest.mark.parametrize(
    ("due", "reason"),
    [
        (datetime(2020, 1, 1, tzinfo=UTC), Reason.LATE),
        (datetime(2999, 1, 1, tzinfo=UTC), Reason.SCHEDULED),
    ],
)
def test_run_in_a_queue_says_when_it_is_due_and_what_is_paused(
    url: str, due: datetime, reason: Reason
) -> None:
    with opened(url) as orch:
        orch.store.upsert_work_pool("pool", is_paused=True)
        [run_id] = orch.store.enqueue("report", pool_name="pool", times=[due])

        answer = orch.why(run_id)

    assert (answer.reason, answer.until) == (reason, due)
    assert "the queue 'default' of the pool 'pool'" in answer.text
    assert "the pool is paused" in answer.text


def test_claimed_run_says_by_whom(url: str) -> None:
    with opened(url) as orch:
        orch.store.upsert_work_pool("pool")
        [run_id] = orch.store.enqueue(
            "report", pool_name="pool", times=[datetime(2020, 1, 1, tzinfo=UTC)]
        )
        orch.store.claim("pool")

        answer = orch.why(run_id)

    assert (answer.reason, "has claimed it" in answer.text) == (Reason.CLAIMED, True)


def test_run_that_is_being_cancelled_says_what_is_at_work(url: str) -> None:
    with opened(url) as orch:
        process = orch.engine.process
        orch.engine.database.write(orch.engine.owner.register)
        run_id = a_flow_run(
            orch.database, process, StateType.CANCELLING, owner_id=orch.engine.owner.id
        )
        a_task_run(orch.database, process, flow_run_id=run_id)

        answer = orch.why(run_id)

    assert answer.reason is Reason.CANCELLING
    assert [each.text for each in answer.waits_for] == ["task run load-1a2 is Running"]


def test_task_run_that_was_not_run_names_what_did_not_complete(url: str) -> None:
    @task
    def failing() -> None:
        raise ValueError

    @task
    def after(value: object) -> None:
        return None

    with opened(url) as orch:

        @flow
        def chain() -> None:
            after.submit(failing.submit()).wait()

        chain(return_state=True)
        [run] = list(orch.task_runs.find(task_key=after.task_key))
        answer = orch.why(run.id)

    assert (answer.kind, answer.reason) == ("task run", Reason.NOT_READY)
    assert "did not complete" in answer.text or "Failed" in answer.text


def test_run_that_was_made_to_be_run_later_says_by_what(url: str) -> None:
    with opened(url) as orch:
        run_id = a_flow_run(orch.database, orch.engine.process, StateType.PENDING)
        assert orch.database.read(lambda tx: flow_runs.get_flow_runs(tx, [run_id]))

        answer = orch.why(run_id)

    assert (answer.reason, ".resume(" in answer.next) == (Reason.NOT_BEGUN, True)
