"""Flow runs: made, moved from state to state, taken over, found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from embedded_orch import errors
from embedded_orch.orchestration.values import Decision, Policy, Proposal, Run, Verdict
from embedded_orch.states import NO_DETAILS, TERMINAL_TYPES, State, StateType
from embedded_orch.store import resumes
from embedded_orch.store.flows import ensure_flow, flow_id
from embedded_orch.store.state_details import decode_details
from embedded_orch.store.transitions import (
    check_epoch,
    crash,
    encode_struct,
    end_from,
    first_states,
    interrupt,
    propose,
    run_fields,
    store_first_states,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedded_orch.db.port import Transaction


class NewFlowRun(msgspec.Struct, frozen=True, kw_only=True):
    """A flow run that is about to be made."""

    id: UUID
    flow_id: UUID
    """For the flow, when no flow has the name yet."""
    flow_name: str
    name: str
    owner_id: UUID | None
    on_crash: str = "fail"
    parameters: str = "{}"
    unstored_parameters: Mapping[str, str] = {}
    parameters_hash: bytes | None = None
    entrypoint: str | None = None
    flow_version: str | None = None
    idempotency_key: str | None = None
    """The flow has at most one run with it."""
    tags: Sequence[str] = ()
    policy: Policy = Policy()
    parent_task_run_id: UUID | None = None


class FlowRunRow(msgspec.Struct, frozen=True):
    """A flow run as it is read for people."""

    id: UUID
    flow_id: UUID
    flow_name: str
    name: str
    state: State | None
    run_count: int
    expected_start_time: int | None
    next_scheduled_start_time: int | None
    start_time: int | None
    end_time: int | None
    total_run_time: int
    owner_id: UUID | None
    epoch: int
    on_crash: str
    parameters: str
    unstored_parameters: dict[str, str]
    entrypoint: str | None
    flow_version: str | None
    tags: list[str]
    labels: dict[str, Any]
    empirical_policy: dict[str, Any]
    idempotency_key: str | None
    deployment_id: UUID | None
    updated: int
    parent_task_run_id: UUID | None
    created: int


_NO_POLICY = Policy()


def create_flow_run(
    tx: Transaction,
    new: NewFlowRun,
    states: Sequence[Proposal],
    *,
    now: int,
    register: Callable[[], object] | None = None,
    has_parent_begun: bool = False,
) -> Run:
    """Make a flow run in its first states; nothing when its id is there already.

    Args:
        tx: a write transaction.
        new: the run.
        states: its first ones.
        now: microseconds since 1970 UTC.
        register: writes its owner down, which is called where that is not so.
        has_parent_begun: whether the task run that tracks it has begun in this transaction.
    """
    run = Run(
        id=new.id,
        is_flow_run=True,
        policy=new.policy,
        parent_task_run_id=new.parent_task_run_id,
    )
    run, stored = first_states(run, states, now=now)
    fields: dict[str, object] = dict(
        flow_name=new.flow_name,
        name=new.name,
        owner_id=new.owner_id,
        epoch=0,
        on_crash=new.on_crash,
        parameters=new.parameters,
        unstored_parameters=encode_struct(new.unstored_parameters)
        if new.unstored_parameters
        else "{}",
        parameters_hash=new.parameters_hash,
        entrypoint=new.entrypoint,
        flow_version=new.flow_version,
        idempotency_key=new.idempotency_key,
        tags=encode_struct(list(new.tags)) if new.tags else "[]",
        empirical_policy="{}" if new.policy == _NO_POLICY else encode_struct(new.policy),
        parent_task_run_id=new.parent_task_run_id,
        now=now,
        **run_fields(run),
    )
    made = tx.run("flow_run.insert", fields)
    if not made:
        # The first run of its flow or of its owner, unless it is there already: then nothing
        # happens again.
        if register is not None:
            register()
        ensure_flow(tx, id=new.flow_id, name=new.flow_name, now=now)
        made = tx.run("flow_run.insert", fields)
    if made:
        store_first_states(tx, run, stored, now=now, has_parent_begun=has_parent_begun)
    return run


def create_flow_run_once(
    tx: Transaction, new: NewFlowRun, states: Sequence[Proposal], *, now: int
) -> UUID:
    """The id of a new flow run, or of that of its flow which has its idempotency key."""
    create_flow_run(tx, new, states, now=now)
    if new.idempotency_key is None:
        return new.id
    found: UUID = tx.value(
        "flow_run.by_idempotency_key",
        flow_name=new.flow_name,
        idempotency_key=new.idempotency_key,
    )
    return found


def propose_flow_state(
    tx: Transaction,
    *,
    run_id: UUID,
    proposal: Proposal,
    now: int,
    epoch: int | None,
    force: bool = False,
) -> Decision:
    """Propose a state for a flow run; see :func:`embedded_orch.store.transitions.propose`."""
    return propose(
        tx, "flow_run", run_id=run_id, proposal=proposal, now=now, epoch=epoch, force=force
    )


def propose_from(
    tx: Transaction,
    run: Run,
    proposal: Proposal,
    *,
    now: int,
    epoch: int,
    parent: Run | None = None,
) -> Decision:
    """Propose a state for a flow run whose owner knows how it has left it.

    The same as :func:`propose_flow_state`. Where it would simply end, and is still as it was left,
    it is not read first: what the rules ask for is known.

    Args:
        tx: a write transaction.
        run: the run, after the state that its owner has given it last.
        proposal: the state.
        now: microseconds since 1970 UTC.
        epoch: in which the owner has the run.
        parent: the task run that tracks it, as its start has left it, where that is known.
    """
    decision = end_from(tx, run, proposal, now=now, epoch=epoch, parent=parent)
    if decision is not None:
        return decision
    return propose_flow_state(tx, run_id=run.id, proposal=proposal, now=now, epoch=epoch)


def take_over(
    tx: Transaction,
    *,
    run_id: UUID,
    owner_id: UUID,
    epoch: int,
    states: Sequence[Proposal],
    now: int,
    new_id: Callable[[], UUID],
    is_automatic: bool = False,
    rerun_from: UUID | None = None,
) -> Run:
    """Make another process the owner of a run, and run it again.

    Args:
        tx: a write transaction.
        run_id: the run.
        owner_id: the process that takes it.
        epoch: the epoch in which its last owner was seen to be gone; from here on it is one more.
        states: what happened to it: Crashed where the owner died unnoticed, then Running.
        now: microseconds since 1970 UTC.
        new_id: makes the ids of the states of task runs that the last owner left unfinished.
        is_automatic: whether nobody asked for it by hand.
        rerun_from: the task run from which on completed calls are made again.

    Returns:
        The run, as it is taken over.

    Raises:
        RunNotResumable: somebody else was faster, or it is being removed.
    """
    row = tx.row("flow_run.for_transition", id=run_id)
    if row is None:
        raise errors.RunNotFound(f"no flow run has the id {run_id}")
    if tx.value("retention.is_marked", flow_run_id=run_id) is not None:
        raise errors.RunNotResumable(
            f"flow run {row[11]} ({run_id}) ended so long ago that it is being removed; call its "
            f"flow anew, and open with a longer retention to keep runs for longer"
        )
    *crashes, running = states
    if row[0] == running.id:
        # This very take-over, a second time.
        return propose(
            tx, "flow_run", run_id=run_id, proposal=running, now=now, epoch=epoch + 1
        ).run
    counted = resumes.count_automatic(tx, run_id=run_id, now=now) if is_automatic else (0, 0)
    if not tx.run(
        "flow_run.change_owner",
        id=run_id,
        owner_id=owner_id,
        epoch=epoch,
        auto_resumes=counted[0],
        completed_at_resume=counted[1],
        now=now,
    ):
        raise errors.RunNotResumable(
            f"flow run {row[11]} ({run_id}) was taken over by another process just now; it is "
            f"running there"
        )
    message = "the process that ran it died"
    crash_unfinished(tx, run_id=run_id, now=now, new_id=new_id, message=message)
    if rerun_from is not None:
        resumes.supersede(tx, run_id=run_id, first=rerun_from, now=now, new_id=new_id)
    for crashed in crashes:
        interrupt(tx, "flow_run", run_id=run_id, crashed=crashed, now=now, epoch=epoch + 1)
    decision = propose(tx, "flow_run", run_id=run_id, proposal=running, now=now, epoch=epoch + 1)
    if decision.verdict is not Verdict.ACCEPT:
        raise errors.RunNotResumable(
            f"flow run {row[11]} ({run_id}) cannot become {running.name}: {decision.reason}"
        )
    return decision.run


def crash_unfinished(
    tx: Transaction, *, run_id: UUID, now: int, new_id: Callable[[], UUID], message: str
) -> None:
    """Set the task runs of a flow run Crashed that have not ended, and that nobody runs any more.

    The ids of the states are made here: a second time there is nothing left to set.
    """
    for (task_run_id,) in tx.rows("task_run.unfinished_of_flow_run", flow_run_id=run_id):
        crash(tx, "task_run", run_id=task_run_id, new_id=new_id, now=now, message=message)


def moved_among(tx: Transaction, epochs: Mapping[UUID, int]) -> list[FlowRunRow]:
    """Those of some runs that are being cancelled, were cancelled, are paused, or were taken.

    Args:
        tx: a transaction.
        epochs: the runs, each with the epoch in which it is being run.
    """
    runs = encode_struct([{"id": id, "epoch": epoch} for id, epoch in epochs.items()])
    rows = tx.rows("flow_run.moved_among", runs=runs)
    return get_flow_runs(tx, [row[0] for row in rows]) if rows else []


def end_cancelled(
    tx: Transaction,
    *,
    run_id: UUID,
    cancelled: Proposal,
    now: int,
    epoch: int | None,
    new_id: Callable[[], UUID],
    gone_id: UUID | None = None,
) -> Decision:
    """Propose that a run is CANCELLED, and then of all that belongs to it and has not ended.

    One that has ended keeps its state: somebody took its process for dead and cancelled it, and now
    the process comes back and would do so once more.

    Args:
        tx: a write transaction.
        run_id: the run.
        cancelled: the state.
        now: microseconds since 1970 UTC.
        epoch: see :func:`embedded_orch.store.transitions.propose`.
        new_id: makes the ids of the other states.
        gone_id: the process that ran them, where that is gone. It is fenced off from all of them:
            it may have been stopped only, and come back to end them otherwise.
    """
    decision = interrupt(tx, "flow_run", run_id=run_id, crashed=cancelled, now=now, epoch=epoch)
    if decision.run.state_type is StateType.CANCELLED:
        _cancel_children(tx, run_id=run_id, now=now, new_id=new_id, gone_id=gone_id)
        _fence_off(tx, run_id, gone_id, now=now)
    return decision


def cancel_left(
    tx: Transaction,
    *,
    run_id: UUID,
    gone_id: UUID | None,
    epoch: int,
    cancelled: Proposal | None,
    now: int,
    new_id: Callable[[], UUID],
) -> None:
    """End a run that is being cancelled, or was, and all that it called, since nobody runs it.

    Args:
        tx: a write transaction.
        run_id: the run.
        gone_id: the process that ran it and is gone, if one did; see :func:`end_cancelled`.
        epoch: of the run when that was seen.
        cancelled: its last state; None for a run that has it.
        now: microseconds since 1970 UTC.
        new_id: makes the ids of the other states.

    Raises:
        OwnershipLost: another process has taken the run since ``epoch``; nothing was set.
    """
    row = tx.row("flow_run.for_transition", id=run_id)
    if row is None:
        return
    if cancelled is not None:
        # Where it has ended, this was done already, here or by another one, in the epoch before.
        if StateType(row[1]) not in TERMINAL_TYPES:
            end_cancelled(
                tx,
                run_id=run_id,
                cancelled=cancelled,
                now=now,
                epoch=epoch,
                new_id=new_id,
                gone_id=gone_id,
            )
    elif row[-1] == epoch:
        _cancel_children(tx, run_id=run_id, now=now, new_id=new_id, gone_id=gone_id)
        _fence_off(tx, run_id, gone_id, now=now)


def _fence_off(tx: Transaction, run_id: UUID, owner_id: UUID | None, *, now: int) -> None:
    if owner_id is not None:
        tx.run("flow_run.fence_off", id=run_id, owner_id=owner_id, now=now)


def _cancel_children(
    tx: Transaction,
    *,
    run_id: UUID,
    now: int,
    new_id: Callable[[], UUID],
    gone_id: UUID | None,
) -> None:
    """Set the task runs and flow runs CANCELLED that a flow run called and that have not ended.

    The ids of the states are made here: a second time there is nothing left to set.
    """
    for (task_run_id,) in tx.rows("task_run.unfinished_of_flow_run", flow_run_id=run_id):
        cancelled = Proposal(
            id=new_id(),
            type=StateType.CANCELLED,
            name="Cancelled",
            timestamp=now,
            message="the flow run that it belongs to was cancelled",
        )
        child = tx.row("flow_run.child_of", parent_task_run_id=task_run_id)
        if child is None or StateType(child[1]) in TERMINAL_TYPES:
            propose(tx, "task_run", run_id=task_run_id, proposal=cancelled, now=now, epoch=None)
        else:
            # It takes the task run that tracks it along.
            end_cancelled(
                tx,
                run_id=child[0],
                cancelled=cancelled,
                now=now,
                epoch=None,
                new_id=new_id,
                gone_id=gone_id,
            )


def release(tx: Transaction, *, run_id: UUID, epoch: int, now: int) -> None:
    """Have a run belong to nobody, unless another process has taken it since ``epoch``."""
    tx.run("flow_run.release", id=run_id, epoch=epoch, now=now)


def note_cancelling(tx: Transaction, *, run_id: UUID, proposal: Proposal, now: int) -> None:
    """Say what a run waits for that is being cancelled; nothing when it has ended meanwhile."""
    row = tx.row("flow_run.for_transition", id=run_id)
    if row is not None and row[1] == StateType.CANCELLING:
        propose(tx, "flow_run", run_id=run_id, proposal=proposal, now=now, epoch=None, force=True)


def check_owner(tx: Transaction, *, run_id: UUID, epoch: int) -> None:
    """Refuse an owner whose run was taken over.

    Raises:
        OwnershipLost: it was.
    """
    check_epoch(tx.value("flow_run.epoch", id=run_id), epoch, run_id)


def get_flow_runs(tx: Transaction, ids: Sequence[UUID]) -> list[FlowRunRow]:
    """The flow runs with these ids, in this order; those that do not exist are left out."""
    rows = tx.rows("flow_run.get_many", ids=encode_struct([str(id) for id in ids]))
    return [_flow_run(tx, row) for row in rows]


def _flow_run(tx: Transaction, row: Sequence[Any]) -> FlowRunRow:
    state = state_from(tx, row[4:12], flow_run_id=row[0], task_run_id=row[-2])
    columns: list[Any] = [*row[:4], state, *row[12:]]
    return FlowRunRow(*columns)


def unfinished_with_parameters(
    tx: Transaction, *, flow_name: str, parameters_hash: bytes
) -> UUID | None:
    """The newest run of a flow with equal parameters that has not completed."""
    found = flow_id(tx, name=flow_name)
    if found is None:
        return None
    run_id: UUID | None = tx.value(
        "flow_run.unfinished_with_parameters", flow_id=found, parameters_hash=parameters_hash
    )
    return run_id


def child_of(tx: Transaction, *, parent_task_run_id: UUID) -> FlowRunRow | None:
    """The newest flow run that a task run called, if any."""
    found: UUID | None = tx.value("flow_run.child_of", parent_task_run_id=parent_task_run_id)
    return None if found is None else get_flow_runs(tx, [found])[0]


def to_resume(tx: Transaction) -> list[tuple[UUID, str, str | None]]:
    """Id, flow name and entry point of the runs that wait to be resumed, oldest first."""
    return [(row[0], row[1], row[2]) for row in tx.rows("flow_run.to_resume")]


def flow_run_history(
    tx: Transaction, *, run_id: UUID, parent_task_run_id: UUID | None = None
) -> list[State]:
    """All states of a flow run, oldest first."""
    rows = tx.rows("flow_run_state.history", flow_run_id=run_id)
    return states_from(tx, rows, flow_run_id=run_id, task_run_id=parent_task_run_id)


def states_from(
    tx: Transaction,
    rows: Sequence[Sequence[object]],
    *,
    flow_run_id: UUID | None,
    task_run_id: UUID | None,
) -> list[State]:
    """The states of a history; see :func:`state_from`."""
    found = [state_from(tx, row, flow_run_id=flow_run_id, task_run_id=task_run_id) for row in rows]
    return [state for state in found if state is not None]


def state_from(
    tx: Transaction,
    row: Sequence[object],
    *,
    flow_run_id: UUID | None,
    task_run_id: UUID | None,
) -> State | None:
    """The state in the columns id, type, name, timestamp, message, details, data and format.

    Args:
        tx: in which they were read.
        row: the columns; all None for a run without a state.
        flow_run_id: whose state it is, or to which the task run belongs.
        task_run_id: whose state it is, or that called the flow run.
    """
    id, type, name, timestamp, message, details, data, data_format = row
    if id is None:
        return None
    assert isinstance(id, UUID)
    assert isinstance(timestamp, int)
    state: State = State(
        id=id,
        type=StateType(str(type)),
        name=str(name),
        timestamp=timestamp,
        message=message if isinstance(message, str) else None,
        state_details=decode_details(details) if isinstance(details, dict) else NO_DETAILS,
        data=data if isinstance(data, bytes) else None,
        data_format=data_format if isinstance(data_format, str) else None,
    )
    state.places = tx.places
    return state.of_run(flow_run_id=flow_run_id, task_run_id=task_run_id)
