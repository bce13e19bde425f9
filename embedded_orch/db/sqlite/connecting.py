"""How a SQLite connection is made: its safety switches and PRAGMAs, set and read back.

The same for every connection to a file, so that no connection is the odd one out. The order
matters in two places: checkpoint-on-close is turned off before anything else can fail and close
the connection, and the PRAGMAs are read back because SQLite ignores those it does not accept.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING
from uuid import UUID

import apsw
import msgspec

from embedded_orch import errors

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedded_orch.db.sqlite.options import SQLiteOptions

# "eorc" in ASCII: PRAGMA application_id of our files, as file(1) and other programs read it.
APPLICATION_ID = 0x656F_7263

_LIST = msgspec.json.Decoder(list[object])

INCREMENTAL = 2
_SYNCHRONOUS = {"OFF": 0, "NORMAL": 1, "FULL": 2}
# Enough for every statement of ours on one connection; the default of 100 is close to it.
_STATEMENT_CACHE = 256


def connect(
    path: str,
    options: SQLiteOptions,
    *,
    read_only: bool = False,
    in_memory: bool = False,
    look_first: Callable[[apsw.Connection, str], int] | None = None,
) -> apsw.Connection:
    """A connection with every setting of ours in force.

    Args:
        path: the file; ignored for ``in_memory``.
        options: the settings.
        read_only: refuse writes on this connection (``query_only``).
        in_memory: a private database without a file.
        look_first: is shown the connection before anything is set that changes the file, raises
            to leave the file alone, and returns the schema version that it found.

    Raises:
        DatabaseUnavailable: or what fits better of its kind; nothing was changed.
    """
    flags = apsw.SQLITE_OPEN_READWRITE | (0 if in_memory else apsw.SQLITE_OPEN_CREATE)
    try:
        connection = apsw.Connection(
            ":memory:" if in_memory else path,
            flags=flags,
            vfs=None if in_memory else options.vfs,
            statementcachesize=_STATEMENT_CACHE,
        )
    except apsw.Error as error:
        raise translate(error, path) from error
    try:
        _secure(connection, options)
        if connection.readonly("main"):
            # SQLite opens a file that may not be written for reading; the first write would tell.
            raise errors.DatabaseReadOnly(
                f"{path} cannot be written; check the rights of the file and of its folder"
            )
        if look_first is not None and look_first(connection, path) == 0:
            # Only possible while the file is empty; lets deleted rows give their room back.
            connection.pragma("auto_vacuum", INCREMENTAL)
        _configure(connection, options, read_only=read_only, in_memory=in_memory)
    except apsw.Error as error:
        connection.close()
        raise translate(error, path) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _secure(connection: apsw.Connection, options: SQLiteOptions) -> None:
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0)
    connection.config(apsw.SQLITE_DBCONFIG_DQS_DML, 0)
    connection.config(apsw.SQLITE_DBCONFIG_DQS_DDL, 0)
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    # A plan is made once for a statement, and not anew for each set of values: what some of our
    # statements cost was for the most part that (one that deletes a row 46 us instead of 10).
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    connection.set_busy_timeout(int(options.busy_timeout_seconds * 1000))
    connection.convert_binding = _convert_binding
    connection.create_scalar_function("has_all", _has_all, 2, deterministic=True)


def _configure(
    connection: apsw.Connection, options: SQLiteOptions, *, read_only: bool, in_memory: bool
) -> None:
    settings: dict[str, int | str] = {"foreign_keys": 1, "cache_size": options.cache_size}
    if not in_memory:
        if options.journal == "truncate":
            # One process only: the lock is taken once and kept, because on the file systems
            # that need this journal locks cannot be trusted to come and go.
            settings["locking_mode"] = "exclusive"
        settings["journal_mode"] = options.journal
        settings["synchronous"] = _SYNCHRONOUS[options.synchronous]
    for name, value in settings.items():
        answer = connection.pragma(name, value)
        found = connection.pragma(name) if answer is None else answer
        if found != value:
            raise errors.DatabaseUnavailable(
                f"PRAGMA {name} is {found!r} after it was set to {value!r}: this file or file "
                f"system does not allow it"
            )
    if not in_memory:
        if options.journal == "wal":
            connection.wal_autocheckpoint(0)
        else:
            # Now and not with the first write: two processes that have only read would both be in,
            # and neither could ever write.
            connection.execute("begin exclusive; commit")
    if read_only:
        connection.pragma("query_only", 1)


@lru_cache(maxsize=1_024)
def _has_all(held: str, wanted: str) -> bool:
    """The twin of the function that the Postgres schema brings.

    Runs have few different sets of tags, and a search asks each run for the same ones. Without the
    memory of answers a search through a million runs took 9.7 s, with it 0.9 s.
    """
    decoded: list[object] = _LIST.decode(held)
    return all(each in decoded for each in _LIST.decode(wanted))


def _convert_binding(_cursor: apsw.Cursor, number: int, value: object) -> bytes:
    if type(value) is UUID:
        # What ``value.bytes`` gives, without the call of a property: ten times a task.
        return value.int.to_bytes(16, "big")
    raise TypeError(f"parameter {number}: a {type(value).__qualname__} cannot be bound")


# What SQLite's errors mean to the person who gets them, the first that fits.
_MEANINGS: tuple[tuple[tuple[type[Exception], ...], type[errors.DatabaseError], str], ...] = (
    (
        (apsw.BusyError, apsw.LockedError),
        errors.DatabaseBusy,
        (
            "another process kept the database locked for longer than busy_timeout; find it, or "
            "open with a larger busy_timeout_seconds"
        ),
    ),
    (
        (apsw.ConnectionClosedError, apsw.CursorClosedError),
        errors.DatabaseClosed,
        "it was closed during the call; open it again",
    ),
    (
        (apsw.FullError,),
        errors.DatabaseFull,
        "the disk is full; nothing of this transaction was kept. Free some room and call again",
    ),
    (
        (apsw.ReadOnlyError, apsw.PermissionsError, apsw.AuthError),
        errors.DatabaseReadOnly,
        "it cannot be written; check the rights of the file and of its folder",
    ),
    (
        (apsw.NotADBError,),
        errors.NotOurDatabase,
        "this is no SQLite database and was left as it is; name another file",
    ),
    (
        (apsw.CorruptError,),
        errors.DatabaseDamaged,
        (
            "it is damaged or truncated and was left as it is; restore a backup, or look at it "
            "with `embedded-orch db check`"
        ),
    ),
    (
        (apsw.ConstraintError,),
        errors.ConstraintViolated,
        "it would break a rule of the schema, and was rolled back",
    ),
    (
        (apsw.CantOpenError, apsw.IOError),
        errors.DatabaseUnavailable,
        "it cannot be opened or read; check that its folder exists and that the disk works",
    ),
)


def translate(error: Exception, path: str) -> errors.DatabaseError:
    """What an error of SQLite means to the person who gets it."""
    where = f"{path}: " if path else ""
    for kinds, meaning, advice in _MEANINGS:
        if isinstance(error, kinds):
            return meaning(f"{where}{advice} ({error})")
    return errors.TransactionFailed(f"{where}{type(error).__name__}: {error}")
