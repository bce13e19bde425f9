"""Ctrl-C at every line of the engine: what ran is recorded as crashed, and nothing is left behind.

The interruption is raised by a trace function, at one line of the engine after the other, as the
interpreter would raise it there: between two of its own instructions, not inside a call.
"""

from __future__ import annotations

import linecache
import sys
from typing import TYPE_CHECKING, Any, Self

import pytest

from embedded_orch import engine, flow, task
from tests.opened import opened, states

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from embedded_orch import Orchestrator

FOLDER = str(engine.__path__[0])
WATCHED = ("effects.py", "task_call.py", "flow_call.py")
# What runs while an interruption is being recorded already; a second one there is not answered.
HANDLERS = frozenset({"record_crash", "_is_start_in_doubt", "crashed"})
# Lines of the driver on which a trace function can raise, and a signal cannot: the interpreter
# looks for one after calls and where it jumps back.
SAFE = ("while ", "try:", "except ", "if ", "ending", "return ", "raise", "resume, value = ")


class Interruption:
    """Raises KeyboardInterrupt at one line of the engine, counted from the first."""

    def __init__(self, line: int) -> None:
        self.line = line
        self.seen = 0
        self.where: str | None = None

    def __enter__(self) -> Self:
        self._before = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *error: object) -> None:
        sys.settrace(self._before)

    def _trace(self, frame: FrameType, event: str, argument: object) -> Any:
        file = frame.f_code.co_filename
        if not file.startswith(FOLDER) or not file.endswith(WATCHED):
            return None
        return self._trace_line if frame.f_code.co_name not in HANDLERS else None

    def _trace_line(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "line" and not is_safe(frame):
            self.seen += 1
            if self.seen == self.line:
                self.where = f"{frame.f_code.co_name}:{frame.f_lineno}"
                sys.settrace(self._before)
                raise KeyboardInterrupt
        return self._trace_line


def is_safe(frame: FrameType) -> bool:
    if frame.f_code.co_name != "drive":
        return False
    return linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip().startswith(SAFE)


def plain() -> int:
    @task
    def load(number: int) -> int:
        return number

    @flow
    def report() -> int:
        return load(1)

    return report()


def retried() -> int:
    calls: list[int] = []

    @task(retries=1)
    def load() -> int:
        calls.append(1)
        if len(calls) < 2:
            raise ValueError("not yet")
        return 1

    @flow(retries=1)
    def report() -> int:
        value = load()
        calls.append(1)
        if len(calls) < 4:
            raise ValueError("not yet")
        return value

    return report()


def nested() -> int:
    @task
    def load() -> int:
        return 1

    @flow
    def child() -> int:
        return load()

    @flow
    def parent() -> int:
        return child()

    return parent()


def left_behind(orch: Orchestrator) -> list[list[str]]:
    """The histories of runs that claim to be at work."""
    at_work = ("SCHEDULED", "PENDING", "RUNNING")
    flow_runs = [run for type in at_work for run in orch.flow_runs.find(state_type=type)]
    task_runs = [run for type in at_work for run in orch.task_runs.find(state_type=type)]
    return [states(run) for run in (*flow_runs, *task_runs)]


@pytest.mark.parametrize(("work", "stride"), [(plain, 1), (retried, 3), (nested, 5)])
def test_interruption_at_any_line_leaves_no_run_at_work(
    work: Callable[[], int], stride: int
) -> None:
    line, where, found = 0, "", []
    with opened(":memory:") as orch:
        while where is not None:
            line += stride
            try:
                with Interruption(line) as interruption:
                    work()
            except KeyboardInterrupt:
                assert interruption.where is not None
            where = interruption.where
            left = left_behind(orch)
            if left:
                found.append((where, left))
                break
    assert found == []
    assert line > 100
