"""Pauses whose time is over: who looks at them ends their runs, unless a process waits for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedded_orch.engine.effects import Read, Write
from embedded_orch.store import pauses, processes

if TYPE_CHECKING:
    from uuid import UUID

    from embedded_orch.engine.effects import Steps
    from embedded_orch.engine.engine import Engine
    from embedded_orch.store.pauses import PausedRun

NEVER_RESUMED = pauses.NEVER_RESUMED


def expire_pauses(engine: Engine) -> Steps[list[UUID]]:
    """End the runs that were not resumed in time and for which no process waits; which they are."""
    now = engine.process.now()
    late: list[PausedRun] = yield Read(engine.database, lambda tx: pauses.over(tx, now=now))
    left: list[PausedRun] = []
    for run in late:
        is_waited_for = yield from _is_waited_for(engine, run)
        left += [] if is_waited_for else [run]
    if left:
        yield Write(
            engine.database,
            lambda tx: pauses.expire(tx, left, now=now, new_id=engine.process.new_id),
        )
    return [run.id for run in left]


def _is_waited_for(engine: Engine, run: PausedRun) -> Steps[bool]:
    owner_id = run.owner_id
    if owner_id is None or run.is_suspended:
        return False
    found = yield Read(engine.database, lambda tx: processes.get(tx, id=owner_id))
    return found is not None and not found[1] and engine.owner.is_running(run.id, found[0])
