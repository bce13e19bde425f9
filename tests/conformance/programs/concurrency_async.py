"""The same in async code."""

import asyncio

from embedded_orch import flow
from embedded_orch.concurrency.asyncio import concurrency
from embedded_orch.orchestrator import registry

registry.current().concurrency_limits.create("api", limit=2)


@flow
async def run():
    async with concurrency("api", occupy=2):
        return "in"


assert asyncio.run(run()) == "in"
