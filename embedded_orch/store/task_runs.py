"""Task runs: the record of each call, from its start to its result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import msgspec

from embedded_orch.orchestration.transition import (
    decide,
    is_plain_life,
    is_plain_taking,
    live,
    take,
)
from embedded_orch.orchestration.values import (
    CachedResult,
    Decision,
    Facts,
    Policy,
    Proposal,
    Run,
    Verdict,
)
from embedded_orch.states import State, StateType
from embedded_orch.store.flow_runs import check_owner, state_from, states_from
from embedded_orch.store.resumes import SUPERSEDED
from embedded_orch.store.transitions import (
    encode_struct,
    first_states,
    propose,
    run_fields,
    store_first_states,
    store_whole,
    tell_cache,
    whole_fields,
)

if TYPE_CHECKING:
    from embedded_orch.db.port import Transaction
    from embedded_orch.store.slots import Claim


class NewTaskRun(msgspec.Struct, frozen=True, kw_only=True):
    """A task run that is about to be made."""

    id: UUID
    flow_run_id: UUID | None
    parent_task_run_id: UUID | None
    name: str
    task_key: str
    dynamic_key: str
    source_hash: str | None = None
    task_version: str | None = None
    tags: Sequence[str] = ()
    task_inputs: Mapping[str, Sequence[UUID]] = {}
    """The task runs that each parameter depends on, and those of ``wait_for``."""
    policy: Policy = Policy()
    flow_run_run_count: int = 0
    call_number: int = 0
    """Which call of its task by its parent it is, from 0."""
    owner_id: UUID | None = None
    """The process that runs it; None in a flow run, whose owner it is."""


class Call(msgspec.Struct, frozen=True):
    """What is on record of a call."""

    id: UUID
    state_type: StateType
    data: bytes | None
    data_format: str | None
    source_hash: str | None


class RecordedCall(msgspec.Struct, frozen=True):
    """A call that a flow run has on record."""

    id: UUID
    parent_id: UUID | None
    task_key: str
    dynamic_key: str
    call_number: int
    state_type: str | None
    state_name: str | None
    source_hash: str | None
    name: str
    run_count: int
    owes_hooks: bool = False

    @property
    def is_completed(self) -> bool:
        """Whether it has completed, so that it is not run again."""
        return self.state_type == "COMPLETED"

    @property
    def is_superseded(self) -> bool:
        """Whether it has completed, and somebody wants it run again."""
        return self.state_name == SUPERSEDED


class RecordedValue(NamedTuple):
    """What a completed call has returned."""

    run_id: UUID
    data: bytes | None
    """Also None where it is too large for what was asked for."""
    data_format: str | None
    size: int
    """Of the data, in bytes."""


class TaskRunRow(msgspec.Struct, frozen=True):
    """A task run as it is read for people."""

    id: UUID
    flow_run_id: UUID | None
    parent_task_run_id: UUID | None
    name: str
    task_key: str
    dynamic_key: str
    state: State | None
    run_count: int
    expected_start_time: int | None
    next_scheduled_start_time: int | None
    start_time: int | None
    end_time: int | None
    total_run_time: int
    source_hash: str | None
    task_version: str | None
    flow_run_run_count: int
    tags: list[str] | None
    labels: dict[str, Any] | None
    empirical_policy: dict[str, Any] | None
    task_inputs: dict[str, list[dict[str, str]]] | None
    updated: int
    created: int


def start_task_run(
    tx: Transaction,
    new: NewTaskRun,
    states: Sequence[Proposal],
    *,
    now: int,
    epoch: int | None,
) -> Run:
    """Make a task run in its first states; nothing when its id is there already.

    Raises:
        OwnershipLost: another process has taken the flow run since ``epoch``.
    """
    run, stored = first_states(_new_run(new), states, now=now)
    if _insert(tx, new, run, now=now, epoch=epoch):
        store_first_states(tx, run, stored, now=now)
    return run


def start_and_complete(
    tx: Transaction,
    new: NewTaskRun,
    states: Sequence[Proposal],
    last: Proposal,
    *,
    now: int,
    epoch: int | None,
    is_all: bool = False,
) -> Decision:
    """Make a task run in its first states, and propose what completes it, as one write.

    The same as :func:`start_task_run` and then :func:`propose_task_state`, for a start that nobody
    can have seen: what the rules of a completion read is known without reading it back.

    Args:
        tx: a write transaction.
        new: the run.
        states: its first ones.
        last: its completion; proposing the same one again changes nothing.
        now: when it began, in microseconds since 1970 UTC.
        epoch: in which the caller owns the flow run; None outside of flows.
        is_all: whether the transaction writes nothing else.

    Raises:
        OwnershipLost: another process has taken the flow run since ``epoch``.
    """
    is_plain = is_plain_life(states, last)
    if is_plain:
        decision, stored = live(_new_run(new), states, last)
    else:
        run, stored = first_states(_new_run(new), states, now=now)
        decision = decide(run, last, now=now)
        if decision.proposal is not None:
            stored.append(decision.proposal)
    # On a server each statement is a round trip.
    if (
        is_all
        and is_plain
        and epoch is not None
        and tx.dialect == "postgres"
        and stored[-1].file is None
    ):
        fields = _fields(new, decision.run, now=now)
        fields.update(whole_fields(stored), epoch=epoch)
        # All tasks of a flow run ask for that run's row.
        if tx.whole("task_run.insert_whole", new.flow_run_id, **fields):
            return decision
    if not _insert(tx, new, decision.run, now=now, epoch=epoch):
        # A repeat: the start is there, and the completion may be, with it or not.
        return propose_task_state(tx, run_id=new.id, proposal=last, now=now, epoch=epoch)
    store_whole(tx, new.id, stored, is_plain=is_plain)
    if not is_plain and decision.verdict is Verdict.ACCEPT:
        tell_cache(tx, new.id, stored[-1], now=max(now, stored[-1].timestamp))
    return decision


def ended_as_cached(
    new: NewTaskRun,
    states: Sequence[Proposal],
    running: Proposal,
    *,
    now: int,
    cached: CachedResult,
) -> tuple[Decision, list[Proposal]]:
    """What becomes of a new run whose result is cached, and all its states; nothing is written.

    Args:
        new: the run.
        states: its first ones.
        running: RUNNING, which the cached result takes the place of.
        now: when it began, in microseconds since 1970 UTC.
        cached: what was found under its cache key.
    """
    if is_plain_taking(states, running):
        return take(_new_run(new), states[0], running, cached)
    run, stored = first_states(_new_run(new), states, now=now)
    decision = decide(run, running, now=now, facts=Facts(cached=cached))
    if decision.proposal is not None:
        stored.append(decision.proposal)
    return decision, stored


def store_ended(
    tx: Transaction,
    new: NewTaskRun,
    states: Sequence[Proposal],
    last: Proposal,
    decision: Decision,
    *,
    now: int,
    epoch: int | None,
) -> Decision:
    """Make a task run that has come to its end; what became of it, as it stands then.

    Args:
        tx: a write transaction.
        new: the run.
        states: all its states.
        last: what was proposed; proposing the same one again changes nothing.
        decision: what becomes of it by that.
        now: when it began, in microseconds since 1970 UTC.
        epoch: in which the caller owns the flow run; None outside of flows.

    Raises:
        OwnershipLost: another process has taken the flow run since ``epoch``.
    """
    if not _insert(tx, new, decision.run, now=now, epoch=epoch):
        return propose_task_state(tx, run_id=new.id, proposal=last, now=now, epoch=epoch)
    store_whole(tx, new.id, states, is_plain=False)
    return decision


def _new_run(new: NewTaskRun) -> Run:
    return Run(
        id=new.id,
        is_flow_run=False,
        policy=new.policy,
        flow_run_run_count=new.flow_run_run_count,
    )


def _insert(tx: Transaction, new: NewTaskRun, run: Run, *, now: int, epoch: int | None) -> bool:
    """Insert a new run as it is after its first states; False when it is there."""
    fields = _fields(new, run, now=now)
    if new.flow_run_id is not None and epoch is not None:
        fields["epoch"] = epoch
        if tx.run("task_run.insert_owned", fields):
            return True
        del fields["epoch"]
        # It is lost, or the run is there; or the flow run is not, as the next statement finds.
        check_owner(tx, run_id=new.flow_run_id, epoch=epoch)
    return bool(tx.run("task_run.insert", fields))


def _fields(new: NewTaskRun, run: Run, *, now: int) -> dict[str, object]:
    """A new run as it is after its first states, as columns."""
    fields = run_fields(run)
    # One by one: a call with all of them makes another dict first.
    fields["flow_run_id"] = new.flow_run_id
    fields["parent_task_run_id"] = new.parent_task_run_id
    fields["name"] = new.name
    fields["task_key"] = new.task_key
    fields["dynamic_key"] = new.dynamic_key
    fields["call_number"] = new.call_number
    fields["source_hash"] = new.source_hash
    fields["task_version"] = new.task_version
    fields["tags"] = encode_struct(list(new.tags)) if new.tags else None
    fields["task_inputs"] = _encode_inputs(new.task_inputs) if new.task_inputs else None
    fields["empirical_policy"] = encode_struct(new.policy) if new.policy != _NO_POLICY else None
    fields["owner_id"] = new.owner_id
    fields["created"] = now
    fields["flow_run_run_count"] = run.flow_run_run_count
    return fields


def _encode_inputs(inputs: Mapping[str, Sequence[UUID]]) -> str:
    return encode_struct(
        {
            name: [{"input_type": "task_run", "id": str(id)} for id in ids]
            for name, ids in inputs.items()
        }
    )


def count_equal_calls(tx: Transaction, flow_run_id: UUID, *, first_key: str) -> int:
    """How many calls of a flow run are equal to one, counted by the number of the last of them.

    Args:
        tx: a transaction.
        flow_run_id: the flow run.
        first_key: the dynamic key of the first of them.
    """
    count: int = tx.value("task_run.count_equal_calls", flow_run_id=flow_run_id, first=first_key)
    return count


def propose_task_state(
    tx: Transaction,
    *,
    run_id: UUID,
    proposal: Proposal,
    now: int,
    epoch: int | None,
    force: bool = False,
    claim: Claim | None = None,
) -> Decision:
    """Propose a state for a task run; see :func:`embedded_orch.store.transitions.propose`."""
    return propose(
        tx,
        "task_run",
        run_id=run_id,
        proposal=proposal,
        now=now,
        epoch=epoch,
        force=force,
        claim=claim,
    )


def repeat(tx: Transaction, *, run_id: UUID, proposal: Proposal) -> Decision | None:
    """What came of a state that may have been proposed before; None when it was not.

    Args:
        tx: a write transaction.
        run_id: the run, which may not be there.
        proposal: the state.
    """
    row = tx.row("task_run.for_transition", id=run_id)
    if row is None or row[0] != proposal.id:
        return None
    return propose_task_state(
        tx, run_id=run_id, proposal=proposal, now=proposal.timestamp, epoch=None
    )


def find_call(
    tx: Transaction, *, flow_run_id: UUID, task_key: str, dynamic_key: str
) -> Call | None:
    """What is on record of a call in a flow run."""
    row = tx.row(
        "task_run.find_call", flow_run_id=flow_run_id, task_key=task_key, dynamic_key=dynamic_key
    )
    return None if row is None else Call(row[0], StateType(row[1]), *row[2:])


def recorded_calls(tx: Transaction, *, flow_run_id: UUID) -> list[RecordedCall]:
    """The calls that a flow run has on record, in the order in which they were made."""
    return [
        RecordedCall(*row) for row in tx.rows("task_run.recorded_calls", flow_run_id=flow_run_id)
    ]


def recorded_values(
    tx: Transaction, *, flow_run_id: UUID, first: UUID, limit: int, largest: int
) -> list[RecordedValue]:
    """What completed calls of a flow run have returned, in the order in which they were made.

    Args:
        tx: a transaction.
        flow_run_id: the flow run.
        first: the task run of the first of them; it is left out if it has not completed.
        limit: how many.
        largest: bytes of a value that is not the first; a larger one is left to be asked for.
    """
    rows = tx.rows(
        "task_run.recorded_values",
        flow_run_id=flow_run_id,
        first_id=first,
        limit=limit,
        largest=largest,
    )
    return [RecordedValue(*row) for row in rows]


def note_owed_hooks(tx: Transaction, *, run_id: UUID, owes: bool) -> None:
    """Note that the hooks for the completion of a run are to be called, or that they were."""
    tx.run("task_run.owe_hooks", id=run_id, owes_hooks=owes)


def get_task_runs(tx: Transaction, ids: Sequence[UUID]) -> list[TaskRunRow]:
    """The task runs with these ids, in this order; those that do not exist are left out."""
    rows = tx.rows("task_run.get_many", ids=encode_struct([str(id) for id in ids]))
    return [_task_run(tx, row) for row in rows]


def _task_run(tx: Transaction, row: Sequence[Any]) -> TaskRunRow:
    state = state_from(tx, row[6:14], flow_run_id=row[1], task_run_id=row[0])
    columns: list[Any] = [*row[:6], state, *row[14:]]
    return TaskRunRow(*columns)


def task_run_history(
    tx: Transaction, *, run_id: UUID, flow_run_id: UUID | None = None
) -> list[State]:
    """All states of a task run, oldest first."""
    rows = tx.rows("task_run_state.history", task_run_id=run_id)
    return states_from(tx, rows, flow_run_id=flow_run_id, task_run_id=run_id)


_NO_POLICY = Policy()
