"""A person's query on Postgres: it reads, alone, within limits.

The statement becomes a cursor (DECLARE ... CURSOR FOR), which Postgres makes of queries only, by
the extended protocol, which takes one statement and no more. The transaction is READ ONLY, and
whatever the statement set (set_config) is rolled back with a savepoint. EXPLAIN and SHOW, of which
there are no cursors, run as they are.

READ ONLY keeps every table as it is. It does not take away what the user's role may do with
functions, such as ending other sessions of the same role: give the URL a role that may do little.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import psycopg
from psycopg.pq import TransactionStatus

from embedded_orch import errors
from embedded_orch.db.postgres.answering import answering_within
from embedded_orch.db.postgres.failures import is_disconnect, text_of, translate
from embedded_orch.db.postgres.transaction import checked
from embedded_orch.db.rows import Rows

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

    from embedded_orch.db.postgres.options import PostgresOptions
    from embedded_orch.db.queries import Query

_CURSOR_NAME = "embedded_orch_query"
_SAVEPOINT = "embedded_orch_query"
# In front of the first word there may be parentheses and comments.
_FIRST_WORD = re.compile(r"(?:[\s(]|/\*.*?\*/)*(\w*)", re.DOTALL)
_WITH_CURSOR = frozenset({"select", "table", "values", "with"})
_WITHOUT_CURSOR = frozenset({"explain", "show"})
_LONGEST_MILLISECONDS = 2**31 - 1

_READ_ONLY_TRANSACTION = "25006"
_QUERY_CANCELED = "57014"


def run_query(connection: Connection[TupleRow], query: Query, options: PostgresOptions) -> Rows:
    """The rows of a query.

    Args:
        connection: in a transaction, and nobody else's meanwhile; left as it was.
        query: what to run.
        options: of the database.

    Raises:
        StatementRefused: it is wrong, would do more than read, took too long or found too much.
        DatabaseBusy: another transaction keeps a table locked.
        psycopg.Error: the session has ended.
    """
    word = _first_word(query.text)
    try:
        values = checked(query.values)
    except TypeError as error:
        raise errors.StatementRefused(str(error)) from error
    connection.execute(_preparation(query), prepare=False)
    try:
        # The server ends it in the time that was asked for.
        with answering_within(connection, None):
            if word in _WITHOUT_CURSOR:
                return _run_directly(connection, query, values)
            return _run_as_cursor(connection, query, values)
    except psycopg.Error as error:
        if is_disconnect(error, connection):
            raise
        raise _explained(error, query, options) from error
    finally:
        if connection.pgconn.transaction_status in (
            TransactionStatus.INTRANS,
            TransactionStatus.INERROR,
        ):
            undo = f"rollback to savepoint {_SAVEPOINT}; release savepoint {_SAVEPOINT}"
            connection.execute(undo.encode(), prepare=False)


def _first_word(text: str) -> str:
    match = _FIRST_WORD.match(text)
    word = match[1].lower() if match is not None else ""
    if word not in _WITH_CURSOR | _WITHOUT_CURSOR:
        raise errors.StatementRefused(
            f"only reading is allowed: a statement begins with "
            f"{', '.join(sorted(_WITH_CURSOR | _WITHOUT_CURSOR))}, and this one with "
            f"{word or text[:20]!r}"
        )
    return word


def _preparation(query: Query) -> bytes:
    # In this order, because infinity is no number of milliseconds.
    limit = max(1, round(min(query.timeout_seconds * 1000, _LONGEST_MILLISECONDS)))
    # Sooner than the statement's own limit, so that waiting is told from working.
    lock_limit = max(1, limit * 9 // 10)
    return (
        f"savepoint {_SAVEPOINT}; set local transaction_read_only = on; "
        f"set local statement_timeout = {limit}; set local lock_timeout = {lock_limit}"
    ).encode()


def _run_as_cursor(
    connection: Connection[TupleRow], query: Query, values: tuple[object, ...]
) -> Rows:
    with psycopg.RawServerCursor(connection, _CURSOR_NAME, scrollable=False) as cursor:
        cursor.execute(query.text.encode(), values)
        columns = [column.name for column in cursor.description or ()]
        rows = cursor.fetchmany(query.max_rows + 1)
    return _counted(query, columns, rows)


def _run_directly(
    connection: Connection[TupleRow], query: Query, values: tuple[object, ...]
) -> Rows:
    # A binary answer is what makes psycopg use the extended protocol without parameters.
    cursor = connection.execute(query.text.encode(), values, prepare=False, binary=True)
    columns = [column.name for column in cursor.description or ()]
    return _counted(query, columns, cursor.fetchmany(query.max_rows + 1))


def _counted(query: Query, columns: list[str], rows: list[TupleRow]) -> Rows:
    if len(rows) > query.max_rows:
        raise query.found_too_much()
    return Rows(columns, rows)


def _explained(
    error: psycopg.Error, query: Query, options: PostgresOptions
) -> errors.DatabaseError:
    if error.sqlstate == _QUERY_CANCELED:
        return query.took_too_long()
    if error.sqlstate == _READ_ONLY_TRANSACTION:
        return errors.StatementRefused(f"only reading is allowed: {text_of(error)}")
    return translate(error, options)
