"""A disk that is full in the middle of a flow, and then has room again.

On a VFS whose writes are refused for as long as the test says, on a small disk of its own where the
test may mount one, and on a file that the system does not let grow (RLIMIT_FSIZE), each with real
flows: the call ends with our exception, nothing acknowledged is lost, and everything goes on.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from embedded_orch import errors, flow, task
from tests.faults.nth_fault_vfs import Fault, FaultKind, FaultyVFS, ours_unreported
from tests.opened import opened
from tests.programs import PATIENCE, environment

VFS = "sometimes full"
COUNT = 12


class Disk:
    """A VFS whose writes fail while it is full."""

    def __init__(self, vfs: FaultyVFS) -> None:
        self._vfs = vfs

    def fill(self) -> None:
        self._vfs.fault = Fault(FaultKind.FULL, 1, sticky=True)

    def make_room(self) -> None:
        self._vfs.fault = Fault(FaultKind.FULL, sys.maxsize, sticky=True)


@pytest.fixture
def disk() -> Iterator[Disk]:
    vfs = FaultyVFS(VFS, Fault(FaultKind.FULL, sys.maxsize, sticky=True))
    with ours_unreported(vfs):
        yield Disk(vfs)
    vfs.unregister()


class Report:
    """A flow in which the disk becomes full once, before one of its tasks."""

    def __init__(self, disk: Disk, full_before: int) -> None:
        self._disk = disk
        self._full_before: int | None = full_before
        self.done: list[int] = []
        self.flow = flow(name="report")(self._body)
        self._step = task(name="step")(self._step_body)

    def _body(self, count: int) -> int:
        total = 0
        for number in range(count):
            if number == self._full_before:
                self._full_before = None
                self._disk.fill()
            total += self._step(number)
        return total

    def _step_body(self, number: int) -> int:
        self.done.append(number)
        return number


@pytest.mark.parametrize("full_before", [0, 1, 7, COUNT - 1])
@pytest.mark.parametrize("durability", ["normal", "full"])
def test_a_flow_ends_with_our_error_and_goes_on_once_there_is_room(
    tmp_path: Path, disk: Disk, durability: str, full_before: int
) -> None:
    report = Report(disk, full_before)
    threads = set(threading.enumerate())
    with opened(str(tmp_path / "orch.db"), vfs=VFS, durability=durability) as orch:
        with pytest.raises(errors.DatabaseFull, match="Free some room and call again"):
            report.flow(COUNT)

        disk.make_room()

        # What is on record is what was acknowledged.
        assert orch.task_runs.count(state_type="COMPLETED") == full_before
        (run,) = orch.flow_runs.find()
        assert report.flow.resume(run.id) == sum(range(COUNT))
        assert orch.task_runs.count(state_type="COMPLETED") == COUNT == orch.task_runs.count()
        assert orch.check() == []
    # The one that could not be recorded ran once more.
    again = [number for number in range(COUNT) if report.done.count(number) > 1]
    assert again == [full_before]
    assert threads.issuperset(threading.enumerate())


def test_what_a_full_disk_kept_from_being_recorded_is_crashed_when_closed(
    tmp_path: Path, disk: Disk
) -> None:
    report = Report(disk, 3)
    with opened(str(tmp_path / "orch.db"), vfs=VFS) as orch:
        with pytest.raises(errors.DatabaseFull):
            report.flow(COUNT)
        disk.make_room()

    with opened(str(tmp_path / "orch.db"), vfs=VFS) as orch:
        (run,) = orch.flow_runs.find()
        assert run.state is not None
        assert run.state.is_crashed()
        assert orch.check() == []


def test_what_a_full_disk_kept_from_being_recorded_is_recorded_before_the_next_run(
    tmp_path: Path, disk: Disk
) -> None:
    """Seen to fail without it: the run was Running for as long as its process lived."""
    report, other = Report(disk, 3), Report(disk, -1)
    with opened(str(tmp_path / "orch.db"), vfs=VFS) as orch:
        with pytest.raises(errors.DatabaseFull):
            report.flow(COUNT)
        with pytest.raises(errors.DatabaseFull):
            other.flow(2)
        disk.make_room()

        other.flow(2)

        (run,) = orch.flow_runs.find(state_type="CRASHED")
        assert run.state is not None
        assert "its end could not be written" in str(run.state.message)
        assert orch.flow_runs.count() == 2
        assert report.flow.resume(run.id) == sum(range(COUNT))
        assert orch.check() == []


def test_one_that_is_full_until_the_end_is_recovered_by_the_next_process(
    tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    report = Report(disk, 3)
    with opened(str(tmp_path / "orch.db"), vfs=VFS), pytest.raises(errors.DatabaseFull):
        report.flow(COUNT)
    assert "could not be marked" in caplog.text

    disk.make_room()
    with opened(str(tmp_path / "orch.db"), vfs=VFS) as orch:
        (run,) = orch.flow_runs.find()
        assert run.state is not None
        assert run.state.is_crashed()
        assert report.flow.resume(run.id) == sum(range(COUNT))


FILLING = """
import json, os, resource, sys
import embedded_orch
from embedded_orch import errors, flow, task

path, how = sys.argv[1:]
done = []

@task
def step(number):
    done.append(number)
    return "x" * 40_000

@flow
def report(count):
    return len([step(number) for number in range(count)])

def fill():
    # A file that cannot grow, or a disk without a byte left.
    if how == "limit":
        size = max(os.stat(path).st_size, os.stat(path + "-wal").st_size)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100_000, resource.RLIM_INFINITY))
        return
    with open(os.path.join(os.path.dirname(path), "ballast"), "wb") as file:
        try:
            while True:
                file.write(bytes(1 << 16))
                file.flush()
        except OSError:
            # It is full; the run is to get that far.
            os.truncate(file.name, file.tell() - 300_000)

def make_room():
    if how == "limit":
        resource.setrlimit(
            resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        )
        return
    os.unlink(os.path.join(os.path.dirname(path), "ballast"))

with embedded_orch.open(path) as orch:
    report(2)
    done.clear()
    fill()
    try:
        report(40)
        sys.exit("the disk was not full")
    except errors.DatabaseError as error:
        kind = type(error).__name__
    run = next(orch.flow_runs.find())
    completed = orch.task_runs.count(flow_run_id=run.id, state_type="COMPLETED")
    refused = len(done)
    make_room()
    assert report.resume(run.id) == 40
    problems = [str(each) for each in orch.check()]
    again = [number for number in set(done) if done.count(number) > 1]
print(json.dumps([kind, completed, refused, again, problems]))
"""


@contextmanager
def small_disk(tmp_path: Path) -> Generator[Path]:
    """A folder on a disk of 16 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("how", ["disk", "limit"])
def test_a_real_disk_that_is_full_and_has_room_again(tmp_path: Path, how: str) -> None:
    import json

    if sys.platform == "win32":
        pytest.skip("needs a limit of the size of files")
    with small_disk(tmp_path) if how == "disk" else plain(tmp_path) as folder:
        ran = subprocess.run(
            [sys.executable, "-c", FILLING, str(folder / "orch.db"), how],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env=environment(),
            check=False,
        )

    assert ran.returncode == 0, ran.stderr
    kind, completed, refused, again, problems = json.loads(ran.stdout)
    # A file that may not grow is an error of the disk to SQLite, and no full one.
    assert kind in (
        {"DatabaseFull"} if how == "disk" else {"DatabaseUnavailable", "CommitOutcomeUnknown"}
    )
    assert completed < refused == completed + 1
    assert again == [completed]
    assert problems == []


@contextmanager
def plain(tmp_path: Path) -> Generator[Path]:
    """A folder of no particular size."""
    yield tmp_path
