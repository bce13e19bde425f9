"""Task runs are read with their states."""

from embedded_orch import flow, get_client, task


@task
def one():
    return 1


@flow
def run():
    return one() + one()


run()
with get_client(sync_client=True) as client:
    found = client.read_task_runs()
    assert len(found) == 2
    names = [state.name for state in client.read_task_run_states(found[0].id)]
assert names == ["Pending", "Running", "Completed"]
