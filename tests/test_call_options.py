"""Calls that give their state, that wait for other runs, and whose arguments are marked."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from embedded_orch import State, allow_failure, errors, flow, task, unmapped
from embedded_orch.utilities.annotations import opaque, quote
from tests.engine.waiting import passed
from tests.opened import opened, runs_of, states, the_flow_run, the_run_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from embedded_orch import Future, Orchestrator

LOOPS = ("asyncio", "trio")


@pytest.fixture
def orch(url: str) -> Iterator[Orchestrator]:
    with opened(url) as orchestrator:
        yield orchestrator


@pytest.fixture
def quick() -> Iterator[Orchestrator]:
    with opened(":memory:") as orchestrator:
        yield orchestrator


@task
def give(value: Any) -> Any:
    return value


@task
def fail() -> None:
    raise ValueError("no luck")


def in_flow(body: Callable[[], Any]) -> Any:
    return flow(name="a-flow")(lambda: body())()


# -- return_state --------------------------------------------------------------------------------


def test_call_gives_its_state_whatever_it_is(orch: Orchestrator) -> None:
    def body() -> list[Any]:
        return [
            give(3, return_state=True),
            fail(return_state=True),
            give.submit(4, return_state=True),
            fail.submit(return_state=True),
            *give.map([5, 6], return_state=True),
        ]

    @flow
    def calls() -> int:
        found = body()
        assert [state.name for state in found] == [
            "Completed", "Failed", "Completed", "Failed", "Completed", "Completed",
        ]  # fmt: skip
        assert [found[index].result() for index in (0, 2, 4, 5)] == [3, 4, 5, 6]
        with pytest.raises(ValueError, match="no luck"):
            found[1].result()
        return len(found)

    state: State[int] = calls(return_state=True)

    assert (state.name, state.result()) == ("Completed", 6)
    assert state.state_details.flow_run_id == the_flow_run(orch).id


def test_failed_flow_gives_its_state(quick: Orchestrator) -> None:
    @flow
    def child() -> None:
        raise ValueError("no luck")

    @flow
    def parent() -> str:
        state = child(return_state=True)
        return f"{state.name}: {state.result(raise_on_failure=False)}"

    assert parent() == "Failed: no luck"
    assert child(return_state=True).is_failed()


@pytest.mark.parametrize("loop", LOOPS)
def test_async_calls_give_their_state(quick: Orchestrator, loop: str) -> None:
    @task
    async def fetch(page: int) -> int:
        if page < 0:
            raise ValueError("no such page")
        return page

    @flow
    async def crawl() -> list[str]:
        found = [
            await fetch(1, return_state=True),
            await fetch(-1, return_state=True),
            fetch.submit(2, return_state=True),
            *fetch.map([3, -3], return_state=True),
        ]
        return [state.name for state in found]

    async def call() -> State[list[str]]:
        return await crawl(return_state=True)

    state = anyio.run(call, backend=loop)
    assert state.result() == ["Completed", "Failed", "Completed", "Completed", "Failed"]


# -- wait_for ------------------------------------------------------------------------------------


def test_call_waits_for_what_it_is_told_to(orch: Orchestrator) -> None:
    may_end = threading.Event()
    order: list[str] = []

    @task
    def slow() -> None:
        passed(may_end)
        order.append("slow")

    @task
    def after(name: str) -> None:
        order.append(name)

    @flow
    def child(name: str) -> None:
        order.append(name)

    def body() -> None:
        first = slow.submit()
        submitted = after.submit("submitted", wait_for=[first])
        mapped = after.map(["mapped"], wait_for=first)
        may_end.set()
        after("called", wait_for=(first, {"a": [first]}))
        child("flow", wait_for=[first])
        submitted.wait()
        mapped.wait()

    in_flow(body)

    assert order[0] == "slow"
    assert sorted(order[1:]) == ["called", "flow", "mapped", "submitted"]


@pytest.mark.parametrize("loop", LOOPS)
def test_async_call_waits_for_what_it_is_told_to(quick: Orchestrator, loop: str) -> None:
    order: list[str] = []

    @task
    async def note(name: str) -> None:
        await anyio.sleep(0)
        order.append(name)

    @flow
    async def crawl() -> None:
        first = note.submit("first")
        await note("second", wait_for=[first])

    anyio.run(crawl, backend=loop)
    assert order == ["first", "second"]


def failed_future() -> Future[None]:
    return fail.submit()


def failed_state() -> State[None]:
    return fail(return_state=True)


@pytest.mark.parametrize("make", [failed_future, failed_state])
def test_call_whose_upstream_failed_is_not_made(
    orch: Orchestrator, make: Callable[[], Any]
) -> None:
    called: list[str] = []

    @task
    def after(value: object = None) -> None:
        called.append("task")

    @flow
    def child(value: object = None) -> None:
        called.append("flow")

    def body() -> list[str]:
        upstream = make()
        found = [
            after(wait_for=[upstream], return_state=True),
            after(upstream, return_state=True),
            after.submit({"a": [upstream]}, return_state=True),
            child(wait_for=[upstream], return_state=True),
            child(upstream, return_state=True),
        ]
        with pytest.raises(errors.UpstreamFailed, match="did not complete: it is Failed"):
            after(wait_for=upstream)
        return [f"{state.type.value}/{state.name}" for state in found]

    assert in_flow(body) == ["PENDING/NotReady"] * 5
    assert called == []
    assert {tuple(states(run)) for run in runs_of(orch, after)} == {("NotReady",)}


def test_flow_outside_of_flows_waits_for_states_and_takes_their_results(
    orch: Orchestrator,
) -> None:
    @flow
    def add(a: int, b: list[int]) -> int:
        return a + b[0]

    good, bad = give(3, return_state=True), fail(return_state=True)

    assert add(good, [good], wait_for=[good]) == 6
    with pytest.raises(errors.UpstreamFailed):
        add(1, [2], wait_for=[bad])
    assert states(next(orch.flow_runs.find(flow_name="add"))) == ["NotReady"]


def test_run_that_was_not_ready_keeps_those_after_it_from_being_made(quick: Orchestrator) -> None:
    def body() -> str:
        first = give.submit(fail.submit())
        second = give.submit(first)
        return second.state.name if second.wait() is None else ""

    assert in_flow(body) == "NotReady"


# -- what arguments may hold ---------------------------------------------------------------------


@dataclass
class Job:
    name: str
    size: Any


def test_futures_are_found_in_objects_and_in_results(quick: Orchestrator) -> None:
    def body() -> list[Any]:
        size = give.submit(3)
        holder = give(quote([give.submit(4)]))
        assert not isinstance(holder[0], int)
        return [
            give(Job("a", size)).size,
            give({size: (size,)}),
            # The result of one task is a list of futures of others.
            give.submit(give.submit(quote([give.submit(5)]))).result(),
        ]

    assert in_flow(body) == [3, {3: (3,)}, [5]]


def test_failure_that_is_allowed_is_passed_on(orch: Orchestrator) -> None:
    def body() -> list[Any]:
        bad = fail.submit()
        not_ready = give.submit(bad)
        return [
            type(give(allow_failure(bad))).__name__,
            [type(each).__name__ for each in give(allow_failure([bad, give.submit(1)]))],
            give(allow_failure(not_ready)),
            give("made", wait_for=[allow_failure(bad)]),
            give(1, wait_for=allow_failure([bad, not_ready])),
        ]

    assert in_flow(body) == ["ValueError", ["ValueError", "int"], None, "made", 1]


def test_crash_is_not_a_failure_that_is_allowed(quick: Orchestrator) -> None:
    @task
    def crash() -> None:
        raise SystemExit(3)

    def body() -> str:
        crashing = crash.submit()
        crashing.wait()
        return give(allow_failure(crashing), return_state=True).name

    assert in_flow(body) == "NotReady"


def test_quoted_future_stays_one_and_opaque_result_is_not_looked_into(
    quick: Orchestrator,
) -> None:
    @task
    def kinds(values: Any) -> list[str]:
        return [type(value).__name__ for value in values]

    def body() -> list[list[str]]:
        three = give.submit(3)
        held = give.submit(quote([three, "x"]))
        return [kinds(quote([three])), kinds(opaque(held)), kinds(held), kinds([opaque(three)])]

    assert in_flow(body) == [["Future"], ["Future", "str"], ["int", "str"], ["int"]]


@pytest.mark.parametrize("wrap", [lambda run: run, lambda run: {"runs": [run]}])
def test_run_is_no_argument_unless_it_is_marked(
    orch: Orchestrator, wrap: Callable[[Any], Any]
) -> None:
    give(1)
    run = the_run_of(orch, give)

    with pytest.raises(errors.ParameterTypeError, match=r"value is, or holds, a TaskRun"):
        give(wrap(run))
    with pytest.raises(errors.ParameterTypeError, match=r"a TaskRun"):
        flow(name="a-flow")(give.fn)(wrap(run))

    assert orch.task_runs.count() == 1
    assert orch.flow_runs.count() == 0
    assert give(opaque(run), return_state=True).is_completed()
    assert give(quote(wrap(run)), return_state=True).is_completed()


# -- map -----------------------------------------------------------------------------------------


@task
def both(a: Any, b: Any) -> tuple[str, Any]:
    return type(a).__name__, b


def test_map_spreads_marked_arguments_too(quick: Orchestrator) -> None:
    def body() -> Any:
        bad, good = fail.submit(), give.submit(1)
        return [
            both.map(allow_failure([bad, good]), unmapped([7])).result(),
            both.map(allow_failure(unmapped(bad)), [1, 2]).result(),
            both.map(allow_failure(bad), [1]).result(),
            both.map(quote([good]), [1]).result(),
            both.map(give(return_state=True, value=[1, 2]), 0).result(),
        ]

    assert in_flow(body) == [
        [("ValueError", [7]), ("int", [7])],
        [("ValueError", 1), ("ValueError", 2)],
        [("ValueError", 1)],
        [("Future", 1)],
        [("int", 0), ("int", 0)],
    ]


def test_call_that_waits_is_found_again_in_a_resumed_run(orch: Orchestrator) -> None:
    called: list[str] = []
    fails = iter([True, False])

    @task
    def load(name: str) -> str:
        called.append(name)
        return name

    @flow
    def report() -> str:
        first = load.submit("a")
        second = load("b", wait_for=[first])
        if next(fails):
            raise ValueError("not yet")
        return second

    with pytest.raises(ValueError, match="not yet"):
        report()

    assert report.resume(the_flow_run(orch).id) == "b"
    assert called == ["a", "b"]
