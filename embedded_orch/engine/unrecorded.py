"""Flow runs of this process whose end could not be written: the disk was full, the server away.

Their state still says that they run, and their process lives, so nobody else may set it right. It
is set right with the end of the run that called them, else before this process runs its next flow.
If there is none, the runs are given up with everything else when the orchestrator is closed.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING

from embedded_orch import errors
from embedded_orch.store import flow_runs
from embedded_orch.store.transitions import crash

if TYPE_CHECKING:
    from uuid import UUID

    from embedded_orch.db.port import Database, Transaction
    from embedded_orch.engine.ownership import Owner
    from embedded_orch.process import Process


class Unrecorded:
    """The flow runs of one orchestrator that have ended, and not on record. Any thread may use it.

    Args:
        database: where they are to be recorded.
        process: its clock and ids.
        owner: whose runs they are.
    """

    def __init__(self, database: Database, process: Process, owner: Owner) -> None:
        self._database = database
        self._process = process
        self._owner = owner
        self._lock = threading.Lock()
        self._runs: dict[UUID, tuple[int, str]] = {}

    def note(self, run_id: UUID, epoch: int, reason: str | None) -> None:
        """A run has ended by an error of the database, or its end was not written for one.

        Args:
            run_id: the run.
            epoch: in which it is this process's.
            reason: of its end, or why that was not written.
        """
        with self._lock:
            self._runs[run_id] = epoch, f"its end could not be written: {reason}"

    def settle(self) -> None:
        """Write down what can be by now; what cannot is kept for the next time."""
        if not self._runs:
            return
        for run_id, (epoch, message) in self._noted():
            if self._owner.has_at_work(run_id):
                # It was resumed here meanwhile, and ends by itself.
                self._forget(run_id, epoch)
                continue
            try:
                self._database.write(
                    partial(self._crash, run_id=run_id, epoch=epoch, message=message)
                )
            except (errors.RunNotFound, errors.OwnershipLost):
                # It was never made, or somebody has resumed it since.
                self._forget(run_id, epoch)
            except errors.DatabaseError:
                # As it was. Whatever is run next is told.
                return
            else:
                self._forget(run_id, epoch)

    def settle_with(self, tx: Transaction) -> None:
        """Write down what there is with the end of a run that called it.

        Once that end is on record another process may resume the caller, and it waits for what was
        called as long as that runs here.
        """
        for run_id, (epoch, message) in self._noted():
            if self._owner.has_at_work(run_id):
                continue
            try:
                self._crash(tx, run_id=run_id, epoch=epoch, message=message)
            except (errors.RunNotFound, errors.OwnershipLost):
                # As above; struck off the next time, when this is known to be committed.
                continue

    def _noted(self) -> list[tuple[UUID, tuple[int, str]]]:
        with self._lock:
            return list(self._runs.items())

    def _crash(self, tx: Transaction, run_id: UUID, epoch: int, message: str) -> None:
        found = flow_runs.get_flow_runs(tx, [run_id])
        if found and found[0].owner_id != self._owner.id:
            # Perhaps the write that failed was the one that would have taken the run, and the
            # epoch is that of somebody else who did.
            raise errors.OwnershipLost(f"flow run {run_id} is another process's by now")
        crash(
            tx,
            "flow_run",
            run_id=run_id,
            new_id=self._process.new_id,
            now=self._process.now(),
            message=message,
            epoch=epoch,
        )

    def _forget(self, run_id: UUID, epoch: int) -> None:
        with self._lock:
            if self._runs.get(run_id, (None,))[0] == epoch:
                del self._runs[run_id]
