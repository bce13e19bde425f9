"""Async flows call async flows."""

import asyncio

from embedded_orch import flow


@flow
async def child(number):
    await asyncio.sleep(0)
    return number


@flow
async def parent():
    return await child(1) + await child(2)


assert asyncio.run(parent()) == 3
