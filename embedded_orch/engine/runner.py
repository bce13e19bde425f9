"""Where submitted tasks run: threads for plain functions, event loops for ``async def`` ones.

A flow run has one runner, made with its first submitted task and stopped with it.

There are as many places as tasks may run at one time. A worker, which is a thread, holds one while
it runs a task, and lends it while it only waits for a future, so tasks that submit tasks cannot
starve each other. Back from waiting, it goes on only when a place is free, before anything new
begins: never do more run than there are places. Tasks that were submitted by tasks begin first, so
that few workers wait at one time, however many tasks there are. Nor does one wait for the futures
that a task was given: it begins when they have ended.

Not all places are open at first. Threads share one interpreter, and where tasks are short it is
what they wait for: sixteen of them then do as much as can be done, and sixty-four are in each
other's way (111 and 167 us a task, measured). So more open only while tasks wait for a place, and
those that have one keep it.

The loops run in threads of their own, so that ``future.result()`` may be called on any other loop.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from embedded_orch import errors
from embedded_orch.db.bell import Bell
from embedded_orch.engine.workers import Job, Worker, current_worker

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Coroutine, Iterable, Iterator

    from embedded_orch.engine.futures import Future
    from embedded_orch.engine.loops import Loop
    from embedded_orch.engine.task_call import TaskCall

# Tasks that run at one time in threads, unless the user says otherwise.
DEFAULT_WORKERS = 64
_IDLE_SECONDS = 5.0
# So many places are open at first, and four times as many after each look that finds that little
# has happened since the last one, or that there was processor time to spare: the part of it that a
# busy interpreter uses. A thread that computes keeps the others waiting for 5 ms.
_OPEN_AT_FIRST = 16
_LOOK_SECONDS = 0.005
_BUSY = 0.75
# How long a stop waits for tasks that it has interrupted before it says which ones.
_PATIENCE_SECONDS = 5.0
ENDED = "the flow ended before this task did"

# How many loops of runners the running code is inside of.
_level: ContextVar[int] = ContextVar("embedded_orch_level", default=0)


class RunnerSource(Protocol):
    """What the option ``task_runner`` of a flow is."""

    def open_runner(self) -> Runner:
        """A runner for one flow run."""
        ...


class Runner:
    """The threads and the loops of one flow run.

    Any thread may submit; ``stop`` is called by the flow run that ends.

    Args:
        max_workers: how many tasks may run at one time in threads.
    """

    def __init__(self, max_workers: int = DEFAULT_WORKERS) -> None:
        self._limit = max_workers
        self._open = min(_OPEN_AT_FIRST, max_workers)
        # How many jobs have come, and how many have begun.
        self._moves = 0
        self._opener: threading.Thread | None = None
        self._end_of_looks = Bell()
        # Entered as the plain lock that it is, never as a Condition: Ctrl-C can fall between the
        # taking of one and the block, and nobody would give it back.
        self._lock = threading.Lock()
        # By depth. What is deepest begins first: somebody waits for it.
        self._queues: list[deque[Job]] = [deque()]
        # All that have not begun, those too that are not queued yet; in order.
        self._unbegun: dict[Job, None] = {}
        self._workers: set[Worker] = set()
        self._idle: list[Worker] = []
        # Sets, and no counts: who is interrupted between two lines is still counted right.
        self._holders: set[Worker] = set()
        self._returning: dict[Worker, Bell] = {}
        self._is_stopped = False
        self._is_interrupted = False
        self._stopping = threading.Lock()
        self._loops: dict[tuple[str, int], Loop] = {}

    # -- submitting ------------------------------------------------------------------------------

    def prepare(self, call: TaskCall) -> None:
        """See to it that the function of a call runs where it should; here it does as it is."""

    def submit(self, job: Job, after: Iterable[Future[Any]] = ()) -> None:
        """Run a job in a thread, once the futures ``after`` have ended.

        Raises:
            MissingContextError: the flow run has ended.
        """
        job.depth = self._depth_here()
        unfinished = [future for future in after if not future.is_done]
        with self._lock:
            self._check()
            self._unbegun[job] = None
            self._moves += 1
            if not unfinished:
                self._enqueue(job)
        if unfinished:
            self._open_gate(job, iter(unfinished))

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

    def _depth_here(self) -> int:
        worker = current_worker()
        if worker is not None and worker.places is self:
            return worker.depth + 1
        return _level.get()

    def _open_gate(self, job: Job, futures: Iterator[Future[Any]]) -> None:
        for future in futures:
            if future.call_at_end(lambda: self._open_gate(job, futures)):
                return
        with self._lock:
            # Unless it was cancelled meanwhile.
            if job in self._unbegun:
                self._enqueue(job)

    def _enqueue(self, job: Job) -> None:
        """The caller holds the lock, as for all that follows and does not take it."""
        while len(self._queues) <= job.depth:
            self._queues.append(deque())
        self._queues[job.depth].append(job)
        self._fill_places()

    def _check(self) -> None:
        if self._is_stopped:
            raise errors.MissingContextError("the flow run that this task belongs to has ended")

    # -- places ----------------------------------------------------------------------------------

    def lend(self, worker: Worker) -> None:
        """The worker only waits: another may run in its place."""
        with self._lock:
            self._holders.discard(worker)
            self._fill_places()

    def take_back(self, worker: Worker) -> None:
        """The worker goes on, as soon as there is a place for it."""
        with self._lock:
            if not self._returning and len(self._holders) < self._limit:
                self._holders.add(worker)
                return
            has_place = self._returning[worker] = Bell()
        has_place.wait()

    def _fill_places(self) -> None:
        while len(self._holders) < self._limit:
            if self._returning:
                worker = next(iter(self._returning))
                self._holders.add(worker)
                self._returning.pop(worker).ring()
                continue
            queue = self._deepest()
            if queue is None:
                return
            if len(self._holders) >= self._open and self._opens_more_soon():
                return
            if self._idle:
                worker = self._idle.pop()
                self._holders.add(worker)
                self._give(worker, queue)
                worker.wake()
            elif not self._start_worker(queue):
                return

    def _deepest(self) -> deque[Job] | None:
        for queue in reversed(self._queues):
            if queue:
                return queue
        return None

    def _start_worker(self, queue: deque[Job]) -> bool:
        """Start a thread for the first job; False if there can be no more, and others go on."""
        worker = Worker(self, self._work)
        self._workers.add(worker)
        self._holders.add(worker)
        job = self._give(worker, queue)
        try:
            worker.thread.start()
        except BaseException as error:
            if worker.thread.ident is not None:
                # Ctrl-C, and the thread lives.
                raise
            self._workers.discard(worker)
            self._holders.discard(worker)
            if not isinstance(error, RuntimeError) or not self._workers:
                raise
            queue.appendleft(job)
            self._unbegun[job] = None
            return False
        return True

    def _give(self, worker: Worker, queue: deque[Job]) -> Job:
        job = queue.popleft()
        self._moves += 1
        worker.give(job)
        del self._unbegun[job]
        return job

    def _opens_more_soon(self) -> bool:
        """Whether somebody looks; all places are open now where nobody can."""
        # One that Ctrl-C kept from being started never lives.
        if self._opener is None or not self._opener.is_alive():
            self._opener = threading.Thread(
                target=self._open_more, name="embedded_orch places", daemon=True
            )
            try:
                self._opener.start()
            except RuntimeError:
                self._open = self._limit
                return False
        return True

    def _open_more(self) -> None:
        """Open places for as long as tasks wait for one."""
        while True:
            moves, used, began = self._moves, time.process_time(), time.perf_counter()
            self._end_of_looks.wait(_LOOK_SECONDS)
            used, passed = time.process_time() - used, time.perf_counter() - began
            with self._lock:
                if self._is_stopped or self._deepest() is None or self._open == self._limit:
                    self._opener = None
                    return
                has_stopped = self._moves - moves < self._open // 2
                if has_stopped or used < passed * _BUSY:
                    self._open = min(4 * self._open, self._limit)
                    self._fill_places()

    # -- working ---------------------------------------------------------------------------------

    def _work(self, worker: Worker) -> None:
        worker.enter_thread()
        try:
            while True:
                worker.run_job()
                if not self._has_next_job(worker):
                    return
        finally:
            with self._lock:
                # Jobs tell their futures how they fail; should one not, its worker does not count.
                self._leave(worker)
                self._fill_places()

    def _has_next_job(self, worker: Worker) -> bool:
        with self._lock:
            # A job that was interrupted may have left it anywhere.
            self._returning.pop(worker, None)
            queue = self._deepest()
            if queue is not None and worker in self._holders and not self._returning:
                self._give(worker, queue)
                return True
            self._holders.discard(worker)
            self._idle.append(worker)
            self._fill_places()
        while True:
            was_woken = not self._is_stopped and worker.sleep(_IDLE_SECONDS)
            with self._lock:
                if worker.job is not None:
                    return True
                if self._is_stopped or not was_woken:
                    self._leave(worker)
                    return False

    def _leave(self, worker: Worker) -> None:
        """Not count any more, from the moment of the decision."""
        self._workers.discard(worker)
        self._holders.discard(worker)
        if worker in self._idle:
            self._idle.remove(worker)

    # -- the end ---------------------------------------------------------------------------------

    def cancel(self) -> None:
        """Cancel what has not begun, and take nothing more."""
        with self._lock:
            self._is_stopped = True
            cancelled = list(self._unbegun)
            self._unbegun.clear()
            for queue in self._queues:
                queue.clear()
            self._end_of_looks.ring()
            for worker in self._idle:
                worker.wake()
        if cancelled:
            _log().warning(
                "%d submitted tasks had not begun when their flow ended, and are not run; wait "
                "for their futures, or return them, to have them run",
                len(cancelled),
            )
        for job in cancelled:
            job.cancel(errors.CancelledRun("the flow ended before this task began"))

    def interrupt(self) -> None:
        """Cancel what has not begun, interrupt what has, and take nothing more."""
        self.cancel()
        with self._lock:
            self._is_interrupted = True
            workers, loops = list(self._workers), list(self._loops.values())
        for worker in workers:
            worker.code.interrupt(ENDED)
        for loop in loops:
            loop.cancel()

    def stop(self) -> None:
        """Cancel what has not begun, wait for what has, and let the threads go."""
        self.cancel()
        with self._stopping:
            opener = self._opener
            if opener is not None and opener.is_alive():
                opener.join()
            for worker in list(self._workers):
                # One that Ctrl-C kept from being started is there too, and never lives.
                if worker.thread.is_alive():
                    self._join(worker)
            for loop in list(self._loops.values()):
                loop.close()

    def _join(self, worker: Worker) -> None:
        if self._is_interrupted:
            worker.thread.join(_PATIENCE_SECONDS)
            if worker.thread.is_alive():
                _log().warning(
                    "the flow has ended and waits for task run %s, which is blocked and cannot be "
                    "interrupted before it returns to Python",
                    worker.name,
                )
        worker.thread.join()

    def running_names(self) -> list[str]:
        """The names of the task runs that have begun in threads and have not ended."""
        with self._lock:
            return sorted(worker.name for worker in self._workers - set(self._idle))

    @property
    def is_interrupted(self) -> bool:
        """Whether what it runs is not wanted any more."""
        return self._is_interrupted

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
