"""What a cached hit costs: the key, a look, and a run that is completed as it is made."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import embedded_orch
from benchmarks.measuring import Row, Stopwatch, Work
from embedded_orch import flow, task
from embedded_orch.cache_policies import INPUTS

_HITS = 1_000


@task(cache_policy=INPUTS)
def cached(number: int) -> int:
    """A small result."""
    return number + 1


@contextmanager
def _hits(folder: Path) -> Generator[Work]:
    with embedded_orch.open(folder / "orch.db"):
        cached(1)

        def work(stopwatch: Stopwatch) -> None:
            with stopwatch:
                for _ in range(_HITS):
                    cached(1)

        yield work


@contextmanager
def _hits_in_a_flow(folder: Path) -> Generator[Work]:
    with embedded_orch.open(folder / "orch.db"):
        cached(1)

        def work(stopwatch: Stopwatch) -> None:
            @flow
            def taking() -> None:
                with stopwatch:
                    for _ in range(_HITS):
                        cached(1)

            taking()

        yield work


ROWS = [
    Row("cached hit on a file", _HITS, _hits, target="100 us"),
    Row("cached hit in a flow on a file", _HITS, _hits_in_a_flow, target="100 us"),
]
