"""What runs beside a flow: how it ends with the flow, and what is kept of it."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from embedded_orch import errors, flow, task
from embedded_orch.engine.task_call import TaskCall
from embedded_orch.orchestrator import open_orchestrator
from tests.engine.waiting import passed, until
from tests.opened import flow_runs, opened, runs_of, states, the_run_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from embedded_orch import Orchestrator

LOOPS = ("asyncio", "trio")


@pytest.fixture
def orch(url: str) -> Iterator[Orchestrator]:
    with opened(url) as orchestrator:
        yield orchestrator


@pytest.fixture
def quick() -> Iterator[Orchestrator]:
    with opened(":memory:") as orchestrator:
        yield orchestrator


class Endless:
    """A plain and an async task that run until they are stopped."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.cleaned: list[str] = []
        begun, cleaned = self.begun, self.cleaned

        @task
        def plain() -> None:
            begun.release()
            try:
                while True:
                    time.sleep(0.001)
            finally:
                cleaned.append("plain")

        @task
        async def later() -> None:
            begun.release()
            try:
                await anyio.sleep(3600)
            finally:
                cleaned.append("later")

        self.plain, self.later = plain, later

    def have_begun(self) -> None:
        for _ in range(2):
            assert self.begun.acquire(timeout=30)


def test_failing_flow_stops_what_it_submitted(orch: Orchestrator) -> None:
    endless = Endless()
    kept: list[Any] = []

    @flow
    def report() -> None:
        kept.extend([endless.plain.submit(), endless.later.submit()])
        endless.have_begun()
        raise ValueError("no")

    with pytest.raises(ValueError):
        report()

    assert sorted(endless.cleaned) == ["later", "plain"]
    for each in (endless.plain, endless.later):
        run = the_run_of(orch, each)
        assert states(run) == ["Pending", "Running", "Crashed"]
    for future in kept:
        with pytest.raises(errors.CancelledRun, match="the flow ended before"):
            future.result()


def test_what_a_failed_attempt_submitted_does_not_run_beside_the_next(quick: Orchestrator) -> None:
    endless = Endless()
    attempts: list[int] = []

    @flow(retries=1)
    def report() -> str:
        attempts.append(len(endless.cleaned))
        if len(attempts) == 2:
            return "done"
        endless.plain.submit()
        endless.later.submit()
        endless.have_begun()
        raise ValueError("no")

    assert report() == "done"
    assert attempts == [0, 2]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_interrupted_flow_stops_what_it_submitted(
    quick: Orchestrator, interruption: type[BaseException]
) -> None:
    endless = Endless()

    @flow
    def report() -> None:
        endless.plain.submit()
        endless.later.submit()
        endless.have_begun()
        raise interruption

    with pytest.raises(interruption):
        report()

    assert sorted(endless.cleaned) == ["later", "plain"]


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("is_over", [False, True])
def test_cancelled_flow_stops_what_it_submitted(
    quick: Orchestrator, loop: str, is_over: bool
) -> None:
    """Also when its function has returned, and it waits for what it submitted."""
    endless, begun = Endless(), threading.Event()

    @flow
    async def report() -> None:
        endless.plain.submit()
        endless.later.submit()
        await anyio.to_thread.run_sync(endless.have_begun)
        begun.set()
        if not is_over:
            await anyio.sleep(3600)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(report)
            await anyio.to_thread.run_sync(passed, begun)
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()

    anyio.run(main, backend=loop)

    assert sorted(endless.cleaned) == ["later", "plain"]
    assert [states(run)[-1] for run in flow_runs(quick)] == ["Crashed"]


def test_flows_that_tasks_call_are_stopped_with_them(quick: Orchestrator) -> None:
    endless = Endless()

    @flow
    def child() -> None:
        endless.plain.submit()
        endless.later.submit().result()

    @task
    def call() -> None:
        child()

    @flow
    def report() -> None:
        call.submit()
        endless.have_begun()
        raise ValueError("no")

    with pytest.raises(ValueError):
        report()

    assert sorted(endless.cleaned) == ["later", "plain"]
    assert [states(run)[-1] for run in flow_runs(quick)] == ["Failed", "Crashed"]


def test_retry_that_nobody_waits_for_any_more_is_not_slept_for(quick: Orchestrator) -> None:
    called = threading.Event()

    @task(retries=1, retry_delay_seconds=3600)
    def load() -> None:
        called.set()
        raise ValueError("try again")

    @flow
    def report() -> None:
        future = load.submit()
        passed(called)
        while future.state.name != "AwaitingRetry":
            time.sleep(0.001)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        report()

    assert states(the_run_of(quick, load))[-2:] == ["AwaitingRetry", "Crashed"]


def test_finished_flow_waits_for_what_has_begun(quick: Orchestrator) -> None:
    begun, may_end = threading.Event(), threading.Event()

    @task
    def work() -> str:
        begun.set()
        passed(may_end)
        return "done"

    @flow
    def report() -> None:
        work.submit()
        passed(begun)
        threading.Timer(0.01, may_end.set).start()

    report()

    assert states(the_run_of(quick, work))[-1] == "Completed"


# -- closing -------------------------------------------------------------------------------------


class Beside:
    """A flow that runs in a thread or on a loop of its own, while the test goes on."""

    def __init__(self, body: Callable[[], Any], loop: str = "none") -> None:
        self.outcome: Any = None
        self._body = body
        self._loop = loop
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            if self._loop == "none":
                self.outcome = self._body()
            else:
                self.outcome = anyio.run(self._body, backend=self._loop)
        except BaseException as error:
            self.outcome = error

    def ended(self) -> Any:
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self.outcome


@pytest.mark.parametrize("loop", ["none", *LOOPS])
def test_close_waits_for_what_runs(tmp_path: Path, loop: str) -> None:
    begun, may_end = threading.Event(), threading.Event()
    orch = open_orchestrator(tmp_path / "orch.db")

    @flow
    def report() -> str:
        begun.set()
        passed(may_end)
        return "done"

    @flow
    async def report_later() -> str:
        begun.set()
        await anyio.to_thread.run_sync(passed, may_end)
        return "done"

    beside = Beside(report if loop == "none" else report_later, loop)
    passed(begun)
    closing = Beside(lambda: orch.close(wait=True))
    assert not orch.is_closed
    may_end.set()

    assert beside.ended() == "done"
    assert closing.ended() is None
    with opened(str(tmp_path / "orch.db")) as again:
        assert [states(run)[-1] for run in flow_runs(again)] == ["Completed"]


@pytest.mark.parametrize("loop", ["none", *LOOPS])
def test_close_cancels_what_runs(tmp_path: Path, loop: str) -> None:
    endless, begun = Endless(), threading.Event()
    with opened(str(tmp_path / "orch.db")) as orch:
        closed = open_orchestrator(tmp_path / "orch.db")

        @flow
        def report() -> None:
            endless.plain.submit()
            endless.later.submit()
            endless.have_begun()
            begun.set()
            while True:
                time.sleep(0.001)

        @flow
        async def report_later() -> None:
            endless.plain.submit()
            endless.later.submit()
            await anyio.to_thread.run_sync(endless.have_begun)
            begun.set()
            await anyio.sleep(3600)

        def run() -> Any:
            with closed:
                return report()

        async def run_later() -> Any:
            async with closed:
                return await report_later()

        beside = Beside(run if loop == "none" else run_later, loop)
        passed(begun)
        closed.close(cancel=True)

        error = beside.ended()
        assert isinstance(error, errors.CancelledRun)
        assert "the orchestrator was closed" in str(error)
        assert sorted(endless.cleaned) == ["later", "plain"]
        [flow_run] = flow_runs(orch)
        assert states(flow_run) == ["Pending", "Running", "Cancelled"]
        for each in (endless.plain, endless.later):
            assert states(the_run_of(orch, each))[-1] == "Cancelled"


def test_close_cancels_flows_in_flows_and_delays(quick: Orchestrator) -> None:
    @flow(retries=1, retry_delay_seconds=3600)
    def child() -> None:
        raise ValueError("no")

    @flow
    def report() -> None:
        child()

    def run() -> Any:
        with quick:
            return report()

    beside = Beside(run)
    until(lambda: quick.flow_runs.count(state_name="AwaitingRetry") == 1, "the wait for a retry")
    quick.engine.owner.cancel_all("enough")

    assert isinstance(beside.ended(), errors.CancelledRun)
    assert [states(run)[-1] for run in flow_runs(quick)] == ["Cancelled", "Cancelled"]


def test_thread_whose_flow_was_cancelled_runs_others(quick: Orchestrator) -> None:
    begun = threading.Event()

    @flow
    def endless() -> None:
        begun.set()
        while True:
            time.sleep(0.001)

    @flow
    def report() -> str:
        return "done"

    def run() -> str:
        with quick, pytest.raises(errors.CancelledRun):
            endless()
        with quick:
            return report()

    beside = Beside(run)
    passed(begun)
    quick.engine.owner.cancel_all("enough")

    assert beside.ended() == "done"


@pytest.mark.parametrize("how", [{"wait": True}, {"cancel": True}])
def test_run_cannot_wait_for_itself(quick: Orchestrator, how: Any) -> None:
    @flow
    def report() -> None:
        with pytest.raises(errors.WouldDeadlock, match="inside of one of them"):
            quick.close(**how)

    report()
    assert not quick.is_closed


# -- what is kept --------------------------------------------------------------------------------


class Big:
    """A value that can be watched."""


@pytest.mark.parametrize("is_async", [False, True])
def test_arguments_and_results_are_not_kept(quick: Orchestrator, is_async: bool) -> None:
    @task
    def plain(value: Big) -> Big:
        return Big()

    @task
    async def later(value: Big) -> Big:
        return Big()

    load = later if is_async else plain

    @flow
    def report() -> bool:
        argument = Big()
        future = load.submit(argument)
        result = future.result()
        watched = [weakref.ref(argument), weakref.ref(result)]
        del argument, result
        # Whoever holds the future can have the result again, and not the argument.
        wait_until_gone(watched[0])
        found = watched[1]() is not None
        del future
        wait_until_gone(watched[1])
        return found

    assert report()


def wait_until_gone(watched: weakref.ref[Big]) -> None:
    deadline = time.monotonic() + 30
    while watched() is not None and time.monotonic() < deadline:
        gc.collect()
    assert watched() is None, f"kept by {gc.get_referrers(watched())}"


def test_ended_tasks_leave_neither_calls_nor_contexts(quick: Orchestrator) -> None:
    """Seen to fail when a worker kept the last job that it ran."""

    @task
    def work(number: int) -> int:
        return number

    def calls() -> int:
        gc.collect()
        of_task = [each for each in gc.get_objects() if isinstance(each, TaskCall)]
        return sum(each.function is work.fn for each in of_task)

    @flow
    def report() -> list[int]:
        futures = work.map(range(500))
        futures.wait()
        deadline = time.monotonic() + 30
        while calls() and time.monotonic() < deadline:
            time.sleep(0.001)
        return [len(futures), calls()]

    assert report() == [500, 0]
    assert len(runs_of(quick, work)) == 500
