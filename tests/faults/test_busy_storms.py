"""Another program keeps the lock of the file: ours waits, and then says so; nothing is lost.

The others are processes with Python's own SQLite, which know nothing of our lock file.
"""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import embedded_orch
from embedded_orch import errors, flow, task
from tests.faults.invariants import problems
from tests.faults.run_records import asking
from tests.programs import PATIENCE

HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
for line in sys.stdin:
    connection.execute("begin immediate" if line == "take\\n" else "commit")
    print(line, end="", flush=True)
"""
STORM = """
import random, sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
chance = random.Random(sys.argv[2])
print("ready", flush=True)
for number in range(100):
    connection.execute("begin immediate")
    connection.execute("insert into foreign_row values (?, ?)", (sys.argv[2], number))
    time.sleep(chance.uniform(0, 0.01))
    connection.execute("commit")
"""


class Holder:
    """Another process, which takes the lock and lets it go when it is told."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def take(self) -> None:
        self._tell("take")

    def let_go(self) -> None:
        self._tell("let go")

    def _tell(self, what: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(what, file=self._process.stdin, flush=True)
        assert self._process.stdout.readline() == f"{what}\n"


@contextmanager
def a_foreign_process(program: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "orch.db"


@pytest.fixture
def holder(path: Path) -> Iterator[Holder]:
    embedded_orch.open(path).close()
    with a_foreign_process(HOLDER, path) as process:
        yield Holder(process)


called: list[int] = []


@task
def step(number: int) -> int:
    called.append(number)
    return number


@flow
def steps(count: int) -> list[int]:
    return [step(number) for number in range(count)]


def test_flow_waits_for_the_lock_of_another_program(path: Path, holder: Holder) -> None:
    found: list[list[int]] = []
    with embedded_orch.open(path, busy_timeout_seconds=PATIENCE) as orch:
        holder.take()
        thread = threading.Thread(target=lambda: found.append(steps(2)))
        thread.start()
        thread.join(0.2)
        assert found == []
        assert orch.flow_runs.count() == 0
        holder.let_go()
        thread.join(PATIENCE)

    assert found == [[0, 1]]


def test_lock_that_is_kept_too_long_is_an_error_that_says_so_and_changes_nothing(
    path: Path, holder: Holder
) -> None:
    with embedded_orch.open(path, busy_timeout_seconds=0.2) as orch:
        holder.take()
        with pytest.raises(errors.DatabaseBusy, match="busy_timeout") as raised:
            steps(1)
        assert str(path) in str(raised.value)
        assert orch.flow_runs.count() == 0
        holder.let_go()

        assert steps(1) == [0]
        assert orch.flow_runs.count() == 1


def test_lock_that_is_taken_in_the_middle_of_a_run_loses_nothing_of_it(
    path: Path, holder: Holder
) -> None:
    """What was acknowledged stays, the run ends once it can be told, and is gone on with."""
    called.clear()
    takes = iter([True])

    @task
    def stopping(number: int) -> int:
        if next(takes, False):
            holder.take()
        return step.fn(number)

    @flow
    def stopped() -> list[int]:
        found = [step(1)]
        try:
            return [*found, stopping(2)]
        except errors.DatabaseBusy:
            holder.let_go()
            raise

    with embedded_orch.open(path, busy_timeout_seconds=0.2) as orch:
        with pytest.raises(errors.DatabaseBusy):
            stopped()
        [run] = orch.flow_runs.find()
        left = sorted(each.state.name for each in orch.task_runs.find())
        value = stopped.resume(run.id)
        with asking(orch) as asked:
            found = problems(asked)

    assert run.state.name == "Failed"
    assert left in (["Completed", "Crashed"], ["Completed"])
    assert value == [1, 2]
    # The second one could not be recorded the first time.
    assert called == [1, 2, 2]
    assert found == []


@pytest.mark.slow
def test_storm_of_foreign_writers_costs_no_run_and_no_row(path: Path, seed: int) -> None:
    errors_seen: list[BaseException] = []
    chance = random.Random(seed)

    def work() -> None:
        try:
            for _ in range(5):
                assert steps(3) == [0, 1, 2]
        except BaseException as error:
            errors_seen.append(error)

    with embedded_orch.open(path, busy_timeout_seconds=PATIENCE) as orch:
        with orch.session() as session:
            session.execute("create table foreign_row (writer text, number integer)")
        with (
            a_foreign_process(STORM, path, chance.random()) as first,
            a_foreign_process(STORM, path, chance.random()) as second,
        ):
            for process in (first, second):
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
            threads = [threading.Thread(target=work) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert [first.wait(PATIENCE), second.wait(PATIENCE)] == [0, 0]
        counts = (
            orch.flow_runs.count(state_type="COMPLETED"),
            orch.task_runs.count(state_type="COMPLETED"),
            orch.sql("select count(distinct writer || number) from foreign_row").scalar(),
        )
        with asking(orch) as asked:
            found = problems(asked)

    assert errors_seen == []
    assert counts == (20, 60, 200)
    assert found == []
