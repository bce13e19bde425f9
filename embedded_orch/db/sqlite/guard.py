"""The locks beside SQLite's own that keep a database file whole when SQLite's are lost.

SQLite coordinates processes by POSIX record locks, and POSIX drops all of them, without telling
anyone, when the process closes any other descriptor of the file: after a folder copy, or after
another SQLite library in the same process was there (see :mod:`embedded_orch.db.sqlite.audit`).
Then other processes no longer see that this one reads, writes, or has the file open at all. The
locks here belong to descriptors that nobody else can close, and each stands in for one of those:

=====================  ==================================  =====================================
what may be lost       what happens then                   what stands in for it
=====================  ==================================  =====================================
write lock, byte 120   two processes append to the log at  ``flock`` on the file ``<path>-lock``
of -shm                once, a commit that returned is     around each write transaction and
                       overwritten                         each checkpoint
"in use" lock, byte    the next process to open believes   :meth:`FileGuard.pin`: a read lock on
128 of -shm            to be the first, truncates -shm     the same byte
                       under the memory that we map:
                       SIGBUS
shared lock on the     the next process to close believes  :meth:`FileGuard.pin`: a read lock on
database, bytes        to be the last, copies the log      the same bytes
0x40000002 + 510       without asking and deletes it; we
                       go on writing to a deleted file
read marks, bytes      a checkpoint copies pages over      :meth:`FileGuard.reader_lock`: a read
123 to 127 of -shm     those that a snapshot still needs:  lock on byte 121, which a checkpoint
                       torn reads                          has to take for itself
=====================  ==================================  =====================================

The bytes are those of SQLite's own protocol (os_unix.c: ``UNIX_SHM_BASE``, ``UNIX_SHM_DMS``,
``SHARED_FIRST``; https://www.sqlite.org/walformat.html, section 2.3), so every SQLite of every
other process respects these locks, ours or not. The ``flock`` is respected by processes that use
this class; where a foreign program *writes* to the file, there is only SQLite's own lock.

They are open file description locks (``F_OFD_SETLK``): held by what one ``open()`` returned, and
not dropped when other descriptors are closed. Closing *these* descriptors would drop SQLite's
locks like any other close, so they stay open until SQLite has closed its last connection. Where
they do not exist (macOS, Windows) only the ``flock`` is left, or ``msvcrt.locking`` in its place.

What it costs: while a snapshot of any process lasts, no process can checkpoint, not even in part;
and a read that begins while a checkpoint runs waits for its end. :meth:`FileGuard.hold_readers`
makes a gap for a checkpoint that finds none.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from embedded_orch import errors
from embedded_orch.db import fork
from embedded_orch.db.file_locks import (
    CLOSED,
    has_open_file_locks,
    lock_file,
    no_lock,
    open_lock_file,
    read_lock,
    set_lock,
    unlock_file,
    write_lock,
)
from embedded_orch.db.sqlite import audit
from embedded_orch.db.sqlite.reader_lock import ReaderLock
from embedded_orch.db.sqlite.waiting_line import (
    LONGEST_PAUSE_SECONDS,
    PlaceInLine,
    lock_file_in_turn,
    pause_seconds,
    yield_processor,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

# The connection holds byte 128 shared from its first look at the wal-index until it is closed. A
# process that finds it free takes it exclusively, truncates -shm and builds the index anew.
_PIN_SHM = read_lock(128)
# Every connection in WAL mode holds these 510 bytes shared for as long as it is open, and the close
# that can take them exclusively is the last: it checkpoints with all other locks skipped, and
# unlinks -wal and -shm.
_PIN_DATABASE = read_lock(0x40000002, 510)
# Of the lock file. It is another kind of lock than its ``flock``, and they do not meet.
_CHECKPOINTS = write_lock(0)
_CHECKPOINTS_NO_MORE = no_lock(0)

# Most writes are shorter than the shortest sleep, so who waits does not sleep at first, but asks
# again and again, and lets others run between. A task takes a quarter less time by that where two,
# four or eight processes run them (on 2 cores, 101 to 72, 135 to 92, and 180 to 133 us).
_SOON_SECONDS = 0.001
# How often who writes one thing after the other looks whether somebody waits in line.
_LOOK_SECONDS = 0.000_5

# How long readers are held back at most, whatever the file says.
_LONGEST_HOLD_SECONDS = 0.25
_STAMP_BYTES = 8
_NO_HOLDS = (b"", bytes(_STAMP_BYTES))

_READ_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)


class FileGuard:
    """All lock descriptors of one database file in this process.

    Made before the first connection to the file, and closed after the last one; only then may its
    descriptors go. Closing it too early loses locks, so it is not closed by being forgotten.

    :meth:`acquire_write`, :meth:`release_write` and reader locks may be used from any thread. The
    write lock knows processes, not threads: whoever takes it holds the one writer mutex of the
    process first.

    Attributes:
        has_write_lock: whether this process excludes the others now.

    Args:
        path: the database file; it need not exist yet.
        busy_timeout: how many seconds to wait for another process at most.

    Raises:
        DatabaseUnavailable: the lock file cannot be made.
    """

    def __init__(self, path: str, *, busy_timeout: float) -> None:
        # Where SQLite puts -wal and -shm too, whatever symbolic link the caller came by.
        self.path = os.path.realpath(path)
        self.busy_timeout = busy_timeout
        self.lock_path = f"{self.path}-lock"
        self._lock_descriptor = open_lock_file(self.lock_path, beside=self.path)
        self.has_open_file_locks = has_open_file_locks(self._lock_descriptor)
        self.has_write_lock = False
        self._next_look = 0.0
        self._change = threading.Lock()
        self._pins: list[int] = []
        self._shm_identity: fork.FileIdentity | None = None
        self._readers: list[ReaderLock] = []
        self._is_abandoned = False
        self._opening: fork.OpenFile | None = None
        self._note_opening()
        fork.register(self)

    def _note_opening(self) -> None:
        """Have forked children know the file, as soon as it exists."""
        if self._opening is None and os.path.exists(self.path):
            self._opening = fork.opened(self.path)

    # -- writing -------------------------------------------------------------------------------

    def acquire_write(self, *, patience: float | None = None) -> None:
        """Exclude the writes and checkpoints of all other processes.

        Args:
            patience: how many seconds to wait for them; ``busy_timeout`` when not given.

        Raises:
            DatabaseBusy: another process held the lock for longer.
            DatabaseClosed: the guard is closed.
            ForkedProcess: it was made before ``fork()``, and this is the child.
        """
        if self.has_write_lock:
            # The kernel would say yes: to it, both are the same owner.
            raise RuntimeError(f"{self.path}: the write lock is held already in this process")
        try:
            self._lock_file()
        except (OSError, ValueError) as error:
            self.check_usable(error)
            if not self._has_come_free_soon():
                self._wait_in_line(self.busy_timeout if patience is None else patience)
        self.has_write_lock = True

    def _lock_file(self) -> None:
        now = time.monotonic()
        if now < self._next_look:
            lock_file(self._lock_descriptor)
            return
        lock_file_in_turn(self._lock_descriptor)
        self._next_look = now + _LOOK_SECONDS

    def _has_come_free_soon(self) -> bool:
        """Whether the lock came free within the time of some short writes, and was taken."""
        deadline = time.monotonic() + _SOON_SECONDS
        while time.monotonic() < deadline:
            yield_processor()
            try:
                self._lock_file()
            except (OSError, ValueError) as error:
                self.check_usable(error)
            else:
                return True
        return False

    def _wait_in_line(self, patience: float) -> None:
        place = PlaceInLine(lambda: self._lock_descriptor, patience=patience)
        try:
            self.wait_for(
                place.attempt,
                holder="another process has been writing or checkpointing",
                locked=self.lock_path,
                patience=patience,
                pause_seconds=place.pause_seconds,
            )
        finally:
            place.leave()

    def release_write(self) -> None:
        """Let other processes write. May be called when the lock was not acquired."""
        self.has_write_lock = False
        if self._lock_descriptor != CLOSED:
            unlock_file(self._lock_descriptor)

    @contextmanager
    def write_lock(self) -> Generator[None]:
        """:meth:`acquire_write` for the length of a ``with`` block."""
        self.acquire_write()
        try:
            yield
        finally:
            self.release_write()

    # -- checkpoints ---------------------------------------------------------------------------

    def begin_checkpoint(self) -> bool:
        """Whether no other process is about to checkpoint; until :meth:`end_checkpoint` none is.

        It keeps nobody from anything: where it is not known, the answer is yes.
        """
        if not self.has_open_file_locks:
            return True
        try:
            set_lock(self._lock_descriptor, _CHECKPOINTS)
        except (OSError, ValueError):
            # ValueError: it is closed.
            return False
        return True

    def end_checkpoint(self) -> None:
        """Another process may, the next time."""
        if self.has_open_file_locks and self._lock_descriptor != CLOSED:
            set_lock(self._lock_descriptor, _CHECKPOINTS_NO_MORE)

    # -- staying open --------------------------------------------------------------------------

    def pin(self) -> None:
        """Take the locks that say "this file is in use" to other processes.

        To be called once, when the first connection of this process has the file open in WAL mode
        and has read from it: before, ``-shm`` need not exist, and there is nothing to protect.

        Raises:
            DatabaseUnavailable: there is no ``-shm``, or a file cannot be opened.
            DatabaseBusy: another process is closing or resetting the file for longer than
                ``busy_timeout``.
        """
        self._note_opening()
        if not self.has_open_file_locks or self._pins:
            return
        with self._change:
            # Kept also when a lock is refused: closing them would drop SQLite's.
            shm = self._open(f"{self.path}-shm")
            self._pins.append(shm)
            database = self._open(self.path)
            self._pins.append(database)
            status = os.fstat(shm)
            self._shm_identity = (status.st_dev, status.st_ino)
            for descriptor, lock, what in (
                (shm, _PIN_SHM, f"{self.path}-shm"),
                (database, _PIN_DATABASE, self.path),
            ):
                self.wait_for(
                    partial(set_lock, descriptor, lock),
                    holder="another process has been opening or closing the database",
                    locked=what,
                )

    def sync_log(self) -> None:
        """Bring what the log holds to the disk, while other processes go on writing.

        Nothing is promised by it, and nothing done where files cannot be pinned.

        Raises:
            DatabaseUnavailable: the log cannot be opened.
            OSError: it cannot be written.
        """
        if not self._pins:
            return
        # To be closed: SQLite locks no bytes of its log, so nothing is dropped by that.
        log = self._open(f"{self.path}-wal")
        try:
            os.fdatasync(log)
        finally:
            os.close(log)

    def _open(self, path: str) -> int:
        try:
            # Read locks ask for no more than reading.
            with audit.allow():
                return os.open(path, _READ_FLAGS)
        except OSError as error:
            raise errors.DatabaseUnavailable(
                f"{path} cannot be opened: {error.strerror}; the database must be open in WAL "
                f"mode, and nobody may remove its files meanwhile"
            ) from error

    # -- reading -------------------------------------------------------------------------------

    def reader_lock(self) -> ReaderLock:
        """A new lock for one reader connection.

        Raises:
            DatabaseUnavailable: somebody replaced ``-shm`` while the database is open.
        """
        with self._change:
            descriptor = CLOSED
            if self._pins:
                descriptor = self._open(f"{self.path}-shm")
                status = os.fstat(descriptor)
                if (status.st_dev, status.st_ino) != self._shm_identity:
                    # It is another file than SQLite's, so closing it drops nothing.
                    os.close(descriptor)
                    raise errors.DatabaseUnavailable(
                        f"{self.path}-shm was removed or replaced while the database is open; "
                        f"close it in all processes, and leave its files alone while it is in use"
                    )
            reader = ReaderLock(self, descriptor)
            self._readers.append(reader)
            return reader

    @contextmanager
    def hold_readers(self, seconds: float = 0.1) -> Generator[None]:
        """Have new reads of all processes wait, for the length of a ``with`` block.

        For a checkpoint that finds no moment without a reader. Whoever uses it holds the write
        lock, so there is one at a time. Reads that have begun go on.

        Args:
            seconds: the readers go on after this time, also when this process dies meanwhile; a
                quarter of a second at most.
        """
        if not self.has_open_file_locks:
            # Nor do readers hold anything that a checkpoint would have to wait for.
            yield
            return
        until = time.monotonic_ns() + int(min(seconds, _LONGEST_HOLD_SECONDS) * 1e9)
        os.pwrite(self._lock_descriptor, until.to_bytes(_STAMP_BYTES, "little"), 0)
        try:
            yield
        finally:
            os.pwrite(self._lock_descriptor, bytes(_STAMP_BYTES), 0)

    def wait_while_readers_are_held(self) -> None:
        """Wait while a process holds the readers back, for a quarter of a second at most."""
        deadline = 0.0
        while (stamp := os.pread(self._lock_descriptor, _STAMP_BYTES, 0)) not in _NO_HOLDS:
            now = time.monotonic()
            deadline = deadline or now + _LONGEST_HOLD_SECONDS
            ahead = int.from_bytes(stamp, "little") / 1e9 - now
            # The clock is that of the host and begins anew with each boot: what lies further
            # ahead than anybody may ask for was written before the last one.
            if not 0 < ahead <= _LONGEST_HOLD_SECONDS or now > deadline:
                return
            time.sleep(min(ahead, LONGEST_PAUSE_SECONDS))

    # -- waiting -------------------------------------------------------------------------------

    def wait_for(
        self,
        attempt: Callable[[], object],
        *,
        holder: str,
        locked: str,
        patience: float | None = None,
        pause_seconds: Callable[[float], float] = pause_seconds,
    ) -> None:
        """Try until it works, with short pauses: the kernel has no waiting with a time limit."""
        longest = self.busy_timeout if patience is None else patience
        began = time.monotonic()
        while True:
            try:
                attempt()
                return
            except BlockingIOError as error:
                waited = time.monotonic() - began
                if waited >= longest:
                    raise errors.DatabaseBusy(
                        f"{self.path}: {holder} for {waited:.1f} s (lock on {locked}); find it "
                        f"with `lsof {locked}` and end it, or open with a larger "
                        f"busy_timeout_seconds"
                    ) from error
            except OSError as error:
                self.check_usable(error)
                raise
            time.sleep(min(pause_seconds(waited), max(0.0, longest - waited)))

    def check_open(self) -> None:
        """Raise if the guard is closed, or belongs to the parent of this process."""
        if self._is_abandoned:
            raise errors.ForkedProcess(
                f"{self.path} was opened before fork() and is used in the child: start processes "
                f"by spawn or forkserver"
            )
        if self._lock_descriptor == CLOSED:
            raise errors.DatabaseClosed(f"{self.path} was closed before this call")

    def check_usable(self, error: OSError | ValueError) -> None:
        """Raise what a refused lock means, unless it means that somebody holds it."""
        if isinstance(error, BlockingIOError):
            return
        self.check_open()
        raise errors.DatabaseUnavailable(
            f"{self.path} cannot be locked: {error}; check that its file system supports locks"
        ) from error

    # -- the end -------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of everything. All SQLite connections of this process to the file are closed."""
        with self._change:
            self._close_descriptors()
        if self._opening is not None:
            fork.closed(self._opening)

    def abandon_in_child(self) -> None:
        """Close a forked child's copies, which leaves the parent's locks as they are.

        Without a word to the kernel about unlocking: these locks are shared with the parent, and
        a child that kept them would hold them after the parent's death.
        """
        self._is_abandoned = True
        # Another thread of the parent may have held the old one.
        self._change = threading.Lock()
        self._close_descriptors()

    def _close_descriptors(self) -> None:
        for reader in self._readers:
            reader.close_descriptor()
        self._readers.clear()
        while self._pins:
            os.close(self._pins.pop())
        descriptor, self._lock_descriptor = self._lock_descriptor, CLOSED
        if descriptor != CLOSED:
            os.close(descriptor)
        self.has_write_lock = False

    def __repr__(self) -> str:
        if self._is_abandoned:
            state = "abandoned after fork()"
        elif self._lock_descriptor == CLOSED:
            state = "closed"
        else:
            state = f"{'writing' if self.has_write_lock else 'open'}, " + (
                f"pinned, {len(self._readers)} readers" if self._pins else "not pinned"
            )
        return f"<FileGuard {self.path}: {state}>"
