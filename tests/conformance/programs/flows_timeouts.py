"""A flow that takes too long fails as TimedOut."""

import time

from embedded_orch import flow


@flow(timeout_seconds=0.1)
def slow():
    for _ in range(1000):
        time.sleep(0.02)


state = slow(return_state=True)
assert state.is_failed() and state.name == "TimedOut"
assert "0.1" in state.message
