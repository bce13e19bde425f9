"""Saying to other hosts that this process lives, and keeps what it holds.

On one host the kernel knows who lives, and nobody needs a lease. On a server that several hosts
share, a host that was switched off is told from one that works by leases alone: that of its
process, with which its runs end, and those of its claims on slots. A thread that sleeps in between
renews them all in one transaction, several times within the shortest lease. It is there from the
moment in which the process writes itself down, which it does with its first run, until it is
closed.
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

    from embedded_orch.db.port import Database, Transaction
    from embedded_orch.engine.ownership import Owner
    from embedded_orch.process import Process

_log = logging.getLogger("embedded_orch.ownership")

_LONGEST_PERIOD = 15.0
"""Seconds between two renewals at most: the lease of a claim, a minute at least, outlives three
that fail."""
_RENEWALS = 4
"""How often the lease of the process is renewed within its length."""


class Leases:
    """The leases of one engine: of its process, and of its claims. Any thread may use it.

    Args:
        database: where they are.
        process: its clock.
        owner: who has them.
        lease_seconds: how long that of the process is; None where nobody needs one.
        after_renewal: what else is to be done from time to time.
    """

    def __init__(
        self,
        database: Database,
        process: Process,
        owner: Owner,
        *,
        lease_seconds: float | None,
        after_renewal: Callable[[], object],
    ) -> None:
        self.are_needed = lease_seconds is not None
        self._period = min(_LONGEST_PERIOD, (lease_seconds or _LONGEST_PERIOD) / _RENEWALS)
        self._database = database
        self._process = process
        self._owner = owner
        self._after_renewal = after_renewal
        self._lock = threading.Lock()
        self._kept: dict[UUID, Callable[[], None] | None] = {}
        self._bell = Bell()
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Renew from now on, until it is closed."""
        with self._lock:
            if not self.are_needed or self._is_closed or self._thread is not None:
                return
            thread = threading.Thread(
                target=self._renew_until_closed, name="embedded_orch leases", daemon=True
            )
            thread.start()
            # Not before it runs: if it is interrupted here there are two, which does no harm.
            self._thread = thread

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
        self.start()

    def forget(self, claim_id: UUID) -> None:
        """Renew a claim no longer."""
        if self.are_needed:
            with self._lock:
                self._kept.pop(claim_id, None)

    def renew(self) -> None:
        """Renew all of them once, and tell the claims that were lost."""
        now, owner = self._process.now(), self._owner
        with self._lock:
            asked = dict(self._kept)

        def operation(tx: Transaction) -> tuple[bool, set[UUID]]:
            return owner.renew(tx), slots.renew(tx, owner_id=owner.id, now=now)

        was_believed, found = self._database.write(operation)
        if not was_believed:
            _log.error(
                "this process was not heard of for the length of its lease, and another host took "
                "the runs that it ran: they end here with OwnershipLost"
            )
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
            self._is_closed = True
            self._kept.clear()
            thread = self._thread
        self._bell.ring()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _renew_until_closed(self) -> None:
        while True:
            self._bell.wait(self._period)
            if self._is_closed:
                return
            try:
                self.renew()
                self._after_renewal()
            except errors.OrchestratorError as error:
                # The next turn tries again; a lease outlives several of them.
                _log.warning("leases could not be renewed: %s", error)

    def __repr__(self) -> str:
        return f"<Leases of {self._owner.id}: {len(self._kept)} claims>"
