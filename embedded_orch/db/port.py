"""What a database is to the layers above: transactions, and three ways to run one.

An operation is a plain function of a :class:`Transaction`. It runs whole inside one transaction,
never awaits, and touches nothing but the transaction and its own arguments: it may run in another
thread than its caller's, together with other callers' operations, and it may run again when its
transaction was rolled back, or when a commit's outcome is unknown. So every operation that writes
carries the ids of what it writes, made by the caller, and gives the same answer when it finds
them written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from embedded_orch.db.current import Scope
    from embedded_orch.db.result_folder import ResultFolder
    from embedded_orch.db.rows import Rows
    from embedded_orch.db.statements import Dialect
    from embedded_orch.values.places import Places

R = TypeVar("R")


class Transaction(Protocol):
    """An open transaction. Values are None, bool, int, float, str, bytes or UUID; JSON is text."""

    @property
    def dialect(self) -> Dialect:
        """Which engine answers."""
        ...

    @property
    def locks_reads(self) -> bool:
        """Whether reads of ours lock the rows they read (``with_for_update`` on Postgres)."""
        ...

    @property
    def places(self) -> Places:
        """Where values are that are not in rows."""
        ...

    def rows(self, name: str, /, **values: object) -> list[tuple[Any, ...]]:
        """All rows of a named statement."""
        ...

    def row(self, name: str, /, **values: object) -> tuple[Any, ...] | None:
        """The first row, or None."""
        ...

    def value(self, name: str, /, **values: object) -> Any:
        """The first column of the first row, or None."""
        ...

    def run(self, name: str, given: Mapping[str, object] | None = None, /, **values: object) -> int:
        """Run a named statement; how many rows it changed.

        Values that stand in a mapping are given as that: naming them copies it twice.
        """
        ...

    def whole(self, name: str, group: object, /, **values: object) -> tuple[Any, ...] | None:
        """The first row of a statement that is all that its operation writes.

        It answers like :meth:`row`. Nothing follows it that would have to be undone with it: where
        it comes first, it may be committed before this returns, together with others of its group
        that other threads have sent. A group is what waits for the same row of the database.
        """
        ...

    def run_many(self, name: str, values: Iterable[Mapping[str, object]], /) -> None:
        """Run a named statement once for each set of values."""
        ...

    def script(self, sql: str) -> None:
        """Run the statements of a migration."""
        ...


class Announced(Protocol):
    """A write that was announced and not awaited."""

    @property
    def error(self) -> BaseException | None:
        """Why it failed; None while it waits, and when it is committed."""
        ...

    @property
    def is_done(self) -> bool:
        """Whether it is committed, or has failed."""
        ...


Hear = Callable[["list[str] | None"], None]
"""Is called with the names of what others have changed; None for anything."""


class Hints(Protocol):
    """Telling other processes of a change, and hearing it from them. It may get lost."""

    @property
    def is_heard(self) -> bool:
        """Whether what other processes tell arrives here."""
        ...

    def tell(self, names: Iterable[str]) -> None:
        """Tell other processes, soon, that something of these names has changed."""
        ...

    def listen(self, hear: Hear) -> None:
        """Have a function called with what others tell; from any thread."""
        ...


class Database(Protocol):
    """One open database, shared by all threads and event loops of the process."""

    @property
    def dialect(self) -> Dialect:
        """Which engine answers."""
        ...

    @property
    def url(self) -> str:
        """What was opened, without a password."""
        ...

    @property
    def places(self) -> Places:
        """Where values are that are not in rows."""
        ...

    @property
    def result_folder(self) -> ResultFolder | None:
        """The folder of values that are too large for rows; None where there is none."""
        ...

    @property
    def hints(self) -> Hints | None:
        """How other processes are told of a change; None where they have to look."""
        ...

    def read(self, operation: Callable[[Transaction], R]) -> R:
        """Run in a transaction that sees one snapshot and everything announced before."""
        ...

    @property
    def reads_beside(self) -> bool:
        """Whether :meth:`read_beside` costs less than a write."""
        ...

    def read_beside(self, operation: Callable[[Transaction], R]) -> R:
        """:meth:`read` by one statement, in which what was announced may be missing as yet.

        Not for a caller with an open transaction, which it does not see.
        """
        ...

    def write(self, operation: Callable[[Transaction], R], *, after: Announced | None = None) -> R:
        """Run in a write transaction and return its answer once that is committed.

        Args:
            operation: what to write.
            after: an announced write that it builds on, committed before it or together with it.
        """
        ...

    def announce(self, operation: Callable[[Transaction], object]) -> Announced:
        """Queue a write and return at once.

        It is committed in order, with the next write or within 10 ms. What was announced and not
        yet committed is lost when the process dies.
        """
        ...

    async def read_async(self, operation: Callable[[Transaction], R]) -> R:
        """:meth:`read` without blocking the event loop."""
        ...

    async def write_async(
        self, operation: Callable[[Transaction], R], *, after: Announced | None = None
    ) -> R:
        """:meth:`write` without blocking the event loop."""
        ...

    def begin(self, *, read_only: bool = False, for_update: bool = False) -> OpenTransaction:
        """A transaction that stays open: IMMEDIATE, or DEFERRED on a reader when read-only.

        Args:
            read_only: the transaction cannot write.
            for_update: reads of ours in it lock their rows (Postgres).
        """
        ...

    def hold(self, scope: Scope) -> None:
        """A transaction was opened that stays open."""
        ...

    def release(self, scope: Scope) -> None:
        """It is about to end."""
        ...

    def query(
        self,
        statement: str,
        parameters: Mapping[str, object] | None = None,
        *,
        timeout_seconds: float,
        max_rows: int,
    ) -> Rows:
        """The rows of a person's statement, which can do nothing but read.

        It sees what was announced before, and what the open transaction of its caller has written.

        Args:
            statement: one, with parameters as ``:name``.
            parameters: values for them: None, bool, int, float, str, bytes or UUID.
            timeout_seconds: how long it may take.
            max_rows: how many rows it may find.

        Raises:
            StatementRefused: it is wrong, would do more than read, took too long, or found more.
            ConfigurationError: a limit that is none.
        """
        ...

    def backup(self, path: str) -> None:
        """Copy the database to a new file, whole and as it was at one moment, while it is in use.

        The files of its results are copied into the folder that belongs to the new file.

        Everything that was announced before is in the copy. An open transaction, also the
        caller's own, is not.

        Args:
            path: absolute; the file does not exist, its folder does.

        Raises:
            ConfigurationError: it is no such path, or the database is on a server.
            DatabaseUnavailable: the file could not be written; nothing is left of it.
        """
        ...

    def give_room_back(self, *, most_bytes: int) -> int:
        """Hand some of the room that nothing is in back to the file system.

        Args:
            most_bytes: how much at most.

        Returns:
            How many bytes hold nothing after that; 0 on a server, which sees to it itself.
        """
        ...

    def rebuild_indexes(self) -> None:
        """Build the indexes anew from the tables; on a server, those that it does not use.

        Raises:
            DatabaseDamaged: they are too damaged for that.
        """
        ...

    def vacuum(self) -> None:
        """Hand all of the room that nothing is in back, however long that takes.

        On a file others write in between; one that was made by hand may be rebuilt whole, once.
        On a server it is VACUUM, with fresh statistics.

        Raises:
            WouldDeadlock: the caller holds a transaction open.
        """
        ...

    def close(self) -> None:
        """Commit what was announced and let go of everything."""
        ...


class OpenTransaction(Protocol):
    """A transaction that stays open until its owner ends it; for sessions."""

    @property
    def transaction(self) -> Transaction:
        """For operations of ours that join it."""
        ...

    def execute(self, sql: str, parameters: tuple[object, ...]) -> Rows:
        """Run one statement in the driver's numbered form."""
        ...

    def script(self, sql: str) -> None:
        """Run a statement of transaction control."""
        ...

    def commit(self) -> None:
        """Commit and let go of the connection."""
        ...

    def roll_back(self) -> None:
        """Undo and let go of the connection."""
        ...
