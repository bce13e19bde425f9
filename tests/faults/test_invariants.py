"""The invariants find what they are there to find: each damage is made once, and told."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

import embedded_orch
from embedded_orch import flow, task
from embedded_orch.concurrency.sync import concurrency
from tests.builders import select
from tests.faults.invariants import problems, unburied

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
    "UPDATE flow_run_state SET name = 'Waiting' WHERE type = 'PENDING'": "has the name Waiting",
    "UPDATE task_run_state SET data = NULL, data_format = NULL": "Completed with None data",
    "UPDATE flow_run SET start_time = start_time - 1": "by its history",
    "UPDATE flow_run SET end_time = NULL": "it ended at None",
    "UPDATE task_run SET total_run_time = total_run_time + 1": "by its history",
    "UPDATE task_run SET run_count = run_count + 5": "attempts, and its history has",
    "UPDATE flow_run SET parent_task_run_id = id": "without the task run that called them",
    "UPDATE log SET flow_run_id = task_run_id": "lines of a log name a run that is not there",
    "UPDATE flow_run SET state_type = 'RUNNING', owner_id = NULL": "nothing will move it",
    "UPDATE flow_run_state SET id = flow_run_id": "one of its states is there twice",
}


def rows_of(orchestrator: Orchestrator, sql: str) -> list[tuple[object, ...]]:
    return select(orchestrator.database, sql)


def run_the_flows(orchestrator: Orchestrator) -> None:
    STUMBLED.clear()
    orchestrator.concurrency_limits.upsert("db", 1)
    parent()
    failing(return_state=True)


class TestInvariants:
    def test_find_nothing_in_a_database_whose_runs_have_ended(self, url: str) -> None:
        with embedded_orch.open(url) as orchestrator:
            run_the_flows(orchestrator)

            assert problems(lambda sql: rows_of(orchestrator, sql)) == []

    @pytest.mark.parametrize(("damage", "told"), DAMAGES.items())
    def test_tell_what_no_order_of_whole_transactions_leaves(self, damage: str, told: str) -> None:
        with embedded_orch.open(":memory:") as orchestrator:
            run_the_flows(orchestrator)

            with orchestrator.session() as session:
                session.execute(damage)

            found = problems(lambda sql: rows_of(orchestrator, sql))
            assert any(told in problem for problem in found), found

    def test_tell_of_more_slots_than_there_are_and_of_claims_of_the_dead(self) -> None:
        with embedded_orch.open(":memory:") as orchestrator:
            run_the_flows(orchestrator)
            with concurrency("db", occupy=1):
                orchestrator.concurrency_limits.upsert("db", 0)
                with orchestrator.session() as session:
                    session.execute("UPDATE process SET ended = 1")

                found = problems(lambda sql: rows_of(orchestrator, sql))

        assert "1 slots of db are held, which has 0" in found
        assert "1 slots of a limit are kept by processes that have ended" in found

    def test_tell_of_processes_that_were_not_found_dead(self) -> None:
        with embedded_orch.open(":memory:") as orchestrator:
            run_the_flows(orchestrator)

            found = unburied(lambda sql: rows_of(orchestrator, sql))

        assert found == ["1 processes have died, and were not found dead"]
