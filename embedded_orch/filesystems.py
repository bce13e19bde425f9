"""Where results can be kept outside of the database: folders, and whatever fsspec reaches.

A storage is anything with Prefect's ``read_path(path)`` and ``write_path(path, content)``; they may
be ``async def``. The two here are :class:`LocalFileSystem` and :class:`RemoteFileSystem`. In
asynchronous code their methods are awaited, as with Prefect, and ``aread_path`` and ``awrite_path``
are wherever they are called.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from embedded_orch.errors import ConfigurationError, MissingExtra

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "LocalFileSystem",
    "NullFileSystem",
    "ReadableFileSystem",
    "RemoteFileSystem",
    "WritableFileSystem",
]

_LONGEST_PATH = 1024


class ReadableFileSystem(ABC):
    """A storage that is read."""

    @abstractmethod
    def read_path(self, path: str) -> Any:
        """The bytes at a path."""


class WritableFileSystem(ReadableFileSystem):
    """A storage that is read and written."""

    @abstractmethod
    def write_path(self, path: str, content: bytes) -> Any:
        """Put bytes at a path; they take the place of what is there."""


class _Storage(WritableFileSystem):
    """A storage whose methods are awaited in asynchronous code, and wait in all other."""

    @abstractmethod
    def read_now(self, path: str) -> bytes:
        """:meth:`read_path`, never awaited whatever the code around."""

    @abstractmethod
    def write_now(self, path: str, content: bytes) -> str:
        """:meth:`write_path`, never awaited whatever the code around."""

    def read_path(self, path: str) -> Any:
        """The bytes at a path; in asynchronous code to be awaited.

        Args:
            path: below the base path.

        Raises:
            ValueError: there is no such file, or it would lie outside of the base path.
        """
        return self.aread_path(path) if _awaits() else self.read_now(path)

    def write_path(self, path: str, content: bytes) -> Any:
        """Put bytes at a path, and say where they are; in asynchronous code to be awaited.

        Args:
            path: below the base path; folders are made as they are needed.
            content: takes the place of what is there, as a whole.

        Raises:
            ValueError: it would lie outside of the base path.
        """
        return self.awrite_path(path, content) if _awaits() else self.write_now(path, content)

    async def aread_path(self, path: str) -> bytes:
        """:meth:`read_path`, awaited whatever the code around."""
        import anyio.to_thread

        return await anyio.to_thread.run_sync(self.read_now, path)

    async def awrite_path(self, path: str, content: bytes) -> str:
        """:meth:`write_path`, awaited whatever the code around."""
        import anyio.to_thread

        return await anyio.to_thread.run_sync(self.write_now, path, content)


class LocalFileSystem(_Storage):
    """Files in a folder.

    Args:
        basepath: the folder, made when it is written to; the current one when not given.
    """

    def __init__(self, basepath: str | os.PathLike[str] | None = None) -> None:
        given: Any = basepath
        if given is not None and not isinstance(given, str | os.PathLike):
            raise ConfigurationError(f"basepath={basepath!r}: it is the path of a folder")
        self.basepath = None if basepath is None else os.fspath(basepath)

    @property
    def folder(self) -> str:
        """The absolute path of the folder."""
        return os.path.realpath(os.path.expanduser(self.basepath or "."))

    def read_now(self, path: str) -> bytes:
        """:meth:`read_path`, never awaited whatever the code around."""
        found = self._resolve_path(path)
        if not os.path.isfile(found):
            what = "is not a file" if os.path.exists(found) else "does not exist"
            raise ValueError(f"Path {found} {what}.")
        with open(found, "rb") as file:
            return file.read()

    def write_now(self, path: str, content: bytes) -> str:
        """:meth:`write_path`, never awaited whatever the code around.

        The file is on the disk, whole and under its name, when this returns.
        """
        from embedded_orch.values.files import make_folder, write_whole

        target = self._resolve_path(path)
        if os.path.isdir(target):
            raise ValueError(f"Path {target} already exists and is not a file.")
        make_folder(os.path.dirname(target), is_synced=True)
        write_whole(target, content, is_synced=True, is_private=False)
        return target

    def _resolve_path(self, path: str) -> str:
        """The absolute path of a file below the folder, symbolic links followed."""
        folder = self.folder
        found = os.path.realpath(os.path.join(folder, os.path.expanduser(path)))
        if os.path.commonpath([folder, found]) != folder:
            raise ValueError(f"Provided path {found} is outside of the base path {folder}.")
        return found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LocalFileSystem) and other.folder == self.folder

    def __hash__(self) -> int:
        return hash(self.folder)

    def __repr__(self) -> str:
        return f"LocalFileSystem(basepath={self.basepath!r})"


class RemoteFileSystem(_Storage):
    """Files wherever fsspec reaches: S3, GCS, Azure, SFTP and others, by their packages.

    Args:
        basepath: a URL of fsspec's, such as ``s3://bucket/folder``.
        settings: for the file system, such as credentials. They are not stored with what is
            written there, and not shown.
    """

    def __init__(self, basepath: str, settings: Mapping[str, Any] | None = None) -> None:
        given: Any = basepath
        scheme, mark, rest = given.partition("://") if isinstance(given, str) else ("", "", "")
        if not (scheme and mark and rest):
            raise ConfigurationError(
                f"Base path must start with a scheme and name a location, such as "
                f"s3://bucket/folder. Got {basepath!r}."
            )
        if scheme == "file":
            raise ConfigurationError(
                "Base path scheme cannot be 'file'. Use `LocalFileSystem` instead for local file "
                "access."
            )
        self.basepath = basepath
        self.settings = dict(settings or {})
        self._opened: tuple[Any, str] | None = None

    @property
    def filesystem(self) -> Any:
        """The file system of fsspec.

        Raises:
            MissingExtra: fsspec, or its package for this kind of URL, is not installed.
        """
        return self._open()[0]

    def read_now(self, path: str) -> bytes:
        """:meth:`read_path`, never awaited whatever the code around."""
        found: bytes = self.filesystem.cat_file(self._resolve_path(path))
        return found

    def write_now(self, path: str, content: bytes) -> str:
        """:meth:`write_path`, never awaited whatever the code around."""
        target = self._resolve_path(path)
        self.filesystem.makedirs(target.rpartition("/")[0], exist_ok=True)
        self.filesystem.pipe_file(target, content)
        return f"{self.basepath.rstrip('/')}/{self._below(path)}"

    def _resolve_path(self, path: str) -> str:
        return f"{self._open()[1].rstrip('/')}/{self._below(path)}"

    def _below(self, path: str) -> str:
        """A path below the base path, which may be given with that in front of it."""
        below = path.removeprefix(f"{self.basepath.rstrip('/')}/")
        if "://" in below or ".." in below.split("/"):
            raise ValueError(f"Path {path!r} is outside of the base path {self.basepath!r}.")
        return below.lstrip("/")

    def _open(self) -> tuple[Any, str]:
        if self._opened is None:
            try:
                from importlib import import_module

                url_to_fs = import_module("fsspec.core").url_to_fs
            except ImportError as error:
                raise MissingExtra(
                    f"{self.basepath} is reached by fsspec, which is not installed; install "
                    f"embedded_orch[storage]"
                ) from error
            try:
                opened: tuple[Any, str] = url_to_fs(self.basepath, **self.settings)
            except ImportError as error:
                raise MissingExtra(
                    f"fsspec needs another package for {self.basepath}: {error}"
                ) from error
            except ValueError as error:
                raise ConfigurationError(
                    f"{self.basepath} is no URL that fsspec knows: {error}"
                ) from error
            self._opened = opened
            return opened
        return self._opened

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, RemoteFileSystem)
            and other.basepath == self.basepath
            and other.settings == self.settings
        )

    def __hash__(self) -> int:
        return hash(self.basepath)

    def __repr__(self) -> str:
        settings = ", settings=..." if self.settings else ""
        return f"RemoteFileSystem(basepath={self.basepath!r}{settings})"


class NullFileSystem(_Storage):
    """Nothing is kept; for results that are stored by name only."""

    def read_now(self, path: str) -> bytes:
        """:meth:`read_path`, never awaited whatever the code around: no bytes."""
        return b""

    def write_now(self, path: str, content: bytes) -> str:
        """:meth:`write_path`, never awaited whatever the code around: nothing."""
        return path


def storage_from(given: object) -> Any:
    """A storage by itself, by the path of a folder, or by a URL of fsspec's.

    Args:
        given: what ``result_storage=`` or ``key_storage=`` was given.

    Raises:
        ConfigurationError: it is nothing of these.
        MissingExtra: fsspec is not installed.
    """
    if isinstance(given, str | os.PathLike):
        return _storage_at(os.fspath(given))
    methods = [getattr(given, name, None) for name in ("read_path", "write_path")]
    if isinstance(given, type) or not all(callable(method) for method in methods):
        raise ConfigurationError(
            f"{given!r} is no storage: give the path of a folder, a URL of fsspec's, or an object "
            f"with read_path(path) and write_path(path, content)"
        )
    if isinstance(given, RemoteFileSystem):
        # What is missing is said now, and not in the third hour.
        _ = given.filesystem
    return given


def check_path(path: str, *, what: str) -> str:
    """The same path, once it is known to lead nowhere but below the base of a storage.

    Raises:
        ConfigurationError: it is empty, too long, absolute, or leads upwards.
    """
    parts = path.replace("\\", "/").split("/")
    problem = None
    if not path or not path.isprintable() or len(path.encode()) > _LONGEST_PATH:
        problem = f"it has 1 to {_LONGEST_PATH} bytes, and can be printed"
    elif ".." in parts or "." in parts or "" in parts:
        problem = "it lies below the storage, and has no '..' and no empty part"
    elif "://" in path or parts[0].startswith("~") or parts[0].endswith(":"):
        problem = "it is relative to the storage"
    if problem is not None:
        raise ConfigurationError(f"{what} {path!r} cannot be used as a path: {problem}")
    return path


# "type/name" is how Prefect names a saved block, and a relative path at the same time.
_BLOCK_TYPES = frozenset(
    {
        "azure-blob-storage-container",
        "gcs-bucket",
        "local-file-system",
        "remote-file-system",
        "s3-bucket",
        "smb",
    }
)


def _storage_at(place: str) -> LocalFileSystem | RemoteFileSystem:
    if not place.strip():
        raise ConfigurationError(f"{place!r} is no storage: name a folder, or a URL of fsspec's")
    kind, _, name = place.partition("/")
    if kind in _BLOCK_TYPES and name and "/" not in name:
        raise ConfigurationError(
            f"{place!r} names a block, and blocks are not kept yet; give the storage itself, such "
            f"as LocalFileSystem(basepath=...). A folder of that name is './{place}'"
        )
    if place.startswith("file://"):
        place = place.removeprefix("file://").removeprefix("localhost")
    if "://" in place:
        remote = RemoteFileSystem(place)
        _ = remote.filesystem
        return remote
    try:
        place.encode()
    except UnicodeEncodeError as error:
        raise ConfigurationError(f"{place!r} cannot be written as UTF-8") from error
    return LocalFileSystem(place)


def _awaits() -> bool:
    from embedded_orch.states.state import awaits

    return awaits()
