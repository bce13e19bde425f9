"""A clock for tests: time goes by when the test says so, or when there is nothing else to do."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from embedded_orch import times
from embedded_orch.db.bell import Bell
from embedded_orch.engine.workers import doze_here
from embedded_orch.process import Process

if TYPE_CHECKING:
    from collections.abc import Callable

_START = datetime(2026, 1, 1, tzinfo=UTC)
_MICROSECONDS = 1_000_000
# All are believed to wait when so many times, one after the other, nobody has looked at the clock
# for so long. Not one length of time: on a busy machine who sleeps is kept waiting as others are.
_QUIET_SECONDS = 0.001
_QUIET_TIMES = 5
# While the database works for somebody it takes so many: who holds it may wait for the clock.
_QUIET_TIMES_OF_WORK = 1000


class VirtualClock:
    """The time of an orchestrator under test. Any thread may use it.

    Delays of retries, pauses and durable waits take no real time. What runs at once takes no time
    at all on it. Time limits of functions, and time-outs of waits for slots, are real ones.

    Args:
        start: what it shows at first; 2026-01-01 UTC when not given.
        jumps: move by itself to the next moment that somebody waits for, once everybody waits. A
            function that works for longer than five milliseconds without a call of ours, while
            another run waits, looks like one that waits: let the test move the time then. Without,
            it stands still until :meth:`advance`.
    """

    def __init__(self, start: datetime = _START, *, jumps: bool = True) -> None:
        self._now = times.microseconds_from_datetime(start)
        self._jumps = jumps
        self._lock = threading.RLock()
        self._has_changed = threading.Condition(self._lock)
        self._waiting: list[_Alarm] = []
        # How often somebody looked at it, or it was moved.
        self._looks = 0
        self._works: list[Work] = []

    @property
    def now(self) -> datetime:
        """What it shows."""
        return times.datetime_from_microseconds(self._now)

    @property
    def waiting(self) -> int:
        """How many wait for a moment of it."""
        return len(self._waiting)

    def advance(self, by: timedelta | float) -> None:
        """Let time go by: those whose time has come go on, in its order.

        Args:
            by: how much, as a timedelta or in seconds; a negative one sets the clock back.
        """
        seconds = by.total_seconds() if isinstance(by, timedelta) else by
        with self._lock:
            self._move(self._now + round(seconds * _MICROSECONDS))

    def wait_until_waiting(self, count: int = 1, *, timeout_seconds: float = 10.0) -> None:
        """Wait, in real time, until so many wait for a moment of the clock.

        Args:
            count: how many at least.
            timeout_seconds: how long it may take.

        Raises:
            TimeoutError: it took longer.
        """
        with self._lock:
            if not self._has_changed.wait_for(lambda: len(self._waiting) >= count, timeout_seconds):
                raise TimeoutError(
                    f"{len(self._waiting)} wait on the virtual clock after {timeout_seconds} s, "
                    f"and not {count}"
                )

    def process(self) -> Process:
        """A process whose clock this is."""
        return Process(clock=self._look, sleep=_VirtualSleep(self.doze))

    def watch(self, work: Work) -> None:
        """Nobody who is waited for by this work is believed to wait for the clock."""
        self._works.append(work)

    def forget(self, work: Work) -> None:
        """Of :meth:`watch`; there will be no more of it."""
        self._works.remove(work)

    def doze(self, bell: Bell, seconds: float | None) -> bool:
        """Wait until a bell rings, or so many seconds have gone by on the clock.

        Returns:
            Whether it rang before that.
        """
        if seconds is None:
            return doze_here(bell)
        alarm = _Alarm(bell)
        with self._lock:
            alarm.due = self._now + round(max(0.0, seconds) * _MICROSECONDS)
            if alarm.due <= self._now:
                return False
            self._waiting.append(alarm)
            self._looks += 1
            self._has_changed.notify_all()
        try:
            self._doze(alarm)
        finally:
            with self._lock:
                if alarm in self._waiting:
                    self._waiting.remove(alarm)
        return not alarm.is_over

    def _doze(self, alarm: _Alarm) -> None:
        if not self._jumps:
            doze_here(alarm.bell)
            return
        seen = -1
        quiet_times = 0
        while not doze_here(alarm.bell, _QUIET_SECONDS):
            with self._lock:
                quiet_times = quiet_times + 1 if seen == self._looks else 0
                is_at_work = any(work.is_in_progress for work in self._works)
                if quiet_times >= (_QUIET_TIMES_OF_WORK if is_at_work else _QUIET_TIMES):
                    self._move(min(each.due for each in self._waiting))
                seen = self._looks

    def _move(self, to: int) -> None:
        """Show another time; the caller holds the lock."""
        self._now = to
        self._looks += 1
        over = sorted((each for each in self._waiting if each.due <= to), key=_due)
        for alarm in over:
            self._waiting.remove(alarm)
            alarm.is_over = True
            alarm.bell.ring()

    def _look(self) -> int:
        # Not under the lock: a step too few only makes the clock wait once more.
        self._looks += 1
        return self._now

    def __repr__(self) -> str:
        return f"<VirtualClock {self.now.isoformat()}, {len(self._waiting)} waiting>"


class Work(Protocol):
    """What is done for those whose clock it is, and takes real time."""

    @property
    def is_in_progress(self) -> bool:
        """Whether somebody waits for it."""
        ...


class _Alarm:
    """One who waits for a moment."""

    __slots__ = ("bell", "due", "is_over")

    def __init__(self, bell: Bell) -> None:
        self.bell = bell
        self.due = 0
        self.is_over = False


def _due(alarm: _Alarm) -> int:
    return alarm.due


class _VirtualSleep:
    """The sleep of a process whose clock does not go by itself.

    Args:
        doze: waits for a bell, or for so many seconds to go by.
    """

    def __init__(self, doze: Callable[[Bell, float | None], bool]) -> None:
        self.doze = doze

    def __call__(self, seconds: float) -> None:
        self.doze(Bell(), seconds)
