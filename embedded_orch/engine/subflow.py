"""A flow called by a flow: a run of its own, tracked by a task run of the caller.

The task run gives the call its identity, so that a caller that is resumed or retried finds the
child again: a completed child's value is used, an interrupted one is continued.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedded_orch import errors
from embedded_orch.db.waiting_room import Waiter
from embedded_orch.engine.effects import Read, Turn
from embedded_orch.engine.flow_call import FlowCall
from embedded_orch.engine.keeping import keeping_of
from embedded_orch.engine.options import TaskOptions
from embedded_orch.engine.outside import read_recorded
from embedded_orch.engine.resuming import owner_of, runs_in_living_process, take_over_steps
from embedded_orch.engine.run_logging import logger_of
from embedded_orch.engine.specs import TaskSpec
from embedded_orch.engine.task_call import TaskCall
from embedded_orch.states import StateType
from embedded_orch.store import flow_runs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from embedded_orch.db.port import Transaction
    from embedded_orch.engine.contexts import FlowRunContext, TaskRunContext
    from embedded_orch.engine.effects import Steps
    from embedded_orch.engine.engine import Engine
    from embedded_orch.engine.resuming import Owned
    from embedded_orch.engine.specs import FlowSpec
    from embedded_orch.engine.task_record import TaskRecord
    from embedded_orch.states import State
    from embedded_orch.store.flow_runs import FlowRunRow

_FIRST_LOOK, _LAST_LOOK = 0.05, 1.0
"""Seconds between two looks at a run of another process: the first, and the longest."""


def subflow_steps(
    flow: FlowSpec,
    arguments: Mapping[str, Any],
    *,
    caller: FlowRunContext,
    parent: TaskRunContext | None,
    wait_for: object = None,
) -> Steps[State]:
    """Run a flow as part of another.

    Args:
        flow: the flow that is called.
        arguments: by parameter; may hold futures of the caller's tasks.
        caller: the flow run that calls it.
        parent: the task run that calls it, if any.
        wait_for: runs that have to have completed first.
    """
    engine = caller.engine

    def body(tracker: TaskRecord, arguments: Mapping[str, Any]) -> Steps[tuple[State, bool]]:
        return _child_steps(flow, arguments, caller, tracker)

    tracker = TaskSpec(
        flow.function,
        name=flow.name,
        signature=flow.signature,
        is_async=flow.is_async,
        options=TaskOptions({"tags": flow.tags, **flow.options.keeping_given}),
    )
    return TaskCall(
        engine,
        tracker,
        arguments,
        flow_run=caller,
        parent=parent,
        wait_for=wait_for,
        body=body,
    ).steps()


def _child_steps(
    flow: FlowSpec, arguments: Mapping[str, Any], caller: FlowRunContext, tracker: TaskRecord
) -> Steps[tuple[State, bool]]:
    """Run the child, or go on with the one that an earlier attempt has called.

    Whatever state it enters, its task run enters in the same transaction, the first ones too.

    Returns:
        Its final state, and whether the task run is in that already.
    """
    engine = caller.engine
    child = None
    if caller.has_records:
        child = yield from _child_to_continue(engine, caller, tracker.run_id)
    while child is not None and not _is_completed(child):
        try:
            return (yield from take_over_steps(engine, flow, child, arguments, caller=caller)), True
        except errors.RunNotResumable:
            # Somebody has taken it, or it has ended, since it was read.
            before = child.epoch, child.state
            child = yield from _child_to_continue(engine, caller, tracker.run_id)
            if child is not None and (child.epoch, child.state) == before:
                raise
    if child is not None and child.state is not None:
        keeping = keeping_of(flow.options, caller.keeping)
        known, value = yield from read_recorded(*child.state.stored, keeping)
        if known:
            return child.state.with_value(value), False
    call = FlowCall(engine, flow, arguments, caller=caller, tracker=tracker)
    return (yield from call.create_and_run()), True


def _child_to_continue(
    engine: Engine, caller: FlowRunContext, task_run_id: UUID
) -> Steps[FlowRunRow | None]:
    """The flow run that a task run called before, once no process runs it any more, if any.

    Somebody may have resumed it by hand, here or in another process, while nobody ran its caller:
    its end is waited for, and not made twice.
    """
    waiter = Waiter(engine.process.new_id(), (), passes=True)
    look = _FIRST_LOOK
    while True:
        caller.cancellation.check()
        found: Owned | None = yield Read(
            engine.database, lambda tx: _child_and_owner(tx, task_run_id)
        )
        if found is None:
            return None
        child, owner = found
        has_ended = child.state is not None and child.state.is_final()
        if has_ended or not runs_in_living_process(engine, child, owner):
            return child
        if look == _FIRST_LOOK and owner is not None:
            logger_of(caller).info(
                "waits for flow run %s (%s), which runs in process %d on %s",
                child.name,
                child.id,
                owner[0].pid,
                owner[0].host,
            )
        yield Turn(waiter, look, engine.process.sleep)
        look = min(look * 1.5, _LAST_LOOK)


def _is_completed(run: FlowRunRow) -> bool:
    return run.state is not None and run.state.type is StateType.COMPLETED


def _child_and_owner(tx: Transaction, task_run_id: UUID) -> Owned | None:
    child = flow_runs.child_of(tx, parent_task_run_id=task_run_id)
    return None if child is None else (child, owner_of(tx, child))
