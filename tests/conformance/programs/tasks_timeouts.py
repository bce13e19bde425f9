"""A task that takes too long fails as TimedOut."""

import time

from embedded_orch import flow, task


@task(timeout_seconds=0.1)
def slow():
    for _ in range(1000):
        time.sleep(0.02)


@flow
def run():
    state = slow(return_state=True)
    assert state.name == "TimedOut" and state.is_failed()
    return "went on"


assert run() == "went on"
