"""Refuses what would drop SQLite's file locks in this process: a second SQLite, a plain ``open``.

POSIX drops *all* record locks that a process has on a file when the process closes *any* of its
descriptors of that file (https://www.sqlite.org/howtocorrupt.html, sections 2.2 and 2.2.1). One
SQLite library knows its own descriptors and waits with closing them; it cannot know those of
Python's ``open`` or of the other SQLite that comes with the standard ``sqlite3`` module. So a
folder copy or a ``pandas.read_sql`` beside an open database silently unlocks it.

Python tells its audit hooks about both before they happen (the events ``open`` and
``sqlite3.connect``), and a hook that raises stops them. That covers what goes through Python:
pandas, SQLAlchemy, aiosqlite, shutil, zipfile. It does not cover libraries that open files in C by
themselves, such as duckdb; for those there are the locks of :mod:`embedded_orch.db.sqlite.guard`.

An audit hook can never be removed and is called for every event of the process, so it is installed
when the first file is watched, and it returns at once for all other events and while no file is
watched.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from embedded_orch import errors
from embedded_orch.db import fork

if TYPE_CHECKING:
    from collections.abc import Generator

    from embedded_orch.db.fork import FileIdentity

# On Windows locks belong to a handle, and closing another one of the file leaves them alone.
_IS_NEEDED = sys.platform != "win32"
_SUFFIXES = ("", "-wal", "-shm")
# SQLite's URI: file:path or file://authority/path, up to ? or #.
_URI_SCHEME = "file:"


class _WatchedFile:
    """A database, its log and its index, by their identities."""

    __slots__ = ("_known", "count", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self.count = 0
        self._known: tuple[FileIdentity, ...] = ()

    def identities(self) -> tuple[FileIdentity, ...]:
        """Device and inode of the files that exist.

        All three stay the same while a database is open, so they are asked for only until all
        are there.
        """
        if len(self._known) < len(_SUFFIXES):
            found = (_identity(self.path + suffix) for suffix in _SUFFIXES)
            self._known = tuple(identity for identity in found if identity is not None)
        return self._known


class _WatchedFiles:
    """All watched files of the process, by path."""

    def __init__(self) -> None:
        # Replaced as a whole and never changed, because the hook reads it without a lock.
        self.by_path: dict[str, _WatchedFile] = {}
        self._change = threading.Lock()
        self._has_hook = False

    def add(self, path: str) -> None:
        with self._change:
            if not self._has_hook:
                self._has_hook = True
                sys.addaudithook(_hook)
                fork.register(self)
            file = self.by_path.get(path) or _WatchedFile(path)
            file.count += 1
            self.by_path = {**self.by_path, path: file}

    def remove(self, path: str) -> None:
        with self._change:
            file = self.by_path[path]
            file.count -= 1
            if file.count == 0:
                self.by_path = {name: file for name, file in self.by_path.items() if name != path}

    def abandon_in_child(self) -> None:
        """Watch nothing: the child holds no locks that its opening and closing could drop."""
        # Another thread of the parent may have held the old one.
        self._change = threading.Lock()
        self.by_path = {}


class _ThisThread(threading.local):
    openings_allowed = 0


_watched = _WatchedFiles()
_this_thread = _ThisThread()


def watch(path: str) -> None:
    """Refuse foreign access to the database at ``path``, its log and its index from now on.

    May be called several times for one file, which need not exist yet; the last :func:`unwatch`
    ends it. A forked child watches nothing.
    """
    if _IS_NEEDED:
        _watched.add(os.path.realpath(path))


def unwatch(path: str) -> None:
    """End one :func:`watch` of the file.

    Raises:
        KeyError: it is not watched, in this process.
    """
    if _IS_NEEDED:
        _watched.remove(os.path.realpath(path))


@contextmanager
def allow() -> Generator[None]:
    """Let this thread open watched files inside the ``with`` block.

    For descriptors that stay open until SQLite has closed the file. Not to be held over an
    ``await``.
    """
    _this_thread.openings_allowed += 1
    try:
        yield
    finally:
        _this_thread.openings_allowed -= 1


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    # Called for every import, attribute access by name, socket, and so on: nothing before this.
    if event != "open" and event != "sqlite3.connect":  # noqa: PLR1714 - faster than a set of two
        return
    if not _watched.by_path or _this_thread.openings_allowed:
        return
    target = arguments[0]
    if event == "open":
        # A number is a descriptor that is open already.
        if not isinstance(target, int):
            _refuse_if_watched(target, "opening it")
    else:
        for candidate in _database_paths(target):
            _refuse_if_watched(candidate, "a second SQLite library (sqlite3.connect)")


def _refuse_if_watched(path: object, what: str) -> None:
    # Asking the kernel for the file's identity sees through symbolic links, hard links, relative
    # names and /proc/self/fd, for about the price of one comparison by name.
    identity = _identity(path)
    if identity is None:
        return
    for file in _watched.by_path.values():
        if identity in file.identities():
            raise errors.ForeignAccess(
                f"{os.fspath(path)!r} belongs to the database {file.path}, which is open in this "  # type: ignore[call-overload]
                f"process: {what} here would drop its file locks and lose committed data. To read "
                f"it use orch.sql(...), to copy it orch.backup(path)"
            )


def _identity(path: object) -> FileIdentity | None:
    try:
        status = os.stat(path)  # type: ignore[arg-type]
    except (OSError, TypeError, ValueError):
        # No such file, or nothing that names one: whoever opens it will hear the same.
        return None
    return status.st_dev, status.st_ino


def _database_paths(database: object) -> tuple[object, ...]:
    """The files that ``sqlite3.connect(database)`` may open."""
    try:
        name = os.fsdecode(database)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return ()
    if not name.startswith(_URI_SCHEME):
        return (name,)
    # Whether it is taken as a URI depends on an argument that the event does not tell. Options
    # such as immutable=1 do not matter: they take no locks, and closing drops ours all the same.
    return (name, _path_of_uri(name))


def _path_of_uri(uri: str) -> str:
    from urllib.parse import unquote

    rest = uri[len(_URI_SCHEME) :].partition("#")[0].partition("?")[0]
    if rest.startswith("//"):
        # An authority is empty or "localhost", or SQLite refuses the URI.
        _, slash, path = rest[2:].partition("/")
        rest = slash + path
    return unquote(rest, errors="surrogateescape")
