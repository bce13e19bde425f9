"""Resuming: runs whose process was killed, that failed, or that were never begun."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import anyio
import pytest

import embedded_orch
from embedded_orch import errors, flow, suspend_flow_run, task
from embedded_orch.orchestration.values import Proposal
from embedded_orch.states import Cancelled, StateType
from embedded_orch.store import flow_runs as store_runs
from embedded_orch.store import processes
from embedded_orch.store.processes import ProcessRow
from embedded_orch.store.task_runs import propose_task_state
from tests import crashing
from tests.crashing import stopped_at
from tests.engine.waiting import passed, until
from tests.opened import QUICK, Clock, flow_runs, opened, runs_of, states, the_flow_run, the_run_of
from tests.warm_parent import talking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from embedded_orch import Flow, FlowRun, Orchestrator, State

LOOPS = ("asyncio", "trio")
UNKNOWN = UUID(int=5)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where processes that share a server look for each other, and where their tasks write."""
    monkeypatch.setenv("EMBEDDED_ORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TRACE", str(tmp_path / "trace"))
    return tmp_path


@pytest.fixture
def trace(home: Path) -> Path:
    return home / "trace"


@pytest.fixture
def orch(url: str) -> Iterator[Orchestrator]:
    with opened(url, Clock()) as orchestrator:
        yield orchestrator


@pytest.fixture(params=["file", "postgres"])
def shared_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database that two processes can open."""
    if request.param == "file":
        return str(tmp_path / "data" / "orch.db")
    return str(request.getfixturevalue("postgres_server").new_database())


@pytest.fixture
def file_url(tmp_path: Path) -> str:
    return str(tmp_path / "data" / "orch.db")


def calls_in(trace: Path) -> Counter[str]:
    return Counter(trace.read_text().splitlines())


def all_of(count: int) -> list[dict[int, tuple[int, ...]]]:
    return [{number: (number, number * 10)} for number in range(count)]


def killed_at(point: str, url: str, name: str, count: int, trace: Path, **added: str) -> None:
    with stopped_at(point, url, name, count, trace=trace, **added) as process:
        process.kill()


def completed_works(orch: Orchestrator) -> set[str]:
    """What the killed process has on record as done."""
    keys = {crashing.work.task_key, crashing.work_later.task_key}
    done = [run for run in orch.task_runs.find(state_type="COMPLETED") if run.task_key in keys]
    return {f"work {next(iter(run.state.result()))}" for run in done if run.state}


def resumed(called: Flow[..., Any], run: FlowRun, loop: str) -> Any:
    if not called.is_async:
        return called.resume(run.id)

    async def main() -> Any:
        return await called.resume(run.id)

    return anyio.run(main, backend=loop)


# -- killed --------------------------------------------------------------------------------------

KILLS = [
    ("in_sequence", "in work 0", all_of(4)),
    ("in_sequence", "in work 2", all_of(4)),
    ("in_sequence", "after work 2", all_of(4)),
    ("mapped", "in work 9", all_of(12)),
    ("submitted", "in work 2", 66),
    ("submitted", "in total", 66),
    ("nested", "in work 3", [all_of(4)[:2], all_of(4)[2:]]),
    ("at_once", "in work 3", all_of(6)),
    ("retried", "in work 3", all_of(4)),
    ("parent", "in work 3", [all_of(4)[:2], all_of(4)[2:]]),
    ("parent_later", "in work 3", [all_of(4)[:2], all_of(4)[2:]]),
    ("retried_child", "in work 3", all_of(4)),
    ("pooled", "in work 3", all_of(4)),
    ("pooled_later", "in work 3", all_of(4)),
]
NAMED_KILLS = pytest.mark.parametrize(
    ("name", "point", "expected"), KILLS, ids=[f"{name} {point}" for name, point, _ in KILLS]
)


@pytest.mark.slow
@NAMED_KILLS
def test_killed_run_is_resumed_and_does_nothing_twice(
    shared_url: str, trace: Path, name: str, point: str, expected: Any
) -> None:
    check_killed_and_resumed(shared_url, trace, name, point, expected, "asyncio")


@NAMED_KILLS
def test_failed_run_of_any_kind_is_resumed_and_does_nothing_twice(
    orch: Orchestrator,
    trace: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    point: str,
    expected: Any,
) -> None:
    """The same in one process, and so in memory too: it fails at the point."""
    called: Flow[..., Any] = getattr(crashing, name)
    count = count_for(name, expected)
    monkeypatch.setenv("FAIL_AT", point)
    assert state_of_call(called, count).is_failed()
    monkeypatch.delenv("FAIL_AT")
    before, done = calls_in(trace), completed_works(orch)
    run = the_flow_run(orch, flow_name=called.name)

    assert resumed(called, run, "asyncio") == expected

    after = calls_in(trace)
    assert [line for line in done if after[line] != before[line]] == []
    # What was under way is done once more, and nothing else.
    assert all(after[line] - before[line] <= 1 for line in after if line != "attempt")


@pytest.mark.slow
def test_killed_run_on_trio_is_resumed_and_does_nothing_twice(file_url: str, trace: Path) -> None:
    check_killed_and_resumed(file_url, trace, "at_once", "in work 3", all_of(6), "trio")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("point", "end", "hooks"), [("in work 1", "Crashed", 1), ("in a hook", "Completed", 2)]
)
def test_hooks_of_a_killed_run_are_called_by_the_next_process(
    shared_url: str, trace: Path, point: str, end: str, hooks: int
) -> None:
    killed_at(point, shared_url, "with_hooks", 2, trace)

    with opened(shared_url) as orch:
        [run] = orch.run_owed_hooks(crashing.with_hooks)
        assert run.state_name == end
        assert orch.run_owed_hooks(crashing.with_hooks) == []

    assert calls_in(trace)[f"hook {end}"] == hooks


def count_for(name: str, expected: Any) -> int:
    """How much work it takes to give what is expected."""
    return 6 if name == "at_once" else 12 if name == "mapped" and len(expected) > 4 else 4


def state_of_call(called: Flow[..., Any], count: int) -> State[Any]:
    call = partial(called, count, return_state=True)
    state: State[Any] = anyio.run(call) if called.is_async else call()
    return state


def check_killed_and_resumed(
    url: str, trace: Path, name: str, point: str, expected: Any, loop: str
) -> None:
    count = count_for(name, expected)
    killed_at(point, url, name, count, trace, LOOP=loop)
    before = calls_in(trace)
    called: Flow[..., Any] = getattr(crashing, name)

    with opened(url) as orch:
        # Seen as crashed at once, by whoever opens the database.
        assert {run.state.name for run in orch.flow_runs.find() if run.state} <= {
            "Crashed",
            "Completed",
        }
        done = completed_works(orch)
        [run] = orch.flow_runs.find(flow_name=called.name)

        assert resumed(called, run, loop) == expected

        after = calls_in(trace)
        assert [line for line in done if (before[line], after[line]) != (1, 1)] == []
        if name not in ("submitted", "at_once", "pooled", "pooled_later") and point != "in work 0":
            # With those, the kill may come before anything was committed.
            assert done
        final = the_flow_run(orch, flow_name=called.name)
        assert final.state is not None
        assert final.state.result() == expected
        assert orch.task_runs.count(state_type="RUNNING") == 0
        assert orch.task_runs.count(state_name="Pending") == 0


@pytest.mark.slow
def test_hooks_of_a_task_that_a_kill_interrupted_are_called_by_who_resumes(
    shared_url: str, trace: Path
) -> None:
    killed_at("in hook of 1", shared_url, "telling", 3, trace)

    with opened(shared_url) as orch:
        assert crashing.telling.resume(parameters={"count": 3}) == [
            {number: number} for number in range(3)
        ]
        assert orch.task_runs.count(state_type="COMPLETED") == 3

    assert calls_in(trace) == {
        **{f"work {number}": 1 for number in range(3)},
        "told of 0": 1,
        "told of 1": 2,
        "told of 2": 1,
    }


@pytest.mark.slow
def test_run_of_a_living_process_is_refused_until_it_dies(shared_url: str, trace: Path) -> None:
    with stopped_at("in work 1", shared_url, "in_sequence", 3, trace=trace) as process:
        with opened(shared_url) as orch:
            run = the_flow_run(orch)
            refusal = f"running in process {process.pid} on"
            with pytest.raises(errors.RunNotResumable, match=refusal):
                crashing.in_sequence.resume(run.id)
            with pytest.raises(errors.RunNotResumable, match=refusal):
                crashing.in_sequence.resume(parameters={"count": 3})

            # A process that is stopped is not dead: there is no time-out that guesses.
            process.send_signal(signal.SIGSTOP)
            with pytest.raises(errors.RunNotResumable, match=refusal):
                crashing.in_sequence.resume(run.id)
            assert states(the_flow_run(orch)) == ["Pending", "Running"]

            process.kill()
            # Nobody has to open it again first.
            assert crashing.in_sequence.resume(run.id) == all_of(3)
            assert states(the_flow_run(orch)) == [
                "Pending",
                "Running",
                "Crashed",
                "Running",
                "Completed",
            ]


@pytest.mark.slow
def test_pid_that_lives_again_fools_nobody(file_url: str, trace: Path) -> None:
    """The dead owner's row is given the pid of a process that lives: this one."""
    killed_at("in work 1", file_url, "in_sequence", 3, trace)
    with opened(file_url) as orch:
        crashing.in_sequence.resume(the_flow_run(orch).id)
    killed_at("in work 3", file_url, "in_sequence", 4, trace)
    with opened(file_url) as orch:
        run = the_flow_run(orch, state_name="Crashed")
    reborn = embedded_orch.open(file_url, **QUICK)
    with reborn.session(begin_transaction=True) as session:
        session.execute("update process set pid = :pid, ended = null", {"pid": os.getpid()})
    reborn.close()

    with opened(file_url):
        assert crashing.in_sequence.resume(run.id) == all_of(4)


@pytest.mark.slow
def test_two_processes_resume_at_once_and_one_wins(file_url: str, trace: Path) -> None:
    killed_at("in work 1", file_url, "in_sequence", 3, trace)
    with opened(file_url) as orch:
        run_id = the_flow_run(orch).id
    code = """
import sys
import embedded_orch
from embedded_orch import errors
from tests.crashing import in_sequence
with embedded_orch.open(sys.argv[1]):
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        in_sequence.resume(sys.argv[2])
    except errors.RunNotResumable:
        print("lost", flush=True)
    else:
        print("won", flush=True)
"""
    with (
        talking(code, file_url, run_id, TRACE=str(trace)) as one,
        talking(code, file_url, run_id, TRACE=str(trace)) as other,
    ):
        for child in (one, other):
            assert child.stdout.readline() == "ready\n"
        for child in (one, other):
            print("go", file=child.stdin, flush=True)
        answers = [child.stdout.read() for child in (one, other)]

    # The second may also come when the first is done: then it has the stored value.
    assert "won\n" in answers
    assert calls_in(trace) == {"work 0": 1, "work 1": 2, "work 2": 1}


def test_threads_that_resume_at_once_have_one_winner(file_url: str) -> None:
    """Both have seen that nobody runs it; the epoch lets one of them have it."""

    @flow
    def report() -> int:
        if not may_end.is_set():
            raise ValueError("no")
        called.append(1)
        return 7

    may_end = threading.Event()
    called: list[int] = []
    barrier = threading.Barrier(3)

    def resume(orch: Orchestrator, run_id: UUID) -> Any:
        with orch:
            barrier.wait(30)
            try:
                return report.resume(run_id)
            except errors.RunNotResumable:
                return "lost"

    with opened(file_url) as orch:
        with pytest.raises(ValueError, match="no"):
            report()
        run = the_flow_run(orch)
        may_end.set()
        others = [embedded_orch.open(file_url) for _ in range(3)]
        with ThreadPoolExecutor(3) as pool:
            answers = list(pool.map(lambda other: resume(other, run.id), others))

    assert set(answers) <= {7, "lost"}
    assert called == [1]


@pytest.mark.slow
def test_runs_that_ask_for_it_are_resumed_by_whoever_offers(
    shared_url: str, trace: Path, caplog: pytest.LogCaptureFixture
) -> None:
    killed_at("in work 1", shared_url, "resuming", 3, trace)
    killed_at("in work 6", shared_url, "resuming_later", 7, trace)

    with opened(shared_url) as orch:
        # Not crashed: they wait.
        assert [states(run) for run in flow_runs(orch)] == [["Pending", "Running"]] * 2

        [first, second] = orch.resume_crashed()

        assert (first.flow_name, second.flow_name) == ("resuming", "resuming-later")
        for run, count in ((first, 3), (second, 7)):
            assert run.state is not None
            assert run.state.result() == all_of(count)
            assert states(run) == ["Pending", "Running", "Crashed", "Running", "Completed"]
        assert orch.resume_crashed() == []
    assert calls_in(trace)["work 0"] == 2
    assert calls_in(trace)["work 1"] == 3


@pytest.mark.slow
def test_run_whose_flow_is_not_imported_waits_on(
    file_url: str, trace: Path, caplog: pytest.LogCaptureFixture
) -> None:
    killed_at("in work 1", file_url, "resuming", 3, trace)

    with opened(file_url) as orch:
        with orch.session(begin_transaction=True) as session:
            session.execute("update flow_run set entrypoint = 'no_such_module:resuming'")
        with caplog.at_level(logging.WARNING):
            assert orch.resume_crashed() == []
        assert "no_such_module:resuming" in caplog.text
        assert states(the_flow_run(orch)) == ["Pending", "Running"]

        [run] = orch.resume_crashed(crashing.resuming)
        assert states(run)[-1] == "Completed"


@pytest.mark.slow
def test_method_of_a_killed_process_is_resumed_with_another_object(
    file_url: str, trace: Path
) -> None:
    code = """
import sys
import embedded_orch
from tests.crashing import Source
with embedded_orch.open(sys.argv[1]):
    Source(0).read(3)
"""
    with talking(code, file_url, STOP_AT="in work 2", TRACE=str(trace)) as child:
        assert child.stdout.readline() == "in work 2\n"
        child.kill()

    with opened(file_url) as orch:
        run = the_flow_run(orch)
        with pytest.raises(errors.ParametersNeeded, match=r"self \(a tests\.crashing:Source\)"):
            crashing.Source.read.resume(run.id)
        assert crashing.Source(0).read.resume(run.id) == all_of(3)
    assert calls_in(trace) == {"work 0": 1, "work 1": 1, "work 2": 2}


# -- an owner that was taken over ----------------------------------------------------------------


def taken_over(orch: Orchestrator, run: FlowRun) -> ProcessRow:
    """Another process takes the run, as if this one were thought dead."""
    process = orch.engine.process
    row = ProcessRow(process.new_id(), "elsewhere", "boot", 1, 1, None, None)
    running = Proposal(
        id=process.new_id(), type=StateType.RUNNING, name="Running", timestamp=process.now()
    )

    def take(tx: Any) -> None:
        processes.register(tx, row, now=process.now())
        store_runs.take_over(
            tx,
            run_id=run.id,
            owner_id=row.id,
            epoch=0,
            states=[running],
            now=process.now(),
            new_id=process.new_id,
        )

    orch.database.write(take)
    return row


@pytest.mark.parametrize("way", ["call", "submit", "start", "finish"])
def test_owner_that_was_taken_over_writes_nothing_more(orch: Orchestrator, way: str) -> None:
    begun, may_end = threading.Event(), threading.Event()
    caught: list[BaseException] = []

    @task
    def load() -> int:
        begun.set()
        passed(may_end)
        return 1

    @flow(retries=3)
    def report() -> None:
        if way in ("start", "finish"):
            load_plain()
            if way == "start":
                load.fn()
                load_plain()
        elif way == "call":
            load()
        else:
            load.submit().result()

    def load_plain() -> None:
        if way == "finish":
            load.fn()

    def run_it() -> None:
        with orch:
            try:
                report()
            except BaseException as error:
                caught.append(error)

    thread = threading.Thread(target=run_it)
    thread.start()
    passed(begun)
    taken_over(orch, the_flow_run(orch))
    written = [states(run) for run in orch.task_runs.find()]
    may_end.set()
    thread.join(30)

    assert [type(error) for error in caught] == [errors.OwnershipLost]
    assert states(the_flow_run(orch)) == ["Pending", "Running", "Running"]
    assert [states(run) for run in orch.task_runs.find()] == written


# -- resuming what failed, in one process --------------------------------------------------------


@task
def load(name: str) -> str:
    trace_line(name)
    return name.upper()


def trace_line(line: str) -> None:
    crashing.trace(line)


class Broken:
    """Something outside that can be repaired."""

    is_broken = True

    def check(self) -> None:
        if self.is_broken:
            raise ConnectionError("no network")


@pytest.fixture
def broken() -> Broken:
    return Broken()


def failed(orch: Orchestrator, called: Callable[..., Any], *args: Any, **kwargs: Any) -> FlowRun:
    """The run of a flow that fails."""
    with pytest.raises((ConnectionError, KeyboardInterrupt)):
        called(*args, **kwargs)
    return next(orch.flow_runs.find())


def test_failed_run_is_resumed_and_returns_what_the_call_would_have(
    orch: Orchestrator, trace: Path, broken: Broken
) -> None:
    @flow
    def report(names: list[str]) -> list[str]:
        found = load.map(names).result()
        broken.check()
        return [*found, load("last")]

    run = failed(orch, report, ["a", "b", "a"])
    broken.is_broken = False

    assert report.resume(run.id) == ["A", "B", "A", "LAST"]

    assert calls_in(trace) == {"a": 2, "b": 1, "last": 1}
    again = the_flow_run(orch)
    assert states(again) == ["Pending", "Running", "Failed", "Running", "Completed"]
    assert again.run_count == 2


@pytest.mark.parametrize("form", [str, UUID, lambda id: str(id).upper(), lambda id: id.hex])
def test_run_is_named_by_its_id_in_any_form(
    orch: Orchestrator, broken: Broken, form: Callable[[Any], Any]
) -> None:
    @flow
    def report() -> int:
        broken.check()
        return 1

    run = failed(orch, report)
    broken.is_broken = False

    assert report.resume(form(str(run.id) if form is UUID else run.id)) == 1


@pytest.mark.parametrize("loop", LOOPS)
def test_coroutine_flow_is_resumed_by_a_coroutine(
    orch: Orchestrator, trace: Path, broken: Broken, loop: str
) -> None:
    @task
    async def load_later(name: str) -> str:
        trace_line(name)
        return name

    @flow
    async def report() -> list[str]:
        found = [await load_later("a"), load_later.submit("b").result()]
        broken.check()
        return found

    async def main() -> list[str]:
        with pytest.raises(ConnectionError):
            await report()
        broken.is_broken = False
        return await report.resume(the_flow_run(orch).id)

    assert anyio.run(main, backend=loop) == ["a", "b"]
    assert calls_in(trace) == {"a": 1, "b": 1}


@pytest.mark.parametrize(
    "state", ["CANCELLED", "PAUSED", "CRASHED", "FAILED", "PENDING", "SCHEDULED"]
)
def test_run_in_any_state_but_completed_is_resumed(
    orch: Orchestrator, broken: Broken, state: str
) -> None:
    @flow
    def report() -> int:
        broken.check()
        return 1

    run = failed(orch, report)
    process = orch.engine.process
    proposal = Proposal(
        id=process.new_id(),
        type=StateType.RUNNING if state == "PAUSED" else StateType(state),
        name=state.capitalize(),
        timestamp=process.now(),
    )

    def put(proposal: Proposal) -> None:
        orch.database.write(
            lambda tx: store_runs.propose_flow_state(
                tx, run_id=run.id, proposal=proposal, now=process.now(), epoch=None
            )
        )

    put(proposal)
    if state == "PAUSED":
        put(Proposal(id=process.new_id(), type=StateType.PAUSED, name="Paused", timestamp=1))
    broken.is_broken = False

    assert report.resume(run.id) == 1


def test_completed_run_returns_its_value_and_runs_nothing(orch: Orchestrator, trace: Path) -> None:
    @flow
    def report() -> dict[int, Any]:
        return {1: (load("a"), {2})}

    value = report()
    again = report.resume(the_flow_run(orch).id)

    assert again == value
    assert type(again[1]) is tuple
    assert calls_in(trace) == {"a": 1}
    assert states(the_flow_run(orch)) == ["Pending", "Running", "Completed"]


def test_completed_run_whose_value_was_not_kept_is_an_error(orch: Orchestrator) -> None:
    @flow
    def report() -> Any:
        return threading.Lock()

    report()

    with pytest.raises(errors.MissingResult, match="lock"):
        report.resume(the_flow_run(orch).id)


def test_resumed_run_that_fails_again_can_be_resumed_again(
    orch: Orchestrator, broken: Broken
) -> None:
    @flow
    def report() -> int:
        broken.check()
        return 1

    run = failed(orch, report)
    with pytest.raises(ConnectionError):
        report.resume(run.id)
    broken.is_broken = False

    assert report.resume(run.id) == 1
    assert the_flow_run(orch).run_count == 3


def test_run_that_was_interrupted_here_can_be_resumed_here(
    orch: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even the crash could be recorded, and this process lives: but it does not run it."""

    @flow
    def report() -> int:
        if not calls:
            calls.append(1)
            monkeypatch.setattr(orch.database, "write", refuse)
            raise KeyboardInterrupt
        return 1

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise errors.DatabaseFull("no room")

    calls: list[int] = []

    run = None
    with pytest.raises(KeyboardInterrupt):
        report()
    monkeypatch.undo()
    run = the_flow_run(orch)
    assert states(run) == ["Pending", "Running"]

    assert report.resume(run.id) == 1


def test_run_that_is_running_here_is_refused(orch: Orchestrator) -> None:
    begun, may_end = threading.Event(), threading.Event()

    @flow
    def report() -> int:
        begun.set()
        passed(may_end)
        return 1

    def run_it() -> None:
        with orch:
            report()

    thread = threading.Thread(target=run_it)
    thread.start()
    passed(begun)
    run = the_flow_run(orch)
    for resume in (lambda: report.resume(run.id), report.resume):
        with pytest.raises(errors.RunNotResumable, match=f"process {os.getpid()}"):
            resume()
    may_end.set()
    thread.join(30)

    assert states(the_flow_run(orch)) == ["Pending", "Running", "Completed"]


@pytest.mark.parametrize("before", ["Cancelled", "Suspended"])
def test_what_a_run_was_before_it_is_taken_over_does_not_stop_it(
    orch: Orchestrator, monkeypatch: pytest.MonkeyPatch, trace: Path, before: str
) -> None:
    """Whoever watches for runs that are to stop may look while it is being taken over.

    Seen to fail when it took a state of before the take-over for one of the run.
    """

    @flow
    def report() -> str:
        if not calls:
            calls.append(1)
            if before == "Suspended":
                suspend_flow_run()
            raise ConnectionError
        return load("a")

    calls: list[int] = []
    assert not report(return_state=True).is_completed()
    run_id = the_flow_run(orch).id
    if before == "Cancelled":
        orch.flow_runs.set_state(run_id, Cancelled(), force=True)
    watch = orch.engine.watch
    add = watch.add

    def add_and_look(work: Any) -> None:
        add(work)
        watch.look()

    monkeypatch.setattr(watch, "add", add_and_look)

    assert report.resume(run_id) == "A"


# -- which run -----------------------------------------------------------------------------------


@pytest.mark.parametrize("id", [UNKNOWN, str(UNKNOWN), "no-id", ""])
def test_unknown_run_is_an_error(orch: Orchestrator, id: Any) -> None:
    @flow
    def report() -> None: ...

    with pytest.raises(errors.RunNotFound):
        report.resume(id)


def test_run_of_another_flow_is_refused(orch: Orchestrator, broken: Broken) -> None:
    @flow
    def report() -> None:
        broken.check()

    @flow
    def other() -> None: ...

    run = failed(orch, report)

    with pytest.raises(errors.RunNotResumable, match="'report', not of 'other'"):
        other.resume(run.id)


def test_newest_unfinished_run_with_equal_parameters_is_continued(
    orch: Orchestrator, trace: Path, broken: Broken
) -> None:
    @flow
    def report(root: str, limit: int = 3) -> str:
        found = load(root)
        broken.check()
        return found

    older, newer, other = (failed(orch, report, root) for root in ("a", "a", "b"))
    broken.is_broken = False

    assert report.resume(parameters={"root": "a"}) == "A"
    assert [states(orch.flow_runs.get(run.id))[-1] for run in (older, newer, other)] == [
        "Failed",
        "Completed",
        "Failed",
    ]
    assert report.resume(parameters={"root": "a", "limit": 3}) == "A"
    assert states(orch.flow_runs.get(older.id))[-1] == "Completed"
    assert calls_in(trace) == {"a": 2, "b": 1}


def test_run_is_started_when_there_is_none_to_continue(orch: Orchestrator) -> None:
    @flow
    def report(root: str = "a") -> str:
        return root

    assert (report.resume(), report.resume(parameters={"root": "b"}), report.resume()) == (
        "a",
        "b",
        "a",
    )
    assert orch.flow_runs.count(state_type="COMPLETED") == 3


def test_arguments_that_do_not_fit_start_nothing(orch: Orchestrator) -> None:
    @flow
    def report(root: str) -> None: ...

    with pytest.raises(errors.ParameterBindError):
        report.resume(parameters={"rot": "a"})
    assert orch.flow_runs.count() == 0


def test_flow_that_another_one_called_is_not_continued_behind_its_back(
    orch: Orchestrator, broken: Broken
) -> None:
    @flow
    def child() -> int:
        broken.check()
        return 1

    @flow
    def parent() -> int:
        return child()

    with pytest.raises(ConnectionError):
        parent()
    broken.is_broken = False

    assert child.resume() == 1
    assert [states(run)[-1] for run in flow_runs(orch, flow_name="child")] == [
        "Failed",
        "Completed",
    ]


# -- parameters ----------------------------------------------------------------------------------


def test_parameter_that_was_not_stored_is_asked_for(orch: Orchestrator, broken: Broken) -> None:
    @flow
    def report(root: str, lock: Any) -> tuple[str, bool]:
        broken.check()
        return root, lock.locked()

    run = failed(orch, report, "a", threading.Lock())
    broken.is_broken = False

    with pytest.raises(errors.ParametersNeeded, match=r"lock \(a _thread:lock\).*'lock': \.\.\."):
        report.resume(run.id)
    assert states(the_flow_run(orch))[-1] == "Failed"
    assert report.resume(run.id, parameters={"lock": threading.Lock()}) == ("a", False)


def test_parameter_that_was_not_stored_counts_by_its_type(
    orch: Orchestrator, broken: Broken
) -> None:
    @flow
    def report(root: str, lock: Any) -> bool:
        broken.check()
        return lock.locked()

    run = failed(orch, report, "a", threading.Lock())
    broken.is_broken = False

    assert report.resume(parameters={"root": "a", "lock": threading.Lock()}) is False
    assert states(orch.flow_runs.get(run.id))[-1] == "Completed"


@pytest.mark.parametrize("name", ["root", "other"])
def test_parameter_that_is_on_record_cannot_be_given(
    orch: Orchestrator, broken: Broken, name: str
) -> None:
    @flow
    def report(root: str) -> None:
        broken.check()

    run = failed(orch, report, "a")

    with pytest.raises(errors.ParameterBindError, match=f"'{name}'.*on record"):
        report.resume(run.id, parameters={name: "b"})


class Plain:
    """An object that can be stored, and has a flow."""

    __match_args__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


def test_method_is_resumed_with_the_object_that_is_on_record(
    orch: Orchestrator, broken: Broken
) -> None:
    """Seen to fail when the object of the call was refused as one that is on record."""
    import msgspec

    class Stored(msgspec.Struct):
        name: str

        def read(self) -> str:
            broken.check()
            return self.name

    Stored.__qualname__, Stored.__module__ = "Stored", __name__
    globals()["Stored"] = Stored
    read = flow(Stored.read)
    Stored.read = read  # type: ignore[method-assign]

    run = failed(orch, Stored("a").read)
    broken.is_broken = False

    assert run.unstored_parameters == {}
    assert Stored("b").read.resume(run.id) == "a"  # type: ignore[attr-defined]


def test_flow_with_a_new_parameter_is_resumed_with_its_default(
    orch: Orchestrator, broken: Broken
) -> None:
    @flow(name="report")
    def before(root: str) -> None:
        broken.check()

    @flow(name="report")
    def after(root: str, limit: int = 3) -> tuple[str, int]:
        return root, limit

    run = failed(orch, before, "a")

    assert after.resume(run.id) == ("a", 3)


@pytest.mark.parametrize("is_gone", [True, False])
def test_flow_with_other_parameters_is_not_resumed(
    orch: Orchestrator, broken: Broken, is_gone: bool
) -> None:
    @flow(name="report")
    def before(root: str) -> None:
        broken.check()

    @flow(name="report")
    def gone() -> None: ...

    @flow(name="report")
    def new(root: str, limit: int) -> None: ...

    run = failed(orch, before, "a")

    with pytest.raises(errors.RunNotResumable, match="start a new run"):
        (gone if is_gone else new).resume(run.id)


# -- which calls are on record -------------------------------------------------------------------


def test_changed_function_still_has_its_records(
    orch: Orchestrator, trace: Path, broken: Broken
) -> None:
    def version(body: Callable[[str], str]) -> Flow[..., Any]:
        body.__qualname__ = "load_it"
        load_it = task(body)

        @flow(name="report")
        def report() -> list[str]:
            found = [load_it("a")]
            broken.check()
            return [*found, load_it("b")]

        return report

    def first(name: str) -> str:
        trace_line(name)
        return f"first {name}"

    def second(name: str) -> str:
        trace_line(name)
        return f"second {name}, and mended"

    run = failed(orch, version(first))
    broken.is_broken = False

    assert version(second).resume(run.id) == ["first a", "second b, and mended"]
    assert calls_in(trace) == {"a": 1, "b": 1}
    key = f"{__name__}.load_it"
    sources = {row._task_row.source_hash for row in orch.task_runs.find(task_key=key)}
    assert len(sources) == 2


def test_changed_inputs_are_another_call(orch: Orchestrator, trace: Path, broken: Broken) -> None:
    @flow
    def report() -> list[str]:
        names = ["a", "b"] if broken.is_broken else ["b", "c"]
        found = [load(name) for name in names]
        broken.check()
        return found

    run = failed(orch, report)
    broken.is_broken = False

    assert report.resume(run.id) == ["B", "C"]
    assert calls_in(trace) == {"a": 1, "b": 1, "c": 1}


def test_equal_calls_have_a_record_each(orch: Orchestrator, trace: Path, broken: Broken) -> None:
    values = iter(range(10))

    @task
    def number() -> int:
        return next(values)

    @flow
    def report() -> list[int]:
        found = [number(), number()]
        broken.check()
        return [*found, number()]

    run = failed(orch, report)
    broken.is_broken = False

    assert report.resume(run.id) == [0, 1, 2]


def test_failed_task_is_called_again_and_is_the_same_run(
    orch: Orchestrator, broken: Broken
) -> None:
    @task
    def check() -> int:
        broken.check()
        return 1

    @flow
    def report() -> int:
        return check()

    run = failed(orch, report)
    broken.is_broken = False

    assert report.resume(run.id) == 1
    assert states(the_run_of(orch, check)) == [
        "Pending",
        "Running",
        "Failed",
        "Retrying",
        "Completed",
    ]


def test_value_that_could_not_be_stored_is_made_again(
    orch: Orchestrator, trace: Path, broken: Broken, caplog: pytest.LogCaptureFixture
) -> None:
    @task
    def connect(name: str) -> Any:
        trace_line(name)
        return threading.Lock()

    @flow
    def report() -> bool:
        lock = connect("a")
        broken.check()
        return bool(lock.locked())

    run = failed(orch, report)
    broken.is_broken = False

    assert report.resume(run.id) is False
    assert calls_in(trace) == {"a": 2}
    assert states(the_run_of(orch, connect)).count("Completed") == 2


def test_task_that_was_not_ready_runs_when_its_upstream_completes(
    orch: Orchestrator, broken: Broken
) -> None:
    @task
    def check() -> int:
        broken.check()
        return 1

    @task
    def use(value: int) -> int:
        return value + 1

    @flow
    def report() -> int:
        return use.submit(check.submit()).result()

    with pytest.raises(errors.UpstreamFailed):
        report()
    broken.is_broken = False

    assert report.resume(the_flow_run(orch).id) == 2
    assert states(runs_of(orch, use)[-1])[-1] == "Completed"


def test_task_that_was_interrupted_while_it_waited_for_a_retry_is_called_again(
    url: str, broken: Broken
) -> None:
    clock = Clock()

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    sleep, clock.sleep = clock.sleep, interrupted  # type: ignore[method-assign]

    @task(retries=2, retry_delay_seconds=60)
    def check() -> int:
        broken.check()
        return 1

    @flow
    def report() -> int:
        return check()

    with opened(url, clock) as orch:
        run = failed(orch, report)
        broken.is_broken = False
        orch.engine.process.sleep = sleep
        assert report.resume(run.id) == 1


def test_parent_takes_the_value_of_a_child_that_completed_before_the_crash(
    orch: Orchestrator, trace: Path, broken: Broken
) -> None:
    """The child's end and that of its tracker are one commit; the process dies after it.

    Seen to fail when a completed child was always run again.
    """

    @flow
    def child() -> str:
        return load("a")

    @flow
    def parent() -> str:
        value = child()
        if broken.is_broken:
            raise KeyboardInterrupt
        return value

    failed(orch, parent)
    [tracker] = [each for each in orch.task_runs.find() if each.task_key != load.task_key]
    broken.is_broken = False

    assert states(the_flow_run(orch, flow_name="child"))[-1] == "Completed"
    assert states(tracker) == ["Pending", "Running", "Completed"]
    assert parent.resume(the_flow_run(orch, flow_name="parent").id) == "A"

    assert calls_in(trace) == {"a": 1}
    assert orch.flow_runs.count(flow_name="child") == 1
    assert states(tracker) == ["Pending", "Running", "Completed"]


def test_parent_takes_the_value_of_a_child_whose_tracker_says_otherwise(
    orch: Orchestrator, trace: Path, broken: Broken
) -> None:
    @flow
    def child() -> str:
        return load("a")

    @flow
    def parent() -> str:
        value = child()
        broken.check()
        return value

    failed(orch, parent)
    [tracker] = [each for each in orch.task_runs.find() if each.task_key != load.task_key]
    process = orch.engine.process
    lost = Proposal(id=process.new_id(), type=StateType.FAILED, name="Failed", timestamp=1)
    orch.database.write(
        lambda tx: propose_task_state(
            tx, run_id=tracker.id, proposal=lost, now=1, epoch=None, force=True
        )
    )
    broken.is_broken = False

    assert parent.resume(the_flow_run(orch, flow_name="parent").id) == "A"

    assert calls_in(trace) == {"a": 1}
    assert states(tracker)[-3:] == ["Failed", "Retrying", "Completed"]


def test_parent_waits_for_a_child_that_somebody_else_resumes(
    orch: Orchestrator, broken: Broken
) -> None:
    """Seen to fail when the child of a resumed parent was taken over without a look."""

    @flow
    def child() -> int:
        broken.check()
        begun.set()
        passed(may_end)
        return 1

    @flow
    def parent() -> int:
        return child()

    begun, may_end = threading.Event(), threading.Event()
    with pytest.raises(ConnectionError):
        parent()
    broken.is_broken = False
    run = the_flow_run(orch, flow_name="child")
    parent_run = the_flow_run(orch, flow_name="parent")
    answers: list[int] = []

    def resume(called: Flow[..., Any], run_id: UUID) -> None:
        with orch:
            answers.append(called.resume(run_id))

    threads = [threading.Thread(target=resume, args=(child, run.id))]
    threads[0].start()
    passed(begun)
    threads.append(threading.Thread(target=resume, args=(parent, parent_run.id)))
    threads[1].start()
    until(lambda: states(orch.flow_runs.get(parent_run.id))[-1] == "Running", "the parent")
    until(lambda: orch.logs.count(text="waits") == 1, "the wait")
    may_end.set()
    for thread in threads:
        thread.join(30)

    assert answers == [1, 1]
    assert states(the_flow_run(orch, flow_name="child")).count("Completed") == 1


# -- resuming what asked for it ------------------------------------------------------------------


def abandoned(orch: Orchestrator, run: FlowRun, **fields: object) -> None:
    """The run claims to be running, and its owner is known to be dead."""
    running = Proposal(
        id=orch.engine.process.new_id(),
        type=StateType.RUNNING,
        name="Running",
        timestamp=orch.engine.process.now(),
    )
    row = ProcessRow(orch.engine.process.new_id(), "elsewhere", "boot", 1, 1, None, None)

    def leave(tx: Any) -> None:
        now = orch.engine.process.now()
        processes.register(tx, row, now=now)
        store_runs.take_over(
            tx,
            run_id=run.id,
            owner_id=row.id,
            epoch=0,
            states=[running],
            now=now,
            new_id=orch.engine.process.new_id,
        )
        processes.end(tx, id=row.id, now=now)

    orch.database.write(leave)


def test_run_that_fails_when_it_is_resumed_does_not_keep_others_waiting(
    orch: Orchestrator, broken: Broken, caplog: pytest.LogCaptureFixture
) -> None:
    @flow(on_crash="resume")
    def failing() -> None:
        broken.check()

    @flow(on_crash="resume")
    def asking(lock: Any) -> None:
        broken.check()

    @flow(on_crash="resume")
    def good() -> int:
        if broken.is_broken:
            broken.check()
        return 1

    runs = [
        failed(orch, failing),
        failed(orch, asking, threading.Lock()),
        failed(orch, good),
    ]
    for run in runs:
        abandoned(orch, run)

    def fails_again() -> None:
        raise ConnectionError("still")

    failing.spec.function = fails_again
    broken.is_broken = False
    with caplog.at_level(logging.WARNING):
        resumed = orch.resume_crashed(failing, asking, good)

    assert [(run.flow_name, states(run)[-1]) for run in resumed] == [
        ("failing", "Failed"),
        ("good", "Completed"),
    ]
    assert "lock" in caplog.text
