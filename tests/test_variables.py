"""Variables: set, read and removed in plain and in asynchronous code."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from embedded_orch import Orchestrator, Secret, errors, flow, task
from embedded_orch.variables import Variable
from tests.opened import opened


@pytest.fixture
def orch(url: str) -> Iterator[Orchestrator]:
    with opened(url) as orchestrator:
        yield orchestrator


@pytest.fixture
def memory() -> Iterator[Orchestrator]:
    with opened(":memory:") as orchestrator:
        yield orchestrator


@pytest.mark.parametrize(
    "value",
    ["text", "", 3, 2**53 + 1, 0.1, True, None, [], {}, {"b": [1, {"a": None}], "a": "é"}, [[1.5]]],
)
def test_a_value_comes_back_as_it_was(orch: Orchestrator, value: Any) -> None:
    Variable.set("v", value)

    found = Variable.get("v", "nothing")

    assert found == value
    assert type(found) is type(value)
    if isinstance(value, dict):
        assert list(found) == list(value)


def test_a_variable_is_set_once_unless_it_is_to_be_overwritten(orch: Orchestrator) -> None:
    first = Variable.set("limit", 3, tags=["etl"])
    with pytest.raises(ValueError, match="overwrite=True"):
        Variable.set("limit", 4)
    second = Variable.set("limit", [4], overwrite=True)

    assert first == Variable("limit", 3, ["etl"])
    assert second == Variable("limit", [4])
    assert Variable.get("limit") == [4]


def test_one_that_is_missing_gives_the_default(memory: Orchestrator) -> None:
    assert Variable.get("limit") is None
    assert Variable[int].get("limit", 7) == 7
    assert not Variable.unset("limit")


def test_unset_removes_it(orch: Orchestrator) -> None:
    Variable.set("limit", 3)

    assert Variable.unset("limit")
    assert not Variable.unset("limit")
    assert Variable.get("limit") is None


@pytest.mark.parametrize("name", ["", "A", "a b", "a.b", "é", "a" * 256])
def test_names_that_cannot_be(memory: Orchestrator, name: str) -> None:
    with pytest.raises(ValueError, match="cannot be the name"):
        Variable.set(name, 1)

    assert memory.variables.count() == 0


def test_the_longest_name_can_be(memory: Orchestrator) -> None:
    Variable.set("a_-9" + "b" * 251, 1)

    assert memory.variables.count() == 1


@pytest.mark.parametrize(
    "value",
    [(1, 2), {1: 2}, {1}, b"x", float("nan"), [float("inf")], object(), Secret("s"), [Secret("s")]],
    ids=lambda value: type(value).__name__,
)
def test_values_that_would_not_come_back(memory: Orchestrator, value: Any) -> None:
    with pytest.raises(errors.ConfigurationError, match="'v'"):
        Variable.set("v", value)

    assert memory.variables.count() == 0


def test_a_value_is_5000_characters_of_json_at_most(memory: Orchestrator) -> None:
    Variable.set("v", "x" * 4998)
    with pytest.raises(errors.ConfigurationError, match="5001 characters"):
        Variable.set("w", "x" * 4999)

    assert memory.variables.count() == 1


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_in_asynchronous_code_the_same_names_give_coroutines(
    memory: Orchestrator, loop: str
) -> None:
    async def main() -> list[Any]:
        return [
            await Variable.set("a", 1),
            await Variable.get("a"),
            Variable.get("a", _sync=True),
            await Variable.aset("a", 2, overwrite=True),
            await Variable.aget("a"),
            await Variable.aget("b", 3),
            await Variable.unset("a"),
            await Variable.aunset("a"),
        ]

    found = anyio.run(main, backend=loop)

    assert found == [Variable("a", 1), 1, 1, Variable("a", 2), 2, 3, True, False]


def test_runs_see_what_other_runs_set(memory: Orchestrator) -> None:
    @task
    def count() -> int:
        seen: int = Variable.get("seen", 0)
        Variable.set("seen", seen + 1, overwrite=True)
        return seen

    @task
    async def count_later() -> int:
        return int(await Variable.get("seen"))

    @flow
    def etl() -> list[int]:
        return [count(), count.submit().result(), count_later.submit().result()]

    assert etl() == [0, 1, 2]


def test_of_two_that_set_it_at_once_one_is_told(orch: Orchestrator) -> None:
    together = threading.Barrier(2)
    ended: list[str] = []

    def work(value: int) -> None:
        together.wait()
        try:
            Variable.set("v", value)
        except ValueError:
            ended.append("told")
        else:
            ended.append("set")

    threads = [threading.Thread(target=work, args=(value,)) for value in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(ended) == ["set", "told"]


class TestFinding:
    @pytest.fixture
    def found(self, orch: Orchestrator) -> Any:
        for name, tags in (("b_one", ["x", "y"]), ("a_two", ["x"]), ("c", [])):
            orch.variables.set(name, name, tags)
        orch.variables.set("b_one", "again", ["x", "y"], overwrite=True)
        ids = {each.name: each.id for each in orch.variables.find()}

        def names(**filters: Any) -> list[str]:
            filters = {key: ids[value] if key == "id" else value for key, value in filters.items()}
            listed = [each.name for each in orch.variables.find(**filters)]
            assert orch.variables.count(
                **{key: value for key, value in filters.items() if key not in ("sort", "limit")}
            ) == (len(listed) if "limit" not in filters else 3)
            return listed

        return names

    @pytest.mark.parametrize(
        ("filters", "names"),
        [
            ({}, ["a_two", "b_one", "c"]),
            ({"sort": "NAME_DESC"}, ["c", "b_one", "a_two"]),
            ({"sort": "CREATED_DESC"}, ["c", "a_two", "b_one"]),
            ({"sort": "UPDATED_DESC"}, ["b_one", "c", "a_two"]),
            ({"limit": 2}, ["a_two", "b_one"]),
            ({"name": ["c", "b_one"]}, ["b_one", "c"]),
            ({"name_like": "_"}, ["a_two", "b_one"]),
            ({"tags": ["x", "y"]}, ["b_one"]),
            ({"any_tag": ["x", "y"]}, ["a_two", "b_one"]),
            ({"has_tags": False}, ["c"]),
            ({"has_tags": True}, ["a_two", "b_one"]),
            ({"id": "c"}, ["c"]),
        ],
    )
    def test_by_each_filter_and_order(
        self, found: Any, filters: dict[str, Any], names: list[str]
    ) -> None:
        assert found(**filters) == names

    def test_one_by_name_or_id(self, memory: Orchestrator) -> None:
        memory.variables.set("v", 1, ["x"])

        by_name = memory.variables.get("v")

        assert (by_name.value, by_name.tags) == (1, ["x"])
        assert memory.variables.get(by_name.id) == by_name
        assert memory.variables.unset("v")
        with pytest.raises(LookupError, match="'v'"):
            memory.variables.get("v")

    def test_page_by_page(self, memory: Orchestrator) -> None:
        names = [f"v{number:03}" for number in range(201)]
        for name in names:
            memory.variables.set(name, name)

        assert [each.name for each in memory.variables.find()] == names
