"""A flow that a flow called knows who called it, and who is at the top."""

from embedded_orch import flow, task
from embedded_orch.runtime import flow_run, task_run


@task
def inside():
    return flow_run.id, task_run.task_name


@flow
def child():
    return flow_run.parent_flow_run_id, flow_run.root_flow_run_id, inside(), flow_run.id


@flow
def parent():
    return flow_run.id, flow_run.parent_flow_run_id, child()


me, above, (caller, root, (seen, name), own) = parent()
assert above is None
assert caller == root == me
assert (seen, name) == (own, "inside")
assert flow_run.id is None
