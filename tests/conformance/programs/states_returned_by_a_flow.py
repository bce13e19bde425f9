"""A flow that returns a state ends in it."""

from embedded_orch import flow
from embedded_orch.states import Completed, Failed


@flow
def skipped():
    return Completed(name="Skipped", message="nothing to do")


@flow
def bad():
    return Failed(message="by choice")


assert skipped(return_state=True).name == "Skipped"
state = bad(return_state=True)
assert state.is_failed() and state.message == "by choice"
