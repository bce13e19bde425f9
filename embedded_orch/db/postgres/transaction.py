"""A transaction on one Postgres connection, as the layers above see it.

In a session that was opened with ``for_update``, a read of ours locks the rows that it returns. A
read that can do so has a statement beside it, of the same name with ``_lock`` after it and the
same parameters, which runs first. It is a statement of its own, and not FOR UPDATE at the end of
the read, because each statement of a READ COMMITTED transaction sees what was committed before it
began: one that had to wait for a run's row would join the new run to the states of before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from embedded_orch.db.columns import decode_rows, decoders
from embedded_orch.values.places import NOWHERE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from psycopg import Connection, Cursor
    from psycopg.rows import TupleRow

    from embedded_orch.db.postgres.group_commit import GroupCommit
    from embedded_orch.db.statements import Catalog, Statement
    from embedded_orch.values.places import Places

_BINDABLE = frozenset({type(None), bool, int, float, str, bytes, UUID})
_BINDABLE_BASES = (int, float, str, bytes, bytearray, memoryview, UUID)


class PostgresTransaction:
    """Runs named statements on one connection. Whoever made it begins and ends it.

    Errors of the driver come out as they are; whoever made it translates them.

    Args:
        begin: begins a transaction, at the first statement, and returns its connection.
        catalog: the statements of this dialect.
        locks_reads: whether reads lock the rows they return, where they can.
        places: where values are that are not in rows.
        group: sends statements that are transactions of their own; None where such a statement is
            not as good as one in a transaction.
    """

    __slots__ = ("_begin", "_catalog", "_connection", "_cursor", "_group", "locks_reads", "places")

    dialect: Literal["postgres"] = "postgres"

    def __init__(
        self,
        begin: Callable[[], Connection[TupleRow]],
        catalog: Catalog,
        *,
        locks_reads: bool = False,
        places: Places = NOWHERE,
        group: GroupCommit | None = None,
    ) -> None:
        self.places = places
        self.locks_reads = locks_reads
        self._begin = begin
        self._catalog = catalog
        self._group = group
        self._connection: Connection[TupleRow] | None = None
        self._cursor: Cursor[TupleRow] | None = None

    @property
    def connection(self) -> Connection[TupleRow]:
        """In the transaction."""
        connection = self._connection
        if connection is None:
            connection = self._connection = self._begin()
        return connection

    def rows(self, name: str, /, **values: object) -> list[tuple[Any, ...]]:
        """All rows of a named statement."""
        statement = self._catalog[name]
        if self.locks_reads:
            lock = self._catalog.beside(f"{name}_lock")
            if lock is not None:
                self._execute(lock, values)
        cursor = self._execute(statement, values)
        description = cursor.description
        if description is None:
            return []
        how = statement.decoders
        if how is None:
            how = statement.decoders = decoders([each.name for each in description], "postgres")
        return decode_rows(cursor.fetchall(), how)

    def row(self, name: str, /, **values: object) -> tuple[Any, ...] | None:
        """The first row, or None."""
        rows = self.rows(name, **values)
        return rows[0] if rows else None

    def value(self, name: str, /, **values: object) -> Any:
        """The first column of the first row, or None."""
        rows = self.rows(name, **values)
        return rows[0][0] if rows else None

    def run(self, name: str, given: Mapping[str, object] | None = None, /, **values: object) -> int:
        """Run a named statement; how many rows it changed."""
        return self._execute(self._catalog[name], given or values).rowcount

    def whole(self, name: str, group: object, /, **values: object) -> tuple[Any, ...] | None:
        """The first row of a statement that is all that its operation writes.

        As the first of a transaction it is sent without BEGIN and COMMIT: one round trip in place
        of three, and fewer where many threads share it.
        """
        if self._connection is not None or self._group is None:
            return self.row(name, **values)
        statement = self._catalog[name]
        return self._group.run(statement, group, checked(statement.bind(values)))

    def run_many(self, name: str, values: Iterable[Mapping[str, object]], /) -> None:
        """Run a named statement once for each set of values, without waiting between them."""
        statement = self._catalog[name]
        self._open_cursor().executemany(
            statement.sql.encode(), (checked(statement.bind(each)) for each in values)
        )

    def script(self, sql: str) -> None:
        """Run the statements of a migration."""
        self._open_cursor().execute(sql.encode(), prepare=False)

    def _execute(self, statement: Statement, values: Mapping[str, object]) -> Cursor[TupleRow]:
        cursor = self._cursor or self._open_cursor()
        return cursor.execute(statement.sql.encode(), checked(statement.bind(values)))

    def _open_cursor(self) -> Cursor[TupleRow]:
        cursor = self._cursor
        if cursor is None:
            cursor = self._cursor = self.connection.cursor()
        return cursor


def checked(values: tuple[object, ...]) -> tuple[object, ...]:
    """The same values, all of them of types that both engines store.

    Raises:
        TypeError: psycopg would store a list, a dictionary or a date, and SQLite would not.
    """
    for number, value in enumerate(values, 1):
        if type(value) not in _BINDABLE and not isinstance(value, _BINDABLE_BASES):
            raise TypeError(f"parameter {number}: a {type(value).__qualname__} cannot be bound")
    return values
