"""Limits named after tags: a task run holds a slot of each of its tags while it runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from embedded_orch import Orchestrator, errors, flow, tags, task
from embedded_orch.concurrency.sync import concurrency
from embedded_orch.orchestration.transition import decide
from embedded_orch.orchestration.values import Facts, Proposal, Run, SlotFacts, Verdict
from embedded_orch.process import Process
from embedded_orch.states import StateType
from tests.builders import NOON
from tests.engine.waiting import passed, until, until_async
from tests.opened import Clock, opened, runs_of, states, the_run_of


@pytest.fixture
def orch(url: str) -> Iterator[Orchestrator]:
    with opened(url) as orchestrator:
        yield orchestrator


@pytest.fixture
def memory() -> Iterator[Orchestrator]:
    with opened(":memory:") as orchestrator:
        yield orchestrator


def active(orchestrator: Orchestrator, name: str = "tag:db") -> int:
    return orchestrator.concurrency_limits.get(name).active_slots


# -- the rule --------------------------------------------------------------------------------------


def proposed(run: Run, slots: SlotFacts | None, **options: Any) -> tuple[Verdict, str | None]:
    """How RUNNING ends, and the name of what is stored."""
    process = Process()
    running = Proposal(
        id=process.new_id(), type=StateType.RUNNING, name="Running", timestamp=NOON, chance=0.0
    )
    decision = decide(run, running, now=NOON, facts=Facts(slots=slots), **options)
    return decision.verdict, None if decision.proposal is None else decision.proposal.name


def a_run(state_type: StateType = StateType.PENDING, name: str = "Pending") -> Run:
    process = Process()
    return Run(
        id=process.new_id(),
        is_flow_run=False,
        state_id=process.new_id(),
        state_type=state_type,
        state_name=name,
        state_timestamp=NOON - 1,
    )


WAITING = a_run(StateType.SCHEDULED, "AwaitingConcurrencySlot")


@pytest.mark.parametrize(
    ("run", "slots", "answer"),
    [
        (a_run(), None, (Verdict.ACCEPT, "Running")),
        (a_run(), SlotFacts(), (Verdict.ACCEPT, "Running")),
        (a_run(), SlotFacts(("tag:db",)), (Verdict.REJECT, "AwaitingConcurrencySlot")),
        (WAITING, SlotFacts(("tag:db",)), (Verdict.WAIT, None)),
        (WAITING, SlotFacts(), (Verdict.ACCEPT, "Running")),
        (a_run(), SlotFacts(("tag:db",), "a limit of 0"), (Verdict.ABORT, None)),
        (WAITING, SlotFacts(("tag:db",), "a limit of 0"), (Verdict.ABORT, None)),
    ],
)
def test_the_rule(run: Run, slots: SlotFacts | None, answer: tuple[Verdict, str | None]) -> None:
    assert proposed(run, slots) == answer


def test_who_sets_a_state_by_force_is_not_asked() -> None:
    assert proposed(a_run(), SlotFacts(("tag:db",)), force=True) == (Verdict.ACCEPT, "Running")


@pytest.mark.parametrize(("chance", "bounds"), [(0.0, (1.0, 2.0)), (0.999, (2.0, 2.6))])
def test_a_wait_is_near_two_seconds(chance: float, bounds: tuple[float, float]) -> None:
    """Section 5.4: a clamped Poisson delay of the time for which a slot is held, 2 s at first."""
    process = Process()
    running = Proposal(
        id=process.new_id(), type=StateType.RUNNING, name="Running", timestamp=NOON, chance=chance
    )

    decision = decide(WAITING, running, now=NOON, facts=Facts(slots=SlotFacts(("tag:db",))))

    assert bounds[0] <= decision.delay_seconds <= bounds[1]


# -- task runs -------------------------------------------------------------------------------------


def test_a_task_run_holds_a_slot_of_each_tag_that_has_a_limit(orch: Orchestrator) -> None:
    orch.concurrency_limits.create("tag:db", 2)
    orch.concurrency_limits.create("tag:night", 1)

    @task(tags=["db", "unlimited"])
    def load() -> tuple[int, int, Any]:
        [holder] = orch.concurrency_limits.get("tag:db").holders
        return active(orch), active(orch, "tag:night"), (holder.type, holder.id)

    @flow
    def etl() -> list[tuple[int, int, Any]]:
        with tags("night"):
            return [load(), load.submit().result()]

    found = etl()

    ids = [run.id for run in runs_of(orch, load)]
    assert found == [(1, 1, ("task_run", ids[0])), (1, 1, ("task_run", ids[1]))]
    assert (active(orch), active(orch, "tag:night")) == (0, 0)
    assert [states(run) for run in runs_of(orch, load)] == [["Pending", "Running", "Completed"]] * 2


def test_a_task_outside_of_flows_does_too(orch: Orchestrator) -> None:
    orch.concurrency_limits.create("tag:db", 1)

    @task(tags=["db"])
    def load() -> int:
        return active(orch)

    assert (load(), active(orch)) == (1, 0)


def test_mapped_tasks_never_hold_more_than_the_limit(orch: Orchestrator) -> None:
    orch.concurrency_limits.create("tag:db", 2)
    held: list[int] = []
    peak: list[int] = []

    @task(tags=["db"])
    def load(number: int) -> int:
        held.append(number)
        peak.append(len(held))
        held.remove(number)
        return number

    @flow
    def etl() -> list[int]:
        return load.map(range(12)).result()

    assert etl() == list(range(12))
    assert max(peak) <= 2
    assert active(orch) == 0


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_async_tasks_never_do(memory: Orchestrator, loop: str) -> None:
    memory.concurrency_limits.create("tag:db", 2)
    held: list[int] = []
    peak: list[int] = []

    @task(tags=["db"])
    async def load(number: int) -> None:
        held.append(number)
        peak.append(len(held))
        await anyio.sleep(0)
        held.remove(number)

    @flow
    async def etl() -> None:
        async with anyio.create_task_group() as group:
            for number in range(10):
                group.start_soon(load, number)

    anyio.run(etl, backend=loop)

    assert len(peak) == 10
    assert max(peak) <= 2


def test_a_run_that_waits_is_seen_to_wait(orch: Orchestrator) -> None:
    orch.concurrency_limits.create("tag:db", 1)

    @task(tags=["db"])
    def load() -> int:
        return 1

    def waiting() -> list[Any]:
        return list(orch.task_runs.find(state_name="AwaitingConcurrencySlot"))

    results: list[int] = []
    with concurrency("tag:db"):
        thread = threading.Thread(target=lambda: results.append(load()))
        thread.start()
        until(waiting, "a run that waits")
        [run] = waiting()
        assert run.state.type is StateType.SCHEDULED
        assert run.state.message == "waits for a slot of tag:db"
        assert [each.id for each in orch.concurrency_limits.get("tag:db").waiting] == [run.id]
    thread.join()

    assert results == [1]
    assert states(the_run_of(orch, load)) == [
        "Pending",
        "AwaitingConcurrencySlot",
        "Running",
        "Completed",
    ]


def test_a_slot_is_given_back_while_a_retry_is_awaited(memory: Orchestrator) -> None:
    memory.concurrency_limits.create("tag:db", 1)
    seen: list[int] = []

    def between(retries: int) -> list[float]:
        return [0.001] * retries

    @task(tags=["db"], retries=2, retry_delay_seconds=between)
    def load() -> int:
        seen.append(active(memory))
        if len(seen) < 3:
            raise KeyError(len(seen))
        return len(seen)

    assert load() == 3
    assert seen == [1, 1, 1]
    assert states(the_run_of(memory, load)) == [
        "Pending",
        "Running",
        "AwaitingRetry",
        "Retrying",
        "AwaitingRetry",
        "Retrying",
        "Completed",
    ]
    assert memory.concurrency_limits.get("tag:db").holders == []


def test_another_run_has_its_turn_while_a_retry_is_awaited() -> None:
    clock = Clock()
    with opened(":memory:", clock) as orchestrator:
        orchestrator.concurrency_limits.create("tag:db", 1)
        during: list[int] = []
        sleep = clock.sleep
        orchestrator.engine.process.sleep = lambda seconds: (
            during.append(active(orchestrator)),
            sleep(seconds),
        )[1]

        @task(tags=["db"], retries=1, retry_delay_seconds=60)
        def load() -> int:
            if not during:
                raise KeyError
            return active(orchestrator)

        assert load() == 1

    assert during == [0]


@pytest.mark.parametrize("error", [KeyError("no"), KeyboardInterrupt()])
def test_a_task_that_fails_has_given_its_slot_back(
    orch: Orchestrator, error: BaseException
) -> None:
    orch.concurrency_limits.create("tag:db", 1)

    @task(tags=["db"])
    def load() -> None:
        raise error

    with pytest.raises(type(error)):
        load()

    assert active(orch) == 0


def test_a_limit_of_0_fails_the_run_and_says_why(orch: Orchestrator) -> None:
    orch.concurrency_limits.create("tag:db", 0)
    called: list[int] = []

    @task(tags=["db"])
    def load() -> None:
        called.append(1)

    with pytest.raises(errors.ConcurrencySlotAcquisitionError, match="'tag:db'"):
        load()

    run = the_run_of(orch, load)
    assert (called, run.state_name) == ([], "Failed")
    assert orch.concurrency_limits.get("tag:db").waiting == []


def test_a_limit_that_is_set_to_0_fails_who_waits(memory: Orchestrator) -> None:
    memory.concurrency_limits.create("tag:db", 1)
    caught: list[BaseException] = []

    @task(tags=["db"])
    def load() -> None:
        raise AssertionError("never called")

    def work() -> None:
        try:
            load()
        except errors.ConcurrencySlotAcquisitionError as error:
            caught.append(error)

    with concurrency("tag:db"):
        thread = threading.Thread(target=work)
        thread.start()
        until(lambda: memory.concurrency_limits.get("tag:db").waiting, "a place")
        memory.concurrency_limits.update("tag:db", limit=0)
        thread.join()

    assert len(caught) == 1
    assert the_run_of(memory, load).state_name == "Failed"


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_cancelled_wait_leaves_no_place(memory: Orchestrator, loop: str) -> None:
    memory.concurrency_limits.create("tag:db", 1)

    @task(tags=["db"])
    async def load() -> None:
        raise AssertionError("never called")

    async def main() -> None:
        with concurrency("tag:db"):
            async with anyio.create_task_group() as group:
                group.start_soon(load)
                await until_async(
                    lambda: memory.concurrency_limits.get("tag:db").waiting, "a place"
                )
                group.cancel_scope.cancel()

    anyio.run(main, backend=loop)

    limit = memory.concurrency_limits.get("tag:db")
    assert (limit.holders, limit.waiting) == ([], [])


def test_a_resumed_call_takes_its_slot_again(orch: Orchestrator) -> None:
    orch.concurrency_limits.create("tag:db", 1)
    seen: list[int] = []

    @task(tags=["db"])
    def load() -> int:
        seen.append(active(orch))
        if len(seen) == 1:
            raise KeyError
        return len(seen)

    @flow
    def etl() -> int:
        return load()

    with pytest.raises(KeyError):
        etl()
    [run] = list(orch.flow_runs.find())

    assert etl.resume(run.id) == 2
    assert seen == [1, 1]
    assert active(orch) == 0


def test_a_holder_of_an_outer_task_lets_the_inner_one_pass(memory: Orchestrator) -> None:
    """Who waits before the inner one wants what the outer one holds."""
    memory.concurrency_limits.create("tag:outer", 1)
    memory.concurrency_limits.create("tag:inner", 1)
    begun = threading.Event()

    @task(tags=["inner"])
    def inner() -> int:
        return 1

    @task(tags=["outer", "inner"])
    def both() -> int:
        return 2

    @task(tags=["outer"])
    def outer() -> int:
        begun.set()
        until(lambda: memory.concurrency_limits.get("tag:outer").waiting, "a place")
        return inner()

    @flow
    def etl() -> list[int]:
        first = outer.submit()
        passed(begun)
        return [both(), first.result()]

    assert etl() == [2, 1]


def test_a_task_that_calls_one_of_its_own_tag_is_told_of_the_deadlock(orch: Orchestrator) -> None:
    """Seen to wait for ever without the look at what the callers hold."""
    orch.concurrency_limits.create("tag:db", 1)

    @task(tags=["db"])
    def inner() -> int:
        return 1

    @task(tags=["db"])
    def outer() -> int:
        return inner()

    @flow
    def etl() -> int:
        return outer()

    with pytest.raises(errors.ConcurrencySlotAcquisitionError, match=r"'tag:db'.*deadlock"):
        etl()
    assert {run.state_name for run in orch.task_runs.find()} == {"Failed"}
    orch.concurrency_limits.upsert("tag:db", 2)
    assert etl() == 1
    assert active(orch, "tag:db") == 0


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_an_async_task_is_told_of_it_too(memory: Orchestrator, loop: str) -> None:
    memory.concurrency_limits.create("tag:db", 1)

    @task(tags=["db"])
    async def inner() -> int:
        return 1

    @task(tags=["db"], retries=1)
    async def outer() -> int:
        return await inner()

    @flow
    async def etl() -> int:
        return await outer()

    with pytest.raises(errors.ConcurrencySlotAcquisitionError, match="deadlock"):
        anyio.run(etl, backend=loop)


def test_a_task_that_is_submitted_by_one_of_its_own_tag_has_its_turn(memory: Orchestrator) -> None:
    memory.concurrency_limits.create("tag:db", 1)

    @task(tags=["db"])
    def inner() -> int:
        return 1

    @task(tags=["db"])
    def outer() -> Any:
        submitted.append(inner.submit())

    @flow
    def etl() -> int:
        outer()
        return submitted[0].result()  # type: ignore[no-any-return]

    submitted: list[Any] = []

    assert etl() == 1


# -- what it costs ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("own", "lookups"), [([], 0), (["db"], 1)])
def test_without_a_limit_a_tag_costs_one_lookup_and_no_tag_nothing(
    memory: Orchestrator, monkeypatch: pytest.MonkeyPatch, own: list[str], lookups: int
) -> None:
    asked: list[str] = []
    transaction = memory.database.write(type)
    for name in ("rows", "row", "run", "value"):
        real = getattr(transaction, name)

        def counted(
            self: Any, statement: str, /, *given: Any, _real: Any = real, **values: Any
        ) -> Any:
            asked.append(statement)
            return _real(self, statement, *given, **values)

        monkeypatch.setattr(transaction, name, counted)

    @task(tags=own)
    def work() -> int:
        return 1

    work()

    limits = [name for name in asked if name.startswith(("concurrency_limit", "slot_claim"))]
    assert limits == ["concurrency_limit.names_among"] * lookups
