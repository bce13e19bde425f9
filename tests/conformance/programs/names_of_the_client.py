"""What programs import of the client: objects, filters and orders."""

from embedded_orch import flow
from embedded_orch.client.orchestration import PrefectClient, SyncPrefectClient, get_client
from embedded_orch.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    LogFilter,
    LogFilterLevel,
    TaskRunFilter,
)
from embedded_orch.client.schemas.objects import FlowRun, State, StateType, TaskRun
from embedded_orch.client.schemas.sorting import FlowRunSort, LogSort, TaskRunSort


@flow
def work():
    return 1


assert work() == 1
assert StateType.COMPLETED.value == "COMPLETED"
assert {each.name for each in (FlowRunSort.NAME_ASC, LogSort.TIMESTAMP_ASC)} == {
    "NAME_ASC",
    "TIMESTAMP_ASC",
}
assert FlowFilter(name=FlowFilterName(any_=["work"])).name.any_ == ["work"]
assert LogFilter(level=LogFilterLevel(ge_=30)).level.ge_ == 30
assert all(isinstance(each, type) for each in (PrefectClient, TaskRunFilter, State, TaskRun))

client = get_client(sync_client=True)
assert isinstance(client, SyncPrefectClient)
with client:
    [run] = client.read_flow_runs(flow_filter=FlowFilter(name={"any_": ["work"]}))
    assert isinstance(run, FlowRun)
    assert run.state.is_completed()
assert TaskRunSort.END_TIME_DESC.name == "END_TIME_DESC"
