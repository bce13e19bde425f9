"""The line before the lock between processes: nobody passes for long who has waited longest.

Descriptors of one process, each opened by itself, are strangers to the lock like processes.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from embedded_orch.db.file_locks import lock_file, open_lock_file, unlock_file
from embedded_orch.db.sqlite.guard import FileGuard
from embedded_orch.db.sqlite.waiting_line import PlaceInLine, lock_file_in_turn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no line on Windows")

_MICROSECOND, _MILLISECOND = 1_000, 1_000_000


class Street:
    """A lock that one has, others who want it, and the clock of all."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.now = 10**15
        self._opened: list[int] = []
        self.holder = self.open()
        lock_file(self.holder)

    def open(self) -> int:
        descriptor = open_lock_file(self.path, beside=self.path)
        self._opened.append(descriptor)
        return descriptor

    def one_who_waits(self, *, patience: float = 60) -> PlaceInLine:
        """One who was refused just now, a microsecond after whoever was before."""
        self.now += _MICROSECOND
        descriptor = self.open()
        place = PlaceInLine(lambda: descriptor, patience=patience)
        assert not is_taken(place.attempt)
        return place

    def release(self) -> None:
        unlock_file(self.holder)

    def comes_and_takes_it(self) -> bool:
        """Whether one who has not waited takes the lock, and gives it back."""
        descriptor = self.open()
        if not is_taken(lambda: lock_file_in_turn(descriptor)):
            return False
        unlock_file(descriptor)
        return True

    def close(self) -> None:
        for descriptor in self._opened:
            os.close(descriptor)


@pytest.fixture
def street(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Street]:
    street = Street(str(tmp_path / "test.db-lock"))
    monkeypatch.setattr(
        "embedded_orch.db.sqlite.waiting_line.time.monotonic_ns", lambda: street.now
    )
    yield street
    street.close()


def is_taken(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except BlockingIOError:
        return False
    return True


def test_who_waits_may_be_passed_for_a_moment(street: Street) -> None:
    street.one_who_waits()
    street.release()

    assert street.comes_and_takes_it()


def test_who_has_waited_for_longer_is_not_passed(street: Street) -> None:
    """Seen to fail without the line: whoever comes takes it."""
    waiting, later = street.one_who_waits(), street.one_who_waits()
    street.now += 6 * _MILLISECOND
    assert not is_taken(waiting.attempt)
    street.release()

    assert not street.comes_and_takes_it()
    assert not is_taken(later.attempt)
    assert is_taken(waiting.attempt)


def test_who_has_waited_longest_is_the_next_one(street: Street) -> None:
    """Seen to fail when an entry of one who came later stays: it is served before."""
    first, second = street.one_who_waits(), street.one_who_waits()
    first.leave()
    # Finds nobody in the line, and the second one looks after that.
    third = street.one_who_waits()
    street.now += 6 * _MILLISECOND
    assert not is_taken(third.attempt)
    assert not is_taken(second.attempt)
    street.release()

    assert not is_taken(third.attempt)
    assert is_taken(second.attempt)


def test_who_has_the_lock_is_out_of_the_line(street: Street) -> None:
    """Seen to fail without leave(): nobody takes the lock for some milliseconds."""
    waiting = street.one_who_waits()
    street.now += 6 * _MILLISECOND
    assert not is_taken(waiting.attempt)

    waiting.leave()
    street.release()

    assert street.comes_and_takes_it()


def test_who_leaves_does_not_take_another_out_of_the_line(street: Street) -> None:
    """Seen to fail when whoever leaves clears the entry: it is that of one who came before."""
    first = street.one_who_waits()
    first.leave()
    second = street.one_who_waits()
    street.now += 6 * _MILLISECOND
    assert not is_taken(first.attempt)

    second.leave()
    street.release()

    assert not street.comes_and_takes_it()


def test_who_does_not_look_any_more_is_passed(street: Street) -> None:
    """A process that waits and dies, or is stopped, keeps nobody from the lock."""
    waiting = street.one_who_waits()
    street.now += 6 * _MILLISECOND
    assert not is_taken(waiting.attempt)
    street.release()

    street.now += 10 * _MILLISECOND

    assert street.comes_and_takes_it()


_AHEAD = (10**18).to_bytes(8, "little")


@pytest.mark.parametrize(
    "left_behind",
    [b"\xff" * 24, b"\x7f" * 40, b"12345678short", bytes(16) + _AHEAD],
    ids=["ones", "longer", "shorter", "of before the last boot"],
)
def test_what_else_is_in_the_file_counts_for_nothing(street: Street, left_behind: bytes) -> None:
    os.pwrite(street.holder, left_behind, 0)
    waiting = street.one_who_waits()
    street.release()

    assert street.comes_and_takes_it()
    assert is_taken(waiting.attempt)


def test_at_the_end_of_its_patience_one_takes_a_free_lock_out_of_turn(street: Street) -> None:
    """Seen to fail when the line is kept to: an error about a lock that is free."""
    waiting, hasty = street.one_who_waits(), street.one_who_waits(patience=0.006)
    street.now += 6 * _MILLISECOND
    assert not is_taken(waiting.attempt)
    street.release()

    assert is_taken(hasty.attempt)


def test_a_guard_without_patience_takes_a_free_lock_out_of_turn(street: Street) -> None:
    waiting = street.one_who_waits()
    street.now += 6 * _MILLISECOND
    assert not is_taken(waiting.attempt)
    street.release()
    guard = FileGuard(street.path.removesuffix("-lock"), busy_timeout=0)

    guard.acquire_write()

    assert guard.has_write_lock
    guard.close()


def test_who_is_behind_looks_less_often_than_who_is_next(street: Street) -> None:
    first, second = street.one_who_waits(), street.one_who_waits()

    assert first.pause_seconds(0.000_1) < 0.000_1
    assert 0.000_5 < second.pause_seconds(0.000_1) < 0.002


def test_a_full_disk_keeps_nobody_from_waiting(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    waiting = street.one_who_waits()
    street.release()

    assert is_taken(waiting.attempt)
    waiting.leave()
