"""Tasks that processes of a pool import; little else, so that they start quickly."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import anyio

from embedded_orch import get_run_logger, runtime, task

STARTED: list[str] = []


def start(word: str) -> None:
    """What a process calls first."""
    if word == "raise":
        raise ValueError("no start today")
    STARTED.append(word)


class Odd(Exception):
    """Takes two arguments, and pickles with one."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first)
        self.second = second


class Unpicklable:
    """It cannot go anywhere."""

    def __reduce__(self) -> Any:
        raise TypeError("not this one")


@task
def square(number: int) -> tuple[int, int]:
    """And who did it."""
    return number * number, os.getpid()


@task
async def square_later(number: int) -> tuple[int, int]:
    """And who did it."""
    await anyio.sleep(0)
    return number * number, os.getpid()


@task
async def which_loop() -> str:
    """What runs it."""
    import sniffio

    return sniffio.current_async_library()


@task(tags=["pooled"])
def about(word: str) -> dict[str, Any]:
    """What it knows of its run."""
    return {
        "task": runtime.task_run.name,
        "id": runtime.task_run.id,
        "tags": runtime.task_run.tags,
        "parameters": runtime.task_run.parameters,
        "flow": runtime.flow_run.flow_name,
        "flow parameters": runtime.flow_run.parameters,
        "flow run": runtime.flow_run.id,
        "root": runtime.flow_run.root_flow_run_id,
        "started": STARTED,
    }


@task
def give_back(value: object) -> object:
    """What it was given."""
    return value


@task
def give_unpicklable() -> object:
    """What cannot be sent."""
    return Unpicklable()


@task
def fail(kind: str) -> None:
    """In one of several ways."""
    if kind == "odd":
        raise Odd("one", "two")
    if kind == "unpicklable":
        error = ValueError("no")
        error.extra = Unpicklable()  # type: ignore[attr-defined]
        raise error
    if kind == "exit":
        sys.exit(3)
    raise ValueError("no")


@task
def die(how: str) -> None:
    """And take the process along."""
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(3)


@task
def die_once(path: str) -> str:
    """The first time."""
    if Path(path).exists():
        return "done"
    Path(path).touch()
    os._exit(3)


@task(retries=2)
def succeed_later(path: str) -> int:
    """At the third attempt."""
    with Path(path).open("a") as file:
        file.write("x")
    count = Path(path).stat().st_size
    if count < 3:
        raise ValueError("not yet")
    return count


@task
def call_a_task() -> object:
    """Which is not possible here."""
    return square(3)


@task
def log(word: str) -> None:
    """To whoever listens."""
    logging.getLogger("tests.pool").warning("heard %s", word)


@task
def run_on(path: str, *, is_deaf: bool = False) -> None:
    """Until it is stopped; who it is stands in the file."""
    Path(path).write_text(str(os.getpid()))
    while True:
        try:
            while True:
                time.sleep(0.01)
        except BaseException:
            if not is_deaf:
                Path(path).with_suffix(".cleaned").touch()
                raise


@task
def tells(word: str) -> None:
    """Logs and prints."""
    get_run_logger().info("logs %s", word)
    print("prints", word)
