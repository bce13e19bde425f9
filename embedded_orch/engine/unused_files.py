"""Removing the files of results that no run and no cached result names any more.

They come from runs and keys that were deleted, from keys that expired, and from processes that died
between a file and its row. Any process may look, at any time and as often as it likes, and may be
killed while it does; see :mod:`embedded_orch.store.result_files`.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from embedded_orch.db.current import scope_for
from embedded_orch.store import caching, result_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedded_orch.db.port import Database
    from embedded_orch.db.result_folder import ResultFolder
    from embedded_orch.process import Process

_BATCH = 500
"""Files that one statement looks at, and that are removed in one transaction at most."""
_A_FEW = 2_000
"""Files that are looked at when an orchestrator closes: some milliseconds."""
_HALF_WRITTEN_SECONDS = 3600
"""After this nobody goes on writing a file."""


def remove_some(database: Database, process: Process) -> int:
    """Look at a few files, beginning at a place of chance, and remove those that nobody names."""
    folder = database.result_folder
    if folder is None or scope_for(database) is not None:
        return 0
    return _remove(database, process, folder, since=process.random_bytes(1)[0], most=_A_FEW)


def remove_all(database: Database, process: Process) -> int:
    """Remove every file that nobody names, and what was left half written; how many.

    Nothing while a backup copies them.
    """
    folder = database.result_folder
    if folder is None:
        return 0
    partial = folder.remove_partial(older_than=process.now() / 1e6 - _HALF_WRITTEN_SECONDS)
    return partial + _remove(database, process, folder, since=0, most=None)


def _remove(
    database: Database, process: Process, folder: ResultFolder, *, since: int, most: int | None
) -> int:
    names = islice(folder.names(since=since), most)
    count = 0
    now = process.now()
    is_first = True
    while batch := list(islice(names, _BATCH)):
        if is_first:
            is_first = False
            database.write(lambda tx: caching.forget_expired(tx, now=now))
        found = _unused(database, batch)
        if found:
            count += _remove_unused(database, folder, found)
    return count


def _unused(database: Database, names: Sequence[str]) -> list[str]:
    return database.read(lambda tx: result_files.unused(tx, names))


def _remove_unused(database: Database, folder: ResultFolder, names: Sequence[str]) -> int:
    """Remove those that still nobody names, in a transaction that has nobody name one.

    It is one of its own, which writes nothing: what it sees is committed, and stays so.
    """
    with folder.locked() as is_alone:
        if not is_alone:
            return 0
        opened = database.begin()
        try:
            tx = opened.transaction
            if not result_files.exclude_writers(tx):
                return 0
            return sum(folder.remove(name) for name in result_files.unused(tx, names))
        finally:
            opened.roll_back()
