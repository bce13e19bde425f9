"""Runs that are recorded now and run later."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from embedded_orch import Flow, Orchestrator, State, errors, flow, tags
from embedded_orch.states import Completed, Failed, Scheduled
from tests.opened import opened, states


@pytest.fixture
def orch(url: str) -> Iterator[Orchestrator]:
    with opened(url) as orchestrator:
        yield orchestrator


@flow(tags=["etl"], version="7")
def report(day: str, rows: int = 10) -> str:
    return f"{day}: {rows}"


@flow
def other(day: str) -> str:
    return day


def test_run_is_recorded_and_nobody_runs_it(orch: Orchestrator) -> None:
    with tags("here"):
        run = orch.flow_runs.create(
            report, name="monday", parameters={"day": "mon"}, tags=["a", "etl"]
        )

    assert (run.name, run.flow_name, run.flow_version) == ("monday", "report", "7")
    assert (run.parameters, run.tags) == ({"day": "mon", "rows": 10}, ["etl", "a", "here"])
    assert (states(run), run.run_count, run.start_time) == (["Pending"], 0, None)
    assert not orch.engine.recovery.sweep()
    assert states(orch.flow_runs.get(run.id)) == ["Pending"]


def test_run_that_was_recorded_is_run_by_who_has_the_flow(orch: Orchestrator) -> None:
    run = orch.flow_runs.create(report, parameters={"day": "mon"})

    assert report.resume(run.id) == "mon: 10"

    found = orch.flow_runs.get(run.id)
    assert (states(found), found.run_count) == (["Pending", "Running", "Completed"], 1)
    assert orch.flow_runs.count() == 1


def test_run_is_found_by_its_parameters_as_one_that_was_called(orch: Orchestrator) -> None:
    run = orch.flow_runs.create(report, parameters={"day": "mon"})

    assert report.resume(parameters={"day": "mon", "rows": 10}) == "mon: 10"
    assert states(orch.flow_runs.get(run.id))[-1] == "Completed"


@pytest.mark.parametrize(
    ("state", "name"),
    [
        (Scheduled(scheduled_time=datetime(2100, 1, 1, tzinfo=UTC)), "Scheduled"),
        (Failed(message="never mind"), "Failed"),
        (Completed(data=5), "Completed"),
    ],
)
def test_run_begins_in_the_state_that_is_given(orch: Orchestrator, state: State, name: str) -> None:
    run = orch.flow_runs.create(report, parameters={"day": "mon"}, state=state)

    assert states(run) == [name]
    assert run.state is not None
    assert run.state.id != state.id
    if name == "Scheduled":
        with pytest.raises(errors.RunNotResumable, match="scheduled for later"):
            report.resume(run.id)
    elif name == "Completed":
        assert report.resume(run.id) == 5  # type: ignore[comparison-overlap]
    else:
        assert report.resume(run.id) == "mon: 10"


def test_flow_has_one_run_with_a_key(orch: Orchestrator) -> None:
    first = orch.flow_runs.create(report, parameters={"day": "mon"}, idempotency_key="k")
    report.resume(first.id)

    again = orch.flow_runs.create(report, parameters={"day": "tue"}, idempotency_key="k")
    elsewhere = orch.flow_runs.create(other, parameters={"day": "mon"}, idempotency_key="k")
    unkeyed = orch.flow_runs.create(report, parameters={"day": "mon"})

    assert (again.id, again.parameters["day"]) == (first.id, "mon")
    assert states(again) == ["Pending", "Running", "Completed"]
    assert len({first.id, elsewhere.id, unkeyed.id}) == 3
    assert orch.flow_runs.count(idempotency_key="k") == 2


def test_threads_that_create_with_one_key_get_one_run(orch: Orchestrator) -> None:
    barrier = threading.Barrier(6)

    def create(number: int) -> object:
        barrier.wait(30)
        parameters = {"day": str(number)}
        return orch.flow_runs.create(report, parameters=parameters, idempotency_key="k").id

    with ThreadPoolExecutor(6) as pool:
        ids = set(pool.map(create, range(6)))

    assert len(ids) == orch.flow_runs.count() == 1
    assert states(orch.flow_runs.get(ids.pop())) == ["Pending"]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({}, errors.ParameterBindError),
        ({"parameters": {"day": "mon", "rowz": 1}}, errors.ParameterBindError),
        ({"parameters": {"day": "mon", "rows": "many"}}, errors.ParameterTypeError),
        ({"parameters": {"day": "mon"}, "tags": "etl"}, errors.ConfigurationError),
        ({"parameters": {"day": "mon"}, "state": "Pending"}, errors.ConfigurationError),
    ],
)
def test_run_that_cannot_be_is_not_recorded(
    orch: Orchestrator, arguments: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        orch.flow_runs.create(report, **arguments)

    assert orch.flow_runs.count() == 0


def test_parameter_that_cannot_be_stored_is_asked_for_when_the_run_runs(
    orch: Orchestrator,
) -> None:
    @flow
    def locked(lock: Any) -> bool:
        return bool(lock.acquire(blocking=False))

    def create(called: Flow[..., Any]) -> Any:
        return orch.flow_runs.create(called, parameters={"lock": threading.Lock()}).id

    run_id = create(locked)

    with pytest.raises(errors.ParametersNeeded):
        locked.resume(run_id)
    assert locked.resume(run_id, parameters={"lock": threading.Lock()})
