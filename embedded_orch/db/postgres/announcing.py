"""Announced writes: committed in order, soon, and waited for by nobody.

They queue up here. A thread commits what has gathered, many in one transaction, within 10 ms; a
read does so first, and so does a write. A write that names an announced one of its own, as the end
of a task names its start, takes that out of the queue and into its own transaction instead, so
that a short task costs one commit.

Operations run without savepoints, because almost none fails. When one raises, the transaction is
rolled back and each operation of the group runs again in a transaction of its own, so that the
failure is kept on its own handle alone. When the server is away, they wait in the queue.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from embedded_orch import errors
from embedded_orch.db.flusher import Flusher

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedded_orch.db.port import Announced, R, Transaction
    from embedded_orch.db.postgres.running import Runner

# More than this in one transaction only keeps its locks for longer.
_MOST_IN_A_GROUP = 256


class AnnouncedWrite:
    """One operation that was announced; ``error`` says why it failed, if it did."""

    __slots__ = ("error", "is_done", "operation")

    def __init__(self, operation: Callable[[Transaction], object]) -> None:
        self.operation = operation
        self.error: BaseException | None = None
        self.is_done = False

    def finish(self, error: BaseException | None = None) -> None:
        """It is committed, or has failed."""
        self.error = error
        self.is_done = True
        # What it was made of may hold this: with it let go, both end without the garbage collector.
        self.operation = _nothing


def _nothing(transaction: Transaction) -> None:
    """What is left of an operation that is over."""


class Announcements:
    """The announced writes of one database, until they are committed. Any thread may call it.

    Args:
        runner: runs them.
        name: of the database, for the name of the thread.
    """

    def __init__(self, runner: Runner, name: str) -> None:
        self._runner = runner
        # In the order of announcement; a dictionary, to take one out of the middle.
        self._queue: dict[AnnouncedWrite, None] = {}
        # Those taken out by the write that builds on them, until that is committed.
        self._taken: set[AnnouncedWrite] = set()
        self._lock = threading.Lock()
        self._settled = threading.Condition(self._lock)
        # Held while a group is on its way: one after the other keeps the order.
        self._committing = threading.Lock()
        self._flusher = Flusher(
            f"embedded_orch announcements {name}",
            has_work=lambda: bool(self._queue),
            work=self._commit_queued,
        )

    def announce(self, operation: Callable[[Transaction], object]) -> AnnouncedWrite:
        """Queue an operation; it is committed within 10 ms."""
        announced = AnnouncedWrite(operation)
        with self._lock:
            self._queue[announced] = None
        self._flusher.wake_soon()
        return announced

    def flush(self) -> None:
        """Return when everything that was announced before this call is committed.

        Raises:
            DatabaseError: the server is away; what was announced stays in the queue.
        """
        if self._queue or self._committing.locked():
            self._commit_queued()
        if self._taken:
            with self._lock:
                before = list(self._taken)
                self._settled.wait_for(lambda: self._taken.isdisjoint(before))

    def write(self, operation: Callable[[Transaction], R], after: Announced | None) -> R:
        """Run an operation in a write transaction after what was announced before it.

        Args:
            operation: what to write.
            after: the announced write that it builds on; without one, all of them.
        """
        if not isinstance(after, AnnouncedWrite):
            self.flush()
            return self._runner.write(operation)
        while not after.is_done:
            if self._take(after):
                return self._write_with(after, operation)
            # On its way with a group. If that fails for want of a server, it is queued again.
            with self._committing:
                continue
        return self._runner.write(operation)

    def close(self) -> None:
        """Commit what is queued and stop the thread. Nobody announces any more.

        Raises:
            DatabaseError: the server is away, and what was announced is lost.
        """
        self._flusher.stop()
        try:
            self.flush()
        except BaseException as error:
            for announced in self._queue:
                announced.error = error
            raise

    # -- committing ------------------------------------------------------------------------------

    def _write_with(self, announced: AnnouncedWrite, operation: Callable[[Transaction], R]) -> R:
        """Both in one transaction; if that fails, each in its own."""

        def both(transaction: Transaction) -> R:
            announced.operation(transaction)
            return operation(transaction)

        try:
            try:
                answer = self._runner.write(both)
                announced.finish()
                return answer
            except Exception as error:
                if _is_about_the_server(error):
                    raise
            self._commit_alone(announced)
            return self._runner.write(operation)
        finally:
            self._settle(announced)

    def _commit_queued(self) -> None:
        with self._committing:
            while group := self._take_group():
                try:
                    self._commit(group)
                finally:
                    # Of a group that was interrupted, whoever flushes next does the rest.
                    self._put_back(group)

    def _commit(self, group: list[AnnouncedWrite]) -> None:
        def all_of_them(transaction: Transaction) -> None:
            for announced in group:
                announced.operation(transaction)

        try:
            self._runner.write(all_of_them)
        except Exception as error:
            if _is_about_the_server(error):
                raise
            if len(group) == 1:
                group[0].finish(error)
                return
        else:
            for announced in group:
                announced.finish()
            return
        for announced in group:
            self._commit_alone(announced)

    def _commit_alone(self, announced: AnnouncedWrite) -> None:
        try:
            self._runner.write(announced.operation)
        except Exception as error:
            if _is_about_the_server(error):
                raise
            announced.finish(error)
        else:
            announced.finish()

    # -- the queue -------------------------------------------------------------------------------

    def _take(self, announced: AnnouncedWrite) -> bool:
        with self._lock:
            if announced not in self._queue:
                return False
            del self._queue[announced]
            self._taken.add(announced)
            return True

    def _settle(self, announced: AnnouncedWrite) -> None:
        self._put_back([announced])
        with self._lock:
            self._taken.discard(announced)
            self._settled.notify_all()

    def _take_group(self) -> list[AnnouncedWrite]:
        from itertools import islice

        with self._lock:
            group = list(islice(self._queue, _MOST_IN_A_GROUP))
            for announced in group:
                del self._queue[announced]
        return group

    def _put_back(self, group: list[AnnouncedWrite]) -> None:
        """Queue those of a group again that are not done, before all others."""
        undone = [announced for announced in group if not announced.is_done]
        if undone:
            with self._lock:
                self._queue = dict.fromkeys(undone) | self._queue
            self._flusher.wake_soon()


def _is_about_the_server(error: Exception) -> bool:
    """Whether the same operation may well succeed once the server is back."""
    return isinstance(
        error,
        errors.DatabaseUnavailable
        | errors.CommitOutcomeUnknown
        | errors.DatabaseClosed
        | errors.ForkedProcess,
    )
