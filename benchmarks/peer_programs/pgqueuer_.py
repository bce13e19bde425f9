"""pgqueuer: jobs put into its queue, a thousand at once; jobs taken from it, a hundred at once."""

from __future__ import annotations

import asyncio
import sys
import uuid
from datetime import timedelta

import psycopg
from pgqueuer.adapters.drivers.psycopg import PsycopgDriver
from pgqueuer.queries import EntrypointExecutionParameter, Queries
from timing import told

job, count, where = sys.argv[1], int(sys.argv[2]), sys.argv[3]


async def main() -> None:
    connection = await psycopg.AsyncConnection.connect(where, autocommit=True)
    async with connection, PsycopgDriver(connection) as driver:
        queries = Queries(driver)
        await queries.install()

        async def enqueue() -> None:
            for _ in range(count // 1_000):
                await queries.enqueue(["job"] * 1_000, [b"1"] * 1_000, [0] * 1_000)

        if job == "enqueue":
            with told("synchronous_commit=on"):
                await enqueue()
            return
        await enqueue()
        taken, manager = 0, uuid.uuid4()
        with told("synchronous_commit=on"):
            for _ in range(count // 100):
                jobs = await queries.dequeue(
                    100,
                    {"job": EntrypointExecutionParameter(0)},
                    manager,
                    None,
                    timedelta(minutes=1),
                )
                taken += len(jobs)
        assert taken == count, taken


asyncio.run(main())
