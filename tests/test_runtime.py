"""What running code can ask about its run: ``runtime`` and ``context``."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest

import embedded_orch
from embedded_orch import Orchestrator, errors, flow, runtime, tags, task
from embedded_orch.context import FlowRunContext, TaskRunContext, get_run_context
from embedded_orch.exceptions import MissingContextError
from tests.opened import Clock, flow_runs, opened, the_flow_run, the_run_of

FLOW_RUN = [
    "id",
    "name",
    "tags",
    "parameters",
    "run_count",
    "scheduled_start_time",
    "flow_name",
    "flow_version",
    "parent_flow_run_id",
    "root_flow_run_id",
    "parent_deployment_id",
    "job_variables",
    "api_url",
    "ui_url",
]
TASK_RUN = ["id", "name", "tags", "parameters", "run_count", "task_name", "api_url", "ui_url"]
DEPLOYMENT = ["id", "name", "version", "flow_run_id", "parameters"]


@pytest.fixture
def orch() -> Iterator[Orchestrator]:
    with opened(":memory:") as orchestrator:
        yield orchestrator


def of_flow_run() -> dict[str, Any]:
    return {name: getattr(runtime.flow_run, name) for name in FLOW_RUN}


def of_task_run() -> dict[str, Any]:
    return {name: getattr(runtime.task_run, name) for name in TASK_RUN}


@task(tags=["t"])
def look(number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    return of_task_run(), of_flow_run()


class TestRuntime:
    def test_a_flow_run_knows_what_it_is(self, url: str) -> None:
        seen: dict[str, Any] = {}

        @flow(version="7")
        def report(day: str, size: int = 2) -> None:
            seen.update(of_flow_run())

        with opened(url) as orchestrator:
            with tags("nightly"):
                report("monday")
            run = the_flow_run(orchestrator)

        assert seen == {
            "id": str(run.id),
            "name": run.name,
            "tags": ["nightly"],
            "parameters": {"day": "monday", "size": 2},
            "run_count": 1,
            "scheduled_start_time": run.expected_start_time,
            "flow_name": "report",
            "flow_version": "7",
            "parent_flow_run_id": None,
            "root_flow_run_id": str(run.id),
            "parent_deployment_id": None,
            "job_variables": {},
            "api_url": None,
            "ui_url": None,
        }

    def test_a_task_run_knows_what_it_is_and_its_flow_run(self, orch: Orchestrator) -> None:
        seen: list[Any] = []

        @flow
        def report() -> None:
            seen.extend(look(3))

        report()
        run = the_run_of(orch, look)

        assert seen[0] == {
            "id": str(run.id),
            "name": run.name,
            "tags": ["t"],
            "parameters": {"number": 3},
            "run_count": 1,
            "task_name": "look",
            "api_url": None,
            "ui_url": None,
        }
        assert seen[1]["id"] == str(run.flow_run_id)

    def test_a_task_outside_of_flows_has_no_flow_run(self, orch: Orchestrator) -> None:
        of_task, of_flow = look(1)

        assert of_task["id"] == str(the_run_of(orch, look).id)
        assert of_flow["id"] is None

    def test_submitted_tasks_know_theirs(self, orch: Orchestrator) -> None:
        @task
        async def later(number: int) -> tuple[str | None, str | None]:
            await anyio.sleep(0)
            return runtime.task_run.id, runtime.flow_run.id

        @flow
        def submits() -> list[Any]:
            return [(f.task_run_id, f.result()) for f in [look.submit(1), later.submit(2)]]

        (first, (of_task, of_flow)), (second, ids) = submits()

        run = the_flow_run(orch)
        assert (of_task["id"], of_flow["id"]) == (str(first), str(run.id))
        assert ids == (str(second), str(run.id))

    def test_attempts_are_counted(self, orch: Orchestrator) -> None:
        counts: list[tuple[int, int]] = []

        @task(retries=2)
        def flaky() -> None:
            counts.append((runtime.flow_run.run_count, runtime.task_run.run_count))
            if runtime.task_run.run_count < 3 or runtime.flow_run.run_count == 1:
                raise ZeroDivisionError

        @flow(retries=1)
        def retried() -> None:
            flaky()

        retried()

        assert counts == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)]

    def test_a_subflow_knows_who_called_it(self, orch: Orchestrator) -> None:
        @flow
        def grandchild() -> list[Any]:
            return [runtime.flow_run.parent_flow_run_id, runtime.flow_run.root_flow_run_id]

        @flow
        def child() -> list[Any]:
            return grandchild()

        @flow
        def top() -> list[Any]:
            return child()

        found = top()

        ids = {run.flow_name: str(run.id) for run in flow_runs(orch)}
        assert found == [ids["child"], ids["top"]]

    def test_a_subflow_that_is_resumed_by_itself_does_too(self, url: str) -> None:
        fails = threading.Event()
        fails.set()
        found: list[Any] = []

        @flow
        def child() -> None:
            if fails.is_set():
                raise ZeroDivisionError
            found.append(runtime.flow_run.parent_flow_run_id)
            found.append(runtime.flow_run.root_flow_run_id)

        @flow
        def parent() -> None:
            child()

        with opened(url) as orchestrator:
            with pytest.raises(ZeroDivisionError):
                parent()
            fails.clear()
            child.resume(the_flow_run(orchestrator, flow_name="child").id)

            assert found == [str(the_flow_run(orchestrator, flow_name="parent").id)] * 2

    def test_outside_of_runs_everything_is_empty(self) -> None:
        found = of_flow_run()
        now = found.pop("scheduled_start_time")

        empty = {"tags": [], "parameters": {}, "run_count": 0}
        assert abs((datetime.now(UTC) - now).total_seconds()) < 60
        assert found == {name: empty.get(name) for name in found}
        assert of_task_run() == {name: empty.get(name) for name in TASK_RUN}

    def test_a_run_without_a_deployment_has_none(self, orch: Orchestrator) -> None:
        def of_deployment() -> dict[str, Any]:
            return {name: getattr(runtime.deployment, name) for name in DEPLOYMENT}

        @flow
        def report(day: str) -> dict[str, Any]:
            return of_deployment()

        assert report("monday") == {
            "id": None,
            "name": None,
            "version": None,
            "flow_run_id": str(the_flow_run(orch).id),
            "parameters": {"day": "monday"},
        }
        assert of_deployment() == {**dict.fromkeys(DEPLOYMENT), "parameters": {}}

    def test_each_module_lists_its_attributes(self) -> None:
        assert sorted(FLOW_RUN) == dir(runtime.flow_run)
        assert sorted(TASK_RUN) == dir(runtime.task_run)
        assert sorted(DEPLOYMENT) == dir(runtime.deployment)

    def test_what_is_no_attribute_is_none(self) -> None:
        with pytest.raises(AttributeError, match="flow_run has no attribute 'nope'"):
            _ = runtime.flow_run.nope

    def test_it_is_an_attribute_of_the_package(self) -> None:
        assert embedded_orch.runtime is runtime


class TestOverriding:
    @pytest.mark.parametrize("prefix", ["EMBEDDED_ORCH", "PREFECT"])
    @pytest.mark.parametrize(
        ("module", "name", "text", "value"),
        [
            ("flow_run", "name", "nightly", "nightly"),
            ("flow_run", "id", "an id", "an id"),
            ("flow_run", "run_count", "7", 7),
            ("flow_run", "tags", '["a", "b"]', ["a", "b"]),
            ("flow_run", "parameters", '{"day": 1}', {"day": 1}),
            (
                "flow_run",
                "scheduled_start_time",
                "2026-01-01T12:00:00",
                datetime(2026, 1, 1, 12, tzinfo=UTC),
            ),
            ("task_run", "task_name", "load", "load"),
            ("task_run", "run_count", "2", 2),
            ("deployment", "name", "nightly", "nightly"),
            ("deployment", "owner", "made up", "made up"),
        ],
    )
    def test_the_environment_takes_the_place_of_an_attribute(
        self,
        monkeypatch: pytest.MonkeyPatch,
        prefix: str,
        module: str,
        name: str,
        text: str,
        value: object,
    ) -> None:
        monkeypatch.setenv(f"{prefix}__RUNTIME__{module.upper()}__{name.upper()}", text)

        assert getattr(getattr(runtime, module), name) == value

    def test_inside_of_runs_too(self, monkeypatch: pytest.MonkeyPatch, orch: Orchestrator) -> None:
        monkeypatch.setenv("EMBEDDED_ORCH__RUNTIME__FLOW_RUN__NAME", "ours")
        monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__NAME", "theirs")

        @flow
        def report() -> str | None:
            return runtime.flow_run.name

        assert report() == "ours"

    def test_what_it_cannot_be_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EMBEDDED_ORCH__RUNTIME__FLOW_RUN__RUN_COUNT", "many")

        with pytest.raises(errors.ConfigurationError, match="RUN_COUNT='many'"):
            _ = runtime.flow_run.run_count


class TestContext:
    def test_a_flow_reads_its_context(self, url: str) -> None:
        seen: dict[str, Any] = {}

        @flow
        def report(day: str) -> None:
            context = get_run_context()
            assert isinstance(context, FlowRunContext)
            run = context.flow_run
            seen.update(id=run.id, name=run.name, state=run.state_name, flow=context.flow)
            seen.update(parameters=context.parameters, of_run=run.parameters, flow_id=run.flow_id)
            seen.update(start=context.start_time)

        clock = Clock()
        with opened(url, clock) as orchestrator:
            report("monday")
            run = the_flow_run(orchestrator)

        assert seen.pop("start") > run.start_time
        assert seen == {
            "id": run.id,
            "name": run.name,
            "state": "Running",
            "flow": report,
            "parameters": {"day": "monday"},
            "of_run": {"day": "monday"},
            "flow_id": run.flow_id,
        }

    def test_a_task_reads_its_context_and_that_of_its_flow(self, url: str) -> None:
        seen: dict[str, Any] = {}

        @task
        def load(path: str) -> None:
            context = get_run_context()
            assert isinstance(context, TaskRunContext)
            run = context.task_run
            seen.update(id=run.id, key=run.task_key, state=run.state_name, task=context.task)
            seen.update(parameters=context.parameters, flow_run_id=run.flow_run_id)
            above = FlowRunContext.get()
            seen.update(above=above is not None and above.flow_run.id)

        @flow
        def report() -> None:
            load("a")

        with opened(url) as orchestrator:
            report()
            run = the_run_of(orchestrator, load)

        assert seen == {
            "id": run.id,
            "key": load.task_key,
            "state": "Running",
            "task": load,
            "parameters": {"path": "a"},
            "flow_run_id": run.flow_run_id,
            "above": run.flow_run_id,
        }

    def test_a_subflow_is_in_no_task_run(self, orch: Orchestrator) -> None:
        @flow
        def child() -> bool:
            return TaskRunContext.get() is None

        @flow
        def parent() -> bool:
            return child()

        assert parent()

    def test_outside_of_runs_there_is_none(self) -> None:
        assert FlowRunContext.get() is None
        assert TaskRunContext.get() is None
        with pytest.raises(MissingContextError, match="call it inside one"):
            get_run_context()

    def test_a_run_that_is_over_is_none(self, orch: Orchestrator) -> None:
        is_over, found = threading.Event(), []

        def left_behind() -> None:
            is_over.wait(30)
            found.append(FlowRunContext.get())

        threads: list[threading.Thread] = []

        @flow
        def leaves_a_thread() -> None:
            context = contextvars.copy_context()
            threads.append(threading.Thread(target=context.run, args=(left_behind,)))
            threads[0].start()

        leaves_a_thread()
        is_over.set()
        threads[0].join()

        assert found == [None]

    def test_what_a_run_does_not_have_is_no_attribute(self, orch: Orchestrator) -> None:
        @flow
        def report() -> None:
            context = FlowRunContext.get()
            assert context is not None
            with pytest.raises(AttributeError, match="nope"):
                _ = context.flow_run.nope

        report()
