"""The flows that a virtual machine runs, as a table: what is new is one row of it.

A flow is called with a number, and what it has to return follows from that number, however often
it was interrupted. Steps are told apart by their names; each tells the machine's ledger when it
begins, and its caller when it was given the value. A step may fail the first time, by the count of
the ledger.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

from embedded_orch import (
    Flow,
    apause_flow_run,
    asleep_for,
    asuspend_flow_run,
    await_for_signal,
    flow,
    get_run_logger,
    task,
)
from embedded_orch.cache_policies import INPUTS
from embedded_orch.concurrency.asyncio import concurrency
from embedded_orch.context import get_run_context
from embedded_orch.engine.contexts import flow_run_context
from tests.simulation.stepping import machine
from tests.simulation.threads import Wait


class Stumbled(Exception):
    """Raised by a step that fails the first time."""


def run_here() -> Any:
    found = flow_run_context.get()
    assert found is not None
    return found


def begins(step: str) -> int:
    """The function of a step is called; the how-manieth time."""
    context = run_here()
    is_owner = machine().epoch_of(context.run_id) == context.epoch
    return machine().ledger.begins(context.run_id, step, is_owner=is_owner)


async def known(step: str, awaitable: Any) -> Any:
    """What a step returned, of which the machine is told that its caller has it."""
    run_id: UUID = run_here().run_id
    value = await awaitable
    machine().ledger.acknowledge(run_id, step)
    return value


async def moment() -> None:
    """A place where another thread may go on."""
    await Wait("moment")


@task
async def work(step: str) -> str:
    begins(step)
    await moment()
    get_run_logger().info("works on %s", step)
    return step


@task(retries=2, retry_delay_seconds=5)
async def stumble(step: str) -> str:
    await moment()
    if begins(step) < 3:
        raise Stumbled(step)
    return step


@task(retries=1)
async def stumble_at_once(step: str) -> str:
    if begins(step) < 2:
        raise Stumbled(step)
    await moment()
    return step


@task(tags=["limited"])
async def limited(step: str) -> str:
    begins(step)
    await moment()
    await moment()
    return step


@task(cache_policy=INPUTS)
async def cached(number: int) -> int:
    await moment()
    return number * 7


@task
def book(step: str) -> str:
    """A plain function, with SQL of its own that commits with its completion."""
    begins(step)
    get_run_context().transaction.connection.execute(
        "INSERT INTO booking (run_id, step) VALUES (:run_id, :step)",
        {"run_id": run_here().run_id.hex, "step": step},
    )
    return step


@task
async def outer(step: str) -> str:
    begins(step)
    inner = await work(f"{step}/inner")
    await moment()
    return f"{step}:{inner}"


@flow
async def in_sequence(number: int) -> list[str]:
    return [await known(f"{n}", work(f"{n}")) for n in range(number % 4 + 1)]


@flow
async def submitted(number: int) -> list[str]:
    futures = [work.submit(f"{n}") for n in range(number % 5 + 2)]
    return [await known(f"{n}", future) for n, future in enumerate(futures)]


@flow
async def dependent(number: int) -> str:
    first = work.submit("first")
    second = outer.submit("second", wait_for=[first])
    await known("first", first)
    return await known("second", second)


@flow
async def stumbling(number: int) -> list[str]:
    first = await known("first", work("first"))
    return [first, *[await known(f"{n}", stumble(f"{n}")) for n in range(number % 2 + 1)]]


@flow
async def stumbling_at_once(number: int) -> list[str]:
    futures = [stumble_at_once.submit(f"{n}") for n in range(3)]
    return [await known(f"{n}", future) for n, future in enumerate(futures)]


@flow(retries=2, retry_delay_seconds=30)
async def retried(number: int) -> list[str]:
    first = await known("first", work("first"))
    context = run_here()
    if machine().ledger.begins(context.run_id, "attempt", is_owner=False) < 2:
        raise Stumbled("the first attempt")
    return [first, await known("second", work("second"))]


@flow
async def child(step: str) -> str:
    first = await known(f"{step}-a", work(f"{step}-a"))
    return first + await known(f"{step}-b", work(f"{step}-b"))


@flow
async def nested(number: int) -> list[str]:
    begun = await known("begin", work("begin"))
    return [begun, *[await child(f"child {n}") for n in range(number % 2 + 1)]]


@flow
async def holding_slots(number: int) -> str:
    async with concurrency("db", occupy=number % 2 + 1):
        machine().check_slots()
        first = await known("inside", work("inside"))
        await moment()
    return first + await known("after", work("after"))


@flow
async def with_tags(number: int) -> list[str]:
    futures = [limited.submit(f"{n}") for n in range(3)]
    return [await known(f"{n}", future) for n, future in enumerate(futures)]


@flow
async def caching(number: int) -> int:
    return int(await cached(number % 3)) + int(await cached(number % 3 + 1))


@flow
async def booking(number: int) -> list[str]:
    found = []
    for n in range(2):
        found.append(book(f"{n}"))
        machine().ledger.acknowledge(run_here().run_id, f"{n}")
        await moment()
    return found


@flow
async def pausing(number: int) -> list[str]:
    first = await known("before", work("before"))
    await apause_flow_run(timeout=10**7, poll_interval=5)
    return [first, await known("after", work("after"))]


@flow
async def suspending(number: int) -> list[str]:
    first = await known("before", work("before"))
    await asuspend_flow_run()
    return [first, await known("after", work("after"))]


@flow
async def sleeping(number: int) -> list[str]:
    first = await known("before", work("before"))
    await asleep_for(timedelta(minutes=number))
    context = run_here()
    due = machine().look(
        "SELECT deadline FROM flow_run_wait WHERE flow_run_id = ?", context.run_id.bytes
    )
    if context.engine.process.now() < due.get:
        machine().ledger.violations.append(f"{context.run_id} woke too early")
    return [first, await known("after", work("after"))]


@flow
async def signalled(number: int) -> list[str]:
    first = await known("before", work("before"))
    value = await await_for_signal("go", type=str)
    return [first, value, await known("after", work("after"))]


@flow(on_crash="resume")
async def lasting(number: int) -> list[str]:
    return [await known(f"{n}", work(f"{n}")) for n in range(3)]


def note_end(flow: Any, flow_run: Any, state: Any) -> None:
    machine().ledger.hooked.add(flow_run.id)


@flow(
    on_completion=[note_end],
    on_failure=[note_end],
    on_crashed=[note_end],
    on_cancellation=[note_end],
)
async def hooked(number: int) -> str:
    return await known("only", work("only"))


class Row(NamedTuple):
    """One kind of run: its flow, and what it returns when it is called with a number."""

    flow: Flow[Any, Any]
    expected: Callable[[int], Any]


def _texts(count: int) -> list[str]:
    return [str(n) for n in range(count)]


def _children(number: int) -> list[str]:
    return ["begin", *[f"child {n}-achild {n}-b" for n in range(number % 2 + 1)]]


WORKLOAD: dict[str, Row] = {
    "in sequence": Row(in_sequence, lambda n: _texts(n % 4 + 1)),
    "submitted": Row(submitted, lambda n: _texts(n % 5 + 2)),
    "dependent": Row(dependent, lambda n: "second:second/inner"),
    "stumbling": Row(stumbling, lambda n: ["first", *_texts(n % 2 + 1)]),
    "stumbling at once": Row(stumbling_at_once, lambda n: _texts(3)),
    "retried": Row(retried, lambda n: ["first", "second"]),
    "nested": Row(nested, _children),
    "holding slots": Row(holding_slots, lambda n: "insideafter"),
    "with tags": Row(with_tags, lambda n: _texts(3)),
    "caching": Row(caching, lambda n: (n % 3) * 7 + (n % 3 + 1) * 7),
    "booking": Row(booking, lambda n: _texts(2)),
    "pausing": Row(pausing, lambda n: ["before", "after"]),
    "suspending": Row(suspending, lambda n: ["before", "after"]),
    "sleeping": Row(sleeping, lambda n: ["before", "after"]),
    "signalled": Row(signalled, lambda n: ["before", "go", "after"]),
    "lasting": Row(lasting, lambda n: _texts(3)),
    "hooked": Row(hooked, lambda n: "only"),
}
