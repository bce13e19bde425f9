"""The floor: the raw driver writing the rows of a task run, with nothing above it.

The same file layout (the real schema, made by the package), the same PRAGMAs and the same rows: one
task run, its states PENDING, RUNNING and COMPLETED, and the update that ends it, in one commit. No
lock file, no rules, no history read. Whatever records as much as durably has to do at least this.
"""

from __future__ import annotations

import os
import time
from binascii import b2a_base64
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

import apsw

import embedded_orch
from benchmarks.measuring import Row, Stopwatch, Work

_RUN = """insert into task_run (id, flow_run_id, name, task_key, dynamic_key, state_id, state_type,
    state_name, state_timestamp, run_count, flow_run_run_count, expected_start_time, start_time,
    source_hash, created)
    values (?1, ?2, 'work-abc', 'work', ?3, ?4, 'RUNNING', 'Running', ?5, 1, 1, ?5, ?5,
    'a05ba9a0a05ba9a0', ?5)"""
_STATE = (
    "insert into task_run_state (task_run_id, timestamp, id, type, name) values (?, ?, ?, ?, ?)"
)
_LAST_STATE = """insert into task_run_state
    (task_run_id, timestamp, id, type, name, data, data_format)
    values (?, ?, ?, 'COMPLETED', 'Completed', ?, 'json')"""
_UPDATE = """update task_run set state_id = ?2, state_type = 'COMPLETED', state_name = 'Completed',
    state_timestamp = ?3, end_time = ?3, total_run_time = 1 where id = ?1"""


def _id() -> bytes:
    return time.time_ns().to_bytes(8, "big") + os.urandom(8)


def open_raw(path: str, *, synchronous: str = "normal") -> apsw.Connection:
    """A bare connection to a database that the package has made, with our PRAGMAs."""
    connection = apsw.Connection(path)
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", synchronous)
    connection.pragma("foreign_keys", 1)
    connection.pragma("cache_size", 20_000)
    connection.wal_autocheckpoint(2_000)
    return connection


def write_task(connection: apsw.Connection, flow_run_id: bytes, number: int) -> None:
    """The rows of one finished task, in one commit."""
    run, now = _id(), time.time_ns() // 1000
    running, completed = _id(), _id()
    connection.execute("begin immediate")
    connection.execute(
        _RUN,
        (
            run,
            flow_run_id,
            f"~{b2a_base64(os.urandom(12), newline=False).decode()}",
            running,
            now,
        ),
    )
    connection.execute(_STATE, (run, now, _id(), "PENDING", "Pending"))
    connection.execute(_STATE, (run, now + 1, running, "RUNNING", "Running"))
    connection.execute(_LAST_STATE, (run, now + 2, completed, b"%d" % number))
    connection.execute(_UPDATE, (run, completed, now + 2))
    connection.execute("commit")


def new_flow_run(connection: apsw.Connection) -> bytes:
    """A flow run for the tasks to belong to."""
    flow, run, now = _id(), _id(), time.time_ns() // 1000
    connection.execute(
        "insert into flow (id, name, created, updated) values (?, ?, ?, ?)",
        (flow, run.hex(), now, now),
    )
    connection.execute(
        "insert into flow_run (id, flow_id, name, created, updated) values (?, ?, 'floor', ?, ?)",
        (run, flow, now, now),
    )
    return run


@contextmanager
def raw_tasks(
    folder: Path, count: int, *, synchronous: str = "normal", threads: int = 1
) -> Generator[Work]:
    """The floor of ``count`` tasks: one after the other, or fed by threads to one connection."""
    path = str(folder / "orch.db")
    embedded_orch.open(path).close()
    connection = open_raw(path, synchronous=synchronous)
    flow_run_id = new_flow_run(connection)

    turn = Lock()

    def write(number: int) -> None:
        with turn:
            write_task(connection, flow_run_id, number)

    def in_sequence(stopwatch: Stopwatch) -> None:
        with stopwatch:
            for number in range(count):
                write_task(connection, flow_run_id, number)

    def fed_by_threads(stopwatch: Stopwatch) -> None:
        with ThreadPoolExecutor(threads) as pool, stopwatch:
            list(pool.map(write, range(count)))

    yield in_sequence if threads == 1 else fed_by_threads
    connection.close()


_YARDSTICK_TASKS = 200

YARDSTICK = Row("yardstick", _YARDSTICK_TASKS, lambda folder: raw_tasks(folder, _YARDSTICK_TASKS))
"""How fast a machine is at what most rows do: the floor of a task, on a file."""
