"""Claims by many at once, and beside long backlogs."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest

from embedded_orch.db.port import Database
from embedded_orch.db.statements import Catalog
from embedded_orch.states import StateType
from embedded_orch.store import claims
from embedded_orch.store.flow_runs import flow_run_history
from embedded_orch.store.queues import get_work_pool
from tests.builders import NOON, SECOND, Builder

# -- many at once ----------------------------------------------------------------------------------


def claim_from_threads(build: Builder, *, claims: int, limit: int) -> list[UUID]:
    """What as many claims take that 8 threads make at once."""
    with ThreadPoolExecutor(8) as threads:
        taken = list(threads.map(lambda _: [run.id for run in build.claim(limit)], range(claims)))
    return [id for each in taken for id in each]


def test_claims_from_8_threads_never_give_a_run_twice(build: Builder) -> None:
    """Seen to fail on Postgres without the locks on the pool and on the runs: two claims take the
    same run, and the key of its history refuses the second.
    """
    pool = build.pool()
    flow_id = build.flow()
    runs = build.runs(flow_id, 150, work_queue_id=pool.default_queue_id)
    runs += build.runs(flow_id, 150, work_queue_id=build.queue("hi", priority=1).id)

    taken = claim_from_threads(build, claims=40, limit=10)

    assert len(taken) == len(set(taken)) == 300
    assert set(taken) == set(runs)
    history = build.database.read(lambda tx: flow_run_history(tx, run_id=runs[0]))
    assert [state.type for state in history] == [StateType.SCHEDULED, StateType.PENDING]


@pytest.mark.parametrize("limited", ["pool", "queue"])
def test_claims_from_8_threads_never_exceed_a_limit(build: Builder, limited: str) -> None:
    """Seen to fail on Postgres without the lock on the pool's row: 11 and 21 were given for 5."""
    pool = build.pool(concurrency_limit=5 if limited == "pool" else None)
    build.queue("default", concurrency_limit=5 if limited == "queue" else None)
    build.runs(build.flow(), 80, work_queue_id=pool.default_queue_id)

    taken = claim_from_threads(build, claims=16, limit=3)

    assert len(taken) == len(set(taken)) == 5


def test_a_run_that_somebody_else_is_changing_is_passed_over(build: Builder) -> None:
    """Seen to fail without SKIP LOCKED: the claim waits for the other transaction."""
    if build.database.dialect == "sqlite":
        pytest.skip("there is one writer at a time: nobody else is changing anything")
    pool = build.pool()
    runs = build.runs(build.flow(), 3, work_queue_id=pool.default_queue_id)
    other = build.database.begin()
    other.execute("select id from flow_run where id = $1 for update", (runs[0],))

    with ThreadPoolExecutor(1) as thread:
        try:
            claimed = thread.submit(build.claim, 2).result(10)
        finally:
            other.roll_back()

    assert [run.id for run in claimed] == runs[1:]


def test_a_change_of_a_queue_and_a_claim_of_its_pool_take_turns(build: Builder) -> None:
    """Seen to fail on Postgres without the lock on the pool's row: changes deadlock."""
    pool = build.pool()
    build.queue("b")
    build.runs(build.flow(), 30, work_queue_id=pool.default_queue_id)

    with ThreadPoolExecutor(8) as threads:
        changes = [
            threads.submit(build.queue, name, priority=1) for name in ("b", "default", "c") * 4
        ]
        claimed = [threads.submit(build.claim, 5) for _ in range(8)]
    for change in changes:
        change.result(0)
    taken = [run.id for each in claimed for run in each.result(0)]

    assert len(taken) == len(set(taken)) == 30


# -- what it costs ---------------------------------------------------------------------------------


def rows_read(database: Database, *, limit: int) -> int:
    """How much of flow_run the search for candidates reads: rows on Postgres, steps on SQLite."""
    pool = database.read(lambda tx: get_work_pool(tx, name="pool"))
    assert pool is not None
    values: dict[str, Any] = {
        "work_pool_id": pool.id,
        "queue_names": None,
        "scheduled_after": claims._BEGINNING,
        "scheduled_before": NOON,
        "limit": limit,
        "claim_id": UUID(int=7),
    }
    return (
        _steps_on_sqlite(database, values)
        if database.dialect == "sqlite"
        else _rows_on_postgres(database, values)
    )


def _steps_on_sqlite(database: Any, values: dict[str, Any]) -> int:
    statement = database.catalog["claim.candidates"]
    ticks = 0

    def tick() -> bool:
        nonlocal ticks
        ticks += 1
        return False

    def count(connection: Any) -> int:
        connection.set_progress_handler(tick, 10)
        try:
            list(connection.execute(statement.sql, statement.bind(values)))
        finally:
            connection.set_progress_handler(None)
        return ticks

    return int(database.with_connection(count))


def _rows_on_postgres(database: Database, values: dict[str, Any]) -> int:
    statement = Catalog("postgres")["claim.candidates"]
    opened = database.begin()
    try:
        # As the server does by itself, a minute late. What it made of the table when that was
        # empty, between two tests, makes it read all of it.
        opened.execute("analyze flow_run", ())
        opened.execute("set local enable_seqscan = off", ())
        explained = opened.execute(
            f"explain (analyze, format json) {statement.sql}", statement.bind(values)
        ).scalar()
    finally:
        opened.roll_back()
    plan = explained if isinstance(explained, list) else json.loads(explained)
    return sum(
        int((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"])
        for node in _nodes(plan[0]["Plan"])
        if node.get("Relation Name") == "flow_run"
    )


def _nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for child in plan.get("Plans", ()) for node in _nodes(child))]


def test_a_claim_reads_no_more_of_a_long_backlog_than_of_a_short_one(build: Builder) -> None:
    """Due runs, runs of the future, and runs of a blocked queue: none of them costs anything."""
    pool = build.pool()
    blocked = build.queue("blocked", priority=1, concurrency_limit=0)
    flow_id = build.flow()

    def add(count: int) -> None:
        build.runs(flow_id, count, work_queue_id=pool.default_queue_id)
        build.runs(
            flow_id, count, work_queue_id=pool.default_queue_id, scheduled_time=NOON + SECOND
        )
        build.runs(flow_id, count, work_queue_id=blocked.id)

    add(50)
    short = rows_read(build.database, limit=20)
    add(1500)
    long = rows_read(build.database, limit=20)

    assert short >= 20
    assert long <= short * 1.2


def test_a_claim_reads_what_it_takes_and_not_all_queues(build: Builder) -> None:
    build.pool()
    flow_id = build.flow()
    for number in range(30):
        queue = build.queue(f"queue-{number}")
        build.runs(flow_id, 30, work_queue_id=queue.id)

    few, many = (rows_read(build.database, limit=limit) for limit in (20, 200))

    assert many > few * 4
    if build.database.dialect == "postgres":
        # Those it takes, and what shows that the last queue has more.
        assert many <= 200 + 30
