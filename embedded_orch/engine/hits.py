"""Task runs of a flow run that have taken a cached result, on their way into the database.

What such a run took is on record already, under its cache key. That it was taken is announced, as
the start of a task is: it is committed in order, with the next write or within 10 ms, and nobody
waits for it. Where that fails, whatever reason it has, it goes with the next state of the flow run
or of one of its tasks, which is awaited and fails with it. So a flow run does not end without it.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from embedded_orch.db.current import scope_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedded_orch.db.port import Announced, Database, Transaction

    # On its way, and what writes it.
    _Leaving = tuple[Announced, Callable[[Transaction], object]]

_MOST_LEAVING = 64
"""The next one is awaited, and commits them: they do not pile up faster than they are stored."""


class Hits:
    """The hits of one flow run that are not known to be committed. Any thread may use it.

    Args:
        database: where they go.
    """

    __slots__ = ("_again", "_database", "_leaving", "_settling")

    def __init__(self, database: Database) -> None:
        self._database = database
        self._leaving: deque[_Leaving] = deque()
        # The last one that was announced once more, as long as it is not known to be committed.
        self._again: Announced | None = None
        self._settling = threading.Lock()

    def may_be_announced(self) -> bool:
        """Whether the next one may be: none while one is announced once more, or many wait.

        Nor where the look for what is cached would cost a round trip, or would not see what an open
        transaction of the caller has written.
        """
        database = self._database
        if not database.reads_beside or scope_for(database) is not None:
            return False
        # What is committed was let go of when the write was made that this takes the place of.
        return self._again is None and len(self._leaving) < _MOST_LEAVING

    def announce(self, operation: Callable[[Transaction], object]) -> Announced:
        """Have a hit committed soon.

        Args:
            operation: writes its run, or finds it written.
        """
        announced = self._database.announce(operation)
        self._leaving.append((announced, operation))
        return announced

    def hand_over(self) -> None:
        """Let go of what is committed, and announce once more what failed, before what follows.

        Not inside of an open transaction of the caller, which may be rolled back.
        """
        leaving = self._leaving
        if not leaving:
            return
        try:
            is_over = leaving[0][0].is_done
        except IndexError:
            # Another thread was at it just now.
            return
        # They are committed in their order.
        if not is_over or scope_for(self._database) is not None:
            return
        # Whoever finds another thread at it leaves it to that.
        if not self._settling.acquire(blocking=False):
            return
        try:
            for _ in range(len(leaving)):
                announced, operation = leaving[0]
                if not announced.is_done:
                    break
                if announced is self._again:
                    self._again = None
                if announced.error is not None:
                    # Added before it is taken away: at any time it is among those that leave.
                    self._again = self.announce(operation)
                leaving.popleft()
        finally:
            self._settling.release()

    @property
    def are_leaving(self) -> bool:
        """Whether some may not be committed yet."""
        return bool(self._leaving)

    def store_failed(self, tx: Transaction) -> None:
        """Store those whose own commit has failed, with a state that comes after them.

        Raises:
            DatabaseError: one cannot be stored now either.
            OwnershipLost: another process has taken the flow run.
        """
        if self._leaving:
            for announced, operation in tuple(self._leaving):
                if announced.error is not None:
                    operation(tx)

    def __repr__(self) -> str:
        return f"<Hits on {self._database.url}: {len(self._leaving)} leaving>"
