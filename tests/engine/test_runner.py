"""The runner of a flow run: its limit, lending, levels, and its end."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from embedded_orch import errors
from embedded_orch.engine.futures import Future
from embedded_orch.engine.runner import Job, Runner
from embedded_orch.states import State, StateType
from tests.engine.waiting import passed, until, until_async

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from uuid import UUID

    from embedded_orch.process import Process

LOOPS = ("asyncio", "trio")


@pytest.fixture
def no_workers_left() -> Iterator[None]:
    """Every worker has left when the test is over."""
    yield
    until(lambda: not workers(), "the last worker leaves")


pytestmark = pytest.mark.usefixtures("no_workers_left")


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "embedded_orch worker"]


def completed(id: UUID, value: object) -> State:
    return State(id=id, type=StateType.COMPLETED, name="Completed", timestamp=1).with_value(value)


class Bench:
    """A runner, and what its jobs have done."""

    def __init__(self, process: Process, max_workers: int = 2) -> None:
        self.process = process
        self.runner = Runner(max_workers)
        self.cancelled: list[BaseException] = []

    def submit(self, work: Callable[[], object]) -> Future[Any]:
        future: Future[Any] = Future("job", self.runner)

        def run() -> None:
            future.finish(completed(self.process.new_id(), work()))

        def cancel(error: BaseException) -> None:
            self.cancelled.append(error)
            future.fail(error)

        self.runner.submit(Job(run, cancel))
        return future

    def submit_async(self, work: Callable[[], Any], backend: str = "asyncio") -> Future[Any]:
        future: Future[Any] = Future("job", self.runner)

        async def run() -> None:
            future.finish(completed(self.process.new_id(), await work()))

        self.runner.submit_async(run, backend=backend)
        return future


@pytest.fixture
def bench(process: Process) -> Iterator[Bench]:
    made = Bench(process)
    yield made
    made.runner.stop()


def test_jobs_run_at_once_up_to_the_limit(bench: Bench) -> None:
    barrier, may_end = threading.Barrier(2), threading.Event()
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        if number < 2:
            barrier.wait(30)
            passed(may_end)
        return number

    futures = [bench.submit(lambda number=number: work(number)) for number in range(6)]
    until(lambda: len(begun) == 2, "two jobs begin")
    assert len(workers()) == 2
    may_end.set()

    assert [future.result(30) for future in futures] == list(range(6))
    assert sorted(begun) == list(range(6))


def test_thread_that_is_idle_takes_the_next_job(bench: Bench) -> None:
    threads = set()
    for _ in range(5):
        threads.add(bench.submit(threading.get_ident).result(30))
        until(lambda: bench.runner._idle == 1, "the worker is idle")

    assert len(threads) == 1
    assert len(workers()) == 1


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_jobs_that_wait_for_jobs_of_their_own_do_not_starve_them(
    process: Process, limit: int
) -> None:
    """Seen to hang without lending: every place was held by a job that waited for a place."""
    bench = Bench(process, limit)

    def nest(depth: int) -> int:
        if not depth:
            return 0
        futures = [bench.submit(lambda: nest(depth - 1)) for _ in range(2)]
        return 1 + sum(future.result(30) for future in futures)

    try:
        assert bench.submit(lambda: nest(5)).result(30) == 31
    finally:
        bench.runner.stop()


def test_worker_that_is_back_from_waiting_makes_room(process: Process) -> None:
    """Both the waiter and its stand-in are there for a moment, and one of them leaves."""
    bench = Bench(process, 1)
    active, most, counting = 0, 0, threading.Lock()

    def work(number: int) -> int:
        nonlocal active, most
        with counting:
            active += 1
            most = max(most, active)
        with counting:
            active -= 1
        return number

    def parent() -> list[int]:
        inner = [bench.submit(lambda number=number: work(number)) for number in range(3)]
        return [future.result(30) for future in inner]

    try:
        futures = [bench.submit(parent) for _ in range(4)]
        assert [future.result(30) for future in futures] == [[0, 1, 2]] * 4
        assert most == 1
    finally:
        bench.runner.stop()


def test_stop_cancels_what_has_not_begun_and_waits_for_what_has(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    both, may_end = threading.Barrier(3), threading.Event()

    def work() -> str:
        both.wait(30)
        passed(may_end)
        return "done"

    running = [bench.submit(work) for _ in range(2)]
    both.wait(30)
    queued = [bench.submit(work) for _ in range(3)]
    stopping = threading.Thread(target=bench.runner.stop)
    with caplog.at_level(logging.WARNING):
        stopping.start()
        until(lambda: all(future.is_done for future in queued), "the queued ones are cancelled")
    assert not any(future.is_done for future in running)
    may_end.set()
    stopping.join(30)

    assert [future.result() for future in running] == ["done", "done"]
    assert len(bench.cancelled) == 3
    with pytest.raises(errors.CancelledRun, match="before this task began"):
        queued[0].result()
    assert "3 submitted tasks had not begun" in caplog.text


def test_second_stop_waits_for_the_first(bench: Bench) -> None:
    begun, may_end = threading.Event(), threading.Event()

    async def work() -> str:
        begun.set()
        await anyio.to_thread.run_sync(passed, may_end)
        return "done"

    future = bench.submit_async(work)
    passed(begun)
    stops = [threading.Thread(target=bench.runner.stop) for _ in range(2)]
    for stop in stops:
        stop.start()
    assert all(stop.is_alive() for stop in stops)
    may_end.set()
    for stop in stops:
        stop.join(30)

    assert future.is_done


def test_nothing_is_taken_after_the_stop(bench: Bench) -> None:
    bench.runner.stop()

    with pytest.raises(errors.MissingContextError, match="has ended"):
        bench.submit(int)
    with pytest.raises(errors.MissingContextError, match="has ended"):
        bench.submit_async(anyio.sleep)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_fault_of_a_job_does_not_make_the_stop_wait_for_ever(bench: Bench) -> None:
    """Seen to hang without the guard in ``_work``: the worker that died still counted."""

    def fault() -> None:
        raise RuntimeError("a job that does not keep its errors to itself")

    bench.runner.submit(Job(fault, lambda error: None))

    stopping = threading.Thread(target=bench.runner.stop)
    stopping.start()
    stopping.join(30)
    assert not stopping.is_alive()


# -- loops ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", LOOPS)
def test_coroutines_share_a_loop_and_wait_at_once(bench: Bench, backend: str) -> None:
    begun: list[int] = []

    async def work(number: int) -> int:
        begun.append(number)
        await until_async(lambda: len(begun) == 20, "all begin")
        return threading.get_ident()

    futures = [
        bench.submit_async(lambda number=number: work(number), backend) for number in range(20)
    ]

    assert len({future.result(30) for future in futures}) == 1


@pytest.mark.parametrize("backend", LOOPS)
def test_coroutine_that_blocks_its_loop_on_what_it_submitted_does_not_hang(
    bench: Bench, backend: str
) -> None:
    """Seen to hang with one loop for all: it was blocked by the one who waited for it."""

    async def nest(depth: int) -> int:
        if not depth:
            return 0
        # Through a plain job too, which may submit in its turn.
        plain = bench.submit_async(lambda: nest(depth - 1), backend)
        return 1 + plain.result(30)

    assert bench.submit_async(lambda: nest(4), backend).result(30) == 4


def test_loops_of_both_kinds_run_beside_each_other(bench: Bench) -> None:
    import sniffio

    async def which() -> str:
        return sniffio.current_async_library()

    futures = [bench.submit_async(which, backend) for backend in LOOPS]

    assert [future.result(30) for future in futures] == ["asyncio", "trio"]


@pytest.mark.parametrize("backend", LOOPS)
def test_loops_are_gone_after_the_stop(process: Process, backend: str) -> None:
    before = set(threading.enumerate())
    bench = Bench(process)
    bench.submit_async(lambda: anyio.sleep(0), backend).result(30)

    bench.runner.stop()

    until(lambda: set(threading.enumerate()) <= before, "the thread of the loop ends")
