"""Sessions: a person's own statements, in the same database and under the same transaction rules.

A session with ``begin_transaction=True`` is one transaction from its entry to its exit: committed
when its block ends, rolled back when it raises. Without, each statement is a transaction of its
own, until ``begin()`` makes one of several. Calls of ours from the thread or task that holds the
transaction join it. Statements are SQL with ``:name`` parameters, on both engines.
"""

from __future__ import annotations

import threading
from contextlib import asynccontextmanager, contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

from embedded_orch import errors
from embedded_orch.db.current import Scope, in_own_thread, scope_for
from embedded_orch.db.statements import number_parameters

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Mapping

    from embedded_orch.db.port import Database, OpenTransaction
    from embedded_orch.db.rows import Rows
    from embedded_orch.db.statements import Dialect


class Session:
    """Statements in transactions, synchronous. For the thread that opened it.

    Args:
        database: where.
        read_only: no statement may write.
        for_update: reads of ours in it lock their rows (Postgres).
    """

    def __init__(self, database: Database, *, read_only: bool, for_update: bool) -> None:
        self._core = _Core(database, read_only=read_only, for_update=for_update)

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self._core.scope is not None

    def execute(self, sql: str, parameters: Mapping[str, object] | None = None) -> Rows:
        """Run one statement.

        Args:
            sql: with parameters as ``:name``.
            parameters: their values: None, bool, int, float, str, bytes or UUID.

        Raises:
            StatementRefused: it is wrong, or writes in a read-only session.
        """
        self._core.check_can_execute()
        return self._core.execute(sql, parameters)

    @contextmanager
    def begin(self) -> Generator[Session, None, None]:
        """One transaction for the statements of a block.

        Raises:
            WouldDeadlock: this thread holds a transaction already.
        """
        self._core.check_can_begin()
        scope = self._core.enter(self._core.open())
        try:
            yield self
        except BaseException:
            self._core.leave()
            scope.end(commit=False)
            raise
        self._core.leave()
        scope.end(commit=True)

    def __repr__(self) -> str:
        return f"<Session {self._core}>"


class AsyncSession:
    """Statements in transactions, for the task that opened it; no call blocks the event loop."""

    def __init__(self, database: Database, *, read_only: bool, for_update: bool) -> None:
        self._core = _Core(database, read_only=read_only, for_update=for_update)

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self._core.scope is not None

    async def execute(self, sql: str, parameters: Mapping[str, object] | None = None) -> Rows:
        """Run one statement; see :meth:`Session.execute`."""
        import anyio.to_thread

        core = self._core
        core.check_can_execute()
        if core.scope is not None:
            return await in_own_thread(lambda: core.execute(sql, parameters))
        return await anyio.to_thread.run_sync(core.execute, sql, parameters)

    @asynccontextmanager
    async def begin(self) -> AsyncGenerator[AsyncSession, None]:
        """One transaction for the statements of a block; it may stay open across awaits."""
        import anyio
        import anyio.to_thread

        self._core.check_can_begin()
        opening = _Opening(self._core)
        try:
            await anyio.to_thread.run_sync(opening.run)
        except BaseException:
            opening.abandon()
            raise
        scope = self._core.enter(opening.result())
        commit = False
        try:
            yield self
            commit = True
        finally:
            self._core.leave()
            try:
                with anyio.CancelScope(shield=True):
                    await in_own_thread(lambda: scope.end(commit=commit))
            except BaseException:
                # Its own error, or asyncio cancelled the task a second time, and the thread may
                # never have begun; ended already, this does nothing.
                scope.end(commit=commit)
                raise

    def __repr__(self) -> str:
        return f"<AsyncSession {self._core}>"


class _Core:
    """What both kinds of session do. Its transaction may be opened and used by any thread."""

    def __init__(self, database: Database, *, read_only: bool, for_update: bool) -> None:
        self._database = database
        self._read_only = read_only
        self._for_update = for_update
        self.scope: Scope | None = None

    def execute(self, sql: str, parameters: Mapping[str, object] | None) -> Rows:
        """Run a statement in the open transaction, or in one of its own."""
        text, values = bind(self._database.dialect, sql, parameters)
        scope = self.scope
        if scope is not None:
            return scope.run(lambda opened: opened.execute(text, values))
        opened = self.open()
        try:
            rows = opened.execute(text, values)
        except BaseException:
            opened.roll_back()
            raise
        opened.commit()
        return rows

    def check_can_begin(self) -> None:
        """Refuse a second transaction where one is open; called in the thread or task it is for.

        On a database in memory it would wait for the first for ever; on a file or a server only if
        both write, but it would not see what the first has written. It is refused on all alike.

        Raises:
            WouldDeadlock: this session, or another one here, is in a transaction.
        """
        if self.scope is not None:
            raise errors.WouldDeadlock("this session is in a transaction already")
        if scope_for(self._database) is not None:
            raise errors.WouldDeadlock(
                f"{self._database.url}: another session of this thread or task is in a "
                f"transaction, and a second one could wait for it without end; use that session, "
                f"or end it first"
            )

    def check_can_execute(self) -> None:
        """The same for a statement that is a transaction of its own."""
        if self.scope is None:
            self.check_can_begin()

    def open(self) -> OpenTransaction:
        """A new transaction."""
        return self._database.begin(read_only=self._read_only, for_update=self._for_update)

    def enter(self, opened: OpenTransaction) -> Scope:
        """Make it that of the running thread or task."""
        self.scope = Scope(self._database, opened, is_read_only=self._read_only)
        self.scope.enter()
        return self.scope

    def leave(self) -> None:
        """It is about to end; what comes now is no part of it."""
        scope, self.scope = self.scope, None
        if scope is not None:
            scope.leave()

    def __str__(self) -> str:
        return f"on {self._database.url}, {'in a transaction' if self.scope else 'idle'}"


class _Opening:
    """A transaction that a thread opens for a task, which may be gone by then.

    asyncio's own cancellation, that of its timeouts, does not wait for the thread.
    """

    def __init__(self, core: _Core) -> None:
        self._core = core
        self._lock = threading.Lock()
        self._opened: OpenTransaction | None = None
        self._is_abandoned = False

    def run(self) -> None:
        """Open it; in the thread."""
        opened = self._core.open()
        with self._lock:
            self._opened = opened
            is_abandoned = self._is_abandoned
        if is_abandoned:
            opened.roll_back()

    def result(self) -> OpenTransaction:
        """What was opened."""
        if self._opened is None:
            raise errors.TransactionFailed("the transaction was not opened")
        return self._opened

    def abandon(self) -> None:
        """Undo it, now or when it is opened."""
        with self._lock:
            self._is_abandoned = True
            opened = self._opened
        if opened is not None:
            opened.roll_back()


@contextmanager
def open_session(
    database: Database, *, begin_transaction: bool, with_for_update: bool, read_only: bool
) -> Generator[Session, None, None]:
    """A session for a block."""
    session = Session(database, read_only=read_only, for_update=with_for_update)
    if not begin_transaction:
        yield session
        return
    with session.begin():
        yield session


@asynccontextmanager
async def open_async_session(
    database: Database, *, begin_transaction: bool, with_for_update: bool, read_only: bool
) -> AsyncGenerator[AsyncSession, None]:
    """A session for a block of a task."""
    session = AsyncSession(database, read_only=read_only, for_update=with_for_update)
    if not begin_transaction:
        yield session
        return
    async with session.begin():
        yield session


def bind(
    dialect: Dialect, sql: str, parameters: Mapping[str, object] | None
) -> tuple[str, tuple[object, ...]]:
    """A person's statement in the driver's form, and its values.

    Raises:
        StatementRefused: parameters are missing or not used.
    """
    text, names = _numbered(sql, dialect)
    given = parameters or {}
    missing = [name for name in names if name not in given]
    unused = sorted(set(given) - set(names))
    if missing or unused:
        raise errors.StatementRefused(
            f"parameters missing: {missing}, parameters that the statement does not use: {unused}"
        )
    return text, tuple(given[name] for name in names)


@lru_cache(maxsize=256)
def _numbered(sql: str, dialect: Dialect) -> tuple[str, tuple[str, ...]]:
    return number_parameters(sql, dialect)
