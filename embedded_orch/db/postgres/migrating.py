"""Bringing a Postgres schema to the version of this program.

The usual case is one query, in which the record of migrations is found to be complete. Otherwise
every step is a transaction of its own that takes an advisory lock first: of several processes that
open the database at once, one takes the step and the others find it taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

import psycopg
from psycopg import sql

from embedded_orch import errors
from embedded_orch.db.migrations import migrations, pending
from embedded_orch.db.postgres.answering import answering_within
from embedded_orch.db.postgres.connecting import begin_statement, connect
from embedded_orch.db.postgres.failures import translate
from embedded_orch.db.postgres.transaction import PostgresTransaction
from embedded_orch.db.statements import Catalog

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

    from embedded_orch.db.migrations import Migration
    from embedded_orch.db.postgres.options import PostgresOptions
    from embedded_orch.process import Process

_UNDEFINED_COLUMN = "42703"

# A migration may take longer than any other statement. What it may not do is wait for ever for
# the lock of another migrator, or of a transaction on the table that it changes.
_LIMITS: LiteralString = "set local statement_timeout = 0; set local lock_timeout = '60s'"


def migrate(
    connection: Connection[TupleRow],
    options: PostgresOptions,
    *,
    process: Process,
    folder: str | None = None,
) -> None:
    """Apply the migrations that the database lacks, each in a transaction of its own.

    Args:
        connection: outside of a transaction.
        options: what it was opened with; they name the schema, which is made if missing.
        process: whose clock dates the record.
        folder: where the migrations lie; the package's own when not given.

    Raises:
        NotOurDatabase: the schema holds what another program made; nothing was changed.
        DatabaseTooNew: it has had migrations that this program does not know.
        MigrationFailed: one did not apply, and was rolled back.
    """
    migrator = _Migrator(connection, options, folder)
    if migrator.pending_now():
        # It may take longer than any statement of ours, and waits for others who do the same.
        with answering_within(connection, None):
            while not migrator.take_step(process):
                continue


def upgrade_script(options: PostgresOptions, *, folder: str | None = None) -> str:
    """The SQL that would bring the schema up to date, for somebody to read and run.

    Args:
        options: how to reach the database; nothing in it is changed.
        folder: where the migrations lie; the package's own when not given.

    Returns:
        Statements for psql, with their transactions; empty when there is nothing to do.

    Raises:
        NotOurDatabase: the schema holds what another program made.
        DatabaseTooNew: it has had migrations that this program does not know.
    """
    connection = connect(options)
    try:
        migrator = _Migrator(connection, options, folder)
        todo = migrator.pending_now()
        has_schema = migrator.has_schema()
    finally:
        connection.close()
    create_table = Catalog("postgres")["migration.create_table"].sql
    parts = [] if has_schema else [f'create schema "{options.schema_name}";\n']
    parts += [_step_script(options.schema_name, create_table, migration) for migration in todo]
    return "\n".join(parts)


def _step_script(schema_name: str, create_table: str, migration: Migration) -> str:
    return (
        f"-- migration {migration.version:04}_{migration.name}\n"
        f"begin;\n"
        f'set local search_path = "{schema_name}";\n'
        f"{create_table};\n\n"
        f"{migration.sql.strip()}\n\n"
        f"insert into schema_migration (version, name, checksum, applied)\n"
        f"values ({migration.version}, '{migration.name}', '{migration.checksum}',\n"
        f"        (extract(epoch from clock_timestamp()) * 1000000)::bigint);\n"
        f"commit;\n"
    )


class _Migrator:
    """One connection on its way through the migrations."""

    def __init__(
        self, connection: Connection[TupleRow], options: PostgresOptions, folder: str | None
    ) -> None:
        self._connection = connection
        self._options = options
        self._known = migrations("postgres", folder)
        self._tx = PostgresTransaction(lambda: connection, Catalog("postgres"))
        self._where = f"schema {options.schema_name} of {options.safe_url}"

    def pending_now(self) -> list[Migration]:
        """What the database lacks, by one look that takes no lock and changes nothing."""
        try:
            self._begin(read_only=True)
            try:
                applied = self._tx.rows("migration.applied")
            except psycopg.errors.UndefinedTable:
                self._roll_back()
                self._begin(read_only=True)
                self._refuse_foreign()
                applied = []
            return self._lacking(applied)
        except psycopg.Error as error:
            raise self._unreadable(error) from error
        finally:
            self._roll_back()

    def take_step(self, process: Process) -> bool:
        """Apply the next migration; True when none is left."""
        migration: Migration | None = None
        try:
            self._begin(read_only=False)
            self._connection.execute(_LIMITS, prepare=False)
            self._tx.run("migration.take_lock", schema_name=self._options.schema_name)
            todo = self._prepared()
            if not todo:
                return True
            migration = todo[0]
            self._tx.script(migration.sql)
            self._tx.run(
                "migration.record",
                version=migration.version,
                name=migration.name,
                checksum=migration.checksum,
                applied=process.now(),
            )
            self._connection.execute(b"COMMIT", prepare=False)
        except psycopg.Error as error:
            if migration is None:
                raise self._unreadable(error) from error
            raise errors.MigrationFailed(
                f"{self._where}: migration {migration.version:04}_{migration.name} failed and was "
                f"rolled back: {translate(error, self._options)}"
            ) from error
        finally:
            self._roll_back()
        return len(todo) == 1

    def has_schema(self) -> bool:
        """Whether somebody has made the schema."""
        return bool(self._tx.value("migration.has_schema", schema_name=self._options.schema_name))

    def _prepared(self) -> list[Migration]:
        """Under the lock: the schema and the table of record made, and what is left to do."""
        name = self._options.schema_name
        if not self.has_schema():
            # Looked for first: CREATE SCHEMA IF NOT EXISTS asks for the right to create one even
            # where somebody else has made it for us.
            create = sql.SQL("create schema {}").format(sql.Identifier(name))
            self._connection.execute(create, prepare=False)
        if not self._tx.value("migration.has_record", schema_name=name):
            self._refuse_foreign()
            self._tx.run("migration.create_table")
        return self._lacking(self._tx.rows("migration.applied"))

    def _lacking(self, applied: list[tuple[int, str, str]]) -> list[Migration]:
        return pending(self._known, applied, self._where)

    def _refuse_foreign(self) -> None:
        """Refuse a schema without our table of record that holds anything else."""
        count = self._tx.value("migration.tables", schema_name=self._options.schema_name)
        if count:
            raise self._not_ours(f"{count} tables or views of another program")

    def _unreadable(self, error: psycopg.Error) -> errors.DatabaseError:
        if error.sqlstate == _UNDEFINED_COLUMN:
            return self._not_ours("another program's table schema_migration")
        return translate(error, self._options)

    def _not_ours(self, what: str) -> errors.NotOurDatabase:
        return errors.NotOurDatabase(
            f"{self._where} holds {what} and was left as it is; give another schema_name="
        )

    def _begin(self, *, read_only: bool) -> None:
        self._connection.execute(begin_statement(self._options, read_only=read_only), prepare=False)

    def _roll_back(self) -> None:
        if not self._connection.closed:
            self._connection.rollback()
