"""The lock that keeps checkpoints away from the snapshot of one reader.

It stands in for SQLite's read marks, which a process may have lost; see
:mod:`embedded_orch.db.sqlite.guard` for how, and for the locks of the writer.
"""

from __future__ import annotations

import os
import time
from functools import partial
from typing import TYPE_CHECKING

from embedded_orch.db.file_locks import (
    CLOSED,
    lock_file,
    no_lock,
    open_lock_file,
    read_lock,
    set_lock,
    unlock_file,
)

if TYPE_CHECKING:
    from embedded_orch.db.sqlite.guard import FileGuard

# Every checkpoint, of whichever mode, holds byte 121 exclusively from beginning to end.
_HOLD_CHECKPOINTS = read_lock(121)
_LET_CHECKPOINTS = no_lock(121)

# The wal-index begins with its header twice (walformat.html, section 2.1). Byte 12 says that it
# was ever written.
_HEADER_BYTES = 48
_IS_WRITTEN = slice(12, 13)
# Longer than a commit of another process takes to write both headers, also when it was
# interrupted between them on a busy machine; after that it is taken for dead.
_TORN_HEADER_PATIENCE_SECONDS = 5e-3
_TORN_HEADER_PAUSE_SECONDS = 50e-6


class ReaderLock:
    """Keeps checkpoints away while one reader connection has a snapshot.

    Used by one thread at a time. Its descriptor is the guard's and stays open until the guard is
    closed, so a pool of readers keeps it with the connection.

    There is one hazard of its own. A process that dies while it writes the header of the wal-index
    leaves its two copies different, and the next SQLite connection to read builds the index anew,
    for which it needs byte 121 exclusively: one whose own guard holds the byte shared waits for
    itself, ten seconds long. So the header is looked at before, and where it is torn the snapshot
    is protected by the write lock instead, which excludes everybody who could checkpoint, until
    :meth:`settle` or the end.
    """

    __slots__ = ("_alone", "_descriptor", "_guard")

    def __init__(self, guard: FileGuard, descriptor: int) -> None:
        self._guard = guard
        self._descriptor = descriptor
        self._alone = CLOSED

    def acquire(self) -> None:
        """Take the lock; to be called before the transaction begins.

        Raises:
            DatabaseBusy: a checkpoint of another process lasted longer than ``busy_timeout``.
            DatabaseClosed: the guard is closed.
            ForkedProcess: it was made before ``fork()``, and this is the child.
        """
        guard = self._guard
        descriptor = self._descriptor
        if descriptor == CLOSED:
            guard.check_open()
            return
        guard.wait_while_readers_are_held()
        if self._has_torn_header() and self._acquire_alone():
            return
        try:
            set_lock(descriptor, _HOLD_CHECKPOINTS)
        except OSError as error:
            guard.check_usable(error)
            guard.wait_for(
                partial(set_lock, descriptor, _HOLD_CHECKPOINTS),
                holder="a checkpoint has been running",
                locked=f"{guard.path}-shm",
            )

    def release(self) -> None:
        """Give the lock back, after the transaction has ended. May be called twice."""
        if self._alone != CLOSED:
            self._leave_alone()
        elif self._descriptor != CLOSED:
            set_lock(self._descriptor, _LET_CHECKPOINTS)

    def _has_torn_header(self) -> bool:
        header = os.pread(self._descriptor, 2 * _HEADER_BYTES, 0)
        return header[:_HEADER_BYTES] != header[_HEADER_BYTES:] or header[_IS_WRITTEN] != b"\1"

    def _acquire_alone(self) -> bool:
        """Take the write lock for this snapshot; False when the header is whole again."""
        deadline = time.monotonic() + _TORN_HEADER_PATIENCE_SECONDS
        while time.monotonic() < deadline:
            # Most likely it is being written just now.
            time.sleep(_TORN_HEADER_PAUSE_SECONDS)
            if not self._has_torn_header():
                return False
        # By a descriptor of its own, so that it excludes the writer of this process too. On this
        # file SQLite has no locks that closing it could drop.
        self._alone = open_lock_file(self._guard.lock_path, beside=self._guard.path)
        try:
            self._guard.wait_for(
                self._lock_unless_whole,
                holder="another process has been writing",
                locked=self._guard.lock_path,
            )
            if self._has_torn_header():
                return True
        except BaseException:
            self._leave_alone()
            raise
        self._leave_alone()
        return False

    def _lock_unless_whole(self) -> None:
        if self._has_torn_header():
            lock_file(self._alone)

    @property
    def excludes_writers(self) -> bool:
        """Whether the index was torn, so that nobody can write until :meth:`settle`."""
        return self._alone != CLOSED

    def settle(self) -> None:
        """Let others write again; to be called once the snapshot has read something.

        Does nothing but when :meth:`acquire` found the index torn. That first read has rebuilt it,
        and the usual lock is enough from here on.
        """
        if self._alone == CLOSED or self._has_torn_header():
            return
        self._guard.wait_for(
            partial(set_lock, self._descriptor, _HOLD_CHECKPOINTS),
            holder="a checkpoint has been running",
            locked=f"{self._guard.path}-shm",
        )
        self._leave_alone()

    def _leave_alone(self) -> None:
        descriptor, self._alone = self._alone, CLOSED
        unlock_file(descriptor)
        os.close(descriptor)

    def close_descriptor(self) -> None:
        """Close without unlocking: the guard is closing, or this is a forked child."""
        for descriptor in (self._descriptor, self._alone):
            if descriptor != CLOSED:
                os.close(descriptor)
        self._descriptor = self._alone = CLOSED
