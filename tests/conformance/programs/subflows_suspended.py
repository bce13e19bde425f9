"""A suspended run lets go of its process, and is continued later without doing anything again."""

from embedded_orch import flow, get_client, resume_flow_run, suspend_flow_run, task
from embedded_orch.exceptions import Pause

done = []


@task
def step(name):
    done.append(name)


@flow
def job():
    step("before")
    suspend_flow_run(timeout=600)
    step("after")
    return "finished"


try:
    job()
except Pause:
    done.append("suspended")
with get_client(sync_client=True) as client:
    run = client.read_flow_runs(limit=1)[0]
assert run.state.is_paused()
resume_flow_run(run.id)
assert job.resume(run.id) == "finished"
assert done == ["before", "suspended", "after"]
