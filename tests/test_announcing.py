"""A start is announced, a finish is awaited: what is on disk when, and what a crash can lose."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import embedded_orch
from embedded_orch import errors, flow, task
from embedded_orch.store import task_runs
from tests import crashing
from tests.crashing import stopped_at
from tests.engine.waiting import passed, until
from tests.opened import QUICK, opened, states, stores_logs, the_flow_run, the_run_of
from tests.warm_parent import run_forked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from embedded_orch import Orchestrator
    from embedded_orch.db.port import Announced, Database, Transaction


@pytest.fixture
def orch(url: str) -> Iterator[Orchestrator]:
    with opened(url) as orchestrator:
        yield orchestrator


class Watched:
    """What a database is asked to write, by kind, in order."""

    def __init__(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kinds: list[str] = []
        seen: list[object] = []
        write, write_async, announce = database.write, database.write_async, database.announce

        def saw(kind: str, operation: object) -> None:
            # Once, where the database calls itself.
            if stores_logs(operation):
                return
            if not any(operation is each for each in seen):
                seen.append(operation)
                self.kinds.append(kind)

        def watched_write(operation: Any, *, after: Any = None) -> Any:
            saw("awaited", operation)
            return write(operation, after=after)

        async def watched_write_async(operation: Any, *, after: Any = None) -> Any:
            saw("awaited", operation)
            return await write_async(operation, after=after)

        def watched_announce(operation: Any) -> Announced:
            saw("announced", operation)
            return announce(operation)

        monkeypatch.setattr(database, "write", watched_write)
        monkeypatch.setattr(database, "write_async", watched_write_async)
        monkeypatch.setattr(database, "announce", watched_announce)


@pytest.fixture
def watched(orch: Orchestrator, monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(orch.database, monkeypatch)


def one() -> int:
    return 1


async def one_later() -> int:
    await anyio.sleep(0)
    return 1


def called(work: Any) -> Any:
    """What a call of a task of either kind returns."""
    if work.is_async:
        return anyio.run(work)
    return work()


@pytest.mark.parametrize("function", [one, one_later])
def test_start_is_announced_and_finish_is_awaited(
    orch: Orchestrator, watched: Watched, function: Callable[[], Any]
) -> None:
    assert called(task(function)) == 1

    assert watched.kinds == ["announced", "awaited"]


@pytest.mark.parametrize("function", [one, one_later])
def test_start_is_awaited_where_that_is_asked_for(
    orch: Orchestrator, watched: Watched, function: Callable[[], Any]
) -> None:
    assert called(task(record_start="before")(function)) == 1

    assert watched.kinds == ["awaited", "awaited"]


def test_start_is_awaited_in_a_run_that_was_interrupted_before(
    orch: Orchestrator, watched: Watched
) -> None:
    @task
    def load(number: int) -> int:
        return number

    @flow(retries=1)
    def report() -> None:
        load(1)
        attempts.append(1)
        load(len(attempts) + 10)
        if len(attempts) < 2:
            raise ValueError("not yet")

    attempts: list[int] = []
    report()

    # Made; a task; a task; failed; running again; a new task; completed.
    assert watched.kinds == [
        "awaited",
        *["announced", "awaited"] * 2,
        "awaited",
        "awaited",
        *["awaited", "awaited"],
        "awaited",
    ]


def test_start_that_is_awaited_is_on_disk_while_the_function_runs(orch: Orchestrator) -> None:
    @task(record_start="before")
    def load() -> list[str]:
        # Read past this process's own queue of writes.
        opened = orch.database.begin()
        try:
            return [row[0] for row in opened.execute("select state_name from task_run", ())]
        finally:
            opened.roll_back()

    assert load() == ["Running"]


def test_start_that_was_announced_is_seen_by_whoever_asks_here(orch: Orchestrator) -> None:
    @task
    def load() -> list[str]:
        return states(the_run_of(orch, load))

    assert load() == ["Pending", "Running"]


def test_start_that_was_announced_is_soon_on_disk_by_itself(orch: Orchestrator) -> None:
    begun, may_end = threading.Event(), threading.Event()

    @task
    def load() -> None:
        begun.set()
        passed(may_end)

    def run_it() -> None:
        with orch:
            load()

    thread = threading.Thread(target=run_it)
    thread.start()
    passed(begun)

    def is_there() -> bool:
        opened = orch.database.begin()
        try:
            return bool(list(opened.execute("select 1 from task_run", ())))
        finally:
            opened.roll_back()

    until(is_there, "the start is committed")
    may_end.set()
    thread.join(30)


def test_start_and_finish_of_a_task_are_in_order(orch: Orchestrator) -> None:
    @task
    def load(number: int) -> int:
        return number

    @flow
    def report() -> None:
        load.map(range(40)).result()

    report()

    runs = list(orch.task_runs.find())
    assert len(runs) == 40
    assert {tuple(states(run)) for run in runs} == {("Pending", "Running", "Completed")}


def test_what_completes_inside_of_a_task_is_committed_after_the_start_of_that_task(
    orch: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a crash could leave the record of a call by a task run that is not there.

    On a server each start waits by itself. Seen to fail, as did the kill of nested tasks there now
    and then, when the end named the start of its own call alone.
    """
    named: list[bool] = []
    write = orch.database.write

    def watched_write(operation: Any, *, after: Any = None) -> Any:
        if not stores_logs(operation):
            named.append(after is not None)
        return write(operation, after=after)

    @task
    def inner() -> int:
        return 1

    @task
    def outer() -> int:
        return inner()

    @flow
    def report() -> int:
        monkeypatch.setattr(orch.database, "write", watched_write)
        return outer()

    report()

    # The ends of the inner task, of the outer one, and of the flow.
    assert named[:2] == [False, True]


# -- a start that does not reach the database ----------------------------------------------------


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("way", ["call", "fail", "retry"])
def test_start_that_could_not_be_written_is_written_with_the_finish(
    orch: Orchestrator, monkeypatch: pytest.MonkeyPatch, way: str, is_async: bool
) -> None:
    """Seen to fail when the finish took the start for granted: no run has this id."""
    announce, announced = orch.database.announce, []

    def refuse(tx: Transaction) -> None:
        raise errors.ConstraintViolated("not announced")

    def announce_what_fails(operation: Any) -> Announced:
        if stores_logs(operation):
            return announce(operation)
        announced.append(announce(refuse))
        return announced[-1]

    monkeypatch.setattr(orch.database, "announce", announce_what_fails)
    calls: list[int] = []

    def work() -> int:
        calls.append(1)
        if way == "fail" or (way == "retry" and len(calls) == 1):
            raise ValueError("no")
        return 7

    async def work_later() -> int:
        await anyio.sleep(0)
        return work()

    load = task(retries=1 if way == "retry" else 0)(work_later if is_async else work)

    if way == "fail":
        with pytest.raises(ValueError, match="no"):
            called(load)
    else:
        assert called(load) == 7

    assert [type(each.error) for each in announced] == [errors.ConstraintViolated]
    expected = {
        "call": ["Completed"],
        "fail": ["Failed"],
        "retry": ["Retrying", "Completed"],
    }
    assert states(the_run_of(orch, load)) == ["Pending", "Running", *expected[way]]


@pytest.mark.parametrize("way", ["task", "cached", "subflow"])
def test_start_that_could_not_be_written_is_written_with_what_the_task_calls(
    orch: Orchestrator, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Seen to fail: what completed inside belonged to a run that was not there until its end.

    Had the process died before that, it would have been run again.
    """
    announce = orch.database.announce
    refused: list[Announced] = []

    def refuse(tx: Transaction) -> None:
        raise errors.ConstraintViolated("not announced")

    def refuse_two(operation: Any) -> Announced:
        if stores_logs(operation) or len(refused) == 2:
            return announce(operation)
        refused.append(announce(refuse))
        return refused[-1]

    @task
    def called_inside() -> int:
        return 1

    @flow
    def child() -> int:
        return 1

    cached = called_inside.with_options(cache_key_fn=lambda *_: "key")
    inside = {"task": called_inside, "cached": cached, "subflow": child}[way]

    @task
    def outer() -> list[str]:
        middle()
        return seen

    @task
    def middle() -> None:
        inside()
        seen.extend(sorted(row.name.rsplit("-", 1)[0] for row in orch.task_runs.find()))

    seen: list[str] = []
    if way == "cached":
        cached()
    monkeypatch.setattr(orch.database, "announce", refuse_two)
    flow(lambda: outer(), name="report")()

    assert [type(each.error) for each in refused] == [errors.ConstraintViolated] * 2
    names = {"subflow": ["child"], "cached": ["called_inside"] * 2}.get(way, ["called_inside"])
    assert seen == [*names, "middle", "outer"]


def test_database_that_takes_neither_start_nor_finish_fails_the_call(
    orch: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise errors.DatabaseFull("no room")

    monkeypatch.setattr(task_runs, "start_task_run", refuse)
    monkeypatch.setattr(task_runs, "start_and_complete", refuse)

    with pytest.raises(errors.DatabaseFull):
        task(one)()


@pytest.mark.parametrize("failures", [1, 2])
def test_start_and_finish_are_written_apart_when_they_could_not_be_together(
    orch: Orchestrator, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    """The group is rolled back, and each write of it is run again alone."""
    together, left = task_runs.start_and_complete, [failures]

    def fail_first(*args: Any, **kwargs: Any) -> Any:
        answer = together(*args, **kwargs)
        if left[0]:
            left[0] -= 1
            raise errors.ConstraintViolated("not together")
        return answer

    monkeypatch.setattr(task_runs, "start_and_complete", fail_first)

    # Those whose start is on disk before they end have no part in it.
    @task
    def work(number: int) -> int:
        return number

    numbers = range(100)
    assert [work(number) for number in numbers] == list(numbers)

    assert left == [0]
    runs = list(orch.task_runs.find())
    assert len(runs) == 100
    for run in runs:
        assert states(run) == ["Pending", "Running", "Completed"]


# -- killed between start and finish -------------------------------------------------------------


@pytest.fixture
def killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A database whose process was killed inside its third task."""
    monkeypatch.setenv("EMBEDDED_ORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TRACE", str(tmp_path / "trace"))
    url = str(tmp_path / "orch.db")
    at = stopped_at("in work 2", url, "in_sequence", 4, trace=tmp_path / "trace")
    with at as process:
        process.kill()
        yield url


@pytest.mark.slow
def test_kill_between_start_and_finish_loses_at_most_the_start(killed: str) -> None:
    with opened(killed) as orch:
        runs = list(orch.task_runs.find())[::-1]

        ends = [run.state.name for run in runs if run.state]
        assert ends[:2] == ["Completed", "Completed"]
        assert ends[2:] in ([], ["Crashed"])
        assert states(the_flow_run(orch)) == ["Pending", "Running", "Crashed"]
        assert crashing.in_sequence.resume(the_flow_run(orch).id) == [
            {number: (number, number * 10)} for number in range(4)
        ]


DIES = """
import os, signal, sys
import embedded_orch
from embedded_orch import flow, task

def die():
    os.kill(os.getpid(), signal.SIGKILL)

die = task(record_start=sys.argv[2])(die)

@flow
def report():
    die()

with embedded_orch.open(sys.argv[1]):
    if sys.argv[3:]:
        report.resume(sys.argv[3])
    else:
        report()
"""


@pytest.mark.slow
def test_task_that_kills_its_process_is_named_when_its_start_is_awaited(
    tmp_path: Path,
) -> None:
    path = tmp_path / "orch.db"

    done = run_forked(DIES, path, "before")

    assert done.returncode == -9
    with embedded_orch.open(path, **QUICK) as orch:
        [run] = orch.task_runs.find()
        assert states(run) == ["Pending", "Running", "Crashed"]


@pytest.mark.slow
def test_task_that_kills_its_process_again_is_named_in_the_resumed_run(tmp_path: Path) -> None:
    path = tmp_path / "orch.db"
    assert run_forked(DIES, path, "announced").returncode == -9
    with embedded_orch.open(path, **QUICK) as orch:
        run_id = the_flow_run(orch).id

    assert run_forked(DIES, path, "announced", run_id).returncode == -9

    with embedded_orch.open(path, **QUICK) as orch:
        [run] = orch.task_runs.find()
        assert states(run)[-2:] in (["Running", "Crashed"], ["Retrying", "Crashed"])
