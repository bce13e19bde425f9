"""Finding owners that are gone, and setting right what they left.

Whoever opens a database does it, and every loop that waits for something others may never do: for a
slot, for a lock, for a pause to end, for a cancellation, for the next renewal of a lease. The work
itself is done in transactions that may be killed anywhere and done by several at once
(:mod:`embedded_orch.store.recovering`).
"""

from __future__ import annotations

import logging
import threading
from time import monotonic
from typing import TYPE_CHECKING

from embedded_orch import errors
from embedded_orch.engine.effects import Read, Write, drive
from embedded_orch.engine.ownership import Life
from embedded_orch.store import processes
from embedded_orch.store.recovering import NOTHING, Recovered, bury

if TYPE_CHECKING:
    from embedded_orch.db.port import Database
    from embedded_orch.engine.effects import Steps
    from embedded_orch.engine.ownership import Owner
    from embedded_orch.process import Process
    from embedded_orch.store.processes import ProcessRow

_log = logging.getLogger("embedded_orch.ownership")

BATCH = 500
"""Runs of one dead owner that are set in one transaction."""
_PERIOD = 1.0
"""Seconds between two looks of the loops that turn more often than that."""
_CLOSED = "the orchestrator was closed while it ran"


class Recovery:
    """What one engine does about owners that are gone. Any thread may use it.

    Args:
        database: where the owners are.
        process: its clock and ids.
        owner: who looks.
    """

    def __init__(self, database: Database, process: Process, owner: Owner) -> None:
        self._database = database
        self._process = process
        self._owner = owner
        self._last_look = monotonic()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_closed = False

    # -- looking ---------------------------------------------------------------------------------

    def sweep(self) -> Recovered:
        """Set right what all dead owners left; see :meth:`sweeping`."""
        return drive(self.sweeping())

    def sweeping(self) -> Steps[Recovered]:
        """Find the owners that are dead, and set right what they left; what was done.

        Runs that ask for it (``on_crash="resume"``) stay as they are, to be resumed. Idempotent:
        several processes may do it at once, and each may stop anywhere.
        """
        self._last_look = monotonic()
        rows: list[ProcessRow] = yield Read(self._database, processes.not_ended)
        found = NOTHING
        for row in rows:
            found += yield from self.burying(row)
        return found

    def sweeping_when_due(self) -> Steps[None]:
        """:meth:`sweeping`, for a loop: once a second, and what fails is tried again then."""
        if self._is_due():
            try:
                yield from self.sweeping()
            except errors.OrchestratorError as error:
                self._tell(error)

    def sweep_when_due(self) -> None:
        """:meth:`sweeping_when_due` in this thread."""
        drive(self.sweeping_when_due())

    def burying(self, row: ProcessRow) -> Steps[Recovered]:
        """Set right what an owner left, if it is dead; what was done."""
        life = Life.ALIVE if row.id == self._owner.id else self._owner.life_of(row)
        found, is_left = NOTHING, life is not Life.ALIVE
        while is_left:
            done, is_left = yield self._burying_some(row, life, BATCH)
            found += done
        return found

    # -- at the beginning and at the end ---------------------------------------------------------

    def begin(self, *, at_once: bool) -> None:
        """Set right what dead owners left, when the database is opened.

        Args:
            at_once: whether as much as one transaction holds is done before this returns. The rest,
                or all of it, is done by a thread, and nobody waits for it.
        """
        rows = self._database.read(processes.not_ended)
        dead = [(row, life) for row in rows if (life := self._owner.life_of(row)) is not Life.ALIVE]
        room = BATCH if at_once else 0
        while dead and room > 0:
            row, life = dead[0]
            done, is_left = self._burying_some(row, life, room).perform()
            room -= len(done.crashed) + len(done.put_back) + len(done.task_runs)
            if not is_left:
                dead.pop(0)
        if dead:
            self._go_on_in_thread()

    def give_up(self) -> None:
        """Say goodbye: what this owner was running and did not finish is crashed."""
        row, is_left = self._owner.row, True
        while row is not None and is_left:
            _, is_left = self._burying_some(row, None, BATCH).perform()

    def close(self) -> None:
        """Look no more."""
        with self._lock:
            self._is_closed = True
            thread = self._thread
        if thread is not None:
            thread.join()

    def _go_on_in_thread(self) -> None:
        with self._lock:
            if self._is_closed:
                return
            self._thread = threading.Thread(
                target=self._sweep_until_closed, name="embedded_orch recovery", daemon=True
            )
            self._thread.start()

    def _sweep_until_closed(self) -> None:
        try:
            steps = self.sweeping()
            effect = next(steps)
            while not self._is_closed:
                effect = steps.send(effect.perform())
        except StopIteration:
            return
        except errors.OrchestratorError as error:
            self._tell(error)

    # -- one transaction -------------------------------------------------------------------------

    def _burying_some(
        self, row: ProcessRow, life: Life | None, limit: int
    ) -> Write[tuple[Recovered, bool]]:
        """A transaction that buries an owner; None for the life of this one, which says goodbye."""
        now, new_id = self._process.now(), self._process.new_id
        message = _CLOSED if life is None else death_of(row, life)
        return Write(
            self._database,
            lambda tx: bury(
                tx,
                id=row.id,
                epoch=None if life is None else row.epoch,
                now=now,
                new_id=new_id,
                message=message,
                limit=limit,
                is_by_lease=life is Life.OVERDUE,
            ),
        )

    def _is_due(self) -> bool:
        if self._owner.is_alone or monotonic() - self._last_look < _PERIOD:
            return False
        self._last_look = monotonic()
        return True

    def _tell(self, error: errors.OrchestratorError) -> None:
        _log.warning("what dead processes left could not be set right now: %s", error)

    def __repr__(self) -> str:
        return f"<Recovery of {self._database.url}>"


def death_of(row: ProcessRow, life: Life) -> str:
    """How an owner is known to be dead, in words."""
    if life is Life.OVERDUE:
        return (
            f"the process that ran it was not heard of for the length of its lease (pid {row.pid} "
            f"on {row.host})"
        )
    return f"the process that ran it died (pid {row.pid} on {row.host})"
