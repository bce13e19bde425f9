"""What psycopg's errors mean: which exception of ours, and what to do about it.

A statement's error carries a code (SQLSTATE), and a table of codes decides. libpq gives none when
connecting fails, only the server's text, so those errors are told apart by their English wording;
in another language they come out as ``DatabaseUnavailable`` with the server's own words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedded_orch.errors import (
    AuthenticationFailed,
    CommitOutcomeUnknown,
    ConstraintViolated,
    DatabaseBusy,
    DatabaseDamaged,
    DatabaseError,
    DatabaseFull,
    DatabaseReadOnly,
    DatabaseUnavailable,
    StatementRefused,
    TransactionFailed,
)

if TYPE_CHECKING:
    from psycopg import Connection, Error
    from psycopg.rows import TupleRow

    from embedded_orch.db.postgres.options import PostgresOptions

# The session is gone, whatever the connection object still says.
_SESSION_ENDED = frozenset({"57P01", "57P02", "57P03", "57P05", "25P03"})

_SERIALIZATION_FAILURE, _DEADLOCK = "40001", "40P01"
_FEATURE_NOT_SUPPORTED = "0A000"

_Kind = tuple[type[DatabaseError], str]

# What a refused connection says -> what it means. The first row that fits is taken.
_CONNECTING: tuple[tuple[tuple[str, ...], _Kind], ...] = (
    (
        ("no password supplied",),
        (
            AuthenticationFailed,
            "the server asks for a password: put it into the URL, PGPASSWORD or ~/.pgpass",
        ),
    ),
    (
        ("authentication failed", "no pg_hba.conf entry", "not permitted to log in"),
        (AuthenticationFailed, "check user and password, and the server's pg_hba.conf"),
    ),
    (
        ("permission denied for database",),
        (AuthenticationFailed, "the user may not connect to this database: GRANT CONNECT ON it"),
    ),
    (
        ("too many clients", "connection slots are reserved", "too many connections"),
        (
            DatabaseUnavailable,
            (
                "the server has no connection left: lower pool_size and max_overflow, which count "
                "for each process, or raise its max_connections"
            ),
        ),
    ),
    (
        ("starting up", "shutting down", "recovery mode", "not yet accepting"),
        (DatabaseUnavailable, "the server is starting or stopping: try again in a moment"),
    ),
    (
        ("could not translate host name", "failed to resolve"),
        (DatabaseUnavailable, "the host name is not known here: check its spelling"),
    ),
    (
        ("Connection refused", "No such file or directory", "actively refused"),
        (DatabaseUnavailable, "nothing listens there: is the server started, the port right?"),
    ),
    (
        ("timeout expired", "timed out"),
        (DatabaseUnavailable, "no answer in time: check address, port and firewall"),
    ),
    (
        ("session is read-only", "session is not read-only", "hot standby mode"),
        (DatabaseUnavailable, "no server of the wanted kind: check target_session_attrs"),
    ),
    (
        ("SSL", "certificate", "TLS", "private key"),
        (DatabaseUnavailable, "no agreement about TLS: check sslmode and the sslrootcert file"),
    ),
)
_DATABASE_MISSING: _Kind = (
    DatabaseUnavailable,
    "create it first (createdb): the schema in it is made here, the database is not",
)
_ROLE_MISSING: _Kind = (AuthenticationFailed, "the server has no such user: check the URL")

# SQLSTATE, or its first two characters for the whole class -> exception and what to do.
# https://www.postgresql.org/docs/current/errcodes-appendix.html
_BY_STATE: dict[str, _Kind] = {
    "08": (DatabaseUnavailable, "the connection was lost"),
    "08P01": (StatementRefused, "the statement and its values do not go together"),
    "0A": (StatementRefused, "the server does not support this"),
    "22": (StatementRefused, "a value does not fit"),
    "23": (ConstraintViolated, "nothing was changed"),
    "25": (TransactionFailed, "the transaction cannot go on and was rolled back"),
    "25006": (
        DatabaseReadOnly,
        "the server takes no writes: it is a standby, or default_transaction_read_only is on",
    ),
    "25P03": (TransactionFailed, "the server ended a transaction that stood idle for too long"),
    "26": (
        StatementRefused,
        "a pooler between us and the server mixes sessions: set prepared_statement_cache_size=0",
    ),
    "28": (AuthenticationFailed, "check user and password"),
    "3D000": _DATABASE_MISSING,
    "3F000": (StatementRefused, "the schema is not there: `embedded-orch db upgrade` makes it"),
    "40": (TransactionFailed, "it was rolled back and may be run again"),
    "40003": (CommitOutcomeUnknown, "whether it was committed is not known"),
    "42": (StatementRefused, "the statement is wrong for this database"),
    "42501": (
        DatabaseUnavailable,
        "the user lacks a right: it needs CREATE on the database, or to own our schema",
    ),
    "42P01": (
        StatementRefused,
        "if it is a table of ours, `embedded-orch db upgrade` brings the schema up to date",
    ),
    "42P05": (
        StatementRefused,
        "a pooler between us and the server mixes sessions: set prepared_statement_cache_size=0",
    ),
    "53": (DatabaseUnavailable, "the server is short of a resource"),
    "53100": (DatabaseFull, "free some space on the server; nothing was changed"),
    "53300": (DatabaseUnavailable, "the server has no connection left"),
    "55P03": (DatabaseBusy, "another transaction holds the lock"),
    "57": (DatabaseUnavailable, "the server ended the connection: try again in a moment"),
    "57014": (TransactionFailed, "it was stopped and rolled back"),
    "58": (DatabaseUnavailable, "the server cannot work with its files: see its log"),
    "XX001": (DatabaseDamaged, "the server found damaged data: see its log before going on"),
    "XX002": (DatabaseDamaged, "the server found a damaged index: REINDEX it"),
}


def translate(error: Error, options: PostgresOptions) -> DatabaseError:
    """The exception of ours for one of psycopg's, which becomes its cause."""
    state = error.sqlstate
    text = text_of(error)
    if state is None:
        kind, advice = _without_state(error, text)
        text = f"{text} ({options.safe_url})"
    else:
        kind, advice = _BY_STATE.get(state) or _BY_STATE.get(state[:2]) or (DatabaseError, "")
        if state == "57014":
            advice += f" (command_timeout_seconds={options.command_timeout_seconds})"
    translated = kind(f"{text}: {advice}" if advice else f"{text} (SQLSTATE {state})")
    translated.__cause__ = error
    return translated


def is_retryable(error: BaseException) -> bool:
    """Whether the same transaction, run again from its beginning, may well succeed.

    True for serialization failures and deadlocks, and for a prepared statement that a migration
    outdated: psycopg forgets it with the rollback. Takes psycopg's errors and ours.
    """
    found = _driver_error(error)
    if found is None:
        return False
    if found.sqlstate == _FEATURE_NOT_SUPPORTED:
        # "cached plan must not change result type"; by the function's name in any language.
        return found.diag.source_function == "RevalidateCachedQuery"
    return found.sqlstate in (_SERIALIZATION_FAILURE, _DEADLOCK)


def is_disconnect(error: BaseException, connection: Connection[TupleRow] | None = None) -> bool:
    """Whether the session is gone, so that the connection is of no more use.

    When this happened in a COMMIT, the transaction may have been committed all the same.
    """
    if connection is not None and connection.closed:
        return True
    found = _driver_error(error)
    if found is None:
        return False
    from psycopg import InterfaceError, OperationalError

    state = found.sqlstate
    if state is None:
        return isinstance(found, (OperationalError, InterfaceError))
    # 08P01 is also the answer to a wrong number of parameters, which ends nothing.
    return state in _SESSION_ENDED or (state.startswith("08") and state != "08P01")


def _driver_error(error: BaseException | None) -> Error | None:
    from psycopg import Error

    while error is not None and not isinstance(error, Error):
        error = error.__cause__
    return error


def _without_state(error: Error, text: str) -> _Kind:
    """What an error means that libpq or psycopg made, or that came while connecting."""
    from psycopg import InterfaceError, OperationalError

    if not isinstance(error, (OperationalError, InterfaceError)):
        return StatementRefused, "the statement and its values do not go together"
    if "does not exist" in text and 'role "' in text:
        return _ROLE_MISSING
    if "does not exist" in text and 'database "' in text:
        return _DATABASE_MISSING
    for fragments, kind in _CONNECTING:
        if any(fragment in text for fragment in fragments):
            return kind
    return DatabaseUnavailable, "no connection to the server"


def text_of(error: Error) -> str:
    """The server's main sentence, on one line; for a broken key also which value it was."""
    message = error.diag.message_primary
    if message is None:
        return " ".join(str(error).removeprefix("connection failed: ").split())
    # The detail of a CHECK or NOT NULL prints the whole row; a key's only names the key.
    detail = error.diag.message_detail
    if detail and error.sqlstate in ("23503", "23505"):
        message = f"{message} ({detail.rstrip('.')})"
    return message
