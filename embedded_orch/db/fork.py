"""What a forked child must let go of, and which database files it must not open.

``fork()`` copies the memory of SQLite into the child together with its connections, and almost
nothing of what makes them safe:

- POSIX record locks stay with the parent. A write through the inherited connection is locked
  against nobody, and overwrites what the parent writes.
- The wal-index is memory that both share. Even *closing* an inherited connection writes there: it
  rolls back the transaction that the parent had open, in the parent's own index. That was seen: a
  child that only ended, by ``sys.exit()``, made the parent's commit fail with "database disk image
  is malformed". So nothing may close those connections in the child, not even the interpreter at
  its end; see :func:`keep_forever`.
- SQLite keeps one table per process of the files it has open, by device and inode, with the locks
  that it believes it holds. A *new* connection of the child to such a file would find the parent's
  entry, believe those locks, and take none. :func:`refuse_inherited` stops that. ``exec`` begins
  with an empty table, and so does a process of multiprocessing's spawn or forkserver.
- ``flock`` and open file description locks are the opposite: they belong to what ``open()``
  returned, the child shares them, and it would hold them after the parent's death. The child
  closes its copies. It must not unlock them, that would unlock them for the parent.

So everything that owns connections or lock descriptors registers here, and is told in the child.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

from embedded_orch import errors

if TYPE_CHECKING:
    from collections.abc import Callable

# Device and inode.
FileIdentity = tuple[int, int]


class Forkable(Protocol):
    """What is told in the child that it was forked."""

    def abandon_in_child(self) -> None:
        """Let go of what the parent goes on using.

        Runs in the only thread of the child, directly after the fork. Any lock that another
        thread of the parent held stays locked for ever, so it takes none.
        """
        ...


class OpenFile:
    """One opening of a database file by SQLite in this process, until it is forgotten."""

    __slots__ = ("__weakref__", "identity")

    def __init__(self, identity: FileIdentity) -> None:
        self.identity = identity


_registered: WeakSet[Forkable] = WeakSet()
# One entry per opening. Adding and taking away are single operations that need no lock, which a
# child could find locked.
_open_files: dict[OpenFile, FileIdentity] = {}
_inherited: set[FileIdentity] = set()
# The things themselves, for interpreters without ctypes.
_kept: list[object] = []
_leak: Callable[[object], None] = _kept.append


def register(thing: Forkable) -> None:
    """Have ``thing.abandon_in_child()`` called in every forked child, while the thing exists."""
    _registered.add(thing)


def opened(path: str) -> OpenFile:
    """Record that SQLite has the file at ``path`` open in this process.

    Returns:
        What to give to :func:`closed`.

    Raises:
        OSError: there is no such file.
    """
    status = os.stat(path)
    opening = OpenFile((status.st_dev, status.st_ino))
    _open_files[opening] = opening.identity
    return opening


def closed(opening: OpenFile) -> None:
    """Record that SQLite has closed a file. May be called twice, and in a forked child."""
    _open_files.pop(opening, None)


def inherited(path: str) -> bool:
    """Whether the file at ``path``, under whatever name, was open in the parent at the fork."""
    if not _inherited:
        return False
    try:
        status = os.stat(path)
    except OSError:
        # No file, so none that the parent had open under this name.
        return False
    return (status.st_dev, status.st_ino) in _inherited


def refuse_inherited(path: str) -> None:
    """Refuse to open a file in a child whose parent had it open when it forked.

    Raises:
        ForkedProcess: SQLite in this process would believe the parent's locks to be its own.
    """
    if inherited(path):
        raise errors.ForkedProcess(
            f"{path} was open when process {os.getppid()} forked this one, and SQLite cannot lock "
            f"it here: start processes by spawn or forkserver, or fork before opening the database"
        )


def keep_forever(*things: object) -> None:
    """Never let go of ``things``, not even when the interpreter ends.

    For the connections that a child inherited, and for the module ``apsw``, which closes every
    connection left when it is unloaded. Lists do not outlive the interpreter's last clean-up, so
    each thing is given a reference that nobody ever takes back.
    """
    for thing in things:
        _leak(thing)


def _prepare() -> None:
    """Run in the parent before the fork."""
    global _leak  # noqa: PLW0603 - resolved once, on the first fork with a database open
    if not _registered or _leak != _kept.append:
        return
    # Here and not in the child: loading a library there can wait for ever for a lock of the
    # loader that another thread of the parent held.
    try:
        import ctypes
    except ImportError:
        # An interpreter built without it keeps the connections in the list. They are safe until
        # the child's interpreter ends by itself; a child that leaves by os._exit() is safe.
        return
    increment = ctypes.pythonapi.Py_IncRef
    increment.argtypes = [ctypes.py_object]
    increment.restype = None
    _leak = increment


def _abandon() -> None:
    """Run in the child after the fork."""
    _inherited.update(_open_files.values())
    _open_files.clear()
    failures: list[Exception] = []
    for thing in list(_registered):
        try:
            thing.abandon_in_child()
        except Exception as error:  # noqa: BLE001 - the others must hear it too
            failures.append(error)
    if failures:
        # Python reports it through sys.unraisablehook, which shows only the message of a group; a
        # fork cannot fail any more.
        told = "; ".join(repr(failure) for failure in failures)
        raise ExceptionGroup(f"not everything was let go of after fork(): {told}", failures)


# Windows has no fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_prepare, after_in_child=_abandon)
