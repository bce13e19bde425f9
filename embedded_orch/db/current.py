"""Which transaction the running code is in.

A context variable names the session that was begun here. Tasks and callbacks inherit context
variables, and must not walk into a transaction that another of them holds, so a session also
remembers the thread and the task that began it, and only they join it.
"""

from __future__ import annotations

import os
import sys
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING

from embedded_orch import errors

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedded_orch.db.port import Database, OpenTransaction, R, Transaction

_here: ContextVar[Scope | None] = ContextVar("embedded_orch_transaction", default=None)


def running_task() -> object | None:
    """The asyncio or trio task that runs now, or None outside of an event loop."""
    trio = sys.modules.get("trio")
    if trio is not None:
        try:
            task: object = trio.lowlevel.current_task()
        except RuntimeError:
            # Not in a trio run: an asyncio task, or none.
            task = None
        if task is not None:
            return task
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return None
    try:
        found: object | None = asyncio.current_task()
    except RuntimeError:
        # No running loop in this thread.
        return None
    return found


class Scope:
    """One open transaction, and who may join it.

    What runs in it runs one after the other, and nothing after its end: a task that was cancelled
    leaves its statement running in another thread, and one on its way there. Nor does anything run
    in it in a forked child, which inherits the transaction and must not touch it: not even to undo
    it, when the child leaves the block by ``sys.exit()``.
    """

    __slots__ = (
        "_is_over",
        "_lock",
        "_opened",
        "_pid",
        "_task",
        "_thread",
        "database",
        "is_read_only",
        "previous",
    )

    def __init__(self, database: Database, opened: OpenTransaction, *, is_read_only: bool) -> None:
        self.database = database
        self._opened = opened
        self._lock = threading.RLock()
        self._is_over = False
        self._pid = os.getpid()
        self.is_read_only = is_read_only
        self._thread = threading.get_ident()
        self._task = running_task()
        self.previous: Scope | None = None

    def enter(self) -> None:
        """Make this the transaction of the running code."""
        self.previous = _here.get()
        _here.set(self)
        self.database.hold(self)

    def leave(self) -> None:
        """Give way to the transaction that was current before."""
        self.database.release(self)
        _here.set(self.previous)

    def run(self, call: Callable[[OpenTransaction], R]) -> R:
        """Run something in the transaction.

        Raises:
            TransactionFailed: it has ended.
            ForkedProcess: it was begun before ``fork()``, and this is the child.
        """
        self.check_not_forked()
        with self._lock:
            if self._is_over:
                raise errors.TransactionFailed(
                    "the transaction of this session has ended; nothing was run"
                )
            return call(self._opened)

    def end(self, *, commit: bool) -> None:
        """Commit or undo the transaction, after the statement that runs in it; once.

        Raises:
            ForkedProcess: the child of a fork wants to commit; to undo, it has nothing to do.
        """
        if commit:
            self.check_not_forked()
        elif os.getpid() != self._pid:
            return
        with self._lock:
            if self._is_over:
                return
            self._is_over = True
            if commit:
                self._opened.commit()
            else:
                self._opened.roll_back()

    def check_not_forked(self) -> None:
        """Raise in a forked child: the transaction is its parent's, which goes on with it."""
        if os.getpid() != self._pid:
            raise errors.ForkedProcess(
                f"this transaction on {self.database.url} was begun before fork() and is the "
                f"parent's, which goes on with it; start processes by spawn or forkserver"
            )

    def is_mine(self) -> bool:
        """Whether the running thread and task began it."""
        return self._thread == threading.get_ident() and self._task is running_task()

    def is_my_thread(self) -> bool:
        """Whether the running thread began it, in whichever task."""
        return self._thread == threading.get_ident()


def scope_for(database: object) -> Scope | None:
    """The open transaction on ``database`` that the running code joins, if any.

    Raises:
        ForkedProcess: it is that of the parent of this process.
    """
    scope = _here.get()
    while scope is not None:
        if scope.database is database and scope.is_mine():
            scope.check_not_forked()
            return scope
        scope = scope.previous
    return None


def join(scope: Scope, operation: Callable[[Transaction], R], *, writes: bool) -> R:
    """Run an operation inside an open transaction, so that it fails alone or not at all."""
    if writes and scope.is_read_only:
        raise errors.StatementRefused(
            "a read-only session is open here, and this call writes; end the session first"
        )
    if not writes:
        return scope.run(lambda opened: operation(opened.transaction))
    return scope.run(lambda opened: _run_alone(opened, operation))


async def in_own_thread(call: Callable[[], R]) -> R:
    """The answer of a call on an open transaction, without blocking the event loop.

    Not from the threads that all share: every one of those may be waiting for this transaction.
    """
    import anyio.to_thread

    return await anyio.to_thread.run_sync(call, limiter=anyio.CapacityLimiter(1))


def _run_alone(opened: OpenTransaction, operation: Callable[[Transaction], R]) -> R:
    opened.script("savepoint joined")
    try:
        answer = operation(opened.transaction)
    except BaseException:
        opened.script("rollback to savepoint joined; release savepoint joined")
        raise
    opened.script("release savepoint joined")
    return answer
