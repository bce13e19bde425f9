"""Logging in programs of their own: what is shown, and what survives."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from tests.opened import opened
from tests.programs import PATIENCE, environment, run_program

REPORT = """
    import logging, sys
    import embedded_orch
    from embedded_orch import Secret, flow, get_run_logger, task

    @task
    def load(number):
        get_run_logger().info("loading %d", number)
        get_run_logger().debug("in detail")

    @flow(log_prints=True)
    def report():
        load(1)
        print("half way")
        get_run_logger().warning("the key is hunter22")

    key = Secret("hunter22")
    {setting}
    with embedded_orch.open(":memory:"):
        report()
        logging.getLogger("embedded_orch.flow_runs").info("outside")
"""


def shown(setting: str = "", **added: str) -> tuple[list[str], str]:
    """What the report shows, without times and names of runs, and what it prints."""
    done = run_program(REPORT.format(setting=setting), **{"EMBEDDED_ORCH_LOG_LEVEL": "", **added})
    assert done.returncode == 0, done.stderr
    lines = [
        re.sub(r"load-\w{3}", "TASK", re.sub(r"\d\d:\d\d:\d\d\.\d{3} ", "", line))
        for line in done.stderr.splitlines()
    ]
    return [re.sub(r"[a-z]+-[a-z]+(?=/|:)", "RUN", line) for line in lines], done.stdout


def test_runs_are_seen_on_standard_error() -> None:
    lines, printed = shown()

    assert lines[:-1] == [
        "INFO     RUN: begins: flow 'report'",
        "INFO     RUN/TASK: loading 1",
        "WARNING  RUN: the key is **********",
    ]
    assert re.fullmatch(r"INFO     RUN: ends as Completed after \d+\.\d\d s", lines[-1])
    assert printed == "half way\n"


@pytest.mark.parametrize(
    ("level", "expected"), [("debug", 5), ("WARNING", 1), ("30", 1), ("CRITICAL", 0)]
)
def test_the_level_is_chosen_by_the_environment(level: str, expected: int) -> None:
    lines, _ = shown(EMBEDDED_ORCH_LOG_LEVEL=level)

    assert len(lines) == expected


@pytest.mark.parametrize(
    ("setting", "first"),
    [
        ("logging.basicConfig(format='mine %(message)s')", "mine "),
        ("logging.getLogger().addHandler(logging.NullHandler())", None),
    ],
)
def test_a_program_that_sets_logging_up_shows_them_itself(setting: str, first: str | None) -> None:
    lines, _ = shown(setting)

    assert all(line.startswith("mine ") for line in lines)
    assert bool(lines) is (first is not None)


def test_a_level_that_is_none_is_refused_before_the_run_begins() -> None:
    done = run_program(REPORT.format(setting=""), EMBEDDED_ORCH_LOG_LEVEL="loud")

    assert done.returncode == 1
    assert "EMBEDDED_ORCH_LOG_LEVEL='loud'" in done.stderr


def test_lines_from_atexit_and_signal_handlers_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "orch.db"
    done = run_program(
        """
        import atexit, os, signal, sys
        import embedded_orch
        from embedded_orch import flow, get_run_logger, task

        @task
        def interrupted():
            logger = get_run_logger()
            signal.signal(signal.SIGUSR1, lambda *_: logger.info("in a handler"))
            for number in range(200):
                os.kill(os.getpid(), signal.SIGUSR1)
                logger.info("line %d", number)
            # Called before the orchestrator is closed, which registered itself first.
            atexit.register(logger.info, "at the end")

        embedded_orch.open(sys.argv[1])
        interrupted()
        """,
        path,
        flags=("-W", "error", "-X", "dev"),
        EMBEDDED_ORCH_LOG_LEVEL="INFO",
    )

    assert done.returncode == 0, done.stderr
    with opened(str(path)) as orchestrator:
        found = [line.message for line in orchestrator.logs.find()]
    assert [line for line in found if line.startswith("line")] == [
        f"line {number}" for number in range(200)
    ]
    assert found.count("in a handler") == 200
    assert found[-1] == "at the end"


def test_a_process_that_is_killed_keeps_the_lines_of_what_it_finished(tmp_path: Path) -> None:
    program = """
        import sys, threading
        import embedded_orch
        from embedded_orch import flow, get_run_logger, task

        @task
        def finishes(number):
            for line in range(50):
                get_run_logger().info("task %d line %d", number, line)

        @task
        def goes_on():
            print("now", flush=True)
            while True:
                get_run_logger().info("and on")

        @flow
        def report():
            finishes.map(range(20)).wait()
            goes_on()

        with embedded_orch.open(sys.argv[1]):
            report()
    """
    path = str(tmp_path / "orch.db")
    process = subprocess.Popen(
        [sys.executable, "-c", dedent(program), path],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(EMBEDDED_ORCH_LOG_LEVEL="INFO"),
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "now\n"
    finally:
        process.kill()
        process.wait(PATIENCE)
        process.stdout.close()

    with opened(path) as orchestrator:
        finished = [run.id for run in orchestrator.task_runs.find(state_type="COMPLETED")]
        assert len(finished) == 20
        assert {orchestrator.logs.count(task_run_id=each) for each in finished} == {50}


def test_a_forked_child_keeps_nothing_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "orch.db"
    done = run_program(
        """
        import os, sys
        import embedded_orch
        from embedded_orch import get_run_logger, task

        @task
        def forks():
            logger = get_run_logger()
            logger.info("before")
            child = os.fork()
            if child == 0:
                logger.info("in the child")
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            logger.info("after")

        with embedded_orch.open(sys.argv[1]):
            forks()
        """,
        path,
        EMBEDDED_ORCH_LOG_LEVEL="INFO",
    )

    assert done.returncode == 0, done.stderr
    with opened(str(path)) as orchestrator:
        assert [line.message for line in orchestrator.logs.find()] == ["before", "after"]
