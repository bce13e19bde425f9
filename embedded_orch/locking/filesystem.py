"""Locks of keys among the processes that share a folder.

Each key has a file, which its holder keeps locked (``flock``), so that the lock of a killed process
is free at once. The files stay: they are empty but for the name of the last holder.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from embedded_orch.db.file_locks import lock_file, open_lock_file
from embedded_orch.locking.polling import PollingLocks

if TYPE_CHECKING:
    from pathlib import Path


class _Held(NamedTuple):
    holder: str
    descriptor: int
    until: float | None


class FileSystemLockManager(PollingLocks):
    """Locks in a folder, for threads and processes of one machine.

    Args:
        lock_files_directory: the folder; made when it does not exist.
    """

    def __init__(self, lock_files_directory: Path | str) -> None:
        self.lock_files_directory = lock_files_directory
        self._folder = os.path.abspath(os.path.expanduser(os.fspath(lock_files_directory)))
        self._guard = threading.Lock()
        self._held: dict[str, _Held] = {}

    def try_lock(self, key: str, holder: str, hold_timeout: float | None) -> bool:
        """Take the lock if it is free; whether it is that holder's now."""
        with self._guard:
            found = self._current(key)
            if found is not None:
                return found.holder == holder
            descriptor = self._taken(key)
            if descriptor is None:
                return False
            os.truncate(descriptor, 0)
            os.write(descriptor, holder.encode())
            until = None if hold_timeout is None else time.monotonic() + hold_timeout
            self._held[key] = _Held(holder, descriptor, until)
        if hold_timeout is not None:
            # Nobody else can end it while this process lives.
            timer = threading.Timer(hold_timeout, self._end_if_over, (key,))
            timer.daemon = True
            timer.start()
        return True

    def release_lock(self, key: str, holder: str) -> None:
        """Give the lock of a key back.

        Raises:
            ValueError: that holder does not hold it here.
        """
        with self._guard:
            found = self._current(key)
            if found is None or found.holder != holder:
                raise ValueError(f"{holder!r} does not hold the lock of {key!r}")
            self._end(key)

    def is_locked(self, key: str, use_cache: bool = False) -> bool:
        """Whether somebody holds it, in any process.

        Args:
            key: of the lock.
            use_cache: look only at the locks that are held here.
        """
        with self._guard:
            if self._current(key) is not None:
                return True
            if use_cache or not os.path.exists(self._path(key)):
                return False
            descriptor = self._taken(key)
            if descriptor is None:
                return True
            os.close(descriptor)
            return False

    def is_lock_holder(self, key: str, holder: str) -> bool:
        """Whether that holder does, here."""
        with self._guard:
            found = self._current(key)
            return found is not None and found.holder == holder

    def _taken(self, key: str) -> int | None:
        """A descriptor of the locked file of a key; None when somebody else has it."""
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        descriptor = open_lock_file(self._path(key), beside=self._folder)
        try:
            lock_file(descriptor)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def _current(self, key: str) -> _Held | None:
        found = self._held.get(key)
        if found is not None and found.until is not None and time.monotonic() >= found.until:
            self._end(key)
            return None
        return found

    def _end_if_over(self, key: str) -> None:
        with self._guard:
            self._current(key)

    def _end(self, key: str) -> None:
        # The lock goes with its only descriptor.
        os.close(self._held.pop(key).descriptor)

    def _path(self, key: str) -> str:
        from hashlib import blake2b

        # Keys never become names of files.
        return os.path.join(
            self._folder, f"{blake2b(key.encode(), digest_size=16).hexdigest()}.lock"
        )

    def __repr__(self) -> str:
        return f"<FileSystemLockManager {self._folder}>"
