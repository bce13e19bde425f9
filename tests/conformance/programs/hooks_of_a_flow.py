"""Hooks are called with the flow, the run and its state."""

from embedded_orch import flow

called = []


def tell(flow, flow_run, state):
    called.append((flow.name, flow_run.name == state.name, state.name))


@flow(name="good", on_completion=[tell], on_failure=[tell])
def good():
    return 1


@flow(name="bad", on_completion=[tell], on_failure=[tell])
def bad():
    raise ValueError("bad")


good()
bad(return_state=True)
assert [(name, state) for name, _, state in called] == [("good", "Completed"), ("bad", "Failed")]
