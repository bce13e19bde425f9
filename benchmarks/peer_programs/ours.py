"""embedded_orch: tasks one after the other; runs put into a queue; runs claimed from it."""

from __future__ import annotations

import logging
import sys

from timing import told

import embedded_orch
from benchmarks.rows_claim import Backlog, Pool
from embedded_orch import flow, task
from embedded_orch.db.opening import OpenDatabases
from embedded_orch.process import Process

logging.getLogger().addHandler(logging.NullHandler())
job, count, where = sys.argv[1], int(sys.argv[2]), sys.argv[3]


@task
def step(number: int) -> int:
    return number + 1


@flow
def steps(first: int, settings: str | None) -> None:
    if settings is None:
        step(first)
        return
    with told(settings):
        for number in range(first, first + count):
            step(number)


def queue() -> None:
    databases = OpenDatabases(Process())
    shared = databases.open(where, {})
    pool = Pool(shared.database, Process(), Backlog(1))
    pool.claim()
    if job == "enqueue":
        with told("synchronous_commit=on"):
            for _ in range(count // 1_000):
                pool.schedule(1_000)
    else:
        pool.schedule(count)
        with told("synchronous_commit=on"):
            claimed = sum(pool.claim() for _ in range(count // 100))
        assert claimed == count
    databases.close(shared)


if job.startswith("steps"):
    durability = job.partition(":")[2]
    named = {"durability": durability} if durability else {}
    with embedded_orch.open(where, retention=False, **named):
        steps(-1, None)
        steps(0, durability or "synchronous_commit=on")
else:
    queue()
