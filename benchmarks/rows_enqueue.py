"""What it costs to put runs into a queue: one at a time, each committed, and a thousand at once."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import apsw

import embedded_orch
from benchmarks.floor import open_raw
from benchmarks.measuring import Row, Stopwatch, Work
from benchmarks.rows_claim import Backlog, Pool
from embedded_orch.db.opening import OpenDatabases
from embedded_orch.process import Process

_RUNS = 1_000
_RUN = """insert into flow_run (id, flow_id, name, state_id, state_type, state_name,
    state_timestamp, expected_start_time, next_scheduled_start_time, work_queue_id, created,
    updated) values (?1, ?2, 'brave-otter', ?3, 'SCHEDULED', 'Scheduled', ?4, ?4, ?4, ?5, ?4, ?4)"""
_STATE = """insert into flow_run_state (flow_run_id, timestamp, id, type, name, state_details)
    values (?, ?, ?, 'SCHEDULED', 'Scheduled', ?)"""


@contextmanager
def _ours(folder: Path, *, at_once: int) -> Generator[Work]:
    process = Process()
    with ExitStack() as stack:
        databases = OpenDatabases(process)
        shared = databases.open(str(folder / "orch.db"), {})
        stack.callback(databases.close, shared)
        pool = Pool(shared.database, process, Backlog(1))

        def work(stopwatch: Stopwatch) -> None:
            with stopwatch:
                for _ in range(_RUNS // at_once):
                    pool.schedule(at_once)

        yield work


@contextmanager
def _raw(folder: Path, *, at_once: int) -> Generator[Work]:
    path = str(folder / "orch.db")
    embedded_orch.open(path).close()
    connection = open_raw(path)
    flow_id, queue_id = _queue(connection)

    def work(stopwatch: Stopwatch) -> None:
        with stopwatch:
            for _ in range(_RUNS // at_once):
                now = time.time_ns() // 1000
                details = json.dumps({"scheduled_time": now})
                ids = [(_id(), _id()) for _ in range(at_once)]
                connection.execute("begin immediate")
                connection.executemany(
                    _RUN, [(run, flow_id, state, now, queue_id) for run, state in ids]
                )
                connection.executemany(_STATE, [(run, now, state, details) for run, state in ids])
                connection.execute("commit")

    yield work
    connection.close()


def _id() -> bytes:
    return time.time_ns().to_bytes(8, "big") + os.urandom(8)


def _queue(connection: apsw.Connection) -> tuple[bytes, bytes]:
    flow, pool, queue, now = _id(), _id(), _id(), time.time_ns() // 1000
    connection.execute(
        "insert into flow (id, name, created, updated) values (?, 'report', ?, ?)", (flow, now, now)
    )
    connection.execute(
        "insert into work_pool (id, name, created, updated) values (?, 'pool', ?, ?)",
        (pool, now, now),
    )
    connection.execute(
        "insert into work_queue (id, work_pool_id, name, priority, created, updated)"
        " values (?, ?, 'queue', 1, ?, ?)",
        (queue, pool, now, now),
    )
    return flow, queue


ROWS = [
    Row(
        "run put into a queue, one by one, store, file",
        _RUNS,
        partial(_ours, at_once=1),
        partial(_raw, at_once=1),
        "200 us",
    ),
    Row(
        "run put into a queue, 1,000 at once, store, file",
        _RUNS,
        partial(_ours, at_once=_RUNS),
        partial(_raw, at_once=_RUNS),
        "33 us",
    ),
]
