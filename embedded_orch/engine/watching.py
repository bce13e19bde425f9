"""Noticing that somebody wants a run that is at work here to stop.

Whoever moves a run in this process rings; what other processes do to it is noticed by looking, from
one thread that looks more and more seldom, twice a second at least, and is there only while runs
are at work. Where processes can tell each other, as on Postgres, they do, and it looks more seldom
still. Where no other process can open the database nobody has to look. Tasks take no part.

A run that is to be cancelled is interrupted, and what it submitted with it. What is blocked in C
cannot be: it keeps the run CANCELLING until it returns, and is named there.
"""

from __future__ import annotations

import logging
import threading
from time import monotonic
from typing import TYPE_CHECKING

from embedded_orch import errors
from embedded_orch.db.bell import Bell
from embedded_orch.db.waiting_room import Waiter
from embedded_orch.orchestration.values import Proposal
from embedded_orch.states import StateType
from embedded_orch.store import flow_runs

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from embedded_orch.db.port import Database
    from embedded_orch.db.waiting_room import WaitingRoom
    from embedded_orch.engine.cancellation import Cancellation
    from embedded_orch.process import Process

_log = logging.getLogger("embedded_orch.engine")

_FIRST_LOOK = 0.05
_LAST_LOOK = 0.5
"""Seconds between two looks at what other processes do: the first, and the longest where nobody
tells."""
_IDLE_SECONDS = 5.0
"""How long the thread stays when nothing is at work."""
_PATIENCE_SECONDS = 3.0
"""How long what was cancelled may take before it is said what it waits for."""
_TO_CANCEL = frozenset({StateType.CANCELLING, StateType.CANCELLED})
_MOVED = "moved"


def tell_moved(room: WaitingRoom, run_id: UUID) -> None:
    """Tell those in this process who wait for it that a flow run has another state."""
    room.ring((_MOVED, place_of(run_id)))


def place_of(run_id: UUID) -> str:
    """The name under which one waits for a move of a flow run."""
    return f"{_MOVED} {run_id}"


class Watch:
    """The flow runs at work in one engine. Any thread may use it.

    Args:
        database: where the runs are.
        process: its clock and ids.
        room: where it is told of moves in this process.
        is_alone: whether no other process can move them.
        after_look: what else is to be done from time to time where others can.
    """

    def __init__(
        self,
        database: Database,
        process: Process,
        room: WaitingRoom,
        *,
        is_alone: bool,
        after_look: Callable[[], object],
    ) -> None:
        self._database = database
        self._process = process
        self._room = room
        self._is_alone = is_alone
        self._after_look = after_look
        self._lock = threading.Lock()
        self._works: dict[UUID, Cancellation] = {}
        # When each was seen to be cancelled, on the monotonic clock; until it is said what of it
        # is blocked.
        self._cancelled: dict[UUID, float] = {}
        self._bell = Bell()
        self._ear: _Ear | None = None
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def add(self, work: Cancellation) -> None:
        """A run begins its work."""
        with self._lock:
            self._works[work.run_id] = work
            if self._ear is None:
                self._ear = _Ear(self._process.new_id(), self.wake)
                self._room.enter(self._ear)
            if not self._is_alone:
                self._start()

    def discard(self, work: Cancellation) -> None:
        """A run has ended its work."""
        with self._lock:
            self._works.pop(work.run_id, None)
            if self._cancelled:
                # Rarely; what is looked up is hashed by code of Python's.
                self._cancelled.pop(work.run_id, None)

    def wake(self) -> None:
        """A run was moved in this process: look now."""
        with self._lock:
            if self._works:
                self._start()
        self._bell.ring()

    def look(self) -> None:
        """See which of the runs are to stop, and stop them."""
        with self._lock:
            works = dict(self._works)
        if not works:
            return
        epochs = {run_id: work.epoch for run_id, work in works.items()}
        moved = self._database.read(lambda tx: flow_runs.moved_among(tx, epochs))
        for run_id in works.keys() - {run.id for run in moved}:
            # Perhaps it was suspended, and resumed before it came to a task.
            works[run_id].suspension = None
        for run in moved:
            work, state = works[run.id], run.state
            if run.epoch > work.epoch:
                # Whatever it writes is refused, and its flow ends by that.
                work.request("its run was taken over by another process")
                self._room.ring((place_of(run.id),))
                continue
            assert state is not None, "it was found by its state"
            if run.epoch < work.epoch:
                # It is about to be taken over, from what it was before.
                continue
            work.suspension = state if state.state_details.pause_reschedule else None
            if state.type not in _TO_CANCEL:
                continue
            with self._lock:
                if run.id in self._works and not work.is_requested:
                    self._cancelled[run.id] = monotonic()
            work.request("cancelled")
            # It may wait for its retry, or be paused, and be moved by another process.
            self._room.ring_here((place_of(run.id),))
        self._name_what_is_blocked(works)

    def close(self) -> None:
        """Watch nothing any more."""
        with self._lock:
            self._is_closed = True
            self._works.clear()
            ear, thread = self._ear, self._thread
        if ear is not None:
            self._room.leave(ear)
        self._bell.ring()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _start(self) -> None:
        """Have the thread run; the caller holds the lock."""
        if self._thread is None and not self._is_closed:
            thread = threading.Thread(target=self._run, name="embedded_orch watch", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                # The interpreter exits, and a thread of the user's still runs a flow: until it has
                # ended, what other processes want of it is not seen.
                return
            self._thread = thread

    def _run(self) -> None:
        pause = _FIRST_LOOK
        while True:
            is_rung = self._bell.wait(self._seconds_to_sleep(pause))
            if not is_rung and self._leaves():
                return
            if self._is_closed:
                return
            longest = self._room.longest_look(_LAST_LOOK)
            pause = _FIRST_LOOK if is_rung else min(pause * 1.6, longest)
            try:
                self.look()
                self._after_look()
            except errors.OrchestratorError as error:
                # The next turn looks again.
                _log.warning("whether runs are to stop could not be looked up: %s", error)

    def _seconds_to_sleep(self, pause: float) -> float:
        with self._lock:
            if not self._works:
                return _IDLE_SECONDS
            if self._is_alone:
                return _PATIENCE_SECONDS
            return pause

    def _leaves(self) -> bool:
        with self._lock:
            if self._works and (self._cancelled or not self._is_alone):
                return False
            self._thread = None
            return True

    def _name_what_is_blocked(self, works: dict[UUID, Cancellation]) -> None:
        now = monotonic()
        with self._lock:
            late = [
                works[run_id]
                for run_id, since in self._cancelled.items()
                if run_id in works and now - since >= _PATIENCE_SECONDS
            ]
            for work in late:
                # Once for each.
                del self._cancelled[work.run_id]
        for work in late:
            names = ", ".join(work.blocked())
            if names:
                self._write_down(work, names)

    def _write_down(self, work: Cancellation, names: str) -> None:
        message = (
            f"waits for {names}, which is blocked and cannot be interrupted before it returns to "
            f"Python"
        )
        _log.warning("flow run %s is being cancelled, and %s", work.name, message)
        now = self._process.now()
        proposal = Proposal(
            id=self._process.new_id(),
            type=StateType.CANCELLING,
            name="Cancelling",
            timestamp=now,
            message=message,
        )
        self._database.write(
            lambda tx: flow_runs.note_cancelling(tx, run_id=work.run_id, proposal=proposal, now=now)
        )

    def __repr__(self) -> str:
        return f"<Watch of {len(self._works)} flow runs>"


class _Ear(Waiter):
    """Hears in the waiting room that a run was moved."""

    __slots__ = ("_heard",)

    def __init__(self, id: UUID, heard: Callable[[], None]) -> None:
        super().__init__(id, (_MOVED,), passes=True)
        self._heard = heard

    def ring(self) -> None:
        """Pass it on."""
        self._heard()
