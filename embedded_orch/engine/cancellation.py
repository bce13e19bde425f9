"""Ending a flow run early, from any thread, wherever its function runs.

The function of a flow runs in a thread or on a loop that is the user's. Plain code is interrupted
as when a time limit ends (:mod:`embedded_orch.engine.timeouts`), and a coroutine by the
cancellation of what it awaits. Who asks for it stands in :mod:`embedded_orch.engine.watching`.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import TYPE_CHECKING, Any

from embedded_orch import errors
from embedded_orch.db.handoff import call_in_running_loop

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from embedded_orch.engine.contexts import FlowRunContext
    from embedded_orch.engine.effects import Effect
    from embedded_orch.engine.futures import Future
    from embedded_orch.states import State


@cache
def _parts() -> tuple[Callable[..., Any], Callable[[Any], list[Future[Any]]]]:
    """What the first call imports, and the others find: an import statement looks each time."""
    from embedded_orch.engine.inputs import futures_in
    from embedded_orch.engine.timeouts import within

    return within, futures_in


class Cancellation:
    """Whether one flow run is to end early, and how it is reached. Any thread may ask for it.

    Attributes:
        run_id: the run.
        name: of the run.
        epoch: in which it is being run.
        caller: that of the run that called it, if any.
        suspension: the state of the run, when somebody else has suspended it.
    """

    __slots__ = (
        "_context",
        "_interrupt",
        "_lock",
        "_reason",
        "caller",
        "epoch",
        "name",
        "run_id",
        "suspension",
    )

    def __init__(self, run_id: UUID, name: str, caller: Cancellation | None) -> None:
        self.run_id = run_id
        self.name = name
        self.caller = caller
        self.epoch = 0
        self.suspension: State | None = None
        self._lock = threading.Lock()
        self._reason: str | None = None
        self._context: FlowRunContext | None = None
        self._interrupt: Callable[[], object] | None = None

    @property
    def is_requested(self) -> bool:
        """Whether it was asked for this very run, and not only for one that called it."""
        return self._reason is not None

    @property
    def reason(self) -> str | None:
        """Why the run is to end; None if it is not."""
        if self._reason is not None:
            return self._reason
        if self.caller is None or self.caller.reason is None:
            return None
        return "the flow run that called it was cancelled"

    def begin(self, context: FlowRunContext | None, interrupt: Callable[[], object]) -> None:
        """From here on the run is reached by ``interrupt``; at once when it is to end already.

        Args:
            context: of the attempt that goes on, if one does.
            interrupt: ends what the run does.
        """
        with self._lock:
            self._context, self._interrupt = context, interrupt
            is_due = self._reason is not None
        if is_due:
            interrupt()

    def end(self) -> None:
        """From here on it cannot be reached."""
        with self._lock:
            self._interrupt = None

    def let_go(self) -> None:
        """The run is over, and so is its attempt, which holds this in turn.

        With it let go, both end without the garbage collector.
        """
        with self._lock:
            self._context = None

    def request(self, reason: str) -> None:
        """Have the run end, and then what it submitted; the first reason counts."""
        with self._lock:
            if self._reason is not None:
                return
            self._reason = reason
            context, interrupt = self._context, self._interrupt
        if interrupt is not None:
            # First, or its code would see its tasks fail, and deal with that.
            interrupt()
        if context is not None:
            context.abandon_runner()

    def check(self) -> None:
        """Refuse to begin anything more that is part of the run.

        Raises:
            CancelledRun: it is to end.
            Pause: somebody has suspended it.
        """
        suspended: Cancellation | None = self
        while suspended is not None:
            if suspended.suspension is not None:
                raise errors.Pause(
                    f"flow run {suspended.name} was suspended", state=suspended.suspension
                )
            suspended = suspended.caller
        reason = self.reason
        if reason is not None:
            raise errors.CancelledRun(f"flow run {self.name} is being cancelled: {reason}")

    def blocked(self) -> list[str]:
        """What of the run goes on: its function, and tasks that it submitted."""
        with self._lock:
            context, is_in_function = self._context, self._interrupt is not None
        names = [] if context is None else context.running_names()
        tasks = [f"task run {name}" for name in names]
        return [*tasks, f"the function of flow run {self.name}"] if is_in_function else tasks

    def __repr__(self) -> str:
        return f"<Cancellation of {self.name}>"


class Cancellable:
    """The call of a flow's function, which ends when its run is to end.

    Args:
        call: the call.
        context: of the attempt that it is.
    """

    __slots__ = ("_call", "_context")

    def __init__(self, call: Effect, context: FlowRunContext) -> None:
        self._call = call
        self._context = context

    def perform(self) -> Any:
        """Do it in this thread."""
        within, _ = _parts()
        cancellation = self._context.cancellation
        try:
            return within(
                None,
                self._perform,
                self._error,
                begun=lambda limit: cancellation.begin(self._context, limit.expire),
            )
        finally:
            cancellation.end()

    def _perform(self) -> Any:
        _, futures_in = _parts()
        value = self._call.perform()
        for future in futures_in(value):
            future.wait()
        return value

    async def perform_async(self) -> Any:
        """Do it without blocking the event loop."""
        import anyio

        from embedded_orch.engine.inputs import futures_in

        cancellation = self._context.cancellation
        with anyio.CancelScope() as scope:
            cancel = call_in_running_loop(scope.cancel)
            try:
                cancellation.begin(self._context, cancel)
                value = await self._call.perform_async()
                for future in futures_in(value):
                    await future.wait_async()
                return value
            finally:
                cancellation.end()
        raise self._error()

    def _error(self) -> errors.CancelledRun:
        name, reason = self._context.name, self._context.cancellation.reason
        return errors.CancelledRun(f"flow run {name} was cancelled: {reason}")
