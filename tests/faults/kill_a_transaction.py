"""A task whose own SQL commits with it, killed at every statement, then resumed.

Run as a program with the URL of an empty database, "plain" or "async", and a step, to be killed at
every so manieth statement only. Each attempt is a run of
its own: a forked child calls the flow and kills itself with SIGKILL before its Nth statement, and
another one resumes it. Whatever N, each of the two rows of an attempt has to be there once. It
prints how many attempts there were, and what was wrong. The program that forks has opened nothing.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from typing import Any

import anyio

import embedded_orch
from embedded_orch import flow, task
from embedded_orch.context import get_run_context


@task
def load(attempt: int) -> int:
    connection: Any = get_run_context().transaction.connection
    connection.execute("insert into loaded values (:attempt, 1)", {"attempt": attempt})
    connection.execute("insert into loaded values (:attempt, 2)", {"attempt": attempt})
    return attempt


@task
async def load_later(attempt: int) -> int:
    connection: Any = get_run_context().transaction.connection
    await connection.execute("insert into loaded values (:attempt, 1)", {"attempt": attempt})
    await connection.execute("insert into loaded values (:attempt, 2)", {"attempt": attempt})
    return attempt


@flow
def plain(attempt: int) -> int:
    return load(attempt)


@flow
async def later(attempt: int) -> int:
    return await load_later(attempt)


def call(kind: str, attempt: int) -> None:
    if kind == "plain":
        plain.resume(parameters={"attempt": attempt})
    else:
        anyio.run(lambda: later.resume(parameters={"attempt": attempt}))


class Countdown:
    """Kills this process before its Nth statement from now on."""

    def __init__(self, orch: embedded_orch.Orchestrator, statements: int) -> None:
        self.left = statements
        database: Any = orch.database
        if database.dialect == "postgres":
            import psycopg

            for kind in (psycopg.Connection, psycopg.Cursor):
                kind.execute = self.before(kind.execute)  # type: ignore[method-assign]
        else:
            import apsw

            # Readers have connections of their own, on which nothing is written.
            database._connection.trace_v2(apsw.SQLITE_TRACE_STMT, self.count)

    def count(self, _event: object = None) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def before(self, execute: Any) -> Any:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.count()
            return execute(*args, **kwargs)

        return counted


def in_child(work: Any, *arguments: Any) -> int:
    """How a forked child ended that does this work: 0 when well."""
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    try:
        work(*arguments)
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)


def set_up(url: str) -> None:
    with embedded_orch.open(url) as orch, orch.session() as session:
        session.execute("create table loaded (attempt integer, number integer)")


def until(url: str, kind: str, statements: int, attempt: int) -> None:
    with embedded_orch.open(url) as orch:
        Countdown(orch, statements)
        call(kind, attempt)


def resumed(url: str, kind: str, attempt: int) -> None:
    with embedded_orch.open(url) as orch:
        newest = next(orch.flow_runs.find(state_type="COMPLETED"), None)
        # Killed after its completion: there is nothing to resume.
        if newest is None or newest.parameters != {"attempt": attempt}:
            call(kind, attempt)


def found(url: str, attempts: int) -> None:
    with embedded_orch.open(url) as orch:
        rows = Counter(tuple(row) for row in orch.sql("select attempt, number from loaded"))
    expected = {(attempt, number) for attempt in range(attempts) for number in (1, 2)}
    problems = [f"{each}: {rows[each]} times" for each in expected if rows[each] != 1]
    problems += [f"unexpected {each}" for each in rows if each not in expected]
    print(json.dumps({"attempts": attempts, "problems": problems}), flush=True)


def main(url: str, kind: str, step: str = "1") -> None:
    assert in_child(set_up, url) == 0
    attempts, statement = 0, 1
    while (status := in_child(until, url, kind, statement, attempts)) != 0:
        assert os.WTERMSIG(status) == signal.SIGKILL, status
        assert in_child(resumed, url, kind, attempts) == 0
        attempts, statement = attempts + 1, statement + int(step)
    assert in_child(found, url, attempts + 1) == 0


if __name__ == "__main__":
    main(*sys.argv[1:])
