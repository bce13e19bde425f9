"""Where the values of a database are that do not lie in its rows: in files, or in storages.

A row says so by the format of its data, which names the place in front of how the bytes there are
encoded: ``file json`` with the name of a file for data, or ``storage json`` with a JSON object that
says which storage, which path and which hash. So a row is listed, copied and cached without its
value, and nothing is read that nobody asked for.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec

from embedded_orch.errors import MissingResult, ValueNotStorable

if TYPE_CHECKING:
    from collections.abc import Callable

_FILE = "file "
_STORAGE = "storage "

LARGEST_INSIDE = 262_144
"""Bytes. Up to here a value is written faster as a part of its row, checkpoints included, than as a
file of its own that is synced: 0.57 against 0.88 ms for 128 KB, 1.10 against 1.08 for 256 KB, and
2.2 against 1.4 for 512 KB (medium: a virtual disk with ext4). A row also has every other writer
wait while it is written, and a file nobody."""


def is_outside(data_format: str | None) -> bool:
    """Whether the data of a row only say where the value is."""
    return data_format is not None and data_format.startswith((_FILE, _STORAGE))


def is_file(data_format: str | None) -> bool:
    """Whether they name a file of the database's own folder."""
    return data_format is not None and data_format.startswith(_FILE)


class Folder(Protocol):
    """A folder of files that are named by their content; see ``db/result_folder.py``."""

    def put(self, content: bytes) -> str:
        """Write a value, unless it is there; its name."""
        ...

    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""
        ...

    def read(self, name: str) -> bytes:
        """The value of this name."""
        ...


class WrittenFile:
    """A file that a row is about to name.

    It was written before the row is; should somebody have removed it meanwhile, because no row
    named it yet, it is written once more.
    """

    __slots__ = ("_content", "_folder", "name")

    def __init__(self, folder: Folder, content: bytes) -> None:
        self._folder = folder
        self._content = content
        self.name = folder.put(content)

    def ensure(self) -> None:
        """See to it that it is there, in the transaction that writes the row."""
        if not self._folder.has(self.name):
            self._folder.put(self._content)


class Kept(NamedTuple):
    """A value that was put somewhere.

    Attributes:
        data: what the row says of it.
        data_format: where it is, and how it is encoded there.
        file: the file that the row names, if it names one.
    """

    data: bytes
    data_format: str
    file: WrittenFile | None


class Reference(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a value is in a storage."""

    storage: Any
    """The path of a folder or a URL; of another storage what it is made of, or its class."""
    path: str
    sha256: str
    size: int


class Places:
    """Where one database has values outside of its rows. Any thread may use it.

    Args:
        folder: of its files; None where there is none.
        largest_inside: bytes of the largest value that stays in its row.

    Attributes:
        folder: the same.
        largest_inside: the same; without a folder every value stays in its row.
    """

    def __init__(
        self, folder: Folder | None = None, *, largest_inside: int = LARGEST_INSIDE
    ) -> None:
        self.folder = folder
        self.largest_inside = sys.maxsize if folder is None else largest_inside
        self._storages: dict[bytes, Any] = {}

    def put(
        self, data: bytes, data_format: str, *, storage: Any = None, path: str | None = None
    ) -> Kept:
        """Put an encoded value into a storage, or into a file.

        Args:
            data: the value.
            data_format: how it is encoded.
            storage: the storage; the database's own folder when None.
            path: in the storage; the hash of the value when None.

        Raises:
            ValueNotStorable: it cannot be written there.
        """
        if storage is not None:
            return self._put_into(storage, data, data_format, path)
        assert self.folder is not None, "without a folder no value is too large"
        try:
            file = WrittenFile(self.folder, data)
        except OSError as error:
            raise ValueNotStorable(
                f"the result has {len(data):,} bytes, and cannot be written to a file in "
                f"{self.folder!r}: {error}"
            ) from error
        return Kept(file.name.encode(), f"{_FILE}{data_format}", file)

    def _put_into(self, storage: Any, data: bytes, data_format: str, path: str | None) -> Kept:
        from hashlib import sha256

        digest = sha256(data).hexdigest()
        where = path or digest
        self.remember(storage)
        try:
            write: Callable[..., Any] = getattr(storage, "write_now", None) or storage.write_path
            answer_of(write(where, data))
        except Exception as error:  # the storage may be the user's
            raise ValueNotStorable(
                f"the result cannot be written to {storage!r} as {where!r}: "
                f"{type(error).__name__}: {error}"
            ) from error
        reference = Reference(msgspec.Raw(spec_of(storage)), where, digest, len(data))
        return Kept(msgspec.json.encode(reference), f"{_STORAGE}{data_format}", None)

    def get(self, data: bytes, data_format: str) -> tuple[bytes, str]:
        """A value that is outside: its bytes, and how they are encoded.

        Raises:
            MissingResult: it is not there any more, or is not what was written.
        """
        place, _, inner = data_format.partition(" ")
        if f"{place} " == _STORAGE:
            return self._get_from_storage(data), inner
        if self.folder is None:
            raise MissingResult("the result is in a file, and this database has no folder of files")
        return self.folder.read(data.decode(errors="replace")), inner

    def _get_from_storage(self, data: bytes) -> bytes:
        from hashlib import sha256

        try:
            reference = msgspec.json.decode(data, type=Reference)
        except msgspec.DecodeError as error:
            raise MissingResult(f"it cannot be told where the result is: {error}") from error
        storage = self._storage_of(reference)
        try:
            read: Callable[..., Any] = getattr(storage, "read_now", None) or storage.read_path
            content = bytes(answer_of(read(reference.path)))
        except Exception as error:  # the storage may be the user's
            raise MissingResult(
                f"the result cannot be read from {storage!r} at {reference.path!r}: "
                f"{type(error).__name__}: {error}"
            ) from error
        if sha256(content).hexdigest() != reference.sha256:
            raise MissingResult(
                f"what {storage!r} has at {reference.path!r} is another value, or damaged: a later "
                f"run may have replaced it"
            )
        return content

    def remember(self, storage: Any) -> None:
        """Read by this storage what was written to one like it."""
        self._storages[spec_of(storage)] = storage

    def _storage_of(self, reference: Reference) -> Any:
        from embedded_orch.filesystems import storage_from
        from embedded_orch.values.codec import decode

        spec = reference.storage
        known = self._storages.get(msgspec.json.encode(spec))
        if known is not None:
            return known
        try:
            if isinstance(spec, str):
                return storage_from(spec)
            if "object" in spec:
                return storage_from(decode(msgspec.json.encode(spec["object"])))
            name = str(spec["class"])
        except MissingResult:
            raise
        except Exception as error:
            raise MissingResult(f"the storage of the result cannot be had: {error}") from error
        raise MissingResult(
            f"the result is in a storage of the class {name}, which is not at hand here: use one "
            f"in this process first, or make the class a dataclass, so that it can be stored"
        )


NOWHERE = Places()
"""Of a database whose values are all in its rows."""


def described(data: bytes, data_format: str) -> str:
    """Where a value is that is outside, for people; nothing of it is read."""
    inner = data_format.partition(" ")[2]
    if is_file(data_format):
        return f"in the file {data.decode(errors='replace')}, written by {inner}"
    try:
        found = msgspec.json.decode(data, type=Reference)
    except msgspec.DecodeError:
        return f"in a storage, written by {inner}"
    place = found.storage if isinstance(found.storage, str) else "a storage of its own"
    return f"{found.size:,} bytes in {place} at {found.path}, written by {inner}"


def row_key(storage: Any, path: str) -> str:
    """The cache key of a path in a storage: other storages may have the same path."""
    return path if storage is None else f"{spec_of(storage).decode()}/{path}"


def spec_of(storage: Any) -> bytes:
    """What is stored of a storage, as JSON, so that another process finds it.

    The path or the URL of those of ours, and never the settings of one; another object if it can be
    stored as a value; else its class, by which it is found where one of it has been used.
    """
    from embedded_orch.filesystems import LocalFileSystem, RemoteFileSystem
    from embedded_orch.values.classes import qualified_name
    from embedded_orch.values.codec import encode

    if type(storage) is LocalFileSystem:
        return msgspec.json.encode(storage.folder)
    if type(storage) is RemoteFileSystem:
        return msgspec.json.encode(storage.basepath)
    try:
        return b'{"object":%b}' % encode(storage, name="result_storage")
    except ValueNotStorable:
        return msgspec.json.encode({"class": qualified_name(type(storage))})


def answer_of(made: Any) -> Any:
    """What a method of a storage gives, also when it is ``async def``."""
    if not hasattr(made, "__await__"):
        return made
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    async def awaited() -> Any:
        return await made

    # In a thread of its own: a loop may run in this one.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, awaited()).result()
