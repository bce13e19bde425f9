"""What a task run depends on, as it is recorded with it."""

from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from embedded_orch import TaskRun, allow_failure, flow, task, unmapped
from embedded_orch.utilities.annotations import opaque, quote
from tests.opened import opened, runs_of, the_flow_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from embedded_orch import Orchestrator


@pytest.fixture
def orch(url: str) -> Iterator[Orchestrator]:
    with opened(url) as orchestrator:
        yield orchestrator


@pytest.fixture
def quick() -> Iterator[Orchestrator]:
    with opened(":memory:") as orchestrator:
        yield orchestrator


@task
def make(name: str) -> list[str]:
    return [name]


@task
def fail() -> None:
    raise ValueError("no luck")


@task
def use(value: Any = None, other: Any = None) -> None: ...


@dataclass
class Box:
    value: Any


def inputs_of(orch: Orchestrator, run: TaskRun) -> dict[str, list[str]]:
    """Names of what a run depends on, by parameter: the argument of ``make``, or the task."""
    found = {}
    for parameter, inputs in run.task_inputs.items():
        assert all(each.input_type == "task_run" for each in inputs)
        found[parameter] = [named(orch, orch.task_runs.get(each.id)) for each in inputs]
    return found


def named(orch: Orchestrator, run: TaskRun) -> str:
    if run.task_key != make.task_key or run.state is None:
        return run.task_key.rpartition(".")[2]
    return str(run.state.result()[0])


def in_flow(body: Callable[[], Any]) -> Any:
    return flow(name="a-flow")(lambda: body())()


WAYS: list[tuple[Callable[[], Any], dict[str, list[str]]]] = [
    (lambda: use(3, "text"), {}),
    (lambda: use([1, {"a": 2}]), {}),
    (lambda: use(make.submit("a")), {"value": ["a"]}),
    (lambda: use(make("a", return_state=True), 3), {"value": ["a"]}),
    (lambda: use(other=make("a")), {"other": ["a"]}),
    (lambda: use(make("a"), make("b")), {"value": ["a"], "other": ["b"]}),
    (lambda: use([make.submit("a"), (make("b"), make.submit("c"))]), {"value": ["b", "a", "c"]}),
    (lambda: use({"x": Box(make("a"))}), {"value": ["a"]}),
    (lambda: use(make("a")[0], "a"), {}),
    (
        lambda: use(wait_for=[make.submit("a"), make("b", return_state=True)]),
        {"wait_for": ["a", "b"]},
    ),
    (lambda: use(quote(make.submit("a"))), {}),
    (lambda: use(opaque(make.submit("a")), opaque([make("b")])), {"value": ["a"]}),
    (lambda: use(allow_failure(fail.submit())), {"value": ["fail"]}),
    (
        lambda: use.submit(make.submit("a"), wait_for=make("b", return_state=True)).wait(),
        {"value": ["a"], "wait_for": ["b"]},
    ),
]


@pytest.mark.parametrize(("way", "expected"), WAYS)
def test_what_a_call_depends_on_is_recorded(
    quick: Orchestrator, way: Callable[[], Any], expected: dict[str, list[str]]
) -> None:
    in_flow(way)

    [run] = runs_of(quick, use)
    assert inputs_of(quick, run) == expected


def test_inputs_are_recorded_on_every_backend(orch: Orchestrator) -> None:
    def body() -> None:
        data = make("a")
        use(data, make.submit("b"), wait_for=[make.submit("c")])
        use(1)

    in_flow(body)

    first, second = runs_of(orch, use)
    assert inputs_of(orch, first) == {"value": ["a"], "other": ["b"], "wait_for": ["c"]}
    assert second.task_inputs == {}


def test_call_that_was_not_ready_says_why(quick: Orchestrator) -> None:
    in_flow(lambda: use(fail.submit(), return_state=True).name)

    [run] = runs_of(quick, use)
    assert inputs_of(quick, run) == {"value": ["fail"]}


def test_mapped_calls_depend_on_what_they_are_spread_over(quick: Orchestrator) -> None:
    def body() -> None:
        several = make.map(["a", "b"])
        use.map(several, unmapped(make.submit("c"))).wait()
        use.map(make.submit("d"), 0).wait()
        use.map(make("e"), 0).wait()

    in_flow(body)

    found = [inputs_of(quick, run) for run in runs_of(quick, use)]
    assert sorted(found, key=str) == sorted(
        [
            {"value": ["a"], "other": ["c"]},
            {"value": ["b"], "other": ["c"]},
            {"value": ["d"]},
            {},
        ],
        key=str,
    )


def test_task_run_that_makes_a_call_is_its_parent(quick: Orchestrator) -> None:
    @task
    def outer() -> None:
        use(make("a"))

    in_flow(outer)

    [run] = runs_of(quick, use)
    assert inputs_of(quick, run) == {"value": ["a"], "__parents__": ["outer"]}


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_async_calls_record_what_they_depend_on(quick: Orchestrator, loop: str) -> None:
    @task
    async def fetch(name: str) -> list[str]:
        return [name]

    @task
    async def store(value: Any, other: Any) -> None: ...

    @flow
    async def crawl() -> None:
        await store(await fetch("a"), fetch.submit("b"))

    anyio.run(crawl, backend=loop)

    [run] = runs_of(quick, store)
    assert {name: len(found) for name, found in run.task_inputs.items()} == {
        "value": 1,
        "other": 1,
    }


def test_recorded_result_is_known_in_a_resumed_run(quick: Orchestrator) -> None:
    fails = iter([True, False])

    @flow
    def report() -> None:
        data = make("a")
        if next(fails):
            raise ValueError("not yet")
        use(data)

    with pytest.raises(ValueError, match="not yet"):
        report()
    report.resume(the_flow_run(quick).id)

    [run] = runs_of(quick, use)
    assert inputs_of(quick, run) == {"value": ["a"]}


def test_result_of_another_flow_run_is_not_known(quick: Orchestrator) -> None:
    kept: list[Any] = []

    in_flow(lambda: kept.append(make("a")))
    in_flow(lambda: use(kept[0]))

    [run] = runs_of(quick, use)
    assert run.task_inputs == {}


class Large:
    """A result that one can see being let go."""


def test_results_are_not_kept_by_the_run(quick: Orchestrator) -> None:
    kept: list[weakref.ref[Large]] = []

    @task
    def load() -> list[Large]:
        large = Large()
        kept.append(weakref.ref(large))
        return [large]

    def body() -> int:
        for _ in range(20):
            load()
        gc.collect()
        return sum(reference() is not None for reference in kept)

    assert in_flow(body) <= 2
