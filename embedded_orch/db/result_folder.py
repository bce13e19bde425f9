"""The folder of values that are too large for rows, beside the database or where it is told.

Each file holds one value and has the hash of its bytes for a name. So equal values share a file,
nothing is ever changed in place, and whoever reads one knows whether it is what was written. Who
may remove a file is a matter of the rows that name it: see :mod:`embedded_orch.store.result_files`.

A backup that copies the files of a snapshot, and whoever removes files that no row names now, keep
out of each other's way by a lock file in the folder.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from embedded_orch.db.file_locks import lock_file, open_lock_file, unlock_file
from embedded_orch.errors import MissingResult
from embedded_orch.values.files import PARTIAL, make_folder, sync_file, sync_folder, write_whole

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

_NAME_LENGTH = 64
_DIGITS = frozenset("0123456789abcdef")
_LOCK = "lock"
_PAUSE_SECONDS = 0.02


def folder_beside(path: str) -> str:
    """The folder of a database file: its name begins with that of the file."""
    return f"{path}-results"


class ResultFolder:
    """Files of values, by the SHA-256 of their bytes. Any thread and process may use it.

    Args:
        path: of the folder, made with the first file.
        is_synced: whether a file is on the disk before its name is told.
    """

    def __init__(self, path: str, *, is_synced: bool) -> None:
        self.path = path
        self._is_synced = is_synced
        # The sub-folders that are on the disk, with all above them.
        self._synced: set[str] = set()

    @property
    def is_there(self) -> bool:
        """Whether a file was ever put into it."""
        return os.path.isdir(self.path)

    def put(self, content: bytes) -> str:
        """Write a value, unless it is there; its name.

        Raises:
            OSError: it cannot be written.
        """
        from hashlib import sha256

        name = sha256(content).hexdigest()
        target = self._path_of(name)
        shard = os.path.dirname(target)
        if not (_holds(target, content) and self._is_on_disk(target)):
            make_folder(shard, is_synced=self._is_synced, is_private=True)
            write_whole(target, content, is_synced=self._is_synced)
        if self._is_synced and shard not in self._synced:
            # Another process may have made the folders, and not synced them yet.
            sync_folder(self.path)
            sync_folder(os.path.dirname(self.path))
            self._synced.add(shard)
        return name

    def _is_on_disk(self, target: str) -> bool:
        """See to it that a file is on the disk which another process may just be writing.

        False when somebody has removed it meanwhile.
        """
        if not self._is_synced:
            return True
        try:
            sync_file(target)
        except FileNotFoundError:
            return False
        sync_folder(os.path.dirname(target))
        return True

    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return os.path.exists(self._path_of(name))

    def read(self, name: str) -> bytes:
        """The value of this name.

        Raises:
            MissingResult: it is not there, or is not what was written.
        """
        from hashlib import sha256

        path = self._path_of(name)
        try:
            with open(path, "rb") as file:
                content = file.read()
        except OSError as error:
            raise MissingResult(
                f"the file {path} of the result cannot be read: {error.strerror}"
            ) from error
        if sha256(content).hexdigest() != name:
            raise MissingResult(f"the file {path} of the result is damaged: its hash is another")
        return content

    def remove(self, name: str) -> bool:
        """Remove a file; whether it was there."""
        try:
            os.unlink(self._path_of(name))
        except FileNotFoundError:
            return False
        return True

    def names(self, *, since: int = 0) -> Iterator[str]:
        """The names of all files, one sub-folder after the other.

        Args:
            since: the number of the sub-folder to begin with, from 0 to 255; it goes round.
        """
        if not os.path.isdir(self.path):
            # Most databases have none, and are spared 256 looks for what is not in it.
            return
        for number in range(256):
            shard = os.path.join(self.path, f"{(since + number) % 256:02x}")
            try:
                found = os.listdir(shard)
            except FileNotFoundError:
                continue
            yield from (name for name in found if _is_name(name))

    def remove_partial(self, *, older_than: float) -> int:
        """Remove what dying processes left half written; how many.

        Args:
            older_than: seconds since 1970: what was written to since then may still be wanted.
        """
        count = 0
        for folder, _, files in os.walk(self.path):
            for file in files:
                if file.endswith(PARTIAL):
                    count += _remove_old(os.path.join(folder, file), older_than)
        return count

    def copy_to(self, path: str, names: Iterable[str]) -> None:
        """Copy files into another such folder.

        Raises:
            OSError: one cannot be written.
        """
        other = ResultFolder(path, is_synced=True)
        for name in names:
            try:
                other.put(self.read(name))
            except MissingResult:
                # It was missing before; the copy lacks no more than what it is made of.
                continue

    @contextmanager
    def locked(self, *, patience_seconds: float = 0) -> Generator[bool]:
        """Nobody else removes or copies files meanwhile; False when somebody does that now.

        Args:
            patience_seconds: how long to wait until nobody does.
        """
        if not self.is_there:
            yield True
            return
        descriptor = open_lock_file(os.path.join(self.path, _LOCK), beside=self.path)
        try:
            if not _take(descriptor, patience_seconds):
                yield False
                return
            try:
                yield True
            finally:
                unlock_file(descriptor)
        finally:
            os.close(descriptor)

    def _path_of(self, name: str) -> str:
        if not _is_name(name):
            # A row decides nothing about which files are read.
            raise MissingResult(f"{name!r} is no name of a result file")
        return os.path.join(self.path, name[:2], name)

    def __repr__(self) -> str:
        return f"<ResultFolder {self.path}>"


def _remove_old(path: str, older_than: float) -> bool:
    try:
        if os.path.getmtime(path) >= older_than:
            return False
        os.unlink(path)
    except FileNotFoundError:
        # It has its name by now, or somebody else was faster.
        return False
    return True


def _take(descriptor: int, patience_seconds: float) -> bool:
    waited = 0.0
    while True:
        try:
            lock_file(descriptor)
            return True
        except BlockingIOError:
            if waited >= patience_seconds:
                return False
        time.sleep(_PAUSE_SECONDS)
        waited += _PAUSE_SECONDS


def _is_name(name: str) -> bool:
    return len(name) == _NAME_LENGTH and _DIGITS.issuperset(name)


def _holds(path: str, content: bytes) -> bool:
    """Whether a file is there with just this content; a damaged one is written again."""
    try:
        if os.path.getsize(path) != len(content):
            return False
        with open(path, "rb") as file:
            return file.read() == content
    except OSError:
        return False
