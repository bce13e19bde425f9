"""Every commit happens and raises, and yet each caller is told what is true.

A disk or a connection may fail in a COMMIT after it has become durable. Here that happens to every
write of every operation, once: it is committed, and an error is told. The writer then runs the same
operations again, and they must find by their ids what they have written. What cannot be run again,
since it holds SQL of a user, is asked of a server, and with a file tells the user; what that holds
is found when the run goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest

import embedded_orch
from embedded_orch import FlowRun, Orchestrator, errors, flow, task
from embedded_orch.db.opening import OpenDatabases
from embedded_orch.db.postgres import database as postgres_database
from embedded_orch.db.postgres.running import Runner, _TryAgain
from embedded_orch.db.sqlite.writer import Writer
from embedded_orch.engine import removing
from embedded_orch.engine.removing import Removal
from embedded_orch.engine.retention import Retention
from embedded_orch.input import create_flow_run_input, delete_flow_run_input, send_input
from embedded_orch.process import Process
from embedded_orch.states import Running
from embedded_orch.store import caching
from embedded_orch.store import retention as store
from embedded_orch.store.retention import Removed
from tests.faults.kill_points import judge, prepare
from tests.faults.observing import Lines
from tests.faults.operations import OPERATIONS
from tests.faults.watched_flows import watched_by

# Their tasks commit SQL of their own, which nobody but they can run again.
OWN_SQL = {"transaction", "async"}
# What is left by processes that died is made in those; opening writes nothing that is queued.
LEFT_OUT = {"opening", "migration", "recovery", "cancelling the dead"}
AGAIN = [name for name in OPERATIONS if name not in OWN_SQL | LEFT_OUT]


class Doubt:
    """Has commits raise that have happened; each second one, which settles the first, is told.

    Attributes:
        raised: how many.
        between: what somebody else does after a commit that raises and before it is repeated.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, sessions: bool) -> None:
        self.raised = 0
        self.between: Callable[[], object] = lambda: None
        self._is_between = False
        # What is run again is so in the thread in which it was run.
        self._here = threading.local()
        monkeypatch.setattr(Writer, "_in_one_transaction", self._in_group())
        monkeypatch.setattr(Runner, "_run_in", self._on_server())
        if sessions:
            monkeypatch.setattr(Writer, "commit", self._in_session())
            monkeypatch.setattr(postgres_database, "commit", self._in_session_on_server())

    def _is_due(self) -> bool:
        if self._is_between:
            return False
        is_due = not getattr(self._here, "is_settling", False)
        self._here.is_settling = is_due
        self.raised += is_due
        if is_due:
            # What that commits is beyond doubt.
            self._is_between = True
            self.between()
            self._is_between = False
        return is_due

    def _in_group(self) -> Callable[..., None]:
        real = Writer._in_one_transaction

        def commit_and_raise(writer: Writer, group: list[Any]) -> None:
            real(writer, group)
            if self._is_due():
                raise errors.CommitOutcomeUnknown("the disk fails")

        return commit_and_raise

    def _on_server(self) -> Callable[..., Any]:
        real = Runner._run_in

        def commit_and_raise(runner: Runner, *args: Any, is_read: bool) -> Any:
            answer = real(runner, *args, is_read=is_read)
            if not is_read and self._is_due():
                raise _TryAgain("the connection is lost", in_doubt=True)
            return answer

        return commit_and_raise

    def _in_session(self) -> Callable[..., None]:
        real = Writer.commit

        def commit_and_raise(writer: Writer) -> None:
            real(writer)
            self.raised += 1
            raise errors.CommitOutcomeUnknown("the disk fails")

        return commit_and_raise

    def _in_session_on_server(self) -> Callable[..., None]:
        real = postgres_database.commit

        def commit_and_raise(connection: Any) -> None:
            real(connection)
            self.raised += 1
            raise psycopg.errors.StatementCompletionUnknown("the connection is lost")

        return commit_and_raise


@pytest.fixture
def lasting_url(url: str) -> str:
    if url == ":memory:":
        pytest.skip("it is looked at when it was closed")
    return url


@pytest.fixture
def orch(url: str) -> Iterator[Orchestrator]:
    with embedded_orch.open(url) as orchestrator:
        yield orchestrator


@pytest.mark.parametrize("name", AGAIN)
def test_commit_that_raises_although_it_is_durable_is_settled(
    name: str, lasting_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    operation = OPERATIONS[name]
    if lasting_url.startswith("postgresql") and not operation.is_on_server:
        pytest.skip("there is no such thing on a server")
    witness = Lines(tmp_path / "witness")
    prepare(operation, lasting_url)

    with monkeypatch.context() as patched:
        doubt = Doubt(patched, sessions=False)
        with (
            operation.arranged(),
            watched_by(witness),
            embedded_orch.open(lasting_url) as orch,
        ):
            operation.act(orch)

    assert doubt.raised > 1
    assert judge(operation, lasting_url, witness) == []


@task
def step(number: int) -> int:
    return number


@flow
def errand() -> None:
    for number in range(4):
        step(number)


@flow
def nothing() -> None:
    """Its runs are there to be changed."""


class Answers(NamedTuple):
    """A write of a person, and what it answers when it is made for the first time."""

    write: Callable[[Orchestrator, FlowRun], object]
    answer: object


WRITES = {
    "a variable set": Answers(lambda orch, run: orch.variables.set("new", 1).value, 1),
    "one changed": Answers(lambda orch, run: orch.variables.set("old", 2, overwrite=True).value, 2),
    "one unset": Answers(lambda orch, run: orch.variables.unset("old"), True),
    "a limit made": Answers(lambda orch, run: orch.concurrency_limits.create("new", 3).limit, 3),
    "one changed or made": Answers(
        lambda orch, run: orch.concurrency_limits.upsert("old", 4).limit, 4
    ),
    "one renamed": Answers(
        lambda orch, run: orch.concurrency_limits.update("old", new_name="newer").name, "newer"
    ),
    "one deleted": Answers(lambda orch, run: orch.concurrency_limits.delete("old"), True),
    "a run created": Answers(
        lambda orch, run: orch.flow_runs.create(nothing).state.name, "Pending"
    ),
    "one created by its key": Answers(
        lambda orch, run: orch.flow_runs.create(nothing, idempotency_key="key").flow_name,
        "nothing",
    ),
    "a state set": Answers(
        lambda orch, run: orch.flow_runs.set_state(run.id, Running()).status.value, "ACCEPT"
    ),
    "a run cancelled": Answers(
        lambda orch, run: orch.flow_runs.cancel(run.id).state.name, "Cancelled"
    ),
    "an input sent": Answers(lambda orch, run: send_input(5, run.id), None),
    "an input removed": Answers(lambda orch, run: delete_flow_run_input("old", run.id), None),
}


@pytest.mark.parametrize("what", WRITES)
def test_write_of_a_person_that_is_run_again_answers_as_it_would_have(
    what: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail for what removes: it said that there had been nothing to remove."""
    with embedded_orch.open(url) as orch:
        orch.variables.set("old", 1)
        orch.concurrency_limits.create("old", 1)
        run = orch.flow_runs.create(nothing)
        create_flow_run_input("old", 1, run.id)

        with monkeypatch.context() as patched:
            doubt = Doubt(patched, sessions=False)
            answer = WRITES[what].write(orch, run)

    assert answer == WRITES[what].answer
    assert doubt.raised > 0


def test_removal_that_is_run_again_counts_and_removes_all(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to count nothing, and to leave the rest of a run that takes several transactions."""
    monkeypatch.setattr(removing, "_ROWS", 3)
    with embedded_orch.open(url) as orch:
        for _ in range(2):
            errand()
        # What they have logged is committed.
        before = (len(list(orch.logs.find())), orch.task_runs.count(), orch.flow_runs.count())

        with monkeypatch.context() as patched:
            doubt = Doubt(patched, sessions=False)
            removed = orch.prune(timedelta(0))
        with orch.session() as session:
            left = session.execute("select count(*) from removal").scalar()

        assert (removed.log_lines, removed.task_runs, removed.flow_runs) == before
        assert (orch.flow_runs.count(), left) == (0, 0)
    assert doubt.raised > 1


def test_removals_of_two_processes_of_which_one_is_in_doubt_count_each_row_once(
    lasting_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail with one marker for all: what the first had removed was counted by nobody."""
    monkeypatch.setattr(removing, "_ROWS", 3)
    nobody = Process()
    databases = OpenDatabases(nobody)
    with embedded_orch.open(lasting_url) as orch:
        for _ in range(2):
            errand()
        before = (len(list(orch.logs.find())), orch.task_runs.count(), orch.flow_runs.count())
        other = databases.open(lasting_url, {})
        now = orch.engine.process.now() + 1
        everything = Retention().older_than(timedelta(0))
        others = Removal(other.database, everything, now, nobody.new_id).steps()
        counted = Removed()

        with monkeypatch.context() as patched:
            doubt = Doubt(patched, sessions=False)
            doubt.between = lambda: counted.add(next(others, Removed()))
            counted.add(orch.prune(timedelta(0)))
        databases.close(other)

        assert (counted.log_lines, counted.task_runs, counted.flow_runs) == before
        assert orch.flow_runs.count() == 0
    assert doubt.raised > 1


def test_removals_that_are_over_leave_few_markers(
    orch: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_MOST_MARKERS", 2)
    for _ in range(4):
        orch.prune(timedelta(0))

    with orch.session() as session:
        left = "select count(*) from upkeep where name like 'last step of removal %'"
        assert session.execute(left).scalar() == 2


@task(cache_key_fn=lambda context, inputs: "one key")
def costly() -> int:
    computed.append(1)
    return 5


computed: list[int] = []


def test_cached_result_that_is_gone_when_its_hit_is_run_again_was_taken(
    lasting_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail without a look at the run: the function was called, and its value dropped."""
    computed.clear()
    databases = OpenDatabases(Process())
    with embedded_orch.open(lasting_url) as orch:
        costly()
        [first] = orch.task_runs.find()
        other = databases.open(lasting_url, {})

        with monkeypatch.context() as patched:
            doubt = Doubt(patched, sessions=False)
            doubt.between = lambda: other.database.write(
                lambda tx: caching.forget_of_run(tx, run_id=first.id)
            )
            state = costly(return_state=True)
        databases.close(other)

        assert (state.name, state.result()) == ("Cached", 5)
        assert computed == [1]
    assert doubt.raised > 0


@pytest.mark.parametrize("name", sorted(OWN_SQL))
def test_commit_of_own_sql_that_raises_is_told_or_known_and_never_made_twice(
    name: str, lasting_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    operation = OPERATIONS[name]
    witness = Lines(tmp_path / "witness")
    prepare(operation, lasting_url)

    with monkeypatch.context() as patched:
        doubt = Doubt(patched, sessions=True)
        # A server knows what became of a transaction, and is asked; a file does not.
        is_known = lasting_url.startswith("postgresql")
        told = nullcontext() if is_known else pytest.raises(errors.CommitOutcomeUnknown)
        with watched_by(witness), embedded_orch.open(lasting_url) as orch, told:
            operation.act(orch)

    assert doubt.raised > 1
    assert judge(operation, lasting_url, witness) == []


@pytest.mark.parametrize("step", ["start", "end"])
def test_a_called_flow_that_may_be_on_record_is_told_so_though_nothing_can_be_written_any_more(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail when the caller was told why the failure of the call could not be recorded."""
    path = tmp_path / "orch.db"
    commit = Writer._in_one_transaction
    fails, told = False, list[Exception]()

    def commit_and_fail(writer: Writer, group: list[Any]) -> None:
        if not fails:
            return commit(writer, group)
        if not told:
            told.append(errors.CommitOutcomeUnknown("the disk fails"))
            commit(writer, group)
            raise told[0]
        raise errors.TransactionFailed("no memory")

    @flow
    def called() -> None:
        nonlocal fails
        fails = True

    @flow
    def caller() -> None:
        nonlocal fails
        fails = step == "start"
        try:
            called()
        finally:
            fails = False

    monkeypatch.setattr(Writer, "_in_one_transaction", commit_and_fail)
    with (
        embedded_orch.open(path),
        pytest.raises(errors.CommitOutcomeUnknown, match="the disk fails"),
    ):
        caller()
    with embedded_orch.open(path) as orch:
        assert orch.flow_runs.find(flow_name="called") != []
