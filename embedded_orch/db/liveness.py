"""Whether a process is alive, told by a lock that the kernel drops when the process dies.

Every process that opens a database takes one byte of one file beside it, the owners file, under an
exclusive lock, and holds it for as long as it lives. Whoever wants to know asks the kernel who
holds that byte. There is no heartbeat and no time-out: the answer turns from yes to no in the
moment in which the process ends, however it ends, and it stays yes for one that is stopped in a
debugger or swapped out. Process ids play no part in it, so a pid that was given to another process,
or that means nothing in this container's namespace, fools nobody.

The lock is an *open file description lock* (fcntl(2), ``F_OFD_SETLK``), not a classic POSIX record
lock: a POSIX lock is dropped as soon as the process closes any descriptor of the file, also one
that another library opened, while this kind lasts until the last descriptor made by that one
``open()`` is closed. A forked child inherits such a descriptor and would keep a dead parent alive;
:mod:`embedded_orch.db.fork` makes the child close it.

The answer holds for processes under one kernel. For other hosts compare the boot ids of
:func:`process_facts` and rely on leases.
"""

from __future__ import annotations

import errno
import os
import sys
from struct import Struct
from typing import NamedTuple

from embedded_orch import errors
from embedded_orch.db import fork

# struct flock of fcntl(2), in the layout of the C compiler: type, whence, start, length, pid. The
# pid has to be zero for these locks.
_RECORD = Struct("hhqqi")

# Python names the commands on some other systems too, but there the record has another layout, or
# such a lock covers the whole file.
if sys.platform == "linux":
    import fcntl

    _READ, _WRITE, _NONE = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK
else:
    _READ, _WRITE, _NONE = 0, 1, 2

_PRIVATE_FILE = 0o600
# Windows translates line ends in descriptors that are not opened as binary.
_OPEN_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def read_lock(start: int, length: int = 1) -> bytes:
    """The record that asks for a shared lock on ``length`` bytes from ``start``."""
    return _RECORD.pack(_READ, os.SEEK_SET, start, length, 0)


def write_lock(start: int, length: int = 1) -> bytes:
    """The record that asks for an exclusive lock."""
    return _RECORD.pack(_WRITE, os.SEEK_SET, start, length, 0)


def no_lock(start: int, length: int = 1) -> bytes:
    """The record that gives a lock back."""
    return _RECORD.pack(_NONE, os.SEEK_SET, start, length, 0)


def set_lock(descriptor: int, record: bytes) -> None:
    """Take or give back a lock without waiting.

    Raises:
        BlockingIOError: somebody holds a lock that excludes it.
        OSError: the kernel, or this system, does not know these locks.
    """
    if sys.platform != "linux":
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, record)


def _ask(descriptor: int, record: bytes) -> bytes:
    """The lock that would exclude this one; the same record without a lock if there is none."""
    if sys.platform != "linux":
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
    return fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, record)


def has_open_file_locks(descriptor: int) -> bool:
    """Whether the kernel knows these locks, asked by giving back one that is not held."""
    try:
        set_lock(descriptor, no_lock(0))
    except OSError:
        # Another system, or a sandbox that refuses the call.
        return False
    return True


def open_lock_file(path: str, *, beside: str) -> int:
    """A descriptor of a lock file, made empty and private when it does not exist.

    Args:
        path: the lock file.
        beside: the database or folder that it belongs to. What root makes is given to the owner
            of that, as SQLite does with its own files, or the owner could not open it any more.

    Raises:
        DatabaseReadOnly: the file cannot be made or opened for writing.
        DatabaseUnavailable: its folder does not exist, or what else ``open()`` objects to.
    """
    try:
        descriptor = os.open(path, _OPEN_FLAGS, _PRIVATE_FILE)
    except PermissionError as error:
        raise errors.DatabaseReadOnly(
            f"the lock file {path} cannot be written: {error.strerror}; check who owns it and the "
            f"rights of its folder"
        ) from error
    except OSError as error:
        raise errors.DatabaseUnavailable(
            f"the lock file {path} cannot be opened: {error.strerror}; check that its folder "
            f"exists and is writable"
        ) from error
    if sys.platform != "win32" and os.geteuid() == 0:
        try:
            _give_to_owner(descriptor, beside)
        except BaseException:
            os.close(descriptor)
            raise
    return descriptor


if sys.platform != "win32":

    def _give_to_owner(descriptor: int, beside: str) -> None:
        try:
            owner = os.stat(beside)
        except FileNotFoundError:
            # The database is about to be made by this process, so it will be ours as well.
            return
        ours = os.fstat(descriptor)
        if (ours.st_uid, ours.st_gid) != (owner.st_uid, owner.st_gid):
            os.fchown(descriptor, owner.st_uid, owner.st_gid)


class LifeLock:
    """One byte of an owners file, held exclusively until the process dies or lets go.

    Owns its descriptor. May be made and released in any thread; a forked child lets go of its copy
    by itself and does not hold the lock.

    Args:
        path: the owners file, made if it does not exist. It must never be deleted or replaced
            while a database is in use: a lock belongs to the file, not to its name.
        slot: which byte, 0 or greater. One per process; the file does not grow with it.

    Raises:
        DatabaseBusy: a living process holds the slot.
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
        try:
            self.is_held = self._take()
        except BaseException:
            os.close(self._descriptor)
            raise
        fork.register(self)

    def _take(self) -> bool:
        if not has_open_file_locks(self._descriptor):
            # is_alive() finds the same and says that it cannot tell.
            return False
        try:
            set_lock(self._descriptor, write_lock(self.slot))
        except BlockingIOError as error:
            raise errors.DatabaseBusy(
                f"slot {self.slot} of {self.path} is held by a process that lives; take another"
            ) from error
        return True

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
        answer = _ask(descriptor, write_lock(slot))
    except OSError:
        return None
    finally:
        os.close(descriptor)
    kind: int = _RECORD.unpack(answer)[0]
    return kind != _NONE


class ProcessFacts(NamedTuple):
    """What tells one process from all others, for people and for other hosts.

    Attributes:
        host: the name of the host.
        boot_id: changes with every boot of the kernel; None where there is none.
        pid: the process id in the process's own namespace.
        start_ticks: when the process started, in clock ticks after boot; with the boot id and the
            pid it names the process. None where that is not known.
    """

    host: str
    boot_id: str | None
    pid: int
    start_ticks: int | None


def process_facts(*, proc: str = "/proc") -> ProcessFacts:
    """The facts of this process, read anew: they differ in a forked child.

    Args:
        proc: where procfs is mounted.
    """
    boot_id = _read_text(f"{proc}/sys/kernel/random/boot_id")
    return ProcessFacts(
        host=_host_name(),
        boot_id=boot_id.strip() if boot_id else None,
        pid=os.getpid(),
        start_ticks=_start_ticks(_read_text(f"{proc}/self/stat")),
    )


def _host_name() -> str:
    if sys.platform == "win32":
        return os.environ.get("COMPUTERNAME", "")
    return os.uname().nodename


def _start_ticks(stat: str | None) -> int | None:
    """Field 22 of proc_pid_stat(5)."""
    if not stat:
        return None
    # The second field is the command in brackets, and a command may contain brackets and blanks:
    # count from behind its last one. The first field after it is the third.
    fields = stat.rpartition(")")[2].split()
    try:
        return int(fields[22 - 3])
    except (IndexError, ValueError):
        return None


def _read_text(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        # No procfs here; the caller records that it is not known.
        return None
