"""A recovery that is killed before and after every statement, and what comes of it, kind by kind.

Run as a program with the URL of an empty database, and a step, to be killed at every so manieth
point only. Each attempt has a dead process of its own: a forked child that leaves runs of every
kind, slots, a claim on a queue and a lock, and kills itself. Another one recovers them, and is
killed at its Nth point. A third one, which opens the database as anybody does, has to find
all of it set right, once. It prints how many attempts there were, and what was wrong. The program
that forks has opened nothing.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from datetime import UTC, datetime
from functools import partial

import embedded_orch
from embedded_orch import flow
from embedded_orch.engine.recovering import Recovery
from embedded_orch.states import StateType
from embedded_orch.store import caching, slots
from tests.builders import select
from tests.faults.children import in_child
from tests.faults.invariants import problems
from tests.faults.kill_points import NEVER, Countdown
from tests.store.builders import a_flow_run, a_task_run

ENDS = {
    "fails": ["Pending", "Running", "Crashed"],
    "cancelling": ["Pending", "Running", "Cancelling", "Cancelled"],
    "resumable": ["Pending", "Running"],
    "paused": ["Pending", "Running", "Paused"],
    "claimed": ["Scheduled", "Pending", "Scheduled"],
}
"""The states of each kind of run, once its process was found dead."""


@flow
def nothing() -> None:
    return None


def set_up(url: str) -> None:
    with embedded_orch.open(url) as orch:
        orch.concurrency_limits.create("db", 1)
        orch.store.upsert_work_pool("pool")


def leave_a_mess(url: str) -> None:
    orch = embedded_orch.open(url)
    orch.__enter__()
    nothing()
    engine, database = orch.engine, orch.database
    process, owner_id = engine.process, engine.owner.id
    for name, state, on_crash in (
        ("fails", StateType.RUNNING, "fail"),
        ("cancelling", StateType.CANCELLING, "resume"),
        ("resumable", StateType.RUNNING, "resume"),
        ("paused", StateType.PAUSED, "fail"),
    ):
        run_id = a_flow_run(
            database, process, state, owner_id=owner_id, flow_name=name, on_crash=on_crash
        )
        if name == "fails":
            a_task_run(database, process, flow_run_id=run_id)
    a_task_run(database, process, owner_id=owner_id)
    claim = slots.Claim(id=process.new_id(), names=("db",), slots=1, owner_id=owner_id)
    database.write(lambda tx: slots.take(tx, claim, now=process.now(), waits=True))
    database.write(
        lambda tx: caching.lock(tx, key="key", holder="me", owner_id=owner_id, now=process.now())
    )
    orch.store.enqueue("claimed", pool_name="pool", times=[datetime(2026, 1, 1, tzinfo=UTC)])
    orch.store.claim("pool")
    os.kill(os.getpid(), signal.SIGKILL)


def recover_until(url: str, point: int) -> None:
    if url.startswith("postgresql"):
        import psycopg

        assert psycopg
    countdown = Countdown(NEVER)
    begin, Recovery.begin = Recovery.begin, lambda self, *, at_once: None  # type: ignore[method-assign]
    with embedded_orch.open(url) as orch:
        Recovery.begin = begin  # type: ignore[method-assign]
        countdown.kill_at = countdown.points + point
        orch.recover()


def check(url: str, attempt: int) -> list[str]:
    """What is not as it has to be, for whoever opens it."""
    with embedded_orch.open(url) as orch:
        wrong = problems(lambda sql: select(orch.database, sql))
        for name, expected in ENDS.items():
            runs = list(orch.flow_runs.find(flow_name=name))
            found = [state.name for state in runs[0].history]
            if (found, len(runs)) != (expected, attempt + 1):
                wrong.append(f"{name}: {found}, one of {len(runs)}")
        for run in orch.task_runs.find():
            if [state.name for state in run.history] != ["Pending", "Running", "Crashed"]:
                wrong.append(f"task run: {run}")
        for table in ("slot_claim", "cache_lock", "process where ended is null"):
            if orch.sql(f"select count(*) from {table}").scalar():
                wrong.append(f"left in {table}")
        if orch.recover():
            wrong.append("recovered twice")
        # What was put back is not claimed by the next attempt.
        for run in orch.flow_runs.find(flow_name="claimed", state_type="SCHEDULED"):
            orch.flow_runs.cancel(run.id)
    return wrong


def main(url: str, step: str = "1") -> None:
    assert in_child(lambda: set_up(url)) == (0, None)
    attempt, point, is_killed = 0, 1, True
    while is_killed:
        status, _ = in_child(lambda: leave_a_mess(url))
        assert os.WTERMSIG(status) == signal.SIGKILL, status
        status, _ = in_child(partial(recover_until, url, point))
        is_killed = status != 0
        assert not is_killed or os.WTERMSIG(status) == signal.SIGKILL, status
        status, wrong = in_child(partial(check, url, attempt))
        assert (status, wrong) == (0, []), f"killed at point {point}: {wrong}"
        attempt, point = attempt + 1, point + int(step)
    print(json.dumps({"attempts": attempt}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
