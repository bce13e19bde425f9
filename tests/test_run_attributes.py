"""Flow runs and task runs as people and hooks are given them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from embedded_orch import FlowRun, TaskRun, flow, task
from embedded_orch.states import StateType
from tests.opened import opened, the_flow_run, the_run_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from embedded_orch import Orchestrator, State


@pytest.fixture
def orch(url: str) -> Iterator[Orchestrator]:
    with opened(url) as orchestrator:
        yield orchestrator


@task(retries=2, retry_jitter_factor=0.5, version="3", tags=["io"])
def load() -> int:
    return 3


@flow(retries=1, retry_delay_seconds=0.5, version="7", tags=["night"])
def report(day: str) -> int:
    return load()


def test_runs_have_the_attributes_of_prefects(orch: Orchestrator) -> None:
    report("monday")

    flow_run, task_run = the_flow_run(orch), the_run_of(orch, load)

    for run in (flow_run, task_run):
        assert run.state is not None
        assert (run.state_id, run.state_type, run.state_name) == (
            run.state.id,
            StateType.COMPLETED,
            "Completed",
        )
        assert run.start_time is not None
        assert run.end_time is not None
        assert run.created <= run.start_time <= run.end_time <= run.updated
        assert run.estimated_run_time == run.total_run_time > timedelta(0)
        assert timedelta(0) <= run.estimated_start_time_delta < timedelta(minutes=1)
        assert (run.run_count, run.labels) == (1, {})
    assert (flow_run.parameters, flow_run.tags) == ({"day": "monday"}, ["night"])
    assert (flow_run.flow_version, flow_run.idempotency_key) == ("7", None)
    assert (flow_run.deployment_id, flow_run.parent_task_run_id) == (None, None)
    assert (flow_run.empirical_policy.retries, flow_run.empirical_policy.retry_delay) == (1, 0.5)
    assert (task_run.flow_run_id, task_run.tags) == (flow_run.id, ["io"])
    assert (task_run.task_version, task_run.flow_run_run_count) == ("3", 1)
    assert (task_run.empirical_policy.retries, task_run.empirical_policy.retry_jitter_factor) == (
        2,
        0.5,
    )


def test_run_that_goes_on_estimates_how_long_it_has_run(orch: Orchestrator) -> None:
    seen: list[tuple[timedelta, timedelta]] = []

    def look(_: object, run: FlowRun | TaskRun, state: State) -> None:
        seen.append((run.total_run_time, run.estimated_run_time))

    task(on_running=[look])(load.fn)()

    [(total, estimated)] = seen
    assert total == timedelta(0) <= estimated
