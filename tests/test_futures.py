"""Futures as users import and use them: waiting for several, in order of their ends, awaiting."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import embedded_orch.futures as names
from embedded_orch import errors, flow, task
from embedded_orch.engine.futures import Future, FutureList
from embedded_orch.futures import (
    as_completed,
    resolve_futures_to_results,
    resolve_futures_to_states,
    wait,
)
from embedded_orch.states import StateType
from tests.engine.waiting import passed
from tests.opened import opened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from embedded_orch import Orchestrator

LOOPS = ("asyncio", "trio")


@pytest.fixture
def orch() -> Iterator[Orchestrator]:
    with opened(":memory:") as orchestrator:
        yield orchestrator


pytestmark = pytest.mark.usefixtures("orch")


@task
def one() -> int:
    return 1


@task
def fail() -> int:
    raise ValueError("no")


@task
def held(event: threading.Event, number: int = 0) -> int:
    passed(event)
    return number


def in_flow(body: Callable[[], Any]) -> Any:
    return flow(name="a-flow")(body)()


def test_names_of_prefect_are_ours() -> None:
    assert names.PrefectFuture is names.PrefectConcurrentFuture is Future
    assert names.PrefectFutureList is FutureList


def test_wait_tells_which_have_ended() -> None:
    def body() -> None:
        event = threading.Event()
        ended, going_on = one.submit(), held.submit(event)
        ended.wait()

        done, not_done = wait([ended, going_on], timeout=0)
        assert (done, not_done) == ({ended}, {going_on})

        event.set()
        assert wait([ended, going_on]).done == {ended, going_on}

    in_flow(body)


def test_as_completed_gives_them_as_they_end() -> None:
    def body() -> list[int]:
        events = [threading.Event() for _ in range(4)]
        futures = [held.submit(event, number) for number, event in enumerate(events)]
        found: list[int] = []
        events[2].set()
        for future in as_completed([*futures, futures[2]]):
            found.append(future.result())
            if len(found) < 4:
                events[[2, 0, 3, 1][len(found)]].set()
        return found

    assert in_flow(body) == [2, 0, 3, 1]


def test_as_completed_that_does_not_end_in_time_is_a_timeout() -> None:
    def body() -> None:
        event = threading.Event()
        try:
            steps = as_completed([one.submit(), held.submit(event)], timeout=0.2)
            assert next(steps).result() == 1
            with pytest.raises(TimeoutError, match="1 of 2 futures"):
                next(steps)
        finally:
            event.set()

    in_flow(body)


def test_tasks_wait_for_tasks_of_their_own_in_every_way() -> None:
    """More of them than there are threads: each way lends the place of the one that waits."""

    @task
    def parent(way: int) -> int:
        futures = [one.submit() for _ in range(2)]
        if way == 0:
            return len(wait(futures).done)
        if way == 1:
            return sum(future.result() for future in as_completed(futures))
        return sum(resolve_futures_to_results(futures))

    assert in_flow(lambda: parent.map([0, 1, 2] * 40).result()) == [2] * 120


def test_futures_in_a_value_are_resolved_to_results_or_states() -> None:
    def body() -> None:
        value = {"a": [one.submit()], "b": "text"}
        assert resolve_futures_to_results(value) == {"a": [1], "b": "text"}
        states = resolve_futures_to_states({"a": [one.submit(), fail.submit()]})
        assert [state.type for state in states["a"]] == [StateType.COMPLETED, StateType.FAILED]
        with pytest.raises(errors.UpstreamFailed, match="is Failed"):
            resolve_futures_to_results([fail.submit()])

    in_flow(body)


@pytest.mark.parametrize("loop", ["none", *LOOPS])
def test_list_raises_the_first_failure_without_waiting_for_the_others(loop: str) -> None:
    event = threading.Event()

    @task
    def work(number: int) -> None:
        if number == 2:
            raise ValueError("no")
        passed(event)

    @flow
    def report() -> None:
        futures = work.map([0, 1, 2])
        with pytest.raises(ValueError, match="no"):
            futures.result()
        event.set()

    @flow
    async def report_later() -> None:
        futures = work.map([0, 1, 2])
        with pytest.raises(ValueError, match="no"):
            await futures
        event.set()

    if loop == "none":
        report()
    else:
        anyio.run(report_later, backend=loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_empty_list_is_awaited_at_once(loop: str) -> None:
    async def main() -> list[Any]:
        return await FutureList[Any]()

    assert anyio.run(main, backend=loop) == []


@pytest.mark.parametrize("loop", LOOPS)
def test_futures_are_awaited_and_give_their_results(loop: str) -> None:
    @task
    async def later(number: int) -> int:
        await anyio.sleep(0)
        return number

    @flow
    async def report() -> list[Any]:
        with pytest.raises(ValueError, match="no"):
            await fail.submit()
        return [await one.submit(), await later.submit(2), await later.map([3, 4])]

    assert anyio.run(report, backend=loop) == [1, 2, [3, 4]]


def test_result_of_a_coroutine_is_had_on_the_loop_of_the_caller() -> None:
    @task
    async def later(number: int) -> int:
        await anyio.sleep(0)
        return number

    @flow
    async def report() -> int:
        return later.submit(2).result()

    assert anyio.run(report) == 2


def test_state_is_the_one_that_the_run_is_in() -> None:
    def body() -> list[str]:
        event = threading.Event()
        begun = threading.Event()

        @task
        def work() -> None:
            begun.set()
            passed(event)

        upstream = work.submit()
        later = held.submit(event, upstream)  # type: ignore[arg-type]
        passed(begun)
        found = [upstream.state.name, later.state.name]
        event.set()
        later.wait()
        return [*found, upstream.state.name, later.state.name]

    assert in_flow(body) == ["Running", "Pending", "Completed", "Completed"]
