"""How memory grows with the task runs of one flow: ``make bench ARGS="--memory 200000"``.

Tasks are submitted one by one and mapped by the thousand, in turn, in one flow run on a file. What
is shown at each mark is the memory of the process (RSS) and the blocks that Python has allocated;
what SQLite keeps of the file, its page cache, is kept small, so that it is full before the first
mark. ``--trace`` adds the lines of code whose allocations have grown between the first mark and the
last, and takes several times as long.
"""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import embedded_orch
from embedded_orch import flow, task

_BATCH = 1_000
# Pages; 8 MB.
_CACHE_SIZE = 2_000
_SHOWN_LINES = 15


class Mark(NamedTuple):
    """What the process holds after a number of task runs.

    Attributes:
        tasks: how many have run.
        rss: bytes of memory that the process has.
        blocks: that Python has allocated.
    """

    tasks: int
    rss: int
    blocks: int


@task
def small(number: int) -> list[int]:
    """A result that is an object of its own."""
    return [number]


@flow
def growing(marks: Sequence[int], traced: bool) -> list[Mark]:
    """Run tasks up to the last mark, submitted and mapped in turn."""
    found: list[Mark] = []
    before: tracemalloc.Snapshot | None = None
    for batch, start in enumerate(range(0, marks[-1], _BATCH)):
        numbers = range(start, start + _BATCH)
        if batch % 2:
            assert len(small.map(numbers).result()) == _BATCH
        else:
            for number in numbers:
                assert small.submit(number).result() == [number]
        if numbers.stop in marks:
            found.append(_mark(numbers.stop))
            print(_line(found), flush=True)
            if traced and before is None:
                before = tracemalloc.take_snapshot()
    if before is not None:
        print(*_grown(before, found), sep="\n", flush=True)
    return found


def measure_memory(tasks: int, *, traced: bool = False) -> list[Mark]:
    """Run so many tasks, and show what the process holds at a quarter, a half and the end.

    Args:
        tasks: how many; a multiple of 4,000.
        traced: whether to tell which lines of code have allocated more.

    Raises:
        SystemExit: it is no such number.
    """
    if tasks < 1 or tasks % (4 * _BATCH):
        raise SystemExit(f"--memory {tasks}: a multiple of {4 * _BATCH}")
    marks = [tasks // 4, tasks // 2, tasks]
    if traced:
        tracemalloc.start()
    try:
        with tempfile.TemporaryDirectory(prefix="bench-memory-") as folder:
            path = Path(folder) / "orch.db"
            with embedded_orch.open(path, cache_size=_CACHE_SIZE):
                return growing(marks, traced)
    finally:
        tracemalloc.stop()


def _mark(tasks: int) -> Mark:
    gc.collect()
    return Mark(tasks, _resident(), sys.getallocatedblocks())


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _line(found: Sequence[Mark]) -> str:
    mark = found[-1]
    text = f"{mark.tasks:>9,} tasks  RSS {mark.rss / 1e6:7.1f} MB  {mark.blocks:>9,} blocks"
    if len(found) > 1:
        last = found[-2]
        each = mark.tasks - last.tasks
        text += f"  {(mark.rss - last.rss) / each:6.0f} bytes"
        text += f" and {(mark.blocks - last.blocks) / each:5.2f} blocks for each more"
    return text


def _grown(before: tracemalloc.Snapshot, found: Sequence[Mark]) -> Iterator[str]:
    each = found[-1].tasks - found[0].tasks
    grown = tracemalloc.take_snapshot().compare_to(before, "lineno")
    for line in sorted(grown, key=lambda line: -line.size_diff)[:_SHOWN_LINES]:
        frame = line.traceback[0]
        yield f"{line.size_diff / each:8.1f} bytes a task  {frame.filename}:{frame.lineno}"
