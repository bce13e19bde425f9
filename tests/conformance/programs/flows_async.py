"""An async flow gives a coroutine; its tasks are awaited."""

import asyncio

from embedded_orch import flow, task


@task
async def fetch(number):
    await asyncio.sleep(0)
    return number * 2


@flow
async def collect():
    together = await asyncio.gather(*[fetch(number) for number in range(3)])
    return sum(together) + await fetch(10)


assert asyncio.run(collect()) == 26
