"""What a line costs that a run logs, beside the standard library keeping its record in a list."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import embedded_orch
from benchmarks.measuring import Row, Stopwatch, Work
from embedded_orch import flow, get_run_logger

_LINES = 5_000


@flow
def talkative(stopwatch: Stopwatch) -> None:
    """Logs, and does nothing else; the lines are stored meanwhile and after."""
    logger = get_run_logger()
    with stopwatch:
        for number in range(_LINES):
            logger.info("line %d", number)


@contextmanager
def _ours(folder: Path) -> Generator[Work]:
    with embedded_orch.open(folder / "orch.db"):
        yield talkative


class _Keeping(logging.Handler):
    """Puts records into a list."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        self.kept.append(record)


@contextmanager
def _standard_library(_: Path) -> Generator[Work]:
    logger = logging.getLogger("benchmark")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    handler = _Keeping()
    logger.addHandler(handler)

    def work(stopwatch: Stopwatch) -> None:
        handler.kept.clear()
        with stopwatch:
            for number in range(_LINES):
                logger.info("line %d", number)

    yield work


ROWS = [
    Row("log line, file", _LINES, _ours, _standard_library, "at most 2 x the floor"),
]
