"""Hooks for the completion of a task whose process died before they were called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from embedded_orch import flow, task
from tests.opened import Clock, opened, states, the_run_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from embedded_orch import Orchestrator


@pytest.fixture
def orch(url: str) -> Iterator[Orchestrator]:
    with opened(url, Clock()) as orchestrator:
        yield orchestrator


def owing(orch: Orchestrator) -> int:
    with orch.session(read_only=True) as session:
        found: Any = session.execute("select count(*) from task_run where owes_hooks").scalar()
        return int(found)


class Hooks:
    """Notes the calls of a hook, and is killed in the first of them, as by Ctrl-C."""

    def __init__(self, *, dies: bool = True) -> None:
        self.calls: list[tuple[str, str | None, Any]] = []
        self.dies = dies

    def __call__(self, task: Any, run: Any, state: Any) -> None:
        if self.dies:
            self.dies = False
            raise KeyboardInterrupt
        self.calls.append((task.name, run.state_name, state.result()))


def test_resume_calls_the_hooks_of_a_completed_task_once(orch: Orchestrator) -> None:
    hooks, made = Hooks(), [0]

    @task(on_completion=[hooks])
    def load(number: int) -> int:
        made[0] += 1
        return number * 2

    @flow
    def etl() -> list[int]:
        return [load(1), load(2)]

    with pytest.raises(KeyboardInterrupt):
        etl()
    assert owing(orch) == 1

    assert etl.resume() == [2, 4]

    assert hooks.calls == [("load", "Completed", 2), ("load", "Completed", 4)]
    assert made == [2]
    assert owing(orch) == 0
    run = next(orch.flow_runs.find(flow_name="etl"))
    assert etl.resume(run.id) == [2, 4]
    assert len(hooks.calls) == 2


def test_hooks_that_were_called_are_not_called_by_resume(orch: Orchestrator) -> None:
    hooks, broken = Hooks(dies=False), [True]

    @task(on_completion=[hooks])
    def load() -> int:
        return 1

    @flow
    def etl() -> int:
        found = load()
        if broken.pop():
            raise OSError("no network")
        return found

    state: Any = etl(return_state=True)
    broken.append(False)

    assert state.is_failed()
    assert etl.resume() == 1
    assert len(hooks.calls) == 1


def test_hook_that_raises_is_not_owed(orch: Orchestrator) -> None:
    def fail(*_: object) -> None:
        raise ValueError("no mail")

    @task(on_completion=[fail])
    def load() -> int:
        return 1

    @flow
    def etl() -> int:
        return load()

    assert etl() == 1
    assert owing(orch) == 0


@pytest.mark.parametrize("kind", ["submitted", "cached", "tagged"])
def test_every_way_to_complete_owes_them(orch: Orchestrator, kind: str) -> None:
    orch.concurrency_limits.create("tag:db", 1)
    hooks = Hooks(dies=False)
    options: dict[str, Any] = {
        "submitted": {},
        "cached": {"cache_key_fn": lambda *_: "key"},
        "tagged": {"tags": ["db"]},
    }[kind]

    @task(on_completion=[hooks], **options)
    def load() -> int:
        seen.append(owing(orch))
        return 1

    def look(*_: object) -> None:
        seen.append(owing(orch))

    load.on_completion(look)
    seen: list[int] = []

    @flow
    def etl() -> int:
        if kind == "submitted":
            return load.submit().result()
        return load()

    etl()
    if kind == "cached":
        etl()

    assert seen == ([0, 1, 1] if kind == "cached" else [0, 1])
    assert owing(orch) == 0


def test_task_without_hooks_for_its_completion_owes_none(orch: Orchestrator) -> None:
    seen: list[int] = []

    @task(on_running=[lambda *_: seen.append(owing(orch))], on_failure=[Hooks()])
    def load() -> int:
        return 1

    @flow
    def etl() -> int:
        found = load()
        seen.append(owing(orch))
        return found

    assert etl() == 1
    assert seen == [0, 0]


def test_failed_task_is_run_again_with_its_hooks(orch: Orchestrator) -> None:
    hooks = Hooks()

    @task(on_failure=[hooks], on_completion=[hooks])
    def load() -> int:
        if hooks.dies:
            raise ValueError("no data")
        return 1

    @flow
    def etl() -> int:
        return load()

    with pytest.raises(KeyboardInterrupt):
        etl()

    assert etl.resume() == 1
    assert hooks.calls == [("load", "Completed", 1)]
    assert states(the_run_of(orch, load))[-1] == "Completed"
