"""A sync flow submits async tasks and takes their results."""

import asyncio

from embedded_orch import flow, task


@task
async def fetch(number):
    await asyncio.sleep(0.001)
    return number


@flow
def collect():
    return [future.result() for future in [fetch.submit(number) for number in range(5)]]


assert collect() == [0, 1, 2, 3, 4]
