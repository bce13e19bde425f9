"""Read transactions that last: who they are, where they keep the log from being copied.

While a snapshot of any process lasts, no process can copy the log into the file, so the log grows
by what is written meanwhile. That is bounded as long as no snapshot is old. One that is gets named
in a warning, once: one of this process by what it reads, and one of another process by its pid, as
far as the kernel tells (/proc/<pid>/fdinfo; proc_pid_fdinfo(5)).
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Generic

from embedded_orch.db.port import R

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from embedded_orch.db.port import Transaction
    from embedded_orch.db.sqlite.readers import Reader, Readers

LONG_SECONDS = 10.0
# The bytes of -shm that readers hold: ours, and the read marks of SQLite (see guard.py).
_READING = range(121, 128)
_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# What stands between a session and the block that opens it.
_OPENING = ("contextlib",)


class Named(Generic[R]):
    """A read that says in words what it is."""

    __slots__ = ("_read", "_words")

    def __init__(self, read: Callable[[Transaction], R], words: str) -> None:
        self._read = read
        self._words = words

    def __call__(self, transaction: Transaction) -> R:
        """Read."""
        return self._read(transaction)

    def __str__(self) -> str:
        return self._words


class LongReads:
    """Watches for read transactions that keep the log of one file from being copied.

    Called by whoever has the turn to write, when a checkpoint was put off.

    Args:
        path: of the database, without symbolic links.
        readers: of this process.
    """

    def __init__(self, path: str, readers: Readers) -> None:
        self._path = path
        self._readers = readers
        self._named: set[object] = set()
        self._seen: dict[int, float] = {}

    def look(self, log_bytes: int) -> None:
        """Name those that have lasted for long, and were not named yet.

        Args:
            log_bytes: how long the log has become.
        """
        own = self._readers.open_longer_than(LONG_SECONDS)
        for reader in own:
            # Read now: it may end meanwhile.
            since, words = reader.since, described(reader)
            if since and (id(reader), since) not in self._named:
                self._named.add((id(reader), since))
                self._warn(log_bytes, f"{words}, open for {time.monotonic() - since:.0f} s")
        if own:
            return
        for pid, words in self._others():
            if pid not in self._named:
                self._named.add(pid)
                self._warn(log_bytes, words)

    def _others(self) -> Iterator[tuple[int, str]]:
        """Processes that have been seen reading whenever it was looked, for long enough."""
        now = time.monotonic()
        reading = dict(readers_of(f"{self._path}-shm"))
        self._seen = {pid: self._seen.get(pid, now) for pid in reading}
        # One that has stopped may be named again.
        self._named = {each for each in self._named if type(each) is not int or each in reading}
        for pid, command in reading.items():
            if now - self._seen[pid] >= LONG_SECONDS:
                yield pid, f"process {pid} ({command}), for {now - self._seen[pid]:.0f} s at least"

    def _warn(self, log_bytes: int, who: str) -> None:
        import logging

        logging.getLogger("embedded_orch.db").warning(
            "%s: its log has grown to %.1f MB and cannot be copied into the file, because of a "
            "read transaction that has lasted for more than %.0f s: %s. End it, or read less at "
            "a time",
            self._path,
            log_bytes / 2**20,
            LONG_SECONDS,
            who,
        )


def described(reader: Reader) -> str:
    """What a reader of this process reads, in words."""
    reading = reader.reading
    if isinstance(reading, str | Named):
        words = str(reading)
    else:
        words = f"a read of {getattr(reading, '__module__', 'unknown code')}"
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return f"{words} in thread {names.get(reader.thread_id, reader.thread_id)}"


def where_opened() -> str:
    """Which line of the user's code we were called from."""
    frame: Any = sys._getframe(1)  # noqa: SLF001 - inspect and traceback cost an import each
    while frame is not None and (
        frame.f_code.co_filename.startswith(_PACKAGE) or frame.f_globals.get("__name__") in _OPENING
    ):
        frame = frame.f_back
    if frame is None or frame.f_code.co_filename == threading.__file__:
        return "opened asynchronously"
    return f"opened at {frame.f_code.co_filename}:{frame.f_lineno}"


def readers_of(path: str, *, proc: str = "/proc") -> Iterator[tuple[int, str]]:
    """Pid and command of other processes that read, by their locks on the index of the log.

    Nothing where the kernel does not tell, or not us.

    Args:
        path: of the index.
        proc: where procfs is mounted.
    """
    try:
        inode = os.stat(path).st_ino
        pids = [int(name) for name in os.listdir(proc) if name.isdecimal()]
    except OSError:
        return
    for pid in pids:
        if pid != os.getpid() and _reads(f"{proc}/{pid}/fdinfo", inode):
            yield pid, _command(f"{proc}/{pid}/cmdline")


def _reads(folder: str, inode: int) -> bool:
    try:
        descriptors = os.listdir(folder)
    except OSError:
        # It has ended, or is somebody else's.
        return False
    for descriptor in descriptors:
        try:
            with open(f"{folder}/{descriptor}", encoding="ascii", errors="replace") as file:
                lines = file.read().splitlines()
        except OSError:
            continue
        if any(_is_read_lock(line, inode) for line in lines if line.startswith("lock:")):
            return True
    return False


def _is_read_lock(line: str, inode: int) -> bool:
    """Whether a line such as ``lock: 1: OFDLCK ADVISORY READ -1 08:02:77 121 121`` is one's."""
    *_, where, first, last = line.split()
    if where.rpartition(":")[2] != str(inode) or not first.isdecimal():
        return False
    return int(first) in _READING and last == first


def _command(path: str) -> str:
    try:
        with open(path, "rb") as file:
            words = file.read(200).replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return "its command is not known"
    return words.strip()
