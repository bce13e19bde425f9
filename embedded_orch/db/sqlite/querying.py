"""A person's query on SQLite: it reads, alone, within limits, and cannot do anything else.

Four walls stand behind one another, because each has a gap that is somebody's clever idea:

- an authorizer, which SQLite asks about each thing that a statement wants while it compiles it:
  reading is allowed, with functions that SQLite marks as innocuous and pragmas that only tell;
- ``query_only``, which holds at run time too;
- the statement itself says that it is read-only (VACUUM is compiled without a question to the
  authorizer), and it is the only one in the text;
- limits for what one statement may consist of and build ("Defense Against The Dark Arts",
  https://www.sqlite.org/security.html, section 1.1).

The connection is one that others use too, in memory the only one there is; all of this is taken
away again afterwards. The statement runs in a transaction that its caller has begun.
"""

from __future__ import annotations

import re
import threading
from contextlib import contextmanager
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING

import apsw

from embedded_orch import errors
from embedded_orch.db.rows import Rows
from embedded_orch.db.sqlite.connecting import translate

if TYPE_CHECKING:
    from collections.abc import Generator

    from embedded_orch.db.queries import Query

_READING = frozenset({apsw.SQLITE_SELECT, apsw.SQLITE_READ, apsw.SQLITE_RECURSIVE})
# Pragmas about one table or index, which they take as their argument, and about the whole.
_PRAGMAS_WITH_NAME = frozenset(
    {
        "foreign_key_check",
        "foreign_key_list",
        "index_info",
        "index_list",
        "index_xinfo",
        "integrity_check",
        "quick_check",
        "table_info",
        "table_list",
        "table_xinfo",
    }
)
# With an argument they would set what they are asked for.
_PRAGMAS_ALONE = _PRAGMAS_WITH_NAME | {
    "application_id",
    "collation_list",
    "compile_options",
    "database_list",
    "encoding",
    "foreign_keys",
    "freelist_count",
    "function_list",
    "module_list",
    "page_count",
    "page_size",
    "pragma_list",
    "schema_version",
    "synchronous",
    "user_version",
}
_INNOCUOUS = 0x0020_0000
# Not marked innocuous, and harmless: aggregates that an extension brings, and our own.
_MORE_FUNCTIONS = frozenset(
    {"has_all", "median", "percentile", "percentile_cont", "percentile_disc"}
)
_LIMITS = {
    apsw.SQLITE_LIMIT_LENGTH: 100_000_000,  # bytes of one value, or of one row
    apsw.SQLITE_LIMIT_SQL_LENGTH: 100_000,
    apsw.SQLITE_LIMIT_COLUMN: 500,
    apsw.SQLITE_LIMIT_EXPR_DEPTH: 200,
    apsw.SQLITE_LIMIT_COMPOUND_SELECT: 50,
    apsw.SQLITE_LIMIT_VDBE_OP: 250_000,
    apsw.SQLITE_LIMIT_FUNCTION_ARG: 127,
    apsw.SQLITE_LIMIT_ATTACHED: 0,
    apsw.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1_000,
    apsw.SQLITE_LIMIT_WORKER_THREADS: 0,
}
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
# How often a statement is told again to stop, until it does.
_REPEAT_SECONDS = 0.05


def run_query(connection: apsw.Connection, query: Query) -> Rows:
    """The rows of a query.

    Args:
        connection: in a transaction, and nobody else's meanwhile; left as it was.
        query: what to run.

    Raises:
        StatementRefused: it is wrong, would do more than read, took too long or found too much.
        DatabaseError: the database cannot be read.
    """
    examination = _Examination(query.text)
    limit = _TimeLimit(connection, query.timeout_seconds)
    try:
        with _only_reading(connection, examination), limit:
            return _fetch(connection, query, examination)
    except apsw.Error as error:
        raise _explained(error, query, examination, limit) from error
    except TypeError as error:
        # A value that is no SQL value, from the binding of the parameters.
        raise errors.StatementRefused(str(error)) from error


def _fetch(connection: apsw.Connection, query: Query, examination: _Examination) -> Rows:
    cursor = connection.cursor()
    cursor.exec_trace = examination.look_at
    try:
        found = cursor.execute(query.text, query.values)
        rows = list(islice(found, query.max_rows))
        if len(rows) == query.max_rows and next(found, None) is not None:
            raise query.found_too_much()
    finally:
        # Forced: a statement that was stopped would raise its error once more.
        cursor.close(True)
    if examination.columns is None:
        raise errors.StatementRefused("there is no statement to run")
    return Rows(examination.columns, rows)


class _Examination:
    """Looks at a statement while SQLite compiles it, and before it runs.

    Attributes:
        refused: what the statement wanted and was not given; None when it only reads.
        columns: the names of its columns; None until it is about to run.
    """

    __slots__ = ("_text", "columns", "refused")

    def __init__(self, text: str) -> None:
        self._text = text
        self.refused: str | None = None
        self.columns: list[str] | None = None

    def authorize(
        self,
        operation: int,
        first: str | None,
        second: str | None,
        database: str | None,
        inside: str | None,
    ) -> int:
        """Answer SQLite's question whether a statement may do something."""
        if operation in _READING:
            return apsw.SQLITE_OK
        if operation == apsw.SQLITE_FUNCTION and (second or "").lower() in _allowed_functions():
            return apsw.SQLITE_OK
        if operation == apsw.SQLITE_PRAGMA:
            allowed = _PRAGMAS_ALONE if second is None else _PRAGMAS_WITH_NAME
            if (first or "").lower() in allowed:
                return apsw.SQLITE_OK
        if self.refused is None:
            self.refused = _described(operation, first, second)
        return apsw.SQLITE_DENY

    def look_at(self, cursor: apsw.Cursor, text: str, bindings: object) -> bool:
        """Called before each statement of the text runs."""
        if not _without_comments(text):
            return True
        if self.columns is not None or _without_comments(self._text[len(text) :]):
            raise errors.StatementRefused("one statement at a time, and this text holds several")
        if not cursor.is_readonly:
            raise errors.StatementRefused(f"only reading is allowed, and this writes: {text[:60]}")
        # A statement without rows tells its columns only now.
        self.columns = [column[0] for column in cursor.get_description()]
        return True


class _TimeLimit:
    """Interrupts the connection when the time of its ``with`` block is over.

    By a thread and not by SQLite's progress handler: that one needs the interpreter's lock, which
    beside a busy Python thread costs 5 ms each time (measured: a query of 1.2 s took 3.6 s), and
    it is not called while a single function builds a large value.
    """

    __slots__ = ("_connection", "_is_over", "_lock", "_seconds", "_thread", "has_stopped")

    def __init__(self, connection: apsw.Connection, seconds: float) -> None:
        self._connection = connection
        self._seconds = min(seconds, threading.TIMEOUT_MAX)
        self._is_over = threading.Event()
        self._lock = threading.Lock()
        self.has_stopped = False
        self._thread = threading.Thread(
            target=self._watch, name="embedded_orch query time limit", daemon=True
        )

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            # From here on an interrupt would hit the statement of another caller.
            self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        self._is_over.wait(self._seconds)
        while True:
            with self._lock:
                if self._is_over.is_set():
                    return
                self.has_stopped = True
                # Forgotten by SQLite when no statement runs at this moment; hence again.
                self._connection.interrupt()
            self._is_over.wait(_REPEAT_SECONDS)


@contextmanager
def _only_reading(connection: apsw.Connection, examination: _Examination) -> Generator[None]:
    """A connection that can only read, for the length of a ``with`` block."""
    # Asked before the authorizer is there, which would refuse it.
    _allowed_functions()
    was_query_only = connection.pragma("query_only")
    connection.pragma("query_only", 1)
    limits = {limit: connection.limit(limit, -1) for limit in _LIMITS}
    try:
        for limit, most in _LIMITS.items():
            connection.limit(limit, most)
        connection.authorizer = examination.authorize
        yield
    finally:
        connection.authorizer = None
        for limit, before in limits.items():
            connection.limit(limit, before)
        connection.pragma("query_only", was_query_only)


@cache
def _allowed_functions() -> frozenset[str]:
    """The functions that can neither change anything nor tell of anything but their arguments."""
    connection = apsw.Connection(":memory:")
    try:
        found = connection.execute(
            "select name from pragma_function_list group by name having min(flags & ?) <> 0",
            (_INNOCUOUS,),
        )
        return _MORE_FUNCTIONS.union(str(name).lower() for (name,) in found)
    finally:
        connection.close()


def _without_comments(text: str) -> str:
    return _COMMENT.sub("", text).strip(" \t\r\n;")


def _described(operation: int, first: str | None, second: str | None) -> str:
    if operation == apsw.SQLITE_FUNCTION:
        return f"the function {second}"
    kind = apsw.mapping_authorizer_function[operation]
    word = str(kind).removeprefix("SQLITE_").replace("_", " ")
    named = " ".join(each for each in (first, second) if each)
    return f"{word} {named}".rstrip()


def _explained(
    error: apsw.Error, query: Query, examination: _Examination, limit: _TimeLimit
) -> errors.DatabaseError:
    if isinstance(error, apsw.InterruptError) and limit.has_stopped:
        return query.took_too_long()
    if examination.refused is not None:
        return errors.StatementRefused(
            f"only reading is allowed, and this statement asks for {examination.refused}"
        )
    if isinstance(error, apsw.ReadOnlyError):
        return errors.StatementRefused(f"only reading is allowed, and this writes: {error}")
    if isinstance(error, apsw.TooBigError):
        return errors.StatementRefused(
            f"a value, a row or the text of the statement is too long for sql(): {error}"
        )
    if isinstance(error, apsw.BindingsError):
        return errors.StatementRefused(
            f"parameters are written :name, in lower-case letters, and nothing else is bound: "
            f"{query.text[:200]}"
        )
    if isinstance(error, apsw.SQLError | apsw.MismatchError | apsw.RangeError):
        return errors.StatementRefused(f"{error}: {query.text[:200]}")
    return translate(error, "")
