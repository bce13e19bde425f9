"""Measure the rows: ``make bench``, or ``python -m benchmarks.run --rows claim --json FILE``.

A row lives in a module ``benchmarks/rows_<subject>.py``, in its list ``ROWS``. With ``--memory`` it
measures instead what a process holds after so many task runs (``benchmarks/memory.py``).
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.floor import YARDSTICK
from benchmarks.measuring import Outcome, Row, measure, processor_seconds
from benchmarks.memory import measure_memory
from benchmarks.plotting import ratios
from benchmarks.reporting import record, table


def all_rows() -> list[Row]:
    """The rows of every module beside this one, in the order of their names."""
    modules = sorted(path.stem for path in Path(__file__).parent.glob("rows_*.py"))
    return [row for name in modules for row in importlib.import_module(f"benchmarks.{name}").ROWS]


def choose(rows: Sequence[Row], words: Sequence[str]) -> list[Row]:
    """The rows whose name contains one of the words; all without words.

    Raises:
        SystemExit: a word is in no name.
    """
    for word in words:
        if not any(word in row.name for row in rows):
            names = "\n  ".join(row.name for row in rows)
            raise SystemExit(f"no row has {word!r} in its name; there are:\n  {names}")
    return [row for row in rows if not words or any(word in row.name for word in words)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="benchmarks.run", description=__doc__)
    parser.add_argument("--rows", nargs="+", default=[], metavar="WORD", help="parts of names")
    parser.add_argument("--rounds", type=int, default=11, help="samples of each side (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write samples and machine there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the ratios there, as SVG")
    parser.add_argument(
        "--processor", action="store_true", help="processor time, for a machine that is not alone"
    )
    parser.add_argument("--memory", type=int, metavar="TASKS", help="memory after so many tasks")
    parser.add_argument("--trace", action="store_true", help="with --memory: where it has grown")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds has to be at least 1")

    # What runs log is kept all the same, and not shown between the figures.
    logging.getLogger().addHandler(logging.NullHandler())
    if options.memory is not None:
        measure_memory(options.memory, traced=options.trace)
        return 0
    rows = choose(all_rows(), options.rows)
    if not rows:
        raise SystemExit("there are no rows: benchmarks/rows_*.py define none")
    clock = processor_seconds if options.processor else time.perf_counter
    # Processor time is not what the targets are of.
    yardstick = None if options.processor else YARDSTICK
    outcomes: list[Outcome] = []
    for number, row in enumerate(rows, 1):
        # On stderr, so that the table alone can be kept.
        print(f"[{number}/{len(rows)}] {row.name}", file=sys.stderr, flush=True)
        outcomes.append(measure(row, rounds=options.rounds, clock=clock, yardstick=yardstick))
    publish(outcomes, options)
    return 0


def publish(outcomes: Sequence[Outcome], options: argparse.Namespace) -> None:
    """Print what was measured, and write the files that the options ``json`` and ``plot`` name."""
    print(table(outcomes))
    if options.json is not None:
        options.json.write_text(json.dumps(record(outcomes), indent=2) + "\n", encoding="utf-8")
    if options.plot is not None:
        options.plot.write_text(ratios(outcomes), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
