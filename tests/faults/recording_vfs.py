"""A VFS that writes down every change SQLite makes to its files, and a disk rebuilt from that.

Three things that hand on to each other:

- ``RecordingVFS`` sits between SQLite and the operating system's VFS. Each write, truncation, sync,
  creation and deletion of the database, its ``-wal`` and its ``-journal`` is done and put into the
  log as one step under one lock, so the log's order is the order in which the files changed,
  whatever number of connections and threads there are. Reads, locks and the shared memory of the
  WAL index go straight to the base VFS (apsw hands ``xShm*`` on in C), so WAL mode works as usual.
- ``Log`` is that record. The test puts its own marks between the entries: an operation has begun,
  an operation was acknowledged.
- ``Disk`` plays a log back, entry by entry, and knows at each point what the disk is sure to hold
  and what the operating system had taken but not yet made durable. From the second part it draws
  the states that a power cut may leave behind.

The model of the disk, from SQLite's "Atomic Commit" sections 2 and 3 and made stricter where that
costs nothing:

- What a file was told before its last sync is durable. SQLite trusts fsync, and so does the model:
  a disk that lies about it is out of reach of any database.
- Of the writes and truncations after it each may be done or not, in any order, and a write may be
  torn: of its 512 or 4,096 byte blocks (counted from the start of the file) some arrive. Bytes
  beside a write do not change (SQLite's "powersafe overwrite", on by default since 3.7.9).
- Where a file grew and the bytes in between never arrived, there are zeros or left-over junk.
- A name is durable once the directory was synced: by the first sync of a new ``-wal`` or
  ``-journal`` handle, and by a deletion that asks for it, as SQLite's unix VFS does. Until then
  any earlier state of that name may come back: no file, an older one, a deleted journal.
- ``-shm`` is never written to disk on purpose and is lost.

Out of the model: bits that rot, sectors that fail to read, a disk that reorders across a sync.
"""

from __future__ import annotations

import os
import threading
from itertools import pairwise
from random import Random

import apsw
import msgspec

SECTOR_BYTES = 512
PAGE_BYTES = 4096

_RECORDED_ROLES = apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_WAL
_DIRECTORY_SYNCING_ROLES = apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_WAL


class Create(msgspec.Struct, frozen=True):
    """A name that stood for nothing now stands for an empty file."""

    name: str
    file: int


class Write(msgspec.Struct, frozen=True):
    """Bytes put into a file."""

    file: int
    offset: int
    data: bytes


class Truncate(msgspec.Struct, frozen=True):
    """A file cut to a size in bytes."""

    file: int
    size: int


class Sync(msgspec.Struct, frozen=True):
    """All that a file was told so far is durable; with ``directory``, all names are, too."""

    file: int
    directory: bool


class Delete(msgspec.Struct, frozen=True):
    """A name taken away; with ``directory``, durably."""

    name: str
    directory: bool


class Mark(msgspec.Struct, frozen=True):
    """What the test said at this point: one of the two is an operation's number."""

    begun: int | None
    acknowledged: int | None


Entry = Create | Write | Truncate | Sync | Delete | Mark


class Log:
    """What happened to a database's files, in order, with the test's marks. Safe for threads.

    Files are numbered in the order in which they came to be, because a name may stand for several
    files one after the other. ``initial`` holds what was on disk, durably, before the record began,
    and ``held_at_start`` the numbers of the operations in it.
    """

    def __init__(self, held_at_start: frozenset[int] = frozenset()) -> None:
        self.held_at_start = held_at_start
        self.lock = threading.RLock()
        self.entries: list[Entry] = []
        self.initial: dict[str, bytes] = {}
        self._file_of: dict[str, int] = {}
        self._next_file = 0

    def mark(self, *, begun: int | None = None, acknowledged: int | None = None) -> None:
        """Say that an operation starts now, or that its caller has been told it is done.

        Put ``begun`` before the operation can write anything and ``acknowledged`` after the commit
        returned: an operation that was acknowledged before another began is the earlier one, and
        only about such pairs does the verdict claim an order.
        """
        if (begun is None) == (acknowledged is None):
            raise ValueError("a mark is either begun= or acknowledged=")
        with self.lock:
            self.entries.append(Mark(begun, acknowledged))

    def start_with(self, files: dict[str, bytes]) -> None:
        """Take these files, by name, as durable before the first entry."""
        with self.lock:
            if self.entries or self._file_of:
                raise ValueError("the record has begun")
            self.initial = dict(files)
            for name in files:
                self._number(name)

    def knows(self, name: str) -> bool:
        """Whether the name stands for a file of which the log has the whole story."""
        with self.lock:
            return name in self._file_of

    def opened(self, name: str, *, created: bool) -> int:
        """The number of the file behind a name, and an entry if it was just created."""
        with self.lock:
            if not created:
                if name not in self._file_of:
                    raise ValueError(f"{name} was made by someone whom the log does not see")
                return self._file_of[name]
            file = self._number(name)
            self.entries.append(Create(name, file))
            return file

    def deleted(self, name: str, *, directory: bool) -> None:
        """Note that a name is gone."""
        with self.lock:
            self._file_of.pop(name, None)
            self.entries.append(Delete(name, directory))

    def _number(self, name: str) -> int:
        file = self._next_file
        self._next_file += 1
        self._file_of[name] = file
        return file

    def __repr__(self) -> str:
        return f"<Log of {len(self.entries)} entries>"


class RecordingVFS(apsw.VFS):
    """The default VFS with a log. Made before the first connection, unregistered by the test.

    Only the database at ``path`` and its two companions are recorded; temporary files, which
    nobody needs after a crash, are not. A sync is entered in the log and not passed on: the disk
    that matters is the one rebuilt from the log, and a thousand real syncs would only take time.
    """

    def __init__(self, name: str, path: str, log: Log) -> None:
        self.vfs_name = name
        self._folder, database = os.path.split(os.path.realpath(path))
        self._names = {database + suffix for suffix in ("", "-wal", "-journal")}
        self._log = log
        log.start_with(_read_files(self._folder, self._names))
        super().__init__(name, "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        asked = flags[0]
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        if path is None or not asked & _RECORDED_ROLES or not self._is_recorded(path):
            return apsw.VFSFile("", name, flags)
        with self._log.lock:
            # Whoever makes the database empty, with rights of its own, leaves the name to the
            # first sync of a log beside it, as if SQLite had made it.
            held_something = os.path.exists(path) and os.path.getsize(path) > 0
            file = RecordingFile(name, flags, self._log)
            base = os.path.basename(path)
            is_new = not held_something and not self._log.knows(base)
            file.number = self._log.opened(base, created=is_new)
        wants_creation = bool(asked & apsw.SQLITE_OPEN_CREATE)
        file.owes_directory_sync = wants_creation and bool(asked & _DIRECTORY_SYNCING_ROLES)
        return file

    def xDelete(self, filename: str, syncdir: bool) -> None:
        with self._log.lock:
            super().xDelete(filename, syncdir)
            if self._is_recorded(filename):
                self._log.deleted(os.path.basename(filename), directory=syncdir)

    def _is_recorded(self, path: str) -> bool:
        folder, base = os.path.split(path)
        return base in self._names and os.path.realpath(folder) == self._folder


class RecordingFile(apsw.VFSFile):
    """One open handle of a recorded file."""

    def __init__(self, name: str | apsw.URIFilename | None, flags: list[int], log: Log) -> None:
        super().__init__("", name, flags)
        self._log = log
        self.number = -1
        self.owes_directory_sync = False

    def xWrite(self, data: bytes, offset: int) -> None:
        with self._log.lock:
            super().xWrite(data, offset)
            self._log.entries.append(Write(self.number, offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:
        with self._log.lock:
            super().xTruncate(newsize)
            self._log.entries.append(Truncate(self.number, newsize))

    def xSync(self, flags: int) -> None:
        with self._log.lock:
            self._log.entries.append(Sync(self.number, self.owes_directory_sync))
            self.owes_directory_sync = False


def _read_files(folder: str, names: set[str]) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for name in sorted(names):
        path = os.path.join(folder, name)
        if os.path.exists(path):
            with open(path, "rb") as file:
                files[name] = file.read()
    return files


class Disk:
    """A disk under a log that is played back: what is durable, and what is still on its way."""

    def __init__(self, log: Log) -> None:
        self._names: dict[str, int | None] = {}
        self._content: dict[int, bytearray] = {}
        self._pending_names: dict[str, list[int | None]] = {}
        self._pending: dict[int, list[Write | Truncate]] = {}
        for file, (name, content) in enumerate(log.initial.items()):
            self._names[name] = file
            self._content[file] = bytearray(content)

    def play(self, entry: Entry) -> None:
        """Take in the next entry of the log."""
        match entry:
            case Write() | Truncate():
                self._pending.setdefault(entry.file, []).append(entry)
            case Sync():
                self._settle_file(entry.file)
                if entry.directory:
                    self._settle_names()
            case Create():
                self._content.setdefault(entry.file, bytearray())
                self._pending_names.setdefault(entry.name, []).append(entry.file)
            case Delete():
                self._pending_names.setdefault(entry.name, []).append(None)
                if entry.directory:
                    self._settle_names()
            case Mark():
                return

    def settle(self) -> None:
        """Make everything durable: what becomes of it when only the process dies."""
        for file in list(self._pending):
            self._settle_file(file)
        self._settle_names()

    def files(self) -> dict[str, bytes]:
        """The durable files, by name."""
        return {
            name: bytes(self._content[file])
            for name, file in self._names.items()
            if file is not None
        }

    def files_with_part_of(self, write: Write) -> dict[str, bytes] | None:
        """The files if the process died inside a write, or None where that cannot show.

        The kernel copies into its cache page by page, and a killed process may leave the call
        between two of them: the bytes up to the first page boundary are there, the rest is not.
        """
        head = PAGE_BYTES - write.offset % PAGE_BYTES
        if head >= len(write.data):
            return None
        part = bytearray(self._content[write.file])
        _put(part, write.offset, write.data[:head], None)
        return {
            name: bytes(part if file == write.file else self._content[file])
            for name, file in self._names.items()
            if file is not None
        }

    def files_after_power_cut(self, random: Random) -> dict[str, bytes]:
        """Files, by name, that may be found when the power comes back; chosen by ``random``."""
        names = dict(self._names)
        for name, history in self._pending_names.items():
            names[name] = random.choice([names.get(name), *history])
        return {
            name: bytes(self._content_after_power_cut(file, random))
            for name, file in names.items()
            if file is not None
        }

    def _content_after_power_cut(self, file: int, random: Random) -> bytearray:
        content = bytearray(self._content[file])
        pending = self._pending.get(file, [])
        junk = random if random.random() < 0.5 else None
        for change in _surviving(pending, random):
            if isinstance(change, Truncate):
                _cut(content, change.size)
            else:
                _put(content, change.offset, change.data, junk)
        return content

    def _settle_file(self, file: int) -> None:
        content = self._content[file]
        for change in self._pending.pop(file, []):
            if isinstance(change, Truncate):
                _cut(content, change.size)
            else:
                _put(content, change.offset, change.data, None)

    def _settle_names(self) -> None:
        for name, history in self._pending_names.items():
            self._names[name] = history[-1]
        self._pending_names.clear()


def _surviving(pending: list[Write | Truncate], random: Random) -> list[Write | Truncate]:
    """The changes that reached the disk, in the order in which they did.

    Chance decides for the file as a whole how the cut looks (how much is lost, whether the order
    is kept, how blocks are torn), and then for each change: drawing each alone would make nearly
    every state the same even mixture, and never one where all is there but a single block.
    """
    order = random.choice(("first ones", "some", "some, in any order"))
    if order == "first ones":
        pending = pending[: random.randint(0, len(pending))]
        kept_share = 1.0
    else:
        kept_share = random.choice((0.0, 0.1, 0.5, 0.9, 0.99))
    block_bytes = random.choice((None, SECTOR_BYTES, PAGE_BYTES))
    torn_share = 0.0 if block_bytes is None else random.choice((0.02, 0.2, 0.5))

    survivors: list[Write | Truncate] = []
    for change in pending:
        if block_bytes and isinstance(change, Write) and random.random() < torn_share:
            blocks = _blocks(change, block_bytes)
            survivors.extend(random.sample(blocks, random.randint(0, len(blocks))))
        elif random.random() < kept_share:
            survivors.append(change)
    if order == "some, in any order":
        random.shuffle(survivors)
    return survivors


def _blocks(write: Write, block_bytes: int) -> list[Write]:
    """A write cut at each multiple of ``block_bytes`` in the file."""
    end = write.offset + len(write.data)
    first = (write.offset // block_bytes + 1) * block_bytes
    edges = [write.offset, *range(first, end, block_bytes), end]
    return [
        Write(write.file, low, write.data[low - write.offset : high - write.offset])
        for low, high in pairwise(edges)
    ]


def _put(content: bytearray, offset: int, data: bytes, junk: Random | None) -> None:
    gap = offset - len(content)
    if gap > 0:
        content.extend(junk.randbytes(gap) if junk else bytes(gap))
    content[offset : offset + len(data)] = data


def _cut(content: bytearray, size: int) -> None:
    if size < len(content):
        del content[size:]
    else:
        content.extend(bytes(size - len(content)))
