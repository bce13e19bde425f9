"""Slots that several processes share, and those of processes that are killed."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from embedded_orch import Orchestrator, task
from embedded_orch.concurrency.sync import concurrency
from tests.engine.waiting import passed, until
from tests.opened import opened
from tests.programs import PATIENCE
from tests.warm_parent import Talking, talking

pytestmark = pytest.mark.parametrize("url", ["file", "postgres"], indirect=True)

HOLD = """
    import sys, threading
    import embedded_orch
    from embedded_orch.concurrency.sync import concurrency

    with embedded_orch.open(sys.argv[1]):
        with concurrency("db"):
            print("holds", flush=True)
            sys.stdin.read()
    """

CONTEND = """
    import os, sys
    import embedded_orch
    from embedded_orch.concurrency.sync import concurrency

    with embedded_orch.open(sys.argv[1]):
        for _ in range(8):
            with concurrency("db"):
                os.close(os.open(sys.argv[2], os.O_CREAT | os.O_EXCL))
                os.unlink(sys.argv[2])
    """


RUN = """
    import sys
    import embedded_orch
    from embedded_orch import flow, task

    @task(tags=["etl"])
    def work():
        print("holds", flush=True)
        sys.stdin.read()

    @flow
    def run():
        work()

    with embedded_orch.open(sys.argv[1]):
        run()
    """


def program(text: str, *arguments: object) -> AbstractContextManager[Talking]:
    """A process that runs beside this one; killed at the end."""
    # The home, since the file that tells who lives beside a server lies there.
    return talking(text, *arguments, EMBEDDED_ORCH_HOME=os.environ["EMBEDDED_ORCH_HOME"])


def holds(process: Talking) -> bool:
    return process.stdout.readline() == "holds\n"


@pytest.fixture(autouse=True)
def home(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDDED_ORCH_HOME", str(tmp_path / "home"))


@pytest.fixture
def orch(url: str, home: None) -> Iterator[Orchestrator]:
    with opened(url) as orchestrator:
        orchestrator.concurrency_limits.create("db", 1)
        yield orchestrator


def test_the_slot_of_a_killed_process_goes_to_one_of_those_who_wait(
    orch: Orchestrator, url: str
) -> None:
    """Seen to wait for ever when a waiter does not ask which processes have died."""
    held: list[int] = []
    first_holds, let_go = threading.Event(), threading.Event()

    def work(number: int) -> None:
        with concurrency("db"):
            held.append(number)
            first_holds.set()
            passed(let_go)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    with program(HOLD, url) as holder:
        assert holds(holder)
        for number, thread in enumerate(threads):
            thread.start()
            until(lambda number=number: waiting(orch) == number + 1, "a place")
        assert held == []

        holder.kill()
        passed(first_holds)

        assert held == [0]
        assert (orch.concurrency_limits.get("db").active_slots, waiting(orch)) == (1, 2)
        let_go.set()
    for thread in threads:
        thread.join()
    assert held == [0, 1, 2]


def waiting(orchestrator: Orchestrator) -> int:
    return len(orchestrator.concurrency_limits.get("db").waiting)


def test_a_killed_process_that_waits_holds_up_nobody(orch: Orchestrator, url: str) -> None:
    with concurrency("db"), program(HOLD, url) as waiter:
        until(lambda: waiting(orch) == 1, "a place")
        waiter.kill()

    with concurrency("db", timeout_seconds=PATIENCE):
        assert waiting(orch) == 0


def test_a_process_notices_what_another_gives_back(orch: Orchestrator, url: str) -> None:
    with program(HOLD, url) as holder:
        assert holds(holder)
        holder.stdin.close()

        with concurrency("db", timeout_seconds=PATIENCE):
            assert orch.concurrency_limits.get("db").active_slots == 1


def test_processes_that_contend_never_hold_one_slot_twice(
    orch: Orchestrator, url: str, tmp_path: Any
) -> None:
    """Each makes a file that must not be there, inside its block."""
    busy = tmp_path / "busy"
    with program(CONTEND, url, busy) as first, program(CONTEND, url, busy) as second:
        for _ in range(8):
            with concurrency("db"):
                os.close(os.open(busy, os.O_CREAT | os.O_EXCL))
                os.unlink(busy)

        assert (first.wait(PATIENCE), second.wait(PATIENCE)) == (0, 0)

    assert orch.concurrency_limits.get("db").active_slots == 0


def test_the_slot_of_a_killed_task_run_goes_to_the_next(orch: Orchestrator, url: str) -> None:
    orch.concurrency_limits.create("tag:etl", 1)

    @task(tags=["etl"])
    def work() -> int:
        return orch.concurrency_limits.get("tag:etl").active_slots

    with program(RUN, url) as holder:
        assert holds(holder)
        assert orch.concurrency_limits.get("tag:etl").active_slots == 1
        holder.kill()

        assert work() == 1

    [killed] = list(orch.flow_runs.find())
    assert killed.state_name == "Crashed"
    assert orch.concurrency_limits.get("tag:etl").holders == []
