"""Runs get the tags of the code around them."""

from embedded_orch import flow, get_client, tags, task


@task(tags=["io"])
def load():
    return 1


@flow
def run():
    with tags("inner"):
        load()


with tags("outer"):
    run()
with get_client(sync_client=True) as client:
    assert set(client.read_flow_runs()[0].tags) == {"outer"}
    assert set(client.read_task_runs()[0].tags) == {"io", "inner", "outer"}
