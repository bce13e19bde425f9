"""A server, and the way to it, that fail while runs go on: nobody may notice it.

What is cut, and when, is chosen by the statement that is on its way; see ``postgres_proxy``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import pytest

import embedded_orch
from tests.faults.postgres_errand import prepare, problems_on_record, run_errand
from tests.faults.postgres_proxy import (
    Fault,
    How,
    PostgresProxy,
    Where,
    at_statement,
    at_text,
    calling_at,
)
from tests.postgres_server import PostgresServer

_numbers = count(1)
QUICK = {"command_timeout_seconds": 1.0, "connect_timeout_seconds": 2.0}


class Way:
    """An orchestrator whose server is behind a proxy, and the errands that were run on it."""

    def __init__(self, proxy: PostgresProxy, url: str) -> None:
        self.proxy = proxy
        self._url = url
        self._done: list[int] = []

    def run(self) -> None:
        number = next(_numbers)
        run_errand(number)
        self._done.append(number)

    def run_with(self, fault_at: Callable[[int], Fault], later: int) -> bool:
        """Run one errand with a fault at a statement, counted from its first; whether it came."""
        self.proxy.has_struck.clear()
        self.proxy.fault = fault_at(len(self.proxy.statements) + later)
        self.run()
        self.proxy.fault = None
        return self.proxy.has_struck.is_set()

    def check(self) -> None:
        assert problems_on_record(self._url, self._done) == []


@contextmanager
def a_way_to(server: PostgresServer, **options: Any) -> Iterator[Way]:
    """Open an empty database through a proxy; at the end, look at what is on record."""
    of_proxy = {key: options.pop(key) for key in ("delay_seconds", "backends") if key in options}
    url = server.new_database()
    with PostgresProxy(url, **of_proxy) as proxy:
        way = Way(proxy, url)
        with embedded_orch.open(proxy.url, **options) as orch:
            prepare(orch)
            yield way
        way.check()


# -- cut connections -------------------------------------------------------------------------------


def test_an_errand_without_a_fault_is_done_and_on_record(postgres_server: PostgresServer) -> None:
    with a_way_to(postgres_server) as way:
        way.run()

        assert any(text.lower().startswith("commit") for text in way.proxy.statements)


@pytest.mark.slow
@pytest.mark.parametrize("where", list(Where), ids=lambda where: where.name)
def test_a_connection_that_is_cut_at_some_statement_is_not_noticed(
    postgres_server: PostgresServer, where: Where
) -> None:
    with a_way_to(postgres_server) as way:
        assert way.run_with(lambda number: at_statement(number, where), 3)
        for later in range(10, 100, 15):
            way.run_with(lambda number: at_statement(number, where), later)


@pytest.mark.parametrize("where", list(Where), ids=lambda where: where.name)
def test_a_connection_that_is_cut_in_a_commit_is_not_noticed(
    postgres_server: PostgresServer, where: Where
) -> None:
    with a_way_to(postgres_server) as way:
        for nth in (0, 2, 7):
            assert way.run_with(lambda number, nth=nth: at_text("commit", where, nth=nth), 0)


@pytest.mark.soak
@pytest.mark.parametrize("where", list(Where), ids=lambda where: where.name)
def test_a_connection_that_is_cut_at_any_statement_is_not_noticed(
    postgres_server: PostgresServer, where: Where
) -> None:
    with a_way_to(postgres_server) as way:
        later = 0
        while way.run_with(lambda number: at_statement(number, where), later):
            later += 1

        assert later > 50
        print(f"{later} statements, each cut {where.value}")


# -- silent connections ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("where", [Where.BEFORE, Where.AFTER], ids=lambda where: where.name)
@pytest.mark.parametrize("text", ["begin", "insert into task_run_state", "commit"])
def test_a_connection_that_goes_silent_is_given_up_and_replaced(
    postgres_server: PostgresServer, where: Where, text: str
) -> None:
    """The server keeps what it has locked until it finds the session idle for too long itself."""
    with a_way_to(postgres_server, **QUICK) as way:
        assert way.run_with(lambda number: at_text(text, where, How.SILENT, nth=1), 0)


@pytest.mark.soak
@pytest.mark.parametrize("where", [Where.BEFORE, Where.AFTER], ids=lambda where: where.name)
def test_a_connection_that_goes_silent_at_any_statement_is_not_noticed(
    postgres_server: PostgresServer, where: Where
) -> None:
    with a_way_to(postgres_server, **QUICK) as way:
        later = 0
        while way.run_with(lambda number: at_statement(number, where, How.SILENT), later):
            later += 1

        assert later > 50
        print(f"{later} statements, silent each time {where.value}")


# -- sessions and servers that end -----------------------------------------------------------------


def ends_session(server: PostgresServer) -> Callable[[int], object]:
    """Have the server end a session, and wait until it has."""
    query = "select pg_terminate_backend(%s, 5000)"
    return lambda pid: server.administration.execute(query, [pid])


@pytest.mark.slow
def test_a_session_that_the_server_ends_at_some_statement_is_not_noticed(
    postgres_server: PostgresServer,
) -> None:
    end = ends_session(postgres_server)
    with a_way_to(postgres_server) as way:
        for later in range(0, 100, 9):
            way.run_with(lambda number: calling_at(number, end), later)


@pytest.mark.soak
def test_a_session_that_the_server_ends_at_any_statement_is_not_noticed(
    postgres_server: PostgresServer,
) -> None:
    end = ends_session(postgres_server)
    with a_way_to(postgres_server) as way:
        later = 0
        while way.run_with(lambda number: calling_at(number, end), later):
            later += 1

        assert later > 50


# -- delays and poolers ----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_server_that_is_far_away_is_waited_for(postgres_server: PostgresServer) -> None:
    with a_way_to(postgres_server, delay_seconds=0.02) as way:
        way.run()


@pytest.mark.soak
def test_a_server_that_is_200_ms_away_is_waited_for(postgres_server: PostgresServer) -> None:
    with a_way_to(postgres_server, delay_seconds=0.2) as way:
        way.run()


@pytest.mark.slow
def test_transactions_may_each_get_another_session_from_a_pooler(
    postgres_server: PostgresServer,
) -> None:
    with a_way_to(postgres_server, backends=3, prepared_statement_cache_size=0) as way:
        threads = [threading.Thread(target=way.run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        way.run()

        assert len(way._done) == 5
