"""Tasks: called, submitted and mapped, in plain code, on asyncio and on trio."""

from __future__ import annotations

import asyncio
import functools
import io
import logging
import threading
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from embedded_orch import errors, flow, task, unmapped
from embedded_orch.states import StateType
from embedded_orch.utilities.annotations import quote
from tests.engine.waiting import passed, until_async
from tests.opened import Clock, opened, runs_of, states, the_flow_run, the_run_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from embedded_orch import Orchestrator

LOOPS = ("asyncio", "trio")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def orch(url: str, clock: Clock) -> Iterator[Orchestrator]:
    """An open orchestrator on each backend in turn, with a clock that only sleep moves."""
    with opened(url, clock) as orchestrator:
        yield orchestrator


@pytest.fixture
def quick(clock: Clock) -> Iterator[Orchestrator]:
    """An open orchestrator in memory, for what no database takes part in."""
    with opened(":memory:", clock) as orchestrator:
        yield orchestrator


@pytest.fixture
def real(url: str) -> Iterator[Orchestrator]:
    """An open orchestrator on each backend in turn, with the real clock."""
    with opened(url) as orchestrator:
        yield orchestrator


def in_flow(body: Callable[[], Any]) -> Any:
    """What a flow of this body returns."""
    return flow(name="a-flow")(lambda: body())()


def in_async_flow(body: Callable[[], Awaitable[Any]], loop: str) -> Any:
    return anyio.run(flow(name="a-flow")(body), backend=loop)


# -- calling -------------------------------------------------------------------------------------


def test_call_returns_the_value_and_records_it(orch: Orchestrator) -> None:
    @task
    def double(number: int) -> int:
        return number * 2

    assert in_flow(lambda: double(21)) == 42

    run = the_run_of(orch, double)
    assert states(run) == ["Pending", "Running", "Completed"]
    assert run.state is not None
    assert run.state.result() == 42
    assert run.flow_run_id == the_flow_run(orch).id
    assert run.name.startswith("double-")
    assert run.run_count == 1


@pytest.mark.parametrize("loop", LOOPS)
def test_coroutine_returns_the_value_and_records_it(orch: Orchestrator, loop: str) -> None:
    @task
    async def double(number: int) -> int:
        await anyio.sleep(0)
        return number * 2

    async def body() -> int:
        return await double(21)

    assert in_async_flow(body, loop) == 42

    run = the_run_of(orch, double)
    assert states(run) == ["Pending", "Running", "Completed"]
    assert run.flow_run_id == the_flow_run(orch).id


def test_call_outside_of_flows_is_recorded_by_itself(orch: Orchestrator) -> None:
    @task(name="twice", tags=["a", "b"])
    def double(number: int) -> int:
        return number * 2

    assert (double(1), double(1)) == (2, 2)

    runs = runs_of(orch, double)
    assert [(run.name, run.flow_run_id, run.tags) for run in runs] == [
        ("twice", None, ["a", "b"])
    ] * 2
    assert orch.flow_runs.count() == 0


@pytest.mark.parametrize("loop", LOOPS)
def test_coroutines_that_run_at_once_are_recorded_each(orch: Orchestrator, loop: str) -> None:
    begun: list[int] = []

    @task
    async def load(number: int) -> int:
        begun.append(number)
        await until_async(lambda: len(begun) == 5, "all begin")
        return number

    async def body() -> None:
        async with anyio.create_task_group() as group:
            for number in range(5):
                group.start_soon(load, number)

    in_async_flow(body, loop)

    runs = runs_of(orch, load)
    assert [states(run) for run in runs] == [["Pending", "Running", "Completed"]] * 5
    assert {run.flow_run_id for run in runs} == {the_flow_run(orch).id}


def test_task_that_a_task_calls_knows_its_parent(orch: Orchestrator) -> None:
    @task
    def inner() -> int:
        return 1

    @task
    def outer() -> int:
        return inner() + inner.submit().result()

    assert in_flow(outer) == 2

    parent = the_run_of(orch, outer)
    assert [run.parent_task_run_id for run in runs_of(orch, inner)] == [parent.id] * 2
    assert parent.parent_task_run_id is None


@pytest.mark.parametrize("loop", LOOPS)
def test_coroutine_that_a_submitted_coroutine_calls_knows_its_parent(
    orch: Orchestrator, loop: str
) -> None:
    @task
    async def inner() -> int:
        return 1

    @task
    async def outer() -> int:
        return await inner() + inner.submit().result()

    async def body() -> int:
        future = outer.submit()
        await future.wait_async()
        return future.result()

    assert in_async_flow(body, loop) == 2

    parent = the_run_of(orch, outer)
    assert [run.parent_task_run_id for run in runs_of(orch, inner)] == [parent.id] * 2


class Shelf:
    def __init__(self, books: list[str]) -> None:
        self.books = books

    @task
    def find(self, letter: str) -> list[str]:
        return [book for book in self.books if book.startswith(letter)]

    @task
    async def find_later(self, letter: str) -> list[str]:
        return self.find(letter)

    @staticmethod
    @task
    def plain(letter: str) -> str:
        return letter

    @classmethod
    @task
    def of_class(cls, letter: str) -> str:
        return cls.__name__ + letter


def test_methods_are_tasks_of_their_objects(orch: Orchestrator) -> None:
    shelf = Shelf(["ant", "bee", "bat"])

    def body() -> list[Any]:
        return [
            shelf.find("b"),
            Shelf.find(shelf, "a"),
            shelf.find.submit("b").result(),
            shelf.find.map(["a", "b"]).result(),
            asyncio.run(shelf.find_later("a")),
            Shelf.plain("x"),
            shelf.plain("y"),
            Shelf.of_class("z"),
        ]

    assert in_flow(body) == [
        ["bee", "bat"],
        ["ant"],
        ["bee", "bat"],
        [["ant"], ["bee", "bat"]],
        ["ant"],
        "x",
        "y",
        "Shelfz",
    ]
    assert len(runs_of(orch, Shelf.find)) == 6


def test_partials_and_callable_objects_are_tasks(orch: Orchestrator) -> None:
    class Adder:
        name = fn = "an attribute that is not the task's"

        def __init__(self) -> None:
            self.name = self.tags = "nor this"

        def __call__(self, number: int) -> int:
            return number + 1

    assert task(functools.partial(pow, 2), name="power")(5) == 32
    assert task(Adder())(1) == 2
    assert {run.name for run in orch.task_runs.find()} == {"power", "Adder"}


def test_decorated_function_still_says_what_it_is() -> None:
    @task
    def load(path: str) -> str:
        """Load it."""
        return path

    assert (load.__name__, load.__doc__, load.fn("x")) == ("load", "Load it.", "x")
    assert "load" in repr(load)


# -- what cannot be ------------------------------------------------------------------------------


def test_arguments_that_do_not_fit_are_an_error_and_leave_no_record(orch: Orchestrator) -> None:
    @task
    def load(path: str) -> str:
        return path

    def body() -> None:
        for call in (load, load.submit, load.map):
            with pytest.raises(errors.ParameterBindError, match=r"load\(path\)"):
                call("a", "b")

    in_flow(body)
    assert orch.task_runs.count() == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"retries": -1}, "retries=-1"),
        ({"retries": True}, "retries=True"),
        ({"retries": 1.5}, "retries=1.5"),
        ({"retry_delay_seconds": -1}, "retry_delay_seconds=-1"),
        ({"retry_delay_seconds": "1"}, "retry_delay_seconds='1'"),
        ({"retry_delay_seconds": [1, None]}, "retry_delay_seconds="),
        ({"retry_delay_seconds": float("nan")}, "retry_delay_seconds=nan"),
        ({"retry_delay_seconds": float("inf")}, "retry_delay_seconds=inf"),
        ({"retry_delay_seconds": [1] * 51}, "at most 50"),
        ({"record_start": "never"}, "'announced' or 'before'"),
        ({"tags": "nightly"}, "give a list"),
        ({"tags": [1]}, "give a list"),
        ({"tags": 1}, "give a list"),
    ],
)
def test_option_that_cannot_be_is_refused_when_decorated(
    options: dict[str, Any], said: str
) -> None:
    with pytest.raises(errors.ConfigurationError, match=said):
        task(**options)(lambda: None)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (3, "cannot be called"),
    ],
)
def test_what_is_no_plain_function_is_refused_when_decorated(function: Any, said: str) -> None:
    for decorate in (task, flow):
        with pytest.raises(errors.SignatureError, match=said):
            decorate(function)


def test_submitting_outside_of_a_flow_is_an_error_that_says_so(orch: Orchestrator) -> None:
    @task
    def load() -> None: ...

    for call in (load.submit, load.map):
        with pytest.raises(errors.MissingContextError, match="no flow is running here"):
            call()


# -- failing and retrying ------------------------------------------------------------------------


class Failing:
    """A function that raises a number of times."""

    def __init__(self, times: int, error: BaseException | None = None) -> None:
        self.times, self.calls = times, 0
        self.error = error or ValueError("not yet")

    def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self.times:
            raise self.error
        return self.calls


def test_error_leaves_as_itself_and_is_recorded_as_text(orch: Orchestrator) -> None:
    failing = Failing(1)
    load = task(failing, name="load")

    with pytest.raises(ValueError) as caught:
        in_flow(load)

    assert caught.value is failing.error
    run = the_run_of(orch, load)
    assert run.state is not None
    assert states(run) == ["Pending", "Running", "Failed"]
    assert run.state.message == "Task run encountered an exception: ValueError: not yet"
    details = run.state.error_details
    assert details is not None
    assert (details["type"], details["message"]) == ("builtins:ValueError", "not yet")
    assert "raise self.error" in details["traceback"]
    with pytest.raises(errors.FailedRun, match="not yet"):
        run.state.result()


def test_failing_task_is_called_again_after_each_delay(orch: Orchestrator, clock: Clock) -> None:
    load = task(Failing(3), name="load", retries=3, retry_delay_seconds=[1, 20])

    assert in_flow(load) == 4

    run = the_run_of(orch, load)
    again = ["AwaitingRetry", "Retrying"]
    assert states(run) == ["Pending", "Running", *again * 3, "Completed"]
    assert clock.naps == [1, 20, 20]
    assert run.run_count == 4


def test_error_of_the_last_retry_leaves(orch: Orchestrator) -> None:
    failing = Failing(9)
    load = task(failing, name="load", retries=2)

    with pytest.raises(ValueError, match="not yet"):
        in_flow(load)

    assert failing.calls == 3
    assert states(the_run_of(orch, load))[-2:] == ["Retrying", "Failed"]


@pytest.mark.parametrize("loop", LOOPS)
def test_failing_coroutine_is_called_again(real: Orchestrator, loop: str) -> None:
    failing = Failing(2)

    @task(retries=2, retry_delay_seconds=0.01)
    async def load() -> int:
        return failing()

    async def body() -> list[int]:
        return [await load()]

    assert in_async_flow(body, loop) == [3]
    assert the_run_of(real, load).run_count == 3


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Unspeakable(), "could not be made"),
        (ValueError("half of it: \ud83d"), "half of it"),
        (ValueError("up to here\0and on"), "up to here"),
        (ValueError(), "ValueError"),
        (StopIteration(3), "StopIteration: 3"),
        (ExceptionGroup("both", [ValueError("x")]), "both"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_error_whatever_its_text_leaves_as_itself(
    orch: Orchestrator, error: Exception, said: str
) -> None:
    load = task(Failing(1, error), name="load")

    with pytest.raises(type(error)) as caught:
        in_flow(load)

    assert caught.value is error
    run = the_run_of(orch, load)
    assert run.state is not None
    assert said in str(run.state.message)
    assert run.state.error_details is not None


# -- interruptions -------------------------------------------------------------------------------


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), SystemExit(3)], ids=repr)
def test_interruption_is_recorded_as_a_crash_and_leaves(
    orch: Orchestrator, interruption: BaseException
) -> None:
    load = task(Failing(1, interruption), name="load", retries=3)

    with pytest.raises(type(interruption)) as caught:
        in_flow(load)

    assert caught.value is interruption
    for run in (the_run_of(orch, load), the_flow_run(orch)):
        assert run.state is not None
        assert states(run) == ["Pending", "Running", "Crashed"]
        assert type(interruption).__name__ in str(run.state.message)


def test_interruption_while_waiting_for_a_retry_is_recorded_as_a_crash(url: str) -> None:
    """Seen to fail when only the function was guarded: the run stayed AwaitingRetry."""
    clock = Clock()

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    clock.sleep = interrupted  # type: ignore[method-assign]
    load = task(Failing(1), name="load", retries=3, retry_delay_seconds=60)

    with opened(url, clock) as orch:
        with pytest.raises(KeyboardInterrupt):
            in_flow(load)

        assert states(the_run_of(orch, load))[-2:] == ["AwaitingRetry", "Crashed"]
        assert states(the_flow_run(orch)) == ["Pending", "Running", "Crashed"]


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("is_submitted", [False, True])
def test_cancellation_is_recorded_as_a_crash(
    orch: Orchestrator, loop: str, is_submitted: bool
) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def be_there_until_told() -> None:
        begun.set()
        passed(may_end)

    @task
    async def load() -> None:
        if is_submitted:
            # Told from within the thread: whoever waits for one is not cancelled any more.
            await anyio.to_thread.run_sync(be_there_until_told)
        else:
            begun.set()
            await anyio.sleep(3600)

    async def body() -> None:
        await (load.submit().wait_async() if is_submitted else load())

    async def main() -> bool:
        async with anyio.create_task_group() as group:
            group.start_soon(flow(name="a-flow")(body))
            await anyio.to_thread.run_sync(passed, begun)
            group.cancel_scope.cancel()
            may_end.set()
        return group.cancel_scope.cancelled_caught

    assert anyio.run(main, backend=loop)

    assert states(the_flow_run(orch)) == ["Pending", "Running", "Crashed"]
    # What runs beside the flow is waited for.
    assert states(the_run_of(orch, load))[-1] == ("Completed" if is_submitted else "Crashed")


def test_cancelled_asyncio_task_is_recorded_as_a_crash(orch: Orchestrator) -> None:
    begun = threading.Event()

    @task(retries=2)
    async def load() -> None:
        begun.set()
        await asyncio.sleep(3600)

    @flow(name="a-flow", retries=2)
    async def body() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(load())

    async def main() -> bool:
        running = asyncio.create_task(body())
        await anyio.to_thread.run_sync(passed, begun)
        running.cancel()
        await asyncio.wait([running])
        return running.cancelled()

    assert asyncio.run(main())

    assert states(the_run_of(orch, load)) == ["Pending", "Running", "Crashed"]
    assert states(the_flow_run(orch)) == ["Pending", "Running", "Crashed"]


def test_interruption_of_a_submitted_task_is_raised_by_whoever_asks(orch: Orchestrator) -> None:
    load = task(Failing(1, SystemExit(3)), name="load")

    def body() -> None:
        future = load.submit()
        future.wait()
        with pytest.raises(SystemExit):
            future.result()

    in_flow(body)

    assert states(the_run_of(orch, load)) == ["Pending", "Running", "Crashed"]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_interruption_of_a_submitted_coroutine_stops_no_other(
    orch: Orchestrator, interruption: type[BaseException]
) -> None:
    """Seen to fail when it left the coroutine: the loop of all others ended with it."""
    begun = threading.Event()

    @task
    async def fail() -> None:
        await anyio.to_thread.run_sync(passed, begun)
        raise interruption

    @task
    async def load(upstream: list[Any]) -> str:
        begun.set()
        await upstream[0].wait_async()
        await anyio.sleep(0)
        return "went on"

    def body() -> str:
        failing = fail.submit()
        answer: str = load.submit(quote([failing])).result(30)
        with pytest.raises(interruption):
            failing.result()
        return answer

    assert in_flow(body) == "went on"
    assert states(the_run_of(orch, fail))[-1] == "Crashed"


# -- submitting ----------------------------------------------------------------------------------


def test_submitted_tasks_run_at_once(orch: Orchestrator) -> None:
    barrier = threading.Barrier(6)

    @task
    def meet(number: int) -> int:
        barrier.wait(30)
        return number

    assert in_flow(lambda: [f.result() for f in [meet.submit(n) for n in range(6)]]) == [
        0,
        1,
        2,
        3,
        4,
        5,
    ]
    assert len(runs_of(orch, meet)) == 6


@pytest.mark.parametrize("loop", LOOPS)
def test_flow_of_each_kind_submits_tasks_of_each_kind(orch: Orchestrator, loop: str) -> None:
    @task
    def plain(number: int) -> int:
        return number

    @task
    async def later(number: int) -> int:
        await anyio.sleep(0)
        return number

    async def body() -> list[int]:
        futures = [plain.submit(1), later.submit(2), *plain.map([3, 4]), *later.map([5, 6])]
        for future in futures:
            await future.wait_async()
        return [future.result() for future in futures]

    assert in_async_flow(body, loop) == [1, 2, 3, 4, 5, 6]
    assert in_flow(lambda: [plain.submit(1).result(), later.submit(2).result()]) == [1, 2]


@pytest.mark.parametrize("loop", LOOPS)
def test_plain_task_of_an_async_flow_may_run_a_loop_of_its_own(
    orch: Orchestrator, loop: str
) -> None:
    """Seen to fail when the thread believed the context that it came with."""

    @task
    def load() -> str:
        async def main() -> str:
            await anyio.sleep(0)
            return "ran"

        return anyio.run(main)

    async def body() -> str:
        future = load.submit()
        await future.wait_async()
        return future.result()

    assert in_async_flow(body, loop) == "ran"


def test_futures_anywhere_in_the_arguments_are_waited_for(orch: Orchestrator) -> None:
    @task
    def one() -> int:
        return 1

    @task
    def gather(plain: int, nested: dict[str, Any]) -> list[Any]:
        return [plain, nested]

    def body() -> list[Any]:
        future = one.submit()
        nested = {"list": [future, (future, 2)]}
        return [gather.submit(future, nested).result(), gather(future, nested=nested)]

    assert in_flow(body) == [[1, {"list": [1, (1, 2)]}]] * 2


def test_nesting_deeper_than_there_are_workers_does_not_hang(orch: Orchestrator) -> None:
    @task
    def nest(depth: int) -> int:
        return 1 + nest.submit(depth - 1).result() if depth else 0

    assert in_flow(lambda: nest.submit(40).result()) == 40


def test_future_has_the_state_of_its_run(orch: Orchestrator) -> None:
    @task
    def one() -> int:
        return 1

    def body() -> None:
        future = one.submit()
        future.wait()
        run = the_run_of(orch, one)
        assert run.state is not None
        assert (future.task_run_id, future.state.id) == (run.id, run.state.id)
        assert future.state.result() == run.state.result() == 1

    in_flow(body)


def test_failing_submitted_task_only_matters_to_who_asks(orch: Orchestrator) -> None:
    load = task(Failing(1), name="load")

    def body() -> str:
        future = load.submit()
        future.wait()
        assert isinstance(future.result(raise_on_failure=False), ValueError)
        return "went on"

    assert in_flow(body) == "went on"
    assert states(the_flow_run(orch))[-1] == "Completed"


@pytest.mark.parametrize(
    ("error", "is_called"), [(ValueError("no"), "Failed"), (SystemExit(1), "Crashed")]
)
@pytest.mark.parametrize("is_async", [False, True])
def test_task_whose_upstream_did_not_complete_is_not_ready_and_not_run(
    orch: Orchestrator, error: BaseException, is_called: str, is_async: bool
) -> None:
    load = task(Failing(1, error), name="load")
    called: list[object] = []

    @task
    def plain(value: object) -> None:
        called.append(value)

    @task
    async def later(value: object) -> None:
        called.append(value)

    use = later if is_async else plain

    def body() -> None:
        upstream = load.submit()
        first = use.submit([upstream])
        second = use.submit(first)
        for future in (first, second):
            with pytest.raises(errors.UpstreamFailed, match="did not complete"):
                future.result()
        assert (second.state.type, second.state.name) == (StateType.PENDING, "NotReady")

    in_flow(body)

    assert called == []
    first, second = runs_of(orch, use)
    assert (states(first), states(second)) == (["NotReady"], ["NotReady"])
    assert first.state is not None
    assert is_called in str(first.state.message)


def test_task_called_with_a_failed_future_raises_and_is_not_run(orch: Orchestrator) -> None:
    load = task(Failing(1), name="load")
    called: list[object] = []

    @task
    def use(value: object) -> None:
        called.append(value)

    def body() -> None:
        with pytest.raises(errors.UpstreamFailed, match="Failed"):
            use(load.submit())

    in_flow(body)

    assert called == []
    assert states(the_run_of(orch, use)) == ["NotReady"]


def test_task_that_the_flow_does_not_wait_for_may_never_begin(
    orch: Orchestrator, caplog: pytest.LogCaptureFixture
) -> None:
    begun, may_end = threading.Event(), threading.Event()
    kept: list[Any] = []

    @task
    def load(number: int) -> int:
        begun.set()
        passed(may_end)
        return number

    def body() -> None:
        kept.extend(load.map(range(100)))
        passed(begun)
        kept[-1].add_done_callback(lambda future: may_end.set())

    with caplog.at_level(logging.WARNING):
        in_flow(body)

    ended = [future for future in kept if future.is_completed]
    assert 0 < len(ended) <= 64
    assert len(runs_of(orch, load)) == len(ended)
    assert "had not begun" in caplog.text
    with pytest.raises(errors.CancelledRun):
        kept[-1].result()


# -- mapping -------------------------------------------------------------------------------------


@task
def pair(a: Any, b: Any = "default") -> list[Any]:
    return [a, b]


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [
        (([1, 2],), {}, [[1, "default"], [2, "default"]]),
        (([1, 2], [3, 4]), {}, [[1, 3], [2, 4]]),
        (([1, 2],), {"b": (3, 4)}, [[1, 3], [2, 4]]),
        ((), {"b": [3, 4], "a": 0}, [[0, 3], [0, 4]]),
        (([1, 2], "text"), {}, [[1, "text"], [2, "text"]]),
        (([1, 2], b"by"), {}, [[1, b"by"], [2, b"by"]]),
        (([1, 2], None), {}, [[1, None], [2, None]]),
        (([1, 2], unmapped([7])), {}, [[1, [7]], [2, [7]]]),
        (({"x": 1, "y": 2},), {}, [["x", "default"], ["y", "default"]]),
        ((range(2), [3, 4]), {}, [[0, 3], [1, 4]]),
        (([],), {}, []),
        (([[1], [2]],), {}, [[[1], "default"], [[2], "default"]]),
    ],
)
def test_map_calls_once_for_each_item(
    quick: Orchestrator, args: tuple[Any, ...], kwargs: dict[str, Any], expected: list[Any]
) -> None:
    assert in_flow(lambda: pair.map(*args, **kwargs).result()) == expected
    assert len(runs_of(quick, pair)) == len(expected)


def test_map_takes_generators_once(quick: Orchestrator) -> None:
    assert in_flow(lambda: pair.map(n for n in range(3)).result()) == [
        [0, "default"],
        [1, "default"],
        [2, "default"],
    ]


def test_map_does_not_read_files(quick: Orchestrator) -> None:
    @task
    def read(number: int, file: Any) -> list[str]:
        return [str(number), file.getvalue()]

    file = io.StringIO("a\nb")

    assert in_flow(lambda: read.map([1, 2], file).result()) == [["1", "a\nb"], ["2", "a\nb"]]


def test_map_spreads_variable_arguments_too(quick: Orchestrator) -> None:
    """Seen to fail when the bound parameters were mapped over: the tuple of them was taken."""

    @task
    def gather(*items: int, **named: int) -> list[Any]:
        return [list(items), named]

    assert in_flow(lambda: gather.map([1, 2], 3, x=[4, 5], y=6).result()) == [
        [[1, 3], {"x": 4, "y": 6}],
        [[2, 3], {"x": 5, "y": 6}],
    ]


def test_default_is_never_mapped_over(quick: Orchestrator) -> None:
    @task
    def load(number: int, columns: Any = ("a", "b", "c")) -> Any:
        return columns

    assert in_flow(lambda: load.map([1, 2]).result()) == [("a", "b", "c")] * 2


def test_map_takes_futures_and_lists_of_them(quick: Orchestrator) -> None:
    @task
    def numbers() -> list[int]:
        return [1, 2]

    def body() -> list[Any]:
        mapped = pair.map(numbers.submit())
        return [pair.map(mapped).result(), pair.map([1, 2], unmapped(mapped)).result()]

    inner = [[1, "default"], [2, "default"]]
    assert in_flow(body) == [
        [[inner[0], "default"], [inner[1], "default"]],
        [[1, inner], [2, inner]],
    ]


def test_map_over_different_lengths_is_an_error_and_runs_nothing(quick: Orchestrator) -> None:
    def body() -> None:
        with pytest.raises(errors.MappingLengthMismatch, match="2 in argument 1, 3 in b"):
            pair.map([1, 2], b=[1, 2, 3])

    in_flow(body)
    assert quick.task_runs.count() == 0


@pytest.mark.parametrize("args", [(1,), ("text",), (b"x", None), (unmapped([1]),), (int,)])
def test_map_over_nothing_is_an_error(quick: Orchestrator, args: tuple[Any, ...]) -> None:
    def body() -> None:
        with pytest.raises(errors.MappingMissingIterable, match=r"pair\.map\(\)"):
            pair.map(*args)

    in_flow(body)


def test_one_failure_of_a_map_leaves_the_others(quick: Orchestrator) -> None:
    @task
    def load(number: int) -> int:
        return 10 // number

    def body() -> None:
        futures = load.map([5, 0, 2])
        assert [type(each) for each in futures.result(raise_on_failure=False)] == [
            int,
            ZeroDivisionError,
            int,
        ]
        with pytest.raises(ZeroDivisionError):
            futures.result()

    in_flow(body)


# -- results that cannot be stored ---------------------------------------------------------------


def test_value_that_cannot_be_stored_is_warned_about_and_used(
    orch: Orchestrator, caplog: pytest.LogCaptureFixture
) -> None:
    lock = threading.Lock()

    @task
    def load() -> Any:
        return {"lock": lock}

    with caplog.at_level(logging.WARNING):
        found = in_flow(lambda: load()["lock"] is lock)

    assert found is True
    run = the_run_of(orch, load)
    assert run.state is not None
    assert states(run)[-1] == "Completed"
    assert "lock" in str(run.state.message)
    assert run.name in caplog.text
    with pytest.raises(errors.MissingResult, match="not stored"):
        run.state.result()
