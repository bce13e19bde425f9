"""Orchestrators for tests: on every backend, with a clock that only its own sleep moves."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from embedded_orch.orchestrator import open_orchestrator
from embedded_orch.process import Process

if TYPE_CHECKING:
    from collections.abc import Iterator

    from embedded_orch import FlowRun, Orchestrator, Task, TaskRun

QUICK = {"busy_timeout_seconds": 5.0}


class Clock:
    """A clock that goes on by a microsecond when it is looked at, and by what is slept."""

    def __init__(self) -> None:
        self._now = time.time_ns() // 1000
        self._lock = threading.Lock()
        self.slept: list[float] = []

    def now(self) -> int:
        with self._lock:
            self._now += 1
            return self._now

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.slept.append(seconds)
            self._now += round(seconds * 1_000_000)

    @property
    def naps(self) -> list[float]:
        """What was slept, to the tenth of a second."""
        return [round(seconds, 1) for seconds in self.slept]


@contextmanager
def opened(url: str, clock: Clock | None = None, **settings: Any) -> Iterator[Orchestrator]:
    """An orchestrator, entered; with the clock given, or the real one."""
    process = None if clock is None else Process(clock=clock.now, sleep=clock.sleep)
    if not url.startswith("postgresql"):
        settings = {**QUICK, **settings}
    with open_orchestrator(url, process=process, **settings) as orchestrator:
        yield orchestrator


def runs_of(orchestrator: Orchestrator, task: Task[..., Any]) -> list[TaskRun]:
    """The runs of a task, oldest first."""
    return list(orchestrator.task_runs.find(task_key=task.task_key))[::-1]


def the_run_of(orchestrator: Orchestrator, task: Task[..., Any]) -> TaskRun:
    """The only run of a task."""
    [run] = runs_of(orchestrator, task)
    return run


def flow_runs(orchestrator: Orchestrator, **filters: object) -> list[FlowRun]:
    """Flow runs, oldest first."""
    return list(orchestrator.flow_runs.find(**filters))[::-1]


def the_flow_run(orchestrator: Orchestrator, **filters: object) -> FlowRun:
    """The only flow run."""
    [run] = flow_runs(orchestrator, **filters)
    return run


def stores_logs(operation: object) -> bool:
    """Whether a write of the engine only stores what runs have logged."""
    return getattr(operation, "__module__", "") == "embedded_orch.engine.log_queue"


def states(run: FlowRun | TaskRun) -> list[str]:
    """The names of all states of a run, oldest first."""
    return [state.name for state in run.history]
