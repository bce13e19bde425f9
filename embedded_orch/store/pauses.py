"""Pauses of flow runs: entered with what they wait for, answered, and ended by their time."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from embedded_orch import times
from embedded_orch.orchestration.values import Proposal, Verdict
from embedded_orch.states import NO_DETAILS, StateType
from embedded_orch.store import inputs
from embedded_orch.store.state_details import decode_details
from embedded_orch.store.transitions import propose

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from embedded_orch.db.port import Transaction
    from embedded_orch.orchestration.values import Decision


NEVER_RESUMED = "the run was paused, and not resumed in time"


class PausedRun(msgspec.Struct, frozen=True):
    """A paused run whose time may be over."""

    id: UUID
    owner_id: UUID | None
    state_id: UUID
    is_suspended: bool


def enter(
    tx: Transaction,
    *,
    run_id: UUID,
    paused: Proposal,
    asked: Mapping[str, str],
    now: int,
    epoch: int | None,
    new_id: Callable[[], UUID],
) -> Decision:
    """Propose that a run is paused, and write what it waits for.

    Args:
        tx: a write transaction.
        run_id: the run.
        paused: the state.
        asked: what the pause waits for: the schema, and its description, by their keys.
        now: microseconds since 1970 UTC.
        epoch: see :func:`embedded_orch.store.transitions.propose`.
        new_id: makes the ids of what is written.
    """
    decision = propose(tx, "flow_run", run_id=run_id, proposal=paused, now=now, epoch=epoch)
    if decision.verdict is Verdict.ACCEPT:
        for key, value in asked.items():
            inputs.put_input(tx, id=new_id(), flow_run_id=run_id, key=key, value=value, now=now)
    return decision


def leave(
    tx: Transaction,
    *,
    run_id: UUID,
    resumed: Proposal,
    answer: tuple[str, str] | None,
    now: int,
    new_id: Callable[[], UUID],
) -> Decision:
    """Propose that a paused run goes on, and write the answer to what it waits for.

    Args:
        tx: a write transaction.
        run_id: the run.
        resumed: the state; it names the pause that it follows.
        answer: the key and the value.
        now: microseconds since 1970 UTC.
        new_id: makes the ids of what is written.
    """
    decision = propose(tx, "flow_run", run_id=run_id, proposal=resumed, now=now, epoch=None)
    if decision.verdict is Verdict.ACCEPT and answer is not None:
        key, value = answer
        inputs.put_input(tx, id=new_id(), flow_run_id=run_id, key=key, value=value, now=now)
    return decision


def over(tx: Transaction, *, now: int) -> list[PausedRun]:
    """The runs that were paused, and whose time to be resumed is over."""
    found = []
    for run_id, owner_id, state_id, fields in tx.rows("flow_run.paused"):
        details = decode_details(fields)
        timeout = details.pause_timeout
        if timeout is not None and times.microseconds_from_datetime(timeout) < now:
            found.append(PausedRun(run_id, owner_id, state_id, details.pause_reschedule))
    return found


def expire(tx: Transaction, runs: list[PausedRun], *, now: int, new_id: Callable[[], UUID]) -> None:
    """End runs that were not resumed in time, unless somebody has moved them meanwhile.

    The ids of the states are made here: a second time there is nothing left to end.
    """
    for run in runs:
        failed = Proposal(
            id=new_id(),
            type=StateType.FAILED,
            name="Failed",
            timestamp=now,
            message=NEVER_RESUMED,
            details=NO_DETAILS,
            follows=run.state_id,
        )
        propose(tx, "flow_run", run_id=run.id, proposal=failed, now=now, epoch=None)
