"""``embedded-orch db ...``, ``embedded-orch prune`` and ``embedded-orch version``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from embedded_orch import errors
from embedded_orch.cli import text
from embedded_orch.cli.opening import (
    opened,
    opened_for_runs,
    require_existing,
    shown,
    url_of,
)
from embedded_orch.process import Process

if TYPE_CHECKING:
    from embedded_orch.cli.arguments import Arguments
    from embedded_orch.db.port import Database
    from embedded_orch.store.checks import Check

_OK = "ok     "
_PROBLEM = "PROBLEM"


def upgrade(arguments: Arguments) -> int:
    """Make the schema or bring it up to date, or print what that would run."""
    from embedded_orch.db.opening import OpenDatabases
    from embedded_orch.db.upgrading import upgrade_script

    process = Process()
    url = url_of(arguments.db)
    script = upgrade_script(url, {}, process)
    if arguments.sql:
        print(script or f"-- the schema of {shown(url)} is up to date", end="" if script else "\n")
        return 0
    if not script:
        print(f"the schema of {shown(url)} is up to date")
        return 0
    databases = OpenDatabases(process)
    databases.close(databases.open(url, {}))
    print(f"the schema of {shown(url)} is up to date now")
    return 0


def check(arguments: Arguments) -> int:
    """Look at everything, and print for each thing whether it holds."""
    from embedded_orch.store.checks import all_checks

    require_existing(url_of(arguments.db))
    try:
        with opened(arguments.db, Process()) as shared:
            _report(f"{shared.database.url} has the schema of this program", [])
            holds = [_report(each.what, _problems(shared.database, each)) for each in all_checks()]
    except errors.DatabaseError as error:
        _report("the database can be opened, and has the schema of this program", [str(error)])
        return 1
    return 0 if all(holds) else 1


def back_up(arguments: Arguments) -> int:
    """Copy the database to a new file."""
    path = os.path.abspath(arguments.path)
    with opened(arguments.db, Process()) as shared:
        shared.database.backup(path)
    print(f"{text.printable(path)}: {os.path.getsize(path):,} bytes")
    return 0


def prune(arguments: Arguments) -> int:
    """Remove runs that ended long ago, or count them, and print how many of each kind."""
    from embedded_orch import upkeep
    from embedded_orch.engine.retention import retention_of

    process = Process()
    with opened_for_runs(arguments.db, process) as shared:
        removed = upkeep.prune(
            shared.database,
            process,
            retention_of(None),
            older_than=arguments.older_than,
            unfinished_older_than=arguments.unfinished_older_than,
            dry_run=arguments.dry_run,
        )
    for name in removed.__struct_fields__:
        print(f"{name.replace('_', ' '):15}{getattr(removed, name):>12,}")
    print("would be removed; nothing was" if arguments.dry_run else "removed")
    return 0


def vacuum(arguments: Arguments) -> int:
    """Give the room of removed rows back, and print what that changed."""
    from embedded_orch.engine.removing import size_of

    with opened(arguments.db, Process()) as shared:
        before = sum(shared.database.read(size_of))
        shared.database.vacuum()
        after = sum(shared.database.read(size_of))
        print(f"{text.printable(shared.database.url)}: {before:,} bytes, {after:,} now")
    return 0


def print_versions(_: Arguments) -> int:
    """Print what is installed."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    for package in ("embedded_orch", "apsw", "msgspec", "anyio", "psycopg"):
        try:
            print(package, version(package))
        except PackageNotFoundError:
            print(package, "not installed")
    print("Python", platform.python_version())
    return 0


def _problems(database: Database, check: Check) -> list[str]:
    try:
        return database.read(check.find)
    except errors.DatabaseDamaged as error:
        # The others may still find something that can be read.
        return [str(error)]


def _report(what: str, problems: list[str]) -> bool:
    """Print a thing that holds, or each thing that does not."""
    if not problems:
        print(_OK, text.printable(what))
    for problem in problems:
        print(_PROBLEM, text.printable(" ".join(problem.split())))
    return not problems
