"""A crowd on one database: processes and threads that all run flows at the same time.

    python -m tests.faults.crowd --url FILE --processes 8 --threads 8 --flows 100 --tasks 5

Every process opens the database by itself. At the end the counts have to be exact, every run has to
be Completed with a whole history, and nobody may have seen an error. The slowest single write is
told: it is what a crowd costs the unluckiest of its members.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import embedded_orch
from embedded_orch import flow, task

if TYPE_CHECKING:
    from queue import Queue


@task
def step(member: str, number: int) -> int:
    """Something to record."""
    return number


@flow(name="crowd")
def member_flow(member: str, tasks: int) -> int:
    """One flow of the crowd."""
    return sum(step(member, number) for number in range(tasks))


class Report(NamedTuple):
    """What one process saw."""

    errors: list[str]
    writes: int
    slowest: float


class Findings(NamedTuple):
    """What the crowd left behind."""

    problems: list[str]
    seconds: float
    writes: int
    slowest: float


def run(url: str, *, processes: int, threads: int, flows: int, tasks: int) -> Findings:
    """Let the crowd loose; ``flows`` is for each process."""
    context = multiprocessing.get_context("spawn")
    reports: Queue[Report] = context.Queue()  # type: ignore[assignment]
    members = [
        context.Process(target=_member, args=(url, number, threads, flows, tasks, reports))
        for number in range(processes)
    ]
    embedded_orch.open(url).close()
    started = time.perf_counter()
    for member in members:
        member.start()
    seen = [reports.get(timeout=540) for _ in members]
    for member in members:
        member.join()
    seconds = time.perf_counter() - started
    problems = [error for report in seen for error in report.errors]
    problems += _check(url, processes * flows, processes * flows * tasks)
    return Findings(
        problems,
        seconds,
        sum(report.writes for report in seen),
        max(report.slowest for report in seen),
    )


def _member(
    url: str, number: int, threads: int, flows: int, tasks: int, reports: Queue[Report]
) -> None:
    errors: list[str] = []
    waits: list[float] = []
    with embedded_orch.open(url) as orch:
        orch.database.write = _timed(orch.database.write, waits)  # type: ignore[method-assign]
        todo = iter(range(flows))
        lock = threading.Lock()

        def work() -> None:
            while True:
                with lock:
                    turn = next(todo, None)
                if turn is None:
                    return
                try:
                    member_flow(f"{number}-{turn}", tasks)
                except BaseException as error:
                    errors.append(f"process {number}: {type(error).__name__}: {error}")

        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    reports.put(Report(errors, len(waits), max(waits, default=0.0)))


def _timed(write: Callable[..., Any], waits: list[float]) -> Callable[..., Any]:
    def timed(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return write(*args, **kwargs)
        finally:
            waits.append(time.perf_counter() - started)

    return timed


def _check(url: str, flows: int, tasks: int) -> list[str]:
    with embedded_orch.open(url) as orch:
        counts = {
            "flow runs": (orch.flow_runs.count(), flows),
            "completed flow runs": (orch.flow_runs.count(state_type="COMPLETED"), flows),
            "task runs": (orch.task_runs.count(), tasks),
            "completed task runs": (orch.task_runs.count(state_type="COMPLETED"), tasks),
            "flow run states": (
                orch.sql("select count(*) from flow_run_states").scalar(),
                3 * flows,
            ),
            "task run states": (
                orch.sql("select count(*) from task_run_states").scalar(),
                3 * tasks,
            ),
        }
    return [f"{found} {what}, not {due}" for what, (found, due) in counts.items() if found != due]


def main() -> int:
    """Run the command; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--url", help="a database; a file in a temporary folder when not given")
    for name, value in (("processes", 8), ("threads", 8), ("flows", 100), ("tasks", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = run(
            options.url or str(Path(folder) / "orch.db"),
            processes=options.processes,
            threads=options.threads,
            flows=options.flows,
            tasks=options.tasks,
        )
    for problem in found.problems:
        print("PROBLEM", problem)
    print(
        f"{options.processes} processes x {options.threads} threads, {options.flows} flows of "
        f"{options.tasks} tasks each: {found.seconds:.1f} s, {found.writes} awaited writes, "
        f"slowest {found.slowest * 1000:.0f} ms, {len(found.problems)} problems"
    )
    return 1 if found.problems else 0


if __name__ == "__main__":
    sys.exit(main())
