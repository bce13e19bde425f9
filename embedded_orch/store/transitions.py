"""Storing a state: what flow runs and task runs have in common.

A transition locks the run, asks the rules, inserts the state and updates the run, in one
transaction. The rules are pure; what they read is gathered here.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from embedded_orch import errors, times
from embedded_orch.orchestration.transition import decide
from embedded_orch.orchestration.values import Decision, Policy, Proposal, Run
from embedded_orch.states import NO_DETAILS, StateDetails, StateType

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from embedded_orch.db.port import Transaction

Kind = Literal["flow_run", "task_run"]

_TIMES = frozenset({"scheduled_time", "cache_expiration", "pause_timeout"})
_MAY_BE_DUE = frozenset({StateType.SCHEDULED, StateType.PENDING})


def propose(
    tx: Transaction, kind: Kind, *, run_id: UUID, proposal: Proposal, now: int, epoch: int | None
) -> Decision:
    """Propose a state for a run, and store what comes of it.

    Args:
        tx: a write transaction.
        kind: which kind of run.
        run_id: the run.
        proposal: the state; proposing the same one again changes nothing and answers the same.
        now: microseconds since 1970 UTC.
        epoch: the epoch in which the proposer took the flow run; None for a proposer that owns
            nothing, such as a person.

    Raises:
        RunNotFound: no run has this id.
        OwnershipLost: another process has taken the flow run since ``epoch``.
    """
    row = tx.row(f"{kind}.for_transition", id=run_id)
    if row is None:
        raise errors.RunNotFound(f"no {kind.replace('_', ' ')} has the id {run_id}")
    if epoch is not None:
        check_epoch(row[-1], epoch, run_id)
    run = _run(tx, kind, row)
    decision = decide(run, proposal, now=now)
    if decision.proposal is not None and decision.run is not None:
        insert_state(tx, kind, run_id, decision.proposal)
        fields = run_fields(decision.run)
        if kind == "task_run":
            fields["flow_run_run_count"] = decision.run.flow_run_run_count
        tx.run(f"{kind}.update_state", now=now, **fields)
    return decision


def crash(
    tx: Transaction, kind: Kind, *, run_id: UUID, new_id: Callable[[], UUID], now: int, message: str
) -> None:
    """Set a run Crashed whose process died, and with a flow run the task runs it left unfinished.

    The ids of the states are made here: a second time there is nothing left to set.
    """
    if kind == "flow_run":
        for (task_run_id,) in tx.rows("task_run.unfinished_of_flow_run", flow_run_id=run_id):
            crash(tx, "task_run", run_id=task_run_id, new_id=new_id, now=now, message=message)
    crashed = Proposal(
        id=new_id(), type=StateType.CRASHED, name="Crashed", timestamp=now, message=message
    )
    propose(tx, kind, run_id=run_id, proposal=crashed, now=now, epoch=None)


def check_epoch(found: int | None, epoch: int, run_id: UUID) -> None:
    """Refuse the write of an owner whose run was taken over."""
    if found is not None and found != epoch:
        raise errors.OwnershipLost(
            f"run {run_id} was taken over by another process; nothing was written. Ask "
            f"embedded_orch.open(...).flow_runs.get() who runs it now"
        )


def first_states(
    run: Run, proposals: Sequence[Proposal], *, now: int
) -> tuple[Run, list[Proposal]]:
    """A run that is new, after its first states, and those states."""
    stored: list[Proposal] = []
    for proposal in proposals:
        decision = decide(run, proposal, now=now)
        if decision.run is not None and decision.proposal is not None:
            run = decision.run
            stored.append(decision.proposal)
    return run, stored


def insert_state(tx: Transaction, kind: Kind, run_id: UUID, state: Proposal) -> None:
    """Append a state to the history of its run."""
    tx.run(
        f"{kind}_state.insert",
        **{f"{kind}_id": run_id},
        timestamp=state.timestamp,
        id=state.id,
        type=state.type.value,
        name=state.name,
        message=state.message,
        state_details=encode_details(state.details),
        data=state.data,
        data_format=state.data_format,
    )


def run_fields(run: Run) -> dict[str, object]:
    """The fields of a run that its states change, as columns."""
    return {
        "id": run.id,
        "state_id": run.state_id,
        "state_type": run.state_type.value if run.state_type is not None else None,
        "state_name": run.state_name,
        "state_timestamp": run.state_timestamp,
        "run_count": run.run_count,
        "expected_start_time": run.expected_start_time,
        "next_scheduled_start_time": run.next_scheduled_start_time,
        "start_time": run.start_time,
        "end_time": run.end_time,
        "total_run_time": run.total_run_time,
    }


def encode_details(details: StateDetails) -> str | None:
    """The details of a state as JSON text, their times in microseconds; None when there are none.

    Whose state it is stands beside it, and is not written again.

    Raises:
        ConfigurationError: a time has no time zone.
    """
    if details is NO_DETAILS:
        return None
    own = msgspec.structs.replace(details, flow_run_id=None, task_run_id=None)
    if own == NO_DETAILS:
        return None
    fields = msgspec.to_builtins(own, builtin_types=(datetime,))
    for name in _TIMES.intersection(fields):
        fields[name] = times.microseconds_from_datetime(fields[name])
    return encode_struct(fields)


def decode_details(fields: dict[str, Any] | None) -> StateDetails:
    """The details of a state from their parsed JSON."""
    if not fields:
        return NO_DETAILS
    moments = {
        name: times.datetime_from_microseconds(fields[name]) for name in _TIMES.intersection(fields)
    }
    return msgspec.convert({**fields, **moments}, StateDetails)


def encode_struct(value: object) -> str:
    """A Struct as JSON text."""
    return msgspec.json.encode(value).decode()


def _run(tx: Transaction, kind: Kind, row: tuple[Any, ...]) -> Run:
    state_type = StateType(row[2]) if row[2] is not None else None
    policy = row[11]
    is_flow_run = kind == "flow_run"
    return Run(
        id=row[0],
        is_flow_run=is_flow_run,
        flow_run_run_count=0 if is_flow_run else row[13],
        flow_run_attempt=None if is_flow_run else row[14],
        state_id=row[1],
        state_type=state_type,
        state_name=row[3],
        state_timestamp=row[4],
        state_details=_details(tx, kind, row) if state_type in _MAY_BE_DUE else NO_DETAILS,
        run_count=row[5],
        expected_start_time=row[6],
        next_scheduled_start_time=row[7],
        start_time=row[8],
        end_time=row[9],
        total_run_time=row[10],
        policy=msgspec.convert(policy, Policy) if policy else Policy(),
    )


def _details(tx: Transaction, kind: Kind, row: tuple[Any, ...]) -> StateDetails:
    """What the state of the run says; a fact that only rules for these states ask for."""
    return decode_details(
        tx.value(f"{kind}_state.details", **{f"{kind}_id": row[0]}, timestamp=row[4])
    )
