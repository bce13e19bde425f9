"""Looking after a database by hand: what ``orch.prune()`` and its command do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedded_orch import errors
from embedded_orch.engine import removing
from embedded_orch.engine.retention import Retention

if TYPE_CHECKING:
    from datetime import timedelta

    from embedded_orch.db.port import Database
    from embedded_orch.process import Process
    from embedded_orch.store.retention import Removed


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
    return removing.prune(database, retention, now=process.now(), is_dry_run=dry_run)
