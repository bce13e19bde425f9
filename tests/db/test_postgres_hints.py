"""What processes tell each other on a server, and that nobody depends on hearing it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
import pytest

import embedded_orch
from embedded_orch import Orchestrator, flow, pause_flow_run, resume_flow_run
from embedded_orch.concurrency.sync import concurrency
from embedded_orch.db.postgres import hints as hints_module
from embedded_orch.db.postgres.database import PostgresDatabase, open_server
from embedded_orch.db.postgres.hints import Hints
from embedded_orch.db.postgres.options import parse
from embedded_orch.engine import pausing, slots, watching
from embedded_orch.process import Process
from tests.engine.waiting import PATIENCE, passed, until
from tests.faults.postgres_proxy import How, PostgresProxy, Where, at_statement
from tests.postgres_server import PostgresServer


@contextmanager
def databases(url: str, count: int, **options: Any) -> Iterator[list[PostgresDatabase]]:
    """The same database, opened as by so many processes."""
    with ExitStack() as stack:
        made = []
        for _ in range(count):
            database = open_server(parse(url, **options), Process())
            stack.callback(database.close)
            made.append(database)
        yield made


def listening(hints: Hints) -> queue.SimpleQueue[list[str] | None]:
    """What is heard from now on; returns once something would be."""
    heard: queue.SimpleQueue[list[str] | None] = queue.SimpleQueue()
    hints.listen(heard.put)
    until(lambda: hints.is_heard, "listening")
    assert heard.get(timeout=PATIENCE) is None
    return heard


def listeners(url: str) -> list[int]:
    query = "select pid from pg_stat_activity where datname = current_database() and query like %s"
    with psycopg.connect(url) as connection:
        return [pid for (pid,) in connection.execute(query, ["LISTEN%"])]


def test_what_one_process_tells_others_hear_and_it_does_not_itself(
    postgres_server: PostgresServer,
) -> None:
    with databases(postgres_server.new_database(), 3) as (first, second, third):
        mine, theirs, others = (listening(each.hints) for each in (first, second, third))

        first.hints.tell(["red", "blue"])
        assert theirs.get(timeout=PATIENCE) == ["red", "blue"]
        assert others.get(timeout=PATIENCE) == ["red", "blue"]

        second.hints.tell(["green"])
        assert mine.get(timeout=PATIENCE) == ["green"]


def test_what_is_told_in_a_moment_is_told_once(postgres_server: PostgresServer) -> None:
    with databases(postgres_server.new_database(), 2) as (first, second):
        heard = listening(second.hints)
        names = [f"name {number}" for number in range(2_000)]

        first.hints.tell([*names, *names])

        found: list[str] = []
        while len(found) < len(names):
            found += heard.get(timeout=PATIENCE) or []
        assert found == names


def test_a_name_that_is_too_long_stands_for_everything(postgres_server: PostgresServer) -> None:
    with databases(postgres_server.new_database(), 2) as (first, second):
        heard = listening(second.hints)

        first.hints.tell(["short", "ü" * 4_000])

        assert heard.get(timeout=PATIENCE) is None


def test_what_strangers_notify_wakes_nobody(postgres_server: PostgresServer) -> None:
    url = postgres_server.new_database()
    with databases(url, 2) as (first, second):
        heard = listening(second.hints)
        with psycopg.connect(url, autocommit=True) as stranger:
            for payload in ("", "no JSON", '{"a": 1}', '["me"]'):
                stranger.execute("select pg_notify(%s, %s)", ["changes_in_embedded_orch", payload])

        first.hints.tell(["after"])

        assert heard.get(timeout=PATIENCE) == ["after"]


def test_a_session_that_the_server_ends_is_replaced_and_everybody_looks(
    postgres_server: PostgresServer,
) -> None:
    url = postgres_server.new_database()
    with databases(url, 2) as (first, second):
        heard = listening(second.hints)
        [pid] = listeners(url)

        postgres_server.administration.execute("select pg_terminate_backend(%s)", [pid])

        assert heard.get(timeout=PATIENCE) is None  # lost
        assert heard.get(timeout=PATIENCE) is None  # and there again
        first.hints.tell(["after"])
        assert heard.get(timeout=PATIENCE) == ["after"]


def test_a_connection_that_died_without_a_word_is_found_out_and_replaced(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hints_module, "_PROBE_SECONDS", 0.05)
    url = postgres_server.new_database()
    with (
        PostgresProxy(url) as proxy,
        databases(proxy.url, 1, connect_timeout_seconds=0.5) as [deaf],
        databases(url, 1) as [telling],
    ):
        heard = listening(deaf.hints)
        proxy.fault = at_statement(len(proxy.statements), Where.BEFORE, How.SILENT)

        # Nobody uses the pool: it is the listener's own question that is swallowed.
        assert heard.get(timeout=PATIENCE) is None
        assert heard.get(timeout=PATIENCE) is None
        telling.hints.tell(["after"])
        assert heard.get(timeout=PATIENCE) == ["after"]


def test_nobody_listens_behind_a_pooler_of_transactions(postgres_server: PostgresServer) -> None:
    url = postgres_server.new_database()
    with databases(url, 1, prepared_statement_cache_size=0) as [database]:
        database.hints.listen(lambda names: None)

        assert listeners(url) == []
        assert not database.hints.is_heard


def test_closing_ends_the_thread_and_the_session(postgres_server: PostgresServer) -> None:
    url = postgres_server.new_database()
    with databases(url, 1) as [database]:
        listening(database.hints)
        thread = database.hints._thread
        assert thread is not None

    assert not thread.is_alive()
    until(lambda: listeners(url) == [], "the end of the session")
    database.hints.tell(["after"])


# -- waiting --------------------------------------------------------------------------------------

LONG = 10 * PATIENCE


@pytest.fixture
def seldom_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody who waits looks by himself while a test lasts."""
    for module in (slots, watching, pausing):
        monkeypatch.setattr(module, "_FIRST_LOOK", LONG)
    monkeypatch.setattr(watching, "_LAST_LOOK", LONG)
    monkeypatch.setattr(slots, "_LAST_LOOK", LONG)


@pytest.fixture
def two(
    postgres_server: PostgresServer, seldom_looks: None
) -> Iterator[tuple[Orchestrator, Orchestrator]]:
    """Two orchestrators of one database that share nothing here, as in two processes."""
    url = postgres_server.new_database()
    with embedded_orch.open(url) as first, embedded_orch.open(f"{url}&keepalives=1") as second:
        yield first, second


@contextmanager
def in_thread(orch: Orchestrator, call: Callable[[], object]) -> Iterator[list[object]]:
    """Call a function in a thread in which an orchestrator is meant; its answer, at the end."""
    answers: list[object] = []

    def run() -> None:
        with orch:
            answers.append(call())

    thread = threading.Thread(target=run)
    thread.start()
    yield answers
    thread.join(PATIENCE)
    assert not thread.is_alive(), "it was not woken"


def is_listening(orch: Orchestrator) -> None:
    database = orch.database
    assert isinstance(database, PostgresDatabase)
    until(lambda: database.hints.is_heard, "listening")


def test_a_slot_that_another_process_gives_back_is_taken_at_once(
    two: tuple[Orchestrator, Orchestrator],
) -> None:
    first, second = two
    first.concurrency_limits.create("db", 1)
    holds, ends = threading.Event(), threading.Event()

    def hold() -> None:
        with concurrency("db"):
            holds.set()
            passed(ends)

    def take() -> str:
        with concurrency("db"):
            return "taken"

    with in_thread(first, hold):
        passed(holds)
        with in_thread(second, take) as answers:
            until(lambda: first.concurrency_limits.get("db").waiting, "a waiter")
            is_listening(second)
            ends.set()
    assert answers == ["taken"]


def test_a_cancellation_by_another_process_is_heard_at_once(
    two: tuple[Orchestrator, Orchestrator],
) -> None:
    first, second = two
    begun: list[Any] = []

    @flow
    def working() -> None:
        begun.append(embedded_orch.runtime.flow_run.id)
        while True:
            threading.Event().wait(0.01)

    with in_thread(first, lambda: working(return_state=True)) as answers:
        until(lambda: begun, "the flow")
        is_listening(first)
        second.flow_runs.cancel(begun[0])
    [state] = answers
    assert isinstance(state, embedded_orch.states.State)
    assert state.is_cancelled()


def test_a_paused_run_that_another_process_resumes_goes_on_at_once(
    two: tuple[Orchestrator, Orchestrator],
) -> None:
    first, second = two
    begun: list[Any] = []

    @flow
    def asking() -> str:
        begun.append(embedded_orch.runtime.flow_run.id)
        pause_flow_run(timeout=3600, poll_interval=round(LONG))
        return "went on"

    with in_thread(first, asking) as answers:
        until(lambda: begun and second.flow_runs.get(begun[0]).state_name == "Paused", "the pause")
        is_listening(first)
        with second:
            resume_flow_run(begun[0])
    assert answers == ["went on"]


def test_nobody_listens_before_somebody_waits(postgres_server: PostgresServer) -> None:
    url = postgres_server.new_database()
    with embedded_orch.open(url) as orch:
        orch.concurrency_limits.create("db", 1)
        orch.concurrency_limits.upsert("db", 2)

        assert listeners(url) == []
