"""The runner of a flow run: its limit, lending, levels, and its end."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from embedded_orch import errors
from embedded_orch.engine import runner
from embedded_orch.engine.futures import Future
from embedded_orch.engine.runner import Runner
from embedded_orch.engine.workers import Interruption, Job, current_worker
from embedded_orch.states import State, StateType
from tests.engine.waiting import passed, until, until_async

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
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


def failed(id: UUID, error: BaseException) -> State:
    return State(id=id, type=StateType.FAILED, name="Failed", timestamp=1).with_error(error)


def _never_asked(run_id: UUID) -> State:
    raise AssertionError("nobody asks for the state of a job that runs")


class Bench:
    """A runner, and what its jobs have done."""

    def __init__(self, process: Process, max_workers: int = 2) -> None:
        self.process = process
        self.runner = Runner(max_workers)
        self.cancelled: list[BaseException] = []

    def a_future(self) -> Future[Any]:
        return Future("job", self.process.new_id(), _never_asked)

    def submit(self, work: Callable[[], object], after: Iterable[Future[Any]] = ()) -> Future[Any]:
        future = self.a_future()

        def run() -> None:
            worker = current_worker()
            assert worker is not None
            try:
                with worker.code:
                    value = work()
            except BaseException as error:
                future.finish(failed(self.process.new_id(), error))
            else:
                future.finish(completed(self.process.new_id(), value))

        def cancel(error: BaseException) -> None:
            self.cancelled.append(error)
            cancelled = State(
                id=future.task_run_id, type=StateType.CANCELLED, name="Cancelled", timestamp=1
            )
            future.finish(cancelled.with_error(error))

        self.runner.submit(Job("job", run, cancel), after)
        return future

    def submit_async(self, work: Callable[[], Any], backend: str = "asyncio") -> Future[Any]:
        future = self.a_future()

        async def run() -> None:
            try:
                value = await work()
            except BaseException as error:
                future.finish(failed(self.process.new_id(), error))
            else:
                future.finish(completed(self.process.new_id(), value))

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
        until(lambda: len(bench.runner._idle) == 1, "the worker is idle")

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

    bench.runner.submit(Job("fault", fault, lambda error: None))

    stopping = threading.Thread(target=bench.runner.stop)
    stopping.start()
    stopping.join(30)
    assert not stopping.is_alive()


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_never_do_more_jobs_run_than_there_are_places(process: Process, limit: int) -> None:
    """Seen to fail when a worker came back from waiting without asking for its place."""
    bench = Bench(process, limit)
    counting = threading.Lock()
    running, most = 0, 0

    def step(number: int) -> None:
        nonlocal running, most
        with counting:
            running += number
            most = max(most, running)

    def leaf() -> int:
        step(1)
        threading.Event().wait(0.0005)
        step(-1)
        return 1

    def parent() -> int:
        step(1)
        inner = [bench.submit(leaf) for _ in range(5)]
        total = 0
        for future in inner:
            step(-1)
            future.wait(30)
            step(1)
            total += future.result()
        step(-1)
        return total

    try:
        futures = [bench.submit(parent) for _ in range(10)]
        assert [future.result(30) for future in futures] == [5] * 10
    finally:
        bench.runner.stop()

    assert 0 < most <= limit


def test_who_only_looks_keeps_its_place(process: Process) -> None:
    """Seen to fail when it lent it: it had to wait until the next job had ended."""
    bench = Bench(process, 1)
    may_begin, may_end = threading.Event(), threading.Event()
    never = bench.a_future()

    def look() -> bool:
        passed(may_begin)
        never.wait(timeout=0)
        return next_one.is_done

    try:
        looking = bench.submit(look)
        next_one = bench.submit(lambda: passed(may_end))
        may_begin.set()
        assert looking.result(30) is False
    finally:
        may_end.set()
        bench.runner.stop()


def test_jobs_of_jobs_begin_first_so_that_few_wait(process: Process) -> None:
    """Seen to fail with one queue: nearly each waited in a thread of its own."""
    bench = Bench(process, 2)
    waiting, most, counting = 0, 0, threading.Lock()

    def parent() -> int:
        nonlocal waiting, most
        inner = bench.submit(lambda: 1)
        with counting:
            waiting += 1
            most = max(most, waiting)
        found: int = inner.result(30)
        with counting:
            waiting -= 1
        return found

    try:
        futures = [bench.submit(parent) for _ in range(1000)]
        assert sum(future.result(30) for future in futures) == 1000
        assert most < 200
    finally:
        bench.runner.stop()


def test_ten_thousand_jobs_never_make_more_threads_than_there_are_places(
    process: Process,
) -> None:
    bench = Bench(process, 64)
    most = 0

    def work() -> None:
        nonlocal most
        most = max(most, len(workers()))

    try:
        futures = [bench.submit(work) for _ in range(10_000)]
        for future in futures:
            future.wait(30)
    finally:
        bench.runner.stop()

    assert all(future.is_completed for future in futures)
    assert 0 < most <= 64


def all_that_meet(process: Process, count: int) -> list[int]:
    """The numbers of so many jobs, each of which waits for all the others."""
    bench = Bench(process, count)
    barrier = threading.Barrier(count)
    try:
        futures = [bench.submit(lambda: barrier.wait(30)) for _ in range(count)]
        return sorted(future.result(30) for future in futures)
    finally:
        barrier.abort()
        bench.runner.stop()


def test_jobs_that_wait_for_each_other_all_begin(process: Process) -> None:
    """Seen to fail without looks: sixteen wait for the others for ever."""
    assert all_that_meet(process, 200) == list(range(200))


def test_more_than_sixteen_begin_only_after_a_look(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_LOOK_SECONDS", 600.0)
    bench = Bench(process, 64)
    threads: set[int] = set()
    try:
        futures = [bench.submit(lambda: threads.add(threading.get_ident())) for _ in range(1_000)]
        for future in futures:
            future.wait(30)
    finally:
        bench.runner.stop()

    assert 0 < len(threads) <= 16


def test_more_begin_where_the_interpreter_has_time_to_spare(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although jobs come and go all the time."""
    monkeypatch.setattr(runner, "_LOOK_SECONDS", 0.1)
    monkeypatch.setattr(time, "process_time", lambda: time.perf_counter() / 2)
    bench = Bench(process, 64)
    is_over = threading.Event()
    threads: set[int] = set()

    def work() -> None:
        threads.add(threading.get_ident())
        is_over.wait(0.001)

    try:
        futures = [bench.submit(work) for _ in range(4_000)]
        for future in futures:
            future.wait(30)
    finally:
        is_over.set()
        bench.runner.stop()

    assert len(threads) == 64


def test_all_places_are_open_where_no_thread_is_to_be_had_for_the_looks(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def start_workers_only(thread: threading.Thread) -> None:
        if thread.name == "embedded_orch places":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_workers_only)
    assert all_that_meet(process, 40) == list(range(40))


def test_stop_does_not_wait_for_the_next_look(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_LOOK_SECONDS", 600.0)
    bench = Bench(process, 64)
    may_end = threading.Event()
    futures = [bench.submit(may_end.wait) for _ in range(40)]
    until(lambda: len(workers()) == 16, "as many begin as may")

    may_end.set()
    bench.runner.stop()

    assert all(future.is_done for future in futures)


def test_no_thread_waits_for_the_futures_that_a_job_comes_after(bench: Bench) -> None:
    may_end = threading.Event()
    upstream = [bench.submit(lambda: passed(may_end)) for _ in range(2)]
    order: list[int] = []
    later = [
        bench.submit(lambda number=number: order.append(number), after=upstream)  # type: ignore[misc]
        for number in range(50)
    ]

    assert not any(future.is_done for future in later)
    assert len(workers()) == 2
    may_end.set()
    for future in later:
        future.wait(30)

    assert sorted(order) == list(range(50))


def test_job_that_never_came_to_its_turn_is_cancelled_with_the_rest(bench: Bench) -> None:
    may_end = threading.Event()
    upstream = bench.submit(lambda: passed(may_end))
    later = bench.submit(lambda: None, after=[upstream])

    bench.runner.cancel()
    may_end.set()

    with pytest.raises(errors.CancelledRun):
        later.result(30)


# -- interrupting --------------------------------------------------------------------------------


def spin(begun: threading.Event, seen: list[str]) -> None:
    """Run on until it is interrupted."""
    begun.set()
    try:
        while True:
            threading.Event().wait(0.001)
    except BaseException as error:
        seen.append(type(error).__name__)
        raise


def test_interruption_reaches_what_runs_and_what_waits(bench: Bench) -> None:
    begun = threading.Event()
    seen: list[str] = []

    def parent() -> None:
        inner = bench.submit(lambda: spin(begun, seen))
        try:
            inner.wait()
        except BaseException as error:
            seen.append(f"waits: {type(error).__name__}")
            raise

    future = bench.submit(parent)
    passed(begun)
    bench.runner.interrupt()
    bench.runner.stop()

    with pytest.raises(Interruption):
        future.result()
    assert sorted(seen) == ["Interruption", "waits: Interruption"]


def test_interruption_does_not_wait_for_what_another_runner_runs(process: Process) -> None:
    """As in a flow that a task calls: it waits for tasks of its own, which nobody interrupts."""
    outer, inner = Bench(process), Bench(process)
    begun, may_end = threading.Event(), threading.Event()

    def parent() -> None:
        child = inner.submit(lambda: passed(may_end))
        begun.set()
        child.wait()

    try:
        future = outer.submit(parent)
        passed(begun)
        outer.runner.interrupt()
        outer.runner.stop()

        with pytest.raises(Interruption):
            future.result()
    finally:
        may_end.set()
        inner.runner.stop()


@pytest.mark.parametrize("backend", LOOPS)
def test_interruption_cancels_coroutines(bench: Bench, backend: str) -> None:
    begun = threading.Event()

    async def work() -> None:
        begun.set()
        await anyio.sleep(3600)

    future = bench.submit_async(work, backend)
    passed(begun)
    bench.runner.interrupt()
    bench.runner.stop()

    assert future.is_done
    assert not future.is_completed


def test_job_that_is_blocked_is_waited_for_and_named(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedded_orch.engine.runner._PATIENCE_SECONDS", 0.01)
    begun, may_end = threading.Event(), threading.Lock()
    may_end.acquire()

    def work() -> None:
        begun.set()
        may_end.acquire()

    future = bench.submit(work)
    passed(begun)
    bench.runner.interrupt()
    stopping = threading.Thread(target=bench.runner.stop)
    with caplog.at_level(logging.WARNING):
        stopping.start()
        until(lambda: "waits for task run job" in caplog.text, "it is named")
    assert not future.is_done
    may_end.release()
    stopping.join(30)

    with pytest.raises(Interruption):
        future.result(30)


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
