"""``orch.backup()``: a whole copy, made while the database is in use."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

import embedded_orch
from embedded_orch import Orchestrator, errors, flow, task
from embedded_orch.db.sqlite import copying
from embedded_orch.db.sqlite.connecting import APPLICATION_ID
from tests.postgres_server import PostgresServer
from tests.warm_parent import run_forked


@pytest.fixture(params=["file", "truncate", "memory"])
def orch(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Orchestrator]:
    """An open SQLite database, of each kind in turn."""
    url = ":memory:" if request.param == "memory" else tmp_path / "data" / "orch.db"
    settings: dict[str, Any] = {"journal": "truncate"} if request.param == "truncate" else {}
    with embedded_orch.open(url, **settings) as opened:
        yield opened


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A file that does not exist, in a folder of its own."""
    folder = tmp_path / "copies"
    folder.mkdir()
    return folder / "copy.db"


@task
def double(number: int) -> int:
    return 2 * number


@flow
def doubled(numbers: list[int]) -> list[int]:
    return [double(number) for number in numbers]


def fill(orch: Orchestrator, *, megabytes: int) -> None:
    """Make the database large, in rows that belong to nothing."""
    with orch.session() as session:
        session.execute("create table ballast (data blob) strict")
        session.execute(
            "with recursive n (i) as (select 1 union all select i + 1 from n where i < :count) "
            "insert into ballast select randomblob(10000) from n",
            {"count": megabytes * 100},
        )


class TestCopy:
    def test_the_copy_opens_as_a_database_with_all_runs(
        self, orch: Orchestrator, target: Path
    ) -> None:
        doubled([1, 2, 3])

        orch.backup(target)

        with embedded_orch.open(target) as copy:
            assert [run.state.name for run in copy.flow_runs.find() if run.state] == ["Completed"]
            assert copy.task_runs.count() == 3
            assert copy.sql("pragma integrity_check").scalar() == "ok"
            doubled([4])
            assert copy.flow_runs.count() == 2

    def test_the_copy_needs_no_other_file(self, orch: Orchestrator, target: Path) -> None:
        doubled([1])

        orch.backup(target)

        assert os.listdir(target.parent) == ["copy.db"]
        # As on a medium that cannot be written: nothing can be put beside it.
        copy = apsw.Connection(
            f"file:{target}?immutable=1", apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        )
        assert copy.pragma("journal_mode") == "delete"
        assert copy.pragma("application_id") == APPLICATION_ID
        assert copy.pragma("user_version") == orch.sql("pragma user_version").scalar()
        assert copy.execute("select count(*) from task_run").get == 1
        copy.close()

    def test_only_its_owner_may_read_it(self, orch: Orchestrator, target: Path) -> None:
        before = os.umask(0)
        try:
            orch.backup(target)
        finally:
            os.umask(before)

        assert stat.S_IMODE(target.stat().st_mode) == 0o600

    def test_what_was_announced_before_is_in_it(self, orch: Orchestrator, target: Path) -> None:
        orch.database.announce(
            lambda tx: tx.run("flow.insert", id=bytes(16), name="announced", now=1)
        )

        orch.backup(target)

        with embedded_orch.open(target) as copy:
            assert copy.sql("select name from flows").scalar() == "announced"

    def test_the_path_may_be_text_and_relative(
        self, orch: Orchestrator, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(target.parent)

        orch.backup("copy.db")

        assert target.stat().st_size > 0

    def test_it_is_made_while_others_write_and_holds_whole_transactions(
        self, orch: Orchestrator, target: Path
    ) -> None:
        fill(orch, megabytes=10)
        with orch.session() as session:
            session.execute("create table pair (number integer) strict")
        is_over = threading.Event()
        raised: list[BaseException] = []

        def write_pairs() -> None:
            try:
                while not is_over.is_set():
                    with orch.session(begin_transaction=True) as session:
                        session.execute("insert into pair values (1)")
                        session.execute("insert into pair values (2)")
            except BaseException as error:
                raised.append(error)

        thread = threading.Thread(target=write_pairs)
        thread.start()
        try:
            for number in range(3):
                orch.backup(target.with_name(f"copy-{number}.db"))
        finally:
            is_over.set()
            thread.join(60)

        assert raised == []
        for number in range(3):
            with embedded_orch.open(target.with_name(f"copy-{number}.db")) as copy:
                assert copy.sql("pragma integrity_check").scalar() == "ok"
                assert copy.sql("select count(*) from ballast").scalar() == 1000
                halves = copy.sql("select count(*) filter (where number = 1), count(*) from pair")
                assert halves[0][0] * 2 == halves[0][1]


class TestOpenTransactions:
    def test_the_open_session_of_the_caller_is_not_in_it(
        self, tmp_path: Path, target: Path
    ) -> None:
        """Seen to fail when the copy was made on the connection of the session."""
        with embedded_orch.open(tmp_path / "orch.db") as orch:
            doubled([1])
            with orch.session(begin_transaction=True) as session:
                session.execute("update flow set name = 'not committed'")
                orch.backup(target)

        with embedded_orch.open(target) as copy:
            assert copy.sql("select name from flows").scalar() == "doubled"

    def test_on_one_connection_a_caller_inside_its_own_session_is_refused(
        self, target: Path
    ) -> None:
        with (
            embedded_orch.open(":memory:") as orch,
            orch.session(begin_transaction=True),
            pytest.raises(errors.WouldDeadlock),
        ):
            orch.backup(target)

        assert os.listdir(target.parent) == []


class TestRefusing:
    def test_an_existing_file_is_left_as_it_is(self, orch: Orchestrator, target: Path) -> None:
        target.write_text("precious")

        with pytest.raises(errors.ConfigurationError, match="exists already"):
            orch.backup(target)

        assert target.read_text() == "precious"

    def test_a_link_that_leads_nowhere_is_left_as_it_is(
        self, orch: Orchestrator, target: Path
    ) -> None:
        target.symlink_to("nowhere")

        with pytest.raises(errors.ConfigurationError, match="exists already"):
            orch.backup(target)

        assert os.readlink(target) == "nowhere"

    def test_a_database_is_not_copied_onto_itself(self, tmp_path: Path) -> None:
        with embedded_orch.open(tmp_path / "orch.db") as orch:
            doubled([1])

            with pytest.raises(errors.ConfigurationError, match="exists already"):
                orch.backup(tmp_path / "orch.db")

            assert orch.flow_runs.count() == 1

    def test_a_file_that_appears_meanwhile_is_left_as_it_is(
        self, orch: Orchestrator, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Seen to fail when the copy was renamed and not linked to its name."""
        copy_pages = copying._copy_pages

        def copy_while_somebody_else_does(source: apsw.Connection, partial: str) -> None:
            copy_pages(source, partial)
            target.write_text("precious")

        monkeypatch.setattr(copying, "_copy_pages", copy_while_somebody_else_does)

        with pytest.raises(errors.ConfigurationError, match="meanwhile"):
            orch.backup(target)

        assert target.read_text() == "precious"
        assert os.listdir(target.parent) == ["copy.db"]

    @pytest.mark.parametrize("missing", ["missing/copy.db", "file/copy.db"])
    def test_a_folder_that_is_none_is_named(
        self, orch: Orchestrator, tmp_path: Path, missing: str
    ) -> None:
        (tmp_path / "file").write_text("no folder")

        with pytest.raises(errors.ConfigurationError, match="no folder"):
            orch.backup(tmp_path / missing)

    def test_a_folder_that_cannot_be_written_is_named(self, orch: Orchestrator) -> None:
        # Also root may not write there.
        folder = Path("/proc/self")
        if not folder.is_dir():
            pytest.skip("needs a folder that nobody can write to")

        with pytest.raises(errors.DatabaseReadOnly, match="cannot be written"):
            orch.backup(folder / "copy.db")

    def test_a_full_disk_leaves_nothing_behind(
        self, orch: Orchestrator, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fill(orch, megabytes=1)
        connect = apsw.Connection

        def connect_to_a_small_disk(path: str, **options: Any) -> apsw.Connection:
            connection = connect(path, **options)
            if path.endswith(".partial"):
                connection.pragma("max_page_count", 20)
            return connection

        monkeypatch.setattr(apsw, "Connection", connect_to_a_small_disk)

        with pytest.raises(errors.DatabaseFull, match="disk is full"):
            orch.backup(target)

        monkeypatch.undo()
        assert os.listdir(target.parent) == []
        doubled([1])

    def test_ctrl_c_between_two_steps_leaves_nothing_behind(
        self, orch: Orchestrator, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fill(orch, megabytes=1)
        monkeypatch.setattr(copying, "_PAGES_PER_STEP", _InterruptsWhenUsedTwice())

        with pytest.raises(KeyboardInterrupt):
            orch.backup(target)

        assert os.listdir(target.parent) == []
        doubled([1])

    def test_closed_means_closed(self, orch: Orchestrator, target: Path) -> None:
        orch.close()

        with pytest.raises(errors.DatabaseClosed):
            orch.backup(target)

    def test_a_server_is_backed_up_by_its_own_tools(
        self, postgres_server: PostgresServer, target: Path
    ) -> None:
        with (
            embedded_orch.open(postgres_server.new_database()) as orch,
            pytest.raises(errors.ConfigurationError, match="pg_dump --schema=embedded_orch"),
        ):
            orch.backup(target)

        assert not target.exists()


KILLED = """
import os, signal, sys
import embedded_orch
from embedded_orch.db.sqlite import copying

path, target, point = sys.argv[1:]

def die():
    os.kill(os.getpid(), signal.SIGKILL)

class DiesWhenUsedTwice:
    uses = 0
    def __index__(self):
        self.uses += 1
        if self.uses > 1:
            die()
        return 10

def dies(function, *, before):
    def wrapped(*arguments):
        if before:
            die()
        function(*arguments)
        die()
    return wrapped

if point == "in the middle":
    copying._PAGES_PER_STEP = DiesWhenUsedTwice()
elif point == "before it has its name":
    copying._rename_to_new = dies(copying._rename_to_new, before=True)
elif point == "when it has both names":
    os.unlink = dies(os.unlink, before=True)
else:
    copying._rename_to_new = dies(copying._rename_to_new, before=False)
with embedded_orch.open(path, retention=False) as orch:
    orch.backup(target)
"""


@pytest.mark.parametrize(
    ("point", "is_there"),
    [
        ("in the middle", False),
        ("before it has its name", False),
        ("when it has both names", True),
        ("when it has its name", True),
    ],
)
def test_one_that_is_killed_leaves_no_half_copy_under_its_name(
    tmp_path: Path, target: Path, point: str, is_there: bool
) -> None:
    """Beside a process that goes on writing."""
    path = tmp_path / "data" / "orch.db"
    with embedded_orch.open(path, retention=False) as orch:
        fill(orch, megabytes=1)
        doubled([1])

        killed = run_forked(KILLED, path, target, point)

        assert killed.returncode == -9, killed.stderr
        assert target.exists() is is_there
        if is_there:
            with embedded_orch.open(target) as copy:
                assert copy.sql("pragma integrity_check").scalar() == "ok"
                assert copy.task_runs.count() == 1
            target.unlink()
        # What it left behind says by its name that it is no copy, and is in nobody's way.
        assert all(
            name.endswith(".partial") for name in os.listdir(target.parent) if "-" not in name
        )
        doubled([2])
        orch.backup(target)
    with embedded_orch.open(target) as copy:
        assert copy.task_runs.count() == 2


class _InterruptsWhenUsedTwice:
    """A number of pages; when it is asked for the second time, somebody presses Ctrl-C."""

    def __init__(self) -> None:
        self._uses = 0

    def __index__(self) -> int:
        self._uses += 1
        if self._uses > 1:
            raise KeyboardInterrupt
        return 10
