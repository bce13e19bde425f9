"""Opening a SQLite file with everything that protects it, in the order that the parts need."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING

from embedded_orch import errors
from embedded_orch.db import fork
from embedded_orch.db.sqlite.database import SQLiteDatabase
from embedded_orch.db.sqlite.filesystems import refuse_network_filesystem
from embedded_orch.db.sqlite.guard import FileGuard
from embedded_orch.db.sqlite.migrating import refuse_foreign_file

if TYPE_CHECKING:
    from embedded_orch.db.sqlite.options import SQLiteOptions
    from embedded_orch.process import Process

_PRIVATE_FOLDER = 0o700
_PRIVATE_FILE = 0o600


def create_file(path: str, options: SQLiteOptions) -> tuple[int, int]:
    """Make the file, empty and readable by its owner alone, if it does not exist.

    SQLite gives its log and index the rights of the file, so they are private too. An existing
    file is not opened: closing our descriptor would drop the locks of whoever has it open here.

    Returns:
        Device and inode, which tell one file under two names.

    Raises:
        NetworkFilesystem: write-ahead logging would not work where it lies.
        DatabaseUnavailable: it cannot be made, or is no file.
    """
    if options.journal == "wal":
        refuse_network_filesystem(path)
    try:
        _make_folder(os.path.dirname(path), is_synced=options.durability == "full")
        if not os.path.exists(path):
            # Not even tried on a file that is open here: the audit hook refuses every open().
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
    if not stat.S_ISREG(found.st_mode):
        what = "a folder" if stat.S_ISDIR(found.st_mode) else "no regular file"
        raise errors.DatabaseUnavailable(f"{path} is {what}; name a file, which may be a new one")
    return found.st_dev, found.st_ino


def _make_folder(folder: str, *, is_synced: bool) -> None:
    """Make a folder that only its owner may enter, with those above it.

    The log's first sync makes the name of the file durable, and not those of folders above it.
    """
    new_folders: list[str] = []
    above = folder
    while not os.path.exists(above):
        new_folders.append(above)
        above = os.path.dirname(above)
    os.makedirs(folder, mode=_PRIVATE_FOLDER, exist_ok=True)
    if is_synced and os.name == "posix":
        from embedded_orch.db.sqlite.copying import to_disk

        for new in reversed(new_folders):
            to_disk(os.path.dirname(new), os.O_RDONLY)


def open_file(
    path: str, options: SQLiteOptions, process: Process, *, upgrade: bool = True
) -> SQLiteDatabase:
    """Open the file and bring its schema up to date.

    Args:
        path: a file that exists; it may be empty.
        options: its settings.
        process: whose clock dates the migrations.
        upgrade: leave the schema as it is when false.

    Raises:
        ForkedProcess: the parent had it open when this process was forked.
        DatabaseError: what else keeps it from being opened; the file was not changed.
    """
    fork.refuse_inherited(path)
    # Before anything is put beside a file that is not ours.
    refuse_foreign_file(path, options)
    had_lock_file = os.path.exists(f"{os.path.realpath(path)}-lock")
    guard = FileGuard(path, busy_timeout=options.busy_timeout_seconds)
    try:
        database = SQLiteDatabase(path, options, guard)
    except BaseException as error:
        guard.close()
        if isinstance(error, errors.NotOurDatabase) and not had_lock_file:
            # Beside a file that is another program's, nobody else has a use for it.
            os.unlink(guard.lock_path)
        raise
    try:
        if upgrade:
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
