"""The threads that run submitted tasks, and how what they run is interrupted.

A worker is told from every other thread by :func:`current_worker`, so that whatever runs deep
inside of it can lend its place while it only waits, and can be interrupted.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Protocol, Self

from embedded_orch.db.bell import Bell

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager


class _ThisThread(threading.local):
    # Of the class: to find that an object has no attribute costs four times as much.
    worker: Worker | None = None
    code: Interruptible | None = None


_here = _ThisThread()

# How long a thread may need to begin; one that is stopped there must not stop the others.
_BEGINNING_SECONDS = 1.0


class Interruption(BaseException):
    """Raised in a user's function whose run is not wanted any more."""


class Interruptible:
    """The user's code in one thread, which any other thread may interrupt.

    The interruption is raised at the next bytecode, as Ctrl-C is in the main thread. What is
    blocked in C goes on until it returns. Nothing is raised outside of the block, which the thread
    enters around what it calls; one that comes there is raised as soon as the next block is
    entered.
    """

    __slots__ = ("_depth", "_due", "_is_sent", "_lock", "_thread_id", "_waits_for")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._thread_id = 0
        self._due: BaseException | None = None
        self._is_sent = False
        self._waits_for: Bell | None = None

    def __enter__(self) -> Self:
        with self._lock:
            if self._due is None:
                self._thread_id = threading.get_ident()
                self._depth += 1
                return self
        raise self._due

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._depth -= 1
            if self._is_sent and not self._depth:
                # What was sent and has not been raised is not raised outside of the block.
                self._is_sent = False
                _take_back()

    def interrupt(self, reason: str) -> None:
        """Raise :class:`Interruption` in the block, now or when it is entered; once."""
        with self._lock:
            if self._due is not None:
                return
            self._due = Interruption(reason)
            if self._depth:
                self._is_sent = True
                raise_in(self._thread_id, Interruption)
            if self._waits_for is not None:
                self._waits_for.ring()

    def send(self, kind: type[BaseException]) -> bool:
        """Raise ``kind`` in the block; whether it will be, which is not so if more is due."""
        with self._lock:
            if self._due is not None or not self._depth:
                return False
            raise_in(self._thread_id, kind)
            if self._waits_for is not None:
                self._waits_for.ring()
            return True

    def take_back(self) -> None:
        """What :meth:`send` sent is not to be raised any more; called by the thread itself."""
        with self._lock:
            if self._due is None:
                _take_back()

    def wait(self, bell: Bell, timeout: float | None = None) -> bool:
        """Wait until it rings, ``timeout`` seconds, or until the interruption; whether it rang."""
        with self._lock:
            if self._due is None:
                self._waits_for = bell
        is_rung = self._due is None and bell.wait(timeout)
        self._waits_for = None
        if self._due is not None and not self._depth:
            raise self._due
        return is_rung

    def reset(self) -> None:
        """What the thread runs next is something else; it is in no block."""
        with self._lock:
            self._depth = 0
            self._due = None
            self._is_sent = False


class Job:
    """Something to run in a thread, and whom to tell when it is not going to be.

    Attributes:
        name: of the task run.
        depth: how many workers of the same runner wait, one for the other, for this one.
    """

    __slots__ = ("cancel", "depth", "name", "run")

    def __init__(
        self, name: str, run: Callable[[], object], cancel: Callable[[BaseException], None]
    ) -> None:
        self.name = name
        self.run = run
        self.cancel = cancel
        self.depth = 0


class Places(Protocol):
    """Who says how many workers may run at one time."""

    def lend(self, worker: Worker) -> None:
        """The worker only waits: another may run in its place."""
        ...

    def take_back(self, worker: Worker) -> None:
        """The worker goes on, as soon as there is a place for it."""
        ...


class Worker:
    """One thread of a runner.

    Attributes:
        places: of its runner.
        thread: that it is.
        job: that it is to run next, or runs.
        name: of that.
        depth: that of its job.
        code: the user's code in it.
    """

    __slots__ = ("_bell", "_lending", "code", "depth", "job", "name", "places", "thread")

    def __init__(self, places: Places, target: Callable[[Worker], object]) -> None:
        self.places = places
        self.job: Job | None = None
        self.name = ""
        self.depth = 0
        self._bell = Bell()
        self.code = Interruptible()
        self._lending = _Lending(self)
        self.thread = threading.Thread(
            target=target, args=(self,), name="embedded_orch worker", daemon=True
        )

    def enter_thread(self) -> None:
        """The calling thread is this worker from now on."""
        _here.worker = self

    def give(self, job: Job) -> None:
        """What it is to run next."""
        self.code.reset()
        self.job = job

    def wake(self) -> None:
        """Have it look whether there is a job."""
        self._bell.ring()

    def sleep(self, seconds: float) -> bool:
        """Until it is woken; whether it was."""
        return self._bell.wait(seconds)

    def run_job(self) -> None:
        """Run the job, and keep nothing of it."""
        job, self.job = self.job, None
        assert job is not None, "a worker that does not leave was given a job"
        self.name, self.depth = job.name, job.depth
        job.run()

    def lending(self) -> AbstractContextManager[None]:
        """While it lasts, the worker does not count: another may run in its place."""
        return self._lending

    def __repr__(self) -> str:
        return f"<Worker {self.name}>"


class _Lending:
    __slots__ = ("_worker",)

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def __enter__(self) -> None:
        self._worker.places.lend(self._worker)

    def __exit__(self, *_: object) -> None:
        self._worker.places.take_back(self._worker)


def current_worker() -> Worker | None:
    """The worker that this thread is, if it is one."""
    return _here.worker


def interruptible_here() -> Interruptible:
    """The user's code in this thread."""
    code = _code_here()
    if code is None:
        code = _here.code = Interruptible()
    return code


def wait_here(bell: Bell, timeout: float | None = None) -> None:
    """Wait until it rings; a worker lends its place meanwhile, and can be interrupted."""
    worker = current_worker()
    if worker is None or (timeout is not None and timeout <= 0):
        # Who only looks keeps its place, or it might have to wait for it.
        doze_here(bell, timeout)
    else:
        with worker.lending():
            worker.code.wait(bell, timeout)


def doze_here(bell: Bell, timeout: float | None = None) -> bool:
    """Wait until it rings, ``timeout`` seconds, or until the code in this thread is interrupted.

    Returns:
        Whether it rang.
    """
    code = _code_here()
    return bell.wait(timeout) if code is None else code.wait(bell, timeout)


def _code_here() -> Interruptible | None:
    worker = current_worker()
    return _here.code if worker is None else worker.code


def raise_in(thread_id: int, kind: type[BaseException]) -> None:
    """Raise an exception in a thread at its next bytecode, in the place of one that is due.

    Before Python 3.12 a thread that is being started has the identity of the one that starts it for
    a moment. What is sent to that one in the moment ends the new one, for whose beginning the other
    then waits for ever. So no thread is on its way when it is sent.
    """
    if sys.version_info >= (3, 12):
        _send(thread_id, kind)
        return
    deadline = time.monotonic() + _BEGINNING_SECONDS
    while True:
        # Whoever starts a thread takes it before and after.
        with threading._active_limbo_lock:  # type: ignore[attr-defined] # noqa: SLF001
            if _all_have_begun() or time.monotonic() >= deadline:
                _send(thread_id, kind)
                return
        time.sleep(0)


def _all_have_begun() -> bool:
    """Whether every thread that was started has an identity of its own."""
    started: dict[threading.Thread, object] = threading._limbo  # type: ignore[attr-defined] # noqa: SLF001
    return all(thread.ident is not None for thread in started)


def _send(thread_id: int, kind: type[BaseException]) -> None:
    import ctypes

    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), ctypes.py_object(kind))


class _Nothing(BaseException):
    """Takes the place of what is not to be raised any more."""


def _take_back() -> None:
    """What is due in this thread, if anything is, is not raised.

    Another exception takes its place and is caught. The interpreter has a call that takes it back,
    and does not forget after that call that something is due: all its threads look for it at every
    jump from then on, and with a trace function hang (CPython 3.11).
    """
    try:
        raise_in(threading.get_ident(), _Nothing)
        while True:
            pass
    except _Nothing:
        return
