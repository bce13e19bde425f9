"""Results in a storage of the user's: a folder, what fsspec reaches, or an object of theirs."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedded_orch import Orchestrator, errors, flow, task
from embedded_orch.cache_policies import INPUTS
from embedded_orch.filesystems import LocalFileSystem, RemoteFileSystem
from embedded_orch.locking.memory import MemoryLockManager
from embedded_orch.results import (
    ResultStore,
    get_result_store,
    resolve_result_storage,
    should_persist_result,
)
from embedded_orch.transactions import transaction
from tests.opened import Clock, opened, runs_of, the_flow_run, the_run_of


@pytest.fixture
def orch(url: str) -> Iterator[Orchestrator]:
    with opened(url) as orchestrator:
        yield orchestrator


@pytest.fixture
def memory() -> Iterator[Orchestrator]:
    with opened(":memory:") as orchestrator:
        yield orchestrator


def files_in(folder: Path) -> list[str]:
    return sorted(str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file())


@dataclasses.dataclass
class Drawer:
    """A storage that can be stored itself, and found by another process."""

    folder: str

    def read_path(self, path: str) -> bytes:
        return Path(self.folder, path).read_bytes()

    def write_path(self, path: str, content: bytes) -> None:
        Path(self.folder, path).write_bytes(content)


class Memory:
    """A storage whose values are in this process alone."""

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}
        self.is_broken = False

    async def read_path(self, path: str) -> bytes:
        await anyio.sleep(0)
        return self.content[path]

    async def write_path(self, path: str, content: bytes) -> None:
        await anyio.sleep(0)
        if self.is_broken:
            raise ConnectionError("the storage is away")
        self.content[path] = content


class TestStorages:
    @pytest.mark.parametrize("kind", ["text", "path", "object", "file url", "fsspec", "own"])
    def test_results_are_there_and_nowhere_else(
        self, orch: Orchestrator, tmp_path: Path, kind: str
    ) -> None:
        folder = tmp_path / "results"
        folder.mkdir()
        storage: Any = {
            "text": str(folder),
            "path": folder,
            "object": LocalFileSystem(basepath=str(folder)),
            "file url": f"file://{folder}",
            "fsspec": f"local://{folder}",
            "own": Drawer(str(folder)),
        }[kind]
        if kind == "fsspec":
            pytest.importorskip("fsspec")

        @task(result_storage=storage)
        def numbers() -> dict[str, int]:
            return {"one": 1}

        assert numbers() == {"one": 1}

        [name] = files_in(folder)
        assert folder.joinpath(name).read_bytes() == b'{"one":1}'
        [data] = orch.sql("select data_format, data from task_run_state where data is not null")
        assert data[0] == "storage json"
        assert b"one" not in bytes(data[1])
        state = the_run_of(orch, numbers).state
        assert state is not None
        assert state.result() == {"one": 1}

    def test_another_process_reads_them(self, tmp_path: Path) -> None:
        from tests.programs import run_program

        program = """
            import sys, embedded_orch
            from embedded_orch import task

            @task(result_storage=sys.argv[2])
            def numbers():
                return (1, 2)

            with embedded_orch.open(sys.argv[1]):
                numbers()
        """
        url = str(tmp_path / "orch.db")
        assert run_program(program, url, tmp_path / "results").returncode == 0

        with opened(url) as orch:
            [run] = orch.task_runs.find()
            assert run.state is not None
            assert run.state.result() == (1, 2)

    def test_a_storage_that_can_be_stored_is_found_by_another_orchestrator(
        self, tmp_path: Path
    ) -> None:
        @task(result_storage=Drawer(str(tmp_path)))
        def number() -> int:
            return 1

        with opened(str(tmp_path / "orch.db")):
            number()

        with opened(str(tmp_path / "orch.db")) as orch:
            state = the_run_of(orch, number).state
            assert state is not None
            assert state.result() == 1

    def test_one_that_cannot_is_found_where_it_is_used(self, tmp_path: Path) -> None:
        storage = Memory()

        @task(result_storage=storage)
        def number() -> int:
            return 1

        with opened(str(tmp_path / "orch.db")):
            number()
            assert list(storage.content.values()) == [b"1"]

        with opened(str(tmp_path / "orch.db")) as orch:
            state = runs_of(orch, number)[0].state
            assert state is not None
            with pytest.raises(errors.MissingResult, match="Memory, which is not at hand"):
                state.result()
            number()
            assert state.result() == 1

    def test_settings_of_a_storage_are_not_stored(self, memory: Orchestrator) -> None:
        pytest.importorskip("fsspec")

        @task(result_storage=RemoteFileSystem("memory://bucket", {"password": "hush"}))
        def number() -> int:
            return 1

        number()

        data = memory.sql("select data from task_run_state where data is not null").scalar()
        assert b"memory://bucket" in bytes(data)
        assert b"hush" not in bytes(data)

    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    def test_asynchronous_flows_and_storages(self, memory: Orchestrator, backend: str) -> None:
        storage = Memory()

        @task
        async def number(of: int) -> int:
            return of

        @flow(result_storage=storage)
        async def numbers() -> list[int]:
            state = await number(2, return_state=True)
            return [await number(1), await state.aresult()]

        assert anyio.run(numbers, backend=backend) == [1, 2]
        assert sorted(storage.content.values()) == [b"1", b"2", b"[1,2]"]

    def test_a_flow_has_it_for_what_it_calls_unless_that_has_its_own(
        self, memory: Orchestrator, tmp_path: Path
    ) -> None:
        @task
        def of_the_flow() -> int:
            return 1

        @task(result_storage=tmp_path / "own")
        def its_own() -> int:
            return 2

        @task(persist_result=False)
        def unstored() -> int:
            return 3

        @flow
        def inner() -> int:
            return of_the_flow() + its_own() + unstored()

        @flow(result_storage=tmp_path / "flow")
        def outer() -> int:
            return inner()

        assert outer() == 6
        assert sorted(
            tmp_path.joinpath("flow", name).read_bytes() for name in files_in(tmp_path / "flow")
        ) == [b"1", b"6"]
        assert len(files_in(tmp_path / "own")) == 1

    def test_the_serializer_s_bytes_are_what_the_file_holds(
        self, memory: Orchestrator, tmp_path: Path
    ) -> None:
        import pickle

        @task(result_storage=tmp_path, result_serializer="pickle", result_storage_key="value")
        def value() -> set[int]:
            return {1, 2}

        value()

        assert pickle.loads(tmp_path.joinpath("value").read_bytes()) == {1, 2}
        state = the_run_of(memory, value).state
        assert state is not None
        assert state.result() == {1, 2}

    def test_a_storage_that_is_away_keeps_the_value_in_memory_or_fails_the_run(
        self, memory: Orchestrator, caplog: pytest.LogCaptureFixture
    ) -> None:
        storage = Memory()
        storage.is_broken = True

        @task(result_storage=storage)
        def number() -> int:
            return 1

        with caplog.at_level(logging.WARNING, "embedded_orch"):
            assert number() == 1
        assert "the storage is away" in caplog.text
        state = the_run_of(memory, number).state
        assert state is not None
        with pytest.raises(errors.MissingResult, match="the storage is away"):
            state.result()
        with pytest.raises(errors.ValueNotStorable, match="the storage is away"):
            number.with_options(persist_result=True)()

    def test_what_was_changed_there_is_not_taken_for_the_result(
        self, memory: Orchestrator, tmp_path: Path
    ) -> None:
        @task(result_storage=tmp_path, result_storage_key="value")
        def value() -> int:
            return 1

        value()
        tmp_path.joinpath("value").write_bytes(b"2")

        state = the_run_of(memory, value).state
        assert state is not None
        with pytest.raises(errors.MissingResult, match="another value"):
            state.result()

    @pytest.mark.parametrize("lost", [True, False])
    def test_a_resumed_run_takes_it_and_makes_again_what_is_lost(
        self, orch: Orchestrator, tmp_path: Path, lost: bool
    ) -> None:
        calls: list[str] = []

        @task
        def number() -> int:
            calls.append("number")
            return 1

        @flow(result_storage=tmp_path / "results")
        def failing() -> int:
            found = number()
            calls.append("flow")
            if calls.count("flow") == 1:
                raise ValueError("not yet")
            return found

        with pytest.raises(ValueError, match="not yet"):
            failing()
        if lost:
            for name in files_in(tmp_path / "results"):
                tmp_path.joinpath("results", name).unlink()

        assert failing.resume(the_flow_run(orch).id) == 1
        assert calls.count("number") == 1 + lost

    def test_a_pickle_there_is_read_by_whoever_asks_for_it_alone(
        self, memory: Orchestrator, tmp_path: Path
    ) -> None:
        options: dict[str, Any] = {"result_storage": tmp_path, "cache_policy": INPUTS}
        calls = []

        @task(**options, result_serializer="pickle")
        def number(of: int) -> int:
            calls.append(of)
            return of

        number(1)
        number.with_options(result_serializer="json")(1)

        assert calls == [1, 1]

    def test_what_is_no_storage_is_refused_when_the_function_is_decorated(self) -> None:
        for decorate in (task, flow):
            with pytest.raises(errors.ConfigurationError, match="no storage"):
                decorate(result_storage=3)(len)  # type: ignore[call-overload]

    def test_with_options_takes_it_away_again(self, memory: Orchestrator, tmp_path: Path) -> None:
        @task(result_storage=tmp_path / "results")
        def number() -> int:
            return 1

        number.with_options(result_storage=None)()

        assert not tmp_path.joinpath("results").exists()


SAFE = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=20)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
@given(
    name=st.lists(SAFE, min_size=1, max_size=4).map("/".join),
    value=st.dictionaries(st.text(), st.binary() | st.floats(allow_nan=False) | st.dates()),
)
def test_every_value_comes_back_by_its_key(
    name: str, value: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("by-key")

    @task(
        result_storage=folder,
        result_storage_key="{name}.json",
        cache_result_in_memory=False,
    )
    def given_value(name: str) -> Any:
        return value

    with opened(":memory:") as orch:
        state = given_value(name, return_state=True)

        assert state.result() == value
        assert files_in(folder) == [f"{name}.json"]
        assert (
            ResultStore(result_storage=folder, engine=orch.engine).read(f"{name}.json").result
            == value
        )


class TestKeys:
    def test_a_key_names_the_file_and_the_next_call_finds_it(
        self, orch: Orchestrator, tmp_path: Path
    ) -> None:
        calls = []

        folder = tmp_path / "results"

        @task(result_storage=folder, result_storage_key="days/{parameters[day]}.json")
        def report(day: str) -> dict[str, str]:
            calls.append(day)
            return {"day": day}

        assert [report(day) for day in ("mon", "tue", "mon")] == [
            {"day": "mon"},
            {"day": "tue"},
            {"day": "mon"},
        ]

        assert calls == ["mon", "tue"]
        assert files_in(folder) == ["days/mon.json", "days/tue.json"]
        assert json.loads(folder.joinpath("days", "mon.json").read_bytes()) == {"day": "mon"}
        assert [run.state and run.state.name for run in runs_of(orch, report)] == [
            "Completed",
            "Completed",
            "Cached",
        ]

    def test_it_may_name_what_the_run_knows_of_itself(
        self, memory: Orchestrator, tmp_path: Path
    ) -> None:
        @task(result_storage=tmp_path, result_storage_key="{flow_run.flow_name}-{number}")
        def report(number: int) -> int:
            return number

        @flow
        def daily() -> int:
            return report(3)

        daily()

        assert files_in(tmp_path) == ["daily-3"]

    def test_without_a_storage_it_is_a_key_of_the_database(self, orch: Orchestrator) -> None:
        calls = []

        @task(result_storage_key="report-{number}")
        def report(number: int) -> int:
            calls.append(number)
            return number * 2

        assert [report(1), report(1)] == [2, 2]
        assert calls == [1]
        assert get_result_store().read("report-1").result == 2

    def test_storages_with_equal_paths_do_not_share_results(
        self, memory: Orchestrator, tmp_path: Path
    ) -> None:
        @task(result_storage_key="same")
        def value(of: int) -> int:
            return of

        found = [
            value.with_options(result_storage=tmp_path / name)(number)
            for number, name in enumerate("ab")
        ]

        assert [*found, value(3)] == [0, 1, 3]

    def test_it_wins_over_a_cache_policy_and_is_refreshed_and_expires_like_one(
        self, tmp_path: Path
    ) -> None:
        clock = Clock()
        calls = []

        @task(
            result_storage=tmp_path,
            result_storage_key="value",
            cache_policy=INPUTS,
            cache_expiration=timedelta(hours=1),
        )
        def value(of: int) -> int:
            calls.append(of)
            return of

        with opened(":memory:", clock):
            assert [value(1), value(2)] == [1, 1]
            assert value.with_options(refresh_cache=True)(3) == 3
            assert value(4) == 3
            clock.sleep(3601)
            assert value(5) == 5
        assert calls == [1, 3, 5]
        assert tmp_path.joinpath("value").read_bytes() == b"5"

    @pytest.mark.parametrize("name", ["../secret", "a/../../b", "/etc/passwd", "", "~root", "a\0"])
    def test_a_path_that_leads_out_of_the_storage_fails_the_run_before_it_runs(
        self, orch: Orchestrator, tmp_path: Path, name: str
    ) -> None:
        calls = []

        @task(result_storage=tmp_path / "results", result_storage_key="{name}")
        def value(name: str) -> int:
            calls.append(name)
            return 1

        with pytest.raises(errors.ConfigurationError, match="cannot be used as a path"):
            value(name)

        assert calls == []
        assert not tmp_path.joinpath("results").exists()
        state = the_run_of(orch, value).state
        assert state is not None
        assert state.is_failed()

    def test_a_template_is_checked_when_the_function_is_decorated(self) -> None:
        with pytest.raises(errors.ConfigurationError, match="result_storage_key"):

            @task(result_storage_key="{unknown}")
            def number(of: int) -> int:
                return of

        with pytest.raises(errors.ConfigurationError, match="result_storage_key"):
            task(result_storage_key="")(len)


class TestKeyStorage:
    def doubling(self, folder: Any, calls: list[int], **options: Any) -> Any:
        @task(cache_policy=INPUTS.configure(key_storage=folder), **options)
        def double(number: int) -> int:
            calls.append(number)
            return number * 2

        return double

    def test_databases_that_share_it_share_results(self, url: str, tmp_path: Path) -> None:
        calls: list[int] = []
        double = self.doubling(tmp_path / "keys", calls)
        with opened(":memory:"):
            assert [double(2), double(2)] == [4, 4]

        with opened(url) as orch:
            assert [double(2), double(3)] == [4, 6]
            assert [run.state and run.state.name for run in runs_of(orch, double)] == [
                "Cached",
                "Completed",
            ]
        assert calls == [2, 3]

    def test_what_is_not_recorded_there_is_no_result(self, tmp_path: Path) -> None:
        calls: list[int] = []
        double = self.doubling(tmp_path / "keys", calls)
        with opened(":memory:"):
            double(2)
            for name in files_in(tmp_path):
                tmp_path.joinpath(name).unlink()
            assert double(2) == 4
        assert calls == [2, 2]

    @pytest.mark.parametrize("content", [b"", b"{}", b"no json", b'{"key":"another"}'])
    def test_a_record_that_is_none_is_replaced(self, tmp_path: Path, content: bytes) -> None:
        calls: list[int] = []
        keys, results = tmp_path / "keys", tmp_path / "results"
        double = self.doubling(keys, calls, result_storage=results)
        with opened(":memory:"):
            double(2)
            [name] = files_in(keys)
            keys.joinpath(name).write_bytes(content)
            assert [double(2), double(2)] == [4, 4]
        assert calls == [2, 2]

    def test_it_expires_for_everybody(self, tmp_path: Path) -> None:
        calls: list[int] = []
        clock = Clock()
        double = self.doubling(tmp_path, calls, cache_expiration=timedelta(hours=1))
        with opened(":memory:", clock):
            double(2)
        with opened(":memory:", clock):
            double(2)
        clock.sleep(3601)
        with opened(":memory:", clock):
            double(2)
        assert calls == [2, 2]

    def test_what_a_transaction_rolls_back_is_not_recorded(self, tmp_path: Path) -> None:
        calls: list[int] = []
        double = self.doubling(tmp_path / "keys", calls, result_storage=tmp_path / "results")
        with opened(":memory:"):
            with pytest.raises(ValueError, match="undone"), transaction():
                double(2)
                raise ValueError("undone")
            assert not tmp_path.joinpath("keys").exists()
            with transaction():
                double(2)
            assert len(files_in(tmp_path / "keys")) == 1
            double(2)
        assert calls == [2, 2]

    def test_a_storage_that_is_away_is_warned_about_and_the_run_completes(
        self, caplog: pytest.LogCaptureFixture, tmp_path: Path
    ) -> None:
        storage = Memory()
        storage.is_broken = True
        calls: list[int] = []
        double = self.doubling(storage, calls, result_storage=tmp_path)
        with opened(":memory:"):
            assert double(2) == 4
        assert "was not recorded" in caplog.text

    def test_sums_keep_it_and_differing_ones_cannot_be_added(self, tmp_path: Path) -> None:
        from embedded_orch.cache_policies import TASK_SOURCE

        configured = INPUTS.configure(key_storage=tmp_path, lock_manager=MemoryLockManager())

        assert (configured + TASK_SOURCE).key_storage == LocalFileSystem(tmp_path)
        with pytest.raises(ValueError, match="key_storage"):
            _ = configured + TASK_SOURCE.configure(key_storage=tmp_path / "other")


class TestStores:
    def test_values_are_files_under_their_keys(self, orch: Orchestrator, tmp_path: Path) -> None:
        folder = tmp_path / "results"
        store = ResultStore(result_storage=folder, serializer="pickle")

        store.write({1, 2}, "a/b")

        assert files_in(folder) == ["a/b"]
        assert store.exists("a/b")
        assert store.read("a/b").result == {1, 2}
        assert not ResultStore().exists("a/b")
        with pytest.raises(errors.MissingResult, match="pickle"):
            ResultStore(result_storage=folder).read("a/b")

    @pytest.mark.parametrize("key", ["../a", "/a", "a//b"])
    def test_keys_that_lead_out_of_the_storage_are_refused(
        self, memory: Orchestrator, tmp_path: Path, key: str
    ) -> None:
        with pytest.raises(errors.ConfigurationError, match="cannot be used as a path"):
            ResultStore(result_storage=tmp_path / "results").write(1, key)

    def test_databases_share_what_has_its_records_in_a_storage(
        self, url: str, tmp_path: Path
    ) -> None:
        def store() -> ResultStore:
            return ResultStore(
                result_storage=tmp_path / "results", metadata_storage=tmp_path / "keys"
            )

        with opened(":memory:"):
            store().write((1,), "key")

        with opened(url):
            assert store().read("key").result == (1,)
            assert not store().exists("other")

    def test_a_run_has_the_store_that_its_options_say(
        self, memory: Orchestrator, tmp_path: Path
    ) -> None:
        found = []

        @task(result_storage=tmp_path / "task", persist_result=False)
        def own() -> None:
            found.append((get_result_store().result_storage, should_persist_result()))

        @task
        def inherited() -> None:
            found.append((get_result_store().result_storage, should_persist_result()))

        @flow(result_storage=tmp_path / "flow")
        def around() -> None:
            found.append((get_result_store().result_storage, should_persist_result()))
            own()
            inherited()

        around()

        flow_storage = resolve_result_storage(tmp_path / "flow")
        assert found == [
            (flow_storage, True),
            (resolve_result_storage(str(tmp_path / "task")), False),
            (flow_storage, True),
        ]
        assert get_result_store().result_storage is None
        assert should_persist_result()

    def test_a_transaction_leaves_its_record_in_the_storage_of_its_flow(
        self, memory: Orchestrator, tmp_path: Path
    ) -> None:
        seen = []

        @flow(result_storage=tmp_path / "results")
        def once() -> None:
            with transaction(key="2026-01-31") as txn:
                seen.append(txn.is_committed())
                txn.stage({"loaded": 3})

        once()
        once()

        assert seen == [False, True]
        assert tmp_path.joinpath("results", "2026-01-31").read_bytes() == b'{"loaded":3}'
