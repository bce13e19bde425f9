"""A flow calls a flow, which is a run of its own."""

from embedded_orch import flow, get_client, task


@task
def one():
    return 1


@flow
def child(number):
    return number + one()


@flow
def parent():
    return child(1) + child(2)


assert parent() == 5
with get_client(sync_client=True) as client:
    assert client.count_flow_runs() == 3
    assert sum(run.parent_task_run_id is not None for run in client.read_flow_runs()) == 2
