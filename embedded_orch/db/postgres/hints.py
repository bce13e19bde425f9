"""Telling other processes of a database that something has changed, and hearing it from them.

NOTIFY and LISTEN are only a hint: what is told while a connection is being replaced is lost, and a
connection can die without a word. So whoever waits looks by himself too, more seldom for as long as
hints are heard. When they are heard no more, and when they are heard again, everybody looks at
once.

What is told gathers for some milliseconds and is sent by a thread, so that nobody waits for it. One
connection beside the pool listens, from the first time that somebody waits here. It is asked from
time to time whether it is still there, and replaced for as long as the database is open. A pooler
of transactions passes nothing on, so behind one nobody listens.
"""

from __future__ import annotations

import logging
import selectors
import socket
import threading
from typing import TYPE_CHECKING

import msgspec
import psycopg

from embedded_orch import errors
from embedded_orch.db.flusher import Flusher
from embedded_orch.db.postgres.connecting import answers, connect, cut_off

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from psycopg import Connection, Notify
    from psycopg.rows import TupleRow

    from embedded_orch.db.port import Hear
    from embedded_orch.db.postgres.options import PostgresOptions
    from embedded_orch.db.postgres.pool import Pool

_log = logging.getLogger("embedded_orch.db")

# How long what is told waits for more of it.
_GATHERING_SECONDS = 0.005
# How often a connection on which nothing comes is asked whether it is there.
_PROBE_SECONDS = 5.0
# Between two tries to listen again: the first, and the longest.
_FIRST_PAUSE, _LAST_PAUSE = 0.1, 10.0
# A payload has less than 8,000 bytes.
_MOST_BYTES = 7_000
_LONGEST_CHANNEL = 63


class Hints:
    """What is told and heard of one database. Any thread may use it; the database closes it.

    Args:
        options: of the database, for the connection that listens.
        pool: whose connections tell.
        sender: tells this process's hints from those of others.
    """

    def __init__(self, options: PostgresOptions, pool: Pool, sender: str) -> None:
        self._options = options
        self._pool = pool
        self._sender = sender
        # Two schemas whose names begin alike only wake each other in vain.
        self._channel = f"changes_in_{options.schema_name}"[:_LONGEST_CHANNEL]
        self._lock = threading.Lock()
        self._told: dict[str, None] = {}
        self._hearers: list[Hear] = []
        self._connection: Connection[TupleRow] | None = None
        self._thread: threading.Thread | None = None
        # What is sent by one of them wakes the thread, which has the other.
        self._wake: socket.socket | None = None
        self._is_heard = False
        self._is_closed = False
        self._flusher = Flusher(
            f"embedded_orch hints {options.safe_url}",
            has_work=lambda: bool(self._told),
            work=self._send,
            soon_seconds=_GATHERING_SECONDS,
        )

    @property
    def is_heard(self) -> bool:
        """Whether what other processes tell arrives here."""
        return self._is_heard

    def tell(self, names: Iterable[str]) -> None:
        """Tell other processes, soon, that something of these names has changed."""
        if self._is_closed:
            return
        with self._lock:
            self._told.update(dict.fromkeys(names))
        self._flusher.wake_soon()

    def listen(self, hear: Hear) -> None:
        """Have a function called with the names that others tell, or with None for all names."""
        if self._options.settles_each_transaction:
            return
        with self._lock:
            if self._is_closed:
                return
            self._hearers.append(hear)
            if self._thread is None:
                waking, self._wake = socket.socketpair()
                self._thread = threading.Thread(
                    target=self._listen_until_closed,
                    args=(waking,),
                    name="embedded_orch listener",
                    daemon=True,
                )
                self._thread.start()

    def close(self) -> None:
        """Hear and tell nothing any more."""
        with self._lock:
            self._is_closed = True
            self._told.clear()
            thread, wake = self._thread, self._wake
        self._flusher.stop()
        if thread is not None and wake is not None:
            wake.send(b"x")
            thread.join()
            wake.close()

    def abandon_in_child(self) -> None:
        """In a forked child: the connection is the parent's, and the threads are not here."""
        self._is_closed = True
        connection = self._connection
        if connection is not None:
            cut_off(connection)

    # -- telling -------------------------------------------------------------------------------

    def _send(self) -> None:
        with self._lock:
            told, self._told = list(self._told), {}
        try:
            with self._pool.connection() as connection:
                for payload in _payloads(self._sender, told):
                    connection.execute(b"SELECT pg_notify($1, $2)", [self._channel, payload])
        except (psycopg.Error, errors.DatabaseError) as error:
            # Whoever waits looks by himself.
            _log.debug("others could not be told of a change: %s", error)

    # -- hearing -------------------------------------------------------------------------------

    def _listen_until_closed(self, waking: socket.socket) -> None:
        pause = _FIRST_PAUSE
        with waking:
            while not self._is_closed:
                try:
                    self._listen(waking)
                except (psycopg.Error, errors.OrchestratorError) as error:
                    _log.debug("changes that others make are not heard: %s", error)
                if self._is_heard:
                    pause = _FIRST_PAUSE
                    self._set_heard(False)
                waking.settimeout(pause)
                try:
                    waking.recv(1)
                except TimeoutError:
                    pause = min(pause * 2, _LAST_PAUSE)

    def _listen(self, waking: socket.socket) -> None:
        """Connect, and hear until the connection is lost, or the database closed."""
        connection = self._connection = connect(self._options)
        try:
            connection.add_notify_handler(self._heard)
            connection.execute(f'LISTEN "{self._channel}"'.encode(), prepare=False)
            self._set_heard(True)
            with selectors.DefaultSelector() as selector:
                selector.register(waking, selectors.EVENT_READ)
                selector.register(connection.pgconn.socket, selectors.EVENT_READ)
                while not self._is_closed:
                    if not selector.select(_PROBE_SECONDS):
                        if not answers(connection, self._options.connect_timeout_seconds):
                            return
                    elif not self._is_closed:
                        self._take(connection)
        finally:
            self._connection = None
            connection.close()

    def _take(self, connection: Connection[TupleRow]) -> None:
        connection.pgconn.consume_input()
        while (notify := connection.pgconn.notifies()) is not None:
            self._hear(notify.extra.decode())

    def _heard(self, notify: Notify) -> None:
        """What came while the connection was asked whether it is there."""
        self._hear(notify.payload)

    def _hear(self, payload: str) -> None:
        try:
            sender, names = msgspec.json.decode(payload, type=tuple[str, list[str] | None])
        except msgspec.DecodeError:
            # Anybody may notify on any channel.
            return
        if sender != self._sender:
            self._pass_on(names)

    def _set_heard(self, is_heard: bool) -> None:
        self._is_heard = is_heard
        self._pass_on(None)

    def _pass_on(self, names: list[str] | None) -> None:
        for hear in tuple(self._hearers):
            hear(names)

    def __repr__(self) -> str:
        return f"<Hints on {self._channel}{', heard' if self._is_heard else ''}>"


def _payloads(sender: str, names: list[str]) -> Iterator[str]:
    """As few messages as hold these names; one that means all of them for what has no room."""
    if any(len(msgspec.json.encode(name)) > _MOST_BYTES // 2 for name in names):
        yield msgspec.json.encode((sender, None)).decode()
        return
    group: list[str] = []
    size = 0
    for name in names:
        length = len(msgspec.json.encode(name)) + 1
        if size + length > _MOST_BYTES:
            yield msgspec.json.encode((sender, group)).decode()
            group, size = [], 0
        group.append(name)
        size += length
    if group:
        yield msgspec.json.encode((sender, group)).decode()
