"""A thousand coroutines at once: what each costs, and how long the loop stands still meanwhile.

The lag is measured beside them: a coroutine asks to sleep for a millisecond, over and over, and
what it sleeps longer the loop was not there for anybody. It is the time that goes by, also where
the others rows are processor time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio

import embedded_orch
from benchmarks.measuring import Row, Stopwatch, Work, percentile
from embedded_orch import flow, task

_TASKS = 1_000
_TICK = 0.001

Call = Callable[[], Coroutine[Any, Any, object]]
# Runs calls at once, and a watcher beside them until they are done.
AtOnce = Callable[[list[Call], Call], Coroutine[Any, Any, None]]


@task
async def work(number: int) -> int:
    """As little as a coroutine can do."""
    return number + 1


@flow
async def at_once(start: int, stopwatch: Stopwatch, run: AtOnce, lags: list[float]) -> None:
    """All tasks at once, on the loop of the flow."""

    async def watch() -> None:
        while True:
            before = time.perf_counter()
            await anyio.sleep(_TICK)
            lags.append(time.perf_counter() - before - _TICK)

    calls: list[Call] = [partial(work, number) for number in range(start, start + _TASKS)]
    with stopwatch:
        await run(calls, watch)


async def _on_asyncio(calls: list[Call], watch: Call) -> None:
    watcher = asyncio.create_task(watch())
    await asyncio.gather(*(call() for call in calls))
    watcher.cancel()


async def _on_trio(calls: list[Call], watch: Call) -> None:
    import trio

    async with trio.open_nursery() as around:
        around.start_soon(watch)
        async with trio.open_nursery() as nursery:
            for call in calls:
                nursery.start_soon(call)
        around.cancel_scope.cancel()


@contextmanager
def _ours(folder: Path, *, on_trio: bool, lag: bool) -> Generator[Work]:
    with embedded_orch.open(folder / "orch.db"):
        starts = iter(range(0, 1_000_000_000, _TASKS))

        def work(stopwatch: Stopwatch) -> None:
            lags: list[float] = []
            run: AtOnce = _on_trio if on_trio else _on_asyncio
            if on_trio:
                import trio

                trio.run(at_once, next(starts), stopwatch, run, lags)
            else:
                asyncio.run(at_once(next(starts), stopwatch, run, lags))
            if lag:
                stopwatch.seconds = percentile(lags, 99)

        yield work


ROWS = [
    row
    for loop, on_trio in (("asyncio", False), ("trio", True))
    for row in (
        Row(
            f"async task, 1,000 at once, {loop}, file",
            _TASKS,
            partial(_ours, on_trio=on_trio, lag=False),
            target="200 us",
        ),
        Row(
            f"lag of the loop meanwhile, p99, {loop}",
            1,
            partial(_ours, on_trio=on_trio, lag=True),
            target="15 ms",
        ),
    )
]
