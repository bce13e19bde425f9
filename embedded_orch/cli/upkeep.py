"""``embedded-orch db ...`` and ``embedded-orch version``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from embedded_orch import errors
from embedded_orch.cli import text
from embedded_orch.cli.opening import opened, require_existing, shown, url_of
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
