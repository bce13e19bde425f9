"""A future can be awaited."""

import asyncio

from embedded_orch import flow, task


@task
async def fetch(number):
    return number


@flow
async def run():
    return await fetch.submit(3) + fetch.submit(4).result()


assert asyncio.run(run()) == 7
