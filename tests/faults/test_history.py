"""The history checker finds what it is there to find: each damage is made once, and told."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

import embedded_orch
from embedded_orch import flow, task
from embedded_orch.concurrency.sync import concurrency
from tests.builders import select
from tests.faults.history import problems_at_rest, problems_in

if TYPE_CHECKING:
    from embedded_orch import Orchestrator


@task(retries=1)
def stumble(number: int) -> int:
    logging.getLogger("embedded_orch.tests").info("stumbles over %s", number)
    with concurrency("db", occupy=1):
        if number == 1 and not STUMBLED:
            STUMBLED.append(number)
            raise ValueError(number)
    return number


@flow
def child(number: int) -> int:
    return stumble(number)


@flow
def parent() -> list[int]:
    embedded_orch.get_run_logger().info("begins")
    return [child(1), *stumble.map([2, 3]).result()]


@flow
def failing() -> None:
    raise ValueError("as it should")


STUMBLED: list[int] = []

DAMAGES = {
    "UPDATE flow_run SET state_name = 'Running' WHERE state_type = 'COMPLETED'": "its row says",
    "UPDATE task_run SET state_timestamp = state_timestamp + 1": "its row says",
    "DELETE FROM task_run_state WHERE type = 'PENDING'": "it began as RUNNING",
    "UPDATE task_run_state SET type = 'CANCELLING' WHERE type = 'PENDING'": "no rule leads",
    "UPDATE flow_run SET end_time = NULL": "its end_time is None",
    "UPDATE flow_run SET end_time = start_time - 1": "before it began",
    "UPDATE task_run SET total_run_time = total_run_time + 1": "by its history",
    "UPDATE task_run SET run_count = run_count + 5": "attempts, and its history has",
    "UPDATE task_run SET parent_task_run_id = flow_run_id": "the task run that made it",
    "UPDATE log SET flow_run_id = task_run_id": "which is not there",
}


def rows_of(orchestrator: Orchestrator, sql: str) -> list[tuple[object, ...]]:
    return select(orchestrator.database, sql)


def run_the_flows(orchestrator: Orchestrator) -> None:
    STUMBLED.clear()
    orchestrator.concurrency_limits.upsert("db", 1)
    parent()
    failing(return_state=True)


class TestHistory:
    def test_finds_nothing_in_a_database_whose_runs_have_ended(self, url: str) -> None:
        with embedded_orch.open(url) as orchestrator:
            run_the_flows(orchestrator)

            assert problems_in(lambda sql: rows_of(orchestrator, sql)) == []

    @pytest.mark.parametrize(("damage", "told"), DAMAGES.items())
    def test_tells_what_no_order_of_whole_transactions_leaves(self, damage: str, told: str) -> None:
        with embedded_orch.open(":memory:") as orchestrator:
            run_the_flows(orchestrator)

            with orchestrator.session() as session:
                session.execute(damage)

            found = problems_in(lambda sql: rows_of(orchestrator, sql))
            assert any(told in problem for problem in found), found

    def test_tells_of_more_slots_than_there_are_and_of_claims_of_the_dead(self) -> None:
        with embedded_orch.open(":memory:") as orchestrator:
            run_the_flows(orchestrator)
            with concurrency("db", occupy=1):
                orchestrator.concurrency_limits.upsert("db", 0)
                with orchestrator.session() as session:
                    session.execute("UPDATE process SET ended = 1")

                found = problems_in(lambda sql: rows_of(orchestrator, sql))

        assert found == [
            "1 slots of db are held, and there are 0",
            "1 claims are of a process that has ended",
        ]

    def test_tells_at_rest_what_nobody_will_end(self) -> None:
        with embedded_orch.open(":memory:") as orchestrator:
            told: list[str] = []

            @flow
            def asking() -> None:
                told.extend(problems_at_rest(lambda sql: rows_of(orchestrator, sql)))

            asking()

        assert [line.split(": ")[-1] for line in told] == [
            "it has neither ended nor does it wait for anybody",
            "1 processes that have not said goodbye are left behind",
        ]
