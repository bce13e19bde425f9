"""Answers that other threads give to an event loop, and how many of its tasks go on in a round."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
import trio

from embedded_orch.db import handoff
from embedded_orch.db.handoff import answer_for_running_loop, call_in_running_loop, turn_to_begin

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

loops = pytest.mark.parametrize("loop", ["asyncio", "trio"])

MANY = 100


def notify_all(answers: Iterable[handoff.Answer]) -> None:
    for answer in answers:
        answer.notify()


async def turn() -> None:
    awaited = turn_to_begin()
    if awaited is not None:
        await awaited


def in_thread(function: Callable[[], object]) -> None:
    thread = threading.Thread(target=function)
    thread.start()
    thread.join(30)


async def most_in_a_round(
    wait_of: Callable[[], Callable[[], Awaitable[object]]], wake: Callable[[], object] | None = None
) -> int:
    """How many of many tasks went on in one round of the loop at most.

    Args:
        wait_of: what the next task waits for.
        wake: called once all of them wait.
    """
    rounds = [0]

    async def go_on(wait: Callable[[], Awaitable[object]]) -> None:
        await wait()
        rounds[-1] += 1

    async with anyio.create_task_group() as group:
        for _ in range(MANY):
            group.start_soon(go_on, wait_of())
        if wake is not None:
            await anyio.wait_all_tasks_blocked()
            wake()
        while sum(rounds) < MANY:
            await anyio.lowlevel.checkpoint()
            rounds.append(0)
    return max(rounds)


@loops
def test_calls_that_begin_at_once_are_let_in_a_few_in_a_round(loop: str) -> None:
    """Seen to fail with ``turn_to_begin`` that let in whoever came: all in one round."""

    async def main() -> int:
        return await most_in_a_round(lambda: turn)

    assert anyio.run(main, backend=loop) <= 2 * handoff._MOST_IN_A_ROUND


@loops
def test_answers_that_are_given_at_once_wake_a_few_tasks_in_a_round(loop: str) -> None:
    """Seen to fail when a mailbox was emptied in one round."""

    async def main() -> int:
        answers = [answer_for_running_loop() for _ in range(MANY)]
        waits = iter([answer.wait for answer in answers])
        return await most_in_a_round(
            lambda: next(waits), wake=lambda: in_thread(lambda: notify_all(answers))
        )

    # The task that counts may stand before or behind them in a round.
    assert anyio.run(main, backend=loop) <= 2 * handoff._MOST_IN_A_ROUND


def test_calls_that_begin_at_once_begin_in_their_order() -> None:
    order: list[int] = []

    async def begin(number: int) -> None:
        await turn()
        order.append(number)

    async def main() -> None:
        await asyncio.gather(*map(begin, range(MANY)))

    asyncio.run(main())

    assert order == list(range(MANY))


def test_loop_is_asked_once_for_answers_that_are_given_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seen to fail when each answer asked for itself."""
    asked: list[object] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ask = loop.call_soon_threadsafe

        def counted(callback: Any, *args: Any) -> asyncio.Handle:
            asked.append(callback)
            return ask(callback, *args)

        monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
        answers = [answer_for_running_loop() for _ in range(handoff._MOST_IN_A_ROUND)]
        in_thread(lambda: notify_all(answers))
        for answer in answers:
            await answer.wait()

    asyncio.run(main())

    assert len(asked) == 1


@loops
def test_answer_for_a_loop_that_has_ended_is_dropped(loop: str) -> None:
    async def main() -> list[handoff.Answer]:
        return [answer_for_running_loop() for _ in range(2)]

    answers = anyio.run(main, backend=loop)
    for answer in answers:
        answer.notify()

    async def next_one() -> bool:
        answer = answer_for_running_loop()
        in_thread(answer.notify)
        with anyio.fail_after(30):
            await answer.wait()
        return True

    assert anyio.run(next_one, backend=loop)


@loops
def test_function_is_not_called_in_a_loop_that_has_ended(loop: str) -> None:
    called: list[bool] = []

    async def main() -> Callable[[], None]:
        return call_in_running_loop(lambda: called.append(True))

    call = anyio.run(main, backend=loop)
    call()

    assert not called


def test_loop_that_has_ended_is_not_kept() -> None:
    async def main() -> weakref.ref[asyncio.AbstractEventLoop]:
        await turn()
        return weakref.ref(asyncio.get_running_loop())

    ended = asyncio.run(main())
    gc.collect()

    assert ended() is None


@loops
def test_task_that_is_cancelled_before_its_turn_does_not_begin(loop: str) -> None:
    begun: list[int] = []

    async def begin(number: int) -> None:
        await turn()
        begun.append(number)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for number in range(MANY):
                group.start_soon(begin, number)
            await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()

    anyio.run(main, backend=loop)

    assert len(begun) <= 2 * handoff._MOST_IN_A_ROUND


def test_loops_of_several_threads_get_their_own_answers() -> None:
    woken: list[str] = []

    async def main() -> None:
        answer = answer_for_running_loop()
        in_thread(answer.notify)
        with anyio.fail_after(30):
            await answer.wait()
        woken.append(threading.current_thread().name)

    threads = [
        threading.Thread(target=run, name=name, args=(main,))
        for name, run in (("asyncio", lambda main: asyncio.run(main())), ("trio", trio.run))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert sorted(woken) == ["asyncio", "trio"]
