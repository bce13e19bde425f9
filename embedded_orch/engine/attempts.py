"""How an attempt at a task ends for its own SQL and for the transaction that it is a part of.

A task that uses neither pays a look at two attributes; what they need is imported by the first that
does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedded_orch.engine.contexts import TaskRunContext
    from embedded_orch.engine.effects import Effect, Steps
    from embedded_orch.engine.task_record import TaskRecord
    from embedded_orch.orchestration.values import Proposal


def completion(context: TaskRunContext, record: TaskRecord, completed: Proposal) -> Effect:
    """The proposal of the completion, in the transaction of the attempt's own SQL if there is one.

    Args:
        context: of the attempt.
        record: of the task run.
        completed: the state.
    """
    connection = context.open_connection
    if connection is None:
        return record.complete(completed)
    from embedded_orch.engine.connection import Complete

    return Complete(connection, record.operation(completed), after=record.written_before())


def undo(context: TaskRunContext, error: BaseException) -> Steps[None]:
    """Undo the own SQL of an attempt that raised; an interrupted one rolls back all around it."""
    connection = context.open_connection
    if connection is not None:
        from embedded_orch.engine.connection import Undo

        yield Undo(connection, error)
    if not isinstance(error, Exception):
        yield from fail(context, is_final=True)


def fail(context: TaskRunContext, *, is_final: bool) -> Steps[None]:
    """Roll back what was staged in an attempt that failed; with the last, what is around it."""
    if context.is_in_transaction:
        yield from context.transaction.failed_steps(is_final=is_final)


def settle(context: TaskRunContext, value: object) -> Steps[None]:
    """Stage what a call returned; committed at once where no transaction is around it."""
    if context.is_in_transaction:
        hooks = context.task.options.hooks
        yield from context.transaction.completed_steps(
            value, on_commit=hooks["on_commit"], on_rollback=hooks["on_rollback"]
        )
