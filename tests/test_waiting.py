"""Sleeping and waiting for signals, in one process and over several."""

from __future__ import annotations

import dataclasses
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import anyio
import pytest

from embedded_orch import (
    asleep_for,
    asleep_until,
    await_for_signal,
    errors,
    flow,
    send_signal,
    sleep_for,
    sleep_until,
    task,
    wait_for_signal,
)
from tests import crashing
from tests.crashing import stopped_at
from tests.engine.waiting import until
from tests.opened import Clock, opened, states, the_flow_run
from tests.warm_parent import run_forked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from embedded_orch import Orchestrator

LOOPS = ("asyncio", "trio")
HOUR = 3600


@pytest.fixture(autouse=True)
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EMBEDDED_ORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TRACE", str(tmp_path / "trace"))
    return tmp_path / "trace"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def orch(url: str, clock: Clock) -> Iterator[Orchestrator]:
    """Time goes by only where something sleeps."""
    with opened(url, clock) as orchestrator:
        yield orchestrator


@pytest.fixture(params=["file", "postgres"])
def shared_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database that two processes can open."""
    if request.param == "file":
        return str(tmp_path / "data" / "orch.db")
    return str(request.getfixturevalue("postgres_server").new_database())


class Broken:
    """Something outside that can be repaired."""

    is_broken = True

    def check(self) -> None:
        if self.is_broken:
            raise ConnectionError("no network")


def has_come_to_a_wait(orch: Orchestrator) -> bool:
    return orch.sql("select count(*) from flow_run_wait").scalar() == 1


# -- sleeping --------------------------------------------------------------------------------------


def test_a_run_sleeps_and_one_that_comes_there_again_does_not(
    orch: Orchestrator, clock: Clock
) -> None:
    broken = Broken()

    @flow
    def report() -> str:
        sleep_for(90)
        sleep_for(timedelta(minutes=1))
        broken.check()
        return "done"

    with pytest.raises(ConnectionError):
        report()
    assert round(sum(clock.slept)) == 150
    broken.is_broken = False

    assert report.resume(the_flow_run(orch).id) == "done"

    assert round(sum(clock.slept)) == 150


def test_a_retried_run_does_not_sleep_again(orch: Orchestrator, clock: Clock) -> None:
    attempts: list[int] = []

    @flow(retries=1)
    def report() -> int:
        sleep_for(30)
        attempts.append(1)
        if len(attempts) == 1:
            raise ValueError("the first")
        return len(attempts)

    assert report() == 2
    assert round(sum(clock.slept)) == 30


def test_a_run_sleeps_until_a_time_with_a_zone(orch: Orchestrator, clock: Clock) -> None:
    now = datetime.fromtimestamp(clock.now() / 1_000_000, UTC)

    @flow
    def report(until: datetime) -> None:
        sleep_until(until)

    report(now + timedelta(hours=2))
    assert round(sum(clock.slept) / HOUR, 2) == 2
    report(now)
    assert round(sum(clock.slept) / HOUR, 2) == 2


@pytest.mark.slow
def test_a_killed_run_sleeps_only_the_rest(shared_url: str, trace: Path) -> None:
    with stopped_at("before the sleep", shared_url, "sleeping", 1, trace=trace) as process:
        with opened(shared_url) as orch:
            until(lambda: has_come_to_a_wait(orch), "the sleep")
        process.kill()
    later = Clock()
    later.sleep(1000)

    with opened(shared_url, later) as orch:
        run = the_flow_run(orch)
        found = crashing.sleeping.resume(run.id)

    assert found == [{0: (0, 0)}, {1: (1, 10)}]
    # What was slept before counts; starting the processes took less than 600 seconds.
    assert HOUR - 1600 < sum(later.slept[1:]) <= HOUR - 1000
    assert trace.read_text().splitlines() == ["work 0", "work 1"]


def test_a_sleep_that_lets_its_process_go_is_continued_when_it_is_over(
    orch: Orchestrator, clock: Clock
) -> None:
    calls: list[str] = []

    @task
    def note(what: str) -> None:
        calls.append(what)

    @flow
    def report() -> str:
        note("before")
        sleep_for(HOUR, suspend=True)
        note("after")
        return "done"

    state = report(return_state=True)

    assert (state.name, state.message is not None and "sleeps until" in state.message) == (
        "Suspended",
        True,
    )
    assert orch.resume_due(report) == []
    # By hand it may be continued earlier, and is suspended for the rest.
    run_id = the_flow_run(orch).id
    with pytest.raises(errors.Pause):
        report.resume(run_id)
    assert orch.resume_due(report) == []
    clock.sleep(HOUR)

    [run] = orch.resume_due(report)

    assert run.state is not None
    assert run.state.result() == "done"
    assert calls == ["before", "after"]
    assert orch.resume_due(report) == []


@pytest.mark.parametrize("loop", LOOPS)
def test_async_runs_sleep_and_wait(url: str, loop: str) -> None:
    @flow
    async def report() -> list[Any]:
        await sleep_for(0.001)
        await asleep_for(0.001)
        await sleep_until(datetime.now(UTC))
        await asleep_until(datetime.now(UTC))
        send_signal(the_flow_run(orch).id, "go", 5)
        return [await wait_for_signal("go"), await await_for_signal("go", type=int)]

    with opened(url) as orch:
        assert anyio.run(report, backend=loop) == [5, 5]


@pytest.mark.parametrize("loop", LOOPS)
def test_an_async_run_that_was_suspended_is_continued(url: str, loop: str, clock: Clock) -> None:
    @flow
    async def report() -> str:
        await sleep_for(HOUR, suspend=True)
        await sleep_for(HOUR, suspend=True)
        return "done"

    async def main() -> str:
        call: Any = report(return_state=True)
        return str((await call).name)

    with opened(url, clock) as orch:
        assert anyio.run(main, backend=loop) == "Suspended"
        names = []
        for _ in range(2):
            clock.sleep(HOUR)
            names += [run.state_name for run in orch.resume_due(report)]

    assert names == ["Suspended", "Completed"]


def test_a_sleeping_run_is_cancelled(url: str) -> None:
    @flow
    def report() -> None:
        sleep_for(HOUR)

    def cancel() -> None:
        with orch:
            until(lambda: has_come_to_a_wait(orch), "the sleep")
            orch.flow_runs.cancel(the_flow_run(orch).id)

    with opened(url) as orch:
        thread = threading.Thread(target=cancel)
        thread.start()
        assert report(return_state=True).is_cancelled()
        thread.join()


def test_what_cannot_sleep_or_wait_says_so(orch: Orchestrator) -> None:
    @task
    def in_a_task() -> None:
        sleep_for(1)

    @flow
    def child() -> None:
        with pytest.raises(errors.RunNotPausable, match="a flow called cannot be suspended"):
            sleep_for(1, suspend=True)

    @flow
    def report() -> None:
        with pytest.raises(errors.MissingContextError, match="this is a task"):
            in_a_task()
        for wrong in (-1, "soon", timedelta(seconds=-1), float("nan")):
            with pytest.raises(errors.ConfigurationError, match="a number of seconds"):
                sleep_for(wrong)  # type: ignore[arg-type]
        with pytest.raises(errors.ConfigurationError, match="time zone"):
            sleep_until(datetime(2030, 1, 1))  # noqa: DTZ001 - that is what is wrong
        with pytest.raises(errors.ConfigurationError, match="time zone"):
            sleep_until(5)  # type: ignore[arg-type]
        for name in ("An answer", "", "a_b"):
            with pytest.raises(errors.ConfigurationError, match="lower-case letters"):
                wait_for_signal(name)
        with pytest.raises(errors.ConfigurationError, match="lower-case letters"):
            sleep_for(1, key="A key")
        child()

    with pytest.raises(errors.MissingContextError, match="no flow is running here"):
        wait_for_signal("go")
    report()


# -- signals ---------------------------------------------------------------------------------------


@dataclasses.dataclass
class Approval:
    who: str
    limit: int = 5


def test_a_signal_that_was_sent_before_counts_and_the_first_one_stands(orch: Orchestrator) -> None:
    @flow
    def report() -> list[Any]:
        run_id = the_flow_run(orch).id
        assert orch.send_signal(run_id, "approval", {"who": "Ada"})
        assert not orch.send_signal(str(run_id), "approval", {"who": "Bob"})
        assert send_signal(run_id, "go")
        again = wait_for_signal("approval", type=Approval, suspend=True, timeout=1)
        return [again, wait_for_signal("approval"), wait_for_signal("go")]

    assert report() == [Approval("Ada"), {"who": "Ada"}, None]


def test_a_signal_of_another_thread_wakes_the_run(url: str) -> None:
    @flow
    def report() -> Any:
        return wait_for_signal("approval", type=Approval)

    def send() -> None:
        with orch:
            until(lambda: has_come_to_a_wait(orch), "the wait")
            run_id = the_flow_run(orch).id
            with pytest.raises(errors.RunInputError, match=r"waits on.*who"):
                orch.send_signal(run_id, "approval", {"limit": 2})
            with pytest.raises(errors.RunInputError, match="is no JSON"):
                orch.send_signal(run_id, "approval", threading.Lock())
            sent.append(orch.send_signal(run_id, "approval", Approval("Ada", 7)))

    sent: list[bool] = []
    with opened(url) as orch:
        thread = threading.Thread(target=send)
        thread.start()
        assert report() == Approval("Ada", 7)
        thread.join()
    assert sent == [True]


def test_what_was_sent_before_and_does_not_fit_is_told_by_the_wait(orch: Orchestrator) -> None:
    @flow
    def report() -> None:
        send_signal(the_flow_run(orch).id, "count", "five")
        with pytest.raises(errors.RunInputError, match="does not fit int"):
            wait_for_signal("count", type=int)

    report()


@pytest.mark.parametrize("set_back_seconds", [0, 600])
def test_a_signal_that_does_not_come_in_time_is_missing_for_good(
    orch: Orchestrator, clock: Clock, set_back_seconds: int
) -> None:
    """What comes later is for the next wait, also when the run comes to the first one again.

    With the clock set back, it comes before the deadline. Seen to fail when the judgement of the
    run was not written down.
    """
    broken = Broken()

    @flow
    def report() -> list[Any]:
        # One that code for Python's own time-outs catches.
        with pytest.raises(TimeoutError, match="was not sent in time"):
            wait_for_signal("go", timeout=60)
        broken.check()
        return ["nothing", wait_for_signal("go", timeout=timedelta(minutes=1))]

    with pytest.raises(ConnectionError):
        report()
    assert round(sum(clock.slept)) == 60
    clock.sleep(-set_back_seconds)
    run_id = the_flow_run(orch).id
    assert orch.send_signal(run_id, "go", 1)
    broken.is_broken = False

    assert report.resume(run_id) == ["nothing", 1]
    assert round(sum(clock.slept)) == 60 - set_back_seconds


def test_a_flow_that_lets_the_time_out_pass_has_timed_out(orch: Orchestrator) -> None:
    @flow
    def report() -> None:
        wait_for_signal("go", timeout=1)

    state = report(return_state=True)

    assert (state.name, "was not sent in time" in (state.message or "")) == ("TimedOut", True)


def test_two_waits_for_one_signal_have_deadlines_of_their_own(
    orch: Orchestrator, clock: Clock
) -> None:
    @flow
    def report() -> list[str]:
        found = []
        for key in ("short", "long"):
            try:
                wait_for_signal("go", timeout=10, key=key)
            except errors.SignalTimeout:
                found.append(key)
        return found

    assert report() == ["short", "long"]
    assert round(sum(clock.slept)) == 20


def test_a_run_that_waits_suspended_is_due_with_the_signal_or_without_it_in_time(
    orch: Orchestrator, clock: Clock
) -> None:
    @flow
    def report(name: str) -> str:
        try:
            return str(wait_for_signal(name, timeout=HOUR, suspend=True))
        except errors.SignalTimeout:
            return "nobody"

    first, second = report("a", return_state=True), report("b", return_state=True)
    ids = [state.state_details.flow_run_id for state in (first, second)]
    assert orch.resume_due(report) == []
    assert isinstance(ids[0], UUID)
    orch.send_signal(ids[0], "a", "Ada")

    [run] = orch.resume_due(report)
    assert (run.id, run.state and run.state.result()) == (ids[0], "Ada")
    assert orch.resume_due(report) == []
    clock.sleep(HOUR)
    # Whoever resumes what crashed resumes what is due, too.
    [run] = orch.resume_crashed(report)
    assert (run.id, run.state and run.state.result()) == (ids[1], "nobody")


def test_a_signal_that_nobody_can_take_is_refused(orch: Orchestrator) -> None:
    @flow
    def report() -> int:
        return 1

    report()
    with pytest.raises(errors.SignalRefused, match="has completed"):
        send_signal(the_flow_run(orch).id, "go")
    with pytest.raises(errors.RunNotFound):
        send_signal(UUID(int=5), "go")
    with pytest.raises(errors.RunNotFound):
        send_signal("no-id", "go")
    with pytest.raises(errors.ConfigurationError, match="lower-case letters"):
        send_signal(the_flow_run(orch).id, "Go!")


SEND = """
import sys
import embedded_orch
with embedded_orch.open(sys.argv[1]) as orch:
    print(orch.send_signal(sys.argv[2], "approval", True))
"""


@pytest.mark.slow
def test_a_signal_of_another_process_reaches_a_waiting_run(shared_url: str) -> None:
    @flow
    def report() -> Any:
        return wait_for_signal("approval", type=bool)

    def send() -> None:
        with orch:
            until(lambda: has_come_to_a_wait(orch), "the wait")
            run_id = the_flow_run(orch).id
        said.append(run_forked(SEND, shared_url, run_id).stdout)

    said: list[str] = []
    with opened(shared_url) as orch:
        thread = threading.Thread(target=send)
        thread.start()
        assert report() is True
        thread.join()
    assert said == ["True\n"]


@pytest.mark.slow
def test_a_signal_that_is_sent_while_no_process_runs_the_run_counts(
    shared_url: str, trace: Path
) -> None:
    with stopped_at("before the wait", shared_url, "waiting", HOUR, trace=trace) as process:
        with opened(shared_url) as orch:
            until(lambda: has_come_to_a_wait(orch), "the wait")
        process.kill()
    with opened(shared_url) as orch:
        run_id = the_flow_run(orch).id
        assert run_forked(SEND, shared_url, run_id).stdout == "True\n"

        [run] = orch.resume_crashed(crashing.waiting)

        assert run.state is not None
        assert run.state.result() == [True, {0: (0, 0)}]


@pytest.mark.slow
def test_the_answer_of_a_wait_survives_the_process_that_got_it(
    shared_url: str, trace: Path
) -> None:
    """The first process is told that it is too late; the second comes when the signal is there."""
    with stopped_at("after the wait", shared_url, "waiting", 0, trace=trace) as process:
        process.kill()
    with opened(shared_url) as orch:
        assert orch.send_signal(the_flow_run(orch).id, "approval", True)

        [run] = orch.resume_crashed(crashing.waiting)

        assert run.state is not None
        assert run.state.result() == ["too late", {0: (0, 0)}]


@pytest.mark.slow
def test_whoever_sends_a_signal_too_late_judges_it_so(shared_url: str, trace: Path) -> None:
    """Nobody looked when the deadline came: the process was dead."""
    with stopped_at("before the wait", shared_url, "waiting", HOUR, trace=trace) as process:
        with opened(shared_url) as orch:
            until(lambda: has_come_to_a_wait(orch), "the wait")
        process.kill()
    later = Clock()
    later.sleep(2 * HOUR)
    with opened(shared_url, later) as orch:
        assert orch.send_signal(the_flow_run(orch).id, "approval", True)

        [run] = orch.resume_crashed(crashing.waiting)

        assert run.state is not None
        assert run.state.result() == ["too late", {0: (0, 0)}]
        assert states(run)[-1] == "Completed"
