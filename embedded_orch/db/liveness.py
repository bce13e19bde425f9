"""Whether a process is alive, told by a lock that the kernel drops when the process dies.

Every process that runs something in a database takes one byte of one file beside it, the owners
file, under an exclusive lock, and holds it for as long as it lives. Whoever wants to know asks the
kernel who
holds that byte. There is no heartbeat and no time-out: the answer turns from yes to no in the
moment in which the process ends, however it ends, and it stays yes for one that is stopped in a
debugger or swapped out. Process ids play no part in it, so a pid that was given to another process,
or that means nothing in this container's namespace, fools nobody.

The lock is an *open file description lock* (:mod:`embedded_orch.db.file_locks`), so that nobody
else in the process can drop it. A forked child inherits its descriptor and would keep a dead parent
alive; :mod:`embedded_orch.db.fork` makes the child close it.

The answer holds for processes under one kernel. For other hosts compare the boot ids of
:class:`embedded_orch.process.ProcessFacts` and rely on leases.
"""

from __future__ import annotations

import os
from typing import Self

from embedded_orch import errors
from embedded_orch.db import fork
from embedded_orch.db.file_locks import (
    has_open_file_locks,
    is_excluded,
    no_lock,
    open_lock_file,
    set_lock,
    write_lock,
)


class LifeLock:
    """One byte of an owners file, held exclusively from :meth:`take` until the process dies.

    Owns its descriptor. May be made, taken and released in any thread; a forked child lets go of
    its copy by itself and does not hold the lock. It is made and taken in two steps, so that an
    interrupt between a lock and the name that it is to have cannot leave it to nobody.

    Args:
        path: the owners file, made if it does not exist. It must never be deleted or replaced
            while a database is in use: a lock belongs to the file, not to its name.
        slot: which byte, 0 or greater. One per process; the file does not grow with it.

    Raises:
        DatabaseUnavailable: the owners file cannot be opened for writing.
    """

    __slots__ = ("__weakref__", "_descriptor", "inode", "is_held", "path", "slot")

    def __init__(self, path: str, slot: int) -> None:
        if slot < 0:
            raise ValueError(f"slot {slot}: the bytes of a file are counted from 0")
        self.path = path
        self.slot = slot
        self._descriptor = open_lock_file(path, beside=os.path.dirname(path) or os.curdir)
        # Recorded by the owner and given to is_alive(), it tells a file that replaced this one.
        self.inode = os.fstat(self._descriptor).st_ino
        self.is_held = False
        fork.register(self)

    def take(self) -> Self:
        """Hold the slot from now on; changes nothing when it does already.

        Raises:
            DatabaseBusy: a living process holds the slot.
        """
        if not has_open_file_locks(self._descriptor):
            # is_alive() finds the same and says that it cannot tell.
            return self
        try:
            set_lock(self._descriptor, write_lock(self.slot))
        except BlockingIOError as error:
            self.release()
            raise errors.DatabaseBusy(
                f"slot {self.slot} of {self.path} is held by a process that lives; take another"
            ) from error
        self.is_held = True
        return self

    def release(self) -> None:
        """Let go before the process ends."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        if self.is_held:
            # Said aloud, for a copy of the descriptor in a child that was forked behind Python's
            # back would keep the lock.
            set_lock(descriptor, no_lock(self.slot))
        self.is_held = False
        os.close(descriptor)

    def abandon_in_child(self) -> None:
        """Close the copy of a forked child, which leaves the parent's lock as it is."""
        descriptor, self._descriptor = self._descriptor, -1
        self.is_held = False
        if descriptor >= 0:
            os.close(descriptor)

    def __repr__(self) -> str:
        state = "held" if self.is_held else "not held"
        return f"<LifeLock slot {self.slot} of {self.path}: {state}>"


def is_alive(path: str, slot: int, *, inode: int | None = None) -> bool | None:
    """Whether the process that took ``slot`` of the owners file at ``path`` is alive.

    It only asks, it never takes the lock, so that two who ask do not see each other. The asking
    process sees its own slots as alive too.

    Args:
        path: the owners file.
        slot: the byte that the process took.
        inode: the file that the process took it in (:attr:`LifeLock.inode`), if that is known.

    Returns:
        None where that cannot be told: no such file or another one under its name, no right to
        read it, or a system without these locks.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except OSError:
        return None
    try:
        if inode is not None and os.fstat(descriptor).st_ino != inode:
            return None
        return is_excluded(descriptor, write_lock(slot))
    except OSError:
        return None
    finally:
        os.close(descriptor)
