"""Futures of submitted tasks."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from embedded_orch import errors
from embedded_orch.db.handoff import answer_for_running_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from uuid import UUID

    from embedded_orch.engine.runner import Runner
    from embedded_orch.states import State

R = TypeVar("R")


class Future(Generic[R]):
    """A task run that was submitted, from the moment it was.

    Any thread may hold it and wait for it; it is final once the task run is.
    """

    __slots__ = (
        "_callbacks",
        "_changed",
        "_error",
        "_lock",
        "_runner",
        "_state",
        "name",
        "task_run_id",
    )

    def __init__(self, name: str, runner: Runner) -> None:
        self.name = name
        self.task_run_id: UUID | None = None
        self._runner = runner
        # Entered as the plain lock that it is: Ctrl-C can fall between the taking of a Condition
        # and the block, and nobody would give it back.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._state: State | None = None
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[Future[R]], object]] = []

    @property
    def state(self) -> State:
        """The final state of the task run.

        Raises:
            UnfinishedRun: it has not ended.
            BaseException: what interrupted it before it had a final state.
        """
        if self._state is None:
            raise self._error or errors.UnfinishedRun(f"task run {self.name} has not ended")
        return self._state

    @property
    def is_completed(self) -> bool:
        """Whether it has ended, and well."""
        return self._state is not None and self._state.is_completed()

    @property
    def ending(self) -> str:
        """How it ended, in a word: the name of its state, or of what interrupted it."""
        return self._state.name if self._state is not None else type(self._error).__name__

    @property
    def is_done(self) -> bool:
        """Whether it has ended."""
        return self._state is not None or self._error is not None

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it has ended, or ``timeout`` seconds; says nothing of how it ended."""
        if self.is_done:
            return
        # A worker that only waits lends its place, or a task that waits for tasks of its own
        # runner would wait for a place that it holds itself.
        with self._runner.lending(), self._lock:
            self._changed.wait_for(lambda: self.is_done, timeout)

    async def wait_async(self) -> None:
        """Wait until it has ended without blocking the event loop."""
        answer = answer_for_running_loop()
        self.add_done_callback(lambda _: answer.notify())
        await answer.wait()

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> R:
        """What the task returned.

        Args:
            timeout: seconds to wait at most; None to wait as long as it takes.
            raise_on_failure: raise what the task raised; else return that exception.

        Raises:
            TimeoutError: it has not ended in time.
        """
        self.wait(timeout)
        if not self.is_done:
            raise TimeoutError(f"task run {self.name} has not ended after {timeout} s")
        if self._error is not None:
            raise self._error
        value: R = self.state.result_now(raise_on_failure)
        return value

    def add_done_callback(self, callback: Callable[[Future[R]], object]) -> None:
        """Call ``callback`` with this future once it has ended, at once if it has."""
        with self._lock:
            if not self.is_done:
                self._callbacks.append(callback)
                return
        self._call(callback)

    def finish(self, state: State) -> None:
        """Set the final state."""
        self._settle(state, None)

    def fail(self, error: BaseException) -> None:
        """Set what kept the run from a final state."""
        self._settle(None, error)

    def _settle(self, state: State | None, error: BaseException | None) -> None:
        with self._lock:
            self._state = state
            self._error = error
            callbacks, self._callbacks = self._callbacks, []
            self._changed.notify_all()
        for callback in callbacks:
            self._call(callback)

    def _call(self, callback: Callable[[Future[R]], object]) -> None:
        try:
            callback(self)
        except Exception:
            import logging

            logging.getLogger("embedded_orch.engine").exception(
                "a callback of task run %s raised", self.name
            )

    def __repr__(self) -> str:
        what = self._state.name if self._state else "failed" if self._error else "running"
        return f"<Future {self.name} {what}>"


class FutureList(list[Future[R]]):
    """The futures of a ``map``, in the order of its inputs."""

    def wait(self, timeout: float | None = None) -> None:
        """Wait until all have ended, or ``timeout`` seconds."""
        import time

        deadline = None if timeout is None else time.monotonic() + timeout
        for future in self:
            future.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> list[R]:
        """What the tasks returned, in order.

        Raises:
            TimeoutError: not all have ended in time.
        """
        import time

        deadline = None if timeout is None else time.monotonic() + timeout
        return [
            future.result(
                None if deadline is None else max(0.0, deadline - time.monotonic()),
                raise_on_failure,
            )
            for future in self
        ]


def resolve(value: Any, take: Callable[[Future[Any]], Any]) -> Any:
    """``value`` with each future in it, also in lists, tuples, sets and dicts, replaced.

    Whatever holds no future is returned as it is, not as a copy.
    """
    if isinstance(value, Future):
        return take(value)
    kind = type(value)
    if kind is dict:
        found = {key: resolve(item, take) for key, item in value.items()}
        return found if _differs(found.values(), value.values()) else value
    if kind in (list, tuple, set, frozenset, FutureList):
        items = [resolve(item, take) for item in value]
        if not _differs(items, value):
            return value
        return items if kind is FutureList else kind(items)
    return value


def futures_in(value: Any) -> list[Future[Any]]:
    """Every future in ``value``, as :func:`resolve` would find them."""
    found: list[Future[Any]] = []
    resolve(value, found.append)
    return found


def _differs(new: Iterable[object], old: Iterable[object]) -> bool:
    return any(a is not b for a, b in zip(new, old, strict=True))
