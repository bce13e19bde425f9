"""One connection to a Postgres server: opened, set up, and judged fit or not.

``connect`` opens a psycopg connection in autocommit, which only means that nobody but us says
BEGIN: ``begin_statement`` has the text. Statements are written with ``$1`` (psycopg's RawCursor).
JSON comes back as text, not decoded; whole numbers of any type as ``int``.
"""

from __future__ import annotations

import os
import select
from functools import lru_cache
from typing import TYPE_CHECKING

from embedded_orch.db.postgres.failures import is_disconnect, is_retryable, text_of, translate
from embedded_orch.db.postgres.options import require_driver
from embedded_orch.errors import ConfigurationError

if TYPE_CHECKING:
    from psycopg import Connection, Error
    from psycopg.adapt import AdaptersMap
    from psycopg.rows import TupleRow

    from embedded_orch.db.postgres.options import PostgresOptions

__all__ = [
    "answers",
    "begin_statement",
    "connect",
    "cut_off",
    "has_news",
    "is_disconnect",
    "is_retryable",
    "settings_statement",
    "settle",
    "translate",
]

# A statement is prepared when it runs for the third time on a connection.
_PREPARE_AFTER = 2

_IDLE_LIMIT = "idle_in_transaction_session_timeout"

# Refusals of a setting: unknown, wrong value, not changeable now, not allowed to this role.
_SETTING_REFUSED = frozenset({"42704", "22023", "55P02", "42501"})


def connect(options: PostgresOptions) -> Connection[TupleRow]:
    """A new connection, in autocommit, with our schema, time zone and limits set.

    Raises:
        MissingExtra: psycopg is not installed.
        ConfigurationError: the server refused one of the settings.
        DatabaseUnavailable: no connection, with the reason and what to do about it;
            ``AuthenticationFailed`` when it was the user or password.
    """
    require_driver()
    import psycopg
    from psycopg.conninfo import make_conninfo

    from embedded_orch.db.postgres.answering import AnsweringConnection

    cached = options.prepared_statement_cache_size
    try:
        connection = AnsweringConnection.connect(
            make_conninfo(**options.keywords()),
            autocommit=True,
            prepare_threshold=_PREPARE_AFTER if cached else None,
            context=_adapters(),
            cursor_factory=psycopg.RawCursor,
        )
    except psycopg.Error as error:
        raise translate(error, options) from error
    connection.prepared_max = cached or 0
    connection.answer_seconds = options.answer_seconds
    if options.settles_each_transaction:
        return connection
    try:
        connection.execute(settings_statement(options, local=False), prepare=False)
    except BaseException as error:
        connection.close()
        if isinstance(error, psycopg.Error):
            raise _setting_refused(error, options) from error
        raise
    return connection


def begin_statement(
    options: PostgresOptions,
    *,
    read_only: bool = False,
    one_snapshot: bool = False,
    stays_open: bool = False,
) -> bytes:
    """The text that begins a transaction, to be run without parameters and not prepared.

    Args:
        options: what the connection was opened with.
        read_only: the server refuses writes in it.
        one_snapshot: all its statements see one state of the database (REPEATABLE READ), where
            READ COMMITTED shows each statement what was committed before it.
        stays_open: a person's, which may rest between two statements for as long as it likes.
    """
    isolation = "REPEATABLE READ" if one_snapshot else "READ COMMITTED"
    access = "READ ONLY" if read_only else "READ WRITE"
    begin = f"BEGIN ISOLATION LEVEL {isolation} {access}".encode()
    if options.settles_each_transaction:
        # One message, one round trip. SET LOCAL ends with the transaction, so that nothing of ours
        # stays behind in a server session that the pooler hands to somebody else.
        begin += b"; " + settings_statement(options, local=True)
    if stays_open and _IDLE_LIMIT not in options.server_settings:
        begin += f"; SET LOCAL {_IDLE_LIMIT} TO DEFAULT".encode()
    return begin


def settings_statement(options: PostgresOptions, *, local: bool) -> bytes:
    """The statement that applies our settings to a session, or to the transaction only."""
    limit = options.command_timeout_seconds
    settings: dict[str, str] = {
        # pg_catalog is searched first without being named; public is not searched at all.
        "search_path": _quoted(f'"{options.schema_name}"'),
        "timezone": _quoted("UTC"),
        "default_transaction_isolation": _quoted("read committed"),
        "default_transaction_read_only": _quoted("off"),
        "statement_timeout": _quoted(str(0 if limit is None else max(1, round(limit * 1000)))),
    }
    if limit is not None:
        # When a connection goes silent the server keeps what was locked on it. Whoever waits for
        # that, as the same transaction does when it is run again, must not be stopped before.
        settings[_IDLE_LIMIT] = _quoted(str(max(1, round(limit * 500))))
    if options.durability == "full":
        # Turned on where it is off; a server that waits for its standbys keeps doing so.
        current = "current_setting('synchronous_commit')"
        settings["synchronous_commit"] = f"CASE {current} WHEN 'off' THEN 'on' ELSE {current} END"
    elif options.durability == "off":
        settings["synchronous_commit"] = _quoted("off")
    for name, value in options.server_settings.items():
        text = ("on" if value else "off") if isinstance(value, bool) else str(value)
        settings[name] = _quoted(text)
    scope = "true" if local else "false"
    calls = (f"set_config({_quoted(name)}, {value}, {scope})" for name, value in settings.items())
    return ("SELECT " + ", ".join(calls)).encode()


def settle(connection: Connection[TupleRow]) -> bool:
    """Roll back what was left open; False if the connection cannot be used again."""
    from psycopg import Error
    from psycopg.pq import TransactionStatus

    status = connection.pgconn.transaction_status
    if status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
        try:
            connection.rollback()
        except Error:
            # It is closed instead, and the server rolls back by itself.
            return False
        status = connection.pgconn.transaction_status
    # Not idle: interrupted in the middle of an answer, or lost.
    return status == TransactionStatus.IDLE


def has_news(connection: Connection[TupleRow]) -> bool:
    """Whether the server sent something unasked: nearly always that it ended the session."""
    if connection.closed:
        return True
    descriptor = connection.pgconn.socket
    if not hasattr(select, "poll"):
        # Windows, where select() takes any socket; elsewhere it breaks above 1023.
        return bool(select.select([descriptor], [], [], 0)[0])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def answers(connection: Connection[TupleRow], within_seconds: float) -> bool:
    """Whether the server answers the cheapest question there is, the empty statement, in time."""
    from psycopg import Error

    from embedded_orch.db.postgres.answering import answering_within

    try:
        with answering_within(connection, within_seconds):
            connection.execute(b"", prepare=False)
    except Error:
        # Whatever is wrong with it, a new connection takes its place, and that one's errors
        # are the caller's.
        return False
    return True


def cut_off(connection: Connection[TupleRow]) -> None:
    """Put /dev/null in the place of a connection's socket, in this process only."""
    if connection.closed:
        return
    null = os.open(os.devnull, os.O_RDWR)
    try:
        os.dup2(null, connection.pgconn.socket, inheritable=False)
    finally:
        os.close(null)


def _setting_refused(error: Error, options: PostgresOptions) -> Exception:
    if error.sqlstate in _SETTING_REFUSED:
        return ConfigurationError(
            f"the server refused a setting: {text_of(error)}; check server_settings, "
            f"schema_name and durability for {options.safe_url}"
        )
    return translate(error, options)


def _quoted(text: str) -> str:
    """A string literal that reads the same with standard_conforming_strings on and off."""
    escaped = text.replace("'", "''")
    return f" E'{escaped}'".replace("\\", "\\\\") if "\\" in text else f"'{escaped}'"


@lru_cache(maxsize=1)
def _adapters() -> AdaptersMap:
    """How values travel, where that differs from psycopg's defaults."""
    import psycopg
    from psycopg.adapt import AdaptersMap, Loader
    from psycopg.types.numeric import Int8BinaryDumper
    from psycopg.types.string import TextLoader

    class WholeNumberLoader(Loader):
        """``sum(bigint)`` is numeric: an int when whole, else a float, as SQLite has it."""

        def load(self, data: bytes | bytearray | memoryview) -> int | float:
            text = bytes(data)
            return int(text) if text.lstrip(b"-").isdigit() else float(text)

    adapters = AdaptersMap(psycopg.adapters)
    # psycopg picks smallint, integer or bigint by the value: the same statement would be
    # prepared up to three times, and `$1 * 1000000` overflows as integer for small values only.
    adapters.register_dumper(int, Int8BinaryDumper)
    # Decoded above, by column, with msgspec.
    adapters.register_loader("json", TextLoader)
    adapters.register_loader("jsonb", TextLoader)
    adapters.register_loader("numeric", WholeNumberLoader)
    return adapters
