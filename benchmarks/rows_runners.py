"""What it costs to run a task beside its caller: in a thread, on the loop, in a process."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import embedded_orch
from benchmarks.measuring import Row, Stopwatch, Work
from embedded_orch import flow, task
from embedded_orch.task_runners import ProcessPoolTaskRunner

_TASKS = 500


@task
def work(number: int) -> int:
    """As little as a task can do."""
    return number + 1


@task
async def work_later(number: int) -> int:
    """As little as a coroutine can do."""
    return number + 1


@flow
def submitted(start: int, stopwatch: Stopwatch) -> None:
    """One after the other, each waited for before the next."""
    with stopwatch:
        for number in range(start, start + _TASKS):
            work.submit(number).result()


@flow
def mapped_on_loop(start: int, stopwatch: Stopwatch) -> None:
    """All at once, on the loop of the runner."""
    with stopwatch:
        work_later.map(range(start, start + _TASKS)).result()


@flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
def mapped_in_processes(start: int, stopwatch: Stopwatch) -> None:
    """All at once, in two processes that have started."""
    work.map([-2 * start - 1, -2 * start - 2]).result()
    with stopwatch:
        work.map(range(start, start + _TASKS)).result()


@contextmanager
def _ours(folder: Path, run: Callable[[int, Stopwatch], None]) -> Generator[Work]:
    with embedded_orch.open(folder / "orch.db"):
        starts = iter(range(0, 1_000_000_000, _TASKS))
        yield lambda stopwatch: run(next(starts), stopwatch)


ROWS = [
    Row("submitted task, file", _TASKS, partial(_ours, run=submitted)),
    Row("mapped async task, file", _TASKS, partial(_ours, run=mapped_on_loop)),
    Row("mapped task in 2 processes, file", _TASKS, partial(_ours, run=mapped_in_processes)),
]
