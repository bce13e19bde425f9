"""Looking after a database by hand: what ``orch.prune()``, ``check()`` and ``repair()`` do."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from embedded_orch import errors
from embedded_orch.db.current import scope_for
from embedded_orch.engine import removing
from embedded_orch.engine.retention import Retention
from embedded_orch.engine.unused_files import remove_all
from embedded_orch.store.checks import Check, Finding, all_checks
from embedded_orch.store.mending import Repairer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import timedelta
    from typing import Any

    from embedded_orch.db.port import Database, Transaction
    from embedded_orch.process import Process
    from embedded_orch.store.retention import Removed

# Of one kind, this many things are named.
_MOST_NAMED = 20
# Things that are mended in one transaction.
_MENDED_AT_ONCE = 200
_DAMAGE = "damage"


def prune(
    database: Database,
    process: Process,
    retention: Retention | None,
    *,
    older_than: timedelta | None,
    unfinished_older_than: timedelta | None,
    dry_run: bool,
) -> Removed:
    """Remove runs that were kept long enough, or count them; see ``Orchestrator.prune``.

    Raises:
        ConfigurationError: neither an age nor a retention says what is long enough.
    """
    if older_than is not None:
        retention = (retention or Retention()).older_than(older_than, unfinished_older_than)
    elif unfinished_older_than is not None:
        retention = (retention or Retention(completed=None)).for_unfinished(unfinished_older_than)
    if retention is None:
        raise errors.ConfigurationError(
            "retention is off for this database, so it has to be said which runs to remove: "
            "give older_than"
        )
    removed = removing.prune(
        database, retention, now=process.now(), new_id=process.new_id, is_dry_run=dry_run
    )
    if not dry_run and scope_for(database) is None:
        remove_all(database, process)
    return removed


def findings_of(database: Database, check: Check, now: int) -> list[Finding]:
    """What one check finds, the first of it by name."""
    try:
        rows = database.read(lambda tx: check.rows(tx, now=now, limit=_MOST_NAMED + 1))
    except errors.DatabaseDamaged as error:
        # The others may still find something that can be read.
        return [Finding(check.name, str(error), advice="mend the damage first")]
    found = [check.finding(row) for row in rows[:_MOST_NAMED]]
    if len(rows) > _MOST_NAMED:
        found.append(msgspec.structs.replace(found[-1], message="and more of the same kind"))
    return found


def check(database: Database, now: int) -> list[Finding]:
    """What is not as it has to be; nothing is changed."""
    return [finding for each in all_checks() for finding in findings_of(database, each, now)]


class Repair(msgspec.Struct, frozen=True):
    """What became of one finding.

    Attributes:
        finding: what was wrong.
        is_done: whether its remedy was applied, and it is well now.
    """

    finding: Finding
    is_done: bool


class Repairing:
    """One repair of a database.

    Args:
        database: what is repaired.
        process: its clock and ids.

    Attributes:
        backup_path: where the database was copied to before the first change; None where nothing
            was changed, or where there is no file.
    """

    def __init__(self, database: Database, process: Process) -> None:
        self._database = database
        self._process = process
        self.backup_path: str | None = None

    def would_do(self) -> Iterator[Repair]:
        """What there is to do; nothing is changed."""
        for finding in check(self._database, self._process.now()):
            yield Repair(finding, is_done=False)

    def steps(self) -> Iterator[Repair]:
        """Repair what can be, and tell of each thing; of what cannot be, too.

        Nothing but indexes is touched in a damaged database: to write into it could make it worse.

        Raises:
            DatabaseError: it cannot be copied, or written. What was told of before is done.
        """
        checks = all_checks()
        damage = findings_of(self._database, checks[0], self._process.now())
        if damage:
            yield from self._rebuild_indexes(checks[0], damage)
            if findings_of(self._database, checks[0], self._process.now()):
                return
        for each in checks[1:]:
            yield from self._mend(each)

    def _rebuild_indexes(self, check: Check, damage: Sequence[Finding]) -> Iterator[Repair]:
        self._back_up()
        try:
            self._database.rebuild_indexes()
        except errors.DatabaseDamaged:
            # What the check says next is all there is to say.
            left = list(damage)
        else:
            left = findings_of(self._database, check, self._process.now())
        for finding in damage:
            is_done = not left
            remedy = "its indexes are built anew" if is_done else None
            advice = None if is_done else finding.advice
            yield Repair(
                msgspec.structs.replace(finding, remedy=remedy, advice=advice), is_done=is_done
            )

    def _mend(self, check: Check) -> Iterator[Repair]:
        seen: list[tuple[Any, ...]] = []
        while True:
            rows = self._rows(check)
            if not rows or rows == seen:
                # What is still there was not mended by it.
                break
            repairable = [row for row in rows if check.finding(row).remedy is not None]
            if repairable:
                self._back_up()
                self._database.write(partial(self._apply, check=check, rows=repairable))
            left = self._rows(check)
            for row in rows:
                yield Repair(check.finding(row), is_done=row not in left)
            seen = left

    def _rows(self, check: Check) -> list[tuple[Any, ...]]:
        now = self._process.now()
        return self._database.read(lambda tx: check.rows(tx, now=now, limit=_MENDED_AT_ONCE))

    def _apply(self, tx: Transaction, check: Check, rows: Sequence[tuple[Any, ...]]) -> None:
        repairer = Repairer(self._process.now(), self._process.new_id)
        assert check.mend is not None, "a remedy is something that can be done"
        for row in rows:
            check.mend(tx, row, repairer)

    def _back_up(self) -> None:
        """Copy a file once, before it is changed. A server is backed up by its owner."""
        path = self._database.url.removeprefix("sqlite:///")
        if self.backup_path is not None or path == self._database.url:
            return
        number = 1
        while os.path.lexists(f"{path}-before-repair-{number}"):
            number += 1
        target = f"{path}-before-repair-{number}"
        self._database.backup(target)
        self.backup_path = target
