"""Processes that own runs, on hosts of a test's choosing; they are stopped, killed and awoken.

Run as a program it opens a database as the host named in ``HOST`` (its own when not given) and
calls a flow, which says ``holds`` on standard output, waits for a line on standard input, and then
writes what its argument says. What came of that is printed, and how the flow ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from embedded_orch import flow, get_run_logger, task
from embedded_orch.artifacts import create_markdown_artifact
from embedded_orch.concurrency.sync import concurrency
from embedded_orch.engine.watching import Watch
from embedded_orch.orchestrator import open_orchestrator
from embedded_orch.process import Process, ProcessFacts, process_facts
from embedded_orch.variables import Variable
from tests.engine.waiting import until
from tests.programs import PATIENCE, environment
from tests.warm_parent import Talking, talking


@task
def work() -> int:
    return 1


@flow
def child() -> int:
    return work()


WRITES: dict[str, Any] = {
    "task": work,
    "subflow": child,
    "variable": lambda: Variable.set("limit", 3, overwrite=True),
    "artifact": lambda: create_markdown_artifact("# Late", key="late"),
    "slot": lambda: concurrency("db", strict=True).__enter__(),
    "log": lambda: get_run_logger().warning("late"),
    "nothing": lambda: None,
}


def hold_and_write(what: str) -> None:
    print("holds", flush=True)
    sys.stdin.readline()
    try:
        WRITES[what]()
        print("wrote", flush=True)
    except Exception as error:
        print(type(error).__name__, flush=True)
        # Code that goes on all the same is no different.


@flow
def holding(what: str) -> None:
    hold_and_write(what)


@flow(on_crash="resume")
def resumable(what: str) -> None:
    hold_and_write(what)


@flow
def calling(what: str) -> None:
    inner(what)


@flow
def inner(what: str) -> None:
    hold_and_write(what)


@task
def alone(what: str) -> None:
    hold_and_write(what)


@flow
def with_slot(what: str) -> None:
    with concurrency("db"):
        hold_and_write(what)


@flow
def busy(what: str) -> None:
    print("holds", flush=True)
    while True:
        sum(range(1000))


def facts_of(host: str) -> ProcessFacts:
    """This process, as it would be on another host."""
    return process_facts()._replace(host=host, boot_id=f"boot of {host}")


def process_of_host() -> Process:
    host = os.environ.get("HOST")
    return Process() if host is None else Process(facts=lambda: facts_of(host))


def main(url: str, name: str, what: str) -> None:
    if name != "busy":
        # Or it would be interrupted before it comes to its next write.
        Watch.look = lambda self: None  # type: ignore[method-assign]
    lease = os.environ.get("LEASE")
    settings = {} if lease is None else {"lease_seconds": float(lease)}
    with open_orchestrator(url, process=process_of_host(), **settings):
        try:
            globals()[name](what)
            print("ended well", flush=True)
        except BaseException as error:
            print(f"ended {type(error).__name__}", flush=True)


class Owning:
    """A process that runs a flow, and holds it."""

    def __init__(self, process: Talking | subprocess.Popen[str]) -> None:
        self.process = process
        assert self.line() == "holds"

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def stop(self) -> None:
        """SIGSTOP, and it is stopped when this returns."""
        self.process.send_signal(signal.SIGSTOP)
        until(lambda: self._scheduling_state() == "T", "it is stopped")

    def _scheduling_state(self) -> str:
        with open(f"/proc/{self.process.pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0]

    def wake(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def go_on(self) -> tuple[str, str]:
        """What came of its write, and how its flow ended."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.line(), self.line()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)


_PROGRAM = "import sys; from tests.owners import main; main(*sys.argv[1:])"


@contextmanager
def owning(
    url: str, name: str, what: str = "task", *, within: Sequence[str] = (), **added: str
) -> Iterator[Owning]:
    """A process that holds a run of one of the flows here; killed at the end.

    Args:
        url: of the database.
        name: of the flow.
        what: see ``WRITES``.
        within: a program that starts it, with its arguments.
        added: to its environment.
    """
    added = {"EMBEDDED_ORCH_HOME": os.environ["EMBEDDED_ORCH_HOME"], **added}
    if not within:
        with talking(_PROGRAM, url, name, what, **added) as forked:
            yield Owning(forked)
        return
    process = subprocess.Popen(
        [*within, sys.executable, "-c", _PROGRAM, url, name, what],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(**added),
    )
    try:
        yield Owning(process)
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)


@contextmanager
def owning_elsewhere(
    url: str, name: str, what: str = "task", *, home: Path, host: str = "elsewhere"
) -> Iterator[Owning]:
    """The same on another host, with a home of its own, and a lease of a second."""
    home.mkdir(exist_ok=True)
    with owning(url, name, what, HOST=host, LEASE="1", EMBEDDED_ORCH_HOME=str(home)) as process:
        yield process
