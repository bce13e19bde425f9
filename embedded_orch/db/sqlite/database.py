"""A SQLite database, in a file or in memory, as the layers above see it.

A file has one writer and several readers. ``:memory:``, and a file with a truncated journal, has
one connection that its writer owns: reads take their turn on it, a whole transaction at a time.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

import apsw

from embedded_orch import errors
from embedded_orch.db import fork
from embedded_orch.db.current import in_own_thread, join, scope_for
from embedded_orch.db.handoff import answer_for_running_loop
from embedded_orch.db.rows import Rows
from embedded_orch.db.sqlite import audit
from embedded_orch.db.sqlite.connecting import connect, translate
from embedded_orch.db.sqlite.long_reads import LongReads, Named, where_opened
from embedded_orch.db.sqlite.migrating import identify, migrate
from embedded_orch.db.sqlite.presence import Presence
from embedded_orch.db.sqlite.readers import Readers
from embedded_orch.db.sqlite.transaction import SQLiteTransaction, columns_of
from embedded_orch.db.sqlite.writer import AnnouncedWrite, Request, Writer
from embedded_orch.db.statements import Catalog
from embedded_orch.values.places import Places

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from embedded_orch.db.current import Scope
    from embedded_orch.db.port import Announced, Hints, R, Transaction
    from embedded_orch.db.result_folder import ResultFolder
    from embedded_orch.db.sqlite.guard import FileGuard
    from embedded_orch.db.sqlite.log_room import LogRoom
    from embedded_orch.db.sqlite.options import SQLiteOptions
    from embedded_orch.db.sqlite.readers import Reader
    from embedded_orch.process import Process


# 4 MB of pages of 4 KB: some 10 ms for whoever wants to write meanwhile.
_VACUUMED_AT_ONCE = 4 * 2**20


class SQLiteDatabase:
    """One open SQLite database, shared by all threads and event loops of the process.

    Args:
        path: the file; None for a database in memory.
        options: its settings.
        guard: the locks between processes; None in memory.
    """

    dialect: Literal["sqlite"] = "sqlite"
    # A file tells nobody that it was written: who waits for other processes looks.
    hints: Hints | None = None

    def __init__(self, path: str | None, options: SQLiteOptions, guard: FileGuard | None) -> None:
        self.path = path
        self.options = options
        self.url = f"sqlite:///{path}" if path else ":memory:"
        self.catalog = Catalog("sqlite")
        self.result_folder = _result_folder(path, options)
        self.places = Places(self.result_folder, largest_inside=options.inline_result_bytes)
        self._guard = guard
        self._is_closed = False
        self._opener_pid = os.getpid()
        self._open_scope: Scope | None = None
        has_log = path is not None and options.journal == "wal"
        self._connection = connect(path or "", options, in_memory=path is None, look_first=identify)
        try:
            if guard is not None and has_log:
                # Reading makes SQLite open the log and its index, which the pins then hold.
                self._connection.pragma("user_version")
                guard.pin()
            self._presence: Presence | None = None
            if path is not None:
                self._presence = Presence(path, has_log=has_log)
            self._writer = Writer(
                self._connection,
                self.catalog,
                places=self.places,
                guard=guard,
                presence=self._presence,
                busy_timeout_seconds=options.busy_timeout_seconds,
                checkpoint_pages=options.checkpoint_pages if has_log else None,
                name=path or ":memory:",
            )
        except apsw.Error as error:
            self._connection.close()
            raise translate(error, path or ":memory:") from error
        except BaseException:
            self._connection.close()
            raise
        self._readers: Readers | None = None
        if guard is not None and has_log:
            self._readers = Readers(
                self._connect_reader,
                self.catalog,
                guard,
                places=self.places,
                most=options.max_readers,
                busy_timeout_seconds=options.busy_timeout_seconds,
                name=path or ":memory:",
            )
            if self._writer.checkpoints is not None:
                watch = LongReads(guard.path, self._readers)
                self._writer.checkpoints.on_put_off = watch.look
                self._writer.checkpoints.syncs_ahead = options.synchronous == "NORMAL"
            if options.synchronous == "FULL" and self._presence is not None:
                self._writer.room = _log_room(guard, self._connection, self._presence)
        if path is not None:
            audit.watch(path)
        fork.register(self)

    # -- operations ----------------------------------------------------------------------------

    def read(self, operation: Callable[[Transaction], R]) -> R:
        """Run in a transaction that sees one snapshot and everything announced before."""
        scope = scope_for(self)
        if scope is not None:
            return self._join(scope, operation, writes=False)
        self.check_present()
        return self._read_committed(operation)

    def _read_committed(self, operation: Callable[[Transaction], R]) -> R:
        """:meth:`read` without the open transaction of the caller."""
        self._check()
        if self._readers is None:
            self._check_not_waiting_for_ourselves()
            return self._writer.read(operation)
        if self._writer.has_queued and not self._is_waiting_for_ourselves():
            self._writer.flush()
        return self._readers.read(operation)

    @property
    def reads_beside(self) -> bool:
        """Whether there are readers, which wait for no writer."""
        return self._readers is not None

    def read_beside(self, operation: Callable[[Transaction], R]) -> R:
        """:meth:`read` without what was announced and waits to be committed."""
        self.check_present()
        if self._readers is None:
            return self._read_committed(operation)
        self._check()
        return self._readers.read(operation, in_one=True)

    def write(self, operation: Callable[[Transaction], R], *, after: Announced | None = None) -> R:
        """Run in a write transaction and return its answer once that is committed.

        ``after`` asks for nothing here: whatever was announced before is committed before.
        """
        scope = scope_for(self)
        if scope is not None:
            return self._join(scope, operation, writes=True)
        self._check()
        if self._open_scope is not None:
            self._check_not_waiting_for_ourselves()
        return self._writer.write(operation)

    def announce(self, operation: Callable[[Transaction], object]) -> Announced:
        """Queue a write and return at once; committed in order, within 10 ms.

        Inside an open transaction of the caller it is part of that, like every write there.
        """
        scope = scope_for(self)
        if scope is not None:
            request = AnnouncedWrite(operation)
            self._join(scope, operation, writes=True)
            request.finish()
            return request
        self._check()
        return self._writer.announce(operation)

    async def read_async(self, operation: Callable[[Transaction], R]) -> R:
        """:meth:`read` without blocking the event loop."""
        import anyio.to_thread

        scope = scope_for(self)
        if scope is not None:
            return await in_own_thread(lambda: self._join(scope, operation, writes=False))
        return await anyio.to_thread.run_sync(self.read, operation)

    async def write_async(
        self, operation: Callable[[Transaction], R], *, after: Announced | None = None
    ) -> R:
        """:meth:`write` without blocking the event loop."""
        scope = scope_for(self)
        if scope is not None:
            return await in_own_thread(lambda: self._join(scope, operation, writes=True))
        self._check()
        answer = answer_for_running_loop()
        request = Request(operation, answer.notify)
        self._writer.hand_over(request)
        try:
            await answer.wait()
        except BaseException:
            # Cancelled while waiting: what has not begun is taken back, what has begun commits.
            self._writer.withdraw(request)
            raise
        value: R = request.outcome()
        return value

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
        from embedded_orch.db.queries import checked_query
        from embedded_orch.db.sqlite.querying import run_query

        query = checked_query(
            self.dialect,
            statement,
            parameters,
            timeout_seconds=timeout_seconds,
            max_rows=max_rows,
        )
        return self.read(
            Named(
                lambda transaction: run_query(_connection_of(transaction), query),
                f"orch.sql({query.text[:200]!r})",
            )
        )

    def backup(self, path: str) -> None:
        """Copy what is committed to a new file; on a file in WAL mode nobody waits for it."""
        from embedded_orch.db.sqlite.copying import copy_with_results

        self._check()
        copy_with_results(
            lambda copy: self._read_committed(Named(copy, f"orch.backup({path!r})")),
            path,
            self.result_folder,
            connection_of=_connection_of,
        )

    def give_room_back(self, *, most_bytes: int) -> int:
        """Hand some of the room that nothing is in back to the file system, in one transaction."""
        from embedded_orch.db.sqlite.vacuuming import give_room_back

        def operation(transaction: Transaction) -> int:
            connection = _connection_of(transaction)
            size = int(connection.pragma("page_size"))
            return size * give_room_back(connection, pages=max(1, most_bytes // size))

        return self.write(operation)

    def rebuild_indexes(self) -> None:
        """Build the indexes anew from the tables, in one transaction."""
        self.write(lambda transaction: transaction.script("reindex"))

    def vacuum(self) -> None:
        """Hand all of the room that nothing is in back to the file system."""
        from embedded_orch.db.sqlite.vacuuming import is_incremental, rebuild

        def see_to_it(connection: apsw.Connection) -> None:
            if not is_incremental(connection):
                rebuild(connection, self._guard, self.url)

        self._refuse_open_transaction("vacuum")
        self.with_connection(see_to_it)
        while self.give_room_back(most_bytes=_VACUUMED_AT_ONCE):
            continue
        # The file gets shorter when its log is copied into it.
        self.with_connection(lambda _: self._writer.empty_log())

    def _refuse_open_transaction(self, what: str) -> None:
        if scope_for(self) is not None:
            raise errors.WouldDeadlock(
                f"{self.url}: {what} cannot be part of a transaction; end the session first"
            )

    def _join(self, scope: Scope, operation: Callable[[Transaction], R], *, writes: bool) -> R:
        try:
            return join(scope, operation, writes=writes)
        except apsw.Error as error:
            raise translate(error, self.url) from error

    # -- transactions that stay open -----------------------------------------------------------

    def begin(
        self, *, read_only: bool = False, for_update: bool = False
    ) -> SQLiteWriteTransaction | SQLiteReadTransaction:
        """A transaction that stays open: IMMEDIATE, or DEFERRED on a reader when read-only.

        ``for_update`` asks for nothing more here: an IMMEDIATE transaction excludes every writer.
        """
        self._check()
        self.check_present()
        if read_only and self._readers is not None:
            if self._writer.has_queued and not self._is_waiting_for_ourselves():
                self._writer.flush()
            return SQLiteReadTransaction(self._readers)
        self._check_not_waiting_for_ourselves()
        return SQLiteWriteTransaction(self._writer, self._connection, is_read_only=read_only)

    def hold(self, scope: Scope) -> None:
        """Remember whose open transaction keeps the write connection."""
        if self._readers is None or not scope.is_read_only:
            self._open_scope = scope

    def release(self, scope: Scope) -> None:
        """That transaction is about to end."""
        if self._open_scope is scope:
            self._open_scope = None

    def _is_waiting_for_ourselves(self) -> bool:
        holder = self._open_scope
        return holder is not None and holder.is_my_thread()

    def _check_not_waiting_for_ourselves(self) -> None:
        if self._is_waiting_for_ourselves():
            raise errors.WouldDeadlock(
                f"{self.url}: this thread already holds an open transaction, so waiting for "
                f"another one would never end; end the session first, or make the call inside "
                f"the task that opened it"
            )

    def check_present(self) -> None:
        """Refuse a file that was removed or replaced; what it held can still be backed up.

        Raises:
            DatabaseLost: it was.
        """
        if self._presence is not None and not self._is_closed:
            self._presence.check()

    def migrate(self, process: Process) -> None:
        """Bring the schema to the version of this program."""
        self.with_connection(
            lambda connection: migrate(connection, self._guard, self.path, process=process)
        )

    # -- the connection itself -----------------------------------------------------------------

    @property
    def guard(self) -> FileGuard | None:
        """The locks between processes; None in memory."""
        return self._guard

    def with_connection(self, use: Callable[[apsw.Connection], R]) -> R:
        """Lend the write connection, outside of any transaction, to what needs it bare."""
        self._check()
        self._check_not_waiting_for_ourselves()
        return self._writer.with_turn(lambda: use(self._connection))

    def new_connection(self, *, read_only: bool) -> apsw.Connection:
        """One more connection with the same settings; the caller closes it."""
        self._check()
        return connect(
            self.path or "", self.options, read_only=read_only, in_memory=self.path is None
        )

    def _connect_reader(self) -> apsw.Connection:
        return self.new_connection(read_only=True)

    # -- the end -------------------------------------------------------------------------------

    def close(self) -> None:
        """Commit what was announced, empty the log into the file, and close every connection."""
        if self._is_closed:
            return
        if os.getpid() != self._opener_pid:
            self._is_closed = True
            return
        self._check_not_waiting_for_ourselves()
        try:
            self._writer.close()
        finally:
            self._is_closed = True
            if self._readers is not None:
                self._readers.close()
            self._connection.close()
            # After the last connection: closing any descriptor of a file drops the locks that
            # SQLite holds on it in this process.
            if self._guard is not None:
                self._guard.close()
            if self.path is not None:
                audit.unwatch(self.path)

    def abandon_in_child(self) -> None:
        """Refuse every further call: a forked child has the connections, and none of their locks.

        Nor may it close them, at its end either: closing would roll the parent's open transaction
        back, in the index that they share.
        """
        self._is_closed = True
        readers = self._readers.connections if self._readers is not None else []
        fork.keep_forever(apsw, self._connection, *readers)

    def _check(self) -> None:
        if self._is_closed:
            if os.getpid() != self._opener_pid:
                raise errors.ForkedProcess(
                    f"{self.url} was opened before fork() and cannot be used in the child; start "
                    f"processes by spawn or forkserver, or fork before opening the database"
                )
            raise errors.DatabaseClosed(f"{self.url} is closed; open it again")

    def __repr__(self) -> str:
        return f"<SQLiteDatabase {self.url}{' closed' if self._is_closed else ''}>"


class SQLiteWriteTransaction:
    """The write connection, kept until the transaction ends."""

    __slots__ = ("_connection", "_is_open", "_is_read_only", "_writer", "transaction")

    def __init__(self, writer: Writer, connection: apsw.Connection, *, is_read_only: bool) -> None:
        self._writer = writer
        self._connection = connection
        self._is_read_only = is_read_only
        self.transaction: SQLiteTransaction = writer.transaction
        self._is_open = False
        try:
            writer.take_turn(self)
            writer.begin()
            self._is_open = True
            if is_read_only:
                connection.pragma("query_only", 1)
        except BaseException:
            self.roll_back()
            writer.give_turn(self)
            raise

    def execute(self, sql: str, parameters: tuple[object, ...]) -> Rows:
        """Run one statement in the driver's numbered form."""
        return run_statement(self._connection, sql, parameters)

    def script(self, sql: str) -> None:
        """Run a statement of transaction control."""
        self._connection.execute(sql)

    def commit(self) -> None:
        """Commit and let go of the connection."""
        self._end(self._writer.commit)

    def roll_back(self) -> None:
        """Undo and let go of the connection."""
        self._end(self._writer.roll_back)

    def _end(self, how: Callable[[], None]) -> None:
        if not self._is_open:
            return
        self._is_open = False
        try:
            if self._is_read_only:
                self._connection.pragma("query_only", 0)
            how()
        finally:
            try:
                self._writer.give_turn(self)
            except BaseException:
                # As in Writer.with_turn.
                self._writer.give_turn(self)
                raise


class SQLiteReadTransaction:
    """A reader, kept until the transaction ends."""

    __slots__ = ("_is_open", "_reader", "_readers", "transaction")

    def __init__(self, readers: Readers) -> None:
        self._readers = readers
        self._reader: Reader = readers.take()
        self.transaction: SQLiteTransaction = self._reader.transaction
        try:
            self._reader.begin(f"a read-only session, {where_opened()}")
        except BaseException:
            readers.give(self._reader)
            raise
        self._is_open = True

    def execute(self, sql: str, parameters: tuple[object, ...]) -> Rows:
        """Run one statement in the driver's numbered form."""
        return run_statement(self._reader.connection, sql, parameters)

    def script(self, sql: str) -> None:
        """Run a statement of transaction control."""
        self._reader.connection.execute(sql)

    def commit(self) -> None:
        """End it; there is nothing to commit."""
        self.roll_back()

    def roll_back(self) -> None:
        """End it and let go of the reader."""
        if self._is_open:
            self._is_open = False
            try:
                self._reader.end()
            finally:
                self._readers.give(self._reader)


def _result_folder(path: str | None, options: SQLiteOptions) -> ResultFolder | None:
    """The folder beside a file; what is in memory leaves nothing behind."""
    if path is None:
        return None
    from embedded_orch.db.result_folder import ResultFolder, folder_beside

    return ResultFolder(
        folder_beside(os.path.realpath(path)), is_synced=options.durability != "off"
    )


def _log_room(guard: FileGuard, connection: apsw.Connection, presence: Presence) -> LogRoom:
    """Only where commits are synced: others have no use for it, nor for its module."""
    from embedded_orch.db.sqlite.log_room import LogRoom

    return LogRoom(guard.path, int(connection.pragma("page_size")), presence)


def _connection_of(transaction: Transaction) -> apsw.Connection:
    if not isinstance(transaction, SQLiteTransaction):
        raise TypeError(f"{transaction!r} is no transaction of SQLite")
    return transaction.connection


def run_statement(connection: apsw.Connection, sql: str, parameters: tuple[object, ...]) -> Rows:
    """One statement that a person wrote, and its rows."""
    try:
        before = connection.total_changes()
        cursor = connection.execute(sql, parameters)
        try:
            columns = columns_of(cursor)
            rows = cursor.fetchall()
        finally:
            # Interrupted on a row, it would keep the snapshot as long as there is a traceback.
            cursor.close(force=True)
        return Rows(columns, rows, changed=connection.total_changes() - before)
    except apsw.ReadOnlyError as error:
        raise errors.StatementRefused(f"a read-only session cannot write: {error}") from error
    except apsw.SQLError as error:
        raise errors.StatementRefused(f"{error}: {sql}") from error
    except TypeError as error:
        raise errors.StatementRefused(f"{error}: {sql}") from error
    except apsw.Error as error:
        raise translate(error, "") from error
