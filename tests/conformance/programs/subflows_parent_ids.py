"""A child knows its parent."""

from embedded_orch import flow, runtime


@flow
def child():
    return runtime.flow_run.parent_flow_run_id, runtime.flow_run.root_flow_run_id


@flow
def parent():
    found, root = child()
    assert str(found) == str(root) == str(runtime.flow_run.id)


parent()
