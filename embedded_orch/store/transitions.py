"""Storing a state: what flow runs and task runs have in common.

A transition locks the run, asks the rules, inserts the state and updates the run, in one
transaction. The rules are pure; what they read is gathered here, as far as they need it. A flow run
that a flow called takes its tracking task run along.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

import msgspec

from embedded_orch import errors
from embedded_orch.orchestration.task_rules import AWAITING_SLOT
from embedded_orch.orchestration.transition import (
    begin,
    decide,
    decide_end,
    is_plain_beginning,
    is_plain_pending,
)
from embedded_orch.orchestration.values import (
    NO_FACTS,
    Decision,
    Facts,
    FlowRunFacts,
    Policy,
    Proposal,
    Run,
    SlotFacts,
    Verdict,
)
from embedded_orch.states import NO_DETAILS, TERMINAL_TYPES, StateType, is_value
from embedded_orch.store import caching, result_files, slots
from embedded_orch.store.state_details import decode_details, encode_details

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from embedded_orch.db.port import Transaction
    from embedded_orch.states import StateDetails
    from embedded_orch.store.slots import Claim

Kind = Literal["flow_run", "task_run"]

# The states whose rules look at more than their type and name.
_MATTER = frozenset({StateType.SCHEDULED, StateType.PENDING, StateType.PAUSED, StateType.COMPLETED})
# What tells when a run starts.
_START_FIELDS = ("expected_start_time", "next_scheduled_start_time", "start_time")
_NO_POLICY = Policy()
_TYPES: dict[str | None, StateType | None] = {
    None: None,
    **{type.value: type for type in StateType},
}


def propose(
    tx: Transaction,
    kind: Kind,
    *,
    run_id: UUID,
    proposal: Proposal,
    now: int,
    epoch: int | None,
    force: bool = False,
    claim: Claim | None = None,
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
        force: whether only the rules are asked that nothing overrides.
        claim: on slots that the run holds while it is RUNNING, taken and given back with its
            states.

    Raises:
        RunNotFound: no run has this id.
        OwnershipLost: another process has taken the flow run since ``epoch``.
    """
    row = tx.row(f"{kind}.for_transition", id=run_id)
    if row is None:
        raise errors.RunNotFound(f"no {kind.replace('_', ' ')} has the id {run_id}")
    if epoch is not None:
        check_epoch(row[-1], epoch, run_id)
    run, facts = _gathered(tx, kind, run_id, row, proposal, now=now)
    if claim is not None and proposal.type is StateType.RUNNING and not force:
        facts = msgspec.structs.replace(facts, slots=_slots_for(tx, claim, now=now))
    decision = decide(run, proposal, now=now, facts=facts, force=force)
    if decision.proposal is not None:
        _store(tx, kind, run, decision.run, decision.proposal, now=now)
        if decision.verdict is Verdict.ACCEPT and kind == "task_run":
            tell_cache(tx, run_id, decision.proposal, now=now)
    if claim is not None and decision.verdict is not Verdict.ABORT:
        _settle_claim(tx, claim, decision.run, now=now)
    return decision


def end_from(
    tx: Transaction,
    run: Run,
    proposal: Proposal,
    *,
    now: int,
    epoch: int,
    parent: Run | None = None,
) -> Decision | None:
    """The plain end of a flow run as its owner has left it, without reading it.

    Args:
        tx: a write transaction.
        run: the run, after the state that its owner has given it last.
        proposal: the state.
        now: microseconds since 1970 UTC.
        epoch: in which the owner has the run.
        parent: the task run that tracks it, as its start has left it, where that is known.

    Returns:
        None where it is to be read first, and nothing was written: it is not as it was left, or
        the rules do more than accept the state.
    """
    if run.state_type is not StateType.RUNNING or proposal.type not in TERMINAL_TYPES:
        return None
    if proposal.details.transition_id is not None:
        return None
    decision = decide_end(run, proposal, now=now)
    after, state = decision.run, decision.proposal
    if state is None or decision.verdict is not Verdict.ACCEPT or after.policy != run.policy:
        return None
    if not tx.run("flow_run.end", epoch=epoch, now=now, **_end_fields(run, after)):
        return None
    _insert_state(tx, "flow_run", run.id, state)
    is_told = parent is not None and _end_parent(tx, parent, after, state, now=now)
    if after.parent_task_run_id is not None and not is_told:
        _tell_parent(tx, after, state, now=now)
    return decision


def interrupt(
    tx: Transaction,
    kind: Kind,
    *,
    run_id: UUID,
    crashed: Proposal,
    now: int,
    epoch: int | None,
    claim: Claim | None = None,
) -> Decision:
    """Propose that a run crashed, or was cancelled; nothing when it has ended.

    One that was being cancelled, and crashes, is Cancelled by that.
    """
    if crashed.type is StateType.CANCELLED:
        row = tx.row(f"{kind}.for_transition", id=run_id)
        is_repeat = row is not None and row[0] == crashed.id
        if row is not None and _TYPES[row[1]] in TERMINAL_TYPES and not is_repeat:
            if epoch is not None:
                check_epoch(row[-1], epoch, run_id)
            run, _ = _gathered(tx, kind, run_id, row, crashed, now=now)
            return Decision(Verdict.ABORT, run, f"the run has ended as {run.state_name}")
    decision = propose(tx, kind, run_id=run_id, proposal=crashed, now=now, epoch=epoch, claim=claim)
    if decision.run.state_type is not StateType.CANCELLING:
        return decision
    cancelled = msgspec.structs.replace(crashed, type=StateType.CANCELLED, name="Cancelled")
    return propose(tx, kind, run_id=run_id, proposal=cancelled, now=now, epoch=epoch, claim=claim)


def crash(
    tx: Transaction,
    kind: Kind,
    *,
    run_id: UUID,
    new_id: Callable[[], UUID],
    now: int,
    message: str,
    epoch: int | None = None,
) -> None:
    """Set a run Crashed whose process died, and with a flow run the task runs it left unfinished.

    The ids of the states are made here: a second time there is nothing left to set. The flow run
    comes first, so that its lock is waited for before anything is set.

    Raises:
        OwnershipLost: another process has taken the flow run since ``epoch``; nothing was set.
    """
    crashed = Proposal(
        id=new_id(), type=StateType.CRASHED, name="Crashed", timestamp=now, message=message
    )
    interrupt(tx, kind, run_id=run_id, crashed=crashed, now=now, epoch=epoch)
    if kind == "flow_run":
        for (task_run_id,) in tx.rows("task_run.unfinished_of_flow_run", flow_run_id=run_id):
            crash(tx, "task_run", run_id=task_run_id, new_id=new_id, now=now, message=message)


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
    """A run that is new, after its first states, and those states: nothing objects to them."""
    if is_plain_beginning(proposals):
        return begin(run, *proposals)
    stored: list[Proposal] = []
    for proposal in proposals:
        decision = decide(run, proposal, now=now, force=True)
        if decision.proposal is not None:
            run = decision.run
            stored.append(decision.proposal)
    return run, stored


def store_first_states(
    tx: Transaction,
    run: Run,
    states: Sequence[Proposal],
    *,
    now: int,
    has_parent_begun: bool = False,
) -> None:
    """Append the first states of a run that was inserted as it is after them.

    Args:
        tx: a write transaction.
        run: the run.
        states: its states.
        now: microseconds since 1970 UTC.
        has_parent_begun: whether the task run that tracks it has begun in this transaction.
    """
    kind: Kind = "flow_run" if run.is_flow_run else "task_run"
    if is_plain_beginning(states):
        tx.run(f"{kind}_state.insert_begun", {f"{kind}_id": run.id, **_beginning_fields(states)})
        if has_parent_begun:
            return
    else:
        for state in states:
            _insert_state(tx, kind, run.id, state)
    if run.parent_task_run_id is not None and states:
        _tell_parent(tx, run, states[-1], now=now)


def store_whole(
    tx: Transaction, run_id: UUID, states: Sequence[Proposal], *, is_plain: bool
) -> None:
    """Append the states of a task run that has come to its end, its beginning among them.

    Args:
        tx: a write transaction.
        run_id: the task run.
        states: in their order.
        is_plain: whether they are a plain life, see :func:`is_plain_life`.
    """
    *beginning, end = states
    if end.file is not None:
        result_files.ensure(tx, end.file)
    if is_plain:
        life = _beginning_fields(beginning)
        life.update(_state_fields(end))
        life["task_run_id"] = run_id
        tx.run("task_run_state.insert_whole", life)
    elif is_plain_pending(beginning):
        [pending] = beginning
        tx.run(
            "task_run_state.insert_ended",
            task_run_id=run_id,
            pending_timestamp=pending.timestamp,
            pending_id=pending.id,
            pending_name=pending.name,
            **_state_fields(end),
        )
    else:
        for state in states:
            _insert_state(tx, "task_run", run_id, state)


def whole_fields(states: Sequence[Proposal]) -> dict[str, object]:
    """The states of such a run, as columns; those of its end that the run has too are not named."""
    *beginning, end = states
    fields = _state_fields(end)
    for name in ("timestamp", "id", "type", "name"):
        del fields[name]
    return {**_beginning_fields(beginning), **fields}


def _beginning_fields(states: Sequence[Proposal]) -> dict[str, object]:
    pending, running = states
    return {
        "pending_timestamp": pending.timestamp,
        "pending_id": pending.id,
        "pending_name": pending.name,
        "running_timestamp": running.timestamp,
        "running_id": running.id,
        "running_name": running.name,
    }


def _slots_for(tx: Transaction, claim: Claim, *, now: int) -> SlotFacts:
    answer = slots.look(tx, claim, now=now, is_before_take=True)
    return SlotFacts(tuple(name for name, _ in answer.blocking), answer.refusal)


def _settle_claim(tx: Transaction, claim: Claim, run: Run, *, now: int) -> None:
    """Take, keep or give back the slots of a run, as the state asks for that it has come to."""
    if run.state_type is StateType.RUNNING:
        slots.take(tx, claim, now=now, waits=False)
    elif run.state_name == AWAITING_SLOT:
        # Not taken, even if there is one by now: on Postgres it may have come back meanwhile.
        slots.stand_in_line(tx, claim, now=now)
    elif run.state_type is not StateType.CANCELLING:
        slots.release(tx, claim_id=claim.id, now=now)


def _store(
    tx: Transaction, kind: Kind, before: Run, after: Run, state: Proposal, *, now: int
) -> None:
    """Append a state to the history of a run, and set the fields that it changes."""
    _insert_state(tx, kind, after.id, state)
    fields = run_fields(after)
    if kind == "task_run":
        fields["flow_run_run_count"] = after.flow_run_run_count
        tx.run("task_run.update_state", fields)
    elif _starts_as_before(before, after):
        for name in _START_FIELDS:
            del fields[name]
        fields["now"] = now
        tx.run("flow_run.update_state_begun", fields)
    else:
        fields["now"] = now
        tx.run("flow_run.update_state", fields)
    if after.policy is not before.policy:
        tx.run(f"{kind}.update_policy", id=after.id, empirical_policy=encode_struct(after.policy))
    if after.parent_task_run_id is not None:
        _tell_parent(tx, after, state, now=now)


def tell_cache(tx: Transaction, run_id: UUID, state: Proposal, *, now: int) -> None:
    """Let other runs use the result of a task run, or no longer when it was undone."""
    if state.type is not StateType.COMPLETED:
        return
    if state.details.cache_key:
        caching.keep(tx, run_id=run_id, state=state, now=now)
    elif state.name == "RolledBack":
        caching.forget_of_run(tx, run_id=run_id)


def _tell_parent(tx: Transaction, run: Run, state: Proposal, *, now: int) -> None:
    """Take the task run that tracks a flow run along, whatever its rules would say."""
    parent_id = run.parent_task_run_id
    assert parent_id is not None
    row = tx.row("task_run.for_transition", id=parent_id)
    if row is None:
        return
    parent, facts = _gathered(tx, "task_run", parent_id, row, state, now=now)
    is_there = (parent.state_type, parent.state_name) == (state.type, state.name)
    if is_there and state.data is None:
        return
    decision = decide(parent, _copy_for_parent(run, state), now=now, facts=facts, force=True)
    if decision.proposal is not None:
        _store(tx, "task_run", parent, decision.run, decision.proposal, now=now)


def _end_parent(tx: Transaction, parent: Run, run: Run, state: Proposal, *, now: int) -> bool:
    """:func:`_tell_parent` for the end of the task run as its start has left it.

    Returns:
        False where it is to be read first, and nothing was written: somebody has moved it.
    """
    decision = decide_end(parent, _copy_for_parent(run, state), now=now, force=True)
    after, copy = decision.run, decision.proposal
    if copy is None or not tx.run("task_run.end", **_end_fields(parent, after)):
        return False
    _insert_state(tx, "task_run", parent.id, copy)
    return True


def _copy_for_parent(run: Run, state: Proposal) -> Proposal:
    """The state of a flow run as that of the task run that tracks it."""
    details = msgspec.structs.replace(state.details, child_flow_run_id=run.id, transition_id=None)
    return msgspec.structs.replace(state, id=_companion_id(state.id), details=details)


def _companion_id(id: UUID) -> UUID:
    """The id of the state that goes along with another: the same each time, and nobody else's."""
    return UUID(int=id.int ^ 1)


def _insert_state(tx: Transaction, kind: Kind, run_id: UUID, state: Proposal) -> None:
    if state.file is not None:
        result_files.ensure(tx, state.file)
    tx.run(f"{kind}_state.insert", {f"{kind}_id": run_id, **_state_fields(state)})


def _state_fields(state: Proposal) -> dict[str, object]:
    """What a state says, as columns."""
    return {
        "timestamp": state.timestamp,
        "id": state.id,
        # Without the property of enumerations, which costs ten times a field.
        "type": state.type._value_,
        "name": state.name,
        "message": state.message,
        "state_details": encode_details(state.details),
        "data": state.data,
        "data_format": state.data_format,
    }


def run_fields(run: Run) -> dict[str, object]:
    """The fields of a run that its states change, as columns."""
    return {
        "id": run.id,
        "state_id": run.state_id,
        "state_type": run.state_type._value_ if run.state_type is not None else None,
        "state_name": run.state_name,
        "state_timestamp": run.state_timestamp,
        "run_count": run.run_count,
        "expected_start_time": run.expected_start_time,
        "next_scheduled_start_time": run.next_scheduled_start_time,
        "start_time": run.start_time,
        "end_time": run.end_time,
        "total_run_time": run.total_run_time,
    }


def _end_fields(before: Run, after: Run) -> dict[str, object]:
    """What the end of a run changes, and the state that it has to be in for that, as columns."""
    return {
        "id": before.id,
        "last_state_id": before.state_id,
        "state_id": after.state_id,
        "state_type": None if after.state_type is None else after.state_type.value,
        "state_name": after.state_name,
        "state_timestamp": after.state_timestamp,
        "end_time": after.end_time,
        "total_run_time": after.total_run_time,
    }


def _starts_as_before(before: Run, after: Run) -> bool:
    return all(getattr(before, name) == getattr(after, name) for name in _START_FIELDS)


def encode_struct(value: object) -> str:
    """A Struct as JSON text."""
    return msgspec.json.encode(value).decode()


def _gathered(
    tx: Transaction,
    kind: Kind,
    run_id: UUID,
    row: tuple[Any, ...],
    proposal: Proposal,
    *,
    now: int,
) -> tuple[Run, Facts]:
    """A run and the facts about it, from a row of ``for_transition`` and what else is needed."""
    state_type = _TYPES[row[1]]
    details, has_value = NO_DETAILS, False
    if state_type in _MATTER or proposal.details.transition_id is not None:
        details, has_value = _state_of(tx, kind, run_id, row[3])
    facts = NO_FACTS
    flow_run_run_count = 0
    parent_task_run_id = entrypoint = deployment_id = infrastructure_pid = None
    if kind == "flow_run":
        _, parent_task_run_id, entrypoint, deployment_id, infrastructure_pid, _ = row[11:]
    else:
        flow_run_run_count, attempt, flow_run_state_type, _ = row[11:]
        if attempt is not None:
            type = _TYPES[flow_run_state_type]
            is_asked = type is StateType.PAUSED and proposal.type is StateType.RUNNING
            pause = _details_of_flow_run(tx, run_id) if is_asked else NO_DETAILS
            facts = Facts(flow_run=FlowRunFacts(attempt, type, pause))
        key = proposal.details.cache_key
        if key and proposal.type is StateType.RUNNING and not proposal.details.refresh_cache:
            facts = msgspec.structs.replace(
                facts, cached=caching.find_to_take(tx, key=key, now=now)
            )
    run = Run(
        id=run_id,
        is_flow_run=kind == "flow_run",
        state_id=row[0],
        state_type=state_type,
        state_name=row[2],
        state_timestamp=row[3],
        state_details=details,
        has_value=has_value and state_type is StateType.COMPLETED,
        run_count=row[4],
        expected_start_time=row[5],
        next_scheduled_start_time=row[6],
        start_time=row[7],
        end_time=row[8],
        total_run_time=row[9],
        policy=msgspec.convert(row[10], Policy) if row[10] else _NO_POLICY,
        parent_task_run_id=parent_task_run_id,
        is_resumable=entrypoint is not None or deployment_id is not None,
        has_infrastructure=infrastructure_pid is not None,
        flow_run_run_count=flow_run_run_count,
    )
    return run, facts


def _details_of_flow_run(tx: Transaction, run_id: UUID) -> StateDetails:
    """What the state of a task run's flow run says."""
    return decode_details(tx.value("task_run.details_of_flow_run", id=run_id))


def _state_of(
    tx: Transaction, kind: Kind, run_id: UUID, timestamp: int | None
) -> tuple[StateDetails, bool]:
    """What the state of a run says, and whether a value is stored with it."""
    row = tx.row(f"{kind}_state.details", **{f"{kind}_id": run_id}, timestamp=timestamp)
    if row is None:
        return NO_DETAILS, False
    return decode_details(row[0]), is_value(row[1])
