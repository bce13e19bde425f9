"""Names that users choose for runs, the versions and descriptions beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from embedded_orch import flow, task
from embedded_orch.engine.contexts import current_flow_run, current_task_run
from tests.opened import opened, states, the_flow_run, the_run_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from embedded_orch import Orchestrator


@pytest.fixture
def orch(url: str) -> Iterator[Orchestrator]:
    with opened(url) as orchestrator:
        yield orchestrator


@pytest.fixture
def quick() -> Iterator[Orchestrator]:
    with opened(":memory:") as orchestrator:
        yield orchestrator


def test_runs_are_named_by_templates_over_their_parameters(orch: Orchestrator) -> None:
    @task(task_run_name="load-{path}-{limit:03}", version="7")
    def load(path: str, limit: int = 10) -> None: ...

    @flow(flow_run_name="report on {paths[0]}", version="8")
    def report(paths: list[str]) -> None:
        load(paths[0])

    report(["a.csv"])

    flow_run, task_run = the_flow_run(orch), the_run_of(orch, load)
    assert (flow_run.name, flow_run.flow_version) == ("report on a.csv", "8")
    assert (task_run.name, task_run.task_version) == ("load-a.csv-010", "7")


def test_templates_may_name_what_a_run_knows_of_itself(quick: Orchestrator) -> None:
    @task(task_run_name="{flow_run.name}: {task_run.task_name} of {parameters[path]} {path}")
    def load(path: str) -> None: ...

    @flow(flow_run_name="{flow_run.flow_name} {task_run}")
    def report(task_run: str) -> None:
        load(task_run)

    report("a")

    assert the_run_of(quick, load).name == "report a: load of a a"


def test_runs_are_named_by_functions_that_may_take_the_parameters(quick: Orchestrator) -> None:
    def by_parameters(parameters: dict[str, Any]) -> str:
        return f"of {parameters['path']}"

    def by_context() -> str:
        task_run, flow_run = current_task_run(), current_flow_run()
        name = task_run.task.name if task_run is not None else "no task"
        return f"{name} in {flow_run.flow.name if flow_run is not None else 'no flow'}"

    @task(task_run_name=by_parameters)
    def load(path: str) -> None: ...

    @task(task_run_name=by_context)
    def store(path: str) -> None: ...

    @flow(flow_run_name=by_context)
    def report(path: str) -> None:
        load(path)
        store(path)

    report("a.csv")

    assert the_run_of(quick, load).name == "of a.csv"
    assert the_run_of(quick, store).name == "store in report"
    assert the_flow_run(quick).name == "no task in report"


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_async_runs_are_named_too(quick: Orchestrator, loop: str) -> None:
    @task(task_run_name="load-{path}")
    async def load(path: str) -> None: ...

    @flow(flow_run_name="report-{path}")
    async def report(path: str) -> None:
        await load(path)
        await load.with_options(name="other").submit(path).wait_async()

    anyio.run(report, "a", backend=loop)

    assert the_flow_run(quick).name == "report-a"
    assert [run.name for run in quick.task_runs.find()] == ["load-a", "load-a"]


def test_child_of_a_flow_is_named(quick: Orchestrator) -> None:
    @flow(flow_run_name="child of {name}")
    def child(name: str) -> None: ...

    @flow
    def parent() -> None:
        child("parent")

    parent()

    assert the_flow_run(quick, flow_name="child").name == "child of parent"


def wrong() -> Any:
    return 3


def raising() -> str:
    raise ValueError("no name today")


@pytest.mark.parametrize(
    ("naming", "message"),
    [
        (wrong, "returned 3; the name of a run is a text"),
        (raising, "no name today"),
        ("{path.size}", "'str' object has no attribute 'size'"),
    ],
)
def test_run_whose_name_cannot_be_made_fails_and_its_function_is_not_called(
    orch: Orchestrator, naming: Any, message: str
) -> None:
    called: list[str] = []

    @task(task_run_name=naming, retries=3)
    def load(path: str) -> None:
        called.append(path)

    @flow(flow_run_name=naming, retries=3)
    def report(path: str) -> None:
        called.append(path)

    for decorated in (load, report):
        with pytest.raises(Exception, match=message):
            decorated("a.csv")

    assert called == []
    assert states(the_run_of(orch, load)) == ["Pending", "Running", "Failed"]
    flow_run = the_flow_run(orch)
    assert states(flow_run) == ["Pending", "Failed"]
    assert flow_run.state is not None
    assert message.partition(";")[0] in (flow_run.state.message or "")


def test_resumed_run_keeps_its_name(quick: Orchestrator) -> None:
    names = iter(["first", "second"])
    fails = iter([True, False])

    @flow(flow_run_name=lambda: next(names))
    def report() -> str:
        if next(fails):
            raise ValueError("not yet")
        return "done"

    with pytest.raises(ValueError, match="not yet"):
        report()

    assert report.resume(the_flow_run(quick).id) == "done"
    assert the_flow_run(quick).name == "first"
