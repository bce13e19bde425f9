"""The readers of a SQLite file: connections that see their own snapshot and cannot write.

A reader is made when all others are busy, up to a limit, and kept: the last one given back is the
next one taken, so that its caches are warm. While a read transaction lasts, its guard's lock keeps
every process from copying the log over pages that the snapshot still needs.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import apsw

from embedded_orch import errors
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


class Reader:
    """One read connection and its lock; used by one caller at a time.

    Attributes:
        since: when its transaction began (``time.monotonic``); 0 when none is open.
        reading: what reads: an operation, or words; see :mod:`.long_reads`.
        thread_id: in which thread.
    """

    __slots__ = ("_lock", "connection", "reading", "since", "thread_id", "transaction")

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
        self._all: list[Reader] = []
        # For those that find none idle. Who finds one takes it without, since a semaphore would
        # cost as much as all the rest of a short read.
        self._change = threading.Condition(threading.Lock())
        self._waiting = 0
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
                return self._make_or_wait()
        raise self._closed()

    def _make_or_wait(self) -> Reader:
        deadline = time.monotonic() + self._patience
        with self._change:
            # Before it looks: one that is given back after the look rings the bell.
            self._waiting += 1
            try:
                while not self._is_closed:
                    try:
                        return self._idle.pop()
                    except IndexError:
                        if len(self._all) < self._most:
                            return self._make()
                    has_rung = self._change.wait(deadline - time.monotonic())
                    # The bell of one that is idle may have been kept from ringing, by Ctrl-C.
                    if not has_rung and not self._idle:
                        raise errors.DatabaseBusy(
                            f"{self._name}: {self._most} read transactions have been open for "
                            f"{self._patience:g} s; end one, or open with a larger max_readers"
                        )
            finally:
                self._waiting -= 1
        raise self._closed()

    def _make(self) -> Reader:
        lock = self._guard.reader_lock()
        reader = Reader(self._connect(), self._catalog, lock, self._places)
        self._all.append(reader)
        return reader

    def _closed(self) -> errors.DatabaseClosed:
        return errors.DatabaseClosed(f"{self._name} is closed; open it again")

    def give(self, reader: Reader) -> None:
        """Give a reader back."""
        self._idle.append(reader)
        if self._waiting:
            with self._change:
                self._change.notify()

    def open_longer_than(self, seconds: float) -> list[Reader]:
        """Those whose transaction has been open for so long, the oldest first."""
        latest = time.monotonic() - seconds
        found = [reader for reader in list(self._all) if 0 < reader.since <= latest]
        return sorted(found, key=lambda reader: reader.since)

    @property
    def connections(self) -> list[apsw.Connection]:
        """All there are."""
        return [reader.connection for reader in self._all]

    def close(self) -> None:
        """Close all connections, after the reads that use them. Nobody begins another."""
        self._is_closed = True
        deadline = time.monotonic() + _CLOSING_SECONDS
        with self._change:
            # Who waits for a reader learns that there is none any more.
            self._change.notify_all()
            self._waiting += 1
            while len(self._idle) < len(self._all) and self._change.wait(
                deadline - time.monotonic()
            ):
                continue
        for reader in self._all:
            reader.connection.close()
        self._all.clear()
        self._idle.clear()
