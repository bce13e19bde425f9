"""A rate limit gives slots back as time goes by."""

from embedded_orch.concurrency.sync import rate_limit
from embedded_orch.orchestrator import registry

registry.current().concurrency_limits.create("often", limit=5, slot_decay_per_second=1000)
for _ in range(10):
    rate_limit("often")
