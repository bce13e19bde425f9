"""A parameter that does not fit fails the run, and the function is not called."""

from embedded_orch import flow
from embedded_orch.exceptions import ParameterTypeError

called = []


@flow
def load(limit: int):
    called.append(limit)


state = load("many", return_state=True)
assert state.is_failed() and called == []
assert "limit" in state.message
try:
    load("many")
except ParameterTypeError as error:
    assert "limit" in str(error)
