"""Transactions that the server rolls back for the sake of others: each is run again, unnoticed.

A trigger raises at a chosen row, once: the count of rows is a sequence, which no rollback undoes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import psycopg
import pytest

import embedded_orch
from tests.faults.postgres_errand import prepare, problems_on_record, run_errand
from tests.postgres_server import PostgresServer

_numbers = count(200_001)
_AT = 1_000_000
_TABLES = (
    *("flow_run", "flow_run_state", "task_run", "task_run_state", "log", "slot_claim"),
    *("cached_result", "variable", "artifact"),
)
SERIALIZATION_FAILURE, DEADLOCK = "40001", "40P01"


class Conflicts:
    """A database in which one row after another can be made to conflict."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._done: list[int] = []

    def set_up(self, sqlstate: str, *, in_commit: bool) -> None:
        kind = "constraint trigger" if in_commit else "trigger"
        when = "after" if in_commit else "before"
        deferred = "deferrable initially deferred" if in_commit else ""
        statements = [
            "create sequence embedded_orch.rows_written",
            f"""create function embedded_orch.conflict() returns trigger language plpgsql as $$
            begin
                if nextval('embedded_orch.rows_written') = {_AT} then
                    raise exception 'made by a test' using errcode = '{sqlstate}';
                end if;
                return new;
            end $$""",
            *(
                f"create {kind} conflict {when} insert or update on embedded_orch.{table}"
                f" {deferred} for each row execute function embedded_orch.conflict()"
                for table in _TABLES
            ),
        ]
        for statement in statements:
            self._run(statement)

    def run_with(self, row: int) -> bool:
        """Run an errand in which the nth row conflicts, counted from 1; whether it came to that."""
        self._run(f"select setval('embedded_orch.rows_written', {_AT - row})")
        number = next(_numbers)
        run_errand(number)
        self._done.append(number)
        return self._run("select last_value from embedded_orch.rows_written") >= _AT

    def check(self) -> None:
        assert problems_on_record(self._url, self._done) == []

    def _run(self, statement: str) -> int:
        with psycopg.connect(self._url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            row = cursor.fetchone() if cursor.description else None
            return 0 if row is None else int(row[0])


@contextmanager
def conflicts_in(
    server: PostgresServer, sqlstate: str, *, in_commit: bool = False
) -> Iterator[Conflicts]:
    url = server.new_database()
    made = Conflicts(url)
    with embedded_orch.open(url) as orch:
        prepare(orch)
        made.set_up(sqlstate, in_commit=in_commit)
        yield made
    made.check()


@pytest.mark.parametrize("in_commit", [False, True], ids=["in a statement", "in the commit"])
@pytest.mark.parametrize("sqlstate", [SERIALIZATION_FAILURE, DEADLOCK])
def test_a_conflict_at_some_row_is_not_noticed(
    postgres_server: PostgresServer, sqlstate: str, in_commit: bool
) -> None:
    with conflicts_in(postgres_server, sqlstate, in_commit=in_commit) as conflicts:
        assert conflicts.run_with(1)
        for row in (7, 20, 33, 47):
            conflicts.run_with(row)


@pytest.mark.soak
@pytest.mark.parametrize("in_commit", [False, True], ids=["in a statement", "in the commit"])
@pytest.mark.parametrize("sqlstate", [SERIALIZATION_FAILURE, DEADLOCK])
def test_a_conflict_at_any_row_is_not_noticed(
    postgres_server: PostgresServer, sqlstate: str, in_commit: bool
) -> None:
    with conflicts_in(postgres_server, sqlstate, in_commit=in_commit) as conflicts:
        row = 1
        while conflicts.run_with(row):
            row += 1

        assert row > 40
