"""``orch.check()`` names what is broken on purpose, and ``orch.repair()`` mends what it can."""

from __future__ import annotations

import os
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import embedded_orch
from embedded_orch import Orchestrator, errors, flow, get_run_logger, task
from embedded_orch.artifacts import create_markdown_artifact
from embedded_orch.states import Completed, StateType
from embedded_orch.store.checks import all_checks
from tests.opened import Clock, opened
from tests.postgres_server import PostgresServer
from tests.store.builders import a_flow_run, a_task_run, an_owner

LATER = timedelta(minutes=10)


@task
def measure(number: int) -> int:
    get_run_logger().info("measured")
    return number


@flow
def section(number: int) -> int:
    return measure(number)


@flow
def book() -> list[int]:
    create_markdown_artifact("text", key="book")
    return [section(1), measure(2)]


def execute(orch: Orchestrator, sql: str, **parameters: object) -> None:
    with orch.session() as session:
        session.execute(sql, parameters)


def names_of(findings: list[Any]) -> list[str]:
    return sorted({finding.check for finding in findings})


def is_mended(orch: Orchestrator, *checks: str) -> list[str]:
    """What was found and mended; nothing is left after that."""
    found = orch.check()
    assert names_of(found) == sorted(checks)
    assert [each.is_done for each in orch.repair(dry_run=True)] == [False] * len(found)
    assert orch.check() == found
    repairs = orch.repair()
    assert all(each.is_done for each in repairs), repairs
    assert orch.check() == []
    return [f"{each.finding.message}: {each.finding.remedy}" for each in repairs]


# What is broken by one statement: the statement, and which check says so.
BROKEN = {
    "state": (
        "update flow_run set state_name = 'Late' where parent_task_run_id is null",
        "flow_run_state",
    ),
    "state of a task": ("update task_run set state_timestamp = 7", "task_run_state"),
    "last state of a task": (
        "delete from task_run_state where type = 'COMPLETED'",
        ("task_run_state", "task_run_end", "task_run_under_end"),
    ),
    "history": ("delete from flow_run_state", "flow_run_state"),
    "history of a task": ("delete from task_run_state", "task_run_state"),
    "end": ("update flow_run set end_time = null", "flow_run_end"),
    "end of a task": ("update task_run set end_time = null", "task_run_end"),
    "times": ("update flow_run set start_time = end_time + 5", "flow_run_times"),
    "times of a task": ("update task_run set start_time = end_time + 5", "task_run_times"),
    "caller": (
        "update flow_run set parent_task_run_id = :other where parent_task_run_id is not null",
        "caller",
    ),
    "artifact": ("delete from artifact", "artifact_key"),
    "artifact key": ("update artifact_collection set latest_id = :other", "artifact_key"),
}


class TestMended:
    @pytest.mark.parametrize("what", BROKEN)
    def test_one_statement_of_somebody(self, url: str, what: str) -> None:
        clock = Clock()
        statement, checks = BROKEN[what]
        with opened(url, clock) as orch:
            book()
            assert orch.check() == []
            other = {"other": orch.engine.process.new_id()} if ":other" in statement else {}
            execute(orch, statement, **other)
            clock.sleep(LATER.total_seconds())
            if what == "last state of a task":
                execute(orch, "update process set ended = 1")
                first = names_of(orch.check())
                assert first == ["task_run_state"]
                # One shows what the other hid.
                assert any("Crashed" in str(each.finding.remedy) for each in orch.repair())
                assert orch.check() == []
                return

            is_mended(orch, *([checks] if isinstance(checks, str) else checks))

            assert orch.flow_runs.count() == 2

    def test_a_claim_of_a_process_that_has_ended(self, url: str) -> None:
        with opened(url) as orch:
            orch.concurrency_limits.upsert("db", 2)
            self.claim(orch, slots=1)
            execute(orch, "update process set ended = 1")

            (said,) = is_mended(orch, "claim_of_dead")

            assert said.startswith("1 slot(s) of the concurrency limit db are held by a process")
            assert orch.concurrency_limits.get("db").active_slots == 0

    def test_a_claim_of_a_task_run_that_has_ended(self, url: str) -> None:
        clock = Clock()
        with opened(url, clock) as orch:
            orch.concurrency_limits.upsert("db", 2)
            book()
            run = next(orch.task_runs.find(task_key=measure.task_key))
            self.claim(orch, slots=1, holder_type="task_run", holder_id=run.id)
            assert orch.check() == []
            clock.sleep(LATER.total_seconds())

            is_mended(orch, "claim_of_ended_run")

    def test_a_lock_of_a_process_that_has_ended(self, url: str) -> None:
        with opened(url) as orch:
            gone = orch.engine.process.new_id()
            execute(
                orch,
                "insert into cache_lock (key, holder, owner_id, since) values ('k', 'h', :gone, 1)",
                gone=gone,
            )

            is_mended(orch, "lock_of_dead")

    def test_lines_of_a_run_that_is_not_there(self, url: str) -> None:
        clock = Clock()
        with opened(url, clock) as orch:
            book()
            measure(3)
            lines = orch.logs.count()
            execute(orch, "update log set flow_run_id = :o", o=orch.engine.process.new_id())
            execute(
                orch,
                "update log set flow_run_id = null, task_run_id = :o where message = 'measured'",
                o=orch.engine.process.new_id(),
            )
            # It may be that its run is on its way.
            assert orch.check() == []
            clock.sleep(LATER.total_seconds())

            said = is_mended(orch, "log")

            assert len(said) == 2
            assert orch.logs.count() == 0 < lines

    @pytest.mark.parametrize("state", [StateType.RUNNING, StateType.CANCELLING])
    def test_a_run_that_nobody_runs(self, url: str, state: StateType) -> None:
        clock = Clock()
        with opened(url, clock) as orch:
            run_id = a_flow_run(orch.database, orch.engine.process, state)
            a_task_run(orch.database, orch.engine.process, StateType.RUNNING, flow_run_id=run_id)
            clock.sleep(LATER.total_seconds())

            is_mended(orch, "flow_run_of_nobody")

            run = orch.flow_runs.get(run_id)
            assert run.state is not None
            assert run.state.name == ("Crashed" if state is StateType.RUNNING else "Cancelled")
            assert [str(each.state_name) for each in orch.task_runs.find()] == ["Crashed"]

    def test_a_run_that_is_due_at_no_time(self, url: str) -> None:
        clock = Clock()
        with opened(url, clock) as orch:
            a_flow_run(orch.database, orch.engine.process, StateType.SCHEDULED)
            clock.sleep(LATER.total_seconds())
            assert orch.check() == []
            execute(orch, "update flow_run set next_scheduled_start_time = null")

            is_mended(orch, "flow_run_of_nobody")

    def test_a_run_of_a_process_that_has_ended(self, url: str) -> None:
        clock = Clock()
        with opened(url, clock) as orch:
            owner = an_owner(orch.database, orch.engine.process)
            a_flow_run(orch.database, orch.engine.process, StateType.RUNNING, owner_id=owner.id)
            kept = a_flow_run(
                orch.database,
                orch.engine.process,
                StateType.RUNNING,
                owner_id=owner.id,
                on_crash="resume",
            )
            execute(orch, "update process set ended = 1")
            clock.sleep(LATER.total_seconds())

            is_mended(orch, "flow_run_of_nobody")

            # That one waits to be resumed.
            run = orch.flow_runs.get(kept)
            assert run.state is not None
            assert run.state.is_running()

    def test_a_task_run_under_a_flow_run_that_has_ended(self, url: str) -> None:
        clock = Clock()
        with opened(url, clock) as orch:
            run_id = a_flow_run(orch.database, orch.engine.process, StateType.COMPLETED)
            a_task_run(orch.database, orch.engine.process, StateType.RUNNING, flow_run_id=run_id)
            assert orch.check() == []
            clock.sleep(LATER.total_seconds())

            is_mended(orch, "task_run_under_end")

            assert [each.state_name for each in orch.task_runs.find()] == ["Crashed"]

    def test_a_flow_run_whose_caller_has_ended(self, url: str) -> None:
        clock = Clock()
        with opened(url, clock) as orch:
            owner = an_owner(orch.database, orch.engine.process)
            caller_id = a_flow_run(orch.database, orch.engine.process, StateType.COMPLETED)
            task_run_id = a_task_run(
                orch.database, orch.engine.process, StateType.RUNNING, flow_run_id=caller_id
            )
            child_id = a_flow_run(
                orch.database,
                orch.engine.process,
                StateType.RUNNING,
                parent_task_run_id=task_run_id,
                owner_id=owner.id,
                on_crash="resume",
            )
            orch.task_runs.set_state(task_run_id, Completed(), force=True)
            execute(orch, "update process set ended = 1")
            clock.sleep(LATER.total_seconds())

            is_mended(orch, "flow_run_under_end")

            child = orch.flow_runs.get(child_id)
            assert child.state is not None
            assert child.state.is_crashed()

    def test_a_default_queue_of_another_pool(self, url: str) -> None:
        with opened(url) as orch:
            orch.store.upsert_work_pool("mine")
            other = orch.store.upsert_work_pool("other")
            execute(
                orch,
                "update work_pool set default_queue_id = :id where name = 'mine'",
                id=other.default_queue_id,
            )

            is_mended(orch, "default_queue")

    @staticmethod
    def claim(orch: Orchestrator, *, slots: int, **holder: object) -> None:
        owner = an_owner(orch.database, orch.engine.process)
        limit = orch.sql("select id from concurrency_limit").scalar()
        values = {
            "claim_id": orch.engine.process.new_id(),
            "limit_id": limit,
            "claim_state": "HOLDING",
            "slots": slots,
            "owner_id": owner.id,
            "holder_type": None,
            "holder_id": None,
            "now": orch.engine.process.now(),
            "lease": None,
            "expires": None,
            **holder,
        }
        orch.database.write(lambda tx: tx.run("slot_claim.insert", **values))


REFERENCES = [
    "delete from flow",
    "delete from process",
    "delete from flow_run where parent_task_run_id is not null",
    "delete from task_run",
    "update slot_claim set limit_id = zeroblob(16), owner_id = zeroblob(16)",
    "delete from work_pool",
]


class TestReferences:
    """Rows that name one that is not there: on a file, by a program that keeps no foreign keys."""

    @pytest.mark.parametrize("statement", REFERENCES)
    def test_rows_without_their_parent_are_mended(self, tmp_path: Path, statement: str) -> None:
        path = tmp_path / "orch.db"
        with opened(str(path)) as orch:
            orch.store.upsert_work_pool("mine")
            noon = datetime(2030, 1, 1, 12, tzinfo=UTC)
            orch.store.enqueue("book", pool_name="mine", times=[noon])
            orch.concurrency_limits.upsert("db", 2)
            TestMended.claim(orch, slots=1)
            book()
            with orch.session() as session:
                session.execute(
                    "insert into owed_hooks (flow_run_id, epoch, claimer_id) "
                    "select flow_run.id, 0, process.id from flow_run, process limit 3"
                )
            runs = orch.flow_runs.count()
        by_hand(path, statement)

        with opened(str(path)) as orch:
            found = [each for each in orch.check() if each.check == "reference"]
            assert found != []
            assert all("that is not there" in each.message for each in found)

            assert all(each.is_done for each in orch.repair())

            assert orch.check() == []
            assert list(orch.sql("pragma foreign_key_check")) == []
            if "from flow_run" not in statement:
                assert orch.flow_runs.count() == runs

    def test_a_flow_that_is_gone_is_put_back_for_its_runs(self, tmp_path: Path) -> None:
        path = tmp_path / "orch.db"
        with opened(str(path)):
            book()
        by_hand(path, "delete from flow where name = 'book'")

        with opened(str(path)) as orch:
            assert orch.flow_runs.count(flow_name="book") == 0

            orch.repair()

            (name,) = [each.name for each in orch.flows.find() if each.name != "section"]
            assert name.startswith("recovered ")
            assert orch.flow_runs.count(flow_name=name) == 1


class TestNotMended:
    def test_a_limit_that_is_overdrawn_is_told_of(self, url: str) -> None:
        with opened(url) as orch:
            orch.concurrency_limits.upsert("db", 1)
            TestMended.claim(orch, slots=3)

            (finding,) = orch.check()
            assert finding.check == "limit"
            assert (
                finding.message == "3 slots of the concurrency limit db are held, and there are 1"
            )
            assert finding.remedy is None
            assert finding.advice is not None

            assert [each.is_done for each in orch.repair()] == [False]

    def test_a_limit_that_was_lowered_meanwhile_is_no_problem(self, url: str) -> None:
        with opened(url) as orch:
            orch.concurrency_limits.upsert("db", 3)
            TestMended.claim(orch, slots=3)
            orch.concurrency_limits.upsert("db", 1)

            assert orch.check() == []

    @pytest.mark.parametrize("kind", ["flow_run_history", "task_run_history"])
    def test_a_state_that_was_forced_is_noted(self, url: str, kind: str) -> None:
        with opened(url) as orch:
            measure(1)
            section(1)
            runs: Any = orch.flow_runs if kind == "flow_run_history" else orch.task_runs
            run = list(runs.find())[-1]
            for state in (StateType.CANCELLING, StateType.CANCELLED):
                forced = embedded_orch.State(type=state, name=state.capitalize())
                runs.set_state(run.id, forced, force=True)

            (finding,) = orch.check()

            assert finding.check == kind
            assert "went from COMPLETED to CANCELLING" in finding.message
            assert not finding.is_problem
            assert [each.is_done for each in orch.repair()] == [False]

    def test_a_damaged_page_is_left_as_it_is(self, tmp_path: Path) -> None:
        path = tmp_path / "orch.db"
        with opened(str(path)) as orch:
            book()
            page = orch.sql(
                "select rootpage from sqlite_schema where name = 'flow_run_state'"
            ).scalar()
        with path.open("r+b") as file:
            file.seek((page - 1) * 4096)
            file.write(b"\xff" * 4096)
        damaged = path.read_bytes()

        with opened(str(path)) as orch:
            repairs = orch.repair()

        assert [each.is_done for each in repairs] == [False]
        assert "restore a backup" in str(repairs[0].finding.advice)
        # Nothing but what an open and a close write by themselves.
        assert path.read_bytes()[4096:] == damaged[4096:]


class TestIndexes:
    def test_an_index_that_lacks_a_row_is_built_anew(self, tmp_path: Path) -> None:
        path = tmp_path / "orch.db"
        with opened(str(path)):
            book()
        without_index(path, "flow_run_by_name", "update flow_run set name = name || '-changed'")

        with opened(str(path)) as orch:
            found = orch.check()
            assert names_of(found) == ["damage"]
            assert "flow_run_by_name" in found[0].message

            repairs = orch.repair()

            assert [each.finding.remedy for each in repairs] == ["its indexes are built anew"]
            assert orch.check() == []

    def test_an_index_that_a_server_does_not_use_is_built_anew(
        self, postgres_server: PostgresServer
    ) -> None:
        with opened(postgres_server.new_database()) as orch:
            execute(
                orch,
                "update pg_index set indisvalid = false"
                " where indexrelid = 'embedded_orch.flow_run_by_name'::regclass",
            )

            assert all(each.is_done for each in orch.repair())
            assert orch.check() == []


class TestBackup:
    def test_a_file_is_copied_before_the_first_change(self, tmp_path: Path) -> None:
        path = tmp_path / "orch.db"
        with opened(str(path)) as orch:
            book()
            execute(orch, "update flow_run set end_time = null")
            orch.repair()
            execute(orch, "update flow_run set end_time = null")
            orch.repair()

        copies = [tmp_path / f"orch.db-before-repair-{number}" for number in (1, 2)]
        assert [each.exists() for each in copies] == [True, True]
        with opened(str(copies[0])) as orch:
            assert names_of(orch.check()) == ["flow_run_end"]

    def test_nothing_is_copied_where_there_is_nothing_to_do(self, tmp_path: Path) -> None:
        with opened(str(tmp_path / "orch.db")) as orch:
            book()
            assert orch.repair() == []
            execute(orch, "update flow_run set end_time = null")
            assert len(orch.repair(dry_run=True)) == 2

        assert not [name for name in os.listdir(tmp_path) if "before-repair" in name]

    def test_a_copy_that_cannot_be_made_stops_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with opened(str(tmp_path / "orch.db")) as orch:
            book()
            execute(orch, "update flow_run set end_time = null")

            def fail(path: str) -> None:
                raise errors.DatabaseFull("no room")

            monkeypatch.setattr(orch.database, "backup", fail)

            with pytest.raises(errors.DatabaseFull):
                orch.repair()
            assert names_of(orch.check()) == ["flow_run_end"]


def test_a_result_whose_file_is_gone_is_named_and_not_mended(tmp_path: Path) -> None:
    with opened(str(tmp_path / "orch.db"), inline_result_bytes=0) as orch:
        book()
        assert orch.check() == []
        folder = orch.database.result_folder
        assert folder is not None
        name = next(folder.names())
        folder.remove(name)

        [finding] = orch.check()

        assert finding.check == "result_file"
        assert name in finding.message
        assert finding.advice is not None
        assert [each.is_done for each in orch.repair()] == [False]


def test_each_check_is_broken_by_a_test_here() -> None:
    text = Path(__file__).read_text(encoding="utf-8")

    assert {each.name for each in all_checks() if f'"{each.name}"' not in text} == set()


def by_hand(path: Path, statement: str) -> None:
    """Change a closed file with another SQLite, which keeps no foreign keys."""
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()


def without_index(path: Path, index: str, statement: str) -> None:
    """Run a statement with a SQLite that does not know of an index."""
    connection = sqlite3.connect(path, isolation_level=None)
    (row,) = connection.execute(
        "select type, name, tbl_name, rootpage, sql from sqlite_schema where name = ?", (index,)
    )
    connection.execute("pragma writable_schema = on")
    connection.execute("delete from sqlite_schema where name = ?", (index,))
    connection.close()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(statement)
    connection.execute("pragma writable_schema = on")
    connection.execute("insert into sqlite_schema values (?, ?, ?, ?, ?)", row)
    connection.close()
