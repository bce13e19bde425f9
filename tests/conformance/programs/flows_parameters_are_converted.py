"""Parameters become what the annotations say."""

from datetime import date
from typing import Optional

from embedded_orch import flow


@flow
def load(day: date, limit: int = 10, names: Optional[list[str]] = None):
    assert isinstance(day, date) and isinstance(limit, int)
    return day, limit, names


assert load("2026-01-31", "5", ["a"]) == (date(2026, 1, 31), 5, ["a"])
assert load(date(2026, 1, 31)) == (date(2026, 1, 31), 10, None)
