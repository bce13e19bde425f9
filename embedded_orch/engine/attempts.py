"""How an attempt at a task ends for its own SQL and for the transaction that it is a part of.

A task that uses neither pays a look at two attributes; what they need is imported by the first that
does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedded_orch.db.port import Announced, Transaction
    from embedded_orch.engine.contexts import TaskRunContext
    from embedded_orch.engine.effects import Effect, Steps
    from embedded_orch.orchestration.values import Decision


def completion(
    context: TaskRunContext,
    operation: Callable[[Transaction], Decision],
    *,
    after: Announced | None,
) -> Effect:
    """The proposal of the completion, in the transaction of the attempt's own SQL if there is one.

    Args:
        context: of the attempt.
        operation: proposes the Completed state.
        after: what was announced of the run before.
    """
    connection = context.open_connection
    if connection is None:
        from embedded_orch.engine.effects import Write

        return Write(context.engine.database, operation, after=after)
    from embedded_orch.engine.connection import Complete

    return Complete(connection, operation, after=after)


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
