"""What the programs have in common: the time that a part takes, told on stdout as JSON."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def told(settings: str) -> Generator[None]:
    """Time a block, by the clock and by the processor, and print both."""
    processor, clock = _processor(), time.perf_counter()
    yield
    seconds = time.perf_counter() - clock
    figures = {"seconds": seconds, "processor": _processor() - processor, "settings": settings}
    print("\n" + json.dumps(figures), flush=True)


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
