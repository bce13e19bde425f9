"""Results that are too large for rows: in files that are there before the rows, and as long."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import embedded_orch
from embedded_orch import Orchestrator, errors, flow, task
from embedded_orch.cache_policies import INPUTS
from embedded_orch.db.result_folder import ResultFolder
from embedded_orch.results import ResultStore, get_result_store
from embedded_orch.store import caching, result_files
from embedded_orch.values.places import WrittenFile
from tests.opened import Clock, opened, the_flow_run, the_run_of
from tests.programs import PATIENCE, environment, run_program

SMALL = 100
DELETE_COMPLETED = "delete from task_run where state_type = 'COMPLETED'"


def settings_for(url: str, folder: Path) -> dict[str, Any]:
    """Results of more than a hundred bytes go to files, where a database has files."""
    found: dict[str, Any] = {"inline_result_bytes": SMALL}
    return found | {"result_folder": str(folder)} if url.startswith("postgres") else found


@pytest.fixture
def given_settings(url: str, tmp_path: Path) -> dict[str, Any]:
    return settings_for(url, tmp_path / "shared")


@pytest.fixture
def orch(url: str, given_settings: dict[str, Any]) -> Iterator[Orchestrator]:
    with opened(url, **given_settings) as orchestrator:
        yield orchestrator


@pytest.fixture
def on_disk(tmp_path: Path) -> Iterator[Orchestrator]:
    """A database file, where one backend shows what is meant."""
    with opened(str(tmp_path / "orch.db"), inline_result_bytes=SMALL) as orchestrator:
        yield orchestrator


def files_of(orch: Orchestrator) -> list[str]:
    folder = orch.database.result_folder
    return [] if folder is None else sorted(folder.names())


def path_of(orch: Orchestrator, name: str) -> Path:
    folder = orch.database.result_folder
    assert folder is not None
    return Path(folder.path, name[:2], name)


def formats(orch: Orchestrator) -> list[str]:
    return [
        row[0]
        for row in orch.sql(
            "select data_format from task_run_state where data is not null order by timestamp"
        )
    ]


@task
def texts(length: int) -> tuple[str, ...]:
    return ("x" * length,)


@task
def text(length: int) -> str:
    return "x" * length


class TestPlaces:
    def test_small_results_are_in_rows_and_large_ones_in_files_where_there_are_files(
        self, orch: Orchestrator
    ) -> None:
        states = [texts(length, return_state=True) for length in (10, 1000)]

        assert [state.result() for state in states] == [("x" * 10,), ("x" * 1000,)]
        has_files = orch.database.result_folder is not None
        assert formats(orch) == (["json", "file json"] if has_files else ["json", "json"])
        assert len(files_of(orch)) == int(has_files)

    def test_another_orchestrator_reads_them(self, tmp_path: Path) -> None:
        with opened(str(tmp_path / "orch.db"), inline_result_bytes=SMALL):
            texts(1000)

        with opened(str(tmp_path / "orch.db")) as orch:
            state = the_run_of(orch, texts).state

            assert state is not None
            assert state.result() == ("x" * 1000,)
            assert [each.result() for each in the_run_of(orch, texts).history[2:]] == [
                ("x" * 1000,)
            ]

    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    def test_asynchronous_code_awaits_them(self, tmp_path: Path, backend: str) -> None:
        import anyio

        @task(cache_result_in_memory=False)
        async def later(length: int) -> str:
            return "y" * length

        @flow
        async def asking() -> tuple[str, str]:
            state = await later(1000, return_state=True)
            return await later(1001), await state.result()

        with opened(str(tmp_path / "orch.db"), inline_result_bytes=SMALL) as orch:
            assert anyio.run(asking, backend=backend) == ("y" * 1001, "y" * 1000)
            # Those of the tasks, and that of the flow.
            assert len(files_of(orch)) == 3

    def test_a_flow_and_what_it_calls_are_kept_alike(self, orch: Orchestrator) -> None:
        @flow
        def inner() -> tuple[str, ...]:
            return texts(1000)

        @flow
        def outer() -> tuple[str, ...]:
            return inner()

        assert outer() == ("x" * 1000,)
        run = the_flow_run(orch, flow_name="outer")
        assert run.state is not None
        assert run.state.result() == ("x" * 1000,)
        # One value, so one file, whoever has returned it.
        assert len(files_of(orch)) == int(orch.database.result_folder is not None)

    def test_the_threshold_is_256_kilobytes_unless_it_is_set(self, tmp_path: Path) -> None:
        with opened(str(tmp_path / "orch.db")) as orch:
            text(262_144 - len('""'))
            text(262_144 - len('"'))

            assert formats(orch) == ["json", "file json"]

    @pytest.mark.parametrize("wrong", [-1, 2**31, "1"])
    def test_a_threshold_that_cannot_be_is_refused(self, url: str, wrong: Any) -> None:
        with pytest.raises(errors.ConfigurationError, match="inline_result_bytes"):
            embedded_orch.open(url, inline_result_bytes=wrong)

    def test_folder_and_files_are_private_and_named_after_the_database(
        self, on_disk: Orchestrator, tmp_path: Path
    ) -> None:
        texts(1000)

        [name] = files_of(on_disk)
        file = path_of(on_disk, name)
        assert file == tmp_path / "orch.db-results" / name[:2] / name
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(file.parent.parent.stat().st_mode) == 0o700

    def test_a_database_under_another_name_has_the_same_folder(self, tmp_path: Path) -> None:
        os.symlink(tmp_path / "orch.db", tmp_path / "link.db")
        with opened(str(tmp_path / "orch.db"), inline_result_bytes=SMALL):
            texts(1000)

        with opened(str(tmp_path / "link.db")) as orch:
            state = the_run_of(orch, texts).state
            assert state is not None
            assert state.result() == ("x" * 1000,)

    def test_listing_reads_no_file(self, on_disk: Orchestrator) -> None:
        texts(1000)
        [name] = files_of(on_disk)
        path_of(on_disk, name).unlink()

        run = the_run_of(on_disk, texts)

        assert [state.name for state in run.history] == ["Pending", "Running", "Completed"]
        assert run.state is not None
        with pytest.raises(errors.MissingResult, match=name):
            run.state.result()

    def test_a_folder_that_cannot_be_written_keeps_the_value_in_memory_or_fails_the_run(
        self, on_disk: Orchestrator, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        tmp_path.joinpath("orch.db-results").write_text("no folder")

        assert texts(1000) == ("x" * 1000,)
        assert "cannot be written to a file" in caplog.text
        state = the_run_of(on_disk, texts).state
        assert state is not None
        with pytest.raises(errors.MissingResult, match="cannot be written"):
            state.result()
        with pytest.raises(errors.ValueNotStorable, match="cannot be written"):
            texts.with_options(persist_result=True)(1001)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.dates(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
@given(value=VALUES, serializer=st.sampled_from(["json", "pickle", "compressed/json"]))
def test_every_value_comes_back_equal_and_of_its_type_from_a_file(
    value: Any, serializer: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    @task(result_serializer=serializer, cache_result_in_memory=False)
    def given_value() -> Any:
        return value

    folder = tmp_path_factory.getbasetemp() / "round-trips"
    with opened(str(folder / "orch.db"), inline_result_bytes=0) as orch:
        state = given_value(return_state=True)

        assert state.data is None
        found = state.result()
        assert found == value
        assert type(found) is type(value)
        assert formats(orch)[-1].startswith("file ")


class TestResuming:
    def a_failing_flow(self) -> tuple[Any, list[int]]:
        calls: list[int] = []

        @task
        def numbers(first: int) -> list[int]:
            calls.append(first)
            return list(range(first, first + 100))

        @flow
        def failing() -> int:
            found = numbers(1), numbers(1000)
            if len(calls) < 3 and not is_ready:
                raise ValueError("not yet")
            return len(found[0]) + len(found[1])

        is_ready: list[int] = []
        failing.is_ready = is_ready
        return failing, calls

    def test_a_resumed_run_takes_what_is_in_files(self, orch: Orchestrator) -> None:
        failing, calls = self.a_failing_flow()
        with pytest.raises(ValueError, match="not yet"):
            failing()
        failing.is_ready.append(1)

        assert failing.resume(the_flow_run(orch).id) == 200
        assert calls == [1, 1000]

    @pytest.mark.parametrize("harm", ["missing", "damaged", "truncated"])
    def test_a_result_whose_file_is_lost_is_made_again(
        self, on_disk: Orchestrator, harm: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        failing, calls = self.a_failing_flow()
        with pytest.raises(ValueError, match="not yet"):
            failing()
        for name in files_of(on_disk):
            file = path_of(on_disk, name)
            if harm == "missing":
                file.unlink()
            else:
                content = file.read_bytes()
                file.write_bytes(b" " + content[1:] if harm == "damaged" else content[:-1])
        failing.is_ready.append(1)

        assert failing.resume(the_flow_run(on_disk).id) == 200

        assert calls == [1, 1000, 1, 1000]
        assert "its call runs again" in caplog.text
        # The same values: their files are whole again.
        for run in on_disk.task_runs.find():
            assert run.state is not None
            assert len(run.state.result()) == 100


class TestUnused:
    def test_what_no_run_names_is_removed_and_what_one_names_is_not(
        self, orch: Orchestrator
    ) -> None:
        @flow
        def both(length: int) -> int:
            return len(texts(length)) + len(texts(length))

        both(1000)
        both(2000)
        before = files_of(orch)
        assert orch.drop_unused_results() == 0
        assert files_of(orch) == before
        with orch.session(begin_transaction=True) as session:
            session.execute(
                "delete from flow_run where id = :id", {"id": next(iter(orch.flow_runs.find())).id}
            )

        removed = orch.drop_unused_results()

        assert removed == len(before) // 2
        for run in orch.task_runs.find():
            assert run.state is not None
            assert len(run.state.result()[0]) == 1000
        assert orch.drop_unused_results() == 0

    def test_a_file_stays_while_a_cache_key_names_it_and_goes_when_that_expires(
        self, url: str, given_settings: dict[str, Any]
    ) -> None:
        clock = Clock()

        @task(cache_policy=INPUTS, cache_expiration=timedelta(hours=1))
        def cached(length: int) -> str:
            return "x" * length

        with opened(url, clock, **given_settings) as orch:
            cached(1000)
            with orch.session(begin_transaction=True) as session:
                session.execute("delete from task_run")
            count = len(files_of(orch))
            assert orch.drop_unused_results() == 0
            assert cached(1000, return_state=True).name == "Cached"
            with orch.session(begin_transaction=True) as session:
                session.execute("delete from task_run")
            clock.sleep(3601)

            assert orch.drop_unused_results() == count
            assert files_of(orch) == []

    def test_a_cached_result_keeps_its_file_for_the_run_that_took_it(
        self, url: str, given_settings: dict[str, Any]
    ) -> None:
        clock = Clock()

        @task(cache_policy=INPUTS, cache_expiration=timedelta(hours=1))
        def cached(length: int) -> str:
            return "x" * length

        with opened(url, clock, **given_settings) as orch:
            first, second = cached(1000, return_state=True), cached(1000, return_state=True)
            assert second.name == "Cached"
            with orch.session(begin_transaction=True) as session:
                session.execute(
                    "delete from task_run where id = :id",
                    {"id": first.state_details.task_run_id},
                )
            clock.sleep(3601)

            assert orch.drop_unused_results() == 0
            assert the_run_of(orch, cached).state is not None
            assert second.result() == "x" * 1000

    def test_a_value_that_was_replaced_goes(self, orch: Orchestrator) -> None:
        store = ResultStore()
        store.write("a" * 1000, "key")
        store.write("b" * 1000, "key")

        assert orch.drop_unused_results() == int(orch.database.result_folder is not None)
        assert store.read("key").result == "b" * 1000

    def test_an_orchestrator_looks_when_it_closes(self, tmp_path: Path) -> None:
        url = str(tmp_path / "orch.db")
        with opened(url, inline_result_bytes=SMALL) as orch:
            texts(1000)
            with orch.session(begin_transaction=True) as session:
                session.execute("delete from task_run")
            assert len(files_of(orch)) == 1

        @flow
        def anything() -> None: ...

        with opened(url) as orch:
            anything()
        with opened(url) as orch:
            assert files_of(orch) == []

    def test_runs_that_are_removed_take_their_files_along(
        self, url: str, given_settings: dict[str, Any]
    ) -> None:
        clock = Clock()

        @flow
        def reading() -> int:
            return len(texts(1000)[0])

        with opened(url, clock, **given_settings) as orch:
            reading()
            clock.sleep(3 * 86_400)
            orch.prune(timedelta(days=2), dry_run=True)
            assert len(files_of(orch)) == int(orch.database.result_folder is not None)

            orch.prune(timedelta(days=2))

            assert files_of(orch) == []

    def test_a_file_that_was_removed_before_its_row_is_written_once_more(
        self, on_disk: Orchestrator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Seen to fail without ``result_files.ensure``: the row names a file that is not there."""
        removed = []
        put = ResultFolder.put

        def put_and_lose(folder: ResultFolder, content: bytes) -> str:
            name = put(folder, content)
            if not removed:
                removed.append(name)
                assert on_disk.drop_unused_results() == 1
            return name

        monkeypatch.setattr(ResultFolder, "put", put_and_lose)
        texts(1000)

        assert files_of(on_disk) == removed
        state = the_run_of(on_disk, texts).state
        assert state is not None
        assert state.result() == ("x" * 1000,)

    def test_what_was_left_half_written_goes_after_an_hour(self, on_disk: Orchestrator) -> None:
        texts(1000)
        [name] = files_of(on_disk)
        path = path_of(on_disk, name)
        old, new = (path.with_name(f"{name}.1-{age}-0.partial") for age in ("old", "new"))
        for each in (old, new):
            each.write_bytes(b"x")
        os.utime(old, (0, 0))

        assert on_disk.drop_unused_results() == 1
        assert [old.exists(), new.exists()] == [False, True]

    def test_nothing_is_removed_inside_of_a_transaction_that_may_be_rolled_back(
        self, on_disk: Orchestrator
    ) -> None:
        texts(1000)
        with on_disk.session(begin_transaction=True) as session:
            session.execute("delete from task_run")
            with pytest.raises(errors.WouldDeadlock):
                on_disk.drop_unused_results()

        assert len(files_of(on_disk)) == 1

    def test_names_that_lead_elsewhere_are_no_files(
        self, on_disk: Orchestrator, tmp_path: Path
    ) -> None:
        texts(1000)
        tmp_path.joinpath("secret").write_bytes(b'"secret"')
        with on_disk.session(begin_transaction=True) as session:
            session.execute(
                "update task_run_state set data = :data where data is not null",
                {"data": b"../../secret"},
            )

        state = the_run_of(on_disk, texts).state
        assert state is not None
        with pytest.raises(errors.MissingResult, match="no name of a result file"):
            state.result()


class TestCrowds:
    def test_files_are_written_named_and_removed_at_once_and_none_is_missing(
        self, orch: Orchestrator
    ) -> None:
        """Each thread makes runs and deletes some, and all of them remove what nobody names."""
        failures: list[BaseException] = []

        def work(number: int) -> None:
            try:
                with orch:
                    for turn in range(8):
                        texts(1000 + turn % 3)
                        if turn % 2:
                            with orch.session(begin_transaction=True) as session:
                                session.execute(DELETE_COMPLETED)
                        orch.drop_unused_results()
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)

        assert failures == []
        for run in orch.task_runs.find():
            assert run.state is not None
            if run.state.is_completed():
                assert run.state.result()[0].startswith("x" * 1000)

    def test_processes_that_share_the_database_lose_no_file(self, tmp_path: Path) -> None:
        program = """
            import sys, embedded_orch
            from embedded_orch import task

            @task
            def texts(length):
                return "x" * length

            with embedded_orch.open(sys.argv[1], inline_result_bytes=100) as orch:
                for turn in range(12):
                    texts(1000 + turn % 3)
                    if turn % 4 == int(sys.argv[2]):
                        with orch.session(begin_transaction=True) as session:
                            session.execute(
                                "delete from task_run where state_type = 'COMPLETED'"
                            )
                    orch.drop_unused_results()
        """
        url = str(tmp_path / "orch.db")
        answers: list[Any] = []
        threads = [
            threading.Thread(target=lambda n=n: answers.append(run_program(program, url, n)))
            for n in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)

        assert [answer.stderr for answer in answers] == ["", "", ""]
        with opened(url) as orch:
            for run in orch.task_runs.find():
                assert run.state is not None
                assert run.state.result().startswith("x" * 1000)


KILLED = """
    import sys, threading, embedded_orch
    from embedded_orch import flow, task
    from embedded_orch.db import result_folder
    from embedded_orch.values import files, places

    stop_at = sys.argv[2]

    def come_to(point):
        if point == stop_at:
            print(point, flush=True)
            threading.Event().wait()

    replace = files.os.replace
    put = places.WrittenFile.__init__

    def replaced(*names):
        come_to("before the name")
        replace(*names)
        come_to("after the name")

    def written(*arguments):
        put(*arguments)
        come_to("before the commit")

    files.os.replace = replaced
    places.WrittenFile.__init__ = written

    @task
    def texts(length):
        return "x" * length

    @flow
    def reading():
        return len(texts(1000))

    with embedded_orch.open(sys.argv[1], inline_result_bytes=100):
        reading()
        come_to("after the commit")
"""


@pytest.mark.parametrize(
    ("point", "is_stored"),
    [
        ("before the name", False),
        ("after the name", False),
        ("before the commit", False),
        ("after the commit", True),
    ],
)
def test_a_process_that_is_killed_leaves_at_most_a_file_that_nobody_names(
    tmp_path: Path, point: str, is_stored: bool
) -> None:
    import subprocess
    import sys
    from textwrap import dedent

    url = str(tmp_path / "orch.db")
    process = subprocess.Popen(
        [sys.executable, "-c", dedent(KILLED), url, point],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == f"{point}\n"
    finally:
        process.kill()
        process.wait(PATIENCE)
        process.stdout.close()

    with opened(url) as orch:
        run = the_flow_run(orch)
        assert run.state is not None
        assert run.state.is_completed() is is_stored
        # A start is announced, and may be lost with its process.
        found = [each.state for each in orch.task_runs.find() if each.state is not None]
        assert [state.result() for state in found if state.is_completed()] == (
            ["x" * 1000] if is_stored else []
        )
        has_file = point != "before the name"
        assert len(files_of(orch)) == int(has_file)
        assert orch.drop_unused_results() == int(has_file and not is_stored)
        assert len(files_of(orch)) == int(is_stored)


class TestBackups:
    def test_a_copy_has_the_files_that_it_names_and_works_without_the_original(
        self, tmp_path: Path
    ) -> None:
        with opened(str(tmp_path / "data" / "orch.db"), inline_result_bytes=SMALL) as orch:
            texts(1000)
            texts(10)
            orphan = WrittenFile(orch.database.places.folder, b"nobody's").name  # type: ignore[arg-type]
            orch.backup(tmp_path / "copy.db")
            assert orphan in files_of(orch)
        for each in tmp_path.joinpath("data").rglob("*"):
            if each.is_file():
                each.unlink()

        with opened(str(tmp_path / "copy.db")) as copy:
            found = sorted(len(run.state.result()[0]) for run in copy.task_runs.find() if run.state)
            assert found == [10, 1000]
            assert len(files_of(copy)) == 1
            folder = tmp_path / "copy.db-results"
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700

    def test_a_folder_that_is_there_is_left_as_it_is(self, on_disk: Orchestrator) -> None:
        texts(1000)
        target = Path(on_disk.url.removeprefix("sqlite:///")).with_name("copy.db")
        beside = target.with_name("copy.db-results")
        beside.mkdir()

        with pytest.raises(errors.ConfigurationError, match="exists already"):
            on_disk.backup(target)

        assert not target.exists()
        assert list(beside.iterdir()) == []

    def test_a_copy_that_fails_leaves_nothing(
        self, on_disk: Orchestrator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        texts(1000)

        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(ResultFolder, "copy_to", full)
        with pytest.raises(errors.DatabaseFull, match="copy"):
            on_disk.backup(tmp_path / "copy.db")

        assert [each.name for each in tmp_path.iterdir() if "copy" in each.name] == []

    def test_no_file_is_removed_while_it_is_copied(
        self, on_disk: Orchestrator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Seen to fail without the lock of the folder: the copy names a file that it lacks."""
        texts(1000)
        copy_to = ResultFolder.copy_to

        def meanwhile(folder: ResultFolder, path: str, names: Any) -> None:
            def remove() -> None:
                with on_disk.session(begin_transaction=True) as session:
                    session.execute("delete from task_run")
                removed.append(on_disk.drop_unused_results())

            thread = threading.Thread(target=remove)
            thread.start()
            thread.join(PATIENCE)
            copy_to(folder, path, names)

        removed: list[int] = []
        monkeypatch.setattr(ResultFolder, "copy_to", meanwhile)
        on_disk.backup(tmp_path / "copy.db")

        assert removed == [0]
        with opened(str(tmp_path / "copy.db")) as copy:
            state = the_run_of(copy, texts).state
            assert state is not None
            assert state.result() == ("x" * 1000,)


class TestStores:
    def test_large_values_of_keys_are_files_too(self, orch: Orchestrator) -> None:
        store = get_result_store()

        store.write("x" * 1000, "key")

        assert store.exists("key")
        assert store.read("key").result == "x" * 1000
        assert len(files_of(orch)) == int(orch.database.result_folder is not None)

    def test_own_sql_and_a_large_result_commit_together(self, orch: Orchestrator) -> None:
        from embedded_orch.context import get_run_context

        with orch.session() as session:
            session.execute("create table notes (said text)")

        @task
        def noting() -> str:
            connection: Any = get_run_context().transaction.connection
            connection.execute("insert into notes (said) values ('hello')")
            return "x" * 1000

        noting()

        state = the_run_of(orch, noting).state
        assert state is not None
        assert state.result() == "x" * 1000
        with orch.session() as session:
            assert [tuple(row) for row in session.execute("select said from notes")] == [("hello",)]


def test_databases_of_one_server_have_folders_of_their_own(
    postgres_server: Any, tmp_path: Path
) -> None:
    url = str(postgres_server.emptied_database())
    given_settings = settings_for(url, tmp_path)
    with opened(url, **given_settings):
        texts(1000)
    with opened(url, **given_settings, schema_name="other") as other:
        texts(1001)
        assert other.drop_unused_results() == 0
        assert len(files_of(other)) == 1

    with opened(url, **given_settings) as orch:
        assert len(files_of(orch)) == 1


def test_on_a_server_no_file_is_removed_while_a_row_of_it_is_being_written(
    postgres_server: Any, tmp_path: Path
) -> None:
    """Seen to fail without the two locks: the file is removed, and the row names it."""
    url = str(postgres_server.emptied_database())
    with opened(url, **settings_for(url, tmp_path)) as orch:
        folder = orch.database.result_folder
        assert folder is not None
        writing = orch.database.begin()
        result_files.ensure(writing.transaction, WrittenFile(folder, b"content"))

        assert orch.drop_unused_results() == 0

        writing.roll_back()
        assert orch.drop_unused_results() == 1


def test_on_a_server_no_file_is_removed_while_a_run_takes_a_cached_result(
    postgres_server: Any, tmp_path: Path
) -> None:
    """Seen to fail without the look in ``caching.find_to_take``."""
    url = str(postgres_server.emptied_database())
    with opened(url, **settings_for(url, tmp_path)) as orch:
        ResultStore().write("x" * 1000, "key")
        taking = orch.database.begin()
        now = orch.engine.process.now()
        assert caching.find_to_take(taking.transaction, key="key", now=now) is not None
        with orch.session(begin_transaction=True) as session:
            session.execute("delete from cached_result")

        assert orch.drop_unused_results() == 0

        taking.roll_back()
        assert orch.drop_unused_results() == 1
