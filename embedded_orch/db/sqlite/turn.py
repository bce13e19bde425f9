"""Whose turn it is to use the write connection: a lock that Ctrl-C cannot strand.

``threading.Lock`` tells by its answer that it was taken. An interrupt that arrives before the
answer is looked at takes it away, and the lock is held by nobody for ever. Here the step that takes
the turn writes down who took it, so whoever was interrupted gives it back without having to know.

Nobody passes those who wait. A lock that whoever runs may take goes to its last holder again and
again: the one that waits is waked, and finds it taken before it has run (a copy of a database
waited for 60 s beside one thread that wrote).
"""

from __future__ import annotations

import time
from collections import deque

from embedded_orch.db.bell import Bell


class Turn:
    """Taken by one holder at a time, who may give it back in another thread.

    A holder is any object that its owner uses for one turn only.
    """

    __slots__ = ("_holder", "_waiting")

    def __init__(self) -> None:
        # One entry, or none: its methods are single steps of the interpreter.
        self._holder: dict[None, object] = {}
        self._waiting: deque[Bell] = deque()

    def take_if_free(self, holder: object) -> bool:
        """Take it without waiting, if nobody waits for it; whether it is the holder's now."""
        return not self._waiting and self._holder.setdefault(None, holder) is holder

    def take(self, holder: object, *, seconds: float) -> bool:
        """Take it when its turn comes; False when it did not in so many seconds."""
        if self.take_if_free(holder):
            return True
        deadline = time.monotonic() + seconds
        bell = Bell()
        self._waiting.append(bell)
        try:
            while not self._take_as_first(bell, holder):
                if not bell.wait(max(0.0, deadline - time.monotonic())):
                    return self._take_as_first(bell, holder)
            return True
        finally:
            self._waiting.remove(bell)
            # Perhaps it rang for this one, who does not take the turn.
            self._wake()

    def _take(self, holder: object) -> bool:
        return self._holder.setdefault(None, holder) is holder

    def _take_as_first(self, bell: Bell, holder: object) -> bool:
        return self._waiting[0] is bell and self._take(holder)

    def give(self, holder: object) -> None:
        """Give it back; does nothing when it is another's."""
        if self._holder.get(None) is holder:
            self._holder.clear()
        if self._waiting:
            self._wake()

    def is_held_by(self, holder: object) -> bool:
        """Whether it is this one's."""
        return self._holder.get(None) is holder

    def locked(self) -> bool:
        """Whether somebody has it."""
        return bool(self._holder)

    def _wake(self) -> None:
        if not self._holder:
            try:
                self._waiting[0].ring()
            except IndexError:
                # The only one has just gone.
                return
