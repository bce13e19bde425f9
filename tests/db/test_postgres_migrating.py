from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

from embedded_orch.db.migrations import migrations
from embedded_orch.db.postgres.connecting import connect
from embedded_orch.db.postgres.database import open_server
from embedded_orch.db.postgres.migrating import migrate, upgrade_script
from embedded_orch.db.postgres.options import PostgresOptions, parse
from embedded_orch.errors import (
    DatabaseBusy,
    DatabaseTooNew,
    DatabaseUnavailable,
    MigrationFailed,
    NotOurDatabase,
)
from embedded_orch.process import Process
from tests.db.contract.probe import Background, wait_until
from tests.postgres_server import PostgresServer

ROOT = Path(__file__).parents[2]
FIRST = "create table thing (id uuid not null primary key)"


class Schema:
    """A schema that may or may not exist, looked at by a superuser."""

    def __init__(self, server: PostgresServer, **overrides: object) -> None:
        self.server = server
        self.url, self.name = server.new_schema()
        self.options = parse(
            self.url, schema_name=self.name, application_name=self.name, **overrides
        )

    def drop(self) -> Schema:
        self.execute("drop schema {schema} cascade")
        return self

    def execute(self, statement: str) -> list[Any]:
        found = self.server.administration.execute(statement.format(schema=f'"{self.name}"'))
        return found.fetchall() if found.description else []

    def contents(self) -> dict[str, list[Any]]:
        """Every table with its rows, and every other object by name."""
        tables = self.server.administration.execute(
            "select tablename from pg_tables where schemaname = %s order by 1", [self.name]
        ).fetchall()
        return {table: self.execute(f'select * from {{schema}}."{table}"') for (table,) in tables}

    def applied(self) -> list[tuple[int, str]]:
        return self.execute("select version, name from {schema}.schema_migration order by 1")

    def migrate(self, folder: Path | None = None, process: Process | None = None) -> None:
        connection = connect(self.options)
        try:
            migrate(
                connection,
                self.options,
                process=process or Process(),
                folder=None if folder is None else str(folder),
            )
        finally:
            connection.close()


@pytest.fixture
def schema(postgres_server: PostgresServer) -> Schema:
    return Schema(postgres_server)


def a_folder(path: Path, *texts: str) -> Path:
    """Migrations with these texts; the names say their numbers."""
    path.mkdir()
    for number, text in enumerate(texts, 1):
        (path / f"{number:04}_step{number}.postgres.sql").write_text(text)
    return path


# -- A new database --------------------------------------------------------------------------------


@pytest.mark.parametrize("exists", [True, False])
def test_a_new_schema_has_every_migration(schema: Schema, exists: bool) -> None:
    if not exists:
        schema.drop()

    schema.migrate(process=Process(clock=lambda: 1_234_567))

    assert [name for _, name in schema.applied()] == [each.name for each in migrations("postgres")]
    assert {"flow", "flow_run", "task_run", "schema_migration"} <= set(schema.contents())
    dates = schema.execute("select distinct applied from {schema}.schema_migration")
    assert dates == [(1_234_567,)]


def test_a_schema_that_is_up_to_date_is_only_looked_at(
    schema: Schema, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema.migrate()
    connection = connect(schema.options)
    seen: list[str] = []

    class Watched(psycopg.RawCursor[Any]):
        def execute(self, query: Any, *args: Any, **kwargs: Any) -> Any:
            seen.append(bytes(query).decode())
            return super().execute(query, *args, **kwargs)

    connection.cursor_factory = Watched

    migrate(connection, schema.options, process=Process())

    assert [statement.split()[0] for statement in seen] == ["BEGIN", "select"]
    connection.close()


@pytest.mark.parametrize("cache_size", [0, 100])
def test_migrations_run_through_a_pooler_too(
    postgres_server: PostgresServer, cache_size: int
) -> None:
    """Without a prepared-statement cache, settings travel with each transaction."""
    schema = Schema(postgres_server, prepared_statement_cache_size=cache_size).drop()

    schema.migrate()
    schema.migrate()

    assert len(schema.applied()) == len(migrations("postgres"))


def test_eight_processes_open_a_new_database_at_once(schema: Schema) -> None:
    """Seen to fail without the advisory lock: all of them had seen that there is no schema."""
    schema.drop()
    program = """
import sys
from embedded_orch.db.postgres.database import open_server
from embedded_orch.db.postgres.options import parse
from embedded_orch.process import Process
process = Process()
options = parse(sys.argv[1], schema_name=sys.argv[2], application_name=sys.argv[2])
database = open_server(options, process)
id = process.new_id()
database.write(lambda tx: tx.run("flow.insert", id=id, name=str(id), now=0))
database.close()
"""
    with contextlib.ExitStack() as ending:
        processes = [ending.enter_context(running(program, schema)) for _ in range(8)]
        with psycopg.connect(schema.url) as other:
            # Nobody can make a schema, and everybody can look for it.
            other.execute("lock table pg_namespace in share row exclusive mode")
            wait_until(lambda: len(waiting_for_a_lock(schema)) == 8)
        results = [process.communicate(timeout=60) for process in processes]

    assert results == [("", "")] * 8
    assert len(schema.applied()) == len(migrations("postgres"))
    assert schema.execute("select count(*) from {schema}.flow") == [(8,)]


@contextlib.contextmanager
def running(program: str, schema: Schema) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program, schema.url, schema.name],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


# -- What is not ours, or too new ------------------------------------------------------------------


@pytest.mark.parametrize(
    "foreign",
    [
        "create table {schema}.customer (id int); insert into {schema}.customer values (1)",
        "create view {schema}.report as select 1 as one",
        "create table {schema}.schema_migration (id int, applied_at text)",
    ],
)
def test_another_programs_schema_is_refused_and_left_as_it_is(schema: Schema, foreign: str) -> None:
    schema.execute(foreign)
    before = schema.contents()

    with pytest.raises(NotOurDatabase, match=f"schema {schema.name} of postgresql://.*as it is"):
        schema.migrate()

    assert schema.contents() == before


def test_a_newer_database_is_refused_and_left_as_it_is(schema: Schema) -> None:
    schema.migrate()
    version = len(migrations("postgres")) + 1
    schema.execute(f"insert into {{schema}}.schema_migration values ({version}, 'future', 'x', 0)")
    before = schema.contents()

    with pytest.raises(DatabaseTooNew, match=f"version {version}.*Nothing was changed"):
        schema.migrate()
    with pytest.raises(DatabaseTooNew):
        open_server(schema.options, Process())

    assert schema.contents() == before


def test_a_migration_that_reads_differently_is_refused(schema: Schema, tmp_path: Path) -> None:
    schema.migrate(a_folder(tmp_path / "old", FIRST))

    with pytest.raises(MigrationFailed, match="reads differently"):
        schema.migrate(a_folder(tmp_path / "new", f"{FIRST} -- changed"))


# -- Steps -----------------------------------------------------------------------------------------


def test_only_what_is_missing_is_applied(schema: Schema, tmp_path: Path) -> None:
    schema.migrate(a_folder(tmp_path / "old", FIRST))

    schema.migrate(
        a_folder(tmp_path / "new", FIRST, "alter table thing add column name text", "select 1")
    )

    assert schema.applied() == [(1, "step1"), (2, "step2"), (3, "step3")]
    assert schema.contents()["thing"] == []


def test_a_failing_migration_is_rolled_back_whole_and_can_be_mended(
    schema: Schema, tmp_path: Path
) -> None:
    second = "alter table thing add column name text; create table other (id int);"

    with pytest.raises(MigrationFailed, match=r"0002_step2 failed .* relation \"nothing\""):
        schema.migrate(
            a_folder(tmp_path / "broken", FIRST, f"{second} insert into nothing values (1)")
        )

    assert schema.applied() == [(1, "step1")]
    assert set(schema.contents()) == {"schema_migration", "thing"}
    schema.migrate(a_folder(tmp_path / "mended", FIRST, second))
    assert schema.applied() == [(1, "step1"), (2, "step2")]


def test_a_first_migration_that_fails_leaves_no_schema(schema: Schema, tmp_path: Path) -> None:
    schema.drop()

    with pytest.raises(MigrationFailed):
        schema.migrate(a_folder(tmp_path / "broken", "create table thing (id nothing)"))

    assert schema.execute(f"select 1 from pg_namespace where nspname = '{schema.name}'") == []


def test_a_migration_may_take_longer_than_a_command(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """Seen to fail with command_timeout_seconds in force."""
    # Commands keep to it before and after the migration, on a machine that is busy too.
    schema = Schema(postgres_server, command_timeout_seconds=1)

    schema.migrate(a_folder(tmp_path / "slow", f"{FIRST}; select pg_sleep(1.1)"))

    assert schema.applied() == [(1, "step1")]


def test_a_migrator_that_is_stuck_is_not_waited_for_for_ever(
    schema: Schema, monkeypatch: pytest.MonkeyPatch
) -> None:
    from embedded_orch.db.postgres import migrating

    monkeypatch.setattr(migrating, "_LIMITS", "set local lock_timeout = '50ms'")
    with psycopg.connect(schema.url) as other:
        other.execute(
            "select pg_advisory_xact_lock(hashtextextended(%s, 0))",
            [f"embedded_orch {schema.name}"],
        )

        with pytest.raises(DatabaseBusy):
            schema.migrate()


def test_the_second_of_two_migrators_finds_it_done(schema: Schema) -> None:
    with psycopg.connect(schema.url) as other:
        other.execute(
            "select pg_advisory_xact_lock(hashtextextended(%s, 0))",
            [f"embedded_orch {schema.name}"],
        )
        waiting = [Background(schema.migrate) for _ in range(2)]
        wait_until(lambda: len(waiting_for_a_lock(schema)) == 2)

    for each in waiting:
        each.result()
    assert len(schema.applied()) == len(migrations("postgres"))


def waiting_for_a_lock(schema: Schema) -> list[Any]:
    return schema.execute(
        "select pid from pg_stat_activity "
        f"where application_name = '{schema.name}' and wait_event_type = 'Lock'"
    )


# -- Rights ----------------------------------------------------------------------------------------


def as_role(schema: Schema, role: str) -> PostgresOptions:
    options = quote(f"-c role={role}")
    return parse(f"{schema.url}&options={options}", schema_name=schema.name)


def test_a_schema_that_somebody_made_for_us_needs_no_right_to_make_one(schema: Schema) -> None:
    """Seen to fail with CREATE SCHEMA IF NOT EXISTS, which asks for that right first."""
    role = f"{schema.name}_user"
    schema.execute(f'create role "{role}"; grant all on schema {{schema}} to "{role}"')

    database = open_server(as_role(schema, role), Process())
    database.close()

    assert len(schema.applied()) == len(migrations("postgres"))


def test_a_user_who_may_not_make_the_schema_is_told_which_right_is_missing(
    schema: Schema,
) -> None:
    role = f"{schema.name}_user"
    schema.drop().execute(f'create role "{role}"')

    with pytest.raises(DatabaseUnavailable, match="needs CREATE on the database"):
        open_server(as_role(schema, role), Process())


# -- As a script -----------------------------------------------------------------------------------


def test_the_script_of_an_upgrade_does_what_the_upgrade_does(
    postgres_server: PostgresServer,
) -> None:
    by_script, by_program = Schema(postgres_server).drop(), Schema(postgres_server).drop()
    script = upgrade_script(by_script.options)
    by_program.migrate()

    postgres_server.administration.execute(script.encode(), prepare=False)

    assert "create schema" in script
    assert set(by_script.contents()) == set(by_program.contents())
    without_dates = "select version, name, checksum from {schema}.schema_migration"
    assert by_script.execute(without_dates) == by_program.execute(without_dates)
    assert upgrade_script(by_script.options) == ""
    by_script.migrate()


def test_the_script_has_only_what_is_missing_and_changes_nothing_by_itself(
    schema: Schema, tmp_path: Path
) -> None:
    schema.migrate(a_folder(tmp_path / "old", FIRST))
    before = schema.contents()
    folder = a_folder(tmp_path / "new", FIRST, "alter table thing add column name text;")

    script = upgrade_script(schema.options, folder=str(folder))

    assert "create schema" not in script
    assert "create table thing" not in script
    assert "alter table thing add column name text;" in script
    assert schema.contents() == before


def test_the_script_for_another_programs_schema_is_refused(schema: Schema) -> None:
    schema.execute("create table {schema}.customer (id int)")

    with pytest.raises(NotOurDatabase):
        upgrade_script(schema.options)
