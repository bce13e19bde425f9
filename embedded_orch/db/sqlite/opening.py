"""Opening a SQLite file with everything that protects it, in the order that the parts need."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

from embedded_orch import errors
from embedded_orch.db import fork
from embedded_orch.db.sqlite.database import SQLiteDatabase
from embedded_orch.db.sqlite.filesystems import refuse_network_filesystem
from embedded_orch.db.sqlite.guard import FileGuard

if TYPE_CHECKING:
    from embedded_orch.db.sqlite.options import SQLiteOptions
    from embedded_orch.process import Process

_PRIVATE_FOLDER = 0o700
_PRIVATE_FILE = 0o600


def create_file(path: str) -> tuple[int, int]:
    """Make the file, empty and readable by its owner alone, if it does not exist.

    SQLite gives its log and index the rights of the file, so they are private too. An existing
    file is not opened: closing our descriptor would drop the locks of whoever has it open here.

    Returns:
        Device and inode, which tell one file under two names.
    """
    try:
        os.makedirs(os.path.dirname(path), mode=_PRIVATE_FOLDER, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, _PRIVATE_FILE))
        found = os.stat(path)
    except OSError as error:
        kind = (
            errors.DatabaseReadOnly
            if isinstance(error, PermissionError) or error.errno == errno.EROFS
            else errors.DatabaseUnavailable
        )
        raise kind(
            f"{path} cannot be made or opened: {error.strerror}; name a file in a folder that you "
            f"can write"
        ) from error
    return found.st_dev, found.st_ino


def open_file(path: str, options: SQLiteOptions, process: Process) -> SQLiteDatabase:
    """Open the file and bring its schema up to date.

    Raises:
        NetworkFilesystem: write-ahead logging would not work where it lies.
        ForkedProcess: the parent had it open when this process was forked.
        DatabaseError: what else keeps it from being opened; the file was not changed.
    """
    if options.journal == "wal":
        refuse_network_filesystem(path)
    fork.refuse_inherited(path)
    guard = FileGuard(path, busy_timeout=options.busy_timeout_seconds)
    try:
        database = SQLiteDatabase(path, options, guard)
    except BaseException:
        guard.close()
        raise
    try:
        database.migrate(process)
    except BaseException:
        database.close()
        raise
    return database


def open_memory(options: SQLiteOptions, process: Process) -> SQLiteDatabase:
    """A new database in memory."""
    database = SQLiteDatabase(None, options, None)
    database.migrate(process)
    return database
