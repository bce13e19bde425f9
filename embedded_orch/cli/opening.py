"""Opening a database to look at it: nothing is made, and no schema is changed."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from embedded_orch import errors
from embedded_orch.db import urls
from embedded_orch.db.opening import OpenDatabases
from embedded_orch.db.upgrading import upgrade_script

if TYPE_CHECKING:
    from collections.abc import Generator

    from embedded_orch.db.opening import Shared
    from embedded_orch.engine.engine import Engine
    from embedded_orch.process import Process


def url_of(db: str | None) -> str:
    """The database that the command line means."""
    return urls.default_url() if db is None else db


@contextmanager
def opened(db: str | None, process: Process) -> Generator[Shared]:
    """A database that exists and has the schema of this program, for the length of a block.

    Raises:
        DatabaseUnavailable: there is none.
        MigrationFailed: its schema is older than this program.
    """
    url = url_of(db)
    require_existing(url)
    if upgrade_script(url, {}, process):
        raise errors.MigrationFailed(
            f"the schema of {shown(url)} is not up to date; run `embedded-orch db upgrade`, once "
            f"no older program uses it"
        )
    databases = OpenDatabases(process)
    shared = databases.open(url, {})
    try:
        yield shared
    finally:
        databases.close(shared)


@contextmanager
def opened_for_runs(db: str | None, process: Process) -> Generator[Shared]:
    """The same, with the runs of dead processes set Crashed, as whoever opens a database does."""
    with opened(db, process) as shared:
        engine_of(shared, process).recovery.sweep()
        yield shared


def engine_of(shared: Shared, process: Process) -> Engine:
    """An engine for commands, which runs nothing."""
    from embedded_orch.engine.engine import Engine

    return Engine(
        shared.database,
        process,
        shared.life_path,
        room=shared.room,
        lease_seconds=shared.lease_seconds,
    )


def require_existing(url: str) -> None:
    """Refuse a database that would have to be made.

    Raises:
        DatabaseUnavailable: there is no such file. Of a server it is not asked here.
        InvalidURL: the URL names nothing that can be looked at.
    """
    text = urls.as_text(url)
    if urls.is_postgres(text):
        return
    path = urls.sqlite_path(text)
    if path is None:
        raise errors.InvalidURL(
            ":memory: is a new database in each process; name a file or a server with --db"
        )
    if not os.path.exists(path):
        raise errors.DatabaseUnavailable(
            f"there is no database at {path}; name another with --db, or make this one by running "
            f"a flow or `embedded-orch db upgrade`"
        )


def shown(url: str) -> str:
    """The URL without a password."""
    if not urls.is_postgres(url):
        return url
    from embedded_orch.db.postgres.options import parse

    return parse(url).safe_url
