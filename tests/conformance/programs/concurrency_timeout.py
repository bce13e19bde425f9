"""Who waits too long for a slot gets an error."""

from embedded_orch.concurrency.sync import concurrency
from embedded_orch.orchestrator import registry

registry.current().concurrency_limits.create("one", limit=1)
with concurrency("one"):
    try:
        with concurrency("one", timeout_seconds=0.05):
            raise AssertionError("two at once")
    except TimeoutError:
        timed_out = True
assert timed_out
with concurrency("one", timeout_seconds=5):
    assert True
