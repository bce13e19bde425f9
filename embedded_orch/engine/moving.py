"""What follows when the state of a flow run was set from outside of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from embedded_orch.engine import results
from embedded_orch.engine.effects import Read, Write
from embedded_orch.engine.resuming import owned_run, runs_in_living_process
from embedded_orch.engine.watching import tell_moved
from embedded_orch.states import StateType
from embedded_orch.store import flow_runs

if TYPE_CHECKING:
    from uuid import UUID

    from embedded_orch.engine.effects import Steps
    from embedded_orch.engine.engine import Engine
    from embedded_orch.engine.resuming import Owned
    from embedded_orch.orchestration.values import Proposal


def moved(engine: Engine, run_id: UUID) -> Steps[None]:
    """Tell whoever runs it here; and when nobody does, anywhere, end what is being cancelled."""
    tell_moved(engine.room, run_id)
    found: Owned = yield Read(engine.database, lambda tx: owned_run(tx, run_id))
    run, owner = found
    if run.state is None or run.state.type not in (StateType.CANCELLING, StateType.CANCELLED):
        return
    if runs_in_living_process(engine, run, owner):
        return
    process = engine.process
    now = process.now()
    cancelled: Proposal | None = None
    if run.state.type is StateType.CANCELLING:
        ending = results.cancelled(process.new_id(), now, "cancelled; no process was running it")
        # Whoever ran it may have ended it since it was read.
        cancelled = replace(ending, follows=run.state.id)
    yield Write(
        engine.database,
        lambda tx: flow_runs.cancel_left(
            tx,
            run_id=run_id,
            # Our own process lives, and is not at it: there is nobody to come back.
            gone_id=None if run.owner_id == engine.owner.id else run.owner_id,
            epoch=run.epoch,
            cancelled=cancelled,
            now=now,
            new_id=process.new_id,
        ),
    )
