"""The two kinds of file lock that the operating system gives, and the files they are taken on.

- On a range of bytes, shared or exclusive: *open file description locks* (fcntl(2),
  ``F_OFD_SETLK``). They belong to what one ``open()`` returned, and last until the last descriptor
  made by it is closed. Classic POSIX record locks, which exclude them and are excluded by them, are
  dropped as soon as the process closes *any* descriptor of the file, also one that another library
  opened. Linux has them.
- On a whole file: ``flock``, or ``msvcrt.locking`` in its place on Windows. Everywhere.

Nothing here waits. A forked child shares both kinds with its parent; see
:mod:`embedded_orch.db.fork`.
"""

from __future__ import annotations

import errno
import os
import sys
from struct import Struct

from embedded_orch import errors

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

# What a number stands for that was a descriptor and is closed.
CLOSED = -1

# struct flock of fcntl(2), in the layout of the C compiler: type, whence, start, length, pid. The
# pid has to be zero for these locks.
_RECORD = Struct("hhqqi")

# Python names the commands on some other systems too, but there the record has another layout, or
# such a lock covers the whole file.
if sys.platform == "linux":
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


def is_excluded(descriptor: int, record: bytes) -> bool:
    """Whether somebody holds a lock that excludes this one; it is not taken.

    Raises:
        OSError: the kernel, or this system, does not know these locks.
    """
    if sys.platform != "linux":
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
    kind: int = _RECORD.unpack(fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, record))[0]
    return kind != _NONE


def has_open_file_locks(descriptor: int) -> bool:
    """Whether the kernel knows these locks, asked by giving back one that is not held."""
    try:
        set_lock(descriptor, no_lock(0))
    except OSError:
        # Another system, or a sandbox that refuses the call.
        return False
    return True


if sys.platform == "win32":
    # Locked bytes cannot be read there, so one far behind those that are.
    _LOCKED_BYTE = 1 << 20

    def lock_file(descriptor: int) -> None:
        """Lock a whole file exclusively without waiting.

        Raises:
            BlockingIOError: somebody holds it.
        """
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError(error.errno, error.strerror) from error

    def unlock_file(descriptor: int) -> None:
        """Give the lock back; does nothing where it is not held."""
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
        except PermissionError:
            # What was not locked needs no unlocking, as with flock.
            return
else:

    def lock_file(descriptor: int) -> None:
        """Lock a whole file exclusively without waiting.

        Raises:
            BlockingIOError: somebody holds it.
        """
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def unlock_file(descriptor: int) -> None:
        """Give the lock back; does nothing where it is not held."""
        fcntl.flock(descriptor, fcntl.LOCK_UN)


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
