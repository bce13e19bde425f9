"""Which of equal calls a call is, told in memory that does not grow with the calls of a run.

The last calls are counted one by one. What was called longer ago is let go of but for a mark, one
bit in a field of fixed size; a call that meets its mark may be equal to one that was let go of, or
meet the mark of another, and the database is asked, where the records of the run are.
"""

from __future__ import annotations

import threading

# Counted one by one are this many different calls at least, and twice as many at most.
_REMEMBERED = 25_000
# Bits of the field. With a million marks in it, one new call of 68 is looked up for nothing.
_BITS = 1 << 26


class Occurrences:
    """The calls of one attempt at a flow run, by their digests. Any thread may use it.

    Args:
        lets_go: whether what was called long ago may be looked up in the records of the run. Not
            where an earlier attempt has left some: they tell nothing of the order of this one.
    """

    __slots__ = ("_before", "_lets_go", "_lock", "_marks", "_recent")

    def __init__(self, *, lets_go: bool) -> None:
        self._lets_go = lets_go
        self._lock = threading.Lock()
        self._recent: dict[bytes, int] = {}
        self._before: dict[bytes, int] = {}
        self._marks: bytearray | None = None

    def next_of(self, digest: bytes) -> int | None:
        """How many equal calls came before this one; None if that has to be looked up."""
        with self._lock:
            count = self._recent.get(digest)
            if count is None:
                count = self._before.get(digest, 0)
                if count == 0 and self._is_marked(digest):
                    return None
            self._count(digest, count)
            return count

    def next_after(self, digest: bytes, recorded: int) -> int:
        """The same for a call that had to be looked up.

        Args:
            digest: of the call.
            recorded: how many equal ones the records of the run have.
        """
        with self._lock:
            # Another thread may have looked it up meanwhile.
            count = max(recorded, self._recent.get(digest, 0), self._before.get(digest, 0))
            self._count(digest, count)
            return count

    def _count(self, digest: bytes, count: int) -> None:
        recent = self._recent
        recent[digest] = count + 1
        if self._lets_go and len(recent) >= _REMEMBERED:
            self._let_go()

    def _let_go(self) -> None:
        if self._before:
            marks = self._marks = self._marks or bytearray(_BITS // 8)
            for digest in self._before.keys() - self._recent.keys():
                place, bit = _mark_of(digest)
                marks[place] |= bit
        self._before, self._recent = self._recent, {}

    def _is_marked(self, digest: bytes) -> bool:
        if self._marks is None:
            return False
        place, bit = _mark_of(digest)
        return bool(self._marks[place] & bit)


def _mark_of(digest: bytes) -> tuple[int, int]:
    """The byte and the bit in it."""
    number = int.from_bytes(digest[:8], "big") % _BITS
    return number >> 3, 1 << (number & 7)
