"""The state of a failed run raises its exception, or gives it."""

from embedded_orch import flow


@flow
def fail():
    raise ValueError("no good")


state = fail(return_state=True)
assert state.is_failed()
assert "ValueError: no good" in state.message
try:
    state.result()
except ValueError as error:
    assert str(error) == "no good"
else:
    raise AssertionError("the exception was swallowed")
assert isinstance(state.result(raise_on_failure=False), ValueError)
