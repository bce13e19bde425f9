"""What a process is to its databases: its clock, its ids, its sleep and its facts.

Nothing else in the package asks the operating system for the time, for randomness or for who it
is, so that a test can put several processes, each with a clock of its own, into one.
"""

from __future__ import annotations

import os
import threading
import time
from struct import Struct
from typing import TYPE_CHECKING
from uuid import UUID, SafeUUID

if TYPE_CHECKING:
    from collections.abc import Callable

_VERSION_AND_VARIANT = (7 << 76) | (0b10 << 62)
_TAIL = (1 << 62) - 1
# The tails of so many ids are drawn at once: a call of the operating system costs more than an id.
_TAILS = Struct("64Q")


class Process:
    """One process as its databases see it. Safe to use from any thread.

    Args:
        clock: microseconds since 1970-01-01 UTC.
        entropy: ``entropy(n)`` gives n random bytes.
        sleep: waits for a number of seconds. Of a clock that does not go by itself it has a method
            ``doze(bell, seconds)`` too, which returns when the bell rings or they have gone by.

    Attributes:
        now: the time, in microseconds since 1970-01-01 UTC.
        sleep: waits for a number of seconds.
        pid: of the process.
    """

    __slots__ = ("_entropy", "_last_stamp", "_lock", "_tails", "now", "pid", "sleep")

    def __init__(
        self,
        *,
        clock: Callable[[], int] | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.now: Callable[[], int] = clock or _system_clock
        self._entropy = entropy
        self.sleep = sleep
        self.begin_in_child()

    def begin_in_child(self) -> None:
        """Begin anew in a forked child: as another process."""
        self._lock = threading.Lock()
        self._last_stamp = 0
        # Not those of the parent, which it goes on to use.
        self._tails: list[int] = []
        self.pid = os.getpid()

    def new_id(self) -> UUID:
        """A UUIDv7 (RFC 9562) greater than every one made before it by this object.

        The 12 bits after the milliseconds count 244 ns steps (RFC 9562 section 6.2, method 3), so
        ids sort by the time at which they were made; two made in one step, or after the clock was
        set back, go on from the last.
        """
        milliseconds, microseconds = divmod(self.now(), 1000)
        stamp = (milliseconds << 12) | (microseconds * 4096 // 1000)
        with self._lock:
            if stamp <= self._last_stamp:
                stamp = self._last_stamp + 1
            self._last_stamp = stamp
            if not self._tails:
                self._tails.extend(_TAILS.unpack(self._entropy(_TAILS.size)))
            tail = self._tails.pop() & _TAIL
        return _uuid(((stamp >> 12) << 80) | ((stamp & 0xFFF) << 64) | _VERSION_AND_VARIANT | tail)

    def random_bytes(self, count: int) -> bytes:
        """``count`` random bytes."""
        return self._entropy(count)

    def chance(self) -> float:
        """A random number from 0 up to 1."""
        return (int.from_bytes(self._entropy(7), "big") >> 3) / (1 << 53)

    def __repr__(self) -> str:
        return f"<Process pid={self.pid}>"


def _uuid(number: int) -> UUID:
    """``UUID(int=number)``, without its checks, which cost twice as much as all the rest."""
    made: UUID = object.__new__(UUID)
    object.__setattr__(made, "int", number)
    object.__setattr__(made, "is_safe", SafeUUID.unknown)
    return made


def _system_clock() -> int:
    return time.time_ns() // 1000


OWN = Process()
"""This process with its real clock: what makes what nobody gave a clock or an id."""

if hasattr(os, "register_at_fork"):
    # The parent's lock may have been held by a thread that the child does not have.
    os.register_at_fork(after_in_child=OWN.begin_in_child)
