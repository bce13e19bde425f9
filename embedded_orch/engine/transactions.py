"""Transactions: hooks that run when a group of tasks is done, or undone.

A block of :func:`embedded_orch.transactions.transaction` is a transaction; each task run in it is
a child. A child is staged when its task completes; what is staged is committed with the outermost
transaction, children first, or rolled back, the last one first. A task outside of any block is its
own outermost transaction. The states, modes and their order are Prefect 3's.

With a key, a committed transaction leaves a record in its store, and the next one of the same key
finds itself committed.
"""

from __future__ import annotations

import copy
import logging
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from embedded_orch import errors
from embedded_orch.engine.contexts import TaskRunContext, current_task_run, surrounding
from embedded_orch.engine.effects import Ask, Invoke, Write
from embedded_orch.orchestration.values import Proposal
from embedded_orch.states import StateType
from embedded_orch.store import task_runs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from embedded_orch.engine.effects import Steps

    Hook = Callable[..., object]

_log = logging.getLogger("embedded_orch.engine")
_MISSING: Any = object()


class TransactionState(StrEnum):
    """How far a transaction is."""

    PENDING = "PENDING"
    ACTIVE = "ACTIVE"
    STAGED = "STAGED"
    COMMITTED = "COMMITTED"
    ROLLED_BACK = "ROLLED_BACK"


class CommitMode(StrEnum):
    """When a transaction commits that did not fail."""

    EAGER = "EAGER"
    """At its own end."""
    LAZY = "LAZY"
    """With the outermost transaction."""
    OFF = "OFF"
    """Not by itself: the outermost one is rolled back unless ``commit()`` was called."""


class IsolationLevel(StrEnum):
    """Whether two transactions of one key may run at once."""

    READ_COMMITTED = "READ_COMMITTED"
    SERIALIZABLE = "SERIALIZABLE"
    """They take turns, by a lock of the store."""


class Record(Protocol):
    """What a store has at a key."""

    @property
    def result(self) -> Any:
        """The value."""
        ...


class Store(Protocol):
    """Where the records of keys are, such as :class:`embedded_orch.results.ResultStore`."""

    def exists(self, key: str) -> bool:
        """Whether there is a record."""
        ...

    def read(self, key: str, holder: str | None = None) -> Record:
        """The record."""
        ...

    def write(
        self, obj: Any, key: str | None = None, expiration: Any = None, holder: str | None = None
    ) -> None:
        """Make the record."""
        ...

    def supports_isolation_level(self, level: Any) -> bool:
        """Whether it can lock keys as far as that level needs."""
        ...

    def acquire_lock(
        self, key: str, holder: str | None = None, timeout: float | None = None
    ) -> bool:
        """Wait for the key's lock."""
        ...

    def release_lock(self, key: str, holder: str | None = None) -> None:
        """Give it back."""
        ...


class BaseTransaction:
    """A group of tasks that is committed or rolled back as a whole.

    Attributes:
        key: of its record; None for none.
        store: where the record is.
        commit_mode: when it commits.
        isolation_level: whether another of the same key may run meanwhile.
        overwrite: whether a record that is there is ignored and replaced.
        write_on_commit: whether committing makes the record.
        state: how far it is.
        children: in the order in which they began.
        opened_in: the task run in which it was opened, if any.
    """

    def __init__(
        self,
        *,
        key: str | None = None,
        store: Store | None = None,
        commit_mode: CommitMode | str | None = None,
        isolation_level: IsolationLevel | str | None = None,
        overwrite: bool = False,
        write_on_commit: bool = True,
        logger: Any = None,
        around: BaseTransaction | None = None,
        run: TaskRunContext | None = None,
    ) -> None:
        """Prepare it, as a child of the one around it.

        Raises:
            ConfigurationError: SERIALIZABLE, and the store has no locks.
        """
        self._parent = around
        self._run = run
        self.opened_in = current_task_run() if run is None else run
        self.key = key
        self.store = store
        mode = around.commit_mode if around is not None else CommitMode.LAZY
        self.commit_mode: CommitMode = CommitMode(commit_mode or mode)
        level = around.isolation_level if around is not None else IsolationLevel.READ_COMMITTED
        self.isolation_level: IsolationLevel = IsolationLevel(isolation_level or level)
        self.overwrite = overwrite
        self.write_on_commit = write_on_commit
        self.logger = logger or _log
        self.state = TransactionState.PENDING
        self.children: list[BaseTransaction] = []
        self.on_commit_hooks: list[Hook] = []
        self.on_rollback_hooks: list[Hook] = []
        self._stored: dict[str, Any] = {}
        self._staged_value: Any = None
        self._is_locked = False
        if key is not None and store is None:
            raise errors.ConfigurationError(
                f"a transaction with a key ({key!r}) keeps a record, and needs a store for it"
            )
        if self._locks and (
            store is None or not store.supports_isolation_level(self.isolation_level)
        ):
            raise errors.ConfigurationError(
                f"isolation_level={self.isolation_level.value} needs a store that can lock keys; "
                f"give it a lock manager, or use READ_COMMITTED"
            )
        if around is not None:
            around.children.append(self)
        if run is not None:
            self.key = str(run.run_id)
            self.state = TransactionState.ACTIVE

    @property
    def _locks(self) -> bool:
        return self.key is not None and self.isolation_level is IsolationLevel.SERIALIZABLE

    @property
    def name(self) -> str:
        """For messages."""
        if self._run is not None:
            return f"the transaction of task run {self._run.name}"
        return f"the transaction {self.key!r}" if self.key else "a transaction"

    # -- what it is asked ------------------------------------------------------------------------

    def is_pending(self) -> bool:
        """Whether it has not begun."""
        return self.state is TransactionState.PENDING

    def is_active(self) -> bool:
        """Whether it goes on."""
        return self.state is TransactionState.ACTIVE

    def is_staged(self) -> bool:
        """Whether its value is there, and it waits for the commit."""
        return self.state is TransactionState.STAGED

    def is_committed(self) -> bool:
        """Whether it is committed, now or by an earlier one of the same key."""
        return self.state is TransactionState.COMMITTED

    def is_rolled_back(self) -> bool:
        """Whether it was undone."""
        return self.state is TransactionState.ROLLED_BACK

    def get_parent(self) -> BaseTransaction | None:
        """The transaction that it is a part of."""
        return self._parent

    @property
    def parent(self) -> BaseTransaction | None:
        """The transaction that it is a part of."""
        return self._parent

    @property
    def connection(self) -> Any:
        """SQL of your own in the same database, that commits with the completion of this task.

        A :class:`~embedded_orch.engine.connection.TaskConnection`, whose ``execute`` is awaited in
        an ``async def`` task.

        Raises:
            MissingContextError: no task runs here.
        """
        run = self.opened_in
        if run is None:
            raise errors.MissingContextError(
                f"{self.name} is not inside a task, and `connection` commits with the completion "
                f"of one; use orch.session() for SQL of your own outside of tasks"
            )
        return run.connection

    # -- data ------------------------------------------------------------------------------------

    def set(self, name: str, value: Any) -> None:
        """Keep a value for hooks and children; a copy is kept."""
        self._stored[name] = copy.deepcopy(value)

    def get(self, name: str, default: Any = _MISSING) -> Any:
        """A copy of a value that was set here, or in a transaction around this one.

        Raises:
            ValueError: nobody has set it, and there is no default.
        """
        if name in self._stored:
            return copy.deepcopy(self._stored[name])
        if self._parent is not None:
            return self._parent.get(name, default)
        if default is not _MISSING:
            return default
        raise ValueError(f"nothing was set as {name!r} in {self.name}, nor around it")

    def stage(
        self,
        value: Any,
        on_rollback_hooks: Sequence[Hook] | None = None,
        on_commit_hooks: Sequence[Hook] | None = None,
    ) -> None:
        """Keep the value to commit, and hooks; does nothing once it is committed or undone."""
        if self.state in (TransactionState.COMMITTED, TransactionState.ROLLED_BACK):
            return
        self.on_commit_hooks.extend(on_commit_hooks or ())
        self.on_rollback_hooks.extend(on_rollback_hooks or ())
        self._staged_value = value
        self.state = TransactionState.STAGED

    # -- what happens to it ----------------------------------------------------------------------

    def begin_steps(self) -> Steps[None]:
        """Begin: a record of its key makes it committed at once."""
        if self.store is not None and self.key is not None:
            if self._locks:
                yield Ask(self.store.acquire_lock, self.key, self._holder)
                self._is_locked = True
            if not self.overwrite and (yield Ask(self.store.exists, self.key)):
                self.state = TransactionState.COMMITTED
        if self.state is not TransactionState.COMMITTED:
            self.state = TransactionState.ACTIVE

    def read_steps(self) -> Steps[Any]:
        """The record of its key; None when there is none."""
        if self.store is None or self.key is None:
            return None
        if not (yield Ask(self.store.exists, self.key)):
            return None
        return (yield Ask(self.store.read, self.key, self._holder))

    def end_steps(self, error: BaseException | None) -> Steps[None]:
        """The end of its block: committed, left to the outermost transaction, or rolled back."""
        if error is not None:
            yield from self.rollback_steps()
        elif self.commit_mode is CommitMode.EAGER:
            yield from self.commit_steps()
        elif self._parent is None:
            if self.commit_mode is CommitMode.OFF:
                yield from self.rollback_steps()
            else:
                yield from self.commit_steps()
        yield from self._unlock()

    def completed_steps(
        self,
        value: object,
        *,
        on_commit: Sequence[Hook],
        on_rollback: Sequence[Hook],
    ) -> Steps[None]:
        """The end of a task run that completed: staged, and committed where it is its turn."""
        self.stage(value, on_rollback_hooks=on_rollback, on_commit_hooks=on_commit)
        yield from self.end_steps(None)

    def failed_steps(self, *, is_final: bool) -> Steps[None]:
        """The end of an attempt that failed: what was staged in it is undone.

        Args:
            is_final: whether the task run ends so. Then what is around it is undone as well; an
                attempt that is retried leaves that alone.
        """
        parent = self._parent
        if not is_final and parent is not None:
            self._parent = None
            parent.children.remove(self)
        yield from self.rollback_steps()

    def commit_steps(self) -> Steps[bool]:
        """Commit the children, run the hooks, make the record; whether it is committed by that.

        A hook that fails, or a record that cannot be made, rolls it back. A value that cannot be
        stored is only warned about.
        """
        if self.state in (TransactionState.COMMITTED, TransactionState.ROLLED_BACK):
            if self.state is TransactionState.COMMITTED:
                yield from self._unlock()
            return False
        try:
            for child in list(self.children):
                yield from child.commit_steps()
            for hook in self.on_commit_hooks:
                yield Invoke(hook, (self,))
            if self.store is not None and self.key is not None and self.write_on_commit:
                yield from self._write(self.store, self.key)
            self.state = TransactionState.COMMITTED
        except Exception:
            self.logger.exception("%s could not be committed, and is rolled back", self.name)
            yield from self.rollback_steps()
            return False
        yield from self._unlock()
        return True

    def rollback_steps(self) -> Steps[bool]:
        """Run its hooks, the last one first, then undo its children, the last one first.

        A hook that fails is logged, and the others run all the same. What is committed stays.
        """
        if self.state in (TransactionState.COMMITTED, TransactionState.ROLLED_BACK):
            return False
        was_staged = self.state is TransactionState.STAGED
        if was_staged and self._run is not None:
            yield from self._record_rolled_back(self._run)
        for hook in reversed(self.on_rollback_hooks):
            try:
                yield Invoke(hook, (self,))
            except Exception:
                self.logger.exception("a rollback hook of %s raised", self.name)
        self.state = TransactionState.ROLLED_BACK
        for child in reversed(list(self.children)):
            yield from child.rollback_steps()
        if self._parent is not None:
            yield from self._parent.rollback_steps()
        yield from self._unlock()
        return True

    def _write(self, store: Store, key: str) -> Steps[None]:
        try:
            yield Ask(store.write, self._staged_value, key, None, self._holder)
        except errors.ValueNotStorable as error:
            self.logger.warning("%s is committed without its value: %s", self.name, error)

    def _record_rolled_back(self, run: TaskRunContext) -> Steps[None]:
        """A task that was undone is still completed, under another name and without its value."""
        process = run.engine.process
        now = process.now()
        state = Proposal(
            id=process.new_id(),
            type=StateType.COMPLETED,
            name="RolledBack",
            timestamp=now,
            message="rolled back with the transaction that it was a part of",
        )
        epoch = run.flow_run.epoch if run.flow_run is not None else None
        yield Write(
            run.engine.database,
            lambda tx: task_runs.propose_task_state(
                tx, run_id=run.run_id, proposal=state, now=now, epoch=epoch, force=True
            ),
        )

    def _unlock(self) -> Steps[None]:
        if self._is_locked and self.store is not None:
            self._is_locked = False
            yield Ask(self.store.release_lock, self.key, self._holder)

    @property
    def _holder(self) -> str:
        return f"{id(self):x}" if self.opened_in is None else str(self.opened_in.run_id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.key or 'without a key'} {self.state.value}>"


def transaction_of(run: TaskRunContext) -> BaseTransaction:
    """The transaction that a task run is."""
    return BaseTransaction(around=_transaction_in(run.around), run=run)


def active_transaction() -> BaseTransaction | None:
    """The innermost transaction that the running code is in: a block, or that of its task."""
    return _transaction_in(surrounding())


def _transaction_in(around: BaseTransaction | TaskRunContext | None) -> BaseTransaction | None:
    return around.transaction if isinstance(around, TaskRunContext) else around
