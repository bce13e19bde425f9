"""The client reads all states that a run has had."""

from embedded_orch import flow, get_client, task


@task(retries=1)
def flaky():
    attempts.append(1)
    if len(attempts) == 1:
        raise ValueError("once")
    return 5


@flow
def work():
    return flaky()


attempts = []
assert work() == 5

with get_client(sync_client=True) as client:
    [flow_run] = client.read_flow_runs()
    names = [state.name for state in client.read_flow_run_states(flow_run.id)]
    assert names == ["Pending", "Running", "Completed"]
    [task_run] = client.read_task_runs()
    assert task_run.run_count == 2
    assert task_run.flow_run_id == flow_run.id
    assert task_run.state.is_completed()
    assert client.read_flow(flow_run.flow_id).name == "work"
