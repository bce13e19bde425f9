"""What runs flows and tasks on one database: its connection, its clock, its ownership of runs."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from embedded_orch.db.waiting_room import WaitingRoom
from embedded_orch.engine import log_settings, results
from embedded_orch.engine.keeping import kept_in
from embedded_orch.engine.leases import Leases
from embedded_orch.engine.log_queue import LogQueue
from embedded_orch.engine.ownership import Owner
from embedded_orch.engine.recovering import Recovery
from embedded_orch.engine.unrecorded import Unrecorded
from embedded_orch.engine.upkeep import Upkeep
from embedded_orch.engine.watching import Watch
from embedded_orch.orchestration.values import Proposal
from embedded_orch.states import StateType
from embedded_orch.store import task_runs

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal
    from uuid import UUID

    from embedded_orch.db.port import Database
    from embedded_orch.process import Process
    from embedded_orch.states import State
    from embedded_orch.store.slots import Claim

    Moment = Literal["before", "after"]

_log = logging.getLogger("embedded_orch.engine")


class Engine:
    """One orchestrator's engine. Any thread may use it until it is closed.

    Args:
        database: where runs are recorded.
        process: its clock, ids and sleep.
        life_path: the file whose locks tell which owners live; None where nobody else can look.
        room: where those wait who want slots of its concurrency limits; a new one when not given.
        retention: how long runs are kept; see :func:`embedded_orch.engine.retention.retention_of`.
        lease_seconds: how long other hosts believe in its process unheard; None where there are
            none.

    Attributes:
        on_call: is told the name of each flow and task "before" and "after" its function is called,
            for tests; None for nobody.
        unreturned: claims on slots that could not be given back when their time came, by id.
    """

    def __init__(
        self,
        database: Database,
        process: Process,
        life_path: str | None,
        *,
        room: WaitingRoom | None = None,
        retention: object = None,
        lease_seconds: float | None = None,
    ) -> None:
        self.database = database
        self.process = process
        self.on_call: Callable[[str, Moment], object] | None = None
        self.kept = kept_in(database.places)
        self.owner = Owner(database, process, life_path, lease_seconds=lease_seconds)
        self.recovery = Recovery(database, process, self.owner)
        self.room = room or WaitingRoom()
        self.unreturned: dict[UUID, Claim] = {}
        self.leases = Leases(
            database,
            process,
            self.owner,
            lease_seconds=lease_seconds,
            after_renewal=self.recovery.sweep_when_due,
        )
        self.owner.on_registered = self.leases.start
        self.watch = Watch(
            database,
            process,
            self.room,
            is_alone=self.owner.is_alone,
            after_look=self.recovery.sweep_when_due,
        )
        self.unrecorded = Unrecorded(database, process, self.owner)
        self.upkeep = Upkeep(database, process, retention)
        self.logs = LogQueue(database, process, lines_per_second=log_settings.lines_per_second())

    def task_run_state(self, run_id: UUID) -> State:
        """The state that a task run is in; Pending as long as there is nothing of it on record."""
        found = self.database.read(lambda tx: task_runs.get_task_runs(tx, [run_id]))
        if found and found[0].state is not None:
            return found[0].state
        process = self.process
        return results.state_of(
            Proposal(
                id=process.new_id(), type=StateType.PENDING, name="Pending", timestamp=process.now()
            )
        )

    def close(self) -> None:
        """Give up what it owns, after what was logged."""
        try:
            self.logs.close()
        finally:
            self.upkeep.close(has_run=self.owner.has_run)
            self.watch.close()
            self.leases.close()
            self.recovery.close()
            try:
                self.recovery.give_up()
            finally:
                # Also when that could not be written down: whoever looks next finds it dead.
                self.owner.release()
            if self.owner.has_run:
                self._remove_unused_files()

    def _remove_unused_files(self) -> None:
        folder = self.database.result_folder
        if folder is not None and folder.is_there:
            from embedded_orch.engine.unused_files import remove_some

            try:
                remove_some(self.database, self.process)
            except OSError as error:
                # Whoever looks next may be able to.
                _log.warning("files of results could not be removed: %s", error)

    def abandon(self) -> None:
        """Go away as a killed process does, for tests: nothing of it is written any more.

        Whoever looks from another process finds its owner dead.
        """
        self.logs.abandon_in_child()
        self.upkeep.close(has_run=False)
        self.watch.close()
        self.leases.close()
        self.recovery.close()
        self.owner.release()

    def __repr__(self) -> str:
        return f"<Engine on {self.database.url}>"
