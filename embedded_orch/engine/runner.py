"""Where submitted tasks run: threads for plain functions, one event loop for ``async def`` ones.

A flow run has one runner, made with its first submitted task and stopped with it. Threads are
started as work comes, up to a limit, and reused. A thread that only waits for another task lends
its place meanwhile, so tasks that submit tasks cannot starve each other; the loop runs in a thread
of its own, so that ``future.result()`` may be called on any other loop.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from embedded_orch import errors

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Coroutine, Generator
    from contextlib import AbstractContextManager

    from embedded_orch.engine.loops import Loop

# Threads that work at one time, unless the user says otherwise.
DEFAULT_WORKERS = 32
_IDLE_SECONDS = 5.0

_here = threading.local()
# How many loops of runners the running code is inside of.
_level: ContextVar[int] = ContextVar("embedded_orch_level", default=0)


class Job:
    """Something to run, and whom to tell when it is not going to be."""

    __slots__ = ("cancel", "run")

    def __init__(self, run: Callable[[], object], cancel: Callable[[BaseException], None]) -> None:
        self.run = run
        self.cancel = cancel


class Runner:
    """The threads and the loop of one flow run.

    Any thread may submit; ``stop`` is called once, by the flow run that ends.
    """

    def __init__(self, max_workers: int = DEFAULT_WORKERS) -> None:
        self._limit = max_workers
        # Entered as the plain lock that it is: Ctrl-C can fall between the taking of a Condition
        # and the block, and nobody would give it back.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._jobs: deque[Job] = deque()
        self._threads: set[threading.Thread] = set()
        self._idle = 0
        self._waiting = 0
        self._is_stopped = False
        self._stopping = threading.Lock()
        self._loops: dict[tuple[str, int], Loop] = {}

    def submit(self, job: Job) -> None:
        """Run a job in a thread.

        Raises:
            MissingContextError: the flow run has ended.
        """
        with self._lock:
            self._check()
            self._jobs.append(job)
            self._staff()

    def submit_async(self, run: Callable[[], Coroutine[Any, Any, None]], *, backend: str) -> None:
        """Run a coroutine function, which must not raise, on a loop of the runner.

        What runs on a loop may block it, waiting for what it submitted. So that runs on another
        loop: there is one for each level of nesting.
        """
        level = _level.get()

        async def run_one_level_down() -> None:
            _level.set(level + 1)
            await run()

        self._loop(backend, level).start(run_one_level_down)

    def lending(self) -> AbstractContextManager[None]:
        """While it lasts, the calling worker does not count: another may work in its place."""
        working_for: object = getattr(_here, "runner", None)
        return self._lend() if working_for is self else nullcontext()

    def cancel(self) -> None:
        """Cancel what has not begun, and take nothing more."""
        with self._lock:
            self._is_stopped = True
            cancelled = list(self._jobs)
            self._jobs.clear()
            self._changed.notify_all()
        if cancelled:
            _log().warning(
                "%d submitted tasks had not begun when their flow ended, and are not run; wait "
                "for their futures, or return them, to have them run",
                len(cancelled),
            )
        for job in cancelled:
            job.cancel(errors.CancelledRun("the flow ended before this task began"))

    def stop(self) -> None:
        """Cancel what has not begun, wait for what has, and let the threads go."""
        self.cancel()
        with self._stopping:
            for thread in list(self._threads):
                # One that Ctrl-C kept from being started is there too, and never lives.
                if thread.is_alive():
                    thread.join()
            for loop in list(self._loops.values()):
                loop.close()

    @contextmanager
    def _lend(self) -> Generator[None]:
        with self._lock:
            self._waiting += 1
            self._staff()
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1

    def _staff(self) -> None:
        """Wake a worker or start one. The caller holds the lock."""
        if not self._jobs:
            return
        if self._idle >= len(self._jobs):
            self._changed.notify()
        elif len(self._threads) - self._waiting < self._limit:
            thread = threading.Thread(target=self._work, name="embedded_orch worker", daemon=True)
            self._threads.add(thread)
            thread.start()

    def _work(self) -> None:
        _here.runner = self
        try:
            while (job := self._next_job()) is not None:
                job.run()
        finally:
            # Jobs tell their futures how they fail; should one not, its worker does not count.
            self._threads.discard(threading.current_thread())

    def _next_job(self) -> Job | None:
        with self._lock:
            while not self._jobs:
                if self._is_stopped:
                    self._leave()
                    return None
                self._idle += 1
                came = self._changed.wait(_IDLE_SECONDS)
                self._idle -= 1
                if not came and not self._jobs:
                    self._leave()
                    return None
            if len(self._threads) - self._waiting > self._limit:
                # A worker that had lent its place is back: one too many.
                self._leave()
                return None
            return self._jobs.popleft()

    def _leave(self) -> None:
        """Not count any more, from the moment of the decision. The caller holds the lock."""
        self._threads.discard(threading.current_thread())

    def _check(self) -> None:
        if self._is_stopped:
            raise errors.MissingContextError("the flow run that this task belongs to has ended")

    def _loop(self, backend: str, level: int) -> Loop:
        with self._lock:
            self._check()
            loop = self._loops.get((backend, level))
            if loop is None:
                from embedded_orch.engine.loops import Loop

                loop = self._loops[backend, level] = Loop(backend)
                loop.open()
            return loop


def _log() -> logging.Logger:
    import logging

    return logging.getLogger("embedded_orch.engine")
