"""Time limits: of plain code in the main thread and in others, of coroutines, nested, retried."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest

from embedded_orch import Orchestrator, errors, flow, task
from embedded_orch.engine import timeouts
from tests.engine.waiting import PATIENCE, passed, until
from tests.opened import opened, states, the_flow_run, the_run_of
from tests.programs import run_program

SOON = 0.05
# Where something has to happen before, on a machine that is busy.
LATER = 0.5


@pytest.fixture
def orch(url: str) -> Iterator[Orchestrator]:
    with opened(url) as orchestrator:
        yield orchestrator


@pytest.fixture
def quick() -> Iterator[Orchestrator]:
    with opened(":memory:") as orchestrator:
        yield orchestrator


def spin() -> None:
    """Python code that does not end by itself before the test has failed."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        pass


def in_thread(call: Callable[[], Any]) -> Any:
    """What a call returns or raises in a thread of its own."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append((call(), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(PATIENCE)
    [(value, error)] = outcome
    if error is not None:
        raise error
    return value


def directly(call: Callable[[], Any]) -> Any:
    return call()


PLACES = pytest.mark.parametrize("place", [directly, in_thread], ids=["main", "thread"])


# -- plain code ----------------------------------------------------------------------------------


@PLACES
def test_flow_that_takes_too_long_is_timed_out(orch: Orchestrator, place: Any) -> None:
    @flow(timeout_seconds=SOON)
    def slow() -> None:
        spin()

    with pytest.raises(errors.RunTimedOut) as raised:
        place(slow)

    assert isinstance(raised.value, TimeoutError)
    run = the_flow_run(orch)
    assert states(run) == ["Pending", "Running", "TimedOut"]
    assert run.state is not None
    assert run.state.is_failed()
    assert run.state.message == "Flow run exceeded timeout of 0.05 second(s)"
    assert raised.value.run_id == run.id


@PLACES
def test_task_that_takes_too_long_is_timed_out_and_retried(orch: Orchestrator, place: Any) -> None:
    attempts: list[int] = []

    # The second attempt has to keep to it, on a busy machine too.
    @task(timeout_seconds=5 * SOON, retries=1)
    def slow_at_first() -> int:
        attempts.append(1)
        if len(attempts) == 1:
            spin()
        return len(attempts)

    @flow
    def report() -> int:
        return slow_at_first()

    assert place(report) == 2
    assert states(the_run_of(orch, slow_at_first)) == [
        "Pending",
        "Running",
        "Retrying",
        "Completed",
    ]


def test_submitted_task_is_timed_out(quick: Orchestrator) -> None:
    @task(timeout_seconds=SOON)
    def slow() -> None:
        spin()

    @flow
    def report() -> Any:
        return slow.submit().result(raise_on_failure=False)

    assert isinstance(report(), errors.RunTimedOut)
    state = the_run_of(quick, slow).state
    assert state is not None
    assert (state.name, state.message) == (
        "TimedOut",
        "Task run exceeded timeout of 0.05 second(s)",
    )


@PLACES
def test_flow_that_waits_for_a_future_is_timed_out(quick: Orchestrator, place: Any) -> None:
    release = threading.Event()

    @task
    def blocked() -> None:
        passed(release)

    @flow(timeout_seconds=SOON)
    def waiting() -> None:
        try:
            blocked.submit().result()
        finally:
            release.set()

    with pytest.raises(errors.RunTimedOut):
        place(waiting)


@PLACES
def test_futures_that_a_flow_returns_count(quick: Orchestrator, place: Any) -> None:
    begun, interrupted = threading.Event(), threading.Event()

    @task
    def blocked() -> None:
        try:
            begun.set()
            spin()
        finally:
            interrupted.set()

    @flow(timeout_seconds=SOON)
    def returning() -> Any:
        future = blocked.submit()
        # On a busy machine the time may be over before.
        begun.wait()
        return future

    with pytest.raises(errors.RunTimedOut):
        place(returning)
    assert interrupted.is_set() is begun.is_set()


def test_wait_in_c_is_ended_in_the_main_thread(quick: Orchestrator) -> None:
    @flow(timeout_seconds=SOON)
    def sleeping() -> None:
        time.sleep(PATIENCE)

    began = time.monotonic()
    with pytest.raises(errors.RunTimedOut):
        sleeping()
    assert time.monotonic() - began < PATIENCE


def test_wait_in_c_goes_on_elsewhere_and_the_run_ends_when_it_returns(quick: Orchestrator) -> None:
    lock = threading.Lock()
    lock.acquire()
    went_on: list[str] = []
    has_begun = threading.Event()

    @flow(timeout_seconds=SOON)
    def blocked() -> None:
        has_begun.set()
        lock.acquire()
        went_on.append("after")

    caught: list[BaseException] = []

    def call() -> None:
        try:
            in_thread(blocked)
        except errors.RunTimedOut as error:
            caught.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    passed(has_begun)
    until(lambda: not timeouts._watch._limits, "the end of the time")
    assert states(the_flow_run(quick)) == ["Pending", "Running"]

    lock.release()
    caller.join(PATIENCE)

    assert len(caught) == 1
    assert went_on == []
    assert states(the_flow_run(quick)) == ["Pending", "Running", "TimedOut"]


@PLACES
def test_value_of_code_that_did_not_let_itself_be_interrupted_is_kept(
    quick: Orchestrator, place: Any
) -> None:
    @flow(timeout_seconds=SOON)
    def stubborn() -> str:
        try:
            spin()
        except BaseException:
            return "done"
        return "never"

    assert place(stubborn) == "done"
    assert states(the_flow_run(quick))[-1] == "Completed"


@PLACES
def test_what_is_quick_enough_is_not_touched(quick: Orchestrator, place: Any) -> None:
    @flow(timeout_seconds=PATIENCE)
    def fast() -> int:
        return 1

    assert place(fast) == 1
    assert not timeouts._watch._limits


# -- nested --------------------------------------------------------------------------------------


@PLACES
def test_nearer_limit_of_an_outer_call_ends_it_and_no_retry_of_an_inner_one(
    quick: Orchestrator, place: Any
) -> None:
    attempts: list[int] = []

    @task(timeout_seconds=PATIENCE, retries=5)
    def inner() -> None:
        attempts.append(1)
        spin()

    @flow(timeout_seconds=LATER)
    def outer() -> None:
        inner()

    with pytest.raises(errors.RunTimedOut, match="Flow run exceeded"):
        place(outer)
    assert attempts == [1]
    assert states(the_run_of(quick, inner))[-1] == "Crashed"


@PLACES
def test_nearer_limit_of_an_inner_call_leaves_the_outer_one_going(
    quick: Orchestrator, place: Any
) -> None:
    @task(timeout_seconds=SOON)
    def inner() -> None:
        spin()

    @flow(timeout_seconds=PATIENCE)
    def outer() -> str:
        for _ in range(2):
            with pytest.raises(errors.RunTimedOut, match="Task run exceeded"):
                inner()
        return "went on"

    assert place(outer) == "went on"
    if place is directly:
        assert signal.getsignal(signal.SIGURG) is signal.SIG_DFL


@PLACES
def test_outer_limit_still_holds_after_an_inner_one_ended(place: Any) -> None:
    ended: list[str] = []

    def outer() -> None:
        timeouts.within(PATIENCE, lambda: ended.append("inner"), AssertionError)
        spin()

    with pytest.raises(errors.RunTimedOut, match="outer"):
        place(lambda: timeouts.within(LATER, outer, lambda: errors.RunTimedOut("outer")))
    assert ended == ["inner"]


# -- TimeoutError of the user's ------------------------------------------------------------------


def test_timeout_error_of_the_users_code_is_timed_out_with_another_message(
    orch: Orchestrator,
) -> None:
    @task(timeout_seconds=PATIENCE)
    def ask() -> None:
        raise TimeoutError("no answer")

    @flow(timeout_seconds=PATIENCE)
    def report() -> None:
        ask()

    with pytest.raises(TimeoutError, match="no answer"):
        report()

    of_task, of_flow = the_run_of(orch, ask).state, the_flow_run(orch).state
    assert of_task is not None
    assert of_flow is not None
    assert (of_task.name, of_task.message) == (
        "TimedOut",
        "Task run failed due to timeout: TimeoutError: no answer",
    )
    assert (of_flow.name, of_flow.message) == (
        "TimedOut",
        "Flow run failed due to timeout: TimeoutError: no answer",
    )


def test_time_limit_of_a_task_is_not_that_of_its_flow(quick: Orchestrator) -> None:
    @task(timeout_seconds=SOON)
    def slow() -> None:
        spin()

    @flow
    def report() -> None:
        slow()

    with pytest.raises(errors.RunTimedOut):
        report()
    state = the_flow_run(quick).state
    assert state is not None
    assert state.message == (
        "Flow run failed due to timeout: RunTimedOut: Task run exceeded timeout of 0.05 second(s)"
    )


# -- event loops ---------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_coroutine_that_takes_too_long_is_cancelled(orch: Orchestrator, loop: str) -> None:
    ended: list[str] = []

    @task(timeout_seconds=SOON, retries=1)
    async def slow() -> None:
        try:
            await anyio.sleep(PATIENCE)
        finally:
            ended.append("task")

    @flow
    async def report() -> str:
        with pytest.raises(errors.RunTimedOut, match="Task run exceeded"):
            await slow()
        return "went on"

    assert anyio.run(report, backend=loop) == "went on"
    assert ended == ["task", "task"]
    assert states(the_run_of(orch, slow)) == ["Pending", "Running", "Retrying", "TimedOut"]


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_limit_of_an_async_flow_cancels_the_task_it_awaits(quick: Orchestrator, loop: str) -> None:
    @task(timeout_seconds=PATIENCE, retries=3)
    async def slow() -> None:
        await anyio.sleep(PATIENCE)

    @flow(timeout_seconds=LATER)
    async def report() -> None:
        await slow()

    with pytest.raises(errors.RunTimedOut, match="Flow run exceeded"):
        anyio.run(report, backend=loop)
    assert states(the_flow_run(quick))[-1] == "TimedOut"
    assert states(the_run_of(quick, slow))[-1] == "Crashed"


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_coroutine_in_time_returns(quick: Orchestrator, loop: str) -> None:
    @flow(timeout_seconds=PATIENCE)
    async def fast() -> int:
        await anyio.sleep(0)
        return 1

    assert anyio.run(fast, backend=loop) == 1


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_plain_task_in_the_thread_of_a_loop_is_timed_out(quick: Orchestrator, loop: str) -> None:
    @task(timeout_seconds=SOON)
    def slow() -> None:
        time.sleep(PATIENCE)

    @flow
    async def report() -> str:
        with pytest.raises(errors.RunTimedOut):
            slow()
        await anyio.sleep(0)
        return "the loop goes on"

    assert anyio.run(report, backend=loop) == "the loop goes on"


# -- what belongs to the user or the process -----------------------------------------------------


def test_alarm_of_the_users_is_left_alone(quick: Orchestrator) -> None:
    rang: list[int] = []

    @flow(timeout_seconds=SOON)
    def slow() -> None:
        spin()

    before = signal.signal(signal.SIGALRM, lambda *_: rang.append(1))
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        with pytest.raises(errors.RunTimedOut):
            slow()
        left, _ = signal.getitimer(signal.ITIMER_REAL)
        signal.raise_signal(signal.SIGALRM)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    assert 0 < left < PATIENCE
    assert rang == [1]


def test_handler_of_the_users_for_our_signal_is_left_alone(quick: Orchestrator) -> None:
    @flow(timeout_seconds=SOON)
    def slow() -> None:
        spin()

    def mine(*_: object) -> None: ...

    before = signal.signal(signal.SIGURG, mine)
    try:
        with pytest.raises(errors.RunTimedOut):
            slow()
        assert signal.getsignal(signal.SIGURG) is mine
    finally:
        signal.signal(signal.SIGURG, before)


def test_signal_that_comes_from_elsewhere_does_nothing(quick: Orchestrator) -> None:
    @flow(timeout_seconds=PATIENCE)
    def signalled() -> str:
        signal.raise_signal(signal.SIGURG)
        return "went on"

    assert signalled() == "went on"


@PLACES
def test_call_that_ends_as_its_time_does_leaves_nothing_behind(place: Any) -> None:
    def race() -> int:
        ended = 0
        for n in range(400):
            seconds = 0.0005 + 0.0001 * (n % 10)

            def call(until: float = time.monotonic() + seconds) -> int:
                while time.monotonic() < until:
                    pass
                return 1

            with contextlib.suppress(errors.RunTimedOut):
                ended += timeouts.within(seconds, call, lambda: errors.RunTimedOut("late"))
            # Whatever was on its way would be raised here.
            sum(range(200))
        return ended

    place(race)

    assert not timeouts._watch._limits


def test_watch_ends_when_there_is_nothing_to_watch(
    quick: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeouts, "_IDLE_SECONDS", 0.001)

    @flow(timeout_seconds=PATIENCE)
    def fast() -> int:
        return 1

    def has_ended() -> bool:
        # It may have gone to sleep until the limit that there was.
        timeouts._watch._bell.ring()
        return timeouts._watch._thread is None

    fast()
    until(has_ended, "the end of the watch")
    fast()
    until(has_ended, "the end of the next watch")


def test_without_a_limit_nothing_of_it_is_loaded() -> None:
    done = run_program(
        "import sys, embedded_orch\n"
        "@embedded_orch.task\n"
        "def fast(): return 1\n"
        "with embedded_orch.open(':memory:'): fast()\n"
        "assert 'embedded_orch.engine.timeouts' not in sys.modules\n"
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_forked_child_has_a_watch_of_its_own() -> None:
    done = run_program(
        "import os, time\n"
        "from embedded_orch import errors\n"
        "from embedded_orch.engine.timeouts import within\n"
        "def late(): return errors.RunTimedOut('late')\n"
        "def child():\n"
        "    pid = os.fork()\n"
        "    if pid: return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])\n"
        "    try: within(0.05, lambda: time.sleep(30), late)\n"
        "    except errors.RunTimedOut: os._exit(7)\n"
        "    os._exit(1)\n"
        "print(within(30, child, late))\n",
        # Python 3.12 and later warn of any fork beside threads.
        flags=("-W", "ignore::DeprecationWarning"),
    )

    assert (done.stdout, done.stderr) == ("7\n", "")


@pytest.mark.parametrize("decorate", [flow, task])
@pytest.mark.parametrize("seconds", [-1, "5", True, float("nan")])
def test_time_that_is_no_number_of_seconds_is_refused(decorate: Any, seconds: Any) -> None:
    with pytest.raises(errors.ConfigurationError, match="timeout_seconds="):
        decorate(timeout_seconds=seconds)(spin)


@pytest.mark.parametrize("decorate", [flow, task])
def test_zero_is_no_limit(decorate: Any) -> None:
    assert decorate(timeout_seconds=0)(spin).timeout_seconds is None
    assert decorate(timeout_seconds=3)(spin).timeout_seconds == 3.0


# -- processes -----------------------------------------------------------------------------------


@task(timeout_seconds=0.3)
def sleep_in_c() -> None:
    time.sleep(PATIENCE)


def test_task_in_a_process_is_timed_out_and_its_process_ended(quick: Orchestrator) -> None:
    from embedded_orch.task_runners import ProcessPoolTaskRunner

    @flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
    def report() -> Any:
        return sleep_in_c.submit().result(raise_on_failure=False)

    assert isinstance(report(), errors.RunTimedOut)
    assert states(the_run_of(quick, sleep_in_c))[-1] == "TimedOut"
