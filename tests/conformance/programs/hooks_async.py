"""Hooks may be async."""

import asyncio

from embedded_orch import flow

called = []


async def tell(flow, flow_run, state):
    await asyncio.sleep(0)
    called.append(state.name)


@flow(on_running=[tell], on_completion=[tell])
async def later():
    return 1


@flow(on_completion=[tell])
def now():
    return 1


asyncio.run(later())
now()
assert called == ["Running", "Completed", "Completed"]
