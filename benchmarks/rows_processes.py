"""Several processes on one file: what they get done together, and how long one task may take.

Each process times its own tasks, from a common start; starting the processes does not count. It is
the time that goes by, also where other rows are processor time, since what they wait for each
other is the point.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import embedded_orch
from benchmarks.measuring import Row, Stopwatch, Work, percentile
from embedded_orch import flow, task

_PROCESSES = 4
_TASKS = 2_000


@task
def work(number: int) -> int:
    """As little as a task can do."""
    return number + 1


@flow
def in_sequence(count: int) -> list[float]:
    """One task after the other; the time at which each was done."""
    return [_done(number) for number in range(count)]


def _done(number: int) -> float:
    work(number)
    return time.monotonic()


@contextmanager
def _beside(folder: Path, *, processes: int, p99: bool = False) -> Generator[Work]:
    path = folder / "orch.db"
    embedded_orch.open(path).close()

    def work(stopwatch: Stopwatch) -> None:
        started, times = _run(path, processes)
        if p99:
            waits = [b - a for each in times for a, b in zip([started, *each], each, strict=False)]
            stopwatch.seconds = percentile(waits, 99)
        else:
            stopwatch.seconds = max(each[-1] for each in times) - started

    yield work


def _run(path: Path, processes: int) -> tuple[float, list[list[float]]]:
    """Run all tasks in so many processes: when they started, and when each task was done."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.rows_processes",
        str(path),
        str(_TASKS // processes),
    ]
    children = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent
        )
        for _ in range(processes)
    ]
    for child in children:
        assert child.stdout is not None
        child.stdout.readline()
    started = time.monotonic()
    for child in children:
        assert child.stdin is not None
        child.stdin.write(b"go\n")
        child.stdin.flush()
    times = [json.loads(child.communicate()[0]) for child in children]
    if any(child.returncode for child in children):
        raise RuntimeError("a process failed; its error is above")
    return started, times


def main(path: str, count: str) -> None:
    """One of the processes: say that it is ready, wait for a line, and run its tasks."""
    logging.getLogger().addHandler(logging.NullHandler())
    with embedded_orch.open(path):
        in_sequence(1)
        print("ready", flush=True)
        sys.stdin.readline()
        times = in_sequence(int(count))
    print(json.dumps(times))


ROWS = [
    Row(
        f"task in {_PROCESSES} processes on one file, beside one process alone",
        _TASKS,
        partial(_beside, processes=_PROCESSES),
        partial(_beside, processes=1),
        "at most 1.25 x",
    ),
    Row(
        f"the longest of a hundred tasks (p99), {_PROCESSES} processes on one file",
        1,
        partial(_beside, processes=_PROCESSES, p99=True),
        partial(_beside, processes=1, p99=True),
        "20 ms",
    ),
]

if __name__ == "__main__":
    main(*sys.argv[1:])
