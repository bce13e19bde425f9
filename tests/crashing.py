"""Flows that are killed at a chosen point, and the process that they are killed in.

Run as a program it opens a database and calls one of the flows; a task that comes to the point
named in ``STOP_AT`` says so on standard output and stays there until it is killed. Every call of a
task is written to the file named in ``TRACE``, so that one can see what was called how often.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import anyio

import embedded_orch
from embedded_orch import flow, pause_flow_run, sleep_for, task, wait_for_signal
from embedded_orch.errors import SignalTimeout
from embedded_orch.task_runners import ProcessPoolTaskRunner
from tests.warm_parent import talking

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.warm_parent import Talking


def trace(line: str) -> None:
    descriptor = os.open(os.environ["TRACE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"{line}\n".encode())
    os.close(descriptor)


def announce(point: str) -> None:
    """Say that this point was reached, and go on."""
    if os.environ.get("STOP_AT") == point:
        print(point, flush=True)


def come_to(point: str) -> None:
    """Stay here for ever, if this is the point; or fail, if it is one to fail at."""
    if os.environ.get("FAIL_AT") == point:
        raise ConnectionError(point)
    if os.environ.get("STOP_AT") == point:
        print(point, flush=True)
        threading.Event().wait()


@task
def work(number: int) -> dict[int, tuple[int, ...]]:
    trace(f"work {number}")
    come_to(f"in work {number}")
    return {number: (number, number * 10)}


@task
async def work_later(number: int) -> dict[int, tuple[int, ...]]:
    await anyio.sleep(0)
    trace(f"work {number}")
    come_to(f"in work {number}")
    return {number: (number, number * 10)}


@task
def total(parts: list[dict[int, tuple[int, ...]]]) -> int:
    trace("total")
    come_to("in total")
    return sum(value for part in parts for values in part.values() for value in values)


@task
def pair_of_works(number: int) -> list[Any]:
    trace(f"pair {number}")
    return [work(number), work(number + 1)]


def tell(task: Any, run: Any, state: Any) -> None:
    number = next(iter(state.result()))
    trace(f"told of {number}")
    come_to(f"in hook of {number}")


@task(on_completion=[tell])
def work_told_of(number: int) -> dict[int, int]:
    trace(f"work {number}")
    return {number: number}


@flow
def telling(count: int) -> list[dict[int, int]]:
    return [work_told_of(number) for number in range(count)]


@flow
def in_sequence(count: int) -> list[Any]:
    found = []
    for number in range(count):
        found.append(work(number))
        come_to(f"after work {number}")
    return found


@flow
def mapped(count: int) -> list[Any]:
    half = count // 2
    return [*work.map(range(half)).result(), *work.map(range(half, count)).result()]


@flow
def submitted(count: int) -> int:
    return total.submit([work.submit(number) for number in range(count)]).result()


@flow
def nested(count: int) -> list[Any]:
    return [pair_of_works(number) for number in range(0, count, 2)]


@flow
async def at_once(count: int) -> list[Any]:
    found: dict[int, Any] = {}

    async def keep(number: int) -> None:
        found[number] = await work_later(number)

    async with anyio.create_task_group() as group:
        for number in range(count):
            group.start_soon(keep, number)
    return [found[number] for number in range(count)]


@flow(retries=1)
def retried(count: int) -> list[Any]:
    found = [work(number) for number in range(count - 1)]
    trace("attempt")
    with open(os.environ["TRACE"], encoding="utf-8") as file:
        if file.read().count("attempt") == 1:
            raise ValueError("the first attempt fails")
    return [*found, work(count - 1)]


@flow
def child(first: int) -> list[Any]:
    return [work(first), work(first + 1)]


@flow
def parent(count: int) -> list[Any]:
    return [child(number) for number in range(0, count, 2)]


@flow
async def child_later(first: int) -> list[Any]:
    return [await work_later(first), await work_later.submit(first + 1)]


@flow
async def parent_later(count: int) -> list[Any]:
    return [await child_later(number) for number in range(0, count, 2)]


@flow(retries=1)
def retried_child(count: int) -> list[Any]:
    return retried(count)


@flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
def pooled(count: int) -> list[Any]:
    return work.map(range(count)).result()


@flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
async def pooled_later(count: int) -> list[Any]:
    futures = [work_later.submit(number) for number in range(count)]
    return [await future for future in futures]


@flow(on_crash="resume")
def resuming(count: int) -> list[Any]:
    return [work(number) for number in range(count)]


@flow(on_crash="resume")
async def resuming_later(count: int) -> list[Any]:
    return [await work_later(number) for number in range(count)]


def note_end(flow: Any, flow_run: Any, state: Any) -> None:
    trace(f"hook {state.name}")
    come_to("in a hook")


@flow(on_completion=[note_end], on_crashed=[note_end])
def with_hooks(count: int) -> list[Any]:
    return [work(number) for number in range(count)]


@task
def deadly(number: int) -> int:
    """A task that kills its process, like one that the memory does not suffice for."""
    trace(f"deadly {number}")
    if number >= int(os.environ.get("DIES_FROM", "0")):
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@flow(on_crash="resume")
def killing(count: int) -> list[int]:
    return [deadly(number) for number in range(count)]


@flow
def deadly_child(number: int) -> int:
    return deadly(number)


@flow(on_crash="resume", max_resumes=1)
def killing_in_a_child(count: int) -> list[int]:
    return [deadly_child(number) for number in range(count)]


@flow
def patient_child(first: int) -> list[Any]:
    return [work(first), wait_for_signal("go", type=int)]


@flow
def patient_parent(count: int) -> list[Any]:
    announce("in the parent")
    return [work(9), patient_child(count)]


@flow
def asking_child(first: int) -> list[Any]:
    return [work(first), pause_flow_run(wait_for_input=int, poll_interval=0.05)]


@flow
def asking_parent(count: int) -> list[Any]:
    announce("in the parent")
    return [work(9), asking_child(count)]


@flow
def sleeping(hours: int) -> list[Any]:
    first = work(0)
    announce("before the sleep")
    sleep_for(hours * 3600)
    return [first, work(1)]


@flow(on_crash="resume")
def waiting(timeout: int) -> list[Any]:
    announce("before the wait")
    try:
        answer = wait_for_signal("approval", type=bool, timeout=timeout)
    except SignalTimeout:
        answer = "too late"
    come_to("after the wait")
    return [answer, work(0)]


class Source:
    """An object whose methods are flows."""

    def __init__(self, start: int) -> None:
        self.start = start

    @flow
    def read(self, count: int) -> list[Any]:
        return [work(self.start + number) for number in range(count)]


def main(url: str, name: str, count: str) -> None:
    called: Any = globals()[name]
    with embedded_orch.open(url):
        if called.is_async:
            anyio.run(called, int(count), backend=os.environ.get("LOOP", "asyncio"))
        else:
            called(int(count))


@contextmanager
def stopped_at(
    point: str, url: str, name: str, count: int, *, trace: Path, **added: str
) -> Iterator[Talking]:
    """A process of its own in which a flow has come to a point; killed at the end."""
    code = "import sys; from tests.crashing import main; main(*sys.argv[1:])"
    home = os.environ["EMBEDDED_ORCH_HOME"]
    with talking(
        *(code, url, name, count), STOP_AT=point, TRACE=str(trace), EMBEDDED_ORCH_HOME=home, **added
    ) as process:
        assert process.stdout.readline() == f"{point}\n"
        yield process
