"""Whether the file of an open database is still the one of its name.

A file that is removed goes on for those who have it open, so SQLite notices nothing and would go on
writing to what nobody can open any more; and where another file was put in its place, both would
share one log by its name. So the name is looked at now and then, before something is written or
read, and what differs is refused. It costs 200 ns, and every twentieth of a second some
microseconds more.

What the file held is not lost yet: this process can still read it, so ``orch.backup()`` is the one
thing that is not refused.
"""

from __future__ import annotations

import os
import time

from embedded_orch import errors

LOOK_SECONDS = 0.05


class Presence:
    """The files of one open database, as they were when it was opened. Any thread may ask.

    Args:
        path: of the database; it is open, and has been read from.
        has_log: whether it has a log and an index, which have to stay as well.
    """

    __slots__ = ("_has_log", "_identities", "_next_look", "_path")

    def __init__(self, path: str, *, has_log: bool) -> None:
        self._path = path
        self._has_log = has_log
        real = os.path.realpath(path)
        names = (real, f"{real}-wal", f"{real}-shm") if has_log else (real,)
        self._identities = {name: found for name in names if (found := _identity(name))}
        self._next_look = 0.0

    def check(self) -> None:
        """Refuse to go on with files that are not there any more.

        Raises:
            DatabaseLost: one was removed or replaced.
        """
        now = time.monotonic()
        if now < self._next_look:
            return
        for name, identity in self._identities.items():
            found = _identity(name)
            # The journal without a log is for file systems whose inodes are not to be trusted.
            if found != identity and (found is None or self._has_log):
                raise self._lost(name, "removed" if found is None else "replaced by another file")
        self._next_look = now + LOOK_SECONDS

    def has(self, name: str, descriptor: int) -> bool:
        """Whether an open file is the one of these that was there by its name."""
        status = os.fstat(descriptor)
        return self._identities.get(name) == (status.st_dev, status.st_ino)

    def _lost(self, name: str, what: str) -> errors.DatabaseLost:
        return errors.DatabaseLost(
            f"{name} was {what} while the database was open, so nothing is written or read any "
            f"more. What it held can still be saved from this process: call "
            f"orch.backup('elsewhere.db'). Then close() it, put the file that you want at "
            f"{self._path}, or none, and open it again"
        )


def _identity(path: str) -> tuple[int, int] | None:
    """Device and inode; None when there is no such file."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino
