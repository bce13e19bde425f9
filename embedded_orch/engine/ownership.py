"""Who runs what: this process as an owner of runs, and whether another owner lives.

A process writes itself down with its first run, and holds a byte of the life file beside the
database locked for as long as it lives. So whoever opens the database under the same kernel knows
at once which owners have died, without a time-out. On a server that several hosts share, an owner
of another host is told by its lease, which it renews (:mod:`embedded_orch.engine.leases`).
"""

from __future__ import annotations

import enum
import os
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from embedded_orch.db.bell import Bell
from embedded_orch.db.current import scope_for
from embedded_orch.db.liveness import LifeLock, is_alive
from embedded_orch.process import start_ticks_of
from embedded_orch.store import processes
from embedded_orch.store.processes import ProcessRow

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from embedded_orch.db.port import Database, Transaction
    from embedded_orch.engine.cancellation import Cancellation
    from embedded_orch.process import Process

# The random tail of an id: no two owners of one life file share a byte.
_SLOT_BITS = 62
_MICROSECONDS = 1_000_000


class Life(enum.Enum):
    """What is known of an owner."""

    ALIVE = "alive"
    DEAD = "dead"
    OVERDUE = "overdue"
    """It has not been heard of for the length of its lease: dead, until it is heard of again."""


class Owner:
    """One orchestrator as the owner of its runs. Any thread may use it.

    Args:
        database: where its runs are.
        process: its clock and ids.
        life_path: the life file; None for a database that no other process can open.
        lease_seconds: how long other hosts believe in it unheard; None where there are none.
    """

    def __init__(
        self,
        database: Database,
        process: Process,
        life_path: str | None,
        *,
        lease_seconds: float | None = None,
    ) -> None:
        self.id: UUID = process.new_id()
        self._slot = self.id.int & ((1 << _SLOT_BITS) - 1)
        self.on_registered: Callable[[], None] | None = None
        self._lease = None if lease_seconds is None else round(lease_seconds * _MICROSECONDS)
        self._is_confirmed = False
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

    def ensure_registered(self, tx: Transaction) -> None:
        """:meth:`register`, unless it is known that this process is written down."""
        if not self._is_confirmed:
            self.register(tx)

    def confirm(self) -> None:
        """A transaction of this thread or task that registered has returned.

        It is committed by that, unless it is part of a user's, which ends later.
        """
        if not self._is_confirmed and self._row is not None:
            self._is_confirmed = scope_for(self._database) is None

    def renew(self, tx: Transaction) -> bool:
        """Say to other hosts that this process lives; whether they have believed it until now.

        One that was taken for dead is back by this; what it ran then is not its own any more.
        """
        row = self._row
        if row is None or processes.renew(tx, id=row.id, now=self._process.now()):
            return True
        self._is_confirmed = False
        self.register(tx)
        return False

    def begin(self, run_id: UUID, cancellation: Cancellation) -> None:
        """This owner is about to take a run, and to run it; it ends early by the cancellation."""
        with self._counting:
            self._running.setdefault(run_id, []).append(cancellation)

    def finish(self, run_id: UUID, cancellation: Cancellation) -> None:
        """This owner runs it no longer, or could not take it."""
        cancellation.let_go()
        with self._counting:
            ours = self._running[run_id]
            ours.remove(cancellation)
            if not ours:
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

    def is_alive(self, other: ProcessRow) -> bool:
        """Whether another owner lives, as far as can be known from here."""
        return self.life_of(other) is Life.ALIVE

    def life_of(self, other: ProcessRow) -> Life:
        """What can be known of another owner from here.

        Args:
            other: as it was read; whether its lease is over was read with it.
        """
        if other.id in self._known_dead:
            return Life.DEAD
        if other.id == self.id or self._life_path is None:
            # In memory, owners are in this process, and say goodbye.
            return Life.ALIVE
        mine = self._row or self._facts()
        is_on_file = self._database.dialect == "sqlite"
        if other.host == mine.host and other.boot_id != mine.boot_id:
            # This machine, before its last start.
            return Life.DEAD
        if other.life_file == mine.life_file and (is_on_file or other.boot_id == mine.boot_id):
            return Life.ALIVE if self._is_seen(other, mine) else Life.DEAD
        if is_on_file:
            # This is a copy of the file, and the owner runs its own.
            return Life.DEAD
        return Life.OVERDUE if other.is_overdue else Life.ALIVE

    def _is_seen(self, other: ProcessRow, mine: ProcessRow) -> bool:
        """Whether an owner under this kernel lives, with the same life file."""
        assert self._life_path is not None
        if other.life_slot is not None:
            answer = is_alive(self._life_path, other.life_slot)
            if answer is not None:
                return answer
        return other.host != mine.host or _pid_lives(other.pid, other.pid_started)

    def know_dead(self, other: Owner) -> None:
        """Another owner of this process went away without a word, as only tests have it."""
        self._known_dead.add(other.id)

    @property
    def row(self) -> ProcessRow | None:
        """This owner as it is written down; None as long as it has run nothing."""
        return self._row

    def release(self) -> None:
        """Be dead to whoever looks from now on."""
        if self._life is not None:
            self._life.release()

    def _as_row(self) -> ProcessRow:
        with self._registering:
            if self._row is None:
                # Each step may be taken again by who comes next, and the row is the last: an
                # interrupt may come between any two.
                if self._life_path is not None:
                    if self._life is None:
                        self._life = LifeLock(self._life_path, self._slot)
                    self._life.take()
                row = self._facts()
                if self.on_registered is not None:
                    self.on_registered()
                self._row = row
            return self._row

    def _facts(self) -> ProcessRow:
        facts = self._process.facts()
        return ProcessRow(
            id=self.id,
            host=facts.host,
            boot_id=facts.boot_id,
            pid=facts.pid,
            pid_started=facts.start_ticks,
            life_file=_identity(self._life_path),
            life_slot=self._slot,
            lease=self._lease,
        )


def _identity(path: str | None) -> str | None:
    """Device and inode of the life file, which tell it from one that was copied."""
    if path is None:
        return None
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return f"{found.st_dev}:{found.st_ino}"


def _pid_lives(pid: int, started: int | None) -> bool:
    """Whether the process that had this pid lives; where locks cannot tell, the best there is.

    Args:
        pid: of the process.
        started: when it began, in clock ticks after boot; None where that is not known.
    """
    if sys.platform == "win32":
        # There, a signal 0 is no question: it stops the process. Nobody is taken for dead.
        return True
    try:
        # Refused where it exists, and is another user's.
        with suppress(PermissionError):
            os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # The pid may be another process's by now.
    return started is None or start_ticks_of(pid) in (None, started)
