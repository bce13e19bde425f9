"""What would bring a SQLite file to the schema of this program, as a script to read and to run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from embedded_orch.db.migrations import migrations, pending
from embedded_orch.db.sqlite.connecting import APPLICATION_ID
from embedded_orch.db.sqlite.migrating import applied
from embedded_orch.db.sqlite.opening import open_file
from embedded_orch.db.sqlite.rebuilding import rebuilt_tables
from embedded_orch.db.statements import Catalog

if TYPE_CHECKING:
    import apsw

    from embedded_orch.db.migrations import Migration
    from embedded_orch.db.sqlite.options import SQLiteOptions
    from embedded_orch.process import Process


def upgrade_script(
    path: str, options: SQLiteOptions, process: Process, *, folder: str | None = None
) -> str:
    """The SQL that would bring the schema up to date.

    Args:
        path: the file; one that does not exist is not made.
        options: its settings.
        process: who looks.
        folder: where the migrations lie; the package's own when not given.

    Returns:
        Statements for the sqlite3 shell, with their transactions; empty when there is nothing to
        do.

    Raises:
        DatabaseError: the file cannot be opened, is not ours, or is newer than this program.
    """
    known = migrations("sqlite", folder)
    catalog = Catalog("sqlite")

    def lacking(connection: apsw.Connection) -> list[Migration]:
        if connection.pragma("user_version") == 0:
            return known
        return pending(known, applied(connection, catalog, path), path)

    if not os.path.exists(path) or os.path.getsize(path) == 0:
        todo = known
    else:
        database = open_file(path, options, process, upgrade=False)
        try:
            todo = database.with_connection(lacking)
        finally:
            database.close()
    create_table = catalog["migration.create_table"].sql
    steps = [_step_script(create_table, migration) for migration in todo]
    # Only possible before the first table is made.
    first = "pragma auto_vacuum = incremental;\n\n" if todo and todo[0].version == 1 else ""
    return first + "\n".join(steps)


def _step_script(create_table: str, migration: Migration) -> str:
    rebuilt = rebuilt_tables(migration.sql)
    note = (
        f"-- It makes {', '.join(rebuilt)} anew and keeps its rows, indexes and triggers, which\n"
        f"-- takes more than SQL: run `embedded-orch db upgrade`, and not this script.\n"
        if rebuilt
        else ""
    )
    return (
        f"-- migration {migration.version:04}_{migration.name}\n"
        f"{note}"
        f"pragma foreign_keys = off;\n"
        f"begin immediate;\n"
        f"{create_table};\n\n"
        f"{migration.sql.strip()}\n\n"
        f"insert into schema_migration (version, name, checksum, applied)\n"
        f"values ({migration.version}, '{migration.name}', '{migration.checksum}',\n"
        f"        cast((julianday('now') - 2440587.5) * 86400000000 as integer));\n"
        f"pragma application_id = {APPLICATION_ID};\n"
        f"pragma user_version = {migration.version};\n"
        f"commit;\n"
    )
