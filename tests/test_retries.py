"""Retries of tasks as their conditions, delays and jitter say."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from embedded_orch import State, Task, TaskRun, flow, task
from embedded_orch.tasks import exponential_backoff
from tests.opened import Clock, opened, states, the_run_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from embedded_orch import Orchestrator


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def orch(url: str, clock: Clock) -> Iterator[Orchestrator]:
    with opened(url, clock) as orchestrator:
        yield orchestrator


@pytest.fixture
def quick(clock: Clock) -> Iterator[Orchestrator]:
    with opened(":memory:", clock) as orchestrator:
        yield orchestrator


class Asked:
    """A condition that keeps what it was asked, and answers from a list."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.questions: list[tuple[Task[..., Any], TaskRun, State]] = []

    def __call__(self, task: Task[..., Any], task_run: TaskRun, state: State) -> object:
        self.questions.append((task, task_run, state))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def later(self, task: Task[..., Any], task_run: TaskRun, state: State) -> object:
        await anyio.sleep(0)
        return self(task, task_run, state)


def failing() -> None:
    raise ValueError("not yet")


def test_condition_decides_whether_a_failure_is_retried(orch: Orchestrator) -> None:
    asked = Asked(True, False)
    load = task(retries=5, retry_condition_fn=asked)(failing)

    with pytest.raises(ValueError, match="not yet"):
        flow(name="report")(lambda: load())()

    run = the_run_of(orch, load)
    assert states(run) == ["Pending", "Running", "Retrying", "Failed"]
    assert run.state is not None
    assert run.state.state_details.retriable is False
    [(_, before, _), (given, shown, state)] = asked.questions
    assert given is load
    assert (before.run_count, before.state_name) == (1, "Running")
    assert (shown.id, shown.run_count, shown.state_name) == (run.id, 2, "Retrying")
    assert (state.is_failed(), type(state.data)) == (True, ValueError)
    assert state.state_details.task_run_id == run.id


def test_condition_is_not_asked_when_no_retry_is_left(quick: Orchestrator) -> None:
    asked = Asked(True)
    load = task(retries=1, retry_condition_fn=asked)(failing)

    with pytest.raises(ValueError, match="not yet"):
        load()

    assert len(asked.questions) == 1


def test_condition_that_raises_is_logged_and_nothing_is_retried(
    quick: Orchestrator, caplog: pytest.LogCaptureFixture
) -> None:
    asked = Asked(ArithmeticError("no idea"))
    load = task(retries=5, retry_condition_fn=asked)(failing)

    with caplog.at_level(logging.ERROR), pytest.raises(ValueError, match="not yet"):
        load()

    assert states(the_run_of(quick, load)) == ["Pending", "Running", "Failed"]
    [record] = [each for each in caplog.records if "retry_condition_fn raised" in each.message]
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ArithmeticError)
    run_id = the_run_of(quick, load).id
    [line] = quick.logs.find(task_run_id=run_id, text="retry_condition_fn raised")
    assert "ArithmeticError: no idea" in line.message


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_condition_of_an_async_task_may_be_async_or_not(quick: Orchestrator, loop: str) -> None:
    @task(retries=5)
    async def fetch() -> None:
        raise ValueError("not yet")

    for way in ("__call__", "later"):
        asked = Asked(True, False)

        async def fetched(asked: Asked = asked, way: str = way) -> None:
            with pytest.raises(ValueError, match="not yet"):
                await fetch.with_options(retry_condition_fn=getattr(asked, way))()

        anyio.run(fetched, backend=loop)
        assert len(asked.questions) == 2


def test_condition_of_a_plain_task_may_be_async(quick: Orchestrator) -> None:
    asked = Asked(True, False, False)
    load = task(retries=5, retry_condition_fn=asked.later)(failing)

    with pytest.raises(ValueError, match="not yet"):
        load()

    async def on_a_loop() -> None:
        with pytest.raises(ValueError, match="not yet"):
            load()

    anyio.run(on_a_loop)
    assert len(asked.questions) == 3


def test_delays_double_with_exponential_backoff(quick: Orchestrator, clock: Clock) -> None:
    load = task(retries=3, retry_delay_seconds=exponential_backoff(10))(failing)

    with pytest.raises(ValueError, match="not yet"):
        load()

    assert clock.naps == [10, 20, 40]


def test_delays_are_jittered_by_the_engine(quick: Orchestrator, clock: Clock) -> None:
    load = task(retries=50, retry_delay_seconds=10, retry_jitter_factor=0.5)(failing)

    with pytest.raises(ValueError, match="not yet"):
        load()

    assert len(set(clock.slept)) > 40
    assert min(clock.slept) > 2
    assert 10 < max(clock.slept) <= 15
    assert 8 < sum(clock.slept) / 50 < 12


def test_retries_left_to_the_environment_are_made(
    quick: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDDED_ORCH_TASK_DEFAULT_RETRIES", "2")
    load = task(failing)

    with pytest.raises(ValueError, match="not yet"):
        load()

    assert the_run_of(quick, load).run_count == 3
