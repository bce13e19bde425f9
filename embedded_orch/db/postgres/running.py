"""Runs an operation in a transaction of its own, and again when the server asks for that.

A transaction is run again, whole and on a connection that is looked at first, when the server
rolled it back for the sake of others (serialization failures, deadlocks), or when its connection
was lost before the COMMIT: nothing of it was kept. That is done a few times. A server that gives
no connection is waited for, until it has been away for ``reconnect_seconds``; that time is one for
all callers, so that those who come later do not wait for it anew.

When the connection is lost during the COMMIT, nobody knows what became of it. The operation is run
again all the same: what it writes carries its ids, so the answer is the same whether or not the
first COMMIT got through. Only when it cannot be run again is the doubt passed on to the caller.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import psycopg
from psycopg.pq import TransactionStatus

from embedded_orch import errors
from embedded_orch.db.postgres.connecting import begin_statement
from embedded_orch.db.postgres.failures import is_disconnect, is_retryable, text_of, translate
from embedded_orch.db.postgres.group_commit import GroupCommit, LostInCommit, is_lost_in_commit
from embedded_orch.db.postgres.transaction import PostgresTransaction

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from psycopg import Connection
    from psycopg.rows import TupleRow

    from embedded_orch.db.port import R, Transaction
    from embedded_orch.db.postgres.options import PostgresOptions
    from embedded_orch.db.postgres.pool import Pool
    from embedded_orch.db.statements import Catalog
    from embedded_orch.process import Process
    from embedded_orch.values.places import Places

# Seconds before each further try. The first ones are for deadlocks, whose victim can go on at
# once. A server that is away is asked again after the same ones, and after the last of them again
# and again.
_PAUSES = (0.01, 0.05, 0.2, 0.6, 1.5)

# A server that nobody has asked for since its time was up, and so long besides, went away anew.
_ANOTHER_SECONDS = 5.0


class _TryAgain(Exception):
    """A transaction that was rolled back and may be run again; its cause says why."""

    def __init__(self, reason: str, *, in_doubt: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.in_doubt = in_doubt


class _Outage:
    """For how long the server has given no connection to anybody here. Any thread may use it.

    Args:
        patience_seconds: how long it is waited for.
    """

    __slots__ = ("_noticed_at", "_patience_seconds", "_since")

    def __init__(self, patience_seconds: float) -> None:
        self._patience_seconds = patience_seconds
        self._since: float | None = None
        self._noticed_at = 0.0

    def remaining_seconds(self) -> float:
        """Note that it is away, and tell for how much longer it is waited for."""
        now, since = time.monotonic(), self._since
        if since is None or now - self._noticed_at > self._patience_seconds + _ANOTHER_SECONDS:
            since = self._since = now
        self._noticed_at = now
        return self._patience_seconds - (now - since)

    def end(self) -> None:
        """It is there."""
        self._since = None


class Runner:
    """Runs operations on the connections of a pool. Any thread may call it.

    Args:
        pool: whose connections.
        options: of the database.
        catalog: the statements of this dialect.
        process: whose sleep and chance the pauses take.
        places: where values are that are not in rows.
    """

    def __init__(
        self,
        pool: Pool,
        options: PostgresOptions,
        catalog: Catalog,
        process: Process,
        places: Places,
    ) -> None:
        self._places = places
        self._pool = pool
        self._options = options
        self._catalog = catalog
        self._process = process
        self._outage = _Outage(options.reconnect_seconds)
        self._begin_read = begin_statement(options, read_only=True, one_snapshot=True)
        self._begin_write = begin_statement(options)
        # Operations that run: one without a connection may be about to ask for one.
        self._running = 0
        # Taken by itself, and not as its Condition, whose taking is a function that Ctrl-C can
        # leave between the lock and the block.
        self._lock = threading.Lock()
        self._settled = threading.Condition(self._lock)
        self._group: GroupCommit | None = None
        if options.commits_alone:
            self._group = GroupCommit(lambda: self.connect(pool.acquire), pool.release)

    def read(self, operation: Callable[[Transaction], R]) -> R:
        """Run an operation on one snapshot, in a transaction that cannot write."""
        return self._run(operation, is_read=True)

    def write(self, operation: Callable[[Transaction], R]) -> R:
        """Run an operation in a write transaction; returns once it is committed.

        Raises:
            TransactionFailed: it was rolled back each time, as often as it is tried.
            DatabaseUnavailable: the server has been away for ``reconnect_seconds``.
            CommitOutcomeUnknown: it was rolled back or committed, and the server is away.
        """
        return self._run(operation, is_read=False)

    def connect(self, use: Callable[[], R]) -> R:
        """What ``use`` returns, which needs a connection; a server that is away is waited for.

        Raises:
            DatabaseUnavailable: it has been away for ``reconnect_seconds``.
        """
        slept, asked = 0.0, 0
        while True:
            try:
                answer = use()
            except errors.DatabaseUnavailable as error:
                # A wrong password, say, is not waited for.
                if type(error) is not errors.DatabaseUnavailable:
                    raise
                # What was slept counts too, for a process whose sleep takes no time.
                left = min(
                    self._outage.remaining_seconds(), self._options.reconnect_seconds - slept
                )
                if left <= 0:
                    raise
                pause = min(left, self._jittered(_PAUSES[min(asked, len(_PAUSES) - 1)]))
                self._process.sleep(pause)
                slept += pause
                asked += 1
            else:
                self._outage.end()
                return answer

    def was_committed(self, number: int, lost: psycopg.Error) -> bool:
        """Whether a transaction was committed whose connection was lost in the COMMIT.

        Args:
            number: of the transaction, from :func:`number_of`.
            lost: how its connection was lost.

        Raises:
            CommitOutcomeUnknown: the server could not be asked, or has it still under way.
        """
        status: str | None = None
        try:
            for pause in (*_PAUSES, *_PAUSES):
                status = self.read(lambda transaction: _status_of(transaction, number))
                if status != "in progress":
                    break
                self._process.sleep(pause)
        except errors.DatabaseError as error:
            raise self._in_doubt(str(error)) from lost
        if status not in ("committed", "aborted"):
            raise self._in_doubt(f"transaction {number} is {status or 'not known'}") from lost
        return status == "committed"

    def wait_until_idle(self, timeout: float) -> None:
        """Return when no operation is running any more, or after so many seconds."""
        with self._lock:
            self._settled.wait_for(lambda: not self._running, timeout)

    def _run(self, operation: Callable[[Transaction], R], *, is_read: bool) -> R:
        with self._lock:
            self._running += 1
        try:
            return self._run_to_the_end(operation, is_read=is_read)
        finally:
            with self._lock:
                self._running -= 1
                self._settled.notify_all()

    def _run_to_the_end(self, operation: Callable[[Transaction], R], *, is_read: bool) -> R:
        tries = 0
        in_doubt = False
        while True:
            try:
                return self._try(operation, is_read=is_read)
            except _TryAgain as failure:
                in_doubt = in_doubt or failure.in_doubt
                if tries == len(_PAUSES):
                    raise self._give_up(failure, tries + 1, in_doubt=in_doubt) from failure
                self._process.sleep(self._jittered(_PAUSES[tries]))
                tries += 1
            except errors.DatabaseError as error:
                if in_doubt:
                    raise self._in_doubt(str(error)) from error
                raise

    def _try(self, operation: Callable[[Transaction], R], *, is_read: bool) -> R:
        """Run it once."""
        lent: list[Connection[TupleRow]] = []

        def begin() -> Connection[TupleRow]:
            connection = self.connect(self._pool.acquire)
            lent.append(connection)
            text = self._begin_read if is_read else self._begin_write
            connection.execute(text, prepare=False)
            return connection

        transaction = PostgresTransaction(
            begin, self._catalog, places=self._places, group=None if is_read else self._group
        )
        try:
            answer = self._run_in(transaction, lent, operation, is_read=is_read)
        except LostInCommit as error:
            raise _TryAgain(str(error), in_doubt=True) from error
        except psycopg.Error as error:
            if is_retryable(error) or is_disconnect(error, lent[0] if lent else None):
                raise _TryAgain(text_of(error)) from error
            raise translate(error, self._options) from error
        finally:
            for connection in lent:
                # Rolls back what is still open.
                self._pool.release(connection)
        return answer

    def _run_in(
        self,
        transaction: PostgresTransaction,
        lent: Sequence[Connection[TupleRow]],
        operation: Callable[[Transaction], R],
        *,
        is_read: bool,
    ) -> R:
        try:
            answer = operation(transaction)
        except Exception:
            for connection in lent:
                if is_read and connection.pgconn.transaction_status == TransactionStatus.INTRANS:
                    # Nothing to undo, and psycopg forgets every prepared statement at a ROLLBACK.
                    connection.execute(b"COMMIT", prepare=False)
            raise
        for connection in lent:
            try:
                commit(connection)
            except psycopg.Error as error:
                if is_read or not is_lost_in_commit(error, connection):
                    raise
                raise LostInCommit(text_of(error)) from error
        return answer

    def _give_up(self, failure: _TryAgain, tries: int, *, in_doubt: bool) -> errors.DatabaseError:
        if in_doubt:
            return self._in_doubt(failure.reason)
        return errors.TransactionFailed(
            f"{self._options.safe_url}: a transaction was tried {tries} times and rolled back each "
            f"time, at last because of: {failure.reason}; nothing was written. Call again when the "
            f"server is less busy"
        )

    def _in_doubt(self, reason: str) -> errors.CommitOutcomeUnknown:
        return errors.CommitOutcomeUnknown(
            f"{self._options.safe_url}: the connection was lost during a COMMIT, and what was to "
            f"be written could not be looked for ({reason}); look whether it is there, or call "
            f"again with the same ids"
        )

    def _jittered(self, seconds: float) -> float:
        """Between half and one and a half times as long, so that two rivals part ways."""
        return seconds * (0.5 + self._process.random_bytes(1)[0] / 255)


def commit(connection: Connection[TupleRow]) -> None:
    """Commit the open transaction.

    Raises:
        TransactionFailed: one of its statements failed and the error went unnoticed; Postgres
            would answer COMMIT with a rollback.
    """
    if connection.pgconn.transaction_status == TransactionStatus.INERROR:
        raise errors.TransactionFailed(
            "a statement of the transaction failed, so all of it was rolled back, although its "
            "error was caught: leave the transaction when a statement fails"
        )
    connection.execute(b"COMMIT", prepare=False)


def number_of(connection: Connection[TupleRow]) -> int | None:
    """The number of the open transaction on the server; None when it has written nothing."""
    if connection.pgconn.transaction_status != TransactionStatus.INTRANS:
        return None
    row = connection.execute(b"SELECT pg_current_xact_id_if_assigned()::text::bigint").fetchone()
    return None if row is None or row[0] is None else int(row[0])


def _status_of(transaction: Transaction, number: int) -> str | None:
    if not isinstance(transaction, PostgresTransaction):
        raise TypeError(f"{transaction!r} is no transaction of Postgres")
    question = b"SELECT pg_xact_status($1::text::xid8)"
    row = transaction.connection.execute(question, [str(number)]).fetchone()
    return None if row is None or row[0] is None else str(row[0])
