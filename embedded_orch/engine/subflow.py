"""A flow called by a flow: a run of its own, tracked by a task run of the caller.

The task run gives the call its identity, so that a caller that is resumed or retried finds the
child again: a completed child's value is used, an interrupted one is continued.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedded_orch.engine import results
from embedded_orch.engine.effects import Read
from embedded_orch.engine.flow_call import FlowCall
from embedded_orch.engine.keeping import keeping_of
from embedded_orch.engine.options import TaskOptions
from embedded_orch.engine.resuming import owner_of, refuse_running, take_over_steps
from embedded_orch.engine.specs import TaskSpec
from embedded_orch.engine.task_call import TaskCall
from embedded_orch.states import StateType
from embedded_orch.store import flow_runs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from embedded_orch.db.port import Transaction
    from embedded_orch.engine.contexts import FlowRunContext
    from embedded_orch.engine.effects import Steps
    from embedded_orch.engine.resuming import Owned
    from embedded_orch.engine.specs import FlowSpec
    from embedded_orch.states import State


def subflow_steps(
    flow: FlowSpec,
    arguments: Mapping[str, Any],
    *,
    caller: FlowRunContext,
    parent: UUID | None,
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

    def body(task_run_id: UUID, arguments: Mapping[str, Any]) -> Steps[tuple[State, bool]]:
        # Whatever state the child enters, its task run enters in the same transaction.
        if caller.has_records:
            found: Owned | None = yield Read(
                engine.database, lambda tx: _child_and_owner(tx, task_run_id)
            )
            if found is not None:
                child, owner = found
                if child.state is not None and child.state.type is StateType.COMPLETED:
                    keeping = keeping_of(flow.options, caller.keeping)
                    known, value = results.recorded_value(child.state, keeping)
                    if known:
                        return child.state.with_value(value), False
                else:
                    refuse_running(engine, child, owner)
                    steps = take_over_steps(engine, flow, child, arguments, caller=caller)
                    return (yield from steps), True
        call = FlowCall(engine, flow, arguments, caller=caller, parent_task_run_id=task_run_id)
        return (yield from call.create_and_run()), True

    tracker = TaskSpec(
        flow.function,
        name=flow.name,
        signature=flow.signature,
        is_async=flow.is_async,
        options=TaskOptions(
            {"tags": flow.tags, "record_start": "before", **flow.options.keeping_given}
        ),
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


def _child_and_owner(tx: Transaction, task_run_id: UUID) -> Owned | None:
    child = flow_runs.child_of(tx, parent_task_run_id=task_run_id)
    return None if child is None else (child, owner_of(tx, child))
