"""A table of the tests' own, so that the port is tested apart from what the store keeps in it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from embedded_orch.db.port import Database, Transaction
from embedded_orch.db.statements import Statement, number_parameters
from embedded_orch.process import Process

Operation = Callable[[Transaction], Any]

PATIENCE_SECONDS = 20.0

_TABLES = {
    "sqlite": """
        create table probe (
            id       blob    not null primary key,
            number   integer not null unique,
            note     text,
            amount   real,
            data     blob,
            has_data integer check (has_data in (0, 1)),
            labels   text
        ) strict
    """,
    "postgres": """
        create table probe (
            id       uuid    not null primary key,
            number   bigint  not null unique,
            note     text,
            amount   double precision,
            data     bytea,
            has_data boolean,
            labels   jsonb
        )
    """,
}
_STATEMENTS = {
    "insert": """
        insert into probe (id, number, note, amount, data, has_data, labels)
        values (:id, :number, :note, :amount, :data, :has_data, :labels)
    """,
    "repeat": "insert into probe (id, number) values (:id, :number) on conflict (id) do nothing",
    "get": "select id, number, note, amount, data, has_data, labels from probe where id = :id",
    "numbers": "select number from probe order by number",
    "count": "select count(*) from probe",
    "add": "update probe set number = number + :more where id = :id",
    "delete": "delete from probe where number >= :number",
}
_EMPTY: dict[str, object] = dict.fromkeys(("note", "amount", "data", "has_data", "labels"))


class Probe:
    """The table ``probe`` of one database, and operations on it.

    Args:
        database: where it is made.
        process: whose ids.
    """

    def __init__(self, database: Database, process: Process) -> None:
        self.database = database
        self.new_id = process.new_id
        for name, sql in _STATEMENTS.items():
            text, parameters = number_parameters(sql, database.dialect)
            full_name = f"probe.{name}"
            database.catalog[full_name] = Statement(full_name, text, parameters)  # type: ignore[attr-defined]
        database.write(lambda tx: tx.script(_TABLES[database.dialect]))

    @property
    def reads_beside_writes(self) -> bool:
        """In memory there is one connection, so a read and a write wait for each other."""
        return self.database.url != ":memory:"

    def insert(self, number: int, *, id: UUID | None = None, **values: object) -> Operation:
        values = {"id": id or self.new_id(), "number": number, **_EMPTY, **values}
        return lambda tx: tx.run("probe.insert", **values)

    def insert_then_fail(self, number: int, error: Exception) -> Operation:
        insert = self.insert(number)

        def operation(tx: Transaction) -> None:
            insert(tx)
            raise error

        return operation

    def numbers(self) -> list[int]:
        """What is in the table now."""
        return self.database.read(numbers_in)


def numbers_in(tx: Transaction) -> list[int]:
    return [number for (number,) in tx.rows("probe.numbers")]


class Gate:
    """Stops an operation inside its transaction until it is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._opened = threading.Event()

    def before(self, operation: Operation) -> Operation:
        def gated(tx: Transaction) -> Any:
            self.stop_here()
            return operation(tx)

        return gated

    def stop_here(self) -> None:
        self.reached.set()
        assert self._opened.wait(PATIENCE_SECONDS), "the gate was never opened"

    def open(self) -> None:
        self._opened.set()

    def open_soon(self, seconds: float = 0.05) -> None:
        """Open it while the caller waits for something else."""
        threading.Timer(seconds, self.open).start()


class Background(threading.Thread):
    """A call in another thread, and what came of it."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__()
        self._call = call
        self.error: BaseException | None = None
        self.answer: Any = None
        self.start()

    def run(self) -> None:
        try:
            self.answer = self._call()
        except BaseException as error:
            self.error = error

    def result(self) -> Any:
        self.join(PATIENCE_SECONDS)
        assert not self.is_alive(), "the call did not come back"
        if self.error is not None:
            raise self.error
        return self.answer


@contextmanager
def in_background(*calls: Callable[[], Any]) -> Iterator[list[Background]]:
    """Calls in threads of their own; what they raise is raised at the end of the block."""
    threads = [Background(call) for call in calls]
    yield threads
    for thread in threads:
        thread.result()


def all_of(calls: Iterable[Callable[[], Any]]) -> list[Any]:
    """The answers of calls made at once, each in a thread."""
    return [thread.result() for thread in [Background(call) for call in calls]]


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"did not come true in {PATIENCE_SECONDS:g} s"
        time.sleep(0.002)
