"""Pausing, suspending and resuming flow runs, in one process and over several."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading
from textwrap import dedent
from typing import TYPE_CHECKING, Any
from uuid import UUID

import anyio
import msgspec
import pydantic
import pytest

from embedded_orch import (
    apause_flow_run,
    aresume_flow_run,
    errors,
    flow,
    pause_flow_run,
    resume_flow_run,
    runtime,
    suspend_flow_run,
    task,
)
from embedded_orch.exceptions import FlowPauseTimeout, NotPausedError, Pause
from embedded_orch.states import Paused, StateType
from tests.engine.waiting import PATIENCE, until
from tests.opened import Clock, flow_runs, opened, runs_of, states, the_flow_run
from tests.programs import environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from embedded_orch import FlowRun, Orchestrator


@pytest.fixture
def orch(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Orchestrator]:
    monkeypatch.setenv("EMBEDDED_ORCH_HOME", str(tmp_path / "home"))
    with opened(url) as orchestrator:
        yield orchestrator


@pytest.fixture
def memory() -> Iterator[Orchestrator]:
    with opened(":memory:") as orchestrator:
        yield orchestrator


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def timed(clock: Clock) -> Iterator[Orchestrator]:
    """A database in memory, in which the longest pause is over at once."""
    with opened(":memory:", clock) as orchestrator:
        yield orchestrator


@flow
def asking(name: str = "nobody") -> str:
    pause_flow_run()
    return f"hello {name}"


@task
def one() -> int:
    return 1


@flow
def suspending() -> list[int]:
    first = one()
    suspend_flow_run()
    return [first, one()]


def when_paused(orchestrator: Orchestrator, then: Callable[[UUID], object]) -> threading.Thread:
    """A thread that waits for the flow run to be paused."""

    def wait() -> None:
        until(lambda: orchestrator.flow_runs.count(state_type="PAUSED") == 1, "a pause")
        then(the_flow_run(orchestrator, state_type="PAUSED").id)

    thread = threading.Thread(target=lambda: _entered(orchestrator, wait))
    thread.start()
    return thread


def _entered(orchestrator: Orchestrator, call: Callable[[], object]) -> None:
    with orchestrator:
        call()


# -- pausing ---------------------------------------------------------------------------------------


def test_paused_run_goes_on_when_it_is_resumed(orch: Orchestrator) -> None:
    thread = when_paused(orch, resume_flow_run)

    assert asking() == "hello nobody"

    thread.join()
    run = the_flow_run(orch)
    assert states(run) == ["Pending", "Running", "Paused", "Running", "Completed"]
    assert run.run_count == 1
    paused = run.history[2].state_details
    assert (paused.pause_key, paused.pause_reschedule) == ("1", False)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_async_run_goes_on_when_it_is_resumed(memory: Orchestrator, backend: str) -> None:
    @flow
    async def parent() -> Any:
        run_id = runtime.flow_run.id
        assert run_id is not None
        async with anyio.create_task_group() as group:
            group.start_soon(resume_later, run_id)
            return await pause_flow_run(wait_for_input=int)

    async def resume_later(run_id: str) -> None:
        while memory.flow_runs.get(run_id).state_name != "Paused":
            await anyio.sleep(0.002)
        await aresume_flow_run(run_id, {"value": 5})

    assert anyio.run(parent, backend=backend) == 5


def test_pause_in_a_task_pauses_its_flow_and_other_tasks_go_on(memory: Orchestrator) -> None:
    @task
    def approve() -> str:
        pause_flow_run(key="approval")
        return "approved"

    @flow
    def parent() -> str:
        future = approve.submit()
        until(lambda: the_flow_run(memory).state_name == "Paused", "the pause")
        assert one.submit().result() == 1
        resume_flow_run(the_flow_run(memory).id)
        return future.result()

    assert parent() == "approved"


def test_each_pause_has_its_place_as_its_key(memory: Orchestrator) -> None:
    @flow
    def twice() -> None:
        pause_flow_run()
        pause_flow_run()
        pause_flow_run(key="third")

    def resume_all(run_id: UUID) -> None:
        for count in (1, 2, 3):
            until(lambda count=count: keys(run_id) == ["1", "2", "third"][:count], "a pause")
            until(lambda: memory.flow_runs.get(run_id).state_name == "Paused", "the state")
            resume_flow_run(run_id)

    def keys(run_id: UUID) -> list[str | None]:
        history = memory.flow_runs.get(run_id).history
        return [state.state_details.pause_key for state in history if state.is_paused()]

    thread = when_paused(memory, resume_all)
    twice()
    thread.join()

    assert keys(the_flow_run(memory).id) == ["1", "2", "third"]


def test_pause_that_was_passed_is_passed_again_in_a_retry(memory: Orchestrator) -> None:
    attempts: list[int] = []

    @flow(retries=1)
    def parent() -> int:
        pause_flow_run()
        attempts.append(1)
        if len(attempts) == 1:
            raise ValueError("after the approval")
        return len(attempts)

    thread = when_paused(memory, resume_flow_run)

    assert parent() == 2
    thread.join()
    assert states(the_flow_run(memory)).count("Paused") == 1


def test_pause_that_is_not_resumed_in_time_fails_the_run(timed: Orchestrator, clock: Clock) -> None:
    with pytest.raises(FlowPauseTimeout, match="not resumed in time"):
        asking()

    run = the_flow_run(timed)
    assert states(run) == ["Pending", "Running", "Paused", "Failed"]
    assert clock.naps == [3600.0]


def test_flow_that_goes_on_after_its_time_fails_all_the_same(timed: Orchestrator) -> None:
    @flow
    def stubborn() -> str:
        with pytest.raises(FlowPauseTimeout):
            pause_flow_run(timeout=5)
        return "done"

    state = stubborn(return_state=True)

    assert (state.is_failed(), state.message) == (
        True,
        "the run was paused, and not resumed in time",
    )


def test_paused_run_can_be_cancelled(orch: Orchestrator) -> None:
    thread = when_paused(orch, orch.flow_runs.cancel)

    state = asking(return_state=True)

    thread.join()
    assert state.is_cancelled()
    assert states(the_flow_run(orch))[-3:] == ["Paused", "Cancelling", "Cancelled"]


def test_what_cannot_be_paused_or_resumed_says_so(memory: Orchestrator) -> None:
    for call in (pause_flow_run, suspend_flow_run):
        with pytest.raises(RuntimeError, match="no flow is running here"):
            call()
    with pytest.raises(errors.RunNotFound):
        resume_flow_run(UUID(int=5))
    one()

    @flow
    def done() -> None:
        with pytest.raises(errors.ConfigurationError, match="timeout=-1"):
            pause_flow_run(timeout=-1)
        with pytest.raises(errors.ConfigurationError, match="lower-case letters"):
            pause_flow_run(wait_for_input=int, key="Not a key")

    done()
    run = the_flow_run(memory)
    assert states(run) == ["Pending", "Running", "Completed"]
    with pytest.raises(NotPausedError, match="is Completed"):
        resume_flow_run(run.id)


# -- suspending ------------------------------------------------------------------------------------


def test_suspended_run_is_continued_by_flow_resume(orch: Orchestrator) -> None:
    with pytest.raises(Pause) as caught:
        suspending()
    assert caught.value.state is not None
    assert caught.value.state.name == "Suspended"
    run = the_flow_run(orch)
    assert states(run) == ["Pending", "Running", "Suspended"]

    resume_flow_run(run.id)
    assert orch.flow_runs.get(run.id).state_name == "Resuming"
    assert suspending.resume(run.id) == [1, 1]

    run = orch.flow_runs.get(run.id)
    assert states(run)[2:] == ["Suspended", "Resuming", "Running", "Completed"]
    assert run.run_count == 1
    assert [states(each) for each in runs_of(orch, one)] == [
        ["Pending", "Running", "Completed"]
    ] * 2


def test_flow_resume_alone_continues_a_suspended_run(memory: Orchestrator) -> None:
    assert suspending(return_state=True).is_paused()

    assert suspending.resume(the_flow_run(memory).id) == [1, 1]


def test_suspended_run_waits_for_input(memory: Orchestrator) -> None:
    @flow
    def parent() -> str:
        return f"hello {suspend_flow_run(wait_for_input=str)}"

    parent(return_state=True)
    run = the_flow_run(memory)
    with pytest.raises(errors.RunNotResumable, match="waits for input"):
        parent.resume(run.id)
    resume_flow_run(run.id, {"value": "you"})

    assert parent.resume(run.id) == "hello you"


def test_suspended_run_whose_time_is_over_has_failed_for_whoever_looks(
    timed: Orchestrator, clock: Clock
) -> None:
    @flow
    def parent() -> None:
        suspend_flow_run(timeout=60)

    def refused(call: Callable[[], object]) -> None:
        with pytest.raises(FlowPauseTimeout):
            call()

    looks: list[Callable[[FlowRun], object]] = [
        lambda run: timed.flow_runs.get(run.id),
        lambda run: list(timed.flow_runs.find()),
        lambda run: refused(lambda: resume_flow_run(run.id)),
        lambda run: refused(lambda: parent.resume(run.id)),
    ]
    for look in looks:
        parent(return_state=True)
        run = flow_runs(timed)[-1]
        assert timed.flow_runs.get(run.id).state_name == "Suspended"
        clock.sleep(61)

        look(run)

        found = flow_runs(timed)[-1]
        assert states(found) == ["Pending", "Running", "Suspended", "Failed"]
    with pytest.raises(FlowPauseTimeout):
        resume_flow_run(run.id)


def test_suspending_is_refused_in_tasks_and_in_flows_that_flows_called(
    memory: Orchestrator,
) -> None:
    @task
    def in_a_task() -> None:
        suspend_flow_run()

    @flow
    def child() -> None:
        suspend_flow_run()

    @flow
    def parent() -> None:
        with pytest.raises(RuntimeError, match="this is a task"):
            in_a_task()
        with pytest.raises(RuntimeError, match="that a flow called"):
            child()

    parent()


def test_run_that_is_suspended_from_outside_stops_at_its_next_task(memory: Orchestrator) -> None:
    begun: list[int] = []

    @flow
    def parent() -> int:
        run_id = runtime.flow_run.id
        assert run_id is not None
        begun.append(one())
        if len(begun) == 1:
            suspender = threading.Thread(target=suspend, args=(run_id,))
            suspender.start()
            suspender.join()
            memory.engine.watch.look()
        return one() + begun[-1]

    def suspend(run_id: str) -> None:
        with memory:
            suspend_flow_run(flow_run_id=run_id)

    with pytest.raises(Pause):
        parent()
    run = the_flow_run(memory)
    assert states(run) == ["Pending", "Running", "Suspended"]
    assert memory.task_runs.count() == 1

    assert parent.resume(run.id) == 2
    with pytest.raises(RuntimeError, match="is not suspended"):
        suspend_flow_run(flow_run_id=run.id)


def test_suspended_run_is_cancelled_at_once(memory: Orchestrator) -> None:
    suspending(return_state=True)

    assert memory.flow_runs.cancel(the_flow_run(memory).id).state_type is StateType.CANCELLED


def test_paused_run_of_a_living_process_is_not_taken_over(memory: Orchestrator) -> None:
    seen: list[str] = []

    def try_then_resume(run_id: UUID) -> None:
        with pytest.raises(errors.RunNotResumable, match="is paused, and process") as caught:
            asking.resume(run_id)
        seen.append(str(caught.value))
        resume_flow_run(run_id)

    thread = when_paused(memory, try_then_resume)
    asking()
    thread.join()

    assert len(seen) == 1


# -- input -----------------------------------------------------------------------------------------


class Item(msgspec.Struct, kw_only=True):
    name: str
    count: int = 1


@dataclasses.dataclass
class Order:
    items: list[Item]
    note: str | None = None


class Model(pydantic.BaseModel):
    name: str
    count: int = pydantic.Field(1, gt=0)


@pytest.mark.parametrize(
    ("wanted", "bad", "said", "good", "value"),
    [
        (int, {"value": "x"}, "value: 'x' is no integer", {"value": 5}, 5),
        (Item, {"count": 1}, "name: needed", {"name": "a"}, Item(name="a")),
        (Item, {"name": "a", "cuont": 1}, "cuont: there is no", {"name": "a"}, Item(name="a")),
        (
            Order,
            {"items": [{"name": "a"}, {"name": 2}]},
            r"items\[1\].name: 2 is no string",
            {"items": [{"name": "a", "count": 2}]},
            Order([Item(name="a", count=2)]),
        ),
        (Order, None, "items: needed", {"items": []}, Order([])),
        (Model, {"name": "a", "count": 0}, "not more than 0", {"name": "a"}, Model(name="a")),
        (dict[str, int], {"value": {"a": "b"}}, "value.a: 'b'", {"value": {"a": 1}}, {"a": 1}),
    ],
)
def test_input_is_checked_and_becomes_the_class_that_is_waited_for(
    memory: Orchestrator, wanted: Any, bad: Any, said: str, good: Any, value: object
) -> None:
    @flow
    def parent() -> list[Any]:
        return [pause_flow_run(wait_for_input=wanted)]

    def answer(run_id: UUID) -> None:
        with pytest.raises(errors.RunInputError, match=said):
            resume_flow_run(run_id, bad)
        refused.append(memory.flow_runs.get(run_id).state_name)
        resume_flow_run(run_id, good)
        with pytest.raises(NotPausedError):
            resume_flow_run(run_id, good)

    refused: list[str | None] = []
    thread = when_paused(memory, answer)

    assert parent() == [value]
    thread.join()
    assert refused == ["Paused"]


def test_input_that_is_not_waited_for_is_refused(memory: Orchestrator) -> None:
    def answer(run_id: UUID) -> None:
        with pytest.raises(errors.RunInputError, match="waits for no input"):
            resume_flow_run(run_id, {"value": 1})
        resume_flow_run(run_id)

    thread = when_paused(memory, answer)
    asking()
    thread.join()


def test_answer_is_kept_when_the_run_fails_and_is_resumed(memory: Orchestrator) -> None:
    answers: list[str] = []

    @flow
    def parent() -> str:
        answers.append(pause_flow_run(wait_for_input=str))
        if len(answers) == 1:
            raise ValueError("after the answer")
        return answers[-1]

    thread = when_paused(memory, lambda run_id: resume_flow_run(run_id, {"value": "yes"}))
    with pytest.raises(ValueError, match="after the answer"):
        parent()
    thread.join()

    assert parent.resume(the_flow_run(memory).id) == "yes"
    assert answers == ["yes", "yes"]


def test_pause_set_by_hand_pauses_nothing_but_the_state(memory: Orchestrator) -> None:
    @flow
    def parent() -> str:
        run_id = runtime.flow_run.id
        assert run_id is not None
        memory.flow_runs.set_state(run_id, Paused(timeout_seconds=60))
        return "done"

    assert parent() == "done"
    assert states(the_flow_run(memory))[-2:] == ["Paused", "Completed"]


def test_async_form_needs_a_flow_too() -> None:
    with pytest.raises(errors.MissingContextError):
        anyio.run(apause_flow_run)


# -- other processes -------------------------------------------------------------------------------

PAUSE = """
    import sys
    import embedded_orch
    from embedded_orch import flow, pause_flow_run, suspend_flow_run, task

    @task
    def one():
        print("one", flush=True)
        return 1

    @flow
    def pausing():
        one()
        return pause_flow_run(wait_for_input=int, poll_interval=0.2)

    @flow
    def suspending():
        return one() + suspend_flow_run(wait_for_input=int)

    if __name__ == "__main__":
        url, name, *run_id = sys.argv[1:]
        chosen = {"pausing": pausing, "suspending": suspending}[name]
        with embedded_orch.open(url):
            if run_id:
                print(chosen.resume(run_id[0]), flush=True)
            else:
                print(chosen(return_state=True).result(raise_on_failure=False)
                      if name == "pausing" else chosen(return_state=True).name, flush=True)
    """


def program(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", dedent(PAUSE), *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(EMBEDDED_ORCH_HOME=os.environ["EMBEDDED_ORCH_HOME"]),
    )


def output(process: subprocess.Popen[str]) -> list[str]:
    text, _ = process.communicate(timeout=2 * PATIENCE)
    return text.split()


@pytest.mark.parametrize("url", ["file", "postgres"], indirect=True)
def test_run_that_is_paused_in_one_process_is_resumed_from_another(
    orch: Orchestrator, url: str
) -> None:
    worker = program(url, "pausing")
    try:
        until(lambda: orch.flow_runs.count(state_type="PAUSED") == 1, "a pause")
        run = the_flow_run(orch)
        resume_flow_run(run.id, {"value": 42})

        assert output(worker) == ["one", "42"]
    finally:
        worker.kill()
        worker.communicate()
    assert states(run) == ["Pending", "Running", "Paused", "Running", "Completed"]


@pytest.mark.parametrize("url", ["file", "postgres"], indirect=True)
def test_run_that_is_suspended_in_one_process_is_continued_in_another(
    orch: Orchestrator, url: str
) -> None:
    assert output(program(url, "suspending")) == ["one", "Suspended"]
    run = the_flow_run(orch)
    resume_flow_run(run.id, {"value": 41})

    assert output(program(url, "suspending", run.id)) == ["42"]
    assert states(run)[2:] == ["Suspended", "Resuming", "Running", "Completed"]


@pytest.mark.parametrize("url", ["file"], indirect=True)
def test_paused_run_whose_process_died_is_continued_by_flow_resume(
    orch: Orchestrator, url: str
) -> None:
    worker = program(url, "pausing")
    until(lambda: orch.flow_runs.count(state_type="PAUSED") == 1, "a pause")
    worker.kill()
    worker.communicate()
    run = the_flow_run(orch)

    resume_flow_run(run.id, {"value": 7})
    assert orch.flow_runs.get(run.id).state_name == "Resuming"
    assert output(program(url, "pausing", run.id)) == ["7"]
