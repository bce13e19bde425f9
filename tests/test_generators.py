"""Generator functions as flows and tasks, plain and asynchronous."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import aclosing
from typing import Any

import anyio
import pytest

from embedded_orch import Orchestrator, errors, flow, task
from embedded_orch.engine.contexts import current_flow_run, current_task_run
from embedded_orch.states import Completed, Failed
from tests.engine.waiting import PATIENCE
from tests.opened import flow_runs, opened, runs_of, states, the_flow_run, the_run_of

LOOPS = pytest.mark.parametrize("loop", ["asyncio", "trio"])


@pytest.fixture
def orch(url: str) -> Iterator[Orchestrator]:
    with opened(url) as orchestrator:
        yield orchestrator


@pytest.fixture
def quick() -> Iterator[Orchestrator]:
    with opened(":memory:") as orchestrator:
        yield orchestrator


@task
def pages(count: int) -> Generator[str, None, None]:
    for number in range(count):
        yield f"page {number}"


@task
async def pages_later(count: int) -> AsyncGenerator[str, None]:
    for number in range(count):
        await anyio.sleep(0)
        yield f"page {number}"


def end_of(orchestrator: Orchestrator) -> tuple[str, str | None]:
    state = the_flow_run(orchestrator).state
    assert state is not None
    return state.name, state.message


# -- items ---------------------------------------------------------------------------------------


def test_items_come_one_by_one_and_their_list_is_the_result(orch: Orchestrator) -> None:
    seen: list[str] = []

    @flow
    def crawl(count: int) -> Generator[str, None, None]:
        for page in pages(count):
            seen.append(page)
            yield page.upper()

    found = crawl(2)
    assert seen == []
    assert orch.flow_runs.count() == 0

    assert next(found) == "PAGE 0"
    assert seen == ["page 0"]
    assert states(the_flow_run(orch)) == ["Pending", "Running"]
    assert list(found) == ["PAGE 1"]

    run = the_flow_run(orch)
    assert states(run) == ["Pending", "Running", "Completed"]
    assert run.state is not None
    assert run.state.result() == ["PAGE 0", "PAGE 1"]
    of_task = the_run_of(orch, pages).state
    assert of_task is not None
    assert of_task.result() == ["page 0", "page 1"]


@LOOPS
def test_items_of_an_async_generator(orch: Orchestrator, loop: str) -> None:
    @flow
    async def crawl(count: int) -> AsyncGenerator[str, None]:
        async for page in pages_later(count):
            yield page.upper()

    async def main() -> list[str]:
        return [page async for page in crawl(2)]

    assert anyio.run(main, backend=loop) == ["PAGE 0", "PAGE 1"]
    run = the_flow_run(orch)
    assert run.state is not None
    assert run.state.result() == ["PAGE 0", "PAGE 1"]
    assert states(the_run_of(orch, pages_later)) == ["Pending", "Running", "Completed"]


def test_plain_generators_in_async_flows(quick: Orchestrator) -> None:
    @flow
    async def crawl() -> list[str]:
        return list(pages(2))

    assert asyncio.run(crawl()) == ["page 0", "page 1"]


def test_task_outside_of_a_flow(quick: Orchestrator) -> None:
    assert list(pages(2)) == ["page 0", "page 1"]
    assert states(the_run_of(quick, pages))[-1] == "Completed"


def test_parameters_are_converted(quick: Orchestrator) -> None:
    @flow
    def numbers(count: int) -> Generator[int, None, None]:
        yield from range(count)

    assert list(numbers("3")) == [0, 1, 2]  # type: ignore[arg-type]
    with pytest.raises(errors.ParameterTypeError):
        list(numbers("many"))  # type: ignore[arg-type]


def test_what_is_sent_thrown_and_returned_goes_through(quick: Orchestrator) -> None:
    @task
    def talk() -> Generator[str, str, str]:
        answer = yield "hello"
        try:
            yield answer.upper()
        except KeyError as error:
            yield f"caught {error}"
        return "bye"

    @flow
    def report() -> Generator[str, str, str]:
        return (yield from talk())

    found = report()

    assert next(found) == "hello"
    assert found.send("well") == "WELL"
    assert found.throw(KeyError("k")) == "caught 'k'"
    with pytest.raises(StopIteration) as end:
        next(found)
    assert end.value.value == "bye"
    assert end_of(quick)[0] == "Completed"


@LOOPS
def test_what_is_sent_and_thrown_goes_through_async_generators(
    quick: Orchestrator, loop: str
) -> None:
    @flow
    async def talk() -> AsyncGenerator[str, str]:
        answer = yield "hello"
        try:
            yield answer.upper()
        except KeyError as error:
            yield f"caught {error}"

    async def main() -> list[str]:
        found = talk()
        heard = [await anext(found), await found.asend("well"), await found.athrow(KeyError("k"))]
        return heard + [each async for each in found]

    assert anyio.run(main, backend=loop) == ["hello", "WELL", "caught 'k'"]
    assert end_of(quick)[0] == "Completed"


# -- contexts ------------------------------------------------------------------------------------


def test_who_iterates_is_not_in_the_run(quick: Orchestrator) -> None:
    inside: list[object] = []

    @task
    def step() -> Generator[int, None, None]:
        inside.append((current_flow_run(), current_task_run()))
        yield 1
        inside.append((current_flow_run(), current_task_run()))

    @flow
    def report() -> Generator[int, None, None]:
        for item in step():
            assert current_task_run() is None
            yield item

    for _ in report():
        assert current_flow_run() is None

    assert inside[0] == inside[1]
    assert None not in inside[0]  # type: ignore[operator]


def test_two_runs_may_be_iterated_in_turn(quick: Orchestrator) -> None:
    @flow
    def report(name: str) -> Generator[Any, None, None]:
        for page in pages(2):
            here = current_flow_run()
            assert here is not None
            yield name, page, here.name

    found = list(zip(report("a"), report("b"), strict=True))

    assert [(a[:2], b[:2]) for a, b in found] == [
        (("a", "page 0"), ("b", "page 0")),
        (("a", "page 1"), ("b", "page 1")),
    ]
    assert {a[2] for a, _ in found}.isdisjoint({b[2] for _, b in found})


def test_items_may_be_taken_in_other_threads_and_contexts(quick: Orchestrator) -> None:
    found = pages(3)
    taken = [next(found)]
    thread = threading.Thread(target=lambda: taken.append(next(found)))
    thread.start()
    thread.join(PATIENCE)
    taken.extend(contextvars.copy_context().run(lambda: list(found)))

    assert taken == ["page 0", "page 1", "page 2"]


# -- ends ----------------------------------------------------------------------------------------


def test_closing_early_completes_the_run_without_a_result(orch: Orchestrator) -> None:
    ended: list[str] = []

    @flow
    def report() -> Generator[int, None, None]:
        try:
            yield 1
            yield 2
        finally:
            ended.append("closed")

    for item in report():
        assert item == 1
        break

    assert ended == ["closed"]
    name, message = end_of(orch)
    assert name == "Completed"
    assert message is not None
    assert "closed early" in message


@LOOPS
def test_closing_an_async_generator_early(orch: Orchestrator, loop: str) -> None:
    ended: list[str] = []

    @flow
    async def report() -> AsyncGenerator[int, None]:
        try:
            yield 1
            yield 2
        finally:
            await anyio.sleep(0)
            ended.append("closed")

    async def main() -> None:
        async with aclosing(report()) as items:
            async for item in items:
                assert item == 1
                break

    anyio.run(main, backend=loop)

    assert ended == ["closed"]
    assert end_of(orch)[0] == "Completed"


def test_error_while_it_is_closed_is_retried_and_closed_again(quick: Orchestrator) -> None:
    attempts: list[int] = []

    @flow(retries=1)
    def report() -> Generator[int, None, None]:
        attempts.append(1)
        try:
            yield 1
        finally:
            if len(attempts) == 1:
                raise ValueError("in closing")

    found = report()
    next(found)
    found.close()

    assert attempts == [1, 1]
    assert states(the_flow_run(quick))[-1] == "Completed"


def test_error_while_it_is_closed_is_raised(quick: Orchestrator) -> None:
    @flow
    def report() -> Generator[int, None, None]:
        try:
            yield 1
        finally:
            raise ValueError("in closing")

    found = report()
    next(found)
    with pytest.raises(ValueError, match="in closing"):
        found.close()

    assert end_of(quick)[0] == "Failed"


def test_error_fails_the_run_after_its_items(orch: Orchestrator) -> None:
    @flow
    def report() -> Generator[int, None, None]:
        yield 1
        raise ValueError("no more")

    found = report()
    assert next(found) == 1
    with pytest.raises(ValueError, match="no more"):
        next(found)

    assert end_of(orch) == ("Failed", "Flow run encountered an exception: ValueError: no more")


def test_error_that_is_thrown_in_and_not_caught_fails_the_run(quick: Orchestrator) -> None:
    found = pages(2)
    next(found)
    with pytest.raises(KeyError):
        found.throw(KeyError("k"))

    assert states(the_run_of(quick, pages))[-1] == "Failed"


def test_retry_begins_again_and_gives_its_items_again(orch: Orchestrator) -> None:
    attempts: list[int] = []

    @task(retries=1)
    def shaky() -> Generator[str, None, None]:
        attempts.append(1)
        yield f"a{len(attempts)}"
        if len(attempts) == 1:
            raise ConnectionError
        yield "b"

    @flow
    def report() -> list[str]:
        return list(shaky())

    assert report() == ["a1", "a2", "b"]
    state = the_run_of(orch, shaky).state
    assert state is not None
    assert state.result() == ["a2", "b"]


def test_states_that_are_yielded_make_the_state_of_the_flow(quick: Orchestrator) -> None:
    @flow
    def report() -> Generator[Any, None, None]:
        yield Completed()
        yield Failed(message="no luck")

    found = report()
    next(found)
    next(found)
    with pytest.raises(errors.FailedRun, match="no luck"):
        next(found)

    assert end_of(quick) == ("Failed", "1/2 states failed.")


def test_futures_that_are_yielded_are_waited_for(quick: Orchestrator) -> None:
    @task
    def one() -> int:
        return 1

    @flow
    def report() -> Generator[Any, None, None]:
        yield one.submit()

    [future] = report()

    assert future.result() == 1
    assert end_of(quick) == ("Completed", "All states completed.")


# -- time limits ---------------------------------------------------------------------------------


def test_generator_that_takes_too_long_is_timed_out(quick: Orchestrator) -> None:
    @flow(timeout_seconds=0.5)
    def report() -> Generator[int, None, None]:
        yield 1
        time.sleep(PATIENCE)

    found = report()
    assert next(found) == 1
    with pytest.raises(errors.RunTimedOut):
        next(found)
    assert end_of(quick) == ("TimedOut", "Flow run exceeded timeout of 0.5 second(s)")


def test_time_of_who_iterates_counts(quick: Orchestrator) -> None:
    ended: list[str] = []

    @flow(timeout_seconds=0.3)
    def report() -> Generator[int, None, None]:
        try:
            yield 1
            yield 2
        finally:
            ended.append("closed")

    found = report()
    next(found)
    time.sleep(0.3)
    with pytest.raises(errors.RunTimedOut):
        next(found)
    assert ended == ["closed"]
    assert end_of(quick)[0] == "TimedOut"


@LOOPS
def test_async_generator_that_takes_too_long_is_timed_out(quick: Orchestrator, loop: str) -> None:
    @flow(timeout_seconds=0.5)
    async def report() -> AsyncGenerator[int, None]:
        yield 1
        await anyio.sleep(PATIENCE)
        yield 2

    async def main() -> list[int]:
        taken: list[int] = []
        with pytest.raises(errors.RunTimedOut):
            async for item in report():
                taken.append(item)
        return taken

    assert anyio.run(main, backend=loop) == [1]
    assert end_of(quick)[0] == "TimedOut"


# -- whole lists ---------------------------------------------------------------------------------


def test_submitted_and_mapped_generators_give_their_lists(quick: Orchestrator) -> None:
    @flow
    def report() -> Any:
        return pages.submit(2).result(), pages.map([1, 0]).result()

    assert report() == (["page 0", "page 1"], [["page 0"], []])


@LOOPS
def test_submitted_async_generators_give_their_lists(quick: Orchestrator, loop: str) -> None:
    @flow
    async def report() -> Any:
        return await pages_later.submit(2)

    assert anyio.run(report, backend=loop) == ["page 0", "page 1"]


def test_final_state_has_the_list(quick: Orchestrator) -> None:
    @flow
    def report() -> Generator[int, None, None]:
        yield 1
        yield 2

    assert report(return_state=True).result() == [1, 2]

    @flow
    async def report_later() -> AsyncGenerator[int, None]:
        yield 1

    async def main() -> Any:
        return await report_later(return_state=True)

    assert asyncio.run(main()).result() == [1]


def test_generators_in_processes_give_their_lists(quick: Orchestrator) -> None:
    from embedded_orch.task_runners import ProcessPoolTaskRunner

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def report() -> Any:
        return pages.submit(2).result(), pages_later.submit(1).result()

    assert report() == (["page 0", "page 1"], ["page 0"])


# -- subflows and resuming -----------------------------------------------------------------------


def test_generator_flow_in_a_flow(orch: Orchestrator) -> None:
    @flow
    def inner(count: int) -> Generator[str, None, None]:
        yield from pages(count)

    @flow
    def outer() -> list[str]:
        return list(inner(2))

    assert outer() == ["page 0", "page 1"]
    assert {run.flow_name for run in flow_runs(orch)} == {"inner", "outer"}
    assert len(runs_of(orch, pages)) == 1


def test_recorded_items_are_given_again_and_nothing_runs(orch: Orchestrator) -> None:
    made: list[str] = []
    is_broken = [True]

    @task
    def load(name: str) -> Generator[str, None, None]:
        for number in range(2):
            made.append(f"{name}{number}")
            yield made[-1]

    @flow
    def inner() -> Generator[str, None, None]:
        yield from load("inner")

    @flow
    def report() -> list[str]:
        first = next(iter(load("cut")))
        found = [first, *load("whole"), *inner()]
        if is_broken[0]:
            raise ConnectionError
        return found

    with pytest.raises(ConnectionError):
        report()
    is_broken[0] = False
    [run] = flow_runs(orch, flow_name="report")

    assert report.resume(run.id) == ["cut0", "whole0", "whole1", "inner0", "inner1"]
    # The one that was closed early has no whole list to give.
    assert made == ["cut0", "whole0", "whole1", "inner0", "inner1", "cut0"]


def test_generator_flow_is_resumed(orch: Orchestrator) -> None:
    is_broken = [True]

    @flow
    def report() -> Generator[str, None, None]:
        yield from pages(1)
        if is_broken[0]:
            raise ConnectionError
        yield "end"

    with pytest.raises(ConnectionError):
        list(report())
    is_broken[0] = False
    run = the_flow_run(orch)

    assert list(report.resume(run.id)) == ["page 0", "end"]
    assert list(report.resume(run.id)) == ["page 0", "end"]
    assert len(runs_of(orch, pages)) == 1


def test_flows_and_tasks_say_what_they_are() -> None:
    @flow
    def plain() -> None: ...

    @flow
    async def generator() -> AsyncGenerator[int, None]:
        yield 1

    assert (plain.isgenerator, plain.isasync) == (False, False)
    assert (pages.isgenerator, pages.isasync) == (True, False)
    assert (generator.isgenerator, generator.isasync) == (True, True)
