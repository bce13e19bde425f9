"""Calling hooks that a dead process owes: of flow runs that have ended.

A run with hooks for its end is noted when it begins, and struck off when they were called. What is
left over of a process that died, be it between the last commit and the last hook or because
somebody found it dead and set its runs Crashed, is called by the next process that is asked to. One
process alone does it, for the time that it lives; should it die before it has called all of them,
they are called again: at least once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedded_orch.engine.cancellation import Cancellation
from embedded_orch.engine.effects import Read, Write
from embedded_orch.engine.hooks import call_flow_hooks
from embedded_orch.store import flow_runs, owed_hooks, processes

if TYPE_CHECKING:
    from embedded_orch.db.port import Transaction
    from embedded_orch.engine.effects import Steps
    from embedded_orch.engine.engine import Engine
    from embedded_orch.engine.specs import FlowSpec
    from embedded_orch.states import State
    from embedded_orch.store.owed_hooks import DueHooks
    from embedded_orch.store.processes import ProcessRow


def call_owed_hooks(engine: Engine, flow: FlowSpec, seen: DueHooks) -> Steps[bool]:
    """Call the hooks that a run is owed; whether it was for this process to do.

    Args:
        engine: on the database of the run.
        flow: whose run it is.
        seen: the run, as it was found.
    """
    run_id = seen.flow_run_id
    if (yield from _is_held(engine, seen)):
        return False
    claim_id = engine.process.new_id()

    def claim(tx: Transaction) -> State | None:
        engine.owner.register(tx)
        if not owed_hooks.claim(tx, seen, claim_id=claim_id, by=engine.owner.id):
            return None
        [run] = flow_runs.get_flow_runs(tx, [run_id])
        return run.state

    # It has ended: there is nothing that a cancellation could reach.
    cancellation = Cancellation(run_id, seen.flow_name, None)
    engine.owner.begin(run_id, cancellation)
    try:
        state: State | None = yield Write(engine.database, claim)
        if state is None:
            return False
        yield from call_flow_hooks(engine, flow, state)
        yield Write(
            engine.database,
            lambda tx: owed_hooks.settle(tx, flow_run_id=run_id, epoch=seen.epoch),
        )
        return True
    finally:
        engine.owner.finish(run_id, cancellation)


def _is_held(engine: Engine, seen: DueHooks) -> Steps[bool]:
    """Whether the process that has to call them lives, and may be at it."""
    holder_id = seen.holder_id
    if holder_id is None:
        return False
    found: tuple[ProcessRow, bool] | None = yield Read(
        engine.database, lambda tx: processes.get(tx, id=holder_id)
    )
    if found is None:
        return False
    holder, has_ended = found
    return not has_ended and engine.owner.is_running(seen.flow_run_id, holder)
