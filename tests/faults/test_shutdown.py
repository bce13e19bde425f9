"""However a process ends, its runs are on record as what became of them, and can be gone on with.

Real processes, which a signal or their own doing ends in the middle of a flow. What they leave is
looked at by a process that opens the database after them, and the run is resumed by another.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import dedent, indent
from typing import NamedTuple

import pytest

import embedded_orch
from tests.programs import PATIENCE, environment, run_program

PROGRAM = """
import os, signal, sys, threading, time

import embedded_orch
from embedded_orch import flow, get_run_logger, task

blocks = os.environ.get("BLOCKS")


def ready():
    print("ready", flush=True)


@task
def first():
    print("first", flush=True)
    return 1


@task
def last():
    if blocks:
        ENDS
    return 2


@flow
def report():
    first()
    return WORKS


def fail(flow, run, state):
    raise RuntimeError("the hook is broken")
"""
# How the second task ends its process, or waits to be ended. By short waits: a signal that comes
# after the interpreter has looked for one, and before a wait has begun, is seen when that ends.
WAITS = "ready(); [time.sleep(0.01) for _ in range(10**6)]"
# How the flow calls it.
CALLS, SUBMITS = "last()", "last.submit().result()"


class Ended(NamedTuple):
    """How a process ended, and what it printed."""

    status: int
    output: str
    errors: str


def here() -> dict[str, str]:
    """What makes processes know each other on a server: one host is one home folder."""
    return {"EMBEDDED_ORCH_HOME": os.environ["EMBEDDED_ORCH_HOME"]}


@contextmanager
def a_process(text: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has come to where it is "ready"; killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", text],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**here(), BLOCKS="1", EMBEDDED_ORCH_LOG_LEVEL="WARNING"),
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line == "ready\n":
                break
        yield process
    finally:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> Ended:
    output, errors = process.communicate(timeout=PATIENCE)
    return Ended(process.returncode, output, errors)


def program(main: str, *, ends: str = WAITS, works: str = CALLS) -> str:
    # What ends it stands in the body of an if in a function.
    body = indent(dedent(ends), " " * 8).strip()
    return PROGRAM.replace("ENDS", body).replace("WORKS", works) + dedent(main)


def calling(url: str) -> str:
    return f"""
        with embedded_orch.open({url!r}):
            report()
    """


@pytest.fixture
def lasting_url(url: str) -> str:
    if url == ":memory:":
        pytest.skip("nothing is left of a database in memory")
    return url


def check_record(url: str, *, said: str, state: str = "Crashed") -> None:
    """The run is on record as ended, and says why; what was completed is, too."""
    with embedded_orch.open(url) as orch:
        [run] = orch.flow_runs.find()
        found = orch.task_runs.find()
        tasks = {each.task_key.rpartition(".")[2]: each.state.name for each in found}
    assert run.state.name == state
    assert said in (run.state.message or ""), run.state.message
    # Of a process that died, the announced start of its last task may be lost.
    assert tasks == {"first": "Completed", **({"last": state} if "last" in tasks else {})}
    assert "last" in tasks or "died" in said


def check_resumed(url: str, *, works: str = CALLS) -> None:
    """Another process goes on with the run, and calls only what was not completed."""
    main = f"""
        with embedded_orch.open({url!r}) as orch:
            [run] = orch.flow_runs.find()
            print("returned", report.resume(run.id))
    """
    found = run_program(program(main, works=works), **here())
    assert found.returncode == 0, found.stderr
    assert found.stdout.split("\n") == ["returned 2", ""]


# -- Signals ---------------------------------------------------------------------------------------


def test_ctrl_c_ends_the_run_as_crashed_and_the_process_by_the_signal(lasting_url: str) -> None:
    with a_process(program(calling(lasting_url))) as process:
        process.send_signal(signal.SIGINT)
        end = ended(process)

    assert end.status == -signal.SIGINT
    assert "KeyboardInterrupt" in end.errors
    check_record(lasting_url, said="KeyboardInterrupt")
    check_resumed(lasting_url)


def test_ctrl_c_interrupts_what_was_submitted_too(lasting_url: str) -> None:
    ends = "ready(); [time.sleep(0.001) for _ in range(10**6)]"
    with a_process(program(calling(lasting_url), ends=ends, works=SUBMITS)) as process:
        process.send_signal(signal.SIGINT)
        end = ended(process)

    assert end.status == -signal.SIGINT
    check_record(lasting_url, said="KeyboardInterrupt")
    check_resumed(lasting_url, works=SUBMITS)


def test_second_ctrl_c_interrupts_what_the_first_has_begun(lasting_url: str) -> None:
    """The task cleans up when it is interrupted, and that takes too long for a person."""
    ends = f"""
        try:
            {WAITS}
        finally:
            print("cleaning", flush=True)
            {WAITS}
    """
    with a_process(program(calling(lasting_url), ends=ends)) as process:
        assert process.stdout is not None
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "cleaning\n"
        process.send_signal(signal.SIGINT)
        end = ended(process)

    assert end.status == -signal.SIGINT
    check_record(lasting_url, said="KeyboardInterrupt")
    check_resumed(lasting_url)


def test_second_ctrl_c_does_not_wait_for_a_thread_that_is_blocked(lasting_url: str) -> None:
    """The first one does, and says so: what is blocked in C goes on until it returns.

    Seen to fail when the task run was left as Running below a flow run that has ended.
    """
    # Told by another thread, once this one is blocked: before that it could be interrupted.
    ends = "threading.Timer(1, ready).start(); time.sleep(3600)"
    with a_process(program(calling(lasting_url), ends=ends, works=SUBMITS)) as process:
        assert process.stderr is not None
        process.send_signal(signal.SIGINT)
        assert any("waits for task run last" in line for line in process.stderr)
        process.send_signal(signal.SIGINT)
        end = ended(process)

    assert end.status == -signal.SIGINT
    check_record(lasting_url, said="KeyboardInterrupt")
    check_resumed(lasting_url, works=SUBMITS)


def test_sigterm_is_found_out_by_the_next_process(lasting_url: str) -> None:
    """It ends a process without Python, unless that handles it."""
    with a_process(program(calling(lasting_url))) as process:
        process.terminate()
        end = ended(process)

    assert end.status == -signal.SIGTERM
    check_record(lasting_url, said=f"the process that ran it died (pid {process.pid}")
    check_resumed(lasting_url)


def test_sigterm_that_becomes_an_exit_is_recorded_at_once(lasting_url: str) -> None:
    handler = "\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
    with a_process(program(handler + dedent(calling(lasting_url)))) as process:
        process.terminate()
        end = ended(process)

    assert end.status == 143
    check_record(lasting_url, said="SystemExit")
    check_resumed(lasting_url)


# -- The process ends itself -----------------------------------------------------------------------


def test_os_exit_in_a_task_is_found_out_by_the_next_process(lasting_url: str) -> None:
    text = program(calling(lasting_url), ends="ready(); os._exit(7)")
    with a_process(text) as process:
        end = ended(process)

    assert end.status == 7
    check_record(lasting_url, said=f"the process that ran it died (pid {process.pid}")
    check_resumed(lasting_url)


def test_interpreter_that_exits_waits_for_a_flow_in_a_thread(lasting_url: str) -> None:
    main = f"""
        orch = embedded_orch.open({lasting_url!r})
        threading.Thread(target=report).start()
        while not orch.flow_runs.count():
            time.sleep(0.01)
    """
    with a_process(program(main, ends="ready(); time.sleep(0.2)")) as process:
        end = ended(process)

    assert end.status == 0, end.errors
    check_record(lasting_url, said="", state="Completed")


def test_flow_in_a_daemon_thread_is_given_up_when_the_interpreter_exits(lasting_url: str) -> None:
    main = f"""
        orch = embedded_orch.open({lasting_url!r})
        begun = threading.Event()
        ready = begun.set
        threading.Thread(target=report, daemon=True).start()
        begun.wait()
        print("ready", flush=True)
    """
    with a_process(program(main)) as process:
        end = ended(process)

    assert end.status == 0, end.errors
    check_record(lasting_url, said="the orchestrator was closed while it ran")
    check_resumed(lasting_url)


def test_open_orchestrator_that_nobody_closes_is_closed_at_the_exit(lasting_url: str) -> None:
    """Also when an exception ends the program, in no block of ours."""
    main = f"""
        orch = embedded_orch.open({lasting_url!r})
        report()
        raise SystemExit("the program fails behind it")
    """
    with a_process(program(main, ends="ready()")) as process:
        end = ended(process)

    assert end.status == 1
    with embedded_orch.open(lasting_url) as orch:
        living = orch.sql("select count(*) from process where ended is null").scalar()
        [run] = orch.flow_runs.find()
    assert living == 0
    assert run.state.name == "Completed"


# -- A notebook ------------------------------------------------------------------------------------

KERNEL = """
    import asyncio

    cells = [
        "orch = embedded_orch.open({url!r})",
        "report()",
        "print('second', report(return_state=True).name, flush=True)",
    ]


    async def kernel():
        # As a kernel runs cells: inside a loop that is running, and after an interrupt the next.
        place = dict(globals())
        for cell in cells:
            try:
                exec(cell, place)
            except KeyboardInterrupt:
                print("interrupted", flush=True)
                place["last"].fn.__globals__["blocks"] = None


    # Not by asyncio.run(), which handles the signal in its own way.
    asyncio.new_event_loop().run_until_complete(kernel())
"""


def test_cell_that_was_interrupted_leaves_a_notebook_that_works(lasting_url: str) -> None:
    main = KERNEL.replace("{url!r}", repr(lasting_url))
    with a_process(program(main)) as process:
        process.send_signal(signal.SIGINT)
        end = ended(process)

    assert end.status == 0, end.errors
    assert end.output.split() == ["interrupted", "first", "second", "Completed"]
    with embedded_orch.open(lasting_url) as orch:
        names = [run.state.name for run in orch.flow_runs.find()]
    assert sorted(names) == ["Completed", "Crashed"]


def test_notebook_whose_kernel_died_goes_on_in_the_next_kernel(lasting_url: str) -> None:
    main = KERNEL.replace("{url!r}", repr(lasting_url))
    with a_process(program(main)) as process:
        process.kill()
        ended(process)

    check_record(lasting_url, said="died")
    check_resumed(lasting_url)


# -- A hook ----------------------------------------------------------------------------------------


def test_hook_that_raises_neither_ends_the_process_nor_changes_the_record(lasting_url: str) -> None:
    main = f"""
        with embedded_orch.open({lasting_url!r}):
            print(report.with_options(on_completion=[fail])(), flush=True)
    """
    found = run_program(program(main), **here(), EMBEDDED_ORCH_LOG_LEVEL="WARNING")

    assert found.returncode == 0
    assert found.stdout == "first\n2\n"
    assert "the hook is broken" in found.stderr
    check_record(lasting_url, said="", state="Completed")
