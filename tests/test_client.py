"""``get_client()``: Prefect's client on the database of this process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import anyio
import pytest

from embedded_orch import Orchestrator, errors, flow, get_client, task
from embedded_orch.client.orchestration import SyncPrefectClient
from embedded_orch.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterName,
    FlowRunFilterStartTime,
    FlowRunFilterState,
    FlowRunFilterStateName,
    FlowRunFilterStateType,
    FlowRunFilterTags,
    TaskRunFilter,
    TaskRunFilterFlowRunId,
    TaskRunFilterName,
)
from embedded_orch.client.schemas.sorting import FlowRunSort
from embedded_orch.exceptions import ObjectNotFound
from embedded_orch.states import Cancelled, Completed, Scheduled, StateType
from embedded_orch.testing.utilities import prefect_test_harness
from tests.opened import opened, states


@pytest.fixture
def orch(url: str) -> Iterator[Orchestrator]:
    with opened(url) as orchestrator:
        yield orchestrator


@pytest.fixture
def client(orch: Orchestrator) -> SyncPrefectClient:
    return get_client(sync_client=True)


@task(tags=["io"])
def load(number: int) -> int:
    return 10 // number


@flow(tags=["nightly"])
def report(number: int = 2) -> int:
    return load(number)


@flow
def other() -> None: ...


def test_runs_are_read_by_filters_of_prefects_form(client: SyncPrefectClient) -> None:
    report(1)
    with pytest.raises(ZeroDivisionError):
        report(0)
    other()

    def named(whole: FlowRunFilter) -> list[str]:
        found = client.read_flow_runs(flow_run_filter=whole, sort=FlowRunSort.START_TIME_ASC)
        return [f"{run.flow_name} {run.state.name}" for run in found if run.state]

    by_type = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.FAILED]))
    by_name = FlowRunFilterState(name=FlowRunFilterStateName(not_any_=["Failed"]))
    assert named(FlowRunFilter(state=by_type)) == ["report Failed"]
    assert named(FlowRunFilter(state=by_name)) == ["report Completed", "other Completed"]
    assert named(FlowRunFilter(tags=FlowRunFilterTags(all_=["nightly"]))) == [
        "report Completed",
        "report Failed",
    ]
    assert named(FlowRunFilter(tags=FlowRunFilterTags(is_null_=True))) == ["other Completed"]
    assert named(FlowRunFilter(start_time=FlowRunFilterStartTime(is_null_=True))) == []
    flows = FlowFilter(name=FlowFilterName(any_=["other"]))
    assert client.count_flow_runs(flow_filter=flows) == 1
    assert client.count_flow_runs(flow_filter=flows, flow_run_filter=FlowRunFilter()) == 1


def test_parts_of_a_filter_may_be_dicts(client: SyncPrefectClient) -> None:
    report()
    loose: Any = FlowRunFilter
    whole = loose(state={"type": {"any_": ["COMPLETED"]}}, name={"like_": "-"})

    assert len(client.read_flow_runs(flow_run_filter=whole)) == 1
    with pytest.raises(errors.UnknownFilter, match="any_of"):
        loose(name={"any_of": ["x"]})


def test_filters_that_are_joined_by_or_are_refused(client: SyncPrefectClient) -> None:
    loose: Any = FlowRunFilter

    with pytest.raises(errors.OptionNotSupported, match="AND"):
        client.read_flow_runs(flow_run_filter=loose(operator="or_"))


def test_no_more_than_a_page_is_read_from_where_it_is_asked_for(client: SyncPrefectClient) -> None:
    for _ in range(4):
        other()

    everything = client.read_flow_runs()
    page = client.read_flow_runs(limit=2, offset=1)

    assert len(everything) == 4
    assert [run.id for run in page] == [run.id for run in everything[1:3]]


def test_task_runs_are_read_by_their_flow_runs(client: SyncPrefectClient) -> None:
    report()
    report()
    newest = client.read_flow_runs(limit=1)[0]

    of_run = TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[newest.id]))
    assert [run.flow_run_id for run in client.read_task_runs(task_run_filter=of_run)] == [newest.id]
    by_id = FlowRunFilter(id=FlowRunFilterId(any_=[newest.id]))
    assert len(client.read_task_runs(flow_run_filter=by_id, task_run_filter=of_run)) == 1
    nothing = TaskRunFilter(name=TaskRunFilterName(like_="store"))
    assert client.read_task_runs(flow_run_filter=by_id, task_run_filter=nothing) == []


def test_run_that_is_created_waits_to_be_resumed(client: SyncPrefectClient) -> None:
    made = client.create_flow_run(report, name="by-hand", parameters={"number": 5}, tags=["x"])

    assert (made.name, made.parameters, set(made.tags)) == (
        "by-hand",
        {"number": 5},
        {"nightly", "x"},
    )
    assert made.state is not None
    assert made.state.is_pending()
    assert report.resume(made.id) == 2
    assert [state.name for state in client.read_flow_run_states(made.id)] == [
        "Pending",
        "Running",
        "Completed",
    ]


def test_states_are_set_and_the_answer_tells_what_became_of_them(client: SyncPrefectClient) -> None:
    made = client.create_flow_run(report, state=Scheduled())

    answer = client.set_flow_run_state(made.id, Cancelled(message="not today"))

    assert answer.status == "ACCEPT"
    assert answer.state is not None
    assert (answer.state.name, answer.state.message) == ("Cancelled", "not today")
    assert states(client.read_flow_run(made.id)) == ["Scheduled", "Cancelled"]


def test_task_run_of_one_call_is_created_once(client: SyncPrefectClient) -> None:
    run = client.create_flow_run(report)

    first = client.create_task_run(load, run.id, "0", name="by-hand", extra_tags=["x"])
    second = client.create_task_run(load, run.id, "0")
    client.set_task_run_state(first.id, Completed(), force=True)

    assert second.id == first.id
    assert set(first.tags) == {"io", "x"}
    found = [state.name for state in client.read_task_run_states(first.id)]
    assert found == ["Pending", "Completed"]


def test_flows_are_found_by_id_and_by_name(client: SyncPrefectClient) -> None:
    id = client.create_flow(report)

    assert client.create_flow_from_name("report") == id
    assert client.read_flow(id).name == client.read_flow_by_name("report").name == "report"
    assert [each.id for each in client.read_flows(flow_filter=FlowFilter())] == [id]


@pytest.mark.parametrize("what", ["read_flow", "read_flow_run", "read_task_run"])
def test_what_is_not_there_is_not_found(client: SyncPrefectClient, what: str) -> None:
    with pytest.raises(ObjectNotFound):
        getattr(client, what)(UUID(int=5))


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_asynchronous_client_does_the_same(orch: Orchestrator, loop: str) -> None:
    report()

    async def read() -> tuple[int, str | None]:
        async with get_client() as client:
            assert await client.api_healthcheck() is None
            named = FlowRunFilter(name=FlowRunFilterName(like_="-"))
            (run,) = await client.read_flow_runs(flow_run_filter=named)
            again = await client.read_flow_run(run.id)
            return await client.count_flow_runs(), again.state.name if again.state else None

    assert anyio.run(read, backend=loop) == (1, "Completed")


def test_every_operation_of_one_client_is_one_of_the_other() -> None:
    from embedded_orch.client.orchestration import PrefectClient

    def operations(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert operations(PrefectClient) == operations(SyncPrefectClient)


def test_closed_database_is_what_ails_it() -> None:
    with opened(":memory:"):
        client = get_client(sync_client=True)

    assert isinstance(client.api_healthcheck(), errors.DatabaseClosed)


def test_test_harness_is_a_database_of_its_own() -> None:
    with prefect_test_harness() as first:
        report()
        assert first.flow_runs.count() == 1
    with prefect_test_harness() as second:
        assert second.flow_runs.count() == 0
