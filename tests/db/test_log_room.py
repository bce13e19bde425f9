"""Where commits are synced, the log is made longer for many of them at once."""

from __future__ import annotations

import os
from pathlib import Path

import apsw
import pytest

import embedded_orch
from embedded_orch import task
from embedded_orch.db.sqlite.log_frames import FRAME_HEADER_BYTES, HEADER_BYTES
from embedded_orch.db.sqlite.log_room import LogRoom
from embedded_orch.db.sqlite.presence import Presence
from tests.programs import copy_with_log

FRAME_BYTES = FRAME_HEADER_BYTES + 4096
ROOM_BYTES = 64 * FRAME_BYTES


@task
def step(number: int) -> int:
    return number


def log_of(path: Path) -> Path:
    return Path(f"{path}-wal")


def sizes_after_tasks(path: Path, durability: str) -> list[int]:
    sizes = []
    with embedded_orch.open(path, durability=durability):
        for number in range(10):
            step(number)
            sizes.append(log_of(path).stat().st_size)
    return sizes


def test_a_synced_commit_seldom_makes_the_log_longer(tmp_path: Path) -> None:
    assert len(set(sizes_after_tasks(tmp_path / "orch.db", "full"))) <= 3


@pytest.mark.parametrize("durability", ["normal", "off"])
def test_a_commit_that_is_not_synced_makes_its_log_longer_itself(
    durability: str, tmp_path: Path
) -> None:
    assert len(set(sizes_after_tasks(tmp_path / "orch.db", durability))) == 10


def test_what_was_committed_is_there_after_a_crash_that_leaves_room_behind_it(
    tmp_path: Path,
) -> None:
    path, copy = tmp_path / "orch.db", tmp_path / "copy.db"
    with embedded_orch.open(path, durability="full"):
        step(1)
        copy_with_log(path, copy)

    assert log_of(copy).read_bytes().endswith(bytes(ROOM_BYTES // 2))
    with embedded_orch.open(copy) as orch:
        assert orch.task_runs.count(state_type="COMPLETED") == 1
        assert orch.check() == []


class ALog:
    """A database in a folder, with a log that holds some frames, and its room."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "real.db"
        self.connection = apsw.Connection(str(self.path))
        self.connection.execute("PRAGMA journal_mode = wal")
        self.connection.execute("create table written (number int)")
        self.frames, _ = self.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
        self.presence = Presence(str(self.path), has_log=True)
        self.room = LogRoom(str(self.path), 4096, self.presence)

    @property
    def size(self) -> int:
        return log_of(self.path).stat().st_size


@pytest.fixture
def a_log(tmp_path: Path) -> ALog:
    return ALog(tmp_path)


def test_room_is_made_once_for_many_frames(a_log: ALog) -> None:
    a_log.room.have_behind(a_log.frames)
    size = a_log.size
    a_log.room.have_behind(a_log.frames + 30)

    assert size == HEADER_BYTES + a_log.frames * FRAME_BYTES + ROOM_BYTES
    assert a_log.size == size


def test_room_is_made_again_in_a_log_that_was_cut(a_log: ALog) -> None:
    a_log.room.have_behind(a_log.frames)
    a_log.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    a_log.room.have_behind(0)

    assert a_log.size == ROOM_BYTES
    a_log.connection.execute("insert into written values (1)")
    assert a_log.connection.execute("select number from written").get == 1


def test_nothing_is_written_into_another_log_of_the_same_name(a_log: ALog) -> None:
    other = a_log.path.with_name("other-wal")
    other.write_bytes(b"another's")
    os.replace(other, log_of(a_log.path))
    a_log.room.have_behind(a_log.frames)

    assert log_of(a_log.path).read_bytes() == b"another's"


def test_where_no_room_can_be_made_the_commit_is_told_nothing_of_it(a_log: ALog) -> None:
    log_of(a_log.path).unlink()
    a_log.room.have_behind(a_log.frames)

    assert not log_of(a_log.path).exists()
