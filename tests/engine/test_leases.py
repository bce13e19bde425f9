"""Leases: what tells a host that is gone from one that works, on a server that several share."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from embedded_orch import Orchestrator, errors, task
from embedded_orch.concurrency import asyncio as in_tasks
from embedded_orch.concurrency.sync import concurrency
from tests.builders import SECOND
from tests.engine.waiting import PATIENCE, passed
from tests.opened import opened
from tests.store.builders import an_owner


@pytest.fixture
def server(postgres_server: Any) -> Iterator[Orchestrator]:
    with opened(postgres_server.emptied_database()) as orchestrator:
        orchestrator.concurrency_limits.create("db", 1)
        yield orchestrator


def pass_time(orchestrator: Orchestrator, seconds: int) -> None:
    """As if so much time had passed since each lease was renewed."""
    with orchestrator.session(begin_transaction=True) as session:
        session.execute(
            "update slot_claim set expires = expires - :passed", {"passed": seconds * SECOND}
        )


def move_to_another_host(orchestrator: Orchestrator) -> None:
    """As if a process of another host had made the claims that there are."""
    other = an_owner(
        orchestrator.database, orchestrator.engine.process, host="elsewhere", life_file="1:1"
    )
    with orchestrator.session(begin_transaction=True) as session:
        session.execute("update slot_claim set owner_id = :id", {"id": other.id})


def take_quickly() -> None:
    with concurrency("db", timeout_seconds=0.01):
        pass


def test_a_host_that_was_heard_of_keeps_its_slots(server: Orchestrator) -> None:
    with concurrency("db"):
        move_to_another_host(server)
        pass_time(server, 290)
        with pytest.raises(TimeoutError):
            take_quickly()


def test_the_slots_of_a_host_that_was_not_are_free(server: Orchestrator) -> None:
    """Seen to time out without the deletion of what has expired."""
    with concurrency("db"):
        move_to_another_host(server)
        pass_time(server, 301)

        take_quickly()


def test_a_renewed_lease_lasts_as_long_again(server: Orchestrator) -> None:
    with concurrency("db", lease_duration=60):
        pass_time(server, 50)
        server.engine.leases.renew()
        pass_time(server, 50)
        with pytest.raises(TimeoutError):
            take_quickly()


def lose(orchestrator: Orchestrator) -> None:
    """Let another host take the slots, and find out."""
    pass_time(orchestrator, 301)
    take_quickly()
    orchestrator.engine.leases.renew()


def test_a_block_whose_slots_were_lost_goes_on_with_a_warning(
    server: Orchestrator, caplog: pytest.LogCaptureFixture
) -> None:
    with concurrency("db"):
        lose(server)

    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_block_whose_slots_were_lost_is_ended_if_it_is_strict(server: Orchestrator) -> None:
    entered = threading.Event()
    ended: list[BaseException] = []

    def work() -> None:
        try:
            with concurrency("db", strict=True):
                entered.set()
                while True:
                    threading.Event().wait(0.002)
        except errors.ConcurrencyLeaseLost as error:
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    passed(entered)
    lose(server)
    thread.join()

    assert "went to somebody else" in str(ended[0])
    take_quickly()


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_block_of_a_task_is_ended_too(server: Orchestrator, loop: str) -> None:
    async def main() -> None:
        with pytest.raises(errors.ConcurrencyLeaseLost):
            async with in_tasks.concurrency("db", raise_on_lease_renewal_failure=True):
                await anyio.to_thread.run_sync(lose, server)
                await anyio.sleep_forever()

    anyio.run(main, backend=loop)

    take_quickly()


def test_a_task_run_whose_slot_was_lost_goes_on_with_a_warning(
    server: Orchestrator, caplog: pytest.LogCaptureFixture
) -> None:
    server.concurrency_limits.create("tag:etl", 1)

    @task(tags=["etl"])
    def work() -> int:
        pass_time(server, 61)
        with concurrency("tag:etl", timeout_seconds=PATIENCE):
            server.engine.leases.renew()
        return 1

    assert work() == 1
    assert ["task run" in record.getMessage() for record in caplog.records] == [True]


def test_nobody_renews_when_nothing_is_held(server: Orchestrator) -> None:
    with concurrency("db"):
        pass

    assert server.engine.leases._kept == {}
