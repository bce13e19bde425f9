"""``embedded-orch db ...``."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

import embedded_orch
from embedded_orch import Orchestrator, flow, task
from embedded_orch.store.checks import all_checks
from tests.cli.conftest import Command
from tests.postgres_server import PostgresServer

CHECKS = len(all_checks())


@task
def double(number: int) -> int:
    return 2 * number


@flow
def doubled(numbers: list[int]) -> list[int]:
    return [double(number) for number in numbers]


CONTRADICTIONS = [
    (
        "update flow_run set state_type = 'PAUSED', end_time = null where name = :name",
        "its state is Completed (PAUSED, ",
    ),
    (
        "update flow_run set state_name = 'Running' where name = :name",
        "its state is Running (COMPLETED, ",
    ),
    ("delete from flow_run_state where name = 'Completed'", "history ends with Running (RUNNING, "),
    ("delete from flow_run_state", "history ends with nothing"),
    (
        "update task_run set state_name = 'Running'",
        "its state is Running (COMPLETED, ",
    ),
    ("update flow_run set end_time = null where name = :name", "end time"),
    ("update task_run set end_time = null", "end time"),
]


class TestCheck:
    def test_a_sound_database_passes_every_check(self, command: Command, url: str) -> None:
        with embedded_orch.open(url):
            doubled([1, 2])

        answer = command("db", "check", "--db", url)

        assert answer.status == 0
        assert [line.split()[0] for line in answer.lines] == ["ok"] * (1 + CHECKS)

    def test_a_database_in_use_passes_too(self, command: Command, url: str) -> None:
        with embedded_orch.open(url):
            doubled([1, 2])

            assert command("db", "check", "--db", url).status == 0

    @pytest.mark.parametrize("harm", ["missing", "damaged"])
    def test_a_result_whose_file_is_lost_is_named(
        self, command: Command, tmp_path: Path, harm: str
    ) -> None:
        url = str(tmp_path / "orch.db")
        with embedded_orch.open(url, inline_result_bytes=100):
            doubled(list(range(100)))
        assert command("db", "check", "--db", url).status == 0
        [file] = [each for each in tmp_path.rglob("*") if len(each.name) == 64]
        file.write_bytes(b"[]") if harm == "damaged" else file.unlink()

        answer = command("db", "check", "--db", url)

        assert answer.status == 1
        [problem] = [line for line in answer.lines if line.startswith("PROBLEM")]
        assert file.name in problem

    @pytest.mark.parametrize(("change", "found"), CONTRADICTIONS)
    def test_a_contradiction_is_named(
        self, command: Command, url: str, change: str, found: str
    ) -> None:
        with embedded_orch.open(url) as orch:
            doubled([1])
            run = next(orch.flow_runs.find())
            with orch.session() as session:
                parameters = {"name": run.name} if ":name" in change else {}
                session.execute(change, parameters)

        answer = command("db", "check", "--db", url)

        assert answer.status == 1
        problems = [line for line in answer.lines if line.startswith("PROBLEM")]
        assert any(found in problem for problem in problems)
        assert "ok " in answer.out

    def test_of_many_problems_of_a_kind_some_are_named(self, command: Command, url: str) -> None:
        with embedded_orch.open(url) as orch:
            doubled(list(range(30)))
            with orch.session() as session:
                session.execute("update task_run set end_time = null")

        answer = command("db", "check", "--db", url)

        problems = [line for line in answer.lines if line.startswith("PROBLEM")]
        assert len(problems) == 21
        assert problems[-1].endswith("and more of the same kind")

    def test_a_default_queue_of_another_pool_is_a_contradiction(
        self, command: Command, url: str
    ) -> None:
        with embedded_orch.open(url) as orch:
            with_two_pools(orch)

        answer = command("db", "check", "--db", url)

        assert answer.status == 1
        assert "work pool first has default of another pool" in answer.out

    def test_a_row_without_its_parent_is_found(self, command: Command, tmp_path: Path) -> None:
        url = str(tmp_path / "orch.db")
        with embedded_orch.open(url):
            doubled([1])
        # Another program, which does not keep foreign keys.
        by_hand(tmp_path / "orch.db", "delete from flow")

        answer = command("db", "check", "--db", url)

        assert answer.status == 1
        assert "1 rows of flow_run name a row of flow that is not there" in answer.out

    def test_a_damaged_page_is_found(self, command: Command, tmp_path: Path) -> None:
        path = tmp_path / "orch.db"
        with embedded_orch.open(path) as orch:
            doubled(list(range(20)))
            page = orch.sql(
                "select rootpage from sqlite_schema where name = 'flow_run_by_name'"
            ).scalar()
        with path.open("r+b") as file:
            file.seek((page - 1) * 4096)
            file.write(b"\xff" * 4096)

        answer = command("db", "check", "--db", str(path))

        assert answer.status == 1
        assert f"PROBLEM *** in database main *** Tree {page} page {page}" in answer.out

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda path: os.truncate(path, 20_000),
            lambda path: path.write_text("a letter " * 1000),
            lambda path: by_hand(path, "pragma user_version = 999"),
            lambda path: by_hand(path, "update schema_migration set checksum = 'x'"),
        ],
        ids=["truncated", "a letter", "newer", "another migration"],
    )
    def test_a_file_that_cannot_be_opened_is_one_problem(
        self, command: Command, tmp_path: Path, spoil: Callable[[Path], Any]
    ) -> None:
        path = tmp_path / "orch.db"
        with embedded_orch.open(path):
            doubled([1])
        spoil(path)

        answer = command("db", "check", "--db", str(path))

        assert (answer.status, answer.err) == (1, "")
        assert [line.split()[0] for line in answer.lines] == ["PROBLEM"]

    def test_a_schema_that_is_not_there_yet_is_a_problem(
        self, command: Command, postgres_server: PostgresServer
    ) -> None:
        url = postgres_server.new_database()

        answer = command("db", "check", "--db", url)

        assert answer.status == 1
        assert "db upgrade" in answer.out

    def test_an_invalid_index_of_a_server_is_found(
        self, command: Command, postgres_server: PostgresServer
    ) -> None:
        url = postgres_server.new_database()
        embedded_orch.open(url).close()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "update pg_index set indisvalid = false"
                " where indexrelid = 'embedded_orch.flow_run_by_name'::regclass"
            )
            connection.execute(
                "alter table embedded_orch.flow_run add constraint unchecked"
                " foreign key (flow_id) references embedded_orch.flow (id) not valid"
            )

        answer = command("db", "check", "--db", url)

        assert answer.status == 1
        assert "index flow_run_by_name is invalid" in answer.out
        assert "from flow_run to flow was never checked" in answer.out


def by_hand(path: Path, statement: str) -> None:
    """Change a closed file with another SQLite."""
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()


def with_two_pools(orch: Orchestrator) -> None:
    """Two pools, of which the first has the default queue of the second."""
    insert_pool = "insert into work_pool (id, name, created, updated) values (:id, :name, 1, 1)"
    insert_queue = (
        "insert into work_queue (id, work_pool_id, name, priority, created, updated)"
        " values (:id, :pool, 'default', 1, 1, 1)"
    )
    first, second, queue = (UUID(int=number) for number in (1, 2, 3))
    with orch.session(begin_transaction=True) as session:
        session.execute(insert_pool, {"id": first, "name": "first"})
        session.execute(insert_pool, {"id": second, "name": "second"})
        session.execute(insert_queue, {"id": queue, "pool": second})
        session.execute("update work_pool set default_queue_id = :id", {"id": queue})


class TestUpgrade:
    def test_it_makes_a_database_that_is_not_there(self, command: Command, url: str) -> None:
        answer = command("db", "upgrade", "--db", url)

        assert answer.status == 0
        assert "up to date now" in answer.out
        assert command("runs", "--db", url).status == 0

    def test_a_second_one_finds_nothing_to_do(self, command: Command, url: str) -> None:
        command("db", "upgrade", "--db", url)

        answer = command("db", "upgrade", "--db", url)

        assert answer.status == 0
        assert answer.out.rstrip().endswith("is up to date")

    def test_its_sql_is_printed_and_nothing_is_changed(self, command: Command, url: str) -> None:
        answer = command("db", "upgrade", "--sql", "--db", url)

        assert answer.status == 0
        assert "create table flow_run (" in answer.out
        assert "insert into schema_migration" in answer.out
        assert not os.path.exists(url)
        assert "up to date now" in command("db", "upgrade", "--db", url).out

    def test_its_sql_run_by_hand_makes_the_same(
        self, command: Command, url: str, tmp_path: Path
    ) -> None:
        script = command("db", "upgrade", "--sql", "--db", url).out

        if url.startswith("postgresql"):
            with psycopg.connect(url, autocommit=True) as server:
                server.execute(script.encode())
        else:
            Path(url).parent.mkdir()
            file = sqlite3.connect(url)
            file.executescript(script)
            file.close()

        assert "-- the schema" in command("db", "upgrade", "--sql", "--db", url).out
        with embedded_orch.open(url):
            assert doubled([21]) == [42]
        assert command("db", "check", "--db", url).status == 0

    def test_a_file_of_another_program_is_left_as_it_is(
        self, command: Command, tmp_path: Path
    ) -> None:
        by_hand(tmp_path / "songs.db", "create table song (title text)")
        before = (tmp_path / "songs.db").read_bytes()

        for words in (("db", "upgrade"), ("db", "upgrade", "--sql")):
            answer = command(*words, "--db", str(tmp_path / "songs.db"))

            assert answer.status == 1
            assert "another program" in answer.err
        assert (tmp_path / "songs.db").read_bytes() == before
        assert os.listdir(tmp_path) == ["songs.db"]


class TestBackup:
    def test_it_copies_a_database_in_use(self, command: Command, tmp_path: Path) -> None:
        with embedded_orch.open(tmp_path / "orch.db"):
            doubled([1, 2])
            answer = command(
                "db", "backup", str(tmp_path / "copy.db"), "--db", str(tmp_path / "orch.db")
            )

        assert answer.status == 0
        assert "copy.db: " in answer.out
        with embedded_orch.open(tmp_path / "copy.db") as copy:
            assert copy.task_runs.count() == 2

    def test_it_overwrites_nothing(self, command: Command, tmp_path: Path) -> None:
        embedded_orch.open(tmp_path / "orch.db").close()
        (tmp_path / "copy.db").write_text("precious")

        answer = command(
            "db", "backup", str(tmp_path / "copy.db"), "--db", str(tmp_path / "orch.db")
        )

        assert answer.status == 1
        assert "exists already" in answer.err
        assert (tmp_path / "copy.db").read_text() == "precious"

    def test_of_a_server_it_says_what_to_run_instead(
        self, command: Command, postgres_server: PostgresServer, tmp_path: Path
    ) -> None:
        url = postgres_server.new_database()
        embedded_orch.open(url).close()

        answer = command("db", "backup", str(tmp_path / "copy"), "--db", url)

        assert answer.status == 1
        assert "pg_dump" in answer.err


class TestVacuum:
    def test_it_says_how_much_was_given_back(self, command: Command, url: str) -> None:
        with embedded_orch.open(url, retention=False) as orch:
            doubled(list(range(200)))
            orch.prune(timedelta(0))

        answer = command("db", "vacuum", "--db", url)

        assert answer.status == 0
        sizes = re.findall(r"[\d,]+(?= b| n)", answer.out)
        before, after = (int(size.replace(",", "")) for size in sizes)
        assert after < before or url.startswith("postgresql")
        assert command("db", "check", "--db", url).status == 0


class TestPrune:
    def test_it_counts_first_and_then_removes(self, command: Command, url: str) -> None:
        with embedded_orch.open(url, retention=False) as orch:
            doubled([1, 2, 3])

            answer = command("prune", "--older-than", "0s", "--dry-run", "--db", url)
            assert answer.status == 0
            assert "flow runs                 1" in answer.out
            assert "task runs                 3" in answer.out
            assert answer.lines[-1] == "would be removed; nothing was"
            assert orch.flow_runs.count() == 1

            answer = command("prune", "--older-than", "0s", "--db", url)
            assert answer.lines[-1] == "removed"
            assert orch.flow_runs.count() == 0

    def test_without_an_age_it_is_that_of_the_retention(self, command: Command, url: str) -> None:
        with embedded_orch.open(url, retention=False) as orch:
            doubled([1])

            assert command("prune", "--db", url).status == 0
            assert orch.flow_runs.count() == 1

    def test_where_retention_is_off_it_asks_for_an_age(
        self, command: Command, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        embedded_orch.open(url).close()
        monkeypatch.setenv("EMBEDDED_ORCH_RETENTION", "off")

        answer = command("prune", "--db", url)

        assert answer.status == 1
        assert "older_than" in answer.err

    def test_an_age_that_is_none_is_refused(self, command: Command, url: str) -> None:
        answer = command("prune", "--older-than", "soon", "--db", url)

        assert answer.status == 2
        assert "is no duration" in answer.err


class TestRepair:
    def test_each_change_is_printed_and_nothing_is_changed_before(
        self, command: Command, url: str
    ) -> None:
        with embedded_orch.open(url) as orch:
            doubled([1])
            with orch.session() as session:
                session.execute("update flow_run set end_time = null")

        assert command("db", "check", "--db", url).lines[-1].endswith("says what can be done")
        answer = command("db", "repair", "--dry-run", "--db", url)
        assert answer.status == 1
        assert answer.lines[0].startswith("would   flow run ")
        assert answer.lines[0].endswith("its end time is made that of its state")

        answer = command("db", "repair", "--db", url)
        assert answer.status == 0
        assert answer.lines[0].startswith("mended  flow run ")
        assert answer.lines[-1].endswith(" is well")
        assert ("before-repair-1" in answer.out) is not url.startswith("postgresql")
        assert command("db", "check", "--db", url).status == 0

    def test_what_cannot_be_mended_says_what_to_do(self, command: Command, tmp_path: Path) -> None:
        path = tmp_path / "orch.db"
        with embedded_orch.open(path) as orch:
            doubled(list(range(20)))
            page = orch.sql("select rootpage from sqlite_schema where name = 'task_run'").scalar()
        with path.open("r+b") as file:
            file.seek((page - 1) * 4096)
            file.write(b"\xff" * 4096)

        answer = command("db", "repair", "--db", str(path))

        assert answer.status == 1
        assert answer.lines[0].startswith("PROBLEM *** in database main")
        assert "restore a backup" in answer.out
        assert "as it was before: " in answer.out

    def test_a_file_that_cannot_be_opened_is_told_of(
        self, command: Command, tmp_path: Path
    ) -> None:
        path = tmp_path / "orch.db"
        path.write_text("a letter " * 1000)

        answer = command("db", "repair", "--db", str(path))

        assert (answer.status, answer.err) == (1, "")
        assert answer.lines[0].startswith("PROBLEM the database can be opened")
