"""Runs are found with filters that read like the question."""

from embedded_orch import flow
from embedded_orch.orchestrator import registry


@flow(tags=["nightly"])
def work():
    return 1


work()
orch = registry.current()
(found,) = orch.flow_runs.find(flow_name="work", state_type=["COMPLETED"], tags="nightly")
assert found.state.result() == 1
assert orch.flow_runs.count(has_end_time=False) == 0
