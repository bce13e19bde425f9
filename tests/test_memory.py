"""After a call nobody of ours holds what it was called with, nor what it returned."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass

import pytest

from embedded_orch import flow, get_run_logger, task
from embedded_orch.cache_policies import INPUTS
from embedded_orch.engine.contexts import FlowRunContext
from embedded_orch.engine.task_record import TaskRecord
from embedded_orch.orchestration.values import Proposal
from embedded_orch.task_runners import ThreadPoolTaskRunner
from embedded_orch.transactions import transaction
from tests.engine.waiting import until
from tests.opened import opened

FEW = 5


@dataclass
class Thing:
    """What is given to tasks and returned by them; it can be stored, and referred to weakly."""

    number: int


class Seen:
    """Weak references to every thing that was made."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: list[weakref.ref[Thing]] = []

    def make(self, number: int) -> Thing:
        made = Thing(number)
        with self._lock:
            self._all.append(weakref.ref(made))
        return made

    @property
    def count(self) -> int:
        return len(self._all)

    def alive(self) -> list[Thing]:
        gc.collect()
        return [thing for each in self._all if (thing := each()) is not None]


seen = Seen()

pytestmark = pytest.mark.usefixtures("only_new_garbage")


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    seen.__init__()  # type: ignore[misc]


@task
def plain(thing: Thing) -> Thing:
    return seen.make(thing.number + 1)


@task
async def later(thing: Thing) -> Thing:
    await asyncio.sleep(0)
    return seen.make(thing.number + 1)


@task(cache_policy=INPUTS)
def cached(thing: Thing) -> Thing:
    return seen.make(thing.number + 1)


@task
def items(thing: Thing) -> Iterator[Thing]:
    for number in range(FEW):
        yield seen.make(thing.number + number)


@task
async def items_later(thing: Thing) -> AsyncIterator[Thing]:
    for number in range(FEW):
        yield seen.make(thing.number + number)


@task
def failing(thing: Thing) -> Thing:
    raise ValueError(f"not {thing.number}")


@task(retries=1)
def stumbling(thing: Thing, stumbles: list[int]) -> Thing:
    if not stumbles:
        stumbles.append(1)
        raise ValueError(f"not yet {thing.number}")
    return seen.make(thing.number + 1)


@task(log_prints=True)
def talkative(thing: Thing) -> Thing:
    # As a text: pytest keeps every record with its arguments.
    get_run_logger().info("given %s", str(thing))
    print(thing)
    return seen.make(thing.number + 1)


@task(timeout_seconds=60)
def limited(thing: Thing) -> Thing:
    return seen.make(thing.number + 1)


@flow
def below(thing: Thing) -> Thing:
    return plain(thing)


def called() -> None:
    plain(seen.make(1))


def submitted() -> None:
    plain.submit(seen.make(1)).result()


def mapped() -> None:
    plain.map([seen.make(number) for number in range(FEW)]).result()


def chained() -> None:
    plain.submit(plain.submit(seen.make(1))).result()


def submitted_async() -> None:
    later.submit(seen.make(1)).result()


def mapped_async() -> None:
    later.map([seen.make(number) for number in range(FEW)]).result()


def state_returned() -> None:
    assert plain(seen.make(1), return_state=True).is_completed()


def from_the_cache() -> None:
    assert cached(seen.make(1)) == cached(seen.make(1))


def yielded() -> None:
    assert len(list(items(seen.make(1)))) == FEW


def left_half_way() -> None:
    assert next(iter(items(seen.make(1)))) == Thing(1)


def failed() -> None:
    with pytest.raises(ValueError, match="not 1"):
        failing(seen.make(1))


def failed_in_a_thread() -> None:
    assert failing.submit(seen.make(1), return_state=True).is_failed()


def retried() -> None:
    stumbling(seen.make(1), [])


def logged() -> None:
    talkative(seen.make(1))


def with_a_time_limit() -> None:
    limited(seen.make(1))


def subflow() -> None:
    below(seen.make(1))


def in_a_transaction() -> None:
    with transaction():
        plain(seen.make(1))


def with_a_callback() -> None:
    future = plain.submit(seen.make(1))
    future.add_done_callback(lambda done: done.result())
    future.wait()


WAYS = [
    called,
    submitted,
    mapped,
    chained,
    submitted_async,
    mapped_async,
    state_returned,
    from_the_cache,
    yielded,
    left_half_way,
    failed,
    failed_in_a_thread,
    retried,
    logged,
    with_a_time_limit,
    subflow,
    in_a_transaction,
    with_a_callback,
]


async def awaited() -> None:
    await later(seen.make(1))


async def gathered() -> None:
    await asyncio.gather(*(later(seen.make(number)) for number in range(FEW)))


async def yielded_later() -> None:
    assert [each async for each in items_later(seen.make(1))] != []


async def future_awaited() -> None:
    await later.submit(seen.make(1))


WAYS_OF_COROUTINES = [awaited, gathered, yielded_later, future_awaited]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_nothing_of_a_call_is_kept_while_its_flow_goes_on(
    url: str, way: Callable[[], None]
) -> None:
    @flow(task_runner=ThreadPoolTaskRunner(max_workers=2))
    def calling() -> None:
        way()
        # A list has no room for a weak reference, and is let go when more results are noted.
        plain(Thing(0))
        # A thread that has just given its answer may still be on its way out of the call.
        until(lambda: not seen.alive(), "all things let go")

    with opened(url):
        calling()

    assert seen.count


@pytest.mark.parametrize("way", WAYS_OF_COROUTINES, ids=lambda way: way.__name__)
def test_nothing_of_an_awaited_call_is_kept_while_its_flow_goes_on(
    url: str, way: Callable[[], Awaitable[None]]
) -> None:
    @flow
    async def calling() -> None:
        await way()
        await later(Thing(0))
        until(lambda: not seen.alive(), "all things let go")

    with opened(url):
        asyncio.run(calling())

    assert seen.count


def test_nothing_of_a_flow_is_kept_after_it_has_ended(url: str) -> None:
    with opened(url):
        assert below(seen.make(1)) == Thing(2)
        assert below(seen.make(2), return_state=True).is_completed()
        until(lambda: not seen.alive(), "all things let go")

    assert seen.count == 4


def test_a_result_that_somebody_holds_is_seen_to_be_alive(url: str) -> None:
    with opened(url):
        held = below(seen.make(1))

        until(lambda: seen.alive() == [held], "only what is held alive")


def test_tasks_leave_nothing_to_the_garbage_collector(url: str) -> None:
    """Seen to fail when an announced start held its record, which held it."""

    @task
    def work(number: int) -> int:
        return number

    @flow
    def report() -> list[str]:
        work(0)
        gc.collect()
        gc.disable()
        try:
            known = {id(each) for each in gc.get_objects()}
            for number in range(FEW):
                work(number)
            new = [each for each in gc.get_objects() if id(each) not in known]
        finally:
            gc.enable()
        return [type(each).__name__ for each in new if isinstance(each, TaskRecord | Proposal)]

    with opened(url):
        assert report() == []


def test_flow_runs_leave_nothing_to_the_garbage_collector(url: str) -> None:
    """Seen to fail when the cancellation of a run held its last attempt, which held it."""

    @flow
    def called() -> None:
        return

    def run_some() -> list[str]:
        known = {id(each) for each in gc.get_objects()}
        for _ in range(FEW):
            called()
        new = [each for each in gc.get_objects() if id(each) not in known]
        return [type(each).__name__ for each in new if isinstance(each, FlowRunContext)]

    with opened(url):
        called()
        gc.collect()
        gc.disable()
        try:
            assert run_some() == []
        finally:
            gc.enable()
