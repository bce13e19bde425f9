"""VACUUM of the tables of our schema, and REINDEX of its indexes, outside of any transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from embedded_orch.db.postgres.answering import answering_within
from embedded_orch.db.postgres.connecting import settings_statement
from embedded_orch.db.postgres.failures import translate

if TYPE_CHECKING:
    from typing import LiteralString

    from psycopg import Connection
    from psycopg.rows import TupleRow

    from embedded_orch.db.postgres.options import PostgresOptions

_TABLES = (
    "select relname from pg_catalog.pg_class as class"
    " join pg_catalog.pg_namespace as namespace on namespace.oid = class.relnamespace"
    " where namespace.nspname = $1 and class.relkind = 'r' order by relname"
)
_INVALID_INDEXES = (
    "select class.relname from pg_catalog.pg_index as index"
    " join pg_catalog.pg_class as class on class.oid = index.indexrelid"
    " join pg_catalog.pg_namespace as namespace on namespace.oid = class.relnamespace"
    " where namespace.nspname = $1 and not (index.indisvalid and index.indisready)"
)


def vacuum(connection: Connection[TupleRow], options: PostgresOptions) -> None:
    """Clear the tables of removed rows, and count what they hold.

    Args:
        connection: outside of any transaction, and nobody else's meanwhile.
        options: of the database.

    Raises:
        DatabaseError: the server refused, or ended it.
    """
    _run_on_each(connection, options, _TABLES, "vacuum (analyze) {}")


def rebuild_indexes(connection: Connection[TupleRow], options: PostgresOptions) -> None:
    """Build the indexes anew that are invalid; the arguments and errors of :func:`vacuum`."""
    _run_on_each(connection, options, _INVALID_INDEXES, "reindex index {}")


def _run_on_each(
    connection: Connection[TupleRow],
    options: PostgresOptions,
    names: LiteralString,
    statement: LiteralString,
) -> None:
    try:
        rows = connection.execute(names, (options.schema_name,)).fetchall()
        # A large table takes longer than any statement of ours may.
        connection.execute("set statement_timeout = 0", prepare=False)
        try:
            with answering_within(connection, None):
                for (name,) in rows:
                    named = sql.Identifier(options.schema_name, name)
                    connection.execute(sql.SQL(statement).format(named), prepare=False)
        finally:
            if not connection.closed:
                connection.execute(_timeout_statement(options), prepare=False)
    except psycopg.Error as error:
        raise translate(error, options) from error


def _timeout_statement(options: PostgresOptions) -> bytes:
    if options.settles_each_transaction:
        # There each transaction brings its own.
        return b"reset statement_timeout"
    return settings_statement(options, local=False)
