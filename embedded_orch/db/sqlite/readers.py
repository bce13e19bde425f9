"""The readers of a SQLite file: connections that see their own snapshot and cannot write.

A reader is made when all others are busy, up to a limit, and kept: the last one given back is the
next one taken, so that its caches are warm. While a read transaction lasts, its guard's lock keeps
every process from copying the log over pages that the snapshot still needs.

Ctrl-C, a time limit or a cancelling may interrupt a read at any step. A reader that is on its way
then, from the pool to its caller or back, belongs to nobody: only those who use it hold it, so that
it is gone with the exception, and another is made in its place.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Literal
from weakref import finalize, ref

import apsw

from embedded_orch import errors
from embedded_orch.db.bell import Bell
from embedded_orch.db.sqlite.connecting import translate
from embedded_orch.db.sqlite.transaction import SQLiteTransaction

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedded_orch.db.port import R, Transaction
    from embedded_orch.db.sqlite.guard import FileGuard
    from embedded_orch.db.sqlite.reader_lock import ReaderLock
    from embedded_orch.db.statements import Catalog
    from embedded_orch.values.places import Places


# How long a close waits for reads of other threads. Those that last longer lose their connection.
_CLOSING_SECONDS = 5.0
# Who waits looks also when nobody rang: an interrupt may have kept the other from it.
_LOOK_SECONDS = 1.0


class Reader:
    """One read connection and its lock; used by one caller at a time.

    Attributes:
        since: when its transaction began (``time.monotonic``); 0 when none is open.
        reading: what reads: an operation, or words; see :mod:`.long_reads`.
        thread_id: in which thread.
    """

    __slots__ = (
        "__weakref__",
        "_lock",
        "connection",
        "reading",
        "since",
        "thread_id",
        "transaction",
    )

    def __init__(
        self, connection: apsw.Connection, catalog: Catalog, lock: ReaderLock, places: Places
    ) -> None:
        self.connection = connection
        self.transaction = SQLiteTransaction(connection, catalog, places=places)
        self._lock = lock
        self.since = 0.0
        self.reading: object = None
        self.thread_id = 0

    def begin(self, reading: object, *, in_one: bool = False) -> None:
        """Begin a DEFERRED transaction; its snapshot is taken by its first statement.

        Args:
            reading: what reads, for the warning about one that lasts.
            in_one: whether it reads by one statement, which is a transaction of its own.
        """
        try:
            if self.since:
                # An interrupt came where the last one would have been ended.
                self.end()
            self._lock.acquire()
            self.reading, self.thread_id = reading, threading.get_ident()
            self.since = time.monotonic()
            if not in_one or self._lock.excludes_writers:
                self.connection.execute("begin deferred")
            if self._lock.excludes_writers:
                # The first read rebuilds an index that a dying process left torn.
                self.connection.execute("select count(*) from sqlite_schema")
                self._lock.settle()
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """End the transaction; it has written nothing."""
        try:
            if self.connection.in_transaction:
                self.connection.execute("rollback")
        finally:
            self.since, self.reading = 0.0, None
            self._lock.release()


class Readers:
    """The readers of one file, lent to any thread."""

    def __init__(
        self,
        connect: Callable[[], apsw.Connection],
        catalog: Catalog,
        guard: FileGuard,
        *,
        places: Places,
        most: int,
        busy_timeout_seconds: float,
        name: str,
    ) -> None:
        self._connect = connect
        self._catalog = catalog
        self._places = places
        self._guard = guard
        self._idle: list[Reader] = []
        self._all: list[ref[Reader]] = []
        self._making = threading.Lock()
        # The bells of those that found none idle, in the order of their coming. Who finds one takes
        # it without, since a semaphore would cost as much as all the rest of a short read.
        self._waiting: deque[Bell] = deque()
        self._most = most
        self._patience = busy_timeout_seconds
        self._name = name
        self._is_closed = False

    def read(self, operation: Callable[[Transaction], R], *, in_one: bool = False) -> R:
        """Run an operation on a snapshot.

        Args:
            operation: what to read.
            in_one: whether it reads by one statement.
        """
        reader = self.take()
        try:
            reader.begin(operation, in_one=in_one)
            try:
                return operation(reader.transaction)
            finally:
                reader.end()
        except apsw.Error as error:
            raise translate(error, self._name) from error
        finally:
            self.give(reader)

    def take(self) -> Reader:
        """A reader for the caller alone, until it is given back."""
        if not self._is_closed:
            try:
                return self._idle.pop()
            except IndexError:
                # None is idle: one more, up to the limit, or the next that is given back.
                reader = self._wait_for(self._find_or_make, self._patience)
            if reader is not None:
                return reader
            raise errors.DatabaseBusy(
                f"{self._name}: {self._most} read transactions have been open for "
                f"{self._patience:g} s; end one, or open with a larger max_readers"
            )
        raise self._closed()

    def _wait_for(self, look: Callable[[], R | None], seconds: float) -> R | None:
        """What is found by a look, now or after readers were given back; None if not in time."""
        deadline = time.monotonic() + seconds
        while True:
            bell = Bell()
            # Before it looks: a reader that is given back after the look rings.
            self._waiting.append(bell)
            try:
                found = look()
                left = deadline - time.monotonic()
                if found is not None or left <= 0:
                    return found
                bell.wait(min(left, _LOOK_SECONDS))
            finally:
                self._stop_waiting(bell)

    def _stop_waiting(self, bell: Bell) -> None:
        try:
            self._waiting.remove(bell)
        except ValueError:
            # It rang, perhaps for a reader that this one has not taken.
            if self._idle:
                self._wake()

    def _find_or_make(self) -> Reader | None:
        if self._is_closed:
            raise self._closed()
        try:
            return self._idle.pop()
        except IndexError:
            return self._make()

    def _make(self) -> Reader | None:
        """One more, if there are fewer than the most."""
        with self._making:
            living = self._living()
            if len(living) >= self._most:
                return None
            lock = self._guard.reader_lock()
            reader = Reader(self._connect(), self._catalog, lock, self._places)
            # Of one that an interrupt took from everybody.
            finalize(reader, lock.release).atexit = False
            self._all = [*map(ref, living), ref(reader)]
            return reader

    def _living(self) -> list[Reader]:
        return [reader for each in self._all if (reader := each()) is not None]

    def _closed(self) -> errors.DatabaseClosed:
        return errors.DatabaseClosed(f"{self._name} is closed; open it again")

    def give(self, reader: Reader) -> None:
        """Give a reader back."""
        self._idle.append(reader)
        if self._waiting:
            self._wake()

    def _wake(self) -> None:
        try:
            self._waiting.popleft().ring()
        except IndexError:
            # The only one has just gone.
            return

    def open_longer_than(self, seconds: float) -> list[Reader]:
        """Those whose transaction has been open for so long, the oldest first."""
        latest = time.monotonic() - seconds
        found = [reader for reader in self._living() if 0 < reader.since <= latest]
        return sorted(found, key=lambda reader: reader.since)

    @property
    def connections(self) -> list[apsw.Connection]:
        """All there are."""
        return [reader.connection for reader in self._living()]

    def close(self) -> None:
        """Close all connections, after the reads that use them. Nobody begins another."""
        self._is_closed = True
        # Who waits for a reader learns that there is none any more.
        for bell in tuple(self._waiting):
            bell.ring()
        self._wait_for(self._are_all_back, _CLOSING_SECONDS)
        for reader in self._living():
            reader.connection.close()
        self._all.clear()
        self._idle.clear()

    def _are_all_back(self) -> Literal[True] | None:
        return True if len(self._idle) >= len(self._living()) else None
