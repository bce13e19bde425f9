"""What it costs to come back to a run in which most is done: its records are read, and replayed."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import embedded_orch
from benchmarks.measuring import Row, Stopwatch, Work
from embedded_orch import flow, task

_FINISHED = 10_000


class NotYet(Exception):
    """What the flow fails by each time, so that it can be resumed once more."""


@task
def work(number: int) -> int:
    """As little as a task can do."""
    return number + 1


@flow
def never_done() -> None:
    """All tasks, and then no end."""
    for number in range(_FINISHED):
        work(number)
    raise NotYet


def _failing(call: Callable[[], object]) -> None:
    try:
        call()
    except NotYet:
        return
    raise RuntimeError("a flow that always fails did not")


@contextmanager
def _resumed(folder: Path) -> Generator[Work]:
    with embedded_orch.open(folder / "orch.db") as orch:
        _failing(never_done)
        run_id = next(orch.flow_runs.find()).id

        def resume(stopwatch: Stopwatch) -> None:
            with stopwatch:
                _failing(lambda: never_done.resume(run_id))

        yield resume


ROWS = [Row("resume of a flow with 10,000 finished tasks, file", 1, _resumed, target="1 s")]
