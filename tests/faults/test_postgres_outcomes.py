"""A connection that is lost in the COMMIT of one operation: what the caller is told is true."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
import pytest

import embedded_orch
from embedded_orch import (
    Orchestrator,
    flow,
    send_signal,
    task,
)
from embedded_orch.artifacts import create_markdown_artifact
from embedded_orch.context import get_run_context
from embedded_orch.errors import TransactionFailed
from embedded_orch.input import send_input
from embedded_orch.states import Scheduled
from embedded_orch.variables import Variable
from tests.faults.postgres_proxy import Fault, PostgresProxy, Where, at_text
from tests.faults.run_records import asking_bare
from tests.postgres_server import PostgresServer

EITHER_WAY = [Where.BEFORE, Where.WITHIN, Where.AFTER, Where.WITHIN_ANSWER]


@flow
def later(number: int = 1) -> int:
    return number


class Act(NamedTuple):
    """One write of a person.

    Attributes:
        prepare: what has to be there before; its answer is what ``act`` gets.
        act: the write; its answer, so that it can be compared.
        count: how many rows it has made.
    """

    prepare: Callable[[Orchestrator], Any]
    act: Callable[[Orchestrator, Any], object]
    expected: object
    count: str
    rows: int


def nothing(_: Orchestrator) -> None:
    return None


def a_run(orch: Orchestrator) -> UUID:
    return orch.flow_runs.create(later, parameters={"number": 1}).id


def delete_artifact(orch: Orchestrator, id: UUID) -> bool:
    return orch.artifacts.delete(id)


ACTS = {
    "create a run": Act(
        nothing,
        lambda orch, _: orch.flow_runs.create(later, parameters={"number": 2}).state_name,
        "Pending",
        "select count(*) from flow_run",
        1,
    ),
    "set a state": Act(
        a_run,
        lambda orch, run: orch.flow_runs.set_state(run, Scheduled(name="Later")).status.value,
        "ACCEPT",
        "select count(*) from flow_run_state where name = 'Later'",
        1,
    ),
    "cancel": Act(
        a_run,
        lambda orch, run: orch.flow_runs.cancel(run).state_name,
        "Cancelled",
        "select count(*) from flow_run_state where type = 'CANCELLED'",
        1,
    ),
    "make a limit": Act(
        nothing,
        lambda orch, _: orch.concurrency_limits.create("db", 2).limit,
        2,
        "select count(*) from concurrency_limit",
        1,
    ),
    "delete a limit": Act(
        lambda orch: orch.concurrency_limits.create("db", 2),
        lambda orch, _: orch.concurrency_limits.delete("db"),
        True,
        "select count(*) from concurrency_limit",
        0,
    ),
    "make a variable": Act(
        nothing,
        lambda orch, _: Variable.set("colour", "blue").value,
        "blue",
        "select count(*) from variable",
        1,
    ),
    "change a variable": Act(
        lambda orch: Variable.set("colour", "blue"),
        lambda orch, _: Variable.set("colour", "red", overwrite=True).value,
        "red",
        "select count(*) from variable where value::text = '\"red\"'",
        1,
    ),
    "remove a variable": Act(
        lambda orch: Variable.set("colour", "blue"),
        lambda orch, _: Variable.unset("colour"),
        True,
        "select count(*) from variable",
        0,
    ),
    "make an artifact": Act(
        nothing,
        lambda orch, _: isinstance(create_markdown_artifact("done", key="note"), UUID),
        True,
        "select count(*) from artifact",
        1,
    ),
    "delete an artifact": Act(
        lambda orch: create_markdown_artifact("done", key="note"),
        delete_artifact,
        True,
        "select count(*) from artifact",
        0,
    ),
    "send a signal": Act(
        a_run,
        lambda orch, run: send_signal(run, "approval", True),
        True,
        "select count(*) from flow_run_input",
        1,
    ),
    "send an input": Act(
        a_run,
        lambda orch, run: send_input("hello", run),
        None,
        "select count(*) from flow_run_input",
        1,
    ),
    "run a flow": Act(
        nothing,
        lambda orch, _: later(3),
        3,
        "select count(*) from flow_run where state_type = 'COMPLETED'",
        1,
    ),
}


@contextmanager
def behind_a_proxy(server: PostgresServer) -> Iterator[tuple[Orchestrator, PostgresProxy, str]]:
    url = server.new_database()
    with PostgresProxy(url) as proxy, embedded_orch.open(proxy.url) as orch:
        yield orch, proxy, url


def count(url: str, query: str) -> int:
    with asking_bare(url) as asked:
        [(found,)] = asked(query)
    return int(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", ACTS)
def test_a_write_whose_commit_was_lost_is_done_once_and_answered_as_always(
    postgres_server: PostgresServer, name: str
) -> None:
    act = ACTS[name]
    for where in EITHER_WAY:
        with behind_a_proxy(postgres_server) as (orch, proxy, url):
            prepared = act.prepare(orch)
            proxy.fault = at_text("commit", where)

            assert act.act(orch, prepared) == act.expected, where
            assert proxy.has_struck.is_set()
            assert count(url, act.count) == act.rows, where


# -- SQL of the user's own -------------------------------------------------------------------------


def at_commit_of(text: str, where: Where) -> Fault:
    """A fault at the commit of the transaction that has run a statement with this text."""
    threads: set[int] = set()

    def is_meant(_: int, statement: str) -> bool:
        # The proxy has a thread for each connection.
        if text in statement:
            threads.add(threading.get_ident())
        return threading.get_ident() in threads and statement.lower().startswith("commit")

    return Fault(is_meant, where)


CALLS: list[int] = []
GETS_THROUGH = pytest.mark.parametrize(
    ("where", "gets_through"),
    [
        (Where.BEFORE, False),
        (Where.WITHIN, False),
        (Where.AFTER, True),
        (Where.WITHIN_ANSWER, True),
    ],
    ids=lambda each: getattr(each, "name", str(each)),
)


@task
def load() -> str:
    CALLS.append(1)
    connection: Any = get_run_context().transaction.connection
    connection.execute("insert into public.loaded values (:number)", {"number": len(CALLS)})
    return "loaded"


@flow
def loading() -> str:
    return load()


def make_table(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create table public.loaded (number int)")


@GETS_THROUGH
def test_sql_of_a_task_is_done_once_with_it_when_its_commit_was_lost(
    postgres_server: PostgresServer, where: Where, gets_through: bool
) -> None:
    CALLS.clear()
    with behind_a_proxy(postgres_server) as (orch, proxy, url):
        make_table(url)
        proxy.fault = at_commit_of("into public.loaded", where)

        if gets_through:
            assert loading() == "loaded"
        else:
            with pytest.raises(TransactionFailed, match="nothing of it was kept"):
                loading()
            assert count(url, "select count(*) from public.loaded") == 0
            [run] = orch.flow_runs.find()
            assert loading.resume(run.id) == "loaded"

        assert count(url, "select count(*) from public.loaded") == 1
        assert len(CALLS) == (1 if gets_through else 2)


@GETS_THROUGH
def test_a_session_is_told_what_became_of_a_commit_that_was_lost(
    postgres_server: PostgresServer, where: Where, gets_through: bool
) -> None:
    with behind_a_proxy(postgres_server) as (orch, proxy, url):
        make_table(url)
        proxy.fault = at_commit_of("into public.loaded", where)
        outcome = nullcontext() if gets_through else pytest.raises(TransactionFailed)

        with outcome, orch.session(begin_transaction=True) as session:
            session.execute("insert into public.loaded values (7)")

        assert proxy.has_struck.is_set()
        assert count(url, "select count(*) from public.loaded") == gets_through
