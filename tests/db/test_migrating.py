"""Migrations of a SQLite file: each whole or not at all, by one process, with a copy before."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest import mock

import apsw
import pytest

import embedded_orch
from embedded_orch import errors, flow
from embedded_orch.db import migrations as known
from embedded_orch.db.migrations import migrations, pending
from embedded_orch.db.sqlite import migrating
from embedded_orch.db.sqlite.connecting import APPLICATION_ID
from embedded_orch.db.sqlite.migrating import identify, migrate
from embedded_orch.db.sqlite.opening import open_file
from embedded_orch.db.sqlite.options import SQLiteOptions
from embedded_orch.db.sqlite.upgrading import upgrade_script
from embedded_orch.db.statements import schema_folder
from embedded_orch.process import Process

OPTIONS = SQLiteOptions(busy_timeout_seconds=20)
PROCESSES = 8
INCREMENTAL = 2

UPGRADE = """
import embedded_orch
from embedded_orch.db import migrations as known
known.schema_folder = lambda: sys.argv[2]
wait()
embedded_orch.open(sys.argv[1], busy_timeout_seconds=20).close()
"""
A_COLUMN = "alter table flow add column owner text not null default 'nobody';"


@flow
def hello(name: str) -> str:
    return f"hello {name}"


def schema_with(tmp_path: Path, *further: str) -> str:
    """A folder with the migrations of the package and more after them."""
    folder = tmp_path / "schema" / "migrations"
    shutil.copytree(Path(schema_folder()) / "migrations", folder)
    first = len(migrations("sqlite")) + 1
    for number, text in enumerate(further, first):
        (folder / f"{number:04}_further.sqlite.sql").write_text(text)
    return str(folder)


def a_program_that_knows(folder: str) -> AbstractContextManager[object]:
    """Whatever opens a database meanwhile is the program that has these migrations."""
    return mock.patch.object(known, "schema_folder", return_value=os.path.dirname(folder))


def a_file_of_this_version(path: Path, names: Sequence[str] = ("world",)) -> None:
    with embedded_orch.open(path):
        for name in names:
            hello(name)


def upgrade(path: Path, folder: str) -> None:
    """Open and close the file by the program that has these migrations."""
    with a_program_that_knows(folder):
        embedded_orch.open(path).close()


def look(path: Path, *statements: str) -> list[Any]:
    """The first value of each statement's answer, asked by another SQLite."""
    connection = sqlite3.connect(path)
    try:
        return [connection.execute(statement).fetchone()[0] for statement in statements]
    finally:
        connection.close()


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def at_once(program: str, *arguments: str, processes: int = PROCESSES) -> list[str]:
    """What processes print that come to the same line of a program at once.

    The program calls ``wait()`` there.
    """
    prelude = "import sys\ndef wait():\n    print('ready', flush=True)\n    sys.stdin.readline()\n"
    command = [sys.executable, "-c", prelude + program, *arguments]
    pipe = subprocess.PIPE
    started = [
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        for _ in range(processes)
    ]
    printed = []
    try:
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in started:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in started:
            out, err = process.communicate(timeout=60)
            assert process.returncode == 0, err
            printed.append(out.strip())
    finally:
        for process in started:
            process.kill()
            process.communicate()
    return printed


class TestNewFile:
    def test_it_says_whose_it_is_and_at_which_version(self, tmp_path: Path) -> None:
        path = tmp_path / "orch.db"

        embedded_orch.open(path).close()

        assert look(path, "pragma application_id", "pragma user_version", "pragma auto_vacuum") == [
            APPLICATION_ID,
            len(migrations("sqlite")),
            INCREMENTAL,
        ]

    def test_each_migration_is_on_record_with_its_checksum(self, tmp_path: Path) -> None:
        with embedded_orch.open(tmp_path / "orch.db") as orch:
            recorded = list(orch.sql("select version, name, checksum from schema_migration"))

        assert recorded == [
            (each.version, each.name, each.checksum) for each in migrations("sqlite")
        ]

    @pytest.mark.slow
    def test_eight_processes_open_it_at_once(self, tmp_path: Path) -> None:
        path = tmp_path / "folder" / "orch.db"
        program = (
            "import embedded_orch\n"
            "wait()\n"
            "with embedded_orch.open(sys.argv[1]) as orch:\n"
            "    print(orch.sql('select count(*) from schema_migration').scalar())\n"
        )

        printed = at_once(program, str(path))

        assert printed == [str(len(migrations("sqlite")))] * PROCESSES
        with embedded_orch.open(path) as orch:
            assert orch.sql("pragma integrity_check").scalar() == "ok"

    def test_who_looks_while_another_makes_it_sees_it_empty_or_whole(self, tmp_path: Path) -> None:
        """Seen as NotOurDatabase: an empty header, and then the tables of the other process."""
        path = str(tmp_path / "orch.db")
        look(Path(path), "pragma journal_mode = wal")

        class Looking(apsw.Connection):
            def pragma(self, name: str, *arguments: Any, **options: Any) -> Any:
                answer = super().pragma(name, *arguments, **options)
                if name == "application_id":
                    embedded_orch.open(path).close()
                return answer

        looking = Looking(path)
        try:
            assert identify(looking, path) == 0
            assert identify(looking, path) == len(migrations("sqlite"))
        finally:
            looking.close()

    def test_a_look_without_a_lock_is_no_proof_while_the_file_changes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "orch.db"
        look(path, "pragma journal_mode = wal")
        a_file_of_this_version(tmp_path / "whole.db")

        def half_seen(*_: object) -> int:
            shutil.copyfile(tmp_path / "whole.db", path)
            raise errors.NotOurDatabase("half of it")

        monkeypatch.setattr(migrating, "identify", half_seen)
        with embedded_orch.open(path) as orch:
            assert orch.flow_runs.count() == 1

    def test_no_copy_is_made_of_nothing(self, tmp_path: Path) -> None:
        embedded_orch.open(tmp_path / "orch.db").close()

        assert [name for name in os.listdir(tmp_path) if "backup" in name] == []


class TestUpgrade:
    def test_what_was_there_is_kept_and_the_new_column_is_there(self, tmp_path: Path) -> None:
        path = tmp_path / "orch.db"
        a_file_of_this_version(path)

        upgrade(path, schema_with(tmp_path, A_COLUMN))

        assert look(
            path,
            "select owner from flow",
            "select count(*) from flow_runs",
            "pragma user_version",
            "select max(version) from schema_migration",
        ) == ["nobody", 1, 2, 2]

    def test_the_file_as_it_was_is_kept_beside_it(self, tmp_path: Path) -> None:
        path = tmp_path / "orch.db"
        a_file_of_this_version(path)

        upgrade(path, schema_with(tmp_path, A_COLUMN))

        copy = tmp_path / "orch.db-backup-v1"
        assert copy.stat().st_mode & 0o777 == 0o600
        with embedded_orch.open(copy) as orch:
            assert orch.flow_runs.count() == 1
            assert orch.sql("pragma user_version").scalar() == 1
        assert [name for name in os.listdir(tmp_path) if "partial" in name] == []

    @pytest.mark.slow
    def test_eight_processes_upgrade_it_at_once_and_the_copy_is_of_before(
        self, tmp_path: Path
    ) -> None:
        """Seen to fail, two times of three, when the copy was made before the lock was taken: a
        process that had seen the old version then copied what another had upgraded meanwhile.
        """
        path = tmp_path / "orch.db"
        a_file_of_this_version(path, names=[str(number) for number in range(20)])
        folder = schema_with(tmp_path, A_COLUMN, "create table second (id integer) strict;")

        at_once(UPGRADE, str(path), os.path.dirname(folder))

        assert look(
            path,
            "pragma user_version",
            "select count(*) from schema_migration",
            "select count(*) from flow_runs",
        ) == [3, 3, 20]
        copies = sorted(name for name in os.listdir(tmp_path) if "backup" in name)
        assert copies == ["orch.db-backup-v1", "orch.db-backup-v2"]
        versions = [look(tmp_path / copy, "pragma user_version")[0] for copy in copies]
        assert versions == [1, 2]

    def test_an_upgrade_by_another_process_is_seen_by_who_has_the_file_open(
        self, tmp_path: Path
    ) -> None:
        path = tmp_path / "orch.db"
        folder = schema_with(tmp_path, A_COLUMN)
        with embedded_orch.open(path) as orch:
            hello("before")
            at_once(UPGRADE, str(path), os.path.dirname(folder), processes=1)
            hello("after")

            assert orch.sql("select count(*) from flow_runs").scalar() == 2
            assert orch.sql("select owner from flow").scalar() == "nobody"

    def test_a_second_upgrade_does_nothing(self, tmp_path: Path) -> None:
        path = tmp_path / "orch.db"
        a_file_of_this_version(path)
        folder = schema_with(tmp_path, A_COLUMN)
        upgrade(path, folder)
        copy = tmp_path / "orch.db-backup-v1"
        before = digest(path), digest(copy)

        upgrade(path, folder)

        assert (digest(path), digest(copy)) == before


class TestFailure:
    @pytest.mark.parametrize(
        "text",
        [
            "create table half (id integer) strict; create table half (id integer) strict;",
            "create table half (id integer) strict; selec 1;",
            "create table half (id integer) strict; insert into half values ('no number');",
            "create table half (id integer) strict; delete from flow;",
        ],
        ids=["a table twice", "a syntax error", "a constraint", "orphaned rows"],
    )
    def test_a_migration_that_fails_is_rolled_back_whole(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "orch.db"
        a_file_of_this_version(path)

        with pytest.raises(errors.MigrationFailed):
            upgrade(path, schema_with(tmp_path, text))

        with embedded_orch.open(path) as orch:
            assert orch.sql("pragma user_version").scalar() == 1
            assert orch.sql("select count(*) from sqlite_schema where name = 'half'").scalar() == 0
            assert orch.sql("select count(*) from schema_migration").scalar() == 1
            hello("again")
            assert orch.flow_runs.count() == 2

    def test_the_migrations_before_the_one_that_fails_are_kept(self, tmp_path: Path) -> None:
        path = tmp_path / "orch.db"
        a_file_of_this_version(path)

        with pytest.raises(errors.MigrationFailed):
            upgrade(path, schema_with(tmp_path, A_COLUMN, "selec 1;"))

        assert look(path, "pragma user_version", "select owner from flow") == [2, "nobody"]

    def test_foreign_keys_are_in_force_again_after_a_failure(self, tmp_path: Path) -> None:
        process = Process()
        path = tmp_path / "orch.db"
        a_file_of_this_version(path)
        folder = schema_with(tmp_path, "selec 1;")
        database = open_file(str(path), OPTIONS, process, upgrade=False)

        with pytest.raises(errors.MigrationFailed):
            database.with_connection(
                lambda connection: migrate(
                    connection, database.guard, database.path, process=process, folder=folder
                )
            )

        assert database.with_connection(lambda each: each.pragma("foreign_keys")) == 1
        database.close()


class TestRefusing:
    def test_a_newer_database_is_refused_and_left_as_it_is(self, tmp_path: Path) -> None:
        path = tmp_path / "orch.db"
        a_file_of_this_version(path)
        upgrade(path, schema_with(tmp_path, A_COLUMN))
        look(path, "pragma user_version")
        before = digest(path)

        with pytest.raises(errors.DatabaseTooNew, match="version 2, this program knows 1"):
            embedded_orch.open(path)

        assert digest(path) == before

    @pytest.mark.parametrize("in_log", [False, True])
    def test_a_migration_that_reads_differently_now_is_refused(
        self, tmp_path: Path, in_log: bool
    ) -> None:
        path = tmp_path / "orch.db"
        a_file_of_this_version(path)
        change(path, "update schema_migration set checksum = 'another'", in_log=in_log)
        before = digest(path)

        with pytest.raises(errors.MigrationFailed, match="0001_first, which reads differently"):
            embedded_orch.open(path)

        assert digest(path) == before or in_log

    def test_a_lost_record_of_migrations_is_damage(self, tmp_path: Path) -> None:
        path = tmp_path / "orch.db"
        a_file_of_this_version(path)
        change(path, "drop table schema_migration")

        with pytest.raises(errors.DatabaseDamaged, match="lost the record"):
            embedded_orch.open(path)

    def test_gaps_in_the_numbers_of_migrations_are_a_mistake_of_ours(self, tmp_path: Path) -> None:
        (tmp_path / "0002_second.sqlite.sql").write_text("select 1;")

        with pytest.raises(errors.MigrationFailed, match="not numbered"):
            migrations("sqlite", str(tmp_path))

    def test_line_endings_do_not_change_a_checksum(self, tmp_path: Path) -> None:
        for name, end in (("unix", b"\n"), ("windows", b"\r\n")):
            (tmp_path / name).mkdir()
            text = b"create table a (id integer);" + end + b"select 1;" + end
            (tmp_path / name / "0001_first.sqlite.sql").write_bytes(text)

        unix = migrations("sqlite", str(tmp_path / "unix"))
        windows = migrations("sqlite", str(tmp_path / "windows"))

        assert unix[0].checksum == windows[0].checksum

    def test_what_is_pending_is_what_comes_after_the_last_one(self) -> None:
        ours = migrations("sqlite")
        done = [(each.version, each.name, each.checksum) for each in ours]

        assert pending(ours, [], "here") == ours
        assert pending(ours, done, "here") == []


def change(path: Path, statement: str, *, in_log: bool = False) -> None:
    """Change a closed file by another SQLite; and leave it in the log, as after a kill."""
    end = "os._exit(0)" if in_log else "connection.close()"
    program = (
        "import os, sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1])\n"
        "connection.execute(sys.argv[2])\n"
        f"connection.commit()\n{end}\n"
    )
    subprocess.run([sys.executable, "-c", program, str(path), statement], check=True, timeout=60)


class TestScript:
    def script(self, path: Path, folder: str | None = None) -> str:
        return upgrade_script(str(path), OPTIONS, Process(), folder=folder)

    def run_by_hand(self, path: Path, script: str) -> None:
        connection = sqlite3.connect(path)
        connection.executescript(script)
        connection.close()

    def test_for_a_file_that_does_not_exist_it_is_the_whole_schema_and_makes_nothing(
        self, tmp_path: Path
    ) -> None:
        path = tmp_path / "orch.db"

        script = self.script(path)

        assert "create table flow_run (" in script
        assert os.listdir(tmp_path) == []

    def test_run_by_hand_it_makes_what_opening_makes(self, tmp_path: Path) -> None:
        by_hand, by_opening = tmp_path / "by_hand.db", tmp_path / "by_opening.db"
        embedded_orch.open(by_opening).close()

        self.run_by_hand(by_hand, self.script(by_hand))

        def schema_of(path: Path) -> list[tuple[Any, ...]]:
            with embedded_orch.open(path) as orch:
                hello("here")
                found = orch.sql("select type, name, sql from sqlite_schema order by type, name")
                return list(found) + list(orch.sql("pragma user_version"))

        assert schema_of(by_hand) == schema_of(by_opening)
        assert look(by_hand, "pragma auto_vacuum") == [INCREMENTAL]

    def test_it_has_only_the_steps_that_lack(self, tmp_path: Path) -> None:
        path = tmp_path / "orch.db"
        a_file_of_this_version(path)
        folder = schema_with(tmp_path, A_COLUMN)

        script = self.script(path, folder)

        assert A_COLUMN in script
        assert "create table flow_run (" not in script
        self.run_by_hand(path, script)
        assert look(path, "pragma user_version", "select owner from flow") == [2, "nobody"]

    def test_it_is_empty_when_nothing_lacks(self, tmp_path: Path) -> None:
        path = tmp_path / "orch.db"
        a_file_of_this_version(path)

        assert self.script(path) == ""

    def test_it_says_where_it_cannot_do_without_the_program(self, tmp_path: Path) -> None:
        folder = schema_with(tmp_path, "-- rebuild: process\ncreate table process (id blob);\n")

        script = self.script(tmp_path / "orch.db", folder)

        assert "-- It makes process anew" in script


def test_a_database_in_memory_has_the_same_schema(tmp_path: Path) -> None:
    def schema_of(url: str) -> list[tuple[Any, ...]]:
        with embedded_orch.open(url) as orch:
            return list(orch.sql("select type, name, sql from sqlite_schema order by type, name"))

    assert schema_of(":memory:") == schema_of(str(tmp_path / "orch.db"))
