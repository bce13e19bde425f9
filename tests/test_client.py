"""``get_client()``: Prefect's client on the database of this process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import anyio
import pytest

from embedded_orch import Orchestrator, errors, flow, get_client, get_run_logger, task
from embedded_orch.artifacts import create_markdown_artifact
from embedded_orch.client.orchestration import SyncPrefectClient
from embedded_orch.client.schemas.filters import (
    ArtifactCollectionFilter,
    ArtifactCollectionFilterKey,
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
    ArtifactFilterType,
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
    LogFilter,
    LogFilterFlowRunId,
    LogFilterLevel,
    LogFilterTaskRunId,
    LogFilterTextSearch,
    LogFilterTimestamp,
    TaskRunFilter,
    TaskRunFilterFlowRunId,
    TaskRunFilterName,
)
from embedded_orch.client.schemas.sorting import FlowRunSort, LogSort
from embedded_orch.exceptions import ObjectNotFound
from embedded_orch.states import Cancelled, Completed, Scheduled, StateType
from embedded_orch.testing.utilities import prefect_test_harness
from embedded_orch.variables import Variable
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
        return {name for name in dir(kind) if not name.startswith("_")}

    assert operations(PrefectClient) == operations(SyncPrefectClient)
    assert "read_logs" in operations(PrefectClient)


@flow
def talkative() -> None:
    get_run_logger().warning("disk is full")
    get_run_logger().info("going on")
    create_markdown_artifact("# first", key="notes")
    create_markdown_artifact("# second", key="notes")


def test_logs_are_read_by_filters_of_prefects_form(client: SyncPrefectClient) -> None:
    talkative()
    report()
    [run] = client.read_flow_runs(flow_filter=FlowFilter(name={"any_": ["talkative"]}))

    warnings = LogFilter(
        flow_run_id=LogFilterFlowRunId(any_=[run.id]),
        level=LogFilterLevel(ge_=30),
        timestamp=LogFilterTimestamp(after_=run.created),
    )
    of_tasks = LogFilter(task_run_id=LogFilterTaskRunId(is_null_=False))
    found = LogFilter(text=LogFilterTextSearch(query="disk -going"))

    assert [line.message for line in client.read_logs(warnings)] == ["disk is full"]
    assert [line.message for line in client.read_logs(found)] == ["disk is full"]
    assert client.read_logs(of_tasks) == []
    newest = client.read_logs(LogFilter(), 1, sort=LogSort.TIMESTAMP_DESC)
    assert [line.id for line in newest] == [client.read_logs()[-1].id]
    assert len(client.read_logs(offset=2)) == len(client.read_logs()) - 2


def test_artifacts_are_read_by_filters_of_prefects_form(client: SyncPrefectClient) -> None:
    talkative()
    [run] = client.read_flow_runs()
    of_run = ArtifactFilter(
        key=ArtifactFilterKey(like_="ote"),
        flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]),
        type=ArtifactFilterType(any_=["markdown"]),
    )

    found = client.read_artifacts(artifact_filter=of_run)
    latest = client.read_latest_artifacts(
        artifact_filter=ArtifactCollectionFilter(key=ArtifactCollectionFilterKey(any_=["notes"]))
    )

    assert [each.data for each in found] == ["# second", "# first"]
    assert [each.data for each in latest] == ["# second"]
    assert client.read_artifacts(artifact_filter=ArtifactFilter(key={"exists_": False})) == []
    client.delete_artifact(latest[0].id)
    assert [each.data for each in client.read_latest_artifacts()] == ["# first"]
    with pytest.raises(ObjectNotFound):
        client.delete_artifact(latest[0].id)


def test_variables_are_read_and_removed(client: SyncPrefectClient) -> None:
    Variable.set("limit", 3, tags=["etl"])
    Variable.set("depth", 1)

    assert [each.name for each in client.read_variables()] == ["depth", "limit"]
    found = client.read_variable_by_name("limit")
    assert found is not None
    assert (found.value, found.tags) == (3, ["etl"])
    client.delete_variable_by_name("limit")
    assert client.read_variable_by_name("limit") is None
    with pytest.raises(ObjectNotFound):
        client.delete_variable_by_name("limit")


def test_inputs_of_runs_are_written_read_and_removed(client: SyncPrefectClient) -> None:
    report()
    [run] = client.read_flow_runs()

    client.create_flow_run_input(run.id, "note-1", {"n": 1}, sender="me")
    client.create_flow_run_input(run.id, "note-2", "two")

    assert client.read_flow_run_input(run.id, "note-1") == {"n": 1}
    [row] = client.filter_flow_run_input(run.id, "note", 5, {"note-1"})
    assert (row.key, row.decoded_value, row.flow_run_id) == ("note-2", "two", run.id)
    client.delete_flow_run_input(run.id, "note-1")
    for missing in (client.read_flow_run_input, client.delete_flow_run_input):
        with pytest.raises(ObjectNotFound, match="note-1"):
            missing(run.id, "note-1")
    with pytest.raises(errors.NotPausedError):
        client.resume_flow_run(run.id)


def test_run_has_what_it_logged(orch: Orchestrator) -> None:
    @task
    def part() -> None:
        get_run_logger().error("in the task")

    @flow
    def child() -> None:
        get_run_logger().error("in the child")

    @flow
    def parent() -> None:
        get_run_logger().info("in the parent")
        part()
        child()

    parent()
    run = next(orch.flow_runs.find(flow_name="parent"))
    task_run = next(orch.task_runs.find(name_like="part"))

    own = [line.message for line in run.logs() if line.message.startswith("in the")]
    assert own == ["in the parent", "in the task"]
    assert [line.message for line in run.logs(min_level="ERROR")] == ["in the task"]
    assert [line.message for line in task_run.logs()] == ["in the task"]
    assert len(list(run.logs(limit=1))) == 1


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
