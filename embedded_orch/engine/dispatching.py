"""Functions that are called alike from plain and from asynchronous code, as in Prefect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedded_orch.db.current import running_task
from embedded_orch.engine.contexts import current_run
from embedded_orch.engine.effects import drive, drive_async

if TYPE_CHECKING:
    from embedded_orch.engine.effects import Steps


def dispatch(steps: Steps[Any], *, is_sync: bool | None = None) -> Any:
    """What the steps return, or in asynchronous code a coroutine that does.

    Code is asynchronous when the innermost run around it is that of an ``async def``, and outside
    of runs when a task of an event loop runs it.

    Args:
        steps: what is to be done.
        is_sync: whether the caller is plain code, when it says so itself.
    """
    if is_sync is None:
        run = current_run()
        is_sync = running_task() is None if run is None else not run.is_async
    return drive(steps) if is_sync else drive_async(steps)
