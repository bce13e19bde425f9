"""Futures of submitted tasks."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from embedded_orch.db.bell import Bell
from embedded_orch.db.handoff import answer_for_running_loop
from embedded_orch.engine.workers import wait_here

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from uuid import UUID

    from embedded_orch.states import State

R = TypeVar("R")


class Future(Generic[R]):
    """A task run that was submitted, from the moment it was.

    Any thread may hold it and wait for it, and a coroutine may await it; it is final once the task
    run is. Of the task it keeps the final state, with the result, and nothing else.

    Args:
        name: of the task run.
        task_run_id: its id; another one when the run turns out to be on record.
        look_up: tells the present state of the run, as long as it has not ended.
    """

    __slots__ = ("_lock", "_look_up", "_state", "_to_call", "name", "task_run_id")

    def __init__(self, name: str, task_run_id: UUID, look_up: Callable[[UUID], State]) -> None:
        self.name = name
        self.task_run_id = task_run_id
        self._look_up: Callable[[UUID], State] | None = look_up
        self._lock = threading.Lock()
        self._state: State | None = None
        self._to_call: list[Callable[[], object]] = []

    @property
    def state(self) -> State:
        """The final state of the task run; before it has ended, the one it is in now."""
        look_up = self._look_up
        found = None if look_up is None else look_up(self.task_run_id)
        # It may have ended meanwhile.
        state = self._state or found
        assert state is not None, "a future whose look_up is gone has its final state"
        return state

    @property
    def is_completed(self) -> bool:
        """Whether it has ended, and well."""
        return self._state is not None and self._state.is_completed()

    @property
    def is_done(self) -> bool:
        """Whether it has ended."""
        return self._state is not None

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it has ended, or ``timeout`` seconds; says nothing of how it ended."""
        if self._state is not None:
            return
        ended = Bell()
        if self.call_at_end(ended.ring):
            try:
                # A worker that only waits lends its place, or a task that waits for tasks of its
                # own runner would wait for a place that it holds itself.
                wait_here(ended, timeout)
            finally:
                self.forget(ended.ring)

    async def wait_async(self) -> None:
        """Wait until it has ended without blocking the event loop."""
        answer = answer_for_running_loop()
        if not self.call_at_end(answer.notify):
            return
        try:
            await answer.wait()
        finally:
            self.forget(answer.notify)

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> R:
        """What the task returned.

        Args:
            timeout: seconds to wait at most; None to wait as long as it takes.
            raise_on_failure: raise what the task raised; else return that exception.

        Raises:
            TimeoutError: it has not ended in time.
        """
        self.wait(timeout)
        if self._state is None:
            raise TimeoutError(f"task run {self.name} has not ended after {timeout} s")
        value: R = self._state.result_now(raise_on_failure)
        return value

    def __await__(self) -> Generator[Any, None, R]:
        """Wait without blocking the event loop; what the task returned, or raised."""
        yield from self.wait_async().__await__()
        return self.result()

    def add_done_callback(self, fn: Callable[[Future[R]], object]) -> None:
        """Call ``fn`` with this future once it has ended, at once if it has."""

        def call() -> None:
            try:
                fn(self)
            except Exception:
                import logging

                logging.getLogger("embedded_orch.engine").exception(
                    "a callback of task run %s raised", self.name
                )

        if not self.call_at_end(call):
            call()

    def finish(self, state: State) -> None:
        """Set the final state, unless it has one."""
        with self._lock:
            if self._state is not None:
                return
            self._state = state
            self._look_up = None
            to_call, self._to_call = self._to_call, []
        for call in to_call:
            call()

    def call_at_end(self, call: Callable[[], object]) -> bool:
        """Have ``call``, which must not raise, called once it has ended; False if it has."""
        with self._lock:
            if self._state is not None:
                return False
            self._to_call.append(call)
            return True

    def forget(self, call: Callable[[], object]) -> None:
        """Who waited has been answered, or waits no longer."""
        with self._lock:
            if call in self._to_call:
                self._to_call.remove(call)

    def __repr__(self) -> str:
        return f"<Future {self.name} {self._state.name if self._state else 'running'}>"


class FutureList(list[Future[R]]):
    """The futures of a ``map``, in the order of its inputs; to be awaited as one of them is."""

    def wait(self, timeout: float | None = None) -> None:
        """Wait until all have ended, or ``timeout`` seconds."""
        remaining = until(timeout)
        for future in self:
            future.wait(remaining())

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> list[R]:
        """What the tasks returned, in order.

        Args:
            timeout: seconds to wait at most; None to wait as long as it takes.
            raise_on_failure: raise what the first of them that fails raises, without waiting for
                the others; else return its exception in its place.

        Raises:
            TimeoutError: not all have ended in time.
        """
        from embedded_orch.engine.awaiting import as_completed

        remaining = until(timeout)
        if raise_on_failure:
            for future in as_completed(self, timeout):
                if not future.is_completed:
                    future.result()
        return [future.result(remaining(), raise_on_failure) for future in self]

    def __await__(self) -> Generator[Any, None, list[R]]:
        """:meth:`result` without blocking the event loop."""
        from embedded_orch.engine.awaiting import all_or_a_failure

        yield from all_or_a_failure(self).__await__()
        return self.result()


def until(timeout: float | None) -> Callable[[], float | None]:
    """What is left of ``timeout`` seconds, whenever it is called; None if there is no limit."""
    if timeout is None:
        return lambda: None
    deadline = time.monotonic() + timeout
    return lambda: max(0.0, deadline - time.monotonic())
