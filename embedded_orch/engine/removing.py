"""The removal of runs that were kept long enough, a transaction at a time."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from embedded_orch import times
from embedded_orch.states import StateType
from embedded_orch.store import retention as store
from embedded_orch.store.retention import Removed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from uuid import UUID

    from embedded_orch.db.port import Database, R, Transaction
    from embedded_orch.engine.retention import Retention
    from embedded_orch.store.retention import Node, Root

# Rows of one transaction, besides those that go along with them.
_ROWS = 250
# Flow runs that are looked at by one read.
_PAGE = 100
_SPARED_BY_SIZE = timedelta(days=1)


class Removal:
    """The removal of what a retention does not keep any more, a transaction at a time.

    Any number of these, in any number of processes, may be at it at once, and each may stop between
    any two transactions, or die in one.

    Args:
        database: where.
        retention: what is kept.
        now: microseconds since 1970 UTC.
        new_id: makes the ids of its transactions.
    """

    def __init__(
        self, database: Database, retention: Retention, now: int, new_id: Callable[[], UUID]
    ) -> None:
        self._database = database
        self._new_id = new_id
        self._id = new_id()
        self._has_begun = False
        self._retention = retention
        self._extent = retention.extent
        self._now = now
        self.is_too_large = False

    def steps(self) -> Iterator[Removed]:
        """What each transaction has removed, until there is nothing left to remove."""
        # What somebody has begun, and died.
        yield from self._until_done(None)
        for type, before in self._ages():
            for root in self._roots(type, before):
                yield from self._tree(root)
            yield from self._outside_flows(type, before)
        yield self._write(lambda tx: store.remove_expired_results(tx, now=self._now))
        yield from self._by_size()

    def count(self) -> Removed:
        """What :meth:`steps` would remove by age, without removing it."""
        counted = Removed()
        read = self._database.read
        for type, before in self._ages():
            after: Root | None = None
            while page := self._page(type, before, after):
                trees = [read(partial(store.tree_of, root_id=root.id)) for root in page]
                going = [tree for tree in trees if store.may_go(tree)]
                counted.add(read(partial(store.count_trees, trees=going, extent=self._extent)))
                after = page[-1]
            outside = partial(
                store.count_task_runs_outside_flows, extent=self._extent, type=type, before=before
            )
            counted.add(read(outside))
        counted.add(read(partial(store.count_expired_results, now=self._now)))
        return counted

    def processes(self, position: UUID | None) -> tuple[Removed, UUID | None]:
        """Remove some of the processes that ended long ago, from one on.

        Returns:
            What was removed, and where to go on; None for the beginning.
        """
        age = self._retention.completed
        if age is None:
            return Removed(), None
        before = self._now - times.microseconds(age)
        return self._write(
            partial(store.remove_processes, before=before, after=position, limit=_ROWS)
        )

    def _ages(self) -> Iterator[tuple[StateType, int]]:
        """Each state in which runs end, and the time before which they have to have ended."""
        kept = self._retention
        for types, age in ((store.COMPLETED, kept.completed), (store.UNFINISHED, kept.unfinished)):
            if age is not None:
                for type in types:
                    yield type, self._now - times.microseconds(age)

    def _page(self, type: StateType, before: int, after: Root | None) -> list[Root]:
        return self._database.read(
            partial(store.ended_flow_runs, type=type, before=before, after=after, limit=_PAGE)
        )

    def _roots(self, type: StateType, before: int) -> Iterator[Root]:
        after: Root | None = None
        while page := self._page(type, before, after):
            yield from page
            after = page[-1]

    def _tree(self, root: Root) -> Iterator[Removed]:
        tree = self._database.read(partial(store.tree_of, root_id=root.id))
        # One that is gone was another process's to remove.
        if tree and store.may_go(tree):
            yield from self._until_done(tree)

    def _until_done(self, tree: Sequence[Node] | None) -> Iterator[Removed]:
        """Remove a tree, or with None whatever is marked."""
        is_done = False
        while not is_done:
            removed, is_done = self._write(partial(self._remove, tree=tree))
            yield removed
            tree = None

    def _remove(self, tx: Transaction, tree: Sequence[Node] | None) -> tuple[Removed, bool]:
        if tree is not None and not store.mark(tx, tree):
            return Removed(), True
        return store.remove_marked(tx, self._extent, limit=_ROWS)

    def _outside_flows(self, type: StateType, before: int) -> Iterator[Removed]:
        is_done = False
        while not is_done:
            removed, is_done = self._write(
                partial(
                    store.remove_task_runs_outside_flows,
                    extent=self._extent,
                    type=type,
                    before=before,
                    limit=_ROWS,
                )
            )
            yield removed

    def _by_size(self) -> Iterator[Removed]:
        """Remove completed runs before their time, as long as the database holds too much."""
        if self._retention.max_bytes is None or self._database.dialect != "sqlite":
            # A server keeps the room of removed rows: by its size, removing would never end.
            return
        before = self._now - times.microseconds(_SPARED_BY_SIZE)
        roots = self._roots(StateType.COMPLETED, before)
        while self._holds_too_much(self._retention.max_bytes):
            root = next(roots, None)
            if root is None:
                self.is_too_large = True
                return
            yield from self._tree(root)

    def _holds_too_much(self, most: int) -> bool:
        used, _ = self._database.read(size_of)
        return used > most

    def _write(self, operation: Callable[[Transaction], R]) -> R:
        """Run a step; one whose commit got through, and is in doubt, is not run a second time.

        It would find a tree that has changed, leave the rest of it, and count nothing.
        """
        step_id = self._new_id()
        answers: list[R] = []

        def step(tx: Transaction) -> R:
            if not store.is_last_step(tx, step_id, of=self._id):
                answers[:] = [operation(tx)]
                store.note_step(tx, step_id, of=self._id, now=self._now)
                if not self._has_begun:
                    store.forget_old_steps(tx, of=self._id)
            return answers[0]

        answer = self._database.write(step)
        self._has_begun = True
        return answer


def size_of(tx: Transaction) -> tuple[int, int]:
    """Bytes of the database that hold something, and bytes that hold nothing."""
    row = tx.row("upkeep.size")
    assert row is not None, "a row of sizes is always there"
    return int(row[0]), int(row[1])


def prune(
    database: Database,
    retention: Retention,
    *,
    now: int,
    new_id: Callable[[], UUID],
    is_dry_run: bool,
) -> Removed:
    """Remove, or count, all that a retention does not keep any more.

    Args:
        database: where.
        retention: what is kept.
        now: microseconds since 1970 UTC.
        new_id: makes the ids of its transactions.
        is_dry_run: only count.

    Returns:
        What was removed, or would be.
    """
    removal = Removal(database, retention, now, new_id)
    if is_dry_run:
        return removal.count()
    removed = Removed()
    for step in removal.steps():
        removed.add(step)
    position: UUID | None = None
    while True:
        step, position = removal.processes(position)
        removed.add(step)
        if position is None:
            return removed
