"""Tags of the code around a call."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest

from embedded_orch import FlowRun, Orchestrator, errors, flow, tags, task
from embedded_orch.context import TagsContext
from embedded_orch.context import tags as tags_of_context
from tests.opened import flow_runs, opened, runs_of, the_flow_run, the_run_of


@pytest.fixture
def orch() -> Iterator[Orchestrator]:
    with opened(":memory:") as orchestrator:
        yield orchestrator


@task(tags=["own"])
def work(number: int) -> int:
    return number


@task
async def work_later(number: int) -> int:
    await anyio.sleep(0)
    return number


@flow(tags=["nightly"])
def report() -> None:
    with tags("inner", "own"):
        work(1)
    work(2)


def test_runs_have_their_own_tags_and_those_around_their_call(url: str) -> None:
    with opened(url) as orchestrator:
        with tags("outer"):
            report()

        assert the_flow_run(orchestrator).tags == ["nightly", "outer"]
        first, second = runs_of(orchestrator, work)
        assert first.tags == ["own", "inner", "outer"]
        assert second.tags == ["own", "outer"]


def test_runs_are_found_by_the_tags_of_the_block(url: str) -> None:
    with opened(url) as orchestrator:
        report()
        with tags("backfill"):
            report()

        assert len(list(orchestrator.flow_runs.find(tags="backfill"))) == 1


def test_blocks_nest_and_end(orch: Orchestrator) -> None:
    with tags("a", "b") as first:
        with tags("c", "a") as second:
            assert second == TagsContext.get().current_tags == {"a", "b", "c"}
        assert first == TagsContext.get().current_tags == {"a", "b"}
    assert TagsContext.get().current_tags == set()


def test_what_is_done_to_the_set_changes_nothing() -> None:
    with tags("a") as found:
        found.add("b")
        assert TagsContext.get().current_tags == {"a"}


def test_a_block_that_raises_ends_too() -> None:
    with pytest.raises(ZeroDivisionError), tags("a"):
        raise ZeroDivisionError
    assert TagsContext.get().current_tags == set()


def test_submitted_tasks_have_the_tags_of_where_they_were_submitted(orch: Orchestrator) -> None:
    @flow
    def submits() -> None:
        with tags("batch"):
            found = [*work.map([1, 2]), work_later.submit(3)]
        for future in found:
            future.wait()

    submits()

    assert {tuple(run.tags) for run in runs_of(orch, work)} == {("own", "batch")}
    assert the_run_of(orch, work_later).tags == ["batch"]


def test_subflows_and_the_task_runs_that_track_them_have_them(orch: Orchestrator) -> None:
    @flow
    def child() -> None:
        work(1)

    @flow
    def parent() -> None:
        with tags("part"):
            child()

    parent()

    assert the_flow_run(orch, flow_name="child").tags == ["part"]
    assert {tuple(run.tags) for run in orch.task_runs.find()} == {("part",), ("own", "part")}


def test_concurrent_tasks_of_a_loop_each_have_their_own(orch: Orchestrator) -> None:
    @flow
    async def spreads() -> None:
        async def one(number: int) -> None:
            with tags(f"number {number}"):
                await anyio.sleep(0)
                await work_later(number)

        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(one, number)

    anyio.run(spreads)

    assert sorted(run.tags for run in runs_of(orch, work_later)) == [
        ["number 0"],
        ["number 1"],
        ["number 2"],
    ]


def test_a_coroutine_keeps_the_tags_of_its_call(orch: Orchestrator) -> None:
    @flow
    async def later() -> None:
        with tags("called here"):
            coroutine = work_later(1)
        await coroutine

    anyio.run(later)

    assert the_run_of(orch, work_later).tags == ["called here"]


def test_threads_of_the_user_begin_without_tags(orch: Orchestrator) -> None:
    with tags("a"), ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: TagsContext.get().current_tags).result() == set()


def test_a_resumed_run_keeps_its_tags(orch: Orchestrator) -> None:
    seen = threading.Event()

    @flow
    def fails_once() -> FlowRun | None:
        if not seen.is_set():
            seen.set()
            raise ZeroDivisionError
        with tags():
            work(1)
        return None

    with tags("first"), pytest.raises(ZeroDivisionError):
        fails_once()
    [run] = flow_runs(orch)
    with tags("second"):
        fails_once.resume(run.id)

    assert the_flow_run(orch).tags == ["first"]
    assert the_run_of(orch, work).tags == ["own", "second"]


def test_a_tag_is_a_text() -> None:
    number: object = 1
    with pytest.raises(errors.ConfigurationError, match="texts"), tags(number):  # type: ignore[arg-type]
        raise AssertionError("the block was entered")


def test_it_is_found_where_prefect_has_it() -> None:
    assert tags_of_context is tags
