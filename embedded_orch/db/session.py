"""Sessions: a person's own statements, in the same database and under the same transaction rules.

A session with ``begin_transaction=True`` is one transaction from its entry to its exit: committed
when its block ends, rolled back when it raises. Without, each statement is a transaction of its
own, until ``begin()`` makes one of several. Calls of ours from the thread or task that holds the
transaction join it. Statements are SQL with ``:name`` parameters, on both engines.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

from embedded_orch import errors
from embedded_orch.db.current import Scope
from embedded_orch.db.statements import number_parameters

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

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
        self._database = database
        self._read_only = read_only
        self._for_update = for_update
        self._opened: OpenTransaction | None = None

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self._opened is not None

    def execute(self, sql: str, parameters: Mapping[str, object] | None = None) -> Rows:
        """Run one statement.

        Args:
            sql: with parameters as ``:name``.
            parameters: their values: None, bool, int, float, str, bytes or UUID.

        Raises:
            StatementRefused: it is wrong, or writes in a read-only session.
        """
        text, values = bind(self._database.dialect, sql, parameters)
        if self._opened is not None:
            return self._opened.execute(text, values)
        opened = self._open()
        try:
            rows = opened.execute(text, values)
        except BaseException:
            opened.roll_back()
            raise
        opened.commit()
        return rows

    @contextmanager
    def begin(self) -> Iterator[Session]:
        """One transaction for the statements of a block.

        Raises:
            WouldDeadlock: this thread holds a transaction already.
        """
        self._enter()
        try:
            yield self
        except BaseException:
            self._leave(commit=False)
            raise
        self._leave(commit=True)

    def _open(self) -> OpenTransaction:
        return self._database.begin(read_only=self._read_only, for_update=self._for_update)

    def _enter(self) -> None:
        if self._opened is not None:
            raise errors.WouldDeadlock("this session is in a transaction already")
        self._opened = self._open()
        self._scope = Scope(self._database, self._opened, is_read_only=self._read_only)
        self._scope.enter()

    def _leave(self, *, commit: bool) -> None:
        opened, self._opened = self._opened, None
        self._scope.leave()
        if opened is None:
            return
        if commit:
            opened.commit()
        else:
            opened.roll_back()

    def __repr__(self) -> str:
        state = "in a transaction" if self._opened else "idle"
        return f"<{type(self).__name__} on {self._database.url}, {state}>"


class AsyncSession:
    """Statements in transactions, for the task that opened it; no call blocks the event loop."""

    def __init__(self, database: Database, *, read_only: bool, for_update: bool) -> None:
        self._session = Session(database, read_only=read_only, for_update=for_update)

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self._session.in_transaction

    async def execute(self, sql: str, parameters: Mapping[str, object] | None = None) -> Rows:
        """Run one statement; see :meth:`Session.execute`."""
        import anyio.to_thread

        return await anyio.to_thread.run_sync(self._session.execute, sql, parameters)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncSession]:
        """One transaction for the statements of a block; it may stay open across awaits."""
        import anyio
        import anyio.to_thread

        session = self._session
        if session.in_transaction:
            raise errors.WouldDeadlock("this session is in a transaction already")
        session._opened = await anyio.to_thread.run_sync(session._open)
        session._scope = Scope(session._database, session._opened, is_read_only=session._read_only)
        session._scope.enter()
        commit = False
        try:
            yield self
            commit = True
        finally:
            with anyio.CancelScope(shield=True):
                opened, session._opened = session._opened, None
                session._scope.leave()
                await anyio.to_thread.run_sync(opened.commit if commit else opened.roll_back)

    def __repr__(self) -> str:
        return repr(self._session).replace("Session", "AsyncSession", 1)


@contextmanager
def open_session(
    database: Database, *, begin_transaction: bool, with_for_update: bool, read_only: bool
) -> Iterator[Session]:
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
) -> AsyncIterator[AsyncSession]:
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
