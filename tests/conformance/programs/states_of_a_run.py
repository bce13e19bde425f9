"""A run goes from Pending by way of Running to Completed, and its state has the result."""

from embedded_orch import State, flow


@flow
def add(a: int, b: int) -> int:
    return a + b


state = add(1, 2, return_state=True)
assert isinstance(state, State)
assert state.is_completed() and state.name == "Completed"
assert state.result() == 3
