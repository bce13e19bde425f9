"""Who has waited longest for the lock between processes, so that nobody passes that one for long.

The kernel gives a lock to whoever asks while it is free. A process that writes one thing after the
other asks again as soon as it has the next; those that wait ask between two pauses, find the lock
taken, and pause again. Of four processes that ran tasks, one passed another 30 to 80 times.

So the one who has waited longest writes into the lock file since when, and once that is too long
the others do not ask any more. A little passing is wanted: else the lock would be idle each time
until the first of the line has waked up. All of it is advice. It decides who asks for the lock,
never who has it, so what is torn, lost, or left behind by a process that died costs some
milliseconds and nothing else.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from struct import Struct
from typing import TYPE_CHECKING

from embedded_orch.db.file_locks import lock_file

if TYPE_CHECKING:
    from collections.abc import Callable

# Since when the first of the line has waited, and when it was last there, both by the monotonic
# clock, which the processes of a host share. Before them in the file is what holds readers back.
_ENTRY = Struct("<qq")
_OFFSET = 8
_NOBODY = (b"", bytes(_ENTRY.size))

# How long the first of the line may be passed.
_PASSED_NANOSECONDS = 5_000_000
# Who did not look for so long is stopped or dead, or has no processor.
_GONE_NANOSECONDS = 10_000_000

_SHORTEST_PAUSE_SECONDS = 50e-6
LONGEST_PAUSE_SECONDS = 2e-3
# Shorter than the first may be passed: it is soon known who is the next one.
_PAUSE_BEHIND_SECONDS = 1e-3


def lock_file_in_turn(descriptor: int) -> None:
    """Take the lock without waiting, unless somebody has waited for it for too long.

    Args:
        descriptor: of the lock file.

    Raises:
        BlockingIOError: somebody has it, or is to have it next.
        OSError: the lock file is closed.
    """
    entry = _read(descriptor)
    if entry not in _NOBODY:
        now = time.monotonic_ns()
        if _is_due(_first(entry, now), now):
            raise BlockingIOError
    lock_file(descriptor)


def pause_seconds(waited: float) -> float:
    """How long who has waited for so many seconds pauses: shortly first, for most writes are."""
    return min(max(waited / 32, _SHORTEST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)


class PlaceInLine:
    """The place of one who waits, from the first refusal until :meth:`leave`.

    Used by one thread.

    Args:
        descriptor: tells that of the lock file, which may be closed meanwhile.
        patience: how many seconds it waits at most. A lock that is free then is taken out of turn.
    """

    __slots__ = ("_descriptor", "_is_behind", "_is_entered", "_since", "_until")

    def __init__(self, descriptor: Callable[[], int], *, patience: float) -> None:
        self._descriptor = descriptor
        self._since = time.monotonic_ns()
        self._until = self._since + int(patience * 1e9)
        self._is_behind = False
        self._is_entered = False

    def attempt(self) -> None:
        """Take the lock without waiting, unless somebody else is due.

        Raises:
            BlockingIOError: somebody has it, or is to have it next.
            OSError: the lock file is closed.
        """
        descriptor = self._descriptor()
        now = time.monotonic_ns()
        first = _first(_read(descriptor), now)
        self._is_behind = first is not None and first < self._since
        if self._is_behind and _is_due(first, now) and now < self._until:
            raise BlockingIOError
        try:
            lock_file(descriptor)
        except BlockingIOError:
            if not self._is_behind:
                self._is_entered = True
                _write(descriptor, _ENTRY.pack(self._since, now))
            raise

    def pause_seconds(self, waited: float) -> float:
        """How long to pause before the next attempt, after so many seconds of waiting."""
        return _PAUSE_BEHIND_SECONDS if self._is_behind else pause_seconds(waited)

    def leave(self) -> None:
        """Let another be the first: this one has the lock, or has given up."""
        if not self._is_entered:
            return
        # Closed meanwhile: then nobody of this process is in the line.
        with suppress(OSError):
            descriptor = self._descriptor()
            if _first(_read(descriptor), time.monotonic_ns()) == self._since:
                _write(descriptor, bytes(_ENTRY.size))


def _first(entry: bytes, now: int) -> int | None:
    """Since when the first of the line has waited; None when nobody waits."""
    if len(entry) < _ENTRY.size:
        return None
    since, seen = _ENTRY.unpack(entry)
    # What lies ahead was written before the last boot, with which the clock began anew.
    return since if seen <= now < seen + _GONE_NANOSECONDS else None


def _is_due(since: int | None, now: int) -> bool:
    return since is not None and now - since > _PASSED_NANOSECONDS


if sys.platform == "win32":

    def yield_processor() -> None:
        """Let another thread or process run."""
        time.sleep(0)

    # What is at a place in a file cannot be read there without moving in it; nobody is ever due.

    def _read(_descriptor: int) -> bytes:
        return b""

    def _write(_descriptor: int, _entry: bytes) -> None:
        return
else:
    yield_processor = os.sched_yield

    def _read(descriptor: int) -> bytes:
        return os.pread(descriptor, _ENTRY.size, _OFFSET)

    def _write(descriptor: int, entry: bytes) -> None:
        # On a full disk nobody knows of this one, and it is passed.
        with suppress(OSError):
            os.pwrite(descriptor, entry, _OFFSET)
