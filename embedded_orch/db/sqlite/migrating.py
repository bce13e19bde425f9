"""Bringing a SQLite file to the schema of this program.

The usual case is one look at ``user_version``, already made when the file was opened. Otherwise
every step is taken under the lock between processes: the first of several processes that open the
file at once migrates it, and the others find it done. A file that holds data is backed up before.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import apsw

from embedded_orch import errors
from embedded_orch.db.migrations import migrations, pending
from embedded_orch.db.sqlite.connecting import APPLICATION_ID, translate
from embedded_orch.db.sqlite.rebuilding import apply_script
from embedded_orch.db.statements import Catalog

if TYPE_CHECKING:
    from embedded_orch.db.migrations import Migration
    from embedded_orch.db.sqlite.guard import FileGuard
    from embedded_orch.process import Process


def identify(connection: apsw.Connection, path: str) -> int:
    """The schema version of a file that may be anything, found without changing it.

    Returns:
        0 for an empty file, else the version of our schema in it.

    Raises:
        NotOurDatabase: another program's.
        DatabaseDamaged: truncated or corrupt.
    """
    application_id = connection.pragma("application_id")
    version = int(connection.pragma("user_version"))
    if application_id == APPLICATION_ID:
        return version
    tables = connection.execute("select count(*) from sqlite_schema").get
    if application_id != 0 or tables != 0:
        raise errors.NotOurDatabase(
            f"{path} is a SQLite database of another program and was left as it is; name another "
            f"file"
        )
    return 0


def migrate(
    connection: apsw.Connection,
    guard: FileGuard | None,
    path: str | None,
    *,
    process: Process,
    folder: str | None = None,
) -> None:
    """Apply the migrations that the database lacks, each in a transaction of its own.

    Args:
        connection: the write connection, outside of a transaction; nobody else uses it meanwhile.
        guard: the lock between processes; None in memory.
        path: the file; None in memory.
        process: whose clock dates the record.
        folder: where the migrations lie; the package's own when not given.
    """
    where = path or ":memory:"
    known = migrations("sqlite", folder)
    version = int(connection.pragma("user_version"))
    if version == len(known):
        return
    if version > len(known):
        pending(known, [(number, "newer", "") for number in range(1, version + 1)], where)
    if path is not None and version > 0:
        _back_up(connection, path, version)
    catalog = Catalog("sqlite")
    while True:
        if guard is not None:
            guard.acquire_write()
        try:
            if _apply_next(connection, catalog, known, where, process):
                return
        except apsw.Error as error:
            raise errors.MigrationFailed(
                f"{where}: migration failed and was rolled back: {translate(error, where)}"
            ) from error
        finally:
            if guard is not None:
                guard.release_write()


def _apply_next(
    connection: apsw.Connection,
    catalog: Catalog,
    known: list[Migration],
    where: str,
    process: Process,
) -> bool:
    """Apply one migration; True when none is left."""
    connection.execute("pragma foreign_keys = off")
    connection.execute("begin immediate")
    try:
        connection.execute(catalog["migration.create_table"].sql)
        rows = connection.execute(catalog["migration.applied"].sql)
        applied = [(int(str(version)), str(name), str(checksum)) for version, name, checksum in rows]
        todo = pending(known, applied, where)
        if not todo:
            connection.execute("rollback")
            return True
        migration = todo[0]
        apply_script(connection, migration.sql)
        broken = connection.execute("pragma foreign_key_check").fetchall()
        if broken:
            raise errors.MigrationFailed(
                f"{where}: {migration.path} would leave rows without their parents: {broken[:3]}"
            )
        record = catalog["migration.record"]
        connection.execute(
            record.sql,
            record.bind(
                {
                    "version": migration.version,
                    "name": migration.name,
                    "checksum": migration.checksum,
                    "applied": process.now(),
                }
            ),
        )
        connection.pragma("application_id", APPLICATION_ID)
        connection.pragma("user_version", migration.version)
        connection.execute("commit")
    finally:
        if connection.in_transaction:
            connection.execute("rollback")
        connection.execute("pragma legacy_alter_table = off")
        connection.execute("pragma foreign_keys = on")
    return len(todo) == 1


def _back_up(connection: apsw.Connection, path: str, version: int) -> None:
    """Keep a copy of the file as it was, once for each version that it is upgraded from."""
    target = f"{path}-backup-v{version}"
    partial = f"{target}.{os.getpid()}.partial"
    if os.path.exists(target):
        return
    descriptor = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    os.close(descriptor)
    try:
        connection.execute("vacuum into ?", (partial,))
        os.replace(partial, target)
    finally:
        if os.path.exists(partial):
            os.unlink(partial)
