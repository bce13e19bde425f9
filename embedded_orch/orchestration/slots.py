"""The arithmetic of a concurrency limit, pure: how many of its slots are taken, and until when.

The slots of a limit are either held, by claims that give them back, or, where they decay, spent:
``slot_decay_per_second`` of them come back by themselves. A limit that decays is read as in Prefect
3: what was spent, less the whole slots that have come back since.
"""

from __future__ import annotations

import math

import msgspec

_SECOND = 1_000_000


class Spent(msgspec.Struct, frozen=True):
    """The slots of a limit that decays, as of a moment.

    Attributes:
        slots: that were taken and have not come back.
        at: from when on they come back, in microseconds since 1970 UTC.
    """

    slots: int
    at: int

    def left(self, decay: float, *, now: int) -> int:
        """How many of them are still taken.

        Args:
            decay: slots that come back in a second.
            now: microseconds since 1970 UTC.
        """
        return max(0, self.slots - self._returned(decay, now))

    def settled(self, decay: float, *, now: int) -> Spent:
        """The same as of now, with nothing lost of the slot that is on its way back.

        Were the time simply set to now, a limit that is used more often than its slots come back
        would never see one return.
        """
        returned = self._returned(decay, now)
        if returned >= self.slots:
            return Spent(0, now)
        return Spent(self.slots - returned, self.at + math.ceil(returned * _SECOND / decay))

    def spend(self, slots: int) -> Spent:
        """After ``slots`` more were taken."""
        return Spent(self.slots + slots, self.at)

    def give_back(self, slots: int) -> Spent:
        """After ``slots`` were given back, of which some may have come back already."""
        return Spent(max(0, self.slots - slots), self.at)

    def until(self, slots: int, decay: float, *, now: int) -> int:
        """Microseconds until no more than ``slots`` of them are taken."""
        surplus = self.slots - slots
        return max(0, self.at + math.ceil(surplus * _SECOND / decay) - now) if surplus > 0 else 0

    def _returned(self, decay: float, now: int) -> int:
        return math.floor(decay * max(0, now - self.at) / _SECOND)


def has_room(limit: int, taken: int, wanted: int) -> bool:
    """Whether so many more slots fit."""
    return taken + wanted <= limit
