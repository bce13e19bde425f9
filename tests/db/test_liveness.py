"""Whether a process is alive, asked while it lives, is stopped, forks, and after it was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from embedded_orch import errors
from embedded_orch.db import file_locks, liveness
from embedded_orch.db.liveness import LifeLock, is_alive
from embedded_orch.process import process_facts

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]

needs_open_file_locks = pytest.mark.skipif(
    sys.platform != "linux", reason="open file description locks exist on Linux only"
)

HOLD = "lock = LifeLock(sys.argv[1], int(sys.argv[2])).take()\n"


@contextmanager
def process_with(owners: Path, slot: int, *, program: str = HOLD) -> Iterator[ProcessOutside]:
    """Another process that has run the program and stays; killed at the end."""
    code = (
        "import os, sys, time\nfrom embedded_orch.db.liveness import LifeLock\n"
        + program
        + "print('ready', flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(owners), str(slot)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield ProcessOutside(process)
        finally:
            process.kill()


class ProcessOutside:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.words: list[str] = []
        assert process.stdout is not None
        for line in process.stdout:
            if line == "ready\n":
                break
            self.words += line.split()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def owners(tmp_path: Path) -> Path:
    return tmp_path / "test.db-owners"


@needs_open_file_locks
def test_a_process_is_alive_until_the_moment_it_is_killed(owners: Path) -> None:
    with process_with(owners, 7) as process:
        before = is_alive(str(owners), 7)
        process.kill()
        after = is_alive(str(owners), 7)

    assert (before, after) == (True, False)


@needs_open_file_locks
def test_a_process_that_is_stopped_is_alive(owners: Path) -> None:
    with process_with(owners, 0) as process:
        process.process.send_signal(signal.SIGSTOP)

        assert is_alive(str(owners), 0)


@needs_open_file_locks
def test_a_process_that_its_parent_has_not_waited_for_is_dead(owners: Path) -> None:
    """Its pid is still taken, by a zombie."""
    with process_with(owners, 0) as process:
        process.process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, process.process.pid, os.WEXITED | os.WNOWAIT)

        assert is_alive(str(owners), 0) is False


@needs_open_file_locks
def test_slots_are_told_apart(owners: Path) -> None:
    with process_with(owners, 3), process_with(owners, 2**40) as second:
        second.kill()

        assert [is_alive(str(owners), slot) for slot in (2, 3, 4, 2**40)] == [
            False,
            True,
            False,
            False,
        ]
    assert owners.stat().st_size == 0


@needs_open_file_locks
def test_a_process_sees_itself(owners: Path) -> None:
    lock = LifeLock(str(owners), 1).take()

    held = is_alive(str(owners), 1)
    lock.release()
    lock.release()

    assert held
    assert is_alive(str(owners), 1) is False


@needs_open_file_locks
def test_a_slot_of_a_living_process_cannot_be_taken(owners: Path) -> None:
    before = set(os.listdir("/dev/fd"))
    with process_with(owners, 1) as process:
        with pytest.raises(errors.DatabaseBusy, match="slot 1 of"):
            LifeLock(str(owners), 1).take()
        process.kill()

        LifeLock(str(owners), 1).take().release()

    assert set(os.listdir("/dev/fd")) == before


FORK = (
    HOLD
    + """
has_begun, begins = os.pipe()
child = os.fork()
if child == 0:
    os.write(begins, b".")
    time.sleep(600)
os.read(has_begun, 1)
print(child, flush=True)
"""
)


@needs_open_file_locks
def test_a_forked_child_does_not_keep_its_dead_parent_alive(owners: Path) -> None:
    """Seen to fail when the child keeps its copy of the descriptor."""
    with process_with(owners, 0, program=FORK) as process:
        child = int(process.words[0])
        try:
            process.kill()
            os.kill(child, 0)

            assert is_alive(str(owners), 0) is False
        finally:
            os.kill(child, signal.SIGKILL)


SPAWN = (
    HOLD
    + """
import subprocess
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], close_fds=False)
print(child.pid, flush=True)
"""
)


@needs_open_file_locks
def test_a_program_that_was_started_does_not_keep_its_dead_parent_alive(owners: Path) -> None:
    with process_with(owners, 0, program=SPAWN) as process:
        child = int(process.words[0])
        try:
            process.kill()
            os.kill(child, 0)

            assert is_alive(str(owners), 0) is False
        finally:
            os.kill(child, signal.SIGKILL)


@needs_open_file_locks
def test_the_lock_outlives_other_openings_of_the_file_in_its_process(owners: Path) -> None:
    """Seen to fail with classic record locks, which any close of the file drops."""
    program = HOLD + "open(sys.argv[1]).close()\n"

    with process_with(owners, 0, program=program):
        assert is_alive(str(owners), 0)


def test_no_file_tells_nothing(owners: Path) -> None:
    assert is_alive(str(owners), 0) is None


@needs_open_file_locks
def test_a_file_that_was_replaced_tells_nothing(owners: Path) -> None:
    """Else its owner, who holds a lock on the old one, would count as dead."""
    lock = LifeLock(str(owners), 0).take()
    inode = lock.inode
    owners.rename(owners.with_suffix(".old"))
    owners.touch()

    assert is_alive(str(owners), 0, inode=inode) is None
    assert is_alive(str(owners.with_suffix(".old")), 0, inode=inode)
    lock.release()


def test_without_open_file_locks_nothing_is_told_and_nothing_breaks(
    owners: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown_call(descriptor: int, record: bytes) -> bytes:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(file_locks, "set_lock", unknown_call)
    monkeypatch.setattr(liveness, "is_excluded", unknown_call)
    lock = LifeLock(str(owners), 0).take()

    assert "not held" in repr(lock)
    assert is_alive(str(owners), 0) is None
    lock.release()


def test_a_lock_says_what_it_holds(owners: Path) -> None:
    lock = LifeLock(str(owners), 5).take()

    assert repr(lock).startswith(f"<LifeLock slot 5 of {owners}:")
    lock.release()
    assert repr(lock).endswith("not held>")


def test_slots_begin_at_zero(owners: Path) -> None:
    with pytest.raises(ValueError, match="-1"):
        LifeLock(str(owners), -1)


# -- facts -------------------------------------------------------------------------------------


def fake_proc(folder: Path, stat: str, boot_id: str = "11111111-2222\n") -> str:
    (folder / "self").mkdir()
    (folder / "sys/kernel/random").mkdir(parents=True)
    (folder / "self/stat").write_text(stat)
    (folder / "sys/kernel/random/boot_id").write_text(boot_id)
    return str(folder)


@pytest.mark.parametrize("command", ["python", "my (odd) name", ") S 1 2 3", "a)\n(b c"])
def test_the_start_time_is_found_behind_any_command(tmp_path: Path, command: str) -> None:
    before = " ".join(str(number) for number in range(4, 22))
    proc = fake_proc(tmp_path, f"123 ({command}) S {before} 987654 23 24\n")

    facts = process_facts(proc=proc)

    assert facts.start_ticks == 987654
    assert facts.boot_id == "11111111-2222"


@pytest.mark.parametrize("stat", ["", "123 (python) S 1 2", "123 (python) " + "x " * 40])
def test_a_strange_table_gives_no_start_time(tmp_path: Path, stat: str) -> None:
    assert process_facts(proc=fake_proc(tmp_path, stat)).start_ticks is None


def test_without_procfs_the_host_and_the_pid_are_left(tmp_path: Path) -> None:
    facts = process_facts(proc=str(tmp_path / "none"))

    assert facts.host
    assert facts.pid == os.getpid()
    assert (facts.boot_id, facts.start_ticks) == (None, None)


@pytest.mark.skipif(sys.platform != "linux", reason="procfs is Linux's")
def test_the_facts_name_one_process() -> None:
    code = "from embedded_orch.process import process_facts; print(process_facts())"
    answers = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(2)
    ]

    assert process_facts() == process_facts()
    assert process_facts().start_ticks is not None
    assert len({*answers, str(process_facts())}) == 3
