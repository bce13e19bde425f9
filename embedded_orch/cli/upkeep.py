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
    from collections.abc import Sequence

    from embedded_orch.cli.arguments import Arguments
    from embedded_orch.store.checks import Finding
    from embedded_orch.upkeep import Repair

_OK = "ok     "
_PROBLEM = "PROBLEM"
_NOTE = "note   "
_MENDED = "mended "
_WOULD = "would  "


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
    from embedded_orch.upkeep import findings_of

    process = Process()
    require_existing(url_of(arguments.db))
    try:
        with opened(arguments.db, process) as shared:
            _report(f"{shared.database.url} has the schema of this program", [])
            now = process.now()
            holds = [
                _report(each.what, findings_of(shared.database, each, now)) for each in all_checks()
            ]
    except errors.DatabaseError as error:
        return _cannot_be_opened(error)
    if not all(holds):
        print("`embedded-orch db repair --dry-run` says what can be done")
    return 0 if all(holds) else 1


def repair(arguments: Arguments) -> int:
    """Mend what the check finds, and print each change; what cannot be mended, too."""
    from embedded_orch.upkeep import Repairing

    process = Process()
    require_existing(url_of(arguments.db))
    is_well = True
    try:
        with opened(arguments.db, process) as shared:
            repairing = Repairing(shared.database, process)
            for each in repairing.would_do() if arguments.dry_run else repairing.steps():
                is_well &= each.is_done or not each.finding.is_problem
                _print_repair(each, is_dry_run=arguments.dry_run)
            if repairing.backup_path is not None:
                print(f"as it was before: {text.printable(repairing.backup_path)}")
            if is_well:
                print(f"{text.printable(shared.database.url)} is well")
    except errors.DatabaseError as error:
        return _cannot_be_opened(error)
    return 0 if is_well else 1


def _print_repair(repair: Repair, *, is_dry_run: bool) -> None:
    found = repair.finding
    if repair.is_done:
        mark, what = _MENDED, found.remedy
    elif found.remedy is not None and is_dry_run:
        mark, what = _WOULD, found.remedy
    else:
        mark, what = (_PROBLEM if found.is_problem else _NOTE), found.advice or found.remedy
    _print_line(mark, f"{found.message}: {what}" if what else found.message)


def _cannot_be_opened(error: errors.DatabaseError) -> int:
    """Say why, as the one problem there is: what can be done is in the message."""
    _print_line(
        _PROBLEM,
        f"the database can be opened, and has the schema of this program: {error}",
    )
    return 1


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


def _report(what: str, findings: Sequence[Finding]) -> bool:
    """Print a thing that holds, or each thing that does not; whether there is no problem."""
    is_well = not any(each.is_problem for each in findings)
    if is_well:
        _print_line(_OK, what)
    for each in findings:
        _print_line(_PROBLEM if each.is_problem else _NOTE, each.message)
    return is_well


def _print_line(mark: str, message: str) -> None:
    print(mark, text.printable(" ".join(message.split())))
