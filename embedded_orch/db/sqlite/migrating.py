"""Bringing a SQLite file to the schema of this program.

The usual case is one look at ``user_version`` and at the record of migrations, which is found to
be complete. Otherwise every step is taken under the lock between processes: the first of several
processes that open the file at once migrates it, and the others find it done. A file that holds
data is backed up before.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import apsw

from embedded_orch import errors
from embedded_orch.db.migrations import migrations, pending, too_new
from embedded_orch.db.sqlite.connecting import APPLICATION_ID, translate
from embedded_orch.db.sqlite.copying import copy_database
from embedded_orch.db.sqlite.rebuilding import apply_script
from embedded_orch.db.statements import Catalog

if TYPE_CHECKING:
    from embedded_orch.db.migrations import Migration
    from embedded_orch.db.sqlite.guard import FileGuard
    from embedded_orch.db.sqlite.options import SQLiteOptions
    from embedded_orch.process import Process


def refuse_foreign_file(path: str, options: SQLiteOptions) -> None:
    """Look at a file that may be anything, without a lock and without a trace beside it.

    Only what is certain is refused here. A log that has not been copied into the file may hold
    all that makes it ours, or whole; then :func:`identify` decides again, with the log in view.

    Raises:
        NotOurDatabase: it is no SQLite database, or another program's.
        DatabaseDamaged: truncated or corrupt.
        DatabaseTooNew: a newer version of this program wrote it.
    """
    if os.path.getsize(path) == 0:
        return
    before = _trace(path)
    has_log = any(size for size, _ in before[1:])
    try:
        # By SQLite and not by open(): closing our descriptor would drop the locks that another
        # connection of this process has on the file. immutable: no locks, no log, no index.
        connection = apsw.Connection(
            f"{_uri(path)}?immutable=1",
            flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI,
            vfs=options.vfs,
        )
        try:
            if has_log:
                # Not a word about its content, only whether it is a database at all.
                connection.pragma("application_id")
            else:
                identify(connection, path)
        finally:
            connection.close()
    except (apsw.Error, errors.OrchestratorError) as error:
        # Who reads without a lock while another process makes the file sees half of it.
        is_certain = not has_log and _trace(path) == before
        if isinstance(error, apsw.Error):
            if is_certain or isinstance(error, apsw.NotADBError):
                raise translate(error, path) from error
        elif is_certain:
            raise


def _trace(path: str) -> list[tuple[int, int]]:
    """Size and time of the last change of a file, its log and its journal; zeros for none."""
    found = []
    for suffix in ("", "-wal", "-journal"):
        try:
            status = os.stat(path + suffix)
        except FileNotFoundError:
            found.append((0, 0))
        else:
            found.append((status.st_size, status.st_mtime_ns))
    return found


def _uri(path: str) -> str:
    # By hand: urllib costs a new process some milliseconds.
    for character, code in (("%", "%25"), ("?", "%3f"), ("#", "%23")):
        path = path.replace(character, code)
    return f"file://{path}" if path.startswith("/") else f"file:{path}"


def identify(connection: apsw.Connection, path: str) -> int:
    """The schema version of a file that may be anything, found without changing it.

    Returns:
        0 for an empty file, else the version of our schema in it.

    Raises:
        NotOurDatabase: another program's.
        DatabaseTooNew: a newer version of this program wrote it.
        DatabaseDamaged: truncated or corrupt.
    """
    # One read transaction: another process may be making the file at this moment, and an empty
    # header beside its first tables would pass for somebody else's.
    connection.execute("begin")
    try:
        application_id = connection.pragma("application_id")
        version = int(connection.pragma("user_version"))
        tables = connection.execute("select count(*) from sqlite_schema").get
    finally:
        if connection.in_transaction:
            connection.execute("rollback")
    if application_id == APPLICATION_ID:
        known = len(migrations("sqlite"))
        if version > known:
            raise too_new(path, version=version, known=known)
        return version
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
    catalog = Catalog("sqlite")
    try:
        if int(connection.pragma("user_version")) == len(known):
            pending(known, applied(connection, catalog, where), where)
            return
    except apsw.Error as error:
        raise translate(error, where) from error
    is_done = False
    while not is_done:
        if guard is not None:
            guard.acquire_write()
        try:
            # Asked again under the lock: another process may have been here meanwhile.
            version = int(connection.pragma("user_version"))
            if version > len(known):
                raise too_new(where, version=version, known=len(known))
            if path is not None and 0 < version < len(known):
                _back_up(connection, path, version)
            is_done = _apply_next(connection, catalog, known, where, process)
        except apsw.Error as error:
            translated = translate(error, where)
            if isinstance(translated, errors.TransactionFailed | errors.ConstraintViolated):
                raise errors.MigrationFailed(
                    f"{where}: a migration failed and was rolled back: {translated}"
                ) from error
            raise translated from error
        finally:
            if guard is not None:
                guard.release_write()


def applied(
    connection: apsw.Connection, catalog: Catalog, where: str
) -> list[tuple[int, str, str]]:
    """Version, name and checksum of the migrations that the database has had, oldest first.

    Raises:
        DatabaseDamaged: it is ours, and the record is not there.
    """
    try:
        rows = connection.execute(catalog["migration.applied"].sql).fetchall()
    except apsw.SQLError as error:
        raise errors.DatabaseDamaged(
            f"{where} has lost the record of its migrations and was left as it is; restore a "
            f"backup ({error})"
        ) from error
    return [(int(str(version)), str(name), str(checksum)) for version, name, checksum in rows]


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
        todo = pending(known, applied(connection, catalog, where), where)
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
        connection.execute("pragma foreign_keys = on")
    return len(todo) == 1


def _back_up(connection: apsw.Connection, path: str, version: int) -> None:
    """Keep a copy of the file as it was, once for each version that it is upgraded from.

    The caller has the lock between processes, so that the copy is of this version.
    """
    target = f"{path}-backup-v{version}"
    if not os.path.exists(target):
        copy_database(connection, target)
