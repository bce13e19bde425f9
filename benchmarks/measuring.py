"""Measuring two sides of a row beside each other: ours, and the floor below which nothing goes.

A machine's speed drifts while it is measured (clock, caches, neighbours). So the rounds of the two
sides alternate, and who goes first alternates too: a drift hits both, and the ratio stays. The
median stands for a side, since a disturbed round can only be slower; the spread says how far to
trust it.
"""

from __future__ import annotations

import gc
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import copy_context
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple

YARDSTICK_SECONDS = 1 / 11_200
"""For the rows of a task by the raw driver, one commit each, where the targets were set."""


class Stopwatch:
    """Adds up the seconds spent inside its ``with`` blocks, and nothing around them."""

    __slots__ = ("_clock", "_started", "seconds")

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._started = 0.0
        self.seconds = 0.0

    def __enter__(self) -> None:
        self._started = self._clock()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.seconds += self._clock() - self._started


# One round of a side; it puts the part that counts under the stopwatch.
Work = Callable[[Stopwatch], None]
# Opens a side in an empty folder of its own, for all its rounds.
Side = Callable[[Path], AbstractContextManager[Work]]


class Row(NamedTuple):
    """One thing that is measured.

    Attributes:
        name: what is done, as the table shows it.
        operations: how many of them one round does; the figures are for one.
        ours: how embedded_orch does it.
        floor: the least that anything with the same outcome has to do; None where there is none.
        target: what the figures should be, in words.
        unit: of the figures. A row of bytes sets its stopwatch to them.
    """

    name: str
    operations: int
    ours: Side
    floor: Side | None = None
    target: str = ""
    unit: Literal["seconds", "bytes"] = "seconds"


class Figure(NamedTuple):
    """Seconds, or bytes, for one operation: a sample of each round."""

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median of the samples."""
        return statistics.median(self.samples)

    @property
    def spread(self) -> float:
        """The middle half of the samples is this wide, as a part of the median."""
        if len(self.samples) == 1:
            return 0.0
        lower, _, upper = statistics.quantiles(self.samples, n=4, method="inclusive")
        return (upper - lower) / self.median


class Outcome(NamedTuple):
    """What a row came to.

    Attributes:
        row: which.
        ours: how we did.
        floor: how the floor did, where there is one.
        yardstick: what is known to take :data:`YARDSTICK_SECONDS` where the targets were set, in
            turns with the row; None where it was not measured.
    """

    row: Row
    ours: Figure
    floor: Figure | None
    yardstick: Figure | None = None

    @property
    def ratio(self) -> float | None:
        """How many times the floor ours takes; None without a floor."""
        return None if self.floor is None else self.ours.median / self.floor.median

    @property
    def at_pace(self) -> float | None:
        """Ours on a machine like the one on which the targets were set; None where not known."""
        if self.yardstick is None or self.row.unit != "seconds":
            return None
        return self.ours.median * YARDSTICK_SECONDS / self.yardstick.median


def processor_seconds() -> float:
    """What this process and those that it has waited for have had of the processors.

    It says what something costs on a machine that others use too, where the time that goes by says
    little; and nothing of what is waited for, such as a disk.
    """
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def percentile(samples: Sequence[float], percent: int) -> float:
    """The smallest sample that so many in a hundred are not above."""
    ordered = sorted(samples)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


@contextmanager
def _in_a_context_of_its_own(side: AbstractContextManager[Work]) -> Generator[Work]:
    """Of two sides that open a database, each runs its flows in its own."""
    context = copy_context()
    work = context.run(side.__enter__)
    try:
        yield lambda stopwatch: context.run(work, stopwatch)
    finally:
        context.run(side.__exit__, *sys.exc_info())


def measure(
    row: Row,
    *,
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
    yardstick: Row | None = None,
) -> Outcome:
    """Run both sides of a row for a number of rounds, after one that does not count.

    Args:
        row: what to run.
        rounds: how many samples to take of each side; at least 1.
        clock: what is measured, in seconds.
        yardstick: whose own side is run in turns with them.
    """
    operations = {"ours": row.operations, "floor": row.operations}
    sides = {"ours": row.ours} if row.floor is None else {"ours": row.ours, "floor": row.floor}
    if yardstick is not None:
        sides["yardstick"], operations["yardstick"] = yardstick.ours, yardstick.operations
    samples: dict[str, list[float]] = {name: [] for name in sides}
    with ExitStack() as stack:
        works: dict[str, Work] = {}
        for name, side in sides.items():
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=f"bench-{name}-"))
            works[name] = stack.enter_context(_in_a_context_of_its_own(side(Path(folder))))
        for names in order_of_rounds(list(works), rounds=rounds + 1):
            for name in names:
                samples[name].append(_one_round(works[name], clock) / operations[name])
    figures = {name: Figure(tuple(taken[1:])) for name, taken in samples.items()}
    return Outcome(row, figures["ours"], figures.get("floor"), figures.get("yardstick"))


def order_of_rounds(names: list[str], *, rounds: int) -> list[list[str]]:
    """For each round, who goes first: they take turns."""
    return [names if number % 2 == 0 else names[::-1] for number in range(rounds)]


def _one_round(work: Work, clock: Callable[[], float]) -> float:
    # What an earlier round left behind is collected at nobody's cost.
    gc.collect()
    stopwatch = Stopwatch(clock)
    work(stopwatch)
    if stopwatch.seconds <= 0.0:
        raise RuntimeError(f"{work!r} put nothing under its stopwatch")
    return stopwatch.seconds
