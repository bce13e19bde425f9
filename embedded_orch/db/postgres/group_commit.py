"""Statements that are transactions of their own, from many threads, in one round trip and commit.

A statement that comes while none of its group is on its way is sent at once, by the thread that it
comes from. Those that come meanwhile gather, and the first of them sends them all when the answer
is there. So a thread that is alone waits for nobody, and many share the trip and the wait for the
server's disk. A group is what would wait for the same row anyway: nothing holds up a stranger.

Those sent together are one transaction. If one of them fails, nothing of it was kept, and each is
sent by itself, so that the failure is that of its own caller alone.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import psycopg

from embedded_orch.db.columns import decode_rows, decoders
from embedded_orch.db.postgres.failures import is_disconnect, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from psycopg import Connection, Cursor
    from psycopg.rows import TupleRow

    from embedded_orch.db.statements import Statement

_Row = tuple[Any, ...]

# More than this in one transaction only keeps its locks for longer.
_MOST_AT_ONCE = 64
_COMPLETION_UNKNOWN = "40003"


class LostInCommit(Exception):
    """The connection was lost before the answer came; what was sent may be committed."""


class _Request:
    """A statement's values, and the thread that waits for its row.

    Attributes:
        row: the answer, once it ``is_done``.
        lost: why nobody knows what became of it, if so.
        is_leader: whether its thread is to send what has gathered, itself included.
    """

    __slots__ = ("is_done", "is_leader", "lost", "row", "signal", "values")

    def __init__(self, values: tuple[object, ...]) -> None:
        self.values = values
        self.row: _Row | None = None
        self.is_done = False
        self.lost: str | None = None
        self.is_leader = False
        self.signal = threading.Lock()
        self.signal.acquire()


class GroupCommit:
    """Sends statements outside of transactions. Any thread may call it.

    Args:
        acquire: lends a connection.
        release: takes it back.
    """

    def __init__(
        self,
        acquire: Callable[[], Connection[TupleRow]],
        release: Callable[[Connection[TupleRow]], None],
    ) -> None:
        self._acquire = acquire
        self._release = release
        self._lock = threading.Lock()
        # What has gathered of each group of which something is on its way.
        self._gathered: dict[object, list[_Request]] = {}

    def run(self, statement: Statement, group: object, values: tuple[object, ...]) -> _Row | None:
        """The first row of a statement, which is committed by then.

        Args:
            statement: one that may run a second time.
            group: those of the same statement and group may be sent together.
            values: of its parameters.

        Raises:
            LostInCommit: it may be committed.
            psycopg.Error: it was not.
        """
        key = (statement.name, group)
        request = _Request(values)
        with self._lock:
            is_first = key not in self._gathered
            if is_first:
                self._gathered[key] = []
            else:
                self._gathered[key].append(request)
        if not is_first:
            return self._wait(statement, key, request)
        try:
            return self._send_alone(statement, values)
        finally:
            self._hand_over(key)

    def _wait(self, statement: Statement, key: object, request: _Request) -> _Row | None:
        try:
            request.signal.acquire()
            if request.is_leader:
                self._lead(statement, key, request)
        except BaseException:
            # Ctrl-C. Nobody waits for it any more, and it may have been told just now to lead.
            with self._lock:
                gathered = self._gathered.get(key, [])
                if request in gathered:
                    gathered.remove(request)
            if request.is_leader:
                self._hand_over(key, request)
            raise
        if request.lost is not None:
            raise LostInCommit(request.lost)
        if request.is_done:
            return request.row
        return self._send_alone(statement, request.values)

    def _lead(self, statement: Statement, key: object, leader: _Request) -> None:
        """Send what has gathered; the leader's own is done, lost, or to be sent alone."""
        with self._lock:
            gathered = self._gathered[key]
            requests = [leader, *gathered[: _MOST_AT_ONCE - 1]]
            del gathered[: _MOST_AT_ONCE - 1]
        try:
            if len(requests) > 1:
                self._send(statement, requests)
        finally:
            self._hand_over(key, leader)
            for request in requests[1:]:
                request.signal.release()

    def _hand_over(self, key: object, from_leader: _Request | None = None) -> None:
        """Let the first of those that have gathered lead; nobody, if there is none."""
        with self._lock:
            if from_leader is not None:
                from_leader.is_leader = False
            gathered = self._gathered[key]
            if not gathered:
                del self._gathered[key]
                return
            leader = gathered.pop(0)
            leader.is_leader = True
        leader.signal.release()

    def _send(self, statement: Statement, requests: Sequence[_Request]) -> None:
        connection = self._acquire()
        try:
            with connection.cursor() as cursor:
                cursor.executemany(
                    statement.sql.encode(), [each.values for each in requests], returning=True
                )
                rows = [_first_row(statement, cursor)]
                while cursor.nextset():
                    rows.append(_first_row(statement, cursor))
            for request, row in zip(requests, rows, strict=True):
                request.row, request.is_done = row, True
        except psycopg.Error as error:
            if is_lost_in_commit(error, connection):
                for request in requests:
                    request.lost = text_of(error)
        finally:
            self._release(connection)

    def _send_alone(self, statement: Statement, values: tuple[object, ...]) -> _Row | None:
        connection = self._acquire()
        try:
            cursor = connection.execute(statement.sql.encode(), values)
            return _first_row(statement, cursor)
        except psycopg.Error as error:
            if is_lost_in_commit(error, connection):
                raise LostInCommit(text_of(error)) from error
            raise
        finally:
            self._release(connection)


def _first_row(statement: Statement, cursor: Cursor[TupleRow]) -> _Row | None:
    description = cursor.description
    if description is None:
        return None
    how = statement.decoders
    if how is None:
        how = statement.decoders = decoders([each.name for each in description], "postgres")
    rows = decode_rows(cursor.fetchall(), how)
    return rows[0] if rows else None


def is_lost_in_commit(error: psycopg.Error, connection: Connection[TupleRow]) -> bool:
    """Whether a COMMIT that raised may have happened."""
    return error.sqlstate == _COMPLETION_UNKNOWN or is_disconnect(error, connection)
