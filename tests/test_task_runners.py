"""Task runners: threads and processes, as an option of a flow and by themselves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from embedded_orch import errors, flow, task
from embedded_orch.task_runners import (
    ConcurrentTaskRunner,
    ProcessPoolTaskRunner,
    TaskRunner,
    ThreadPoolTaskRunner,
)
from tests import pool_tasks
from tests.engine.waiting import passed, until
from tests.opened import opened, runs_of, states, the_flow_run, the_run_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from embedded_orch import Orchestrator

ROOT = Path(__file__).parent.parent


@pytest.fixture
def orch(url: str) -> Iterator[Orchestrator]:
    with opened(url) as orchestrator:
        yield orchestrator


@pytest.fixture
def quick() -> Iterator[Orchestrator]:
    with opened(":memory:") as orchestrator:
        yield orchestrator


def in_pool(body: Callable[[], Any], max_workers: int = 1, **options: Any) -> Any:
    """In a flow whose tasks run in processes."""
    runner = ProcessPoolTaskRunner(max_workers, **options)
    return flow(name="a-flow", task_runner=runner)(body)()


def is_alive(pid: int) -> bool:
    """Whether it runs; what has ended may wait for somebody to ask how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


# -- the option ----------------------------------------------------------------------------------


@pytest.mark.parametrize("runner", [ThreadPoolTaskRunner, ThreadPoolTaskRunner(max_workers=2)])
def test_flow_takes_a_runner_or_its_class(quick: Orchestrator, runner: Any) -> None:
    @task
    def one() -> int:
        return 1

    @flow(task_runner=runner)
    def report() -> int:
        return one.submit().result()

    assert report() == 1
    assert isinstance(report.task_runner, ThreadPoolTaskRunner)


def test_each_run_has_a_runner_of_its_own(quick: Orchestrator) -> None:
    """With one for both, the place of the parent would be missing to the child for ever."""
    runner = ThreadPoolTaskRunner(max_workers=1)

    @task
    def one() -> int:
        return 1

    @flow(task_runner=runner)
    def child() -> int:
        return one.submit().result()

    @task
    def call() -> int:
        return child()

    @flow(task_runner=runner)
    def report() -> int:
        return call.submit().result()

    assert report() == 1
    assert report() == 1


def test_max_workers_is_the_number_of_tasks_that_run(quick: Orchestrator) -> None:
    counting = threading.Lock()
    running, most = 0, 0

    @task
    def work(number: int) -> None:
        nonlocal running, most
        with counting:
            running += 1
            most = max(most, running)
        time.sleep(0.001)
        with counting:
            running -= 1

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=3))
    def report() -> None:
        work.map(range(50)).wait()

    report()

    assert 0 < most <= 3


def test_flow_without_one_has_the_default(quick: Orchestrator) -> None:
    assert flow(name="a-flow")(lambda: None).task_runner == ThreadPoolTaskRunner()
    assert ConcurrentTaskRunner is ThreadPoolTaskRunner


@pytest.mark.parametrize("wrong", [3, "threads", int, object()])
def test_what_is_no_runner_is_refused_when_the_flow_is_decorated(wrong: Any) -> None:
    with pytest.raises(errors.ConfigurationError, match="task_runner="):
        flow(name="a-flow", task_runner=wrong)(lambda: None)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "4"])
@pytest.mark.parametrize("kind", [ThreadPoolTaskRunner, ProcessPoolTaskRunner])
def test_wrong_number_of_workers_is_refused(kind: Any, wrong: Any) -> None:
    with pytest.raises(errors.ConfigurationError, match="max_workers="):
        kind(max_workers=wrong)


def test_runner_with_a_way_of_its_own_is_refused() -> None:
    with pytest.raises(errors.OptionNotSupported, match=r"Cluster\.submit"):

        class Cluster(TaskRunner):
            def submit(self, *args: Any, **kwargs: Any) -> Any:
                raise AssertionError("never called")


def test_runners_are_equal_by_what_they_do() -> None:
    runner = ProcessPoolTaskRunner(3, initializer=pool_tasks.start, initargs=("a",))

    assert runner.duplicate() == runner != ProcessPoolTaskRunner(3)
    assert ThreadPoolTaskRunner(3).duplicate() == ThreadPoolTaskRunner(3) != runner
    assert (runner.name, ThreadPoolTaskRunner().name) == ("processpool", "threadpool")
    assert repr(runner) == "ProcessPoolTaskRunner(max_workers=3)"


# -- by themselves -------------------------------------------------------------------------------


def test_runner_that_is_entered_runs_tasks_outside_of_a_flow(orch: Orchestrator) -> None:
    @task
    def add(a: int, b: int = 1) -> int:
        return a + b

    with ThreadPoolTaskRunner(max_workers=2) as runner:
        assert runner.submit(add, {"a": 1}).result() == 2
        assert runner.map(add, {"a": [1, 2], "b": 3}).result() == [4, 5]

    assert {run.flow_run_id for run in runs_of(orch, add)} == {None}


def test_runner_that_is_not_entered_says_so(quick: Orchestrator) -> None:
    runner = ThreadPoolTaskRunner()

    with pytest.raises(errors.MissingContextError, match="enter it"):
        runner.submit(pool_tasks.square, {"number": 1})
    with runner, pytest.raises(errors.MissingContextError, match="already"):
        runner.__enter__()


def test_runner_that_is_left_by_an_error_stops_what_it_runs(quick: Orchestrator) -> None:
    begun = threading.Event()

    @task
    def work() -> None:
        begun.set()
        while True:
            time.sleep(0.001)

    with pytest.raises(ValueError), ThreadPoolTaskRunner() as runner:
        future = runner.submit(work, {})
        passed(begun)
        raise ValueError

    with pytest.raises(errors.CancelledRun):
        future.result()


# -- processes -----------------------------------------------------------------------------------


def test_tasks_run_in_processes_and_are_recorded_here(orch: Orchestrator) -> None:
    def body() -> list[Any]:
        futures = [
            *pool_tasks.square.map(range(3)),
            pool_tasks.square_later.submit(3),
        ]
        return [future.result() for future in futures]

    found = in_pool(body)

    assert [value for value, _ in found] == [0, 1, 4, 9]
    pids = {pid for _, pid in found}
    assert len(pids) == 1
    assert os.getpid() not in pids
    assert not any(map(is_alive, pids))
    for run in runs_of(orch, pool_tasks.square):
        assert states(run) == ["Pending", "Running", "Completed"]
        assert run.flow_run_id == the_flow_run(orch).id


def test_processes_know_their_runs(quick: Orchestrator) -> None:
    runner = ProcessPoolTaskRunner(1, initializer=pool_tasks.start, initargs=("ready",))

    @flow(name="child", task_runner=runner)
    def child(numbers: list[int]) -> Any:
        return pool_tasks.about.submit("word").result()

    @flow(name="a-flow")
    def report() -> Any:
        return child([1, 2])

    told = report()

    run = the_run_of(quick, pool_tasks.about)
    assert told == {
        "task": run.name,
        "id": str(run.id),
        "tags": ["pooled"],
        "parameters": {"word": "word"},
        "flow": "child",
        "flow parameters": {"numbers": [1, 2]},
        "flow run": str(run.flow_run_id),
        "root": str(the_flow_run(quick, flow_name="a-flow").id),
        "started": ["ready"],
    }


def test_async_tasks_run_on_the_kind_of_loop_that_submitted_them(quick: Orchestrator) -> None:
    @flow(task_runner=ProcessPoolTaskRunner(1))
    async def report() -> str:
        return await pool_tasks.which_loop.submit()

    assert anyio.run(report, backend="trio") == "trio"


def test_failures_come_back_and_are_retried(quick: Orchestrator, tmp_path: Path) -> None:
    def body() -> int:
        fail = pool_tasks.fail
        with pytest.raises(ValueError, match="no") as caught:
            fail.submit("plainly").result()
        assert "in process" in "".join(caught.value.__notes__)
        with pytest.raises(errors.FailedRun, match="Odd: one"):
            fail.submit("odd").result()
        with pytest.raises(errors.FailedRun, match="ValueError: no"):
            fail.submit("unpicklable").result()
        with pytest.raises(SystemExit):
            fail.submit("exit").result()
        return pool_tasks.succeed_later.submit(str(tmp_path / "attempts")).result()

    assert in_pool(body) == 3

    history = states(the_run_of(quick, pool_tasks.succeed_later))
    assert history == ["Pending", "Running", "Retrying", "Retrying", "Completed"]
    [*_, exited] = runs_of(quick, pool_tasks.fail)
    assert states(exited)[-1] == "Crashed"


@pytest.mark.parametrize(
    ("how", "said"), [("exit", "ended with exit code 3"), ("kill", "was killed by SIGKILL")]
)
def test_process_that_dies_crashes_its_task_and_no_other(
    quick: Orchestrator, how: str, said: str
) -> None:
    def body() -> Any:
        future = pool_tasks.die.submit(how)
        with pytest.raises(errors.CrashedRun, match=said):
            future.result()
        return pool_tasks.square.submit(2).result()[0]

    assert in_pool(body) == 4

    run = the_run_of(quick, pool_tasks.die)
    assert states(run) == ["Pending", "Running", "Crashed"]
    assert run.state is not None
    assert "pid" in str(run.state.message)


def test_resumed_run_runs_again_only_what_did_not_complete(
    quick: Orchestrator, tmp_path: Path
) -> None:
    @flow(name="a-flow", task_runner=ProcessPoolTaskRunner(1))
    def report(path: str) -> list[Any]:
        return [pool_tasks.square.submit(2).result(), pool_tasks.die_once.submit(path).result()]

    with pytest.raises(errors.CrashedRun):
        report(str(tmp_path / "died"))
    found = report.resume(the_flow_run(quick).id)

    assert [found[0][0], found[1]] == [4, "done"]
    assert states(the_run_of(quick, pool_tasks.square)) == ["Pending", "Running", "Completed"]


def test_what_cannot_be_sent_is_named(quick: Orchestrator) -> None:
    def body() -> Any:
        with pytest.raises(errors.ValueNotPicklable, match="arguments of task run give_back"):
            pool_tasks.give_back.submit(pool_tasks.Unpicklable()).result()
        with pytest.raises(errors.ValueNotPicklable, match="result of task run give_unpicklable"):
            pool_tasks.give_unpicklable.submit().result()
        with pytest.raises(errors.MissingContextError, match="no database"):
            pool_tasks.call_a_task.submit().result()
        return pool_tasks.give_back.submit({1, 2}).result()

    assert in_pool(body) == {1, 2}


def test_initializer_that_raises_fails_the_tasks(quick: Orchestrator) -> None:
    def body() -> None:
        with pytest.raises(errors.ProcessPoolError, match="no start today"):
            pool_tasks.square.submit(2).result()

    in_pool(body, initializer=pool_tasks.start, initargs=("raise",))


def test_log_of_a_process_is_heard_here(
    quick: Orchestrator, caplog: pytest.LogCaptureFixture
) -> None:
    in_pool(lambda: pool_tasks.log.submit("it").wait())

    assert [
        (record.name, record.getMessage())
        for record in caplog.records
        if record.name == "tests.pool"
    ] == [("tests.pool", "heard it")]


@pytest.mark.parametrize("is_deaf", [False, True])
def test_failing_flow_ends_its_processes(
    quick: Orchestrator, tmp_path: Path, is_deaf: bool
) -> None:
    path = tmp_path / "pid"

    def body() -> None:
        pool_tasks.run_on.submit(str(path), is_deaf=is_deaf)
        until(lambda: path.exists() and path.read_text(), "the task runs")
        raise ValueError("no")

    with pytest.raises(ValueError):
        in_pool(body)

    assert not is_alive(int(path.read_text()))
    assert path.with_suffix(".cleaned").exists() is not is_deaf
    assert states(the_run_of(quick, pool_tasks.run_on)) == ["Pending", "Running", "Crashed"]


# -- scripts -------------------------------------------------------------------------------------

SCRIPT = """
import sys, embedded_orch
from embedded_orch import flow, task
from embedded_orch.task_runners import ProcessPoolTaskRunner

class Box:
    def __init__(self, value):
        self.value = value

@task
def square(box):
    return Box(box.value ** 2)

@flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
def report():
    found = square.submit(Box(4)).result()
    assert isinstance(found, Box)
    print("found", found.value)
"""
CALL = "with embedded_orch.open(':memory:'): report()\n"
GUARDED = SCRIPT + "if __name__ == '__main__':\n    " + CALL
UNGUARDED = SCRIPT + CALL


def run(
    arguments: list[str], tmp_path: Path, *, has_extra: bool
) -> subprocess.CompletedProcess[str]:
    if has_extra:
        pytest.importorskip("cloudpickle")
    else:
        (tmp_path / "cloudpickle.py").write_text("raise ImportError('not installed')")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("source", "has_extra", "said"),
    [
        (GUARDED, True, ""),
        (GUARDED, False, ""),
        (UNGUARDED, True, ""),
        (UNGUARDED, False, "ProcessPoolError.*if __name__ == '__main__'.*embedded_orch.processes"),
    ],
    ids=["guard, extra", "guard", "extra", "neither"],
)
def test_scripts_work_or_say_what_is_missing(
    tmp_path: Path, source: str, has_extra: bool, said: str
) -> None:
    import re

    script = tmp_path / "script.py"
    script.write_text(source)

    ended = run([str(script)], tmp_path, has_extra=has_extra)

    if said:
        assert ended.returncode == 1
        assert re.search(said, ended.stderr, re.DOTALL), ended.stderr
    else:
        assert ended.returncode == 0, ended.stderr
        assert "found 16" in ended.stdout


@pytest.mark.parametrize("has_extra", [True, False])
def test_code_without_a_file_works_with_the_extra(tmp_path: Path, has_extra: bool) -> None:
    """``python -c``; a notebook is the same: its functions have no module to import."""
    ended = run(["-c", UNGUARDED], tmp_path, has_extra=has_extra)

    if has_extra:
        assert "found 16" in ended.stdout, ended.stderr
    else:
        assert "MissingExtra" in ended.stderr
        assert "pip install 'embedded_orch[processes]'" in ended.stderr


ENDLESS = """
import sys, embedded_orch
from embedded_orch import flow
from embedded_orch.task_runners import ProcessPoolTaskRunner
from tests.pool_tasks import run_on

@flow(task_runner=ProcessPoolTaskRunner(max_workers=1))
def report():
    run_on.submit(sys.argv[1]).result()

with embedded_orch.open(":memory:"):
    report()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_is_left_behind(tmp_path: Path, number: signal.Signals) -> None:
    path = tmp_path / "pid"
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS, str(path)], cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as script:
        until(lambda: path.exists() and path.read_text(), "the task runs")
        pid = int(path.read_text())
        script.send_signal(number)
        _, said = script.communicate(timeout=30)

    until(lambda: not is_alive(pid), "the process ends")
    assert ("KeyboardInterrupt" in said) == (number == signal.SIGINT)
    assert path.with_suffix(".cleaned").exists()
