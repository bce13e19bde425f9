"""Saying to other hosts that this process lives, for as long as it holds slots or waits for some.

On one host the kernel knows who lives, and nobody needs a lease. On a server that several hosts
share, a host that was switched off is told from one that works by the leases of its claims alone: a
thread renews them all with one statement, several times within the shortest lease.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from embedded_orch import errors
from embedded_orch.db.bell import Bell
from embedded_orch.store import slots

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from embedded_orch.db.port import Database
    from embedded_orch.process import Process

_log = logging.getLogger("embedded_orch.concurrency")

_PERIOD = 15.0
"""Seconds between two renewals: the shortest lease, of a minute, outlives three that fail."""


class Leases:
    """The claims of one engine whose leases are renewed. Any thread may use it.

    Args:
        database: where the claims are.
        process: its clock.
        owner_id: who has them.
    """

    def __init__(self, database: Database, process: Process, owner_id: UUID) -> None:
        self.are_needed = database.dialect == "postgres"
        self._database = database
        self._process = process
        self._owner_id = owner_id
        self._lock = threading.Lock()
        self._kept: dict[UUID, Callable[[], None] | None] = {}
        self._bell = Bell()
        self._thread: threading.Thread | None = None

    def keep(self, claim_id: UUID, on_loss: Callable[[], None] | None = None) -> None:
        """Renew a claim from now on.

        Args:
            claim_id: the claim.
            on_loss: called when other hosts have not heard of it in time, and took its slots.
        """
        if not self.are_needed:
            return
        with self._lock:
            self._kept[claim_id] = on_loss
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._renew_until_none, name="embedded_orch leases", daemon=True
                )
                self._thread.start()

    def forget(self, claim_id: UUID) -> None:
        """Renew a claim no longer."""
        if self.are_needed:
            with self._lock:
                self._kept.pop(claim_id, None)

    def renew(self) -> None:
        """Renew all of them once, and tell those that were lost."""
        now = self._process.now()
        with self._lock:
            asked = dict(self._kept)
        found = self._database.write(lambda tx: slots.renew(tx, owner_id=self._owner_id, now=now))
        for claim_id in asked.keys() - found:
            with self._lock:
                on_loss = self._kept.get(claim_id)
                if on_loss is not None:
                    del self._kept[claim_id]
            if on_loss is not None:
                on_loss()

    def close(self) -> None:
        """Renew nothing any more."""
        with self._lock:
            self._kept.clear()
            thread = self._thread
        self._bell.ring()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _renew_until_none(self) -> None:
        while True:
            self._bell.wait(_PERIOD)
            with self._lock:
                if not self._kept:
                    self._thread = None
                    return
            try:
                self.renew()
            except errors.OrchestratorError as error:
                # The next turn tries again; a lease outlives several of them.
                _log.warning("the leases of slots could not be renewed: %s", error)
