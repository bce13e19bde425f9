"""``concurrency`` and ``rate_limit`` as users call them, in threads and in tasks."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import pytest

import embedded_orch
from embedded_orch import Orchestrator, errors, flow, task
from embedded_orch.concurrency import asyncio as in_tasks
from embedded_orch.concurrency.sync import (
    AcquireConcurrencySlotTimeoutError,
    ConcurrencySlotAcquisitionError,
    concurrency,
    rate_limit,
)
from tests.engine.waiting import passed, until, until_async
from tests.opened import opened

LOOPS = pytest.mark.parametrize("loop", ["asyncio", "trio"])


@pytest.fixture
def orch(url: str) -> Iterator[Orchestrator]:
    with opened(url) as orchestrator:
        yield orchestrator


@pytest.fixture
def memory() -> Iterator[Orchestrator]:
    with opened(":memory:") as orchestrator:
        yield orchestrator


def slots(orchestrator: Orchestrator, name: str = "db") -> tuple[int, int]:
    """How many are held, and how many claims wait."""
    limit = orchestrator.concurrency_limits.get(name)
    return sum(each.slots for each in limit.holders), len(limit.waiting)


def waits(orchestrator: Orchestrator, count: int = 1) -> bool:
    return slots(orchestrator)[1] == count


class Holder:
    """A thread that holds a slot until it is told to let go."""

    def __init__(self, names: str | list[str] = "db", **options: Any) -> None:
        self.holds = threading.Event()
        self.let_go = threading.Event()
        self.error: BaseException | None = None
        self._arguments = (names, options)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        names, options = self._arguments
        try:
            with concurrency(names, **options):
                self.holds.set()
                passed(self.let_go)
        except BaseException as error:
            self.error = error
            self.holds.set()

    def end(self) -> None:
        self.let_go.set()
        self._thread.join()


# -- holding ---------------------------------------------------------------------------------------


def test_a_block_holds_its_slots_and_gives_them_back(orch: Orchestrator) -> None:
    orch.concurrency_limits.create("db", 3)

    with concurrency("db", occupy=2):
        assert slots(orch) == (2, 0)
    with pytest.raises(KeyError), concurrency("db"):
        raise KeyError

    assert slots(orch) == (0, 0)


@LOOPS
def test_a_block_of_a_task_does_so_too(orch: Orchestrator, loop: str) -> None:
    orch.concurrency_limits.create("db", 3)

    async def main() -> None:
        async with in_tasks.concurrency(["db"], occupy=2):
            assert slots(orch) == (2, 0)

    anyio.run(main, backend=loop)

    assert slots(orch) == (0, 0)


def test_no_names_ask_for_nothing(memory: Orchestrator) -> None:
    with concurrency([]), concurrency(None):
        rate_limit([])
        rate_limit(None)
        rate_limit("")


def test_the_slots_say_which_run_they_are_for(memory: Orchestrator) -> None:
    memory.concurrency_limits.create("db", 3)

    @task
    def load() -> list[tuple[str | None, Any]]:
        with concurrency("db"):
            found = memory.concurrency_limits.get("db").holders
        return [(holder.type, holder.id) for holder in found]

    @flow
    def etl() -> list[tuple[str | None, Any]]:
        with concurrency("db"):
            return load()

    found = etl()

    [flow_run], [task_run] = list(memory.flow_runs.find()), list(memory.task_runs.find())
    assert found == [("flow_run", flow_run.id), ("task_run", task_run.id)]


def test_a_holder_may_be_named(memory: Orchestrator) -> None:
    memory.concurrency_limits.create("db", 1)
    id = "01890a5d-ac96-774b-bcce-b302099a8057"

    with concurrency("db", holder={"type": "deployment", "id": id}):
        [holder] = memory.concurrency_limits.get("db").holders

    assert (holder.type, str(holder.id), holder.slots) == ("deployment", id, 1)
    with pytest.raises(errors.ConfigurationError, match="holder="), concurrency("db", holder={}):
        pass


def test_eight_threads_on_one_slot_never_hold_two(orch: Orchestrator) -> None:
    orch.concurrency_limits.create("db", 1)
    held = threading.Lock()
    turns: list[int] = []

    def work(number: int) -> None:
        for _ in range(5):
            with concurrency("db"):
                assert held.acquire(blocking=False)
                turns.append(number)
                held.release()

    with ThreadPoolExecutor(8) as threads:
        for done in [threads.submit(work, number) for number in range(8)]:
            done.result()

    assert sorted(turns) == sorted([*range(8)] * 5)
    assert slots(orch) == (0, 0)


@LOOPS
def test_twenty_tasks_on_three_slots_never_hold_four(orch: Orchestrator, loop: str) -> None:
    orch.concurrency_limits.create("db", 3)
    held: list[int] = []
    peak: list[int] = []

    async def work(number: int) -> None:
        async with in_tasks.concurrency("db"):
            held.append(number)
            peak.append(len(held))
            await anyio.sleep(0)
            held.remove(number)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(work, number)

    anyio.run(main, backend=loop)

    assert len(peak) == 20
    assert max(peak) <= 3
    assert slots(orch) == (0, 0)


def test_mapped_tasks_share_the_slots_with_the_flow(memory: Orchestrator) -> None:
    memory.concurrency_limits.create("db", 2)
    peak: list[int] = []

    @task
    def load(number: int) -> int:
        with concurrency("db"):
            peak.append(memory.concurrency_limits.get("db").active_slots)
            return number

    @flow
    def etl() -> list[int]:
        return load.map(range(12)).result()

    assert etl() == list(range(12))
    assert max(peak) <= 2


# -- waiting ---------------------------------------------------------------------------------------


def test_who_waits_is_served_in_order(orch: Orchestrator) -> None:
    orch.concurrency_limits.create("db", 1)
    order: list[int] = []

    def work(number: int) -> None:
        with concurrency("db"):
            order.append(number)

    threads = []
    with concurrency("db"):
        for number in range(4):
            threads.append(threading.Thread(target=work, args=(number,)))
            threads[-1].start()
            until(lambda number=number: waits(orch, number + 1), "a place")
    for thread in threads:
        thread.join()

    assert order == [0, 1, 2, 3]


def test_a_waiter_is_woken_by_the_one_who_gives_back(memory: Orchestrator) -> None:
    """In memory nobody looks from time to time, so without the bell this would not end."""
    memory.concurrency_limits.create("db", 1)
    with concurrency("db"):
        waiter = Holder()
        until(lambda: waits(memory), "a place")

    passed(waiter.holds)

    assert slots(memory) == (1, 0)
    waiter.end()


@pytest.mark.parametrize(
    "change",
    [
        lambda limits: limits.update("db", limit=2),
        lambda limits: limits.update("db", active=False),
        lambda limits: limits.update("db", new_name="was db"),
        lambda limits: limits.reset("db"),
        lambda limits: limits.delete("db"),
    ],
    ids=["raised", "inactive", "renamed", "reset", "deleted"],
)
def test_a_changed_limit_wakes_who_waits(memory: Orchestrator, change: Any) -> None:
    memory.concurrency_limits.create("db", 1)
    with concurrency("db"):
        waiter = Holder()
        until(lambda: waits(memory), "a place")

        change(memory.concurrency_limits)
        passed(waiter.holds)
        waiter.end()

    assert waiter.error is None


def test_a_limit_that_was_lowered_below_what_is_asked_for_ends_the_wait(
    memory: Orchestrator,
) -> None:
    memory.concurrency_limits.create("db", 2)
    with concurrency("db"):
        waiter = Holder(occupy=2)
        until(lambda: waits(memory), "a place")

        memory.concurrency_limits.update("db", limit=1)
        passed(waiter.holds)
        waiter.end()

    assert isinstance(waiter.error, ConcurrencySlotAcquisitionError)
    assert slots(memory) == (0, 0)


def test_two_orchestrators_on_one_database_wake_each_other(tmp_path: Any) -> None:
    path = str(tmp_path / "orch.db")
    with opened(path) as first, opened(path) as second:
        first.concurrency_limits.create("db", 1)
        with first:
            with concurrency("db"):
                with second:
                    waiter = Holder()
                until(lambda: waits(second), "a place")
            passed(waiter.holds)
            waiter.end()


def test_a_wait_ends_after_its_time(orch: Orchestrator) -> None:
    orch.concurrency_limits.create("db", 1)

    with concurrency("db"):
        with pytest.raises(TimeoutError, match="'db'") as caught:
            with concurrency("db", timeout_seconds=0.02):
                pass
        assert slots(orch) == (1, 0)

    assert isinstance(caught.value, AcquireConcurrencySlotTimeoutError)


@LOOPS
def test_a_wait_of_a_task_ends_after_its_time(memory: Orchestrator, loop: str) -> None:
    memory.concurrency_limits.create("db", 1)

    async def main() -> None:
        async with in_tasks.concurrency("db"):
            with pytest.raises(in_tasks.AcquireConcurrencySlotTimeoutError):
                async with in_tasks.concurrency("db", timeout_seconds=0.02):
                    pass

    anyio.run(main, backend=loop)

    assert slots(memory) == (0, 0)


def test_no_retries_means_that_one_look_has_to_do(orch: Orchestrator) -> None:
    orch.concurrency_limits.create("db", 1)

    with concurrency("db"):
        with pytest.raises(ConcurrencySlotAcquisitionError, match="no retries are left"):
            with concurrency("db", max_retries=0):
                pass

    with concurrency("db", max_retries=0):
        assert slots(orch) == (1, 0)


@LOOPS
def test_a_cancelled_wait_leaves_no_place(orch: Orchestrator, loop: str) -> None:
    orch.concurrency_limits.create("db", 1)

    async def main() -> None:
        async with in_tasks.concurrency("db"), anyio.create_task_group() as group:

            async def wait() -> None:
                async with in_tasks.concurrency("db"):
                    raise AssertionError("it was cancelled before")

            group.start_soon(wait)
            await until_async(lambda: waits(orch), "a place")
            group.cancel_scope.cancel()

        assert slots(orch) == (0, 0)

    anyio.run(main, backend=loop)


@LOOPS
def test_a_cancelled_block_gives_back_what_it_took(orch: Orchestrator, loop: str) -> None:
    orch.concurrency_limits.create("db", 1)

    async def main() -> None:
        async with anyio.create_task_group() as group:

            async def hold() -> None:
                async with in_tasks.concurrency("db"):
                    await anyio.sleep_forever()

            group.start_soon(hold)
            await until_async(lambda: slots(orch) == (1, 0), "the slot is held")
            group.cancel_scope.cancel()

        assert slots(orch) == (0, 0)

    anyio.run(main, backend=loop)


def test_a_block_in_a_block_does_not_stand_in_line(memory: Orchestrator) -> None:
    """Seen to hang when it does: who stands before it waits for what the outer block holds."""
    memory.concurrency_limits.create("outer", 1)
    memory.concurrency_limits.create("db", 1)

    with concurrency("outer"):
        waiter = Holder(["outer", "db"])
        until(lambda: waits(memory), "a place")
        with concurrency("db", timeout_seconds=20):
            pass

    passed(waiter.holds)
    waiter.end()


def test_a_block_that_waits_for_the_one_around_it_is_refused(orch: Orchestrator) -> None:
    orch.concurrency_limits.create("db", 2)
    orch.concurrency_limits.create("api", 1)

    with concurrency(["db", "api"], occupy=1):
        with concurrency("db"):
            pass
        with (
            pytest.raises(errors.ConcurrencySlotAcquisitionError, match=r"'db'.* hold 1 of its 2"),
            concurrency("db", occupy=2),
        ):
            raise AssertionError("entered")
        with pytest.raises(TimeoutError), concurrency("api", timeout_seconds=0):
            raise AssertionError("entered")

    assert all(limit.waiting == [] for limit in orch.concurrency_limits.find())


@LOOPS
def test_a_block_of_another_task_may_wait_for_the_one_around_its_beginning(
    memory: Orchestrator, loop: str
) -> None:
    memory.concurrency_limits.create("db", 1)

    async def inside() -> None:
        async with in_tasks.concurrency("db"):
            entered.append(1)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            async with in_tasks.concurrency("db"):
                group.start_soon(inside)
                await until_async(lambda: waits(memory), "the other stands in line")
                assert entered == []

    entered: list[int] = []
    anyio.run(main, backend=loop)

    assert entered == [1]


def test_a_wait_inside_of_an_open_transaction_is_refused(memory: Orchestrator) -> None:
    memory.concurrency_limits.create("db", 1)

    with concurrency("db"), memory.session(begin_transaction=True):
        with (
            pytest.raises(errors.WouldDeadlock, match="transaction open"),
            concurrency("db", timeout_seconds=60),
        ):
            raise AssertionError("entered")

    assert slots(memory) == (0, 0)


# -- what cannot be had ----------------------------------------------------------------------------


def test_a_missing_limit_is_warned_about_and_lets_through(
    memory: Orchestrator, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "embedded_orch.concurrency"), concurrency("db"):
        pass

    [record] = caplog.records
    assert "'db'" in record.getMessage()


def test_a_missing_limit_is_an_error_when_strict(memory: Orchestrator) -> None:
    memory.concurrency_limits.create("there", 1)

    with pytest.raises(ConcurrencySlotAcquisitionError, match=r"no concurrency limit 'db'"):
        with concurrency(["there", "db"], strict=True):
            pass
    with pytest.raises(ConcurrencySlotAcquisitionError, match=r"no concurrency limit 'db'"):
        rate_limit("db", strict=True)

    assert slots(memory, "there") == (0, 0)


@pytest.mark.parametrize(
    "options", [{"occupy": 0}, {"occupy": 2}, {"lease_duration": 59}, {"lease_duration": 86401}]
)
def test_what_can_never_be_had_is_refused_at_once(
    memory: Orchestrator, options: dict[str, Any]
) -> None:
    memory.concurrency_limits.create("db", 1)

    with pytest.raises(ConcurrencySlotAcquisitionError), concurrency("db", **options):
        pass

    assert slots(memory) == (0, 0)


# -- rates -----------------------------------------------------------------------------------------


def test_a_rate_limit_spends_what_there_is_and_then_waits(orch: Orchestrator) -> None:
    orch.concurrency_limits.create("api", 2, slot_decay_per_second=100)
    started = orch.engine.process.now()

    for _ in range(7):
        rate_limit("api")

    assert orch.engine.process.now() - started >= 50_000
    assert orch.concurrency_limits.get("api").holders == []


@LOOPS
def test_a_rate_limit_of_tasks(memory: Orchestrator, loop: str) -> None:
    memory.concurrency_limits.create("api", 1, slot_decay_per_second=200)
    started = memory.engine.process.now()

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(7):
                group.start_soon(in_tasks.rate_limit, "api")

    anyio.run(main, backend=loop)

    assert memory.engine.process.now() - started >= 30_000


def test_a_rate_limit_gives_up_after_its_time(memory: Orchestrator) -> None:
    memory.concurrency_limits.create("api", 1, slot_decay_per_second=0.01)
    rate_limit("api")

    with pytest.raises(AcquireConcurrencySlotTimeoutError):
        rate_limit("api", timeout_seconds=0.02)

    assert slots(memory, "api") == (0, 0)


def test_a_rate_limit_needs_a_decay(memory: Orchestrator) -> None:
    memory.concurrency_limits.create("db", 1)

    with pytest.raises(ConcurrencySlotAcquisitionError, match="do not decay"):
        rate_limit("db")


# -- limits ----------------------------------------------------------------------------------------


def test_limits_are_made_found_changed_and_removed(orch: Orchestrator) -> None:
    limits = orch.concurrency_limits
    limits.create("db", 2)
    limits.create("api", 5, slot_decay_per_second=1.5, active=False)
    limits.upsert("tag:db", 1)

    changed = limits.upsert("db", 4)
    limits.update("api", active=True, new_name="API")

    assert (changed.limit, changed.slot_decay_per_second, changed.active) == (4, 0.0, True)
    assert sorted(limit.name for limit in limits.find()) == ["API", "db", "tag:db"]
    assert [limit.name for limit in limits.find(name_like="ap")] == ["API"]
    assert limits.get("API").slot_decay_per_second == 1.5
    assert limits.delete("API")
    assert not limits.delete("API")
    with pytest.raises(errors.LimitNotFound, match="'API'"):
        limits.get("API")


def test_limits_are_found_page_by_page(memory: Orchestrator) -> None:
    names = [f"limit {number:03}" for number in range(201)]
    for name in names:
        memory.concurrency_limits.create(name, 1)

    assert [limit.name for limit in memory.concurrency_limits.find()] == names


@pytest.mark.parametrize(
    ("limit", "decay"), [(-1, 0.0), ("many", 0.0), (1, -1.0), (1, float("inf")), (1, float("nan"))]
)
def test_a_limit_that_cannot_be_changes_nothing(
    memory: Orchestrator, limit: Any, decay: float
) -> None:
    with pytest.raises(errors.ConfigurationError):
        memory.concurrency_limits.create("db", limit, slot_decay_per_second=decay)

    assert list(memory.concurrency_limits.find()) == []


def test_the_orchestrator_that_is_open_is_meant(tmp_path: Any) -> None:
    with embedded_orch.open(":memory:") as first, embedded_orch.open(":memory:") as second:
        first.concurrency_limits.create("db", 1)
        second.concurrency_limits.create("db", 1)
        with concurrency("db"):
            assert (slots(first), slots(second)) == ((0, 0), (1, 0))
