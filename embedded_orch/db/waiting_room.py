"""Who waits in this process for something that others give back, in the order of their coming.

Each waiter has a bell, and is woken at once when what it waits for may have come: no thread or task
polls for what happens in its own process. What other processes do is noticed by the one waiter at
the head, which looks from time to time; those behind it sleep. Where processes can tell each other
(:class:`~embedded_orch.db.port.Hints`) it is woken by that as well, and looks more seldom.
"""

from __future__ import annotations

import threading
from bisect import insort
from operator import attrgetter
from typing import TYPE_CHECKING

from embedded_orch.db.bell import Bell
from embedded_orch.db.handoff import answer_for_running_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from uuid import UUID

    from embedded_orch.db.port import Hints

_HEARD_LOOK = 2.0
"""Seconds between two looks where other processes tell what they do: a hint may get lost."""


class Waiter:
    """One who waits. It is rung from any thread; one thread or task waits on it.

    Args:
        id: its place: earlier ids are served first.
        names: of what it waits for.
        passes: whether it waits for nobody before it.
    """

    __slots__ = ("_is_rung", "_lock", "_wake", "id", "names", "passes")

    def __init__(self, id: UUID, names: tuple[str, ...], *, passes: bool) -> None:
        self.id = id
        self.names = names
        self.passes = passes
        self._lock = threading.Lock()
        self._is_rung = False
        self._wake: Callable[[], None] | None = None

    def ring(self) -> None:
        """Wake it, or let its next wait return at once."""
        with self._lock:
            self._is_rung = True
            wake, self._wake = self._wake, None
        if wake is not None:
            wake()

    def wait(
        self,
        seconds: float | None,
        sleep: Callable[[Bell, float | None], object] = Bell.wait,
    ) -> bool:
        """Sleep until it is rung, or so many seconds; whether it was rung.

        Args:
            seconds: at most; None: as long as it takes.
            sleep: waits for a bell; may be left by an exception.
        """
        bell = Bell()
        if self._listen(bell.ring):
            sleep(bell, seconds)
        return self._take_ring()

    async def wait_async(self, seconds: float | None) -> bool:
        """:meth:`wait` without blocking the event loop."""
        import anyio

        answer = answer_for_running_loop()
        if self._listen(answer.notify):
            with anyio.move_on_after(seconds):
                await answer.wait()
        return self._take_ring()

    def _listen(self, wake: Callable[[], None]) -> bool:
        with self._lock:
            self._wake = wake
            return not self._is_rung

    def _take_ring(self) -> bool:
        with self._lock:
            was_rung, self._is_rung = self._is_rung, False
            self._wake = None
            return was_rung

    def __repr__(self) -> str:
        return f"<Waiter for {', '.join(self.names)}>"


_place = attrgetter("id")


class WaitingRoom:
    """All who wait in this process for something of one database. Any thread may use it.

    Args:
        hints: by which rooms of other processes are told, and heard; None where they are not.
    """

    __slots__ = ("_hints", "_is_listening", "_lock", "_queues")

    def __init__(self, hints: Hints | None = None) -> None:
        self._lock = threading.Lock()
        self._queues: dict[str, list[Waiter]] = {}
        self._hints = hints
        self._is_listening = False

    def enter(self, waiter: Waiter) -> None:
        """Begin to wait."""
        self._listen()
        with self._lock:
            for name in waiter.names:
                insort(self._queues.setdefault(name, []), waiter, key=_place)

    def leave(self, waiter: Waiter) -> None:
        """Wait no longer, and wake those who have come to the head by that."""
        with self._lock:
            for name in waiter.names:
                queue = self._queues.get(name, [])
                if waiter in queue:
                    queue.remove(waiter)
                if not queue:
                    self._queues.pop(name, None)
        self.ring_here(waiter.names)

    def is_at_head(self, waiter: Waiter) -> bool:
        """Whether nobody here has to be served before it."""
        with self._lock:
            return waiter.passes or all(
                self._queues[name][0] is waiter for name in waiter.names if name in self._queues
            )

    def ring(self, names: Iterable[str]) -> None:
        """Something of these names was given back or has changed: also in other processes."""
        names = tuple(names)
        if self._hints is not None:
            self._hints.tell(names)
        self.ring_here(names)

    def longest_look(self, unheard_seconds: float) -> float:
        """Seconds between two looks at what other processes do, in the long run.

        Args:
            unheard_seconds: what they are where nobody tells.
        """
        is_heard = self._hints is not None and self._hints.is_heard
        return max(unheard_seconds, _HEARD_LOOK) if is_heard else unheard_seconds

    def _listen(self) -> None:
        """Hear what other processes tell, from the first time on that somebody waits."""
        if self._hints is None or self._is_listening:
            return
        with self._lock:
            is_first, self._is_listening = not self._is_listening, True
        if is_first:
            self._hints.listen(self.ring_here)

    def ring_here(self, names: Iterable[str] | None) -> None:
        """Wake those who wait in this process; None: for whatever they wait."""
        with self._lock:
            if not self._queues:
                return
            woken = [
                waiter
                for name in (self._queues if names is None else names)
                for place, waiter in enumerate(self._queues.get(name, ()))
                if place == 0 or waiter.passes
            ]
        for waiter in woken:
            waiter.ring()

    def __repr__(self) -> str:
        return f"<WaitingRoom {sorted(self._queues)}>"
