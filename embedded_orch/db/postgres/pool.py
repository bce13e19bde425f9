"""A pool of connections to one Postgres server: last in, first out, for any number of threads.

Up to ``pool_size`` connections rest here; up to ``max_overflow`` more are opened under load and
closed as they come back. The one that came back last is handed out first, so that a quiet spell
leaves the others to grow old, and the server with few busy sessions instead of many lukewarm
ones. (psycopg_pool hands out the one that rested longest, which is why this is not it.)

A place in the pool is a :class:`_Slot`. It lies in ``_idle``, or it is in ``_out``: being opened
or looked at, promised to a waiter, or lent. Places move between the two under ``_lock``; nothing
that talks to the server happens under it. Callers who find no place queue up and are served
strictly first come, first served: a place that becomes free is given to the first of them
directly, so nobody who comes later can take it.

There is no thread behind this. What has grown too old, or was ended by the server, is noticed
and replaced when it is next asked for.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING

from embedded_orch.db.postgres import connecting
from embedded_orch.db.postgres.connecting import answers, cut_off, has_news, settle
from embedded_orch.errors import DatabaseClosed, ForkedProcess, PoolExhausted

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from psycopg import Connection
    from psycopg.rows import TupleRow

    from embedded_orch.db.postgres.options import PostgresOptions


class _Slot:
    """A place in the pool, with or without a connection in it."""

    __slots__ = ("connection", "holder", "lent_at", "opened_at", "rests_since")

    def __init__(self) -> None:
        self.connection: Connection[TupleRow] | None = None
        self.opened_at = 0.0
        self.rests_since = 0.0
        # The thread that has it; None while it is not lent.
        self.holder: int | None = None
        self.lent_at = 0.0


class _Waiter:
    """A caller in the queue: woken by ``signal``, with a place or, on closing, without one."""

    __slots__ = ("signal", "slot")

    def __init__(self) -> None:
        self.slot: _Slot | None = None
        self.signal = threading.Lock()
        self.signal.acquire()


class _Borrowed:
    """A connection for the length of a ``with`` block."""

    __slots__ = ("_connection", "_pool")

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._connection: Connection[TupleRow] | None = None

    def __enter__(self) -> Connection[TupleRow]:
        self._connection = self._pool.acquire()
        return self._connection

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.release(connection)


class Pool:
    """Connections to one server, shared by all threads of the process.

    Owned by the database object that made it, closed by it. Every method may be called from any
    thread.

    Args:
        options: where to connect, how many, how long.
        connect: opens one connection.
        clock: seconds that only go forward, for ages; waits always take real time.
    """

    def __init__(
        self,
        options: PostgresOptions,
        connect: Callable[[PostgresOptions], Connection[TupleRow]] = connecting.connect,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        from embedded_orch.db import fork

        self._options = options
        self._connect = connect
        self._clock = clock
        self._lock = threading.Lock()
        self._idle: list[_Slot] = []
        self._out: set[_Slot] = set()
        self._waiters: deque[_Waiter] = deque()
        self._opened = 0
        self._closed = False
        self._forked = False
        self._all_back = threading.Event()
        fork.register(self)
        weakref.finalize(self, _let_go, weakref.ref(self), self._idle, self._out)

    @property
    def in_use(self) -> int:
        """Connections handed out, or on their way to a caller."""
        return len(self._out)

    @property
    def idle(self) -> int:
        """Connections that rest in the pool."""
        return len(self._idle)

    @property
    def opened(self) -> int:
        """Connections opened since the pool was made."""
        return self._opened

    @property
    def waiting(self) -> int:
        """Callers in the queue."""
        return len(self._waiters)

    def connection(self) -> _Borrowed:
        """``with pool.connection() as connection``: acquired on entry, released on exit."""
        return _Borrowed(self)

    def acquire(self) -> Connection[TupleRow]:
        """A connection that is alive, for this caller alone until it is released.

        Raises:
            PoolExhausted: none came free within ``pool_wait_seconds``.
            DatabaseClosed: the pool is closed, or was closed while waiting.
            ForkedProcess: the pool was made before a fork, in the parent.
            DatabaseUnavailable: a new connection was needed, and the server gave none.
        """
        slot = self._reserve()
        lent = False
        try:
            connection = self._make_ready(slot)
            with self._lock:
                if not self._closed:
                    slot.holder, slot.lent_at = threading.get_ident(), self._clock()
                    lent = True
        finally:
            if not lent:
                self._empty(slot)
                self._free(slot)
        if not lent:
            raise self._closed_error()
        return connection

    def release(self, connection: Connection[TupleRow], *, broken: bool = False) -> None:
        """Give a connection back.

        A transaction left open on it is rolled back. It is closed instead of kept when the pool
        is closed or has ``pool_size`` idle ones, or when the connection is of no more use.

        Args:
            connection: one that :meth:`acquire` gave, not released since.
            broken: the caller knows that it must not be used again.
        """
        with self._lock:
            slot = self._slot_of(connection)
            if slot is not None:
                slot.holder = None
        if slot is None:
            if not self._forked:
                raise ValueError("this connection was not handed out by this pool, or is back")
            # In the child of a fork: abandon_in_child has cut it off from the parent's server
            # session, so closing it here sends nothing.
            connection.close()
            return
        is_usable = False
        try:
            is_usable = not broken and settle(connection)
        finally:
            if not is_usable:
                self._empty(slot)
            slot.rests_since = self._clock()
            self._free(slot)

    def close(self, timeout: float = 0.0) -> int:
        """Close the idle connections now and the others as they come back.

        Args:
            timeout: how many seconds to wait for those.

        Returns:
            How many are still out.
        """
        with self._lock:
            self._closed = True
            idle = self._idle[:]
            self._idle.clear()
            waiters = list(self._waiters)
            self._waiters.clear()
            if not self._out:
                self._all_back.set()
        for waiter in waiters:
            waiter.signal.release()
        for slot in idle:
            self._empty(slot)
        self._all_back.wait(timeout)
        return len(self._out)

    def abandon_in_child(self) -> None:
        """After a fork, in the child: forget every connection and leave the parent's alone.

        Each descriptor is pointed at /dev/null first. The server sessions belong to the parent;
        closing the objects would otherwise say goodbye to the server on its sockets.
        """
        # The parent's locks may be held by a thread that does not exist here.
        self._lock = threading.Lock()
        self._all_back = threading.Event()
        self._forked = True
        idle = [slot.connection for slot in self._idle]
        lent = [slot.connection for slot in self._out]
        self._idle.clear()
        self._out.clear()
        self._waiters.clear()
        for connection in idle + lent:
            if connection is not None:
                cut_off(connection)
        for connection in idle:
            if connection is not None:
                connection.close()

    def _reserve(self) -> _Slot:
        """A place of this caller's own: an idle one, a new one, or one waited for."""
        with self._lock:
            self._check_open()
            if self._idle:
                slot = self._idle.pop()
                self._out.add(slot)
                return slot
            if len(self._out) < self._options.most_connections:
                slot = _Slot()
                self._out.add(slot)
                return slot
            waiter = _Waiter()
            self._waiters.append(waiter)
        return self._wait(waiter)

    def _wait(self, waiter: _Waiter) -> _Slot:
        is_served = False
        try:
            is_served = waiter.signal.acquire(timeout=self._options.pool_wait_seconds)
        except BaseException:
            # Interrupted: what was promised in the meantime goes to the next in the queue.
            with self._lock:
                self._withdraw(waiter)
            if waiter.slot is not None:
                self._free(waiter.slot)
            raise
        if not is_served:
            with self._lock:
                if self._withdraw(waiter):
                    raise PoolExhausted(self._who_holds_all())
        if waiter.slot is None:
            raise self._closed_error()
        return waiter.slot

    def _withdraw(self, waiter: _Waiter) -> bool:
        """Under the lock: leave the queue; False if the waiter was served or sent away before."""
        if waiter in self._waiters:
            self._waiters.remove(waiter)
            return True
        return False

    def _make_ready(self, slot: _Slot) -> Connection[TupleRow]:
        """Look at the connection of a place; replace it if it is old or dead. One try."""
        if slot.connection is not None:
            if self._is_fit(slot, slot.connection):
                return slot.connection
            self._empty(slot)
        slot.connection = self._connect(self._options)
        slot.opened_at = self._clock()
        with self._lock:
            self._opened += 1
        return slot.connection

    def _is_fit(self, slot: _Slot, connection: Connection[TupleRow]) -> bool:
        options, now = self._options, self._clock()
        age = now - slot.opened_at
        if options.recycle_seconds is not None and age >= options.recycle_seconds:
            return False
        if not options.pre_ping:
            return True
        has_rested = now - slot.rests_since >= options.ping_after_idle_seconds
        if not has_rested and not has_news(connection):
            return True
        return answers(connection, options.connect_timeout_seconds)

    def _free(self, slot: _Slot) -> None:
        """Give a place to the first waiter, else back to the pool."""
        with self._lock:
            if self._waiters and not self._closed:
                waiter = self._waiters.popleft()
                waiter.slot = slot
                waiter.signal.release()
                return
            self._out.discard(slot)
            if self._closed and not self._out:
                self._all_back.set()
            has_room = not self._closed and len(self._idle) < self._options.pool_size
            if slot.connection is not None and has_room:
                self._idle.append(slot)
                return
        self._empty(slot)

    def _empty(self, slot: _Slot) -> None:
        connection, slot.connection = slot.connection, None
        if connection is not None:
            connection.close()

    def _slot_of(self, connection: Connection[TupleRow]) -> _Slot | None:
        for slot in self._out:
            if slot.connection is connection and slot.holder is not None:
                return slot
        return None

    def _check_open(self) -> None:
        if self._forked:
            raise ForkedProcess(
                f"the connections to {self._options.safe_url} were opened before fork() and "
                "belong to the parent: open the database in the child, or start it with spawn"
            )
        if self._closed:
            raise self._closed_error()

    def _closed_error(self) -> DatabaseClosed:
        return DatabaseClosed(f"the connections to {self._options.safe_url} are closed")

    def _who_holds_all(self) -> str:
        options, now = self._options, self._clock()
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        counts: dict[str, int] = {}
        longest = 0.0
        for slot in self._out:
            if slot.holder is not None:
                name = names.get(slot.holder, "a thread that has ended")
                counts[name] = counts.get(name, 0) + 1
                longest = max(longest, now - slot.lent_at)
        holders = ", ".join(f"{name} ({count})" for name, count in counts.items())
        return (
            f"no connection to {options.safe_url} came free in {options.pool_wait_seconds:g} s: "
            f"{len(self._out)} are in use (pool_size={options.pool_size}, "
            f"max_overflow={options.max_overflow}), held by {holders or 'callers on their way'}, "
            f"the longest for {longest:.1f} s; {len(self._waiters)} more callers wait. "
            "Hold transactions for a shorter time, or raise pool_size or max_overflow"
        )

    def __repr__(self) -> str:
        state = "forked" if self._forked else "closed" if self._closed else "open"
        return (
            f"<Pool {state} {self._options.safe_url}: {self.in_use} in use, {self.idle} idle, "
            f"{self.waiting} waiting>"
        )


def _let_go(pool: weakref.ref[Pool], idle: list[_Slot], out: set[_Slot]) -> None:
    """Close what nobody closed: when a pool is forgotten, and when the interpreter ends.

    At its end the pool is still there; then the lent ones go too, but for those on which a
    daemon thread is inside a statement: libpq must not lose a connection under it.
    """
    while idle:
        connection = idle.pop().connection
        if connection is not None:
            connection.close()
    if pool() is None:
        return
    for slot in tuple(out):
        connection = slot.connection
        if connection is not None and connection.lock.acquire(blocking=False):
            connection.close()
            connection.lock.release()
