"""What a task run costs, beside the raw driver writing the same rows as durably."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import embedded_orch
from benchmarks.floor import raw_tasks
from benchmarks.measuring import Row, Stopwatch, Work
from embedded_orch import flow, task
from embedded_orch.engine.runner import DEFAULT_WORKERS

_TASKS = 500


@task
def work(number: int) -> int:
    """As little as a task can do."""
    return number + 1


@flow
def in_sequence(start: int, stopwatch: Stopwatch) -> None:
    """One task after the other, each durable before the next."""
    with stopwatch:
        for number in range(start, start + _TASKS):
            work(number)


@flow
def mapped(start: int, stopwatch: Stopwatch) -> None:
    """All tasks at once, in threads."""
    with stopwatch:
        work.map(range(start, start + _TASKS)).result()


@flow
def empty(number: int) -> None:
    """A flow without tasks."""


@flow
def with_subflows(start: int, stopwatch: Stopwatch) -> None:
    """Flows called by a flow, one after the other: each has a task run that stands for it."""
    with stopwatch:
        for number in range(start, start + _TASKS):
            empty(number)


def _flows_in_sequence(start: int, stopwatch: Stopwatch) -> None:
    with stopwatch:
        for number in range(start, start + _TASKS):
            empty(number)


@contextmanager
def _ours(
    folder: Path, run: Callable[[int, Stopwatch], None], *, url: str | None = None, durability: str
) -> Generator[Work]:
    with embedded_orch.open(url or folder / "orch.db", durability=durability):
        starts = iter(range(0, 1_000_000_000, _TASKS))
        yield lambda stopwatch: run(next(starts), stopwatch)


ROWS = [
    Row(
        "sequential task, file",
        _TASKS,
        partial(_ours, run=in_sequence, durability="normal"),
        partial(raw_tasks, count=_TASKS),
        "at most 2 x the floor",
    ),
    Row(
        "sequential task, file, durability full",
        _TASKS,
        partial(_ours, run=in_sequence, durability="full"),
        partial(raw_tasks, count=_TASKS, synchronous="full"),
        "at most 1.5 x the floor",
    ),
    Row(
        "sequential task, memory",
        _TASKS,
        partial(_ours, run=in_sequence, url=":memory:", durability="normal"),
        target="100 us",
    ),
    Row(
        "mapped task, file",
        _TASKS,
        partial(_ours, run=mapped, durability="normal"),
        partial(raw_tasks, count=_TASKS, threads=DEFAULT_WORKERS),
        "at most 2 x the floor",
    ),
    Row(
        "empty flow, file",
        _TASKS,
        partial(_ours, run=_flows_in_sequence, durability="normal"),
        target="500 us",
    ),
    Row(
        "subflow, file",
        _TASKS,
        partial(_ours, run=with_subflows, durability="normal"),
    ),
]
