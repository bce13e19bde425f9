"""A transaction on one SQLite connection, as the layers above see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import apsw

from embedded_orch.db.columns import decode_rows, decoders
from embedded_orch.values.places import NOWHERE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from embedded_orch.db.columns import Decoders
    from embedded_orch.db.statements import Catalog, Statement
    from embedded_orch.values.places import Places


class SQLiteTransaction:
    """Runs named statements on one connection. Whoever made it begins and ends it.

    One object serves all the transactions of its connection, one after the other: it holds
    nothing of them.
    """

    __slots__ = ("_catalog", "_execute", "_run", "connection", "places")

    dialect: Literal["sqlite"] = "sqlite"
    locks_reads = False

    def __init__(
        self, connection: apsw.Connection, catalog: Catalog, *, places: Places = NOWHERE
    ) -> None:
        self.connection = connection
        self.places = places
        self._catalog = catalog
        self._execute = connection.execute
        # One cursor for all that returns no rows: it holds nothing once it has run.
        self._run = connection.cursor().execute

    def rows(self, name: str, /, **values: object) -> list[tuple[Any, ...]]:
        """All rows of a named statement."""
        statement = self._catalog[name]
        cursor = self._execute(statement.sql, statement.bind(values))
        try:
            how = statement.decoders
            if how is None:
                how = self._learn_columns(statement, cursor)
            found: list[Any] = cursor.fetchall()
        except BaseException:
            # Interrupted on a row. The traceback would keep the cursor, and that the snapshot: the
            # next reads of this connection would be told what was true then.
            cursor.close(force=True)
            raise
        return decode_rows(found, how)

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
        statement = self._catalog[name]
        self._run(statement.sql, statement.bind(given or values))
        return self.connection.changes()

    def whole(self, name: str, _group: object, /, **values: object) -> tuple[Any, ...] | None:
        """The first row of a statement that is all that its operation writes."""
        return self.row(name, **values)

    def run_many(self, name: str, values: Iterable[Mapping[str, object]], /) -> None:
        """Run a named statement once for each set of values."""
        statement = self._catalog[name]
        self.connection.executemany(statement.sql, (statement.bind(each) for each in values))

    def script(self, sql: str) -> None:
        """Run the statements of a migration."""
        self._execute(sql)

    def _learn_columns(self, statement: Statement, cursor: apsw.Cursor) -> Decoders:
        names = columns_of(cursor)
        if not names:
            # Before the first row of a statement there is nothing to decode.
            return ()
        statement.decoders = decoders(names, "sqlite")
        return statement.decoders


def columns_of(cursor: apsw.Cursor) -> list[str]:
    """The names of the columns; none where it does not stand on a row, by which alone it knows."""
    try:
        return [column[0] for column in cursor.get_description()]
    except apsw.ExecutionCompleteError:
        # It returned no rows, or is no query.
        return []
