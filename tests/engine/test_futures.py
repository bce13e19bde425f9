"""Futures: waiting for them, what they hold, and finding them in arguments."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any
from uuid import UUID

import anyio
import pytest

from embedded_orch.engine.futures import Future, FutureList
from embedded_orch.states import State, StateType
from tests.engine.waiting import passed

if TYPE_CHECKING:
    from embedded_orch.process import Process

RUN_ID = UUID(int=1)
PENDING = State(id=RUN_ID, type=StateType.PENDING, name="Pending", timestamp=1)


def a_future(name: str = "load-1a2") -> Future[Any]:
    return Future(name, RUN_ID, lambda run_id: PENDING)


def a_state(process: Process, type: StateType = StateType.COMPLETED) -> State:
    return State(
        id=process.new_id(), type=type, name=type.value.capitalize(), timestamp=process.now()
    )


def done(process: Process, value: object = 7) -> Future[Any]:
    future = a_future()
    future.finish(a_state(process).with_value(value))
    return future


def failed(process: Process, error: Exception) -> Future[Any]:
    future = a_future()
    future.finish(a_state(process, StateType.FAILED).with_error(error))
    return future


def test_result_is_what_the_task_returned(process: Process) -> None:
    future = done(process, [1])

    assert future.result() == [1]
    assert future.state.is_completed()
    assert (future.is_done, future.is_completed) == (True, True)


def test_result_of_a_failure_is_raised_as_itself(process: Process) -> None:
    error = ValueError("no")

    with pytest.raises(ValueError) as caught:
        failed(process, error).result()
    assert caught.value is error


def test_result_of_a_failure_can_be_had_without_raising(process: Process) -> None:
    error = ValueError("no")

    assert failed(process, error).result(raise_on_failure=False) is error


def test_result_that_does_not_come_in_time_is_a_timeout() -> None:
    with pytest.raises(TimeoutError, match="load-1a2"):
        a_future().result(timeout=0)


def test_wait_that_times_out_says_nothing() -> None:
    future = a_future()

    future.wait(timeout=0)

    assert not future.is_done


def test_state_before_the_end_is_looked_up_and_then_final(process: Process) -> None:
    future = a_future()

    assert future.state is PENDING
    future.finish(a_state(process))
    assert future.state.is_completed()


def test_state_that_is_final_stays(process: Process) -> None:
    future = done(process, 1)

    future.finish(a_state(process, StateType.FAILED))

    assert future.result() == 1


def test_interruption_is_raised_by_whoever_asks(process: Process) -> None:
    future = a_future()
    future.finish(a_state(process, StateType.CRASHED).with_error(KeyboardInterrupt()))

    with pytest.raises(KeyboardInterrupt):
        future.result()
    assert (future.is_completed, future.state.name) == (False, "Crashed")


def test_threads_that_wait_are_all_answered(process: Process) -> None:
    future, barrier = a_future(), threading.Barrier(5)
    answers: list[int] = []

    def wait() -> None:
        barrier.wait(30)
        answers.append(future.result(30))

    threads = [threading.Thread(target=wait) for _ in range(4)]
    for thread in threads:
        thread.start()
    barrier.wait(30)
    future.finish(a_state(process).with_value(1))
    for thread in threads:
        thread.join(30)

    assert answers == [1, 1, 1, 1]


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_tasks_of_a_loop_wait_without_blocking_it(process: Process, loop: str) -> None:
    future, waiting = a_future(), threading.Event()

    def finish() -> None:
        passed(waiting)
        future.finish(a_state(process).with_value(1))

    finisher = threading.Thread(target=finish)
    finisher.start()

    async def main() -> int:
        async with anyio.create_task_group() as group:
            group.start_soon(future.wait_async)
            group.start_soon(future.wait_async)
            await anyio.wait_all_tasks_blocked()
            waiting.set()
        await future.wait_async()
        return future.result()

    assert anyio.run(main, backend=loop) == 1
    finisher.join(30)


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_future_that_ends_after_its_loop_is_no_error(process: Process, loop: str) -> None:
    future = a_future()

    async def main() -> None:
        with anyio.move_on_after(0):
            await future.wait_async()

    anyio.run(main, backend=loop)
    future.finish(a_state(process).with_value(1))

    assert future.result() == 1


def test_callback_is_called_once_with_the_future(process: Process) -> None:
    future, called = a_future(), []
    future.add_done_callback(called.append)
    assert called == []

    future.finish(a_state(process).with_value(1))
    future.add_done_callback(called.append)

    assert called == [future, future]


def test_callback_that_raises_is_logged_and_stops_nobody(
    process: Process, caplog: pytest.LogCaptureFixture
) -> None:
    """Seen to fail without the guard: a worker died of it, and the flow never ended."""
    future, called = a_future(), []

    def fail(future: Future[Any]) -> None:
        raise ValueError("a callback of the user's")

    future.add_done_callback(fail)
    future.add_done_callback(called.append)
    with caplog.at_level(logging.ERROR):
        future.finish(a_state(process).with_value(1))
        future.add_done_callback(fail)

    assert called == [future]
    assert caplog.text.count("ValueError: a callback of the user's") == 2


# -- lists ---------------------------------------------------------------------------------------


def test_list_gives_its_results_in_order(process: Process) -> None:
    futures = FutureList([done(process, 1), done(process, 2)])

    futures.wait()
    assert futures.result() == [1, 2]


def test_list_raises_the_first_failure_or_returns_it(process: Process) -> None:
    error = ValueError("no")
    futures = FutureList([done(process, 1), failed(process, error)])

    assert futures.result(raise_on_failure=False) == [1, error]
    with pytest.raises(ValueError, match="no"):
        futures.result()


def test_list_that_is_not_done_in_time_is_a_timeout(process: Process) -> None:
    futures = FutureList([done(process, 1), a_future("late")])

    futures.wait(timeout=0)
    with pytest.raises(TimeoutError, match="late"):
        futures.result(timeout=0)


def test_empty_list_has_no_results() -> None:
    futures: FutureList[int] = FutureList()

    futures.wait()
    assert futures.result() == []
