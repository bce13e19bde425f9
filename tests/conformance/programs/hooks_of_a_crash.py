"""A flow that is interrupted has crashed: only hooks for that are called."""

from embedded_orch import flow

called = []


@flow(
    on_crashed=[lambda flow, run, state: called.append("crashed")],
    on_failure=[lambda flow, run, state: called.append("failed")],
    on_completion=[lambda flow, run, state: called.append("completed")],
)
def interrupted():
    raise KeyboardInterrupt


try:
    interrupted()
except KeyboardInterrupt:
    called.append("raised")

assert called == ["crashed", "raised"]
