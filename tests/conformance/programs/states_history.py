"""Every state that a run was in is on record."""

from embedded_orch import flow, get_client


@flow(retries=1)
def flaky():
    from embedded_orch.runtime import flow_run

    if flow_run.run_count == 1:
        raise RuntimeError("once")


flaky()
with get_client(sync_client=True) as client:
    run = client.read_flow_runs(limit=1)[0]
    names = [state.name for state in client.read_flow_run_states(run.id)]
assert names[:2] == ["Pending", "Running"] and names[-1] == "Completed"
assert run.run_count == 2
