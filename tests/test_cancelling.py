"""Cancelling flow runs: from other threads and processes, with all that they called."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from textwrap import dedent
from typing import TYPE_CHECKING, Any
from uuid import UUID

import anyio
import pytest

from embedded_orch import errors, flow, runtime, task
from embedded_orch.engine import watching
from embedded_orch.engine.cancellation import Cancellation
from embedded_orch.states import Cancelled, Cancelling, Completed, StateType
from embedded_orch.task_runners import ProcessPoolTaskRunner
from tests import pool_tasks
from tests.engine.waiting import PATIENCE, passed, until
from tests.opened import flow_runs, opened, states, the_flow_run, the_run_of
from tests.programs import environment
from tests.store.builders import a_flow_run, a_task_run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from embedded_orch import Orchestrator

CANCELLED = ["Pending", "Running", "Cancelling", "Cancelled"]
CANCELLED_WITH_ITS_FLOW = ["Pending", "Running", "Cancelled"]


@pytest.fixture
def orch(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Orchestrator]:
    monkeypatch.setenv("EMBEDDED_ORCH_HOME", str(tmp_path / "home"))
    with opened(url) as orchestrator:
        yield orchestrator


@pytest.fixture
def memory() -> Iterator[Orchestrator]:
    with opened(":memory:") as orchestrator:
        yield orchestrator


class Canceller:
    """A thread that cancels the flow run that says it is ready."""

    def __init__(self, orchestrator: Orchestrator) -> None:
        self._orchestrator = orchestrator
        self._ready = threading.Event()
        self._run_id: str | None = None
        self._thread = threading.Thread(target=self._cancel)
        self._thread.start()
        self.answer: str | None = None

    def ready(self, run_id: str | None) -> None:
        self._run_id = run_id
        self._ready.set()

    def _cancel(self) -> None:
        passed(self._ready)
        assert self._run_id is not None
        self.answer = self._orchestrator.flow_runs.cancel(self._run_id).state_name

    def join(self) -> None:
        self._thread.join(PATIENCE)


@pytest.fixture
def canceller(request: pytest.FixtureRequest) -> Iterator[Canceller]:
    kind = "orch" if "orch" in request.fixturenames else "memory"
    found = Canceller(request.getfixturevalue(kind))
    yield found
    found.join()


def for_ever() -> None:
    while True:
        time.sleep(0.002)


def test_run_and_all_that_it_called_are_cancelled(orch: Orchestrator, canceller: Canceller) -> None:
    @task
    def spin() -> None:
        for_ever()

    @flow
    def inner(root: str | None) -> None:
        canceller.ready(root)
        for_ever()

    @flow
    def child(root: str | None) -> None:
        inner(root)

    @flow
    def parent() -> None:
        spin.submit()
        child(runtime.flow_run.id)

    with pytest.raises(errors.CancelledRun, match="was cancelled"):
        parent()

    canceller.join()
    assert canceller.answer in ("Cancelling", "Cancelled")
    assert states(the_flow_run(orch, flow_name="parent")) == CANCELLED
    for name in ("child", "inner"):
        assert states(the_flow_run(orch, flow_name=name)) == CANCELLED_WITH_ITS_FLOW
    assert {tuple(states(run)) for run in orch.task_runs.find()} == {tuple(CANCELLED_WITH_ITS_FLOW)}
    assert orch.task_runs.count() == 3


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("url", ["memory", "file"], indirect=True)
def test_coroutines_are_cancelled(orch: Orchestrator, canceller: Canceller, backend: str) -> None:
    @task
    async def sleep() -> None:
        await anyio.sleep_forever()

    @flow
    async def child(root: str | None) -> None:
        canceller.ready(root)
        await anyio.sleep_forever()

    @flow
    async def parent() -> None:
        sleep.submit()
        await child(runtime.flow_run.id)

    with pytest.raises(errors.CancelledRun):
        anyio.run(parent, backend=backend)

    assert states(the_flow_run(orch, flow_name="parent")) == CANCELLED
    assert states(the_flow_run(orch, flow_name="child")) == CANCELLED_WITH_ITS_FLOW
    assert {tuple(states(run)) for run in orch.task_runs.find()} == {tuple(CANCELLED_WITH_ITS_FLOW)}


def test_flow_in_a_thread_and_subflows_in_mapped_tasks_are_cancelled(
    memory: Orchestrator, canceller: Canceller
) -> None:
    begun = threading.Barrier(3)

    @flow
    def child() -> None:
        begun.wait(PATIENCE)
        for_ever()

    @task
    def call_child(_: int) -> None:
        child()

    @flow
    def parent() -> None:
        call_child.map([1, 2])
        begun.wait(PATIENCE)
        canceller.ready(runtime.flow_run.id)
        for_ever()

    raised: list[BaseException] = []

    def call() -> None:
        with memory, pytest.raises(errors.CancelledRun) as caught:
            parent()
        raised.append(caught.value)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join(PATIENCE)

    assert len(raised) == 1
    assert states(the_flow_run(memory, flow_name="parent")) == CANCELLED
    children = flow_runs(memory, flow_name="child")
    assert [states(run) for run in children] == [CANCELLED_WITH_ITS_FLOW] * 2
    assert {run.state_type for run in memory.task_runs.find()} == {StateType.CANCELLED}


def test_flow_that_waits_for_a_future_is_cancelled(
    memory: Orchestrator, canceller: Canceller
) -> None:
    seen: list[str] = []

    @task
    def spin() -> None:
        canceller.ready(runtime.flow_run.id)
        for_ever()

    @flow
    def waiting() -> None:
        try:
            spin.submit().result()
        except Exception:
            seen.append("the flow was told that its task failed")

    state = waiting(return_state=True)

    assert (state.is_cancelled(), seen) == (True, [])
    assert states(the_run_of(memory, spin)) == CANCELLED_WITH_ITS_FLOW


def test_set_state_cancels_as_well_and_hooks_are_called(memory: Orchestrator) -> None:
    called: list[tuple[str, str]] = []

    def note(flow: Any, flow_run: Any, state: Any) -> None:
        called.append((flow_run.state_name, state.name))

    @flow(on_cancellation=[note])
    def child(root: str) -> None:
        enough = Cancelling(message="enough")
        threading.Thread(target=lambda: memory.flow_runs.set_state(root, enough)).start()
        for_ever()

    @flow(on_cancellation=[note])
    def parent() -> None:
        root = runtime.flow_run.id
        assert root is not None
        child(root)

    with pytest.raises(errors.CancelledRun):
        parent()

    assert called == [("Cancelled", "Cancelled")] * 2
    history = the_flow_run(memory, flow_name="parent").history
    assert [state.message for state in history[-2:]] == ["enough", "cancelled"]


def test_cancelling_a_child_leaves_its_caller_alone(
    memory: Orchestrator, canceller: Canceller
) -> None:
    @flow
    def child() -> None:
        canceller.ready(runtime.flow_run.id)
        for_ever()

    @flow
    def parent() -> str:
        try:
            child()
        except errors.CancelledRun:
            return "went on"
        return "was not told"

    assert parent() == "went on"
    assert states(the_flow_run(memory, flow_name="child")) == CANCELLED


def test_code_that_swallows_the_cancellation_begins_nothing_more(
    memory: Orchestrator, canceller: Canceller
) -> None:
    @task
    def more() -> None:
        return None

    @flow
    def stubborn() -> str:
        canceller.ready(runtime.flow_run.id)
        try:
            for_ever()
        except BaseException:
            with pytest.raises(errors.CancelledRun, match="is being cancelled"):
                more()
        return "done"

    state = stubborn(return_state=True)

    assert state.is_cancelled()
    assert memory.task_runs.count() == 0
    message = the_flow_run(memory, flow_name="stubborn").history[-1].message
    assert message == "cancelled while it ran; it would have become Completed"


def test_run_that_waits_for_its_retry_is_cancelled_at_once(
    memory: Orchestrator, canceller: Canceller
) -> None:
    @flow(retries=1, retry_delay_seconds=3600)
    def failing() -> None:
        run_id = runtime.flow_run.id
        assert run_id is not None

        def when_it_waits() -> None:
            until(lambda: memory.flow_runs.get(run_id).state_name == "AwaitingRetry", "a retry")
            canceller.ready(run_id)

        threading.Thread(target=when_it_waits).start()
        raise ValueError("once more")

    state = failing(return_state=True)

    assert state.is_cancelled()
    run = the_flow_run(memory, flow_name="failing")
    assert states(run) == ["Pending", "Running", "AwaitingRetry", "Cancelled"]


def test_process_of_a_pool_is_stopped(
    memory: Orchestrator, canceller: Canceller, tmp_path: Path
) -> None:
    path = tmp_path / "pid"

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def parent() -> None:
        future = pool_tasks.run_on.submit(str(path))
        until(lambda: path.exists() and path.read_text(), "the process of the task")
        canceller.ready(runtime.flow_run.id)
        future.result()

    with pytest.raises(errors.CancelledRun):
        parent()

    assert path.with_suffix(".cleaned").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int(path.read_text()), signal.SIGCONT)


def test_what_is_blocked_is_named_and_keeps_the_run_cancelling(
    memory: Orchestrator, canceller: Canceller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_PATIENCE_SECONDS", 0.02)
    blocked, let_go = threading.Event(), threading.Lock()
    let_go.acquire()

    @task
    def block() -> None:
        blocked.set()
        # Not interrupted before it returns.
        let_go.acquire()

    @flow
    def parent() -> None:
        run_id = runtime.flow_run.id
        block.submit()
        passed(blocked)
        canceller.ready(run_id)

        def when_it_is_named() -> None:
            assert run_id is not None
            until(lambda: "block-" in (last_message(run_id) or ""), "the task's name")
            seen.append(memory.flow_runs.get(run_id).state_name)
            let_go.release()

        threading.Thread(target=when_it_is_named).start()
        for_ever()

    def last_message(run_id: str) -> str | None:
        return memory.flow_runs.get(run_id).history[-1].message

    seen: list[str | None] = []
    with pytest.raises(errors.CancelledRun):
        parent()

    assert seen == ["Cancelling"]
    assert states(the_flow_run(memory, flow_name="parent")) == [
        *CANCELLED[:3],
        "Cancelling",
        "Cancelled",
    ]


# -- runs that nobody runs -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "type", [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.PAUSED]
)
def test_run_that_nobody_runs_is_cancelled_at_once_with_its_children(
    orch: Orchestrator, type: StateType
) -> None:
    database, process = orch.database, orch.engine.process
    run_id = a_flow_run(database, process, type)
    task_run_id = a_task_run(database, process, StateType.RUNNING, flow_run_id=run_id)
    tracker = a_task_run(database, process, StateType.RUNNING, flow_run_id=run_id)
    child = a_flow_run(database, process, StateType.RUNNING, parent_task_run_id=tracker)
    grandchild = a_task_run(database, process, StateType.RUNNING, flow_run_id=child)
    ended = a_task_run(database, process, StateType.COMPLETED, flow_run_id=run_id)

    run = orch.flow_runs.cancel(run_id)

    assert run.state_type is StateType.CANCELLED
    assert orch.flow_runs.get(child).state_type is StateType.CANCELLED
    for each in (task_run_id, tracker, grandchild):
        history = states(orch.task_runs.get(each))
        assert history[-1] == "Cancelled"
        assert history.count("Cancelled") == 1
    assert orch.task_runs.get(ended).state_type is StateType.COMPLETED


def test_run_that_has_ended_is_not_cancelled(memory: Orchestrator) -> None:
    @flow
    def done() -> int:
        return 1

    done()
    run = the_flow_run(memory)

    with pytest.raises(errors.RunNotCancellable, match="has ended as Completed"):
        memory.flow_runs.cancel(run.id)
    assert states(run) == ["Pending", "Running", "Completed"]
    with pytest.raises(errors.RunNotFound):
        memory.flow_runs.cancel(UUID(int=5))


def test_cancelling_twice_is_no_error(memory: Orchestrator) -> None:
    run_id = a_flow_run(memory.database, memory.engine.process, StateType.RUNNING)

    first, second = memory.flow_runs.cancel(run_id), memory.flow_runs.cancel(run_id)

    assert (first.state_id, second.state_name) == (second.state_id, "Cancelled")


def test_moving_a_run_otherwise_interrupts_nothing(memory: Orchestrator) -> None:
    @flow
    def moved() -> str:
        run_id = runtime.flow_run.id
        assert run_id is not None
        memory.flow_runs.set_state(run_id, Completed(message="by hand"))
        memory.engine.watch.look()
        return "to its end"

    assert moved() == "to its end"


# -- other processes -------------------------------------------------------------------------------

WORK = """
    import sys, threading, time
    import embedded_orch
    from embedded_orch import errors, flow, task

    @task
    def spin():
        while True:
            time.sleep(0.002)

    @flow
    def parent():
        future = spin.submit()
        print(embedded_orch.runtime.flow_run.id, flush=True)
        future.result()

    with embedded_orch.open(sys.argv[1]):
        try:
            parent()
        except errors.CancelledRun:
            print("cancelled", flush=True)
    """


@pytest.mark.parametrize("url", ["file", "postgres"], indirect=True)
def test_run_in_another_process_is_cancelled(orch: Orchestrator, url: str) -> None:
    def line() -> str:
        assert worker.stdout is not None
        return worker.stdout.readline().strip()

    worker = subprocess.Popen(
        [sys.executable, "-c", dedent(WORK), url],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(EMBEDDED_ORCH_HOME=os.environ["EMBEDDED_ORCH_HOME"]),
    )
    try:
        run_id = line()
        # On Postgres it hears of it at once, and may have ended before the run is read.
        assert orch.flow_runs.cancel(run_id).state_name in {"Cancelling", "Cancelled"}

        assert line() == "cancelled"
    finally:
        worker.kill()
        worker.communicate(timeout=PATIENCE)
    run = orch.flow_runs.get(run_id)
    assert states(run) == CANCELLED
    [spin] = orch.task_runs.find(flow_run_id=run.id)
    assert states(spin) == CANCELLED_WITH_ITS_FLOW


def test_run_that_is_to_be_resumed_is_not_cancelled_by_the_state_it_was_left_in(
    orch: Orchestrator,
) -> None:
    """Seen to fail when the look did not ask in which epoch the run had been cancelled."""

    @flow
    def work() -> None:
        raise errors.CancelledRun("stop")

    work(return_state=True)
    run = the_flow_run(orch)
    orch.flow_runs.set_state(run.id, Cancelled(), force=True)
    resuming, running = (Cancellation(run.id, run.name, None) for _ in range(2))
    resuming.epoch, running.epoch = 1, 0
    watch = orch.engine.watch

    for cancellation in (resuming, running):
        watch.add(cancellation)
        watch.look()
        watch.discard(cancellation)

    assert not resuming.is_requested
    assert running.is_requested
