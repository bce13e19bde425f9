"""Transactions: hooks that run when a group of tasks is done, or undone; records by key.

    with transaction(key="2026-01-31") as txn:
        if not txn.is_committed():
            load(extract())

A block with ``with`` waits in this thread; one with ``async with`` (:func:`atransaction`) awaits.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from embedded_orch.engine.contexts import transaction_context
from embedded_orch.engine.effects import drive, drive_async
from embedded_orch.engine.transactions import (
    BaseTransaction,
    CommitMode,
    IsolationLevel,
    Store,
    TransactionState,
    active_transaction,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

__all__ = [
    "AsyncTransaction",
    "BaseTransaction",
    "CommitMode",
    "IsolationLevel",
    "Transaction",
    "TransactionState",
    "atransaction",
    "get_transaction",
    "transaction",
]


class Transaction(BaseTransaction):
    """A transaction whose steps wait in the calling thread."""

    def begin(self) -> None:
        """Begin; committed at once when its key has a record."""
        drive(self.begin_steps())

    def read(self) -> Any:
        """The record of its key; None when there is none."""
        return drive(self.read_steps())

    def commit(self) -> bool:
        """Commit it and its children now; whether it is committed by that."""
        return drive(self.commit_steps())

    def rollback(self) -> bool:
        """Undo it, its children, and what it is a part of; whether it is undone by that."""
        return drive(self.rollback_steps())


class AsyncTransaction(BaseTransaction):
    """A transaction whose steps are awaited."""

    async def begin(self) -> None:
        """Begin; committed at once when its key has a record."""
        await drive_async(self.begin_steps())

    async def read(self) -> Any:
        """The record of its key; None when there is none."""
        return await drive_async(self.read_steps())

    async def commit(self) -> bool:
        """Commit it and its children now; whether it is committed by that."""
        return await drive_async(self.commit_steps())

    async def rollback(self) -> bool:
        """Undo it, its children, and what it is a part of; whether it is undone by that."""
        return await drive_async(self.rollback_steps())


@contextmanager
def transaction(  # noqa: PLR0917 - Prefect's parameters, in its order
    key: str | None = None,
    store: Store | None = None,
    commit_mode: CommitMode | str | None = None,
    isolation_level: IsolationLevel | str | None = None,
    overwrite: bool = False,
    write_on_commit: bool = True,
    logger: Any = None,
) -> Generator[Transaction]:
    """A block whose tasks are committed together, or undone when it raises.

    Args:
        key: of a record that committing makes, so that the block is done once; see
            ``is_committed()``.
        store: where the records are; the database of the runs when not given.
        commit_mode: ``LAZY`` commits with the outermost block, ``EAGER`` at the end of this one,
            ``OFF`` only by ``commit()``. That of the block around it when not given.
        isolation_level: ``SERIALIZABLE`` lets one block of a key run at a time.
        overwrite: ignore a record that is there, and replace it.
        write_on_commit: whether committing makes the record.
        logger: for hooks that fail.

    Raises:
        ConfigurationError: SERIALIZABLE, and the store has no locks.
    """
    txn = Transaction(
        key=key,
        store=_store_for(key, store),
        commit_mode=commit_mode,
        isolation_level=isolation_level,
        overwrite=overwrite,
        write_on_commit=write_on_commit,
        logger=logger,
        around=active_transaction(),
    )
    token = transaction_context.set(txn)
    try:
        try:
            txn.begin()
            yield txn
        except BaseException as error:
            drive(txn.end_steps(error))
            raise
        drive(txn.end_steps(None))
    finally:
        transaction_context.reset(token)


@asynccontextmanager
async def atransaction(  # noqa: PLR0917 - Prefect's parameters, in its order
    key: str | None = None,
    store: Store | None = None,
    commit_mode: CommitMode | str | None = None,
    isolation_level: IsolationLevel | str | None = None,
    overwrite: bool = False,
    write_on_commit: bool = True,
    logger: Any = None,
) -> AsyncGenerator[AsyncTransaction]:
    """:func:`transaction` for asynchronous code; hooks may be ``async def``."""
    txn = AsyncTransaction(
        key=key,
        store=_store_for(key, store),
        commit_mode=commit_mode,
        isolation_level=isolation_level,
        overwrite=overwrite,
        write_on_commit=write_on_commit,
        logger=logger,
        around=active_transaction(),
    )
    token = transaction_context.set(txn)
    try:
        try:
            await txn.begin()
            yield txn
        except BaseException as error:
            await drive_async(txn.end_steps(error))
            raise
        await drive_async(txn.end_steps(None))
    finally:
        transaction_context.reset(token)


def get_transaction() -> BaseTransaction | None:
    """The innermost transaction here: of a block, or of the running task; None outside of both."""
    return active_transaction()


def _store_for(key: str | None, store: Store | None) -> Store | None:
    if key is None or store is not None:
        return store
    from embedded_orch.results import get_result_store

    return get_result_store()
