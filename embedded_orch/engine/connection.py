"""A task's own SQL that commits with the task's completion, exactly once.

The first statement begins a transaction in the database of the run, and with it the write lock is
held. It ends with the attempt: the Completed state is written inside of it, so both are committed
or neither is. An attempt that fails undoes it before the failure is recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedded_orch import errors
from embedded_orch.db.session import AsyncSession, Session

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from embedded_orch.db.port import Announced, Database, Transaction
    from embedded_orch.db.rows import Rows
    from embedded_orch.orchestration.values import Decision


class TaskConnection:
    """The transaction of one attempt at a task; for the thread that runs it.

    Args:
        database: of the run.
    """

    is_async = False

    def __init__(self, database: Database) -> None:
        self.database = database
        self._session = Session(database, read_only=False, for_update=False)
        self._begun: AbstractContextManager[Session] | None = None
        self._is_over = False

    @property
    def is_open(self) -> bool:
        """Whether something was executed, so that there is a transaction."""
        return self._begun is not None

    def execute(self, sql: str, parameters: Mapping[str, object] | None = None) -> Rows:
        """Run one statement in the transaction that commits with the task.

        Args:
            sql: with parameters as ``:name``.
            parameters: their values: None, bool, int, float, str, bytes or UUID.

        Raises:
            StatementRefused: it is wrong.
            WouldDeadlock: a session of yours is in a transaction here.
            TransactionFailed: the attempt that it belonged to has ended.
        """
        _check(self._is_over)
        if self._begun is None:
            # What was announced is committed first: it would wait for this transaction.
            self.database.read(_nothing)
            begun = self._session.begin()
            begun.__enter__()
            self._begun = begun
        return self._session.execute(sql, parameters)

    def end(self, error: BaseException | None = None) -> None:
        """Commit, or undo what was executed because of an error."""
        self._is_over = True
        begun, self._begun = self._begun, None
        if begun is not None:
            _ended(begun.__exit__, error)

    def __repr__(self) -> str:
        return f"<TaskConnection on {self.database.url}>"


class AsyncTaskConnection:
    """:class:`TaskConnection` for an ``async def`` task; no call blocks the event loop.

    Args:
        database: of the run.
    """

    is_async = True

    def __init__(self, database: Database) -> None:
        self.database = database
        self._session = AsyncSession(database, read_only=False, for_update=False)
        self._begun: AbstractAsyncContextManager[AsyncSession] | None = None
        self._is_over = False

    @property
    def is_open(self) -> bool:
        """Whether something was executed, so that there is a transaction."""
        return self._begun is not None

    async def execute(self, sql: str, parameters: Mapping[str, object] | None = None) -> Rows:
        """Run one statement in the task's transaction; see :meth:`TaskConnection.execute`."""
        _check(self._is_over)
        if self._begun is None:
            await self.database.read_async(_nothing)
            begun = self._session.begin()
            await begun.__aenter__()
            self._begun = begun
        return await self._session.execute(sql, parameters)

    async def end(self, error: BaseException | None = None) -> None:
        """Commit, or undo what was executed because of an error."""
        self._is_over = True
        begun, self._begun = self._begun, None
        if begun is None:
            return
        try:
            await begun.__aexit__(_kind(error), error, _traceback(error))
        except BaseException as raised:
            if raised is not error:
                raise

    def __repr__(self) -> str:
        return f"<AsyncTaskConnection on {self.database.url}>"


AnyConnection = TaskConnection | AsyncTaskConnection


class Complete:
    """The completion of a task in the transaction of its own statements, and their commit.

    Args:
        connection: that is open.
        operation: proposes the Completed state.
        after: what was announced of the run before.
    """

    __slots__ = ("_after", "_connection", "_operation")

    def __init__(
        self,
        connection: AnyConnection,
        operation: Callable[[Transaction], Decision],
        *,
        after: Announced | None,
    ) -> None:
        self._connection = connection
        self._operation = operation
        self._after = after

    def perform(self) -> Decision:
        """Do it in this thread."""
        connection = self._connection
        assert isinstance(connection, TaskConnection), "a plain function has a plain connection"
        try:
            decision = connection.database.write(self._operation, after=self._after)
            _check_stored(decision)
        except BaseException as error:
            connection.end(error)
            raise
        connection.end()
        return decision

    async def perform_async(self) -> Decision:
        """Do it without blocking the event loop."""
        connection = self._connection
        if isinstance(connection, TaskConnection):
            return self.perform()
        try:
            decision = await connection.database.write_async(self._operation, after=self._after)
            _check_stored(decision)
        except BaseException as error:
            await connection.end(error)
            raise
        await connection.end()
        return decision


class Undo:
    """The end of an attempt that failed: its own statements are undone.

    Args:
        connection: of the attempt.
        error: why.
    """

    __slots__ = ("_connection", "_error")

    def __init__(self, connection: AnyConnection, error: BaseException) -> None:
        self._connection = connection
        self._error = error

    def perform(self) -> None:
        """Do it in this thread."""
        connection = self._connection
        assert isinstance(connection, TaskConnection), "a plain function has a plain connection"
        connection.end(self._error)

    async def perform_async(self) -> None:
        """Do it without blocking the event loop, and to its end even when cancelled."""
        import anyio

        connection = self._connection
        if isinstance(connection, TaskConnection):
            connection.end(self._error)
            return
        with anyio.CancelScope(shield=True):
            await connection.end(self._error)


def _check(is_over: bool) -> None:
    if is_over:
        raise errors.TransactionFailed(
            "the attempt at the task that this connection belongs to has ended; nothing was run"
        )


def _check_stored(decision: Decision) -> None:
    if decision.proposal is None and not decision.is_repeat:
        raise errors.CancelledRun(
            f"the task run cannot complete, so what it executed was undone: {decision.reason}"
        )


def _ended(leave: Callable[..., Any], error: BaseException | None) -> None:
    """Leave a transaction by an error that the caller raises itself."""
    try:
        leave(_kind(error), error, _traceback(error))
    except BaseException as raised:
        if raised is not error:
            raise


def _kind(error: BaseException | None) -> type[BaseException] | None:
    return None if error is None else type(error)


def _traceback(error: BaseException | None) -> Any:
    return None if error is None else error.__traceback__


def _nothing(transaction: Transaction) -> None:
    """An operation that only has what was announced committed."""
