"""Artifacts: made in runs, found again by what made them and by key."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import anyio
import pytest

from embedded_orch import Orchestrator, errors, flow, task
from embedded_orch.artifacts import (
    Artifact,
    MarkdownArtifact,
    TableArtifact,
    acreate_image_artifact,
    acreate_link_artifact,
    acreate_markdown_artifact,
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from tests.opened import opened, the_flow_run, the_run_of


@pytest.fixture
def orch(url: str) -> Iterator[Orchestrator]:
    with opened(url) as orchestrator:
        yield orchestrator


@pytest.fixture
def memory() -> Iterator[Orchestrator]:
    with opened(":memory:") as orchestrator:
        yield orchestrator


def test_each_kind_is_stored_as_prefect_stores_it(orch: Orchestrator) -> None:
    ids = [
        create_link_artifact("https://x.org", "X", key="link"),
        create_link_artifact("https://x.org"),
        create_markdown_artifact("# Report", key="report", description="of today"),
        create_table_artifact([{"a": 1, "b": float("nan")}], "table"),
        create_table_artifact({"a": [1, 2]}),
        create_table_artifact([["a", "b"]]),
        create_progress_artifact(12.5, "progress"),
        create_image_artifact("https://x.org/y.png", "image"),
    ]

    found = [orch.artifacts.get(id) for id in ids]

    assert [(each.type, each.key, each.data) for each in found] == [
        ("markdown", "link", "[X](https://x.org)"),
        ("markdown", None, "[https://x.org](https://x.org)"),
        ("markdown", "report", "# Report"),
        ("table", "table", json.dumps([{"a": 1, "b": None}])),
        ("table", None, json.dumps({"a": [1, 2]})),
        ("table", None, json.dumps([["a", "b"]])),
        ("progress", "progress", 12.5),
        ("image", "image", "https://x.org/y.png"),
    ]
    assert found[2].description == "of today"


def test_an_artifact_knows_its_runs(memory: Orchestrator) -> None:
    @task
    def load() -> UUID:
        return UUID(str(create_markdown_artifact("in a task", "report")))

    @flow
    def etl() -> list[UUID]:
        return [create_markdown_artifact("in a flow"), load(), load.submit().result()]

    in_flow, in_task, _ = etl()

    run, tasks = the_flow_run(memory), list(memory.task_runs.find())[::-1]
    assert memory.artifacts.get(in_flow).flow_run_id == run.id
    assert memory.artifacts.get(in_flow).task_run_id is None
    assert memory.artifacts.get(in_task).flow_run_id == run.id
    assert memory.artifacts.get(in_task).task_run_id == tasks[0].id
    assert memory.artifacts.count(flow_run_id=run.id) == 3
    assert memory.artifacts.count(task_run_id=[each.id for each in tasks]) == 2


def test_a_progress_is_updated_and_kept_between_0_and_100(
    orch: Orchestrator, caplog: pytest.LogCaptureFixture
) -> None:
    id = create_progress_artifact(-3, description="first")

    seen = [orch.artifacts.get(id).data]
    for progress, description in ((50.0, None), (150, "last")):
        assert update_progress_artifact(id, progress, description) == id
        found = orch.artifacts.get(id)
        seen.append((found.data, found.description))

    assert seen == [0.0, (50.0, "first"), (100.0, "last")]
    assert len([each for each in caplog.records if each.levelno == logging.WARNING]) == 2
    with pytest.raises(errors.RunNotFound, match="no artifact"):
        update_progress_artifact(orch.engine.process.new_id(), 1)


@pytest.mark.parametrize("key", ["", "A", "a_b", "a b", "é"])
def test_keys_that_cannot_be(memory: Orchestrator, key: str) -> None:
    with pytest.raises(ValueError, match="cannot be the key"):
        create_markdown_artifact("x", key=key)

    assert memory.artifacts.count() == 0


def test_data_that_json_cannot_hold(memory: Orchestrator) -> None:
    with pytest.raises(errors.ValueNotStorable, match="'t'"):
        create_table_artifact([{"a": object()}], "t")
    with pytest.raises(errors.ValueNotStorable):
        Artifact(type="own", data=float("inf")).create()

    assert memory.artifacts.count() == 0


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_in_asynchronous_code(memory: Orchestrator, loop: str) -> None:
    async def main() -> list[UUID]:
        progress = await acreate_progress_artifact(1)
        await aupdate_progress_artifact(progress, 2)
        made = [
            await create_markdown_artifact("a"),
            await acreate_markdown_artifact("b"),
            await acreate_link_artifact("c"),
            await acreate_table_artifact([["d"]]),
            await acreate_image_artifact("e"),
            progress,
            (await Artifact(type="own", key="f", data=1).acreate()).id,
        ]
        found, was_made = await MarkdownArtifact.aget_or_create("f", markdown="not made")
        assert (found.id, was_made) == (made[-1], False)
        newest = await Artifact.aget("f")
        assert newest is not None
        assert newest.id == made[-1]
        return made

    ids = anyio.run(main, backend=loop)

    data = [memory.artifacts.get(id).data for id in ids]
    assert data == ["a", "b", "[c](c)", '[["d"]]', "e", 2.0, "1"]


class TestArtifact:
    def test_of_a_type_of_its_own(self, orch: Orchestrator) -> None:
        made = Artifact(
            type="own", key="k", description="d", data={"a": [1]}, metadata_={"m": "n"}
        ).create()

        found = orch.artifacts.get(made.id)

        assert (found.type, found.key, found.description) == ("own", "k", "d")
        assert (found.data, found.metadata_) == ('{"a": [1]}', {"m": "n"})
        assert found.created == found.updated

    def test_the_newest_of_a_key(self, orch: Orchestrator) -> None:
        first = create_markdown_artifact("1", "k")
        second = create_markdown_artifact("2", "k")
        create_progress_artifact(1)

        assert Artifact.get("k").id == second
        assert Artifact.get("other") is None
        update_progress_artifact(first, 3)
        assert Artifact.get("k").id == first

    def test_get_or_create(self, orch: Orchestrator) -> None:
        made, was_made = TableArtifact.get_or_create("k", "d", table=[[1]])
        found, is_new = TableArtifact.get_or_create("k", table=[[2]])

        assert (was_made, is_new) == (True, False)
        assert (made.id, made.data, made.description) == (found.id, "[[1]]", "d")

    def test_what_is_written_is_told(self) -> None:
        assert TableArtifact(table=[[1]]).format() == "[[1]]"
        assert Artifact(data="x").format() == '"x"'


class TestFinding:
    @pytest.fixture
    def found(self, orch: Orchestrator) -> Any:
        ids = {
            "b1": create_markdown_artifact("1", "b"),
            "b2": create_markdown_artifact("2", "b"),
            "a": create_progress_artifact(1, "a-k"),
            "none": create_image_artifact("i"),
            "own": Artifact(data=1, key="c").create().id,
        }
        update_progress_artifact(ids["a"], 2)
        names = {id: name for name, id in ids.items()}

        def listed(**filters: Any) -> list[str]:
            filters = {
                key: ids.get(value, value) if key == "id" else value
                for key, value in filters.items()
            }
            found = [names[each.id] for each in orch.artifacts.find(**filters)]
            if "sort" not in filters and "limit" not in filters:
                assert orch.artifacts.count(**filters) == len(found)
            return found

        return listed

    @pytest.mark.parametrize(
        ("filters", "names"),
        [
            ({}, ["own", "none", "a", "b2", "b1"]),
            ({"limit": 2}, ["own", "none"]),
            ({"sort": "CREATED_DESC"}, ["own", "none", "a", "b2", "b1"]),
            ({"sort": "UPDATED_DESC"}, ["a", "own", "none", "b2", "b1"]),
            ({"sort": "KEY_ASC"}, ["none", "a", "b1", "b2", "own"]),
            ({"sort": "KEY_DESC"}, ["own", "b2", "b1", "a", "none"]),
            ({"id": "a"}, ["a"]),
            ({"key": "b"}, ["b2", "b1"]),
            ({"key": ["b", "c"]}, ["own", "b2", "b1"]),
            ({"key_like": "K"}, ["a"]),
            ({"has_key": False}, ["none"]),
            ({"type": ["image", "progress"]}, ["none", "a"]),
            ({"not_type": "markdown"}, ["own", "none", "a"]),
            ({"is_latest": True}, ["own", "a", "b2"]),
            ({"is_latest": False}, ["none", "b1"]),
        ],
    )
    def test_by_each_filter_and_order(
        self, found: Any, filters: dict[str, Any], names: list[str]
    ) -> None:
        assert found(**filters) == names

    def test_the_one_before_is_the_newest_when_that_is_deleted(self, orch: Orchestrator) -> None:
        first = create_markdown_artifact("1", "k")
        second = create_markdown_artifact("2", "k")

        assert orch.artifacts.delete(second)
        assert not orch.artifacts.delete(second)
        assert [each.id for each in orch.artifacts.find(is_latest=True)] == [first]
        assert orch.artifacts.delete(first)
        assert list(orch.artifacts.find(is_latest=True)) == []
        with pytest.raises(errors.RunNotFound, match="artifact"):
            orch.artifacts.get(first)

    def test_page_by_page(self, memory: Orchestrator) -> None:
        ids = [create_progress_artifact(1, "k") for _ in range(201)]

        assert [each.id for each in memory.artifacts.find(key="k")] == ids[::-1]
        assert [each.id for each in memory.artifacts.find(sort="KEY_ASC")] == ids


def test_a_resumed_task_does_not_make_its_artifact_twice(memory: Orchestrator) -> None:
    """What completed is not run again."""
    broken = [True]

    @task
    def report() -> None:
        create_markdown_artifact("made", "report")

    @flow
    def etl() -> None:
        report()
        if broken:
            raise KeyError

    with pytest.raises(KeyError):
        etl()
    broken.clear()
    etl.resume(the_flow_run(memory).id)

    assert memory.artifacts.count(key="report") == 1
    assert (
        memory.artifacts.get(Artifact.get("report").id).task_run_id == the_run_of(memory, report).id
    )
