"""Flows: called in plain code, on asyncio and on trio, alone and by each other."""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from embedded_orch import Flow, State, errors, flow, task
from embedded_orch.states import StateType
from tests.engine.waiting import passed, until_async
from tests.opened import Clock, flow_runs, opened, runs_of, states, the_flow_run, the_run_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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


@task
def one() -> int:
    return 1


@task
def fail(message: str = "no") -> int:
    raise ValueError(message)


# -- calling -------------------------------------------------------------------------------------


def test_call_returns_the_value_and_records_it(orch: Orchestrator) -> None:
    @flow(version="3", tags=["nightly"])
    def count_lines(root: str, limit: int = 10) -> int:
        return len(root) * limit

    began = datetime.now(UTC) - timedelta(minutes=1)

    assert count_lines("/tmp") == 40

    run = the_flow_run(orch)
    assert (run.flow_name, run.flow_version, run.tags) == ("count-lines", "3", ["nightly"])
    assert run.parameters == {"root": "/tmp", "limit": 10}
    assert states(run) == ["Pending", "Running", "Completed"]
    assert run.state is not None
    assert run.state.result() == 40
    assert run.start_time is not None
    assert run.end_time is not None
    assert began < run.created <= run.start_time < run.end_time
    assert run.total_run_time == run.end_time - run.start_time
    assert "-" in run.name


@pytest.mark.parametrize("loop", LOOPS)
def test_coroutine_returns_the_value_and_records_it(orch: Orchestrator, loop: str) -> None:
    @flow
    async def report(root: str) -> str:
        await anyio.sleep(0)
        return root.upper()

    assert anyio.run(report, "x", backend=loop) == "X"

    assert states(the_flow_run(orch)) == ["Pending", "Running", "Completed"]


def test_value_comes_back_of_its_type(orch: Orchestrator) -> None:
    value = {"when": datetime(2024, 1, 2, tzinfo=UTC), 3: (1, {2}), "p": Path("/x")}

    @flow
    def report() -> Any:
        return value

    report()

    state = the_flow_run(orch).state
    assert state is not None
    assert state.result() == value
    assert type(state.result()[3]) is tuple


def test_parameter_that_cannot_be_stored_is_recorded_by_its_type(orch: Orchestrator) -> None:
    lock = threading.Lock()

    @flow
    def report(root: str, lock: Any) -> bool:
        return lock.locked()

    assert report("x", lock) is False

    run = the_flow_run(orch)
    assert run.parameters == {"root": "x"}
    assert run.unstored_parameters == {"lock": "_thread:lock"}


def test_value_that_cannot_be_stored_is_returned_and_warned_about(
    orch: Orchestrator, caplog: pytest.LogCaptureFixture
) -> None:
    lock = threading.Lock()

    @flow
    def report() -> Any:
        return lock

    with caplog.at_level(logging.WARNING):
        assert report() is lock

    run = the_flow_run(orch)
    assert run.state is not None
    assert run.state.is_completed()
    assert "lock" in caplog.text
    with pytest.raises(errors.MissingResult):
        run.state.result()


class Report:
    def __init__(self, title: str) -> None:
        self.title = title

    @flow
    def write(self, body: str) -> str:
        return f"{self.title}: {body}"

    @flow
    async def write_later(self, body: str) -> str:
        return self.write(body)

    @staticmethod
    @flow
    def plain(body: str) -> str:
        return body

    @classmethod
    @flow
    def of_class(cls, body: str) -> str:
        return cls.__name__ + body


def test_methods_are_flows_of_their_objects(orch: Orchestrator) -> None:
    report = Report("a")

    assert report.write("b") == "a: b"
    assert Report.write(report, body="c") == "a: c"
    assert asyncio.run(report.write_later("d")) == "a: d"
    assert (Report.plain("x"), report.plain("y"), Report.of_class("z")) == ("x", "y", "Reportz")
    unstored = {run.flow_name: run.unstored_parameters for run in flow_runs(orch)}
    assert set(unstored["write"]) == {"self"}


def test_flows_of_many_threads_are_recorded_each(orch: Orchestrator) -> None:
    barrier = threading.Barrier(4)

    @flow
    def report(number: int) -> int:
        barrier.wait(30)
        return number + one() + one.submit().result()

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(report, range(4))) == [2, 3, 4, 5]

    runs = flow_runs(orch)
    assert [states(run) for run in runs] == [["Pending", "Running", "Completed"]] * 4
    assert all(orch.task_runs.count(flow_run_id=run.id) == 2 for run in runs)


# -- what cannot be ------------------------------------------------------------------------------


def test_arguments_that_do_not_fit_are_an_error_and_leave_no_record(orch: Orchestrator) -> None:
    @flow
    def report(root: str) -> None: ...

    @flow
    async def report_later(root: str) -> None: ...

    for each in (report, report_later):
        with pytest.raises(errors.ParameterBindError, match=r"\(root\) misses 'root'"):
            each()  # type: ignore[call-arg,operator]
    assert orch.flow_runs.count() == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"retries": -1}, "retries=-1"),
        ({"retry_delay_seconds": [1, 2]}, "one number"),
        ({"on_crash": "ignore"}, "'fail' or 'resume'"),
        ({"name": "a/b"}, "holds /"),
        ({"name": "<b>"}, "holds < >"),
        ({"tags": "nightly"}, "give a list"),
    ],
)
def test_option_that_cannot_be_is_refused_when_decorated(
    options: dict[str, Any], said: str
) -> None:
    def report() -> None: ...

    with pytest.raises(errors.ConfigurationError, match=said):
        flow(**options)(report)


def test_flow_is_not_resumed_from_inside_a_flow(orch: Orchestrator) -> None:
    @flow
    def report() -> None: ...

    @flow
    def caller() -> None:
        report.resume()

    with pytest.raises(errors.MissingContextError, match="resume runs from outside"):
        caller()


# -- failing and retrying ------------------------------------------------------------------------


def test_error_leaves_as_itself_and_is_recorded(orch: Orchestrator) -> None:
    error = ValueError("no")

    @flow
    def report() -> None:
        raise error

    with pytest.raises(ValueError) as caught:
        report()

    assert caught.value is error
    run = the_flow_run(orch)
    assert run.state is not None
    assert states(run) == ["Pending", "Running", "Failed"]
    assert run.state.message == "Flow run encountered an exception: ValueError: no"


def test_failing_task_fails_its_flow_unless_it_is_caught(orch: Orchestrator) -> None:
    @flow
    def careless() -> None:
        fail()

    @flow
    def careful() -> str:
        try:
            fail()
        except ValueError:
            return "caught"
        return "nothing to catch"

    with pytest.raises(ValueError):
        careless()

    assert careful() == "caught"
    assert [states(run)[-1] for run in flow_runs(orch)] == ["Failed", "Completed"]


def test_failing_flow_is_called_again_and_its_completed_tasks_are_not(
    orch: Orchestrator, clock: Clock
) -> None:
    called: list[str] = []

    @task
    def load(name: str) -> str:
        called.append(name)
        return name

    @task
    def check(attempt: int) -> int:
        called.append(f"check {attempt}")
        if attempt < 3:
            raise ValueError("not yet")
        return attempt

    @flow(retries=2, retry_delay_seconds=60)
    def report() -> list[Any]:
        first = [load("a"), load("a"), *load.map(["b", "c"]).result()]
        attempts.append(1)
        return [*first, check(len(attempts))]

    attempts: list[int] = []

    assert report() == ["a", "a", "b", "c", 3]

    assert sorted(called) == ["a", "a", "b", "c", "check 1", "check 2", "check 3"]
    run = the_flow_run(orch)
    again = ["AwaitingRetry", "Running"]
    assert states(run) == ["Pending", "Running", *again * 2, "Completed"]
    assert (run.run_count, clock.naps) == (3, [60, 60])
    assert orch.task_runs.count(flow_run_id=run.id) == 7


def test_task_that_failed_in_one_attempt_has_its_retries_again_in_the_next(
    orch: Orchestrator,
) -> None:
    called: list[int] = []

    @task(retries=1)
    def load() -> int:
        called.append(1)
        if len(called) < 4:
            raise ValueError("not yet")
        return len(called)

    @flow(retries=1)
    def report() -> int:
        return load()

    assert report() == 4

    run = the_run_of(orch, load)
    assert states(run) == [
        "Pending",
        "Running",
        "Retrying",
        "Failed",
        "Retrying",
        "Retrying",
        "Completed",
    ]
    assert run.run_count == 2


def test_error_of_the_last_attempt_leaves(orch: Orchestrator) -> None:
    @flow(retries=1)
    def report() -> None:
        attempts.append(1)
        raise ValueError(f"attempt {len(attempts)}")

    attempts: list[int] = []

    with pytest.raises(ValueError, match="attempt 2"):
        report()

    assert states(the_flow_run(orch))[-1] == "Failed"


@pytest.mark.parametrize("loop", LOOPS)
def test_failing_coroutine_is_called_again(url: str, loop: str) -> None:
    @flow(retries=2, retry_delay_seconds=0.01)
    async def report() -> int:
        attempts.append(1)
        await anyio.sleep(0)
        if len(attempts) < 3:
            raise ValueError("not yet")
        return len(attempts)

    attempts: list[int] = []

    with opened(url) as orch:
        assert anyio.run(report, backend=loop) == 3
        assert the_flow_run(orch).run_count == 3


# -- interruptions -------------------------------------------------------------------------------


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), SystemExit(2)], ids=repr)
def test_interruption_is_recorded_as_a_crash_and_leaves(
    orch: Orchestrator, interruption: BaseException
) -> None:
    @flow(retries=3)
    def report() -> None:
        raise interruption

    with pytest.raises(type(interruption)) as caught:
        report()

    assert caught.value is interruption
    assert states(the_flow_run(orch)) == ["Pending", "Running", "Crashed"]


def test_interruption_while_waiting_for_a_retry_is_recorded_as_a_crash(url: str) -> None:
    """Seen to fail when only the function was guarded: the run stayed AwaitingRetry."""
    clock = Clock()

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    clock.sleep = interrupted  # type: ignore[method-assign]

    @flow(retries=1, retry_delay_seconds=60)
    def report() -> None:
        raise ValueError("no")

    with opened(url, clock) as orch:
        with pytest.raises(KeyboardInterrupt):
            report()

        assert states(the_flow_run(orch))[-2:] == ["AwaitingRetry", "Crashed"]


@pytest.mark.parametrize("loop", LOOPS)
def test_cancellation_is_recorded_as_a_crash(orch: Orchestrator, loop: str) -> None:
    @flow(retries=1)
    async def report() -> None:
        await anyio.sleep(3600)

    async def main() -> bool:
        async with anyio.create_task_group() as group:
            group.start_soon(report)
            await until_async(lambda: orch.flow_runs.count(state_type="RUNNING"), "the run")
            group.cancel_scope.cancel()
        return group.cancel_scope.cancelled_caught

    assert anyio.run(main, backend=loop)
    assert states(the_flow_run(orch)) == ["Pending", "Running", "Crashed"]


@pytest.mark.parametrize("loop", LOOPS)
def test_cancellation_while_waiting_for_a_retry_is_recorded_as_a_crash(url: str, loop: str) -> None:
    @flow(retries=1, retry_delay_seconds=3600)
    async def report() -> None:
        raise ValueError("no")

    with opened(url) as orch:

        async def main() -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(report)
                await until_async(lambda: orch.flow_runs.count(state_type="SCHEDULED"), "a retry")
                group.cancel_scope.cancel()

        anyio.run(main, backend=loop)
        assert states(the_flow_run(orch))[-2:] == ["AwaitingRetry", "Crashed"]


def test_interruption_that_cannot_be_recorded_leaves_all_the_same(
    orch: Orchestrator, caplog: pytest.LogCaptureFixture
) -> None:
    @flow
    def report() -> None:
        orch.close()
        raise KeyboardInterrupt

    with caplog.at_level(logging.WARNING), pytest.raises(KeyboardInterrupt):
        report()

    assert "could not be recorded" in caplog.text


@pytest.mark.parametrize("loop", LOOPS)
def test_what_a_flow_left_running_is_in_no_flow_once_it_is_over(
    orch: Orchestrator, loop: str
) -> None:
    """Seen to fail without ``is_over``: the run had a task run that began after its end."""
    kept: list[Any] = []

    @flow
    def child() -> int:
        return one()

    @flow
    async def report(group: Any) -> None:
        is_over = anyio.Event()

        async def straggle() -> None:
            await is_over.wait()
            kept.append(one() + child())
            with pytest.raises(errors.MissingContextError):
                one.submit()

        group.start_soon(straggle)
        kept.append(is_over)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            await report(group)
            kept.pop().set()

    anyio.run(main, backend=loop)

    assert kept == [2]
    assert [run.flow_run_id for run in orch.task_runs.find() if run.flow_run_id] == [
        the_flow_run(orch, flow_name="child").id
    ]
    assert the_flow_run(orch, flow_name="child").parent_task_run_id is None


# -- flows that flows call -----------------------------------------------------------------------


def test_flow_that_a_flow_calls_is_a_run_of_its_own_tracked_by_a_task_run(
    orch: Orchestrator,
) -> None:
    @flow
    def child(number: int) -> int:
        return number + one()

    @flow
    def parent() -> int:
        return child(1) + child(1)

    assert parent() == 4

    caller = the_flow_run(orch, flow_name="parent")
    children = flow_runs(orch, flow_name="child")
    trackers = list(orch.task_runs.find(flow_run_id=caller.id))[::-1]
    assert [run.parent_task_run_id for run in children] == [run.id for run in trackers]
    assert [states(run) for run in [*children, *trackers]] == [
        ["Pending", "Running", "Completed"]
    ] * 4
    assert all(orch.task_runs.count(flow_run_id=run.id) == 1 for run in children)


def test_flow_that_a_task_calls_is_tracked_below_it(orch: Orchestrator) -> None:
    @flow
    def child() -> int:
        return one()

    @task
    def middle() -> int:
        return child()

    @flow
    def parent() -> int:
        return middle.submit().result()

    assert parent() == 1

    tracker = orch.task_runs.get(
        the_flow_run(orch, flow_name="child").parent_task_run_id or pytest.fail("no parent")
    )
    assert tracker.parent_task_run_id == the_run_of(orch, middle).id


@pytest.mark.parametrize("loop", LOOPS)
def test_coroutine_flow_calls_flows_of_each_kind(orch: Orchestrator, loop: str) -> None:
    @flow
    async def later() -> int:
        await anyio.sleep(0)
        return one()

    @flow
    def plain() -> int:
        return one()

    @flow
    async def parent() -> int:
        return await later() + plain()

    assert anyio.run(parent, backend=loop) == 2
    assert orch.flow_runs.count(state_type="COMPLETED") == 3


def test_futures_among_the_arguments_of_a_flow_are_waited_for(orch: Orchestrator) -> None:
    @flow
    def child(numbers: list[int]) -> int:
        return sum(numbers)

    @flow
    def parent() -> int:
        return child([one.submit(), 5])  # type: ignore[list-item]

    assert parent() == 6
    assert the_flow_run(orch, flow_name="child").parameters == {"numbers": [1, 5]}


@pytest.mark.parametrize("error", [ValueError("no"), StopIteration(1)], ids=repr)
def test_error_of_a_called_flow_leaves_as_itself(orch: Orchestrator, error: Exception) -> None:
    @flow
    def child() -> None:
        raise error

    @flow
    def parent() -> None:
        child()

    with pytest.raises(type(error)) as caught:
        parent()

    assert caught.value is error
    assert [states(run)[-1] for run in flow_runs(orch)] == ["Failed", "Failed"]


def test_called_flow_has_its_own_retries(orch: Orchestrator) -> None:
    @flow(retries=1)
    def child() -> int:
        attempts.append(1)
        if len(attempts) < 2:
            raise ValueError("not yet")
        return 7

    @flow
    def parent() -> int:
        return child()

    attempts: list[int] = []

    assert parent() == 7
    assert the_flow_run(orch, flow_name="child").run_count == 2


def test_called_flow_begins_and_ends_with_its_task_run_by_one_commit_each(
    orch: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    @flow
    def child() -> None:
        return None

    @flow
    def parent() -> None:
        monkeypatch.setattr(orch.database, "write", counted)
        child()
        monkeypatch.undo()

    def counted(*args: Any, **kwargs: Any) -> Any:
        writes.append(args)
        return write(*args, **kwargs)

    writes: list[Any] = []
    write = orch.database.write
    parent()

    assert len(writes) == 2
    [tracker] = orch.task_runs.find()
    assert states(tracker) == ["Pending", "Running", "Completed"]


def test_call_that_cannot_be_recorded_leaves_a_task_run_that_says_so(
    orch: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start of the task run goes with its end, where that of the flow run fails."""

    @flow
    def child() -> None:
        return None

    @flow
    def parent() -> str:
        monkeypatch.setattr("embedded_orch.store.flow_runs.create_flow_run", refuse)
        try:
            child()
        except errors.DatabaseError as error:
            return str(error)
        finally:
            monkeypatch.undo()
        return "nothing was raised"

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise errors.ConstraintViolated("for once")

    assert parent() == "for once"
    [tracker] = orch.task_runs.find()
    assert states(tracker) == ["Pending", "Running", "Failed"]
    assert orch.flow_runs.count(flow_name="child") == 0


def test_retried_flow_takes_the_value_of_a_child_that_completed(orch: Orchestrator) -> None:
    called: list[str] = []

    @flow
    def child(name: str) -> str:
        called.append(name)
        return name

    @flow(retries=1)
    def parent() -> str:
        found = child("a")
        called.append("parent")
        if called.count("parent") < 2:
            raise ValueError("not yet")
        return found

    assert parent() == "a"
    assert called == ["a", "parent", "parent"]
    assert orch.flow_runs.count(flow_name="child") == 1


def test_retried_flow_continues_a_child_that_failed(orch: Orchestrator) -> None:
    called: list[str] = []

    @task
    def load(name: str) -> str:
        called.append(name)
        return name

    @flow
    def child() -> str:
        found = load("a")
        called.append("child")
        if called.count("child") < 2:
            raise ValueError("not yet")
        return found

    @flow(retries=1)
    def parent() -> str:
        return child()

    assert parent() == "a"
    assert called == ["a", "child", "child"]
    run = the_flow_run(orch, flow_name="child")
    assert states(run) == ["Pending", "Running", "Failed", "Running", "Completed"]


def test_interruption_of_a_called_flow_crashes_all_that_called_it(orch: Orchestrator) -> None:
    @flow
    def child() -> None:
        raise KeyboardInterrupt

    @flow
    def parent() -> None:
        child()

    with pytest.raises(KeyboardInterrupt):
        parent()

    assert [states(run)[-1] for run in flow_runs(orch)] == ["Crashed", "Crashed"]
    assert [run.state.name for run in orch.task_runs.find() if run.state] == ["Crashed"]


# -- the final state that a return value stands for ----------------------------------------------


def a_state(type: StateType, value: object = None) -> State:
    from embedded_orch.process import Process

    process = Process()
    state = State(id=process.new_id(), type=type, name=type.value.title(), timestamp=process.now())
    return state.with_value(value) if state.is_completed() else state


COMPLETED, FAILED, CANCELLED = StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED
CRASHED, PAUSED, RUNNING = StateType.CRASHED, StateType.PAUSED, StateType.RUNNING


@pytest.mark.parametrize(
    ("types", "expected", "said"),
    [
        ([COMPLETED], COMPLETED, "All states completed."),
        ([COMPLETED, COMPLETED], COMPLETED, "All states completed."),
        ([COMPLETED, FAILED], FAILED, "1/2 states failed."),
        ([COMPLETED, CRASHED], FAILED, "1/2 states failed."),
        ([COMPLETED, RUNNING], FAILED, "1/2 states are not final."),
        ([FAILED, CANCELLED], CANCELLED, "1/2 states cancelled."),
        ([FAILED, PAUSED], PAUSED, "1/2 states paused."),
        ([PAUSED, CANCELLED], CANCELLED, "1/2 states cancelled."),
    ],
)
@pytest.mark.parametrize("kind", [list, tuple, set])
def test_returned_states_make_the_state_of_the_flow(
    quick: Orchestrator,
    types: list[StateType],
    expected: StateType,
    said: str,
    kind: Callable[[Any], Any],
) -> None:
    @flow
    def report() -> Any:
        return kind([a_state(type) for type in types])

    try:
        report()
    except errors.RunError:
        assert expected is not COMPLETED
    else:
        assert expected is COMPLETED

    run = the_flow_run(quick)
    assert run.state is not None
    assert (run.state.type, run.state.message) == (expected, said)


@pytest.mark.parametrize(
    ("returned", "error"),
    [
        (lambda: fail.submit("x"), ValueError),
        (lambda: [one.submit(), fail.submit("x")], ValueError),
        (lambda: fail.map(["x", "y"]), ValueError),
    ],
)
def test_returned_future_that_failed_fails_the_flow(
    orch: Orchestrator, returned: Callable[[], Any], error: type[Exception]
) -> None:
    @flow
    def report() -> Any:
        return returned()

    with pytest.raises(error):
        report()

    assert states(the_flow_run(orch))[-1] == "Failed"


@pytest.mark.parametrize("loop", LOOPS)
def test_returned_futures_are_waited_for(orch: Orchestrator, loop: str) -> None:
    begun = threading.Event()

    @task
    def slow(number: int) -> int:
        passed(begun)
        return number

    @flow
    def report() -> Any:
        futures = slow.map(range(40))
        begun.set()
        return futures

    @flow
    async def report_later() -> Any:
        begun.set()
        return slow.submit(1)

    assert [state.result() for state in report()] == list(range(40))
    assert anyio.run(report_later, backend=loop).result() == 1
    assert {states(run)[-1] for run in runs_of(orch, slow)} == {"Completed"}


def test_task_that_is_not_ready_fails_the_flow_that_returns_it(orch: Orchestrator) -> None:
    @task
    def use(value: int) -> int:
        return value

    @flow
    def report() -> Any:
        return use.submit(fail.submit("x"))

    with pytest.raises(errors.FailedRun, match="NotReady"):
        report()


def test_empty_list_is_a_plain_value(orch: Orchestrator) -> None:
    @flow
    def report() -> list[int]:
        return []

    assert report() == []


def test_flow_is_printed_by_its_name() -> None:
    @flow(name="My report")
    def report() -> None:
        """What it does."""

    assert isinstance(report, Flow)
    assert (report.__doc__, report.__name__) == ("What it does.", "report")
    assert repr(report) == "<Flow My report>"
