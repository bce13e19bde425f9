"""The rows on a large file beside an empty one, and questions to the large one: ``make bench-big``.

The file has a million flow runs and five million task runs unless told otherwise
(``benchmarks/filling.py``; minutes and four gigabytes). Here the floor of a row is the same row on
an empty file. ``--file`` keeps the file for the next time; what is run goes into it too.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import embedded_orch
from benchmarks.filling import Size, fill_file
from benchmarks.measuring import Row, Side, Stopwatch, Work, measure, processor_seconds
from benchmarks.run import all_rows, choose, publish
from embedded_orch import Orchestrator
from embedded_orch.states import StateType

# Those that write to, or read from, the file that they find in their folder.
_ROWS = (
    "sequential task, file",
    "mapped task, file",
    "empty flow, file",
    "subflow, file",
    "cached hit on a file",
    "transition stored, file",
    "slot taken and given back, file",
    "submitted task, file",
    "mapped async task, file",
    "run put into a queue, one by one, store, file",
    "run put into a queue, 1,000 at once, store, file",
    "resume of a flow with 10,000 finished tasks, file",
)


def rows_beside_empty(path: Path) -> list[Row]:
    """Each row on the large file, with the same on an empty one as its floor."""
    return [
        row._replace(
            ours=partial(_linked, side=row.ours, path=path),
            floor=row.ours,
            target="at most 1.3 x",
        )
        for row in all_rows()
        if row.name in _ROWS
    ]


@contextmanager
def _linked(folder: Path, *, side: Side, path: Path) -> Generator[Work]:
    """The side in a folder where its file is the large one, by another name."""
    os.link(path, folder / "orch.db")
    with side(folder) as work:
        yield work


def _ago(days: float) -> datetime:
    return datetime.now(UTC) - timedelta(days=days)


def _history(orch: Orchestrator) -> object:
    return orch.flow_runs.history(start=_ago(30), end=_ago(0), step=timedelta(days=1))


def _by_state(orch: Orchestrator) -> object:
    return [orch.flow_runs.count(state_type=[state]) for state in StateType]


QUESTIONS: dict[str, tuple[Callable[[Orchestrator], object], str]] = {
    "newest 50 flow runs": (lambda orch: list(orch.flow_runs.find(limit=50)), "50 ms"),
    "newest 50 task runs": (lambda orch: list(orch.task_runs.find(limit=50)), "50 ms"),
    "50 by state and tag": (
        lambda orch: list(orch.flow_runs.find(limit=50, state_type=["FAILED"], tags=["nightly"])),
        "50 ms",
    ),
    "count by state and tag, 3,000 of 30,000": (
        lambda orch: orch.flow_runs.count(state_type=["FAILED"], tags=["nightly"]),
        "50 ms",
    ),
    "runs with a tag that none has": (
        lambda orch: list(orch.flow_runs.find(limit=50, tags=["missing"])),
        "1 s",
    ),
    "count of the runs of one flow, 50,000": (
        lambda orch: orch.flow_runs.count(flow_name=["report-1"]),
        "50 ms",
    ),
    "history of 1 day, by the hour": (
        lambda orch: orch.flow_runs.history(start=_ago(1), end=_ago(0), step=timedelta(hours=1)),
        "50 ms",
    ),
    "history of 30 days, by the day, 500,000 runs": (_history, "1 s"),
    "counts of flow runs by state, all": (_by_state, "1 s"),
    "count of all task runs": (lambda orch: orch.task_runs.count(), "1 s"),
    "count of completed task runs": (
        lambda orch: orch.task_runs.count(state_type=["COMPLETED"]),
        "1 s",
    ),
}


def questions(path: Path) -> list[Row]:
    """What people ask of the large file."""
    return [
        Row(name, 1, partial(_asked, ask=ask, path=path), target=target)
        for name, (ask, target) in QUESTIONS.items()
    ]


@contextmanager
def _asked(_folder: Path, *, ask: Callable[[Orchestrator], object], path: Path) -> Generator[Work]:
    with embedded_orch.open(path) as orch:

        def work(stopwatch: Stopwatch) -> None:
            with stopwatch:
                ask(orch)

        yield work


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="benchmarks.big", description=__doc__)
    parser.add_argument("--flow-runs", type=int, default=1_000_000, help="%(default)s")
    parser.add_argument("--tasks", type=int, default=5, help="of each flow run (%(default)s)")
    parser.add_argument("--file", type=Path, help="the large file; made when it is not there")
    parser.add_argument("--rows", nargs="+", default=[], metavar="WORD", help="parts of names")
    parser.add_argument("--rounds", type=int, default=5, help="samples of each side (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write samples and machine there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the ratios there, as SVG")
    parser.add_argument("--processor", action="store_true", help="processor time")
    options = parser.parse_args(arguments)
    logging.getLogger().addHandler(logging.NullHandler())
    # Four gigabytes are where retention begins to remove what has ended.
    os.environ["EMBEDDED_ORCH_RETENTION"] = "off"
    with tempfile.TemporaryDirectory(prefix="bench-big-") as folder:
        path: Path = (options.file or Path(folder) / "orch.db").resolve()
        if not path.exists():
            embedded_orch.open(path).close()
            fill_file(str(path), Size(options.flow_runs, options.tasks), told=_told)
        # A link has to be on the same file system as the file.
        tempfile.tempdir = str(path.parent)
        clock = processor_seconds if options.processor else time.perf_counter
        rows = choose([*questions(path), *rows_beside_empty(path)], options.rows)
        outcomes = []
        for row in rows:
            print(row.name, file=sys.stderr, flush=True)
            outcomes.append(measure(row, rounds=options.rounds, clock=clock))
    publish(outcomes, options)
    return 0


def _told(flow_runs: int) -> None:
    if flow_runs % 100_000 == 0:
        print(f"{flow_runs:,} flow runs", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
