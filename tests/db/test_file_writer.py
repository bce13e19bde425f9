"""The one writer of a file: commits that are shared, turns that are passed on, and interrupts."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import anyio
import pytest

from embedded_orch import errors
from embedded_orch.db.opening import OpenDatabases
from embedded_orch.db.port import Transaction
from embedded_orch.db.session import open_session
from embedded_orch.db.sqlite.database import SQLiteDatabase
from embedded_orch.db.sqlite.guard import FileGuard
from embedded_orch.process import Process
from tests.db.contract.probe import Background, Gate, Probe, in_background, numbers_in, wait_until


class File:
    """A database file that is open in this process, with a table of the test's own."""

    def __init__(self, path: Path, **settings: object) -> None:
        process = Process()
        self._databases = OpenDatabases(process)
        self._shared = self._databases.open(path, {"busy_timeout_seconds": 20.0, **settings})
        assert isinstance(self._shared.database, SQLiteDatabase)
        self.database = self._shared.database
        self.probe = Probe(self.database, process)
        self.commits = 0
        self.database.with_connection(lambda it: it.set_commit_hook(self._count))

    def _count(self) -> bool:
        self.commits += 1
        return False

    def waiting(self) -> int:
        """How many writes are in the queue."""
        return len(self.database._writer._queue)

    def insert(self, number: int) -> Callable[[Transaction], int]:
        """An operation as they have to be: it may run again, and answers the same."""
        id = self.probe.new_id()

        def operation(tx: Transaction) -> int:
            tx.run("probe.repeat", id=id, number=number)
            return number

        return operation

    def write(self, number: int) -> Background:
        """Write a number in another thread."""
        return Background(lambda: self.database.write(self.insert(number)))

    def close(self) -> None:
        self._databases.close(self._shared)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[File]:
    opened = File(tmp_path / "test.db")
    yield opened
    opened.close()


def a_session(file: File) -> Any:
    return open_session(
        file.database, begin_transaction=True, with_for_update=False, read_only=False
    )


# -- groups ------------------------------------------------------------------------------------


def test_what_came_while_another_wrote_is_committed_at_once(file: File) -> None:
    """Seen to fail with groups of one: 41 commits."""
    gate = Gate()
    leader = Background(lambda: file.database.write(gate.before(file.insert(0))))
    gate.reached.wait()
    others = [file.write(number) for number in range(1, 41)]
    wait_until(lambda: file.waiting() == 40)

    gate.open()
    answers = [thread.result() for thread in (leader, *others)]

    assert answers == file.probe.numbers() == list(range(41))
    assert file.commits == 2


def test_nobody_is_answered_before_the_commit_that_he_is_in(file: File) -> None:
    answered: list[int] = []

    def insert_and_look(number: int) -> Callable[[Transaction], None]:
        insert = file.insert(number)

        def operation(tx: Transaction) -> None:
            insert(tx)
            if not first_gate.reached.is_set():
                first_gate.stop_here()
            elif not second_gate.reached.is_set():
                second_gate.stop_here()

        return operation

    def write(number: int) -> None:
        file.database.write(insert_and_look(number))
        answered.append(number)

    first_gate, second_gate = Gate(), Gate()
    first = Background(lambda: write(1))
    first_gate.reached.wait()
    others = [Background(lambda number=number: write(number)) for number in (2, 3)]
    wait_until(lambda: file.waiting() == 2)
    first_gate.open()
    # Of the second group one has run, and none is committed.
    second_gate.reached.wait()
    first.result()
    before = list(answered), file.probe.database.read(numbers_in)
    second_gate.open()
    for thread in others:
        thread.result()

    assert before == ([1], [1])
    assert sorted(answered) == file.probe.numbers() == [1, 2, 3]


def test_an_operation_that_raises_spoils_no_other_of_its_group(file: File) -> None:
    gate = Gate()
    leader = Background(lambda: file.database.write(gate.before(file.insert(0))))
    gate.reached.wait()
    good = [file.write(number) for number in (1, 2, 3)]
    bad = Background(
        lambda: file.database.write(file.probe.insert_then_fail(4, KeyError("its own")))
    )
    wait_until(lambda: file.waiting() == 4)

    gate.open()
    for thread in (leader, *good):
        thread.result()
    with pytest.raises(KeyError, match="its own"):
        bad.result()

    assert file.probe.numbers() == [0, 1, 2, 3]
    # The group was tried once whole, and then each alone.
    assert file.commits == 4


def test_a_lone_caller_commits_in_its_own_thread(file: File) -> None:
    threads = set(threading.enumerate())

    ran_in = file.database.write(lambda tx: threading.get_ident())

    assert ran_in == threading.get_ident()
    assert set(threading.enumerate()) == threads
    assert file.commits == 1


# -- turns and waiting -------------------------------------------------------------------------


def test_a_write_that_waited_too_long_is_taken_back_and_changes_nothing(tmp_path: Path) -> None:
    """Seen to fail when it stays in the queue: the next leader writes it."""
    file = File(tmp_path / "test.db", busy_timeout_seconds=0.05)
    with a_session(file):
        waiting = file.write(1)
        with pytest.raises(errors.DatabaseBusy, match="nothing was written"):
            waiting.result()

    file.database.write(file.insert(2))

    assert file.probe.numbers() == [2]
    file.close()


def test_an_async_write_that_waited_too_long_is_taken_back_too(tmp_path: Path) -> None:
    """Seen to fail when the writer's thread waits without a limit."""
    file = File(tmp_path / "test.db", busy_timeout_seconds=0.05)

    async def main() -> None:
        with anyio.fail_after(20), pytest.raises(errors.DatabaseBusy, match="nothing was written"):
            await file.database.write_async(file.insert(1))

    with a_session(file):
        Background(lambda: anyio.run(main)).result()
    file.database.write(file.insert(2))

    assert file.probe.numbers() == [2]
    file.close()


def test_what_is_announced_during_a_session_waits_for_its_end(tmp_path: Path) -> None:
    file = File(tmp_path / "test.db", busy_timeout_seconds=0.05)
    with a_session(file) as session:
        Background(lambda: file.database.announce(file.insert(1))).result()
        with pytest.raises(errors.DatabaseBusy):
            file.write(2).result()
        before = list(session.execute("select number from probe"))

    assert before == []
    assert file.probe.numbers() == [1]
    file.close()


def test_sessions_and_writes_of_many_threads_take_turns(file: File) -> None:
    def in_sessions(first: int) -> None:
        for number in range(first, first + 20):
            with a_session(file) as session:
                values = {"id": file.probe.new_id(), "number": number}
                session.execute("insert into probe (id, number) values (:id, :number)", values)

    def one_by_one(first: int) -> None:
        for number in range(first, first + 20):
            file.database.write(file.insert(number))

    with in_background(
        *(lambda first=first: in_sessions(first) for first in (0, 20, 40)),
        *(lambda first=first: one_by_one(first) for first in (60, 80, 100)),
    ):
        assert threading.active_count() > 1

    assert file.probe.numbers() == list(range(120))


# -- interrupts --------------------------------------------------------------------------------


def test_an_interrupt_in_a_leader_leaves_the_writes_of_others(file: File) -> None:
    """Seen to fail when the group is not put back: the other waits for ever."""
    gate = Gate()

    def interrupted(tx: Transaction) -> None:
        gate.stop_here()
        raise KeyboardInterrupt

    first = Background(lambda: file.database.write(gate.before(file.insert(0))))
    gate.reached.wait()
    leader = Background(lambda: file.database.write(interrupted))
    wait_until(lambda: file.waiting() == 1)
    others = [file.write(number) for number in (1, 2)]
    wait_until(lambda: file.waiting() == 3)

    gate.open()
    first.result()
    with pytest.raises(KeyboardInterrupt):
        leader.result()

    assert [thread.result() for thread in others] == [1, 2]
    assert file.probe.numbers() == [0, 1, 2]


def test_an_interrupted_waiter_passes_its_turn_on(
    file: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail without: the one behind it sleeps until its busy timeout."""
    from embedded_orch.db.sqlite.writer import Request

    wait = Request.wait

    def wait_until_interrupted(request: Request, seconds: float = -1) -> bool:
        answer = wait(request, seconds)
        if threading.current_thread() is first:
            # Rung, because its turn to lead has come.
            raise KeyboardInterrupt
        return answer

    monkeypatch.setattr(Request, "wait", wait_until_interrupted)
    with a_session(file):
        first = file.write(1)
        wait_until(lambda: file.waiting() == 1)
        second = file.write(2)
        wait_until(lambda: file.waiting() == 2)

    with pytest.raises(KeyboardInterrupt):
        first.result()
    assert second.result() == 2
    assert file.probe.numbers() == [2]


class Interrupt:
    """Raises KeyboardInterrupt in a thread, at the n-th place where a signal could do so.

    Those are the ends of calls of functions written in C, and the beginnings of functions written
    in Python; of the functions in ``embedded_orch/db``, from the first call of a method on.
    """

    def __init__(self, place: int, *, from_method: str) -> None:
        self._left = place
        self._from_method = from_method
        self._is_on = False
        self.has_come = False
        self.where = "nowhere"

    def during(self, call: Callable[[], object]) -> None:
        previous = sys.getprofile()
        sys.setprofile(self._look)
        try:
            call()
        except KeyboardInterrupt:
            assert self.has_come
        finally:
            sys.setprofile(previous)

    def _look(self, frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event not in {"call", "c_return"} or "embedded_orch/db" not in code.co_filename:
            return
        self._is_on = self._is_on or code.co_qualname == self._from_method
        if not self._is_on or self.has_come:
            return
        self._left -= 1
        if self._left < 0:
            self.has_come = True
            self.where = f"{code.co_qualname}, line {frame.f_lineno}"
            raise KeyboardInterrupt


@pytest.mark.slow
def test_an_interrupt_anywhere_in_a_leader_strands_nobody(file: File) -> None:
    """Ctrl-C arrives between any two steps.

    Seen to fail, each at its own place: with a plain lock for the turn, with requests taken from
    the queue one by one, without a last look at the transaction before the turn is given on, and
    when those that are answered are not told again.
    """
    writer = file.database._writer
    numbers = itertools.count(1)
    written: list[int] = []
    # As it would look at the lock file.
    another_process = FileGuard(file.database.path or "", busy_timeout=0)
    for place in itertools.count():
        interrupt = Interrupt(place, from_method="Writer._await")
        mine, others = next(numbers), next(numbers)
        # Another's write lies in the queue, and the turn is free.
        holder = object()
        writer.take_turn(holder)
        other = file.write(others)
        wait_until(lambda: file.waiting() == 1)
        writer._turn.give(holder)

        interrupt.during(lambda mine=mine: file.database.write(file.insert(mine)))

        assert other.result() == others, interrupt.where
        assert not writer._turn.locked(), interrupt.where
        written.append(others)
        # And the next one, here and in other processes, finds everything free.
        with another_process.write_lock():
            assert not file.database._connection.in_transaction
        if not interrupt.has_come:
            break

    assert place > 30
    assert set(written) <= set(file.probe.numbers())
    another_process.close()


# -- other programs ------------------------------------------------------------------------------


FOREIGN_WRITER = """
import sqlite3, sys
other = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0)
try:
    other.execute("begin immediate")
except sqlite3.OperationalError as error:
    print(error)
"""


def foreign_write(file: File) -> str:
    """What another program is told that wants to write now; it knows nothing of the lock file."""
    path = str(file.database.path)
    ended = subprocess.run(
        [sys.executable, "-c", FOREIGN_WRITER, path], capture_output=True, text=True, check=True
    )
    return ended.stdout.strip()


def test_a_write_excludes_other_programs_before_its_first_statement(file: File) -> None:
    """Seen to fail with BEGIN DEFERRED: the other one may write between our reads and writes."""
    assert file.database.write(lambda _: foreign_write(file)) == "database is locked"
    assert foreign_write(file) == ""


def test_a_session_excludes_other_programs_before_its_first_statement(file: File) -> None:
    """Seen to fail with BEGIN DEFERRED."""
    with a_session(file):
        assert foreign_write(file) == "database is locked"
    assert foreign_write(file) == ""
