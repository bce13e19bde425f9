"""What a slot of a concurrency limit costs, and how long it is idle while somebody wants it."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import embedded_orch
from benchmarks.measuring import Row, Stopwatch, Work
from embedded_orch.concurrency.sync import concurrency

_BLOCKS = 200
_THREADS = 8


def _alone(stopwatch: Stopwatch) -> None:
    """One block after the other, in one thread."""
    with stopwatch:
        for _ in range(_BLOCKS):
            with concurrency("slot"):
                pass


def _contended(stopwatch: Stopwatch) -> None:
    """Blocks without a body in eight threads: all the time is between two holders."""

    def work() -> None:
        for _ in range(_BLOCKS // _THREADS):
            with concurrency("slot"):
                pass

    threads = [threading.Thread(target=work) for _ in range(_THREADS)]
    with stopwatch:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


@contextmanager
def _one_slot(folder: Path, work: Work, *, url: str | None = None) -> Generator[Work]:
    with embedded_orch.open(url or folder / "orch.db") as orch:
        orch.concurrency_limits.upsert("slot", 1)
        yield work


ROWS = [
    Row(
        "slot taken and given back, file",
        _BLOCKS,
        partial(_one_slot, work=_alone),
        target="200 us",
    ),
    Row(
        "slot taken and given back, memory",
        _BLOCKS,
        partial(_one_slot, work=_alone, url=":memory:"),
    ),
    Row(
        "gap between holders, 8 threads on 1 slot, file",
        _BLOCKS,
        partial(_one_slot, work=_contended),
        target="2 ms",
    ),
]
