"""How many threads an event loop may have waiting for one database."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from anyio import CapacityLimiter
from anyio.lowlevel import RunVar

if TYPE_CHECKING:
    from embedded_orch.db.postgres.database import PostgresDatabase

# A limiter belongs to the event loop it was made in. It goes with the loop or with the database.
_limiters: RunVar[WeakKeyDictionary[PostgresDatabase, CapacityLimiter]] = RunVar(
    "embedded_orch_limiters"
)


def limiter_for(database: PostgresDatabase, most: int) -> CapacityLimiter:
    """The limiter of the running event loop for a database.

    Args:
        database: whose calls it counts.
        most: how many may run at once.
    """
    limiters: WeakKeyDictionary[PostgresDatabase, CapacityLimiter]
    try:
        limiters = _limiters.get()
    except LookupError:
        limiters = WeakKeyDictionary()
        _limiters.set(limiters)
    limiter = limiters.get(database)
    if limiter is None:
        limiter = limiters[database] = CapacityLimiter(most)
    return limiter
