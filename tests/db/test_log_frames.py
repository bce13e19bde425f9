"""A log is read as SQLite's recovery reads it, which is asked for the same log each time."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedded_orch.db.sqlite.log_frames import (
    FRAME_HEADER_BYTES,
    HEADER_BYTES,
    has_commit_after,
)

FRAME_BYTES = FRAME_HEADER_BYTES + 4096


class Log:
    """A file with a log of commits, some behind a turn of it, so that older ones follow them.

    Attributes:
        ends: how many frames there are after each commit of this turn.
    """

    def __init__(self, folder: Path, *, before: list[int], now: list[int]) -> None:
        self._path = folder / "real.db"
        self.log = folder / "real.db-wal"
        self.ends: list[int] = []
        self._connection = apsw.Connection(str(self._path))
        self._connection.execute("PRAGMA journal_mode = wal; PRAGMA wal_autocheckpoint = 0")
        self._connection.set_wal_hook(self._after_commit)
        self._connection.execute("create table written (bytes blob)")
        for size in before:
            self.commit(size)
        self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
        self.ends.clear()
        for size in now:
            self.commit(size)

    def _after_commit(self, connection: apsw.Connection, name: str, pages: int) -> int:
        self.ends.append(pages)
        return apsw.SQLITE_OK

    def commit(self, size: int) -> None:
        self._connection.execute("insert into written values (randomblob(?))", (size,))

    def recovered(self, folder: Path) -> int:
        """How many frames SQLite finds in the log as it is now."""
        for name in ("real.db", "real.db-wal"):
            shutil.copy(self._path.with_name(name), folder)
        connection = apsw.Connection(str(folder / "real.db"))
        try:
            connection.execute("select count(*) from sqlite_schema").fetchall()
            frames, _ = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
        finally:
            connection.close()
        return frames

    def has_commit_after(self, frames: int) -> bool:
        with self.log.open("rb") as log:
            return has_commit_after(log, frames)

    def close(self) -> None:
        self._connection.close()


SIZES = st.lists(st.integers(min_value=1, max_value=20_000), min_size=1, max_size=4)


@given(before=SIZES, now=SIZES, data=st.data())
def test_a_commit_is_found_when_recovery_finds_it(
    before: list[int], now: list[int], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log = Log(folder, before=before, now=now)
        known = data.draw(st.sampled_from([0, *log.ends]))
        first = HEADER_BYTES + known * FRAME_BYTES
        content = bytearray(log.log.read_bytes())
        match data.draw(st.sampled_from(["whole", "cut", "changed"])):
            case "cut":
                del content[data.draw(st.integers(first, len(content))) :]
            case "changed" if first < len(content):
                content[data.draw(st.integers(first, len(content) - 1))] ^= 1
        log.log.write_bytes(content)

        (folder / "copy").mkdir()
        recovered = log.recovered(folder / "copy")
        assert log.has_commit_after(known) == (recovered > known)
        log.close()


def test_frames_of_a_commit_without_its_end_are_none(tmp_path: Path) -> None:
    log = Log(tmp_path, before=[100], now=[100, 20_000])
    known, end = log.ends
    with log.log.open("r+b") as file:
        file.truncate(HEADER_BYTES + (end - 1) * FRAME_BYTES)

    assert end - known > 1
    assert not log.has_commit_after(known)
    log.close()


@pytest.mark.parametrize("content", [b"", b"short"])
def test_a_log_without_a_header_holds_none(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "real.db-wal"
    path.write_bytes(content)
    with path.open("rb") as log:
        assert not has_commit_after(log, 0)
