"""Who runs what: this process as an owner of runs, and what becomes of the runs of dead owners.

A process writes itself down with its first run, and holds a byte of the life file beside the
database locked for as long as it lives. So whoever opens the database knows at once which owners
have died, without a time-out.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING

from embedded_orch.db.bell import Bell
from embedded_orch.db.liveness import LifeLock, is_alive, process_facts
from embedded_orch.engine.effects import Read, Write, drive
from embedded_orch.store import processes
from embedded_orch.store.processes import ProcessRow

if TYPE_CHECKING:
    from uuid import UUID

    from embedded_orch.db.port import Database, Transaction
    from embedded_orch.engine.cancellation import Cancellation
    from embedded_orch.engine.effects import Steps
    from embedded_orch.process import Process

# The random tail of an id: no two owners of one life file share a byte.
_SLOT_BITS = 62
# Runs of one dead owner that are set in one transaction.
_BATCH = 500


class Owner:
    """One orchestrator as the owner of its runs. Any thread may use it.

    Args:
        database: where its runs are.
        process: its clock and ids.
        life_path: the life file; None for a database that no other process can open.
    """

    def __init__(self, database: Database, process: Process, life_path: str | None) -> None:
        self.id: UUID = process.new_id()
        self._database = database
        self._process = process
        self._life_path = life_path
        self._life: LifeLock | None = None
        self._row: ProcessRow | None = None
        self._registering = threading.Lock()
        self._known_dead: set[UUID] = set()
        self._running: dict[UUID, list[Cancellation]] = {}
        self._idle_bells: list[Bell] = []
        self._counting = threading.Lock()

    @property
    def is_alone(self) -> bool:
        """Whether no other process can open the database."""
        return self._life_path is None

    @property
    def has_run(self) -> bool:
        """Whether it has taken a run, so that it is written down."""
        return self._row is not None

    def register(self, tx: Transaction) -> None:
        """Write this process down, in the transaction of a run that it takes.

        Every time, and nothing happens when it is there: the transaction that wrote it first may
        have been a user's, and rolled back.
        """
        processes.register(tx, self._as_row(), now=self._process.now())

    def begin(self, run_id: UUID, cancellation: Cancellation) -> None:
        """This owner is about to take a run, and to run it; it ends early by the cancellation."""
        with self._counting:
            self._running.setdefault(run_id, []).append(cancellation)

    def finish(self, run_id: UUID, cancellation: Cancellation) -> None:
        """This owner runs it no longer, or could not take it."""
        with self._counting:
            self._running[run_id].remove(cancellation)
            if not self._running[run_id]:
                del self._running[run_id]
            if not self._running:
                for bell in self._idle_bells:
                    bell.ring()

    def cancel_all(self, reason: str) -> None:
        """Have every run end early that is being run."""
        with self._counting:
            running = [each for several in self._running.values() for each in several]
        for cancellation in running:
            cancellation.request(reason)

    def wait_until_idle(self) -> None:
        """Wait until no run is being run."""
        bell = Bell()
        with self._counting:
            if not self._running:
                return
            self._idle_bells.append(bell)
        try:
            bell.wait()
        finally:
            with self._counting:
                self._idle_bells.remove(bell)

    def has_at_work(self, run_id: UUID) -> bool:
        """Whether this owner runs a run now."""
        return run_id in self._running

    def is_running(self, run_id: UUID, owner: ProcessRow) -> bool:
        """Whether a run is being run by the owner that it names.

        A run of this owner whose last state could not be recorded is not.
        """
        return run_id in self._running if owner.id == self.id else self.is_alive(owner)

    def sweep(self) -> int:
        """Write down which owners have died, and set their runs Crashed; how many were set.

        Runs that ask for it (``on_crash="resume"``) stay as they are, to be resumed. Idempotent:
        several processes may do it at once, and each may stop anywhere.
        """
        return drive(self.sweeping())

    def sweeping(self) -> Steps[int]:
        """The steps of :meth:`sweep`."""
        rows: list[ProcessRow] = yield Read(self._database, processes.not_ended)
        total = 0
        for row in rows:
            if row.id != self.id and not self.is_alive(row):
                total += yield from self._bury(row)
        return total

    def is_alive(self, other: ProcessRow) -> bool:
        """Whether another owner lives, as far as can be known from here."""
        if other.id == self.id:
            return True
        if other.id in self._known_dead:
            return False
        mine = self._facts()
        if self._life_path is None:
            # Nobody else can open this database; its owners are in this process, and say goodbye.
            return True
        if other.host == mine.host and other.boot_id != mine.boot_id:
            # This machine, before its last start.
            return False
        if other.life_file != mine.life_file:
            # On a file: this is a copy, and the owner runs its own. On a server: another host.
            return self._database.dialect != "sqlite"
        if other.life_slot is not None:
            answer = is_alive(self._life_path, other.life_slot)
            if answer is not None:
                return answer
        return other.host != mine.host or _pid_lives(other.pid)

    def end(self) -> None:
        """Say goodbye: what this owner was running and did not finish is crashed."""
        try:
            if self._row is not None:
                drive(self._bury(self._row))
        finally:
            # Also when that could not be written down: whoever looks next finds it dead.
            self.release()

    def release(self) -> None:
        """Be dead to whoever looks from now on."""
        if self._life is not None:
            self._life.release()

    def know_dead(self, other: Owner) -> None:
        """Another owner of this process went away without a word, as only tests have it."""
        self._known_dead.add(other.id)

    def _bury(self, row: ProcessRow) -> Steps[int]:
        message = f"the process that ran it died (pid {row.pid} on {row.host})"
        if row.id == self.id:
            message = "the orchestrator was closed while it ran"
        total = 0
        count = _BATCH
        while count == _BATCH:
            count = yield self._burying_some(row, message)
            total += count
        return total

    def _burying_some(self, row: ProcessRow, message: str) -> Write[int]:
        now = self._process.now()
        return Write(
            self._database,
            lambda tx: processes.bury(
                tx,
                id=row.id,
                now=now,
                new_id=self._process.new_id,
                message=message,
                limit=_BATCH,
            ),
        )

    def _as_row(self) -> ProcessRow:
        with self._registering:
            if self._row is None:
                slot = self.id.int & ((1 << _SLOT_BITS) - 1)
                if self._life_path is not None:
                    self._life = LifeLock(self._life_path, slot)
                self._row = self._facts()
            return self._row

    def _facts(self) -> ProcessRow:
        facts = process_facts()
        return ProcessRow(
            id=self.id,
            host=f"{facts.host}{_machine()}",
            boot_id=facts.boot_id,
            pid=facts.pid,
            pid_started=facts.start_ticks,
            life_file=_identity(self._life_path),
            life_slot=self.id.int & ((1 << _SLOT_BITS) - 1),
        )


def _machine() -> str:
    """What tells two machines of one name apart, where there is something: systemd's machine id."""
    try:
        with open("/etc/machine-id", encoding="ascii") as file:
            return f"/{file.read(12).strip()}"
    except (OSError, UnicodeDecodeError):
        # No such file here: the name has to do.
        return ""


def _identity(path: str | None) -> str | None:
    """Device and inode of the life file, which tell it from one that was copied."""
    if path is None:
        return None
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return f"{found.st_dev}:{found.st_ino}"


def _pid_lives(pid: int) -> bool:
    """Whether a process has this pid; where locks cannot tell, the best there is."""
    if sys.platform == "win32":
        # There, a signal 0 is no question: it stops the process. Nobody is taken for dead.
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        # It exists, and is another user's.
        return True
    return True
