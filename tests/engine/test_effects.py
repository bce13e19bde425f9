"""The steps of a call, driven in a thread, on asyncio and on trio."""

from __future__ import annotations

import asyncio
import linecache
import sys
import threading
from typing import TYPE_CHECKING, Any
from uuid import UUID

import anyio
import pytest

from embedded_orch.engine.effects import (
    Call,
    Read,
    Sleep,
    Stop,
    WaitFor,
    Write,
    _to_the_end,
    drive,
    drive_async,
)
from embedded_orch.engine.futures import Future
from embedded_orch.states import State, StateType
from embedded_orch.store.flows import ensure_flow
from tests.engine.waiting import passed, until

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from types import FrameType

    from embedded_orch.db.port import Database, Transaction
    from embedded_orch.engine.effects import Steps
    from embedded_orch.process import Process

LOOPS = ("asyncio", "trio")


def in_thread(steps: Steps[Any], loop: str) -> Any:
    return drive(steps)


def in_loop(steps: Steps[Any], loop: str) -> Any:
    return anyio.run(drive_async, steps, backend=loop)


ways = pytest.mark.parametrize(
    ("run", "loop"),
    [(in_thread, "none"), (in_loop, "asyncio"), (in_loop, "trio")],
    ids=["thread", "asyncio", "trio"],
)


def a_call(loop: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Call:
    async def awaited(*args: Any, **kwargs: Any) -> Any:
        await anyio.sleep(0)
        return function(*args, **kwargs)

    return Call(function if loop == "none" else awaited, args, kwargs)


@ways
def test_steps_are_driven_to_their_answer(run: Callable[..., Any], loop: str) -> None:
    def steps() -> Steps[int]:
        first: int = yield a_call(loop, lambda a, b: a + b, 1, b=2)
        second: int = yield a_call(loop, lambda a: a * 10, first)
        return second

    assert run(steps(), loop) == 30


@ways
def test_steps_without_effects_have_an_answer_too(run: Callable[..., Any], loop: str) -> None:
    def steps() -> Iterator[Any]:
        return 7
        yield

    assert run(steps(), loop) == 7


def caught(call: Call, kind: type[BaseException]) -> Steps[str]:
    try:
        yield call
    except kind as error:
        return f"caught {error}"
    return "nothing was raised"


def raising(kind: type[BaseException]) -> Callable[[], None]:
    def fail() -> None:
        raise kind("no")

    return fail


@ways
def test_error_of_an_effect_is_raised_where_it_was_asked_for(
    run: Callable[..., Any], loop: str
) -> None:
    assert run(caught(a_call(loop, raising(ValueError)), ValueError), loop) == "caught no"


@pytest.mark.parametrize("kind", [StopIteration, KeyboardInterrupt, SystemExit])
def test_any_error_of_a_plain_function_is_raised_where_it_was_asked_for(
    kind: type[BaseException],
) -> None:
    assert drive(caught(Call(raising(kind), (), {}), kind)) == "caught no"


def test_ctrl_c_between_two_steps_is_raised_inside_them() -> None:
    """Raised by a trace function where the driver has an answer, and has not given it yet.

    Seen to fail when only the effects were guarded: the steps were left where they were.
    """
    before = sys.gettrace()

    def interrupt(frame: FrameType, event: str, argument: object) -> Any:
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        if event == "line" and line == "resume = steps.send":
            sys.settrace(before)
            raise KeyboardInterrupt("now")
        return interrupt

    def watch(frame: FrameType, event: str, argument: object) -> Any:
        return interrupt if frame.f_code is drive.__code__ else None

    sys.settrace(watch)
    try:
        answer = drive(caught(Call(int, (), {}), KeyboardInterrupt))
    finally:
        sys.settrace(before)

    assert answer == "caught now"


@ways
def test_error_of_the_steps_leaves_them(run: Callable[..., Any], loop: str) -> None:
    def steps() -> Steps[None]:
        yield a_call(loop, int)
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        run(steps(), loop)


@ways
def test_reads_and_writes_answer_what_their_operation_answers(
    run: Callable[..., Any], loop: str, database: Database, process: Process
) -> None:
    id = process.new_id()

    def steps() -> Steps[list[Any]]:
        written = yield Write(database, lambda tx: ensure_flow(tx, id=id, name="etl", now=1))
        read = yield Read(database, lambda tx: tx.value("flow.id_by_name", name="etl"))
        return [written, read]

    assert run(steps(), loop) == [id, id]


@ways
def test_wait_for_a_future_ends_with_it(run: Callable[..., Any], loop: str) -> None:
    state = State(id=UUID(int=1), type=StateType.FAILED, name="Failed", timestamp=1)
    future: Future[int] = Future("load", state.id, lambda run_id: state)
    threading.Timer(0, lambda: future.finish(state)).start()

    def steps() -> Steps[bool]:
        yield WaitFor(future)
        return future.is_done

    assert run(steps(), loop)


def test_sleep_in_a_thread_is_that_of_the_process() -> None:
    slept: list[float] = []

    Sleep(2.5, slept.append).perform()

    assert slept == [2.5]


def test_sleep_in_a_trio_loop_follows_its_clock() -> None:
    import trio
    from trio.testing import MockClock

    async def main() -> float:
        began = trio.current_time()
        await Sleep(3600, lambda seconds: None).perform_async()
        return trio.current_time() - began

    assert trio.run(main, clock=MockClock(autojump_threshold=0)) >= 3600


# -- cancellation --------------------------------------------------------------------------------


class Held:
    """A write that has begun and is held up inside its transaction."""

    def __init__(self, database: Database, process: Process, name: str = "etl") -> None:
        self.database, self.name = database, name
        self.id = process.new_id()
        self.has_begun, self.may_end = threading.Event(), threading.Event()

    def operation(self, tx: Transaction) -> object:
        self.has_begun.set()
        passed(self.may_end)
        return ensure_flow(tx, id=self.id, name=self.name, now=1)

    @property
    def is_written(self) -> bool:
        found = self.database.read(lambda tx: tx.value("flow.id_by_name", name=self.name))
        return bool(found == self.id)


async def begun(event: threading.Event) -> None:
    await anyio.to_thread.run_sync(passed, event)


@pytest.mark.parametrize("times", [1, 3])
def test_write_of_a_cancelled_asyncio_task_is_done_to_its_end(
    database: Database, process: Process, times: int
) -> None:
    """Seen to fail without ``_to_the_end``: the write was given up, or its answer was lost."""
    held, after = Held(database, process), []

    async def work() -> None:
        after.append(await Write(database, held.operation).perform_async())
        after.append("before the next await")
        await asyncio.sleep(3600)
        after.append("never")

    async def main() -> asyncio.Task[None]:
        task = asyncio.create_task(work())
        await begun(held.has_begun)
        for _ in range(times):
            task.cancel("enough")
            await asyncio.sleep(0)
        assert not task.done()
        held.may_end.set()
        await asyncio.wait([task])
        return task

    task = asyncio.run(main())

    assert task.cancelled()
    assert after == [held.id, "before the next await"]
    assert held.is_written


def test_write_that_waits_its_turn_is_not_given_up_by_a_cancelled_task(
    database: Database, process: Process
) -> None:
    before, held = Held(database, process, "before"), Held(database, process, "after")
    held.may_end.set()
    writer = threading.Thread(target=database.write, args=(before.operation,))
    writer.start()
    passed(before.has_begun)

    def is_queued() -> bool:
        # A server has no turns; there the write is done, or on its way.
        queue: Any = database
        return database.dialect == "postgres" or queue._writer.has_queued

    async def work() -> None:
        await Write(database, held.operation).perform_async()
        await asyncio.sleep(3600)

    async def main() -> bool:
        task = asyncio.create_task(work())
        await anyio.to_thread.run_sync(until, is_queued, "the write waits its turn")
        task.cancel()
        before.may_end.set()
        await asyncio.wait([task])
        return task.cancelled()

    assert asyncio.run(main())
    writer.join(30)
    assert before.is_written
    assert held.is_written


def test_asyncio_timeout_is_still_a_timeout_after_a_write(
    database: Database, process: Process
) -> None:
    held = Held(database, process)

    async def main() -> bool:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(3600) as timeout:
                loop.call_soon(timeout.reschedule, loop.time())
                loop.call_later(0.05, held.may_end.set)
                await Write(database, held.operation).perform_async()
                await asyncio.sleep(3600)
        except TimeoutError:
            task = asyncio.current_task()
            assert task is not None
            return task.cancelling() == 0
        return False

    assert asyncio.run(main())
    assert held.is_written


@pytest.mark.parametrize("loop", LOOPS)
def test_write_in_a_cancelled_scope_is_done_to_its_end(
    database: Database, process: Process, loop: str
) -> None:
    held = Held(database, process)
    after: list[object] = []

    async def main() -> bool:
        async with anyio.create_task_group() as group:

            async def work() -> None:
                after.append(await Write(database, held.operation).perform_async())
                await anyio.sleep(3600)
                after.append("never")

            group.start_soon(work)
            await begun(held.has_begun)
            group.cancel_scope.cancel()
            held.may_end.set()
        return group.cancel_scope.cancelled_caught

    assert anyio.run(main, backend=loop)
    assert after == [held.id]
    assert held.is_written


def test_asyncio_task_is_not_cancelled_once_more_after_a_scope_that_was() -> None:
    """Seen to fail when what the scope cancelled was cancelled again by us as well."""
    may_end, begun_once = asyncio.Event(), asyncio.Event()

    async def work() -> str:
        begun_once.set()
        await may_end.wait()
        return "done"

    async def main() -> list[object]:
        after: list[object] = []
        async with anyio.create_task_group() as group:

            async def end() -> None:
                await begun_once.wait()
                scope.cancel()
                await anyio.sleep(0.01)
                may_end.set()

            group.start_soon(end)
            with anyio.CancelScope() as scope:
                after.append(await _to_the_end(work))
            await anyio.sleep(0.01)
            after.append("not cancelled")
        return after

    assert asyncio.run(main()) == ["done", "not cancelled"]


class OneRunner:
    """As much of a flow run as :class:`Stop` needs."""

    has_runner = True

    def __init__(self) -> None:
        self.may_stop = threading.Event()
        self.is_stopping = threading.Event()
        self.stops: list[bool] = []

    def stop_runner(self, *, is_interrupting: bool) -> None:
        self.is_stopping.set()
        passed(self.may_stop)
        self.stops.append(is_interrupting)


def test_stop_of_a_cancelled_asyncio_task_is_waited_for() -> None:
    runner: Any = OneRunner()

    async def main() -> bool:
        task = asyncio.create_task(Stop(runner, is_interrupting=False).perform_async())
        await begun(runner.is_stopping)
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not task.done()
        runner.may_stop.set()
        await asyncio.wait([task])
        return task.cancelled()

    assert asyncio.run(main())
    until(lambda: len(runner.stops) == 2, "both stops end")
    # The second one does not only wait: what was submitted is cancelled too.
    assert sorted(runner.stops) == [False, True]


@pytest.mark.parametrize("loop", LOOPS)
def test_cancellation_that_meets_a_wait_is_raised_there(loop: str) -> None:
    seen: list[str] = []

    def steps() -> Steps[None]:
        try:
            yield Sleep(3600, lambda seconds: None)
        except BaseException as error:
            seen.append(type(error).__name__)
            raise

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(drive_async, steps())
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()

    anyio.run(main, backend=loop)

    assert seen == ["CancelledError" if loop == "asyncio" else "Cancelled"]


def unused(coroutine: Coroutine[Any, Any, Any]) -> None:
    coroutine.close()


def test_coroutine_that_is_never_awaited_does_nothing() -> None:
    done: list[int] = []

    def steps() -> Steps[None]:
        done.append(1)
        yield Sleep(0, lambda seconds: None)

    unused(drive_async(steps()))

    assert done == []
