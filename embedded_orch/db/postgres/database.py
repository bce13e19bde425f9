"""A Postgres database, as the layers above see it.

Each transaction takes a connection from the pool and gives it back. The server keeps transactions
apart, so nothing here waits its turn: what two of them want at once, they settle by row locks.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

import psycopg

from embedded_orch import errors
from embedded_orch.db import fork
from embedded_orch.db.current import in_own_thread, join, scope_for
from embedded_orch.db.postgres.announcing import AnnouncedWrite, Announcements
from embedded_orch.db.postgres.connecting import begin_statement
from embedded_orch.db.postgres.failures import translate
from embedded_orch.db.postgres.group_commit import is_lost_in_commit
from embedded_orch.db.postgres.hints import Hints
from embedded_orch.db.postgres.migrating import migrate
from embedded_orch.db.postgres.pool import Pool
from embedded_orch.db.postgres.running import Runner, commit, number_of
from embedded_orch.db.postgres.transaction import PostgresTransaction, checked
from embedded_orch.db.rows import Rows
from embedded_orch.db.statements import Catalog
from embedded_orch.values.places import Places

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anyio import CapacityLimiter
    from psycopg import Connection
    from psycopg.rows import TupleRow

    from embedded_orch.db.current import Scope
    from embedded_orch.db.port import Announced, R, Transaction
    from embedded_orch.db.postgres.options import PostgresOptions
    from embedded_orch.db.result_folder import ResultFolder
    from embedded_orch.process import Process

# How long a close waits for transactions of other threads. Those that last longer are closed as
# they end.
_CLOSING_SECONDS = 5.0
_READ_ONLY_TRANSACTION = "25006"


class PostgresDatabase:
    """One Postgres database, shared by all threads and event loops of the process.

    Args:
        options: how to reach it.
        process: whose sleep and chance it takes.
    """

    dialect: Literal["postgres"] = "postgres"

    def __init__(self, options: PostgresOptions, process: Process) -> None:
        self.options = options
        self.url = options.safe_url
        self.catalog = Catalog("postgres")
        self._pool = Pool(options)
        self.result_folder = _result_folder(options)
        self.places = Places(self.result_folder, largest_inside=options.inline_result_bytes)
        self._runner = Runner(self._pool, options, self.catalog, process, self.places)
        self._announcements = Announcements(self._runner, self.url)
        self.hints = Hints(options, self._pool, process.new_id().hex)
        self._open_scopes: list[Scope] = []
        self._is_closed = False
        self._opener_pid = os.getpid()
        fork.register(self)

    # -- operations ----------------------------------------------------------------------------

    def read(self, operation: Callable[[Transaction], R]) -> R:
        """Run in a transaction that sees one snapshot and everything announced before."""
        scope = scope_for(self)
        if scope is not None:
            return self._join(scope, operation, writes=False)
        self._check()
        self._flush()
        return self._runner.read(operation)

    @property
    def reads_beside(self) -> bool:
        """No: a transaction more is a round trip more."""
        return False

    def read_beside(self, operation: Callable[[Transaction], R]) -> R:
        """:meth:`read` without what was announced and waits to be committed."""
        self._check()
        return self._runner.read(operation)

    def write(self, operation: Callable[[Transaction], R], *, after: Announced | None = None) -> R:
        """Run in a write transaction and return its answer once that is committed.

        Another task of a thread that holds a transaction open may write: it has a connection of
        its own, and waits only for rows that the open transaction has written or locked. When it
        does, and the thread is an event loop's, command_timeout_seconds ends the wait.
        """
        scope = scope_for(self)
        if scope is not None:
            return self._join(scope, operation, writes=True)
        self._check()
        return self._announcements.write(operation, after)

    def announce(self, operation: Callable[[Transaction], object]) -> Announced:
        """Queue a write and return at once; committed in order, within 10 ms.

        Inside an open transaction of the caller it is part of that, like every write there.
        """
        scope = scope_for(self)
        if scope is None:
            self._check()
            return self._announcements.announce(operation)
        announced = AnnouncedWrite(operation)
        self._join(scope, operation, writes=True)
        announced.finish()
        return announced

    async def read_async(self, operation: Callable[[Transaction], R]) -> R:
        """:meth:`read` without blocking the event loop."""
        scope = scope_for(self)
        if scope is not None:
            return await in_own_thread(lambda: self._join(scope, operation, writes=False))
        return await self._in_thread(lambda: self.read(operation))

    async def write_async(
        self, operation: Callable[[Transaction], R], *, after: Announced | None = None
    ) -> R:
        """:meth:`write` without blocking the event loop."""
        scope = scope_for(self)
        if scope is not None:
            return await in_own_thread(lambda: self._join(scope, operation, writes=True))
        return await self._in_thread(lambda: self.write(operation, after=after))

    async def _in_thread(self, call: Callable[[], R]) -> R:
        """The answer of a call that waits for the server, from a thread beside the event loop."""
        import anyio.to_thread

        return await anyio.to_thread.run_sync(call, limiter=self._limiter())

    def _limiter(self) -> CapacityLimiter:
        """As many threads as there can be connections, for each event loop."""
        from embedded_orch.db.postgres.limiting import limiter_for

        return limiter_for(self, self.options.most_connections)

    def _join(self, scope: Scope, operation: Callable[[Transaction], R], *, writes: bool) -> R:
        try:
            return join(scope, operation, writes=writes)
        except psycopg.Error as error:
            raise translate(error, self.options) from error

    def _flush(self) -> None:
        # Not while this thread holds a transaction: what was announced may wait for its locks.
        if not self._is_held_here():
            self._announcements.flush()

    def _is_held_here(self) -> bool:
        """Whether this thread holds a transaction open, in whichever task."""
        return any(scope.is_my_thread() for scope in tuple(self._open_scopes))

    # -- a person's query, and a copy ----------------------------------------------------------

    def query(
        self,
        statement: str,
        parameters: Mapping[str, object] | None = None,
        *,
        timeout_seconds: float,
        max_rows: int,
    ) -> Rows:
        """The rows of one statement that can only read, within limits."""
        from embedded_orch.db.postgres.querying import run_query
        from embedded_orch.db.queries import checked_query

        query = checked_query(
            self.dialect,
            statement,
            parameters,
            timeout_seconds=timeout_seconds,
            max_rows=max_rows,
        )
        return self.read(
            lambda transaction: run_query(_connection_of(transaction), query, self.options)
        )

    def backup(self, path: str) -> None:
        """Refuse: a server's own tools copy its databases.

        Raises:
            ConfigurationError: always; it says what to run instead.
        """
        raise errors.ConfigurationError(
            f"a Postgres database is not copied into a file by this program; run: "
            f"pg_dump --schema={self.options.schema_name} --format=custom --file={path} "
            f"'{self.url}' (with the password in PGPASSWORD or ~/.pgpass)"
        )

    def give_room_back(self, *, most_bytes: int) -> int:
        """Do nothing: the server's autovacuum sees to it."""
        return 0

    def rebuild_indexes(self) -> None:
        """Build those indexes anew that the server does not use, after it failed to make them."""
        self._check()
        from embedded_orch.db.postgres.vacuuming import rebuild_indexes

        with self._pool.connection() as connection:
            rebuild_indexes(connection, self.options)

    def vacuum(self) -> None:
        """Have the server clear the tables of what was removed, and count what they hold."""
        self._check()
        if self._is_held_here():
            raise errors.WouldDeadlock(
                f"{self.url}: vacuum cannot be part of a transaction; end the session first"
            )
        from embedded_orch.db.postgres.vacuuming import vacuum

        with self._pool.connection() as connection:
            vacuum(connection, self.options)

    # -- transactions that stay open -----------------------------------------------------------

    def begin(
        self, *, read_only: bool = False, for_update: bool = False
    ) -> PostgresOpenTransaction:
        """A transaction that stays open; one snapshot when it is read-only.

        Args:
            read_only: the transaction cannot write.
            for_update: reads of ours in it lock the rows that they return.
        """
        self._check()
        self._flush()
        return self._runner.connect(
            lambda: PostgresOpenTransaction(
                self._runner,
                self._pool,
                self.options,
                self.catalog,
                self.places,
                read_only=read_only,
                for_update=for_update,
            )
        )

    def hold(self, scope: Scope) -> None:
        """A transaction was opened that stays open."""
        self._open_scopes.append(scope)

    def release(self, scope: Scope) -> None:
        """It is about to end."""
        self._open_scopes.remove(scope)

    # -- the beginning and the end -------------------------------------------------------------

    def migrate(self, process: Process) -> None:
        """Bring the schema to the version of this program."""
        self._check()
        with self._pool.connection() as connection:
            migrate(connection, self.options, process=process)

    def close(self) -> None:
        """Commit what was announced, stop the thread, and close every connection.

        Raises:
            WouldDeadlock: this thread holds a transaction open.
        """
        if self._is_closed:
            return
        if os.getpid() != self._opener_pid:
            self._is_closed = True
            return
        if self._is_held_here():
            raise errors.WouldDeadlock(
                f"{self.url} cannot be closed by a thread that holds a transaction open; end the "
                f"session first"
            )
        self._is_closed = True
        self.hints.close()
        try:
            self._announcements.close()
        finally:
            self._runner.wait_until_idle(_CLOSING_SECONDS)
            self._pool.close(timeout=_CLOSING_SECONDS)

    def abandon_in_child(self) -> None:
        """Refuse every further call: a forked child shares the sockets with its parent."""
        self._is_closed = True
        self.hints.abandon_in_child()

    def _check(self) -> None:
        if self._is_closed:
            if os.getpid() != self._opener_pid:
                raise errors.ForkedProcess(
                    f"{self.url} was opened before fork() and cannot be used in the child; start "
                    f"processes by spawn or forkserver, or open the database in the child"
                )
            raise errors.DatabaseClosed(f"{self.url} is closed; open it again")

    def __repr__(self) -> str:
        return f"<PostgresDatabase {self.url}{' closed' if self._is_closed else ''}>"


def open_server(options: PostgresOptions, process: Process) -> PostgresDatabase:
    """Connect to the server and bring the schema up to date.

    Raises:
        NotOurDatabase: the schema is another program's; nothing was changed.
        DatabaseTooNew: a newer version of this program has been there; nothing was changed.
        DatabaseError: what else keeps it from being opened.
    """
    database = PostgresDatabase(options, process)
    try:
        database.migrate(process)
    except BaseException:
        database.close()
        raise
    return database


def _result_folder(options: PostgresOptions) -> ResultFolder | None:
    if options.result_folder is None:
        return None
    from urllib.parse import quote

    from embedded_orch.db.result_folder import ResultFolder

    # Each database and schema has its own, so that none removes what another names.
    own = quote(f"{options.keywords().get('dbname', 'postgres')}.{options.schema_name}", safe="")
    path = os.path.join(os.path.abspath(os.path.expanduser(options.result_folder)), own)
    return ResultFolder(path, is_synced=options.durability != "off")


class PostgresOpenTransaction:
    """A connection with an open transaction, until its owner ends it."""

    __slots__ = ("_connection", "_is_open", "_options", "_pool", "_runner", "transaction")

    def __init__(
        self,
        runner: Runner,
        pool: Pool,
        options: PostgresOptions,
        catalog: Catalog,
        places: Places,
        *,
        read_only: bool,
        for_update: bool,
    ) -> None:
        self._runner = runner
        self._pool = pool
        self._options = options
        self._connection = pool.acquire()
        try:
            begin = begin_statement(
                options, read_only=read_only, one_snapshot=read_only, stays_open=True
            )
            self._connection.execute(begin, prepare=False)
        except BaseException as error:
            pool.release(self._connection)
            if isinstance(error, psycopg.Error):
                raise translate(error, options) from error
            raise
        self.transaction = PostgresTransaction(
            lambda: self._connection,
            catalog,
            locks_reads=for_update and not read_only,
            places=places,
        )
        self._is_open = True

    def execute(self, sql: str, parameters: tuple[object, ...]) -> Rows:
        """Run one statement in the driver's numbered form."""
        return run_statement(self._connection, sql, parameters, self._options)

    def script(self, sql: str) -> None:
        """Run a statement of transaction control."""
        try:
            self._connection.execute(sql.encode(), prepare=False)
        except psycopg.Error as error:
            raise translate(error, self._options) from error

    def commit(self) -> None:
        """Commit and let go of the connection.

        When the connection is lost in it, the server is asked what became of the transaction.

        Raises:
            TransactionFailed: it was rolled back, and nothing of it was kept.
            CommitOutcomeUnknown: the server could not be asked.
        """
        if not self._is_open:
            return
        self._is_open = False
        number: int | None = None
        try:
            number = number_of(self._connection)
            commit(self._connection)
        except psycopg.Error as error:
            # Without a number it has written nothing, or had not come to its COMMIT.
            if number is None or not is_lost_in_commit(error, self._connection):
                raise translate(error, self._options) from error
            lost = error
        else:
            return
        finally:
            self._pool.release(self._connection)
        if not self._runner.was_committed(number, lost):
            raise errors.TransactionFailed(
                f"{self._options.safe_url}: the connection was lost during the COMMIT, and the "
                f"server has rolled the transaction back: nothing of it was kept"
            ) from lost

    def roll_back(self) -> None:
        """Undo and let go of the connection."""
        if self._is_open:
            self._is_open = False
            self._pool.release(self._connection)


def _connection_of(transaction: Transaction) -> Connection[TupleRow]:
    if not isinstance(transaction, PostgresTransaction):
        raise TypeError(f"{transaction!r} is no transaction of Postgres")
    return transaction.connection


def run_statement(
    connection: Connection[TupleRow],
    sql: str,
    parameters: tuple[object, ...],
    options: PostgresOptions,
) -> Rows:
    """One statement that a person wrote, and its rows."""
    try:
        cursor = connection.execute(sql.encode(), checked(parameters))
        if cursor.description is None:
            return Rows((), [], changed=max(cursor.rowcount, 0))
        rows = cursor.fetchall()
    except TypeError as error:
        raise errors.StatementRefused(f"{error}: {sql}") from error
    except psycopg.Error as error:
        if error.sqlstate == _READ_ONLY_TRANSACTION:
            raise errors.StatementRefused(f"a read-only session cannot write: {error}") from error
        raise translate(error, options) from error
    reads = (cursor.statusmessage or "").startswith(("SELECT", "SHOW", "EXPLAIN"))
    columns = [column.name for column in cursor.description]
    return Rows(columns, rows, changed=0 if reads else len(rows))
