"""Files that are there as a whole, or not at all."""

from __future__ import annotations

import os
import threading

PARTIAL = ".partial"
"""How the name of a file ends that is not whole yet."""
_PRIVATE_FOLDER = 0o700
_SHARED_FOLDER = 0o777
_PRIVATE_FILE = 0o600
_SHARED_FILE = 0o666


def write_whole(path: str, content: bytes, *, is_synced: bool, is_private: bool = True) -> None:
    """Write a file that whoever opens it finds whole, also after a crash at any point.

    Args:
        path: of the file; its folder exists. What is there is replaced.
        content: of the file.
        is_synced: whether it is on the disk, under its name, when this returns.
        is_private: whether only its owner may read it; else as the process's umask has it.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    descriptor, partial = _new_file_beside(path, _PRIVATE_FILE if is_private else _SHARED_FILE)
    try:
        try:
            _write_all(descriptor, content)
            if is_synced:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(partial, path)
    except BaseException:
        if os.path.lexists(partial):
            os.unlink(partial)
        raise
    if is_synced:
        sync_folder(os.path.dirname(path))


def make_folder(path: str, *, is_synced: bool, is_private: bool = False) -> None:
    """Make a folder with those above it, on the disk if so asked for; nothing when it is there.

    Raises:
        OSError: it cannot be made.
    """
    new: list[str] = []
    above = path
    while not os.path.exists(above):
        new.append(above)
        above = os.path.dirname(above)
    for each in reversed(new):
        try:
            os.mkdir(each, _PRIVATE_FOLDER if is_private else _SHARED_FOLDER)
        except FileExistsError:
            # Another process was faster.
            continue
        if is_synced:
            sync_folder(os.path.dirname(each))


def sync_folder(path: str) -> None:
    """Have the names in a folder on the disk, on systems that can be asked for it."""
    if os.name == "posix":
        _sync(path, os.O_RDONLY)


def sync_file(path: str) -> None:
    """Have what a file holds on the disk, whoever wrote it.

    Raises:
        FileNotFoundError: it is not there.
    """
    # Windows syncs what may be written only.
    _sync(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)


def _sync(path: str, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _new_file_beside(path: str, rights: int) -> tuple[int, str]:
    """A file that nobody else writes, by its name of this process and thread."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    number = 0
    while True:
        partial = f"{path}.{os.getpid()}-{threading.get_ident():x}-{number}{PARTIAL}"
        try:
            return os.open(partial, flags, rights), partial
        except FileExistsError:
            # Left by a process that had our number and died, or of one on another host.
            number += 1
