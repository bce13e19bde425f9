"""What becomes of runs whose process dies, is stopped, or was taken for dead and comes back."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from embedded_orch import Orchestrator, errors, flow, task
from embedded_orch.concurrency.sync import concurrency
from embedded_orch.engine import recovering
from embedded_orch.engine.recovering import Recovery
from embedded_orch.engine.watching import Watch
from embedded_orch.orchestrator import registry
from embedded_orch.process import Process, process_facts
from tests import owners
from tests.engine.waiting import passed, until
from tests.opened import opened, states, the_flow_run
from tests.owners import WRITES, facts_of, owning, owning_elsewhere
from tests.store.builders import a_flow_run, an_owner

pytestmark = pytest.mark.slow
SHARED = pytest.mark.parametrize("url", ["file", "postgres"], indirect=True)
SERVER = pytest.mark.parametrize("url", ["postgres"], indirect=True)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EMBEDDED_ORCH_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def orch(url: str, home: Path) -> Iterator[Orchestrator]:
    with opened(url) as orchestrator:
        orchestrator.concurrency_limits.create("db", 1)
        yield orchestrator


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """The home of another host."""
    return tmp_path / "elsewhere"


def everything(orchestrator: Orchestrator) -> list[object]:
    """What a fenced owner could have changed."""
    return [
        [tuple(row) for row in orchestrator.sql(f"select * from {table} order by 1, 2")]
        for table in (
            "flow_run",
            "flow_run_state",
            "task_run",
            "task_run_state",
            "variable",
            "artifact",
            "slot_claim",
        )
    ]


# -- one host --------------------------------------------------------------------------------------


@SHARED
def test_the_runs_of_a_killed_process_are_recovered_without_a_time_out(
    orch: Orchestrator, url: str
) -> None:
    with owning(url, "holding") as process:
        process.kill()

        found = orch.recover()

    run = the_flow_run(orch)
    assert found.crashed == (run.id,)
    assert len(found.processes) == 1
    assert states(run) == ["Pending", "Running", "Crashed"]
    assert str(process.process.pid) in str(run.state and run.state.message)


@SHARED
def test_what_was_recovered_is_not_recovered_again(orch: Orchestrator, url: str) -> None:
    with owning(url, "holding") as process:
        process.kill()
        orch.recover()
        before = everything(orch)

        assert not orch.recover()
        assert not orch.recover(the_flow_run(orch).id)
        assert str(orch.recover()) == "nothing to recover"
        assert everything(orch) == before


@SHARED
def test_recovery_of_one_run_is_that_of_its_process(orch: Orchestrator, url: str) -> None:
    with owning(url, "holding") as process, owning(url, "resumable") as other:
        process.kill()
        other.kill()
        run = the_flow_run(orch, flow_name="holding")

        found = asyncio.run(orch.arecover(str(run.id)))

    assert found.crashed == (run.id,)
    assert the_flow_run(orch, flow_name="resumable").id in orch.recover().resumable


@SHARED
def test_run_that_asks_to_be_resumed_is_left_to_be_resumed(orch: Orchestrator, url: str) -> None:
    with owning(url, "resumable") as process:
        process.kill()
        run = the_flow_run(orch)

        assert orch.recover().resumable == (run.id,)

    taken: list[str] = []

    @flow(name="resumable", on_crash="resume")
    def resumable(what: str) -> None:
        taken.append(what)

    orch.resume_crashed(resumable)
    assert (taken, the_flow_run(orch).state_name) == (["task"], "Completed")


@SHARED
def test_task_run_outside_of_flows_of_a_killed_process_is_crashed(
    orch: Orchestrator, url: str
) -> None:
    """Seen to be Running for ever without an owner of its own."""
    with owning(url, "alone") as process:
        until(lambda: orch.task_runs.count(state_type="RUNNING") == 1, "its start is on record")
        process.kill()

        found = orch.recover()

    [run] = list(orch.task_runs.find())
    assert found.task_runs == (run.id,)
    assert states(run) == ["Pending", "Running", "Crashed"]


def test_task_run_outside_of_flows_goes_with_its_orchestrator(url: str, tmp_path: Path) -> None:
    entered, left = threading.Event(), threading.Event()

    @task
    def alone() -> None:
        entered.set()
        passed(left)

    def work() -> None:
        with pytest.raises(errors.OrchestratorError):
            alone()

    with opened(url) as keeper:
        with opened(url) as orchestrator:
            if url == ":memory:":
                keeper = orchestrator
            thread = threading.Thread(target=orch_context(orchestrator, work))
            thread.start()
            passed(entered)
            orchestrator.engine.database.read(lambda tx: None)
            orchestrator.engine.recovery.give_up()
            [run] = list(keeper.task_runs.find())
            assert run.state_name == "Crashed"
            left.set()
            thread.join()


def orch_context(orchestrator: Orchestrator, work: Any) -> Any:
    def run() -> None:
        with orchestrator:
            # Not closed by this block, which is not its outermost one.
            work()

    return run


@SHARED
def test_living_process_keeps_its_runs(orch: Orchestrator, url: str) -> None:
    with owning(url, "holding") as process:
        run = the_flow_run(orch)

        assert not orch.recover()
        with pytest.raises(errors.RunNotRecoverable, match="which lives"):
            orch.recover(run.id)
        assert process.go_on() == ("wrote", "ended well")


@SHARED
def test_stopped_process_keeps_its_runs_until_they_are_taken_by_force(
    orch: Orchestrator, url: str
) -> None:
    with owning(url, "holding") as process:
        process.stop()
        run = the_flow_run(orch)
        assert not orch.recover()
        with pytest.raises(errors.RunNotRecoverable):
            orch.recover(run.id)

        assert orch.recover(run.id, force=True).crashed == (run.id,)

        assert states(run) == ["Pending", "Running", "Crashed"]
        assert not orch.recover(run.id, force=True)
        process.wake()
        assert process.go_on() == ("OwnershipLost", "ended OwnershipLost")


@pytest.mark.parametrize("what", [what for what in WRITES if what not in ("log", "nothing")])
@SHARED
def test_fenced_process_changes_nothing_and_learns_it_at_its_next_write(
    orch: Orchestrator, url: str, what: str
) -> None:
    """Seen to write when the epoch is not asked for, one case for each place that asks."""
    with owning(url, "holding", what) as process:
        process.stop()
        orch.recover(the_flow_run(orch).id, force=True)
        before = everything(orch)

        process.wake()

        assert process.go_on() == ("OwnershipLost", "ended OwnershipLost")
        assert everything(orch) == before


@pytest.mark.parametrize("what", ["log", "nothing"])
@SHARED
def test_fenced_flow_that_writes_nothing_refusable_ends_with_the_loss(
    orch: Orchestrator, url: str, what: str
) -> None:
    """A line that was logged is what happened, and is kept."""
    with owning(url, "holding", what) as process:
        process.stop()
        orch.recover(the_flow_run(orch).id, force=True)
        before = everything(orch)

        process.wake()

        assert process.go_on()[1] == "ended OwnershipLost"
        assert everything(orch) == before


@SHARED
def test_fenced_flow_that_never_writes_is_interrupted(orch: Orchestrator, url: str) -> None:
    with owning(url, "busy") as process:
        orch.recover(the_flow_run(orch).id, force=True)

        assert process.line() == "ended OwnershipLost"
        assert states(the_flow_run(orch))[-1] == "Crashed"


@SHARED
def test_run_that_was_taken_can_be_resumed_here_at_once(orch: Orchestrator, url: str) -> None:
    with owning(url, "holding") as process:
        process.stop()
        run = the_flow_run(orch)
        orch.recover(run.id, force=True)

        @flow(name="holding")
        def holding(what: str) -> str:
            return what

        assert holding.resume(run.id) == "task"
        process.wake()
        assert process.go_on()[1] == "ended OwnershipLost"
        assert states(run) == ["Pending", "Running", "Crashed", "Running", "Completed"]


@SHARED
def test_run_that_asks_to_be_resumed_and_was_taken_is_resumed_by_itself(
    orch: Orchestrator, url: str
) -> None:
    with owning(url, "resumable") as process:
        process.stop()
        run = the_flow_run(orch)
        assert orch.recover(run.id, force=True).resumable == (run.id,)

        @flow(name="resumable", on_crash="resume")
        def resumable(what: str) -> str:
            return what

        assert [each.id for each in orch.resume_crashed(resumable)] == [run.id]


@SHARED
def test_run_that_a_flow_called_is_taken_with_its_caller(orch: Orchestrator, url: str) -> None:
    with owning(url, "calling") as process:
        process.stop()
        called = the_flow_run(orch, flow_name="inner")
        caller = the_flow_run(orch, flow_name="calling")

        found = orch.recover(called.id, force=True)

        assert found.crashed == (caller.id, called.id)
        assert {run.state_name for run in orch.task_runs.find()} == {"Crashed"}
        process.wake()
        assert process.go_on() == ("OwnershipLost", "ended OwnershipLost")


@SHARED
def test_slots_of_a_run_that_was_taken_are_free(orch: Orchestrator, url: str) -> None:
    with owning(url, "with_slot") as process:
        process.stop()
        with pytest.raises(TimeoutError), concurrency("db", timeout_seconds=0.01):
            pass

        orch.recover(the_flow_run(orch).id, force=True)

        with concurrency("db", timeout_seconds=0.01):
            process.wake()
            assert process.go_on() == ("OwnershipLost", "ended OwnershipLost")
            # It gave back nothing that is not its own.
            assert orch.concurrency_limits.get("db").active_slots == 1


@pytest.fixture
def unwatched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a run that is taken would be interrupted before it comes to its next write."""
    monkeypatch.setattr(Watch, "look", lambda self: None)


@pytest.mark.usefixtures("unwatched")
def test_run_of_this_very_process_can_be_taken(url: str) -> None:
    with opened(url) as orch:

        @task
        def work() -> None:
            return None

        @flow
        def doomed() -> None:
            orch.recover(the_flow_run(orch).id, force=True)
            work()

        with pytest.raises(errors.OwnershipLost):
            doomed()

        assert states(the_flow_run(orch)) == ["Pending", "Running", "Crashed"]
        assert orch.task_runs.count() == 0


@pytest.mark.usefixtures("unwatched")
def test_flow_run_is_not_made_for_a_caller_that_was_taken(url: str) -> None:
    """Between the start of the task run that tracks it, and its own. Seen to be made."""
    with opened(url) as orch:

        def take() -> str:
            orch.recover(the_flow_run(orch).id, force=True)
            return "late"

        @flow(flow_run_name=take)
        def called() -> None:
            return None

        @flow
        def doomed() -> None:
            called()

        with pytest.raises(errors.OwnershipLost):
            doomed()

        assert [run.flow_name for run in orch.flow_runs.find()] == ["doomed"]


def test_force_asks_for_a_run(url: str) -> None:
    with opened(url) as orch, pytest.raises(errors.ConfigurationError, match="say which"):
        orch.recover(force=True)


def test_unknown_run_is_not_recovered(url: str) -> None:
    with opened(url) as orch:
        with pytest.raises(errors.RunNotFound):
            orch.recover("no id")
        with pytest.raises(errors.RunNotFound):
            orch.recover(orch.engine.process.new_id())


def test_run_that_nobody_owns_has_nothing_to_recover(url: str) -> None:
    with opened(url) as orch:

        @flow
        def done() -> None:
            return None

        done()

        assert not orch.recover(the_flow_run(orch).id, force=True)


# -- who died --------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["file"], indirect=True)
def test_pid_that_is_another_process_by_now_keeps_nothing_alive(orch: Orchestrator) -> None:
    """Where locks cannot tell. Seen to be taken for alive without the start time."""
    mine = orch.engine.owner._facts()
    fields = {
        "host": mine.host,
        "boot_id": mine.boot_id,
        "life_file": mine.life_file,
        "pid": os.getpid(),
    }
    started = process_facts().start_ticks
    reused = an_owner(orch.database, orch.engine.process, pid_started=1, **fields)
    true = an_owner(orch.database, orch.engine.process, pid_started=started, **fields)
    run_id = a_flow_run(orch.database, orch.engine.process, owner_id=reused.id)
    a_flow_run(orch.database, orch.engine.process, owner_id=true.id)

    found = orch.recover()

    assert (found.crashed, found.processes) == ((run_id,), (reused.id,))


@pytest.mark.parametrize("url", ["file"], indirect=True)
def test_who_runs_a_flow_by_a_link_to_the_file_is_seen_to_live(
    orch: Orchestrator, url: str, tmp_path: Path
) -> None:
    """Seen to fail when each looked beside the name that it had opened: the run was Crashed."""
    link = tmp_path / "link.db"
    link.symlink_to(url)
    with owning(str(link), "holding") as process:
        assert not orch.recover()
        assert process.go_on() == ("wrote", "ended well")


@pytest.mark.parametrize("url", ["file"], indirect=True)
def test_containers_that_share_a_file_are_told_apart_by_the_lock(
    orch: Orchestrator, url: str
) -> None:
    """Another host name and a pid that means nothing here; the kernel and the file are the same."""
    code = {"HOST_NAME": "container"}
    with owning(url, "holding", **code) as process:
        [row] = [tuple(each) for each in orch.sql("select id from process where ended is null")]
        with orch.session(begin_transaction=True) as session:
            session.execute("update process set host = 'container', pid = 1 where ended is null")

        assert not orch.recover()
        process.kill()
        assert len(orch.recover().crashed) == 1
        assert row is not None


@pytest.mark.soak
@pytest.mark.parametrize("url", ["file"], indirect=True)
def test_processes_of_other_pid_namespaces_live_and_die_each_for_itself(
    orch: Orchestrator, url: str
) -> None:
    """As in two containers on one file: each is process 1, and that is another process here."""
    container = ("unshare", "--pid", "--mount-proc", "--kill-child", "--fork")
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare here, which makes namespaces")
    if subprocess.run([*container, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this user may not make namespaces")
    with (
        owning(url, "holding", within=container) as first,
        owning(url, "holding", within=container),
    ):
        pids = [pid for (pid,) in orch.sql("select pid from process where ended is null")]
        assert pids.count(1) == 2
        assert not orch.recover()

        first.kill()
        found: list[Any] = []
        # It dies a moment after the program that made its namespace.
        until(lambda: found.append(orch.recover()) or found[-1], "the death of the first")

        assert (len(found[-1].crashed), len(found[-1].processes)) == (1, 1)
        assert not orch.recover()
        assert orch.flow_runs.count(state_type="RUNNING") == 1


@SERVER
def test_host_that_was_started_again_has_lost_its_runs_at_once(
    orch: Orchestrator, url: str
) -> None:
    mine = orch.engine.owner._facts()
    before = an_owner(
        orch.database, orch.engine.process, host=mine.host, boot_id="before", lease=60_000_000
    )
    run_id = a_flow_run(orch.database, orch.engine.process, owner_id=before.id)

    assert orch.recover().crashed == (run_id,)


@SERVER
def test_life_files_of_two_hosts_with_one_inode_are_two(orch: Orchestrator, url: str) -> None:
    """Machines made from one image. Seen to be taken for dead by the lock of another kernel."""
    owners.child()
    mine = orch.engine.owner._facts()
    twin = an_owner(
        orch.database,
        orch.engine.process,
        host="twin",
        boot_id="of the twin",
        life_file=mine.life_file,
        life_slot=5,
        lease=60_000_000,
    )
    a_flow_run(orch.database, orch.engine.process, owner_id=twin.id)

    assert not orch.recover()


# -- other hosts -----------------------------------------------------------------------------------


@SERVER
def test_process_of_another_host_keeps_its_runs_while_it_is_heard_of(
    orch: Orchestrator, url: str, elsewhere: Path
) -> None:
    """Its lease of a second is renewed; that is seen twice."""
    with owning_elsewhere(url, "holding", home=elsewhere) as process:
        heard: list[int] = []
        while len(set(heard)) < 3:
            heard.append(orch.sql("select max(expires) from process").scalar())
            assert not orch.recover()
        assert process.go_on() == ("wrote", "ended well")


@SERVER
def test_process_of_another_host_that_is_killed_loses_its_runs_with_its_lease(
    orch: Orchestrator, url: str, elsewhere: Path
) -> None:
    with owning_elsewhere(url, "with_slot", home=elsewhere) as process:
        process.kill()
        run = the_flow_run(orch)

        until(lambda: orch.recover().crashed == (run.id,), "its lease is over")

        assert "was not heard of" in str(the_flow_run(orch).state.message)
        assert orch.concurrency_limits.get("db").active_slots == 0


@pytest.mark.parametrize("what", ["task", "variable", "nothing"])
@SERVER
def test_process_of_another_host_that_is_stopped_for_longer_than_its_lease_is_fenced(
    orch: Orchestrator, url: str, elsewhere: Path, what: str
) -> None:
    with owning_elsewhere(url, "holding", what, home=elsewhere) as process:
        process.stop()
        run = the_flow_run(orch)
        until(lambda: orch.recover().crashed == (run.id,), "its lease is over")

        process.wake()

        assert process.go_on()[1] == "ended OwnershipLost"
        assert states(run) == ["Pending", "Running", "Crashed"]
        assert list(orch.variables.find()) == []


@SERVER
def test_clock_of_a_host_is_not_asked_for_leases(url: str, home: Path, elsewhere: Path) -> None:
    """This host's clock is a day ahead."""
    ahead = Process(clock=lambda: Process().now() + 86_400_000_000)
    with (
        owning_elsewhere(url, "holding", home=elsewhere) as process,
        opened_as(url, ahead) as orch,
    ):
        assert not orch.recover()
        assert process.go_on() == ("wrote", "ended well")


def opened_as(url: str, process: Process) -> Any:
    from embedded_orch.orchestrator import open_orchestrator

    return open_orchestrator(url, process=process)


@SERVER
def test_process_that_was_taken_for_dead_may_begin_anew(
    url: str, home: Path, elsewhere: Path
) -> None:
    """What it begins then has an owner that is believed, and is recovered when that dies."""
    other = Process(facts=lambda: facts_of("elsewhere"))
    with opened(url) as orch, opened_as(url, other) as back:
        with back:
            owners.child()
        with orch.session(begin_transaction=True) as session:
            session.execute("update process set expires = 0, lease = 60000000")
        assert orch.recover().processes == (back.engine.owner.id,)

        with back:
            owners.child()

        rows = orch.sql("select ended, epoch from process")
        assert [tuple(row) for row in rows] == [(None, 1)]
        assert not orch.recover()


@SERVER
def test_process_that_was_taken_for_dead_is_back_with_its_next_renewal(
    url: str, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = Process(facts=lambda: facts_of("elsewhere"))
    with opened(url) as orch, opened_as(url, other) as back:
        with back:
            owners.child()
        with orch.session(begin_transaction=True) as session:
            session.execute("update process set expires = 0, lease = 60000000")
        orch.recover()

        back.engine.leases.renew()

        assert "was not heard of" in caplog.text
        assert not orch.recover()
        assert orch.sql("select count(*) from process where ended is null").scalar() == 1


# -- several at once, and little at a time ---------------------------------------------------------


FIND = """
    import sys
    from embedded_orch.engine.recovering import Recovery
    from embedded_orch.orchestrator import open_orchestrator

    Recovery.begin = lambda self, at_once: None
    with open_orchestrator(sys.argv[1]) as orch:
        print("holds", flush=True)
        sys.stdin.readline()
        print(len(orch.recover().crashed), flush=True)
    """


@SHARED
def test_several_finders_recover_once(orch: Orchestrator, url: str) -> None:
    from tests.test_concurrency_processes import holds, program

    process = orch.engine.process
    dead = an_owner(orch.database, process, life_file=None, host=process_facts().host, boot_id="-")
    runs = [a_flow_run(orch.database, process, owner_id=dead.id) for _ in range(40)]

    with program(FIND, url) as a, program(FIND, url) as b, program(FIND, url) as c:
        finders = [a, b, c]
        assert all(holds(finder) for finder in finders)
        for finder in finders:
            assert finder.stdin is not None
            finder.stdin.write("\n")
            finder.stdin.flush()
        found = [int(finder.stdout.readline()) for finder in finders if finder.stdout]

    assert sum(found) == len(runs)
    assert {tuple(states(run)) for run in orch.flow_runs.find()} == {
        ("Pending", "Running", "Crashed")
    }


@SHARED
def test_opening_sets_one_batch_right_and_a_thread_the_rest(
    orch: Orchestrator, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovering, "BATCH", 3)
    process = orch.engine.process
    dead = an_owner(orch.database, process, host=process_facts().host, boot_id="before")
    for _ in range(8):
        a_flow_run(orch.database, process, owner_id=dead.id)
    going_on = threading.Event()
    original = Recovery._sweep_until_closed
    monkeypatch.setattr(
        Recovery,
        "_sweep_until_closed",
        lambda self: (passed(going_on), original(self)),
    )

    with opened(url) as second:
        assert second.flow_runs.count(state_type="CRASHED") == 3
        going_on.set()
        until(lambda: second.flow_runs.count(state_type="CRASHED") == 8, "the thread is done")


def test_first_flow_does_not_wait_for_a_recovery(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(Recovery, "begin", lambda self, *, at_once: asked.append(at_once))

    try:
        owners.child()
    finally:
        registry.close_all()

    assert asked == [False]


@SHARED
def test_closing_stops_a_recovery_between_two_transactions(
    orch: Orchestrator, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovering, "BATCH", 1)
    process = orch.engine.process
    dead = an_owner(orch.database, process, host=process_facts().host, boot_id="before")
    for _ in range(4):
        a_flow_run(orch.database, process, owner_id=dead.id)
    closing = threading.Event()
    original = Recovery._sweep_until_closed
    monkeypatch.setattr(
        Recovery, "_sweep_until_closed", lambda self: (passed(closing), original(self))
    )

    with opened(url) as second:
        second.engine.recovery._is_closed = True
        closing.set()

    assert orch.flow_runs.count(state_type="CRASHED") == 1
    assert len(orch.recover().crashed) == 3


# -- loops -----------------------------------------------------------------------------------------


@SHARED
def test_run_that_is_at_work_notices_that_another_process_died(
    orch: Orchestrator, url: str
) -> None:
    """Seen to stay Running without the look of the watch."""
    with owning(url, "holding") as process:

        @flow
        def working() -> None:
            process.kill()
            until(
                lambda: the_flow_run(orch, flow_name="holding").state_name == "Crashed",
                "somebody looks",
            )

        working()


# -- queues ----------------------------------------------------------------------------------------


def test_claimed_run_of_a_dead_process_is_back_in_its_queue(url: str) -> None:
    from datetime import UTC, datetime

    due = datetime(2026, 1, 1, tzinfo=UTC)
    with opened(url) as orch:
        orch.store.upsert_work_pool("pool", concurrency_limit=1)
        [run_id] = orch.store.enqueue("report", pool_name="pool", times=[due])
        [claimed] = orch.store.claim("pool")
        assert orch.store.claim("pool") == []

        orch.engine.recovery.give_up()

        run = orch.flow_runs.get(run_id)
        assert states(run) == ["Scheduled", "Pending", "Scheduled"]
        assert run.next_scheduled_start_time == due
        [again] = orch.store.claim("pool")
        assert (again.id, again.epoch > claimed.epoch) == (run_id, True)
