"""Keeping a flow run that was taken from this process from writing anything more.

The states of its runs name the epoch in which they run, and are refused when that is past
(:mod:`embedded_orch.store.transitions`). What else the code of a run writes through us looks first
whose the run is, in the same transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from embedded_orch.engine.contexts import current_flow_run
from embedded_orch.engine.effects import Write
from embedded_orch.store import flow_runs

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedded_orch.db.port import Database, Transaction

R = TypeVar("R")


def fenced_write(database: Database, operation: Callable[[Transaction], R]) -> Write[R]:
    """A write of the running code, which is refused once its flow run was taken over.

    Args:
        database: that it writes to.
        operation: what to write. Instead of it, ``OwnershipLost`` is raised.
    """
    run = current_flow_run()
    if run is None or run.engine.database is not database:
        return Write(database, operation)

    def checked(tx: Transaction) -> R:
        flow_runs.check_owner(tx, run_id=run.run_id, epoch=run.epoch)
        return operation(tx)

    return Write(database, checked)
