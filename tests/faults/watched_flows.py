"""The flows that the fault tests interrupt, and the witness that they tell what happens in them.

Every call has a name, and returns it, so that any look at a database tells which of the calls are
on record. A ``Witness`` is told

- ``entered`` as the last thing before a call's end may be written: its function was called;
- ``told`` when the caller has got its value, which acknowledges it.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import anyio

from embedded_orch import flow, pause_flow_run, runtime, sleep_for, task, wait_for_signal
from embedded_orch import suspend_flow_run as suspend
from embedded_orch.artifacts import create_markdown_artifact
from embedded_orch.cache_policies import INPUTS
from embedded_orch.concurrency.sync import concurrency
from embedded_orch.context import get_run_context
from embedded_orch.transactions import transaction

Value = dict[str, str]


class Witness(Protocol):
    """Keeps, where no fault reaches, what was called and what callers were told."""

    def entered(self, call: str) -> None: ...
    def told(self, call: str) -> None: ...


class _Unwatched:
    def entered(self, call: str) -> None:
        """Nobody looks."""

    def told(self, call: str) -> None:
        """Nobody looks."""


# For which somebody's answer is waited, who answers at once. On a disk that fails he may never.
patience_seconds = 60.0

_witness: Witness = _Unwatched()
# In a process that is to die as soon as each of its runs has come to a certain call.
_dying: threading.Barrier | None = None


@contextmanager
def watched_by(witness: Witness) -> Iterator[None]:
    """Have this process's calls told to a witness."""
    global _witness  # noqa: PLW0603 - the flows below are of the module, as a user's are
    _witness = witness
    try:
        yield
    finally:
        _witness = _Unwatched()


def die_when_all_are_there(runs: int) -> None:
    """Have this process kill itself once so many of its runs are in a call named "died in"."""
    global _dying  # noqa: PLW0603 - in a child, which ends by it
    _dying = threading.Barrier(runs)


def entered(call: str) -> Value:
    """The value of a call, which may be written from now on."""
    if _dying is not None and call.startswith("died in"):
        _dying.wait()
        os.kill(os.getpid(), signal.SIGKILL)
    _witness.entered(call)
    return {"call": call}


def told(value: Value) -> None:
    """A caller has got this value."""
    _witness.told(value["call"])


# -- flows and tasks -------------------------------------------------------------------------------


@task
def step(call: str) -> Value:
    return entered(call)


@task
def after(call: str, _earlier: list[Value]) -> Value:
    return entered(call)


@task
async def step_later(call: str) -> Value:
    await anyio.sleep(0)
    return entered(call)


@flow
def plain() -> Value:
    told(step("first"))
    told(step.with_options(record_start="before")("second"))
    return entered("plain")


@flow
def mapped() -> Value:
    for each in step.map(["a", "b", "c"]).result():
        told(each)
    return entered("mapped")


@flow
def submitted() -> Value:
    first, second = step.submit("first"), step.submit("second")
    told(after.submit("after", [first, second]).result())  # type: ignore[list-item]
    return entered("submitted")


@task(retries=2)
def stumbling(call: str) -> Value:
    if runtime.task_run.run_count == 1:
        raise ValueError("the first attempt fails")
    return entered(call)


@flow(retries=1)
def retried() -> Value:
    told(stumbling("stumbling"))
    if runtime.flow_run.run_count == 1:
        raise ValueError("the first attempt fails")
    return entered("retried")


@task(cache_policy=INPUTS)
def cached(call: str) -> Value:
    return entered(call)


@flow
def storing() -> Value:
    told(cached("cached"))
    return entered("storing")


@flow
def hitting() -> Value:
    told(cached("cached"))
    return entered("hitting")


@flow
def child(call: str) -> Value:
    told(step(f"in {call}"))
    return entered(call)


@flow
def parent() -> Value:
    told(child("child"))
    told(child("other child"))
    return entered("parent")


@flow
def suspended() -> Value:
    told(step("before"))
    suspend()
    told(step("behind"))
    return entered("suspended")


@flow
def paused() -> Value:
    told(step("before"))
    pause_flow_run(timeout=patience_seconds, poll_interval=0.01)
    told(step("behind"))
    return entered("paused")


@flow
def waiting() -> Value:
    told(step("before"))
    sleep_for(0.02)
    told(step(wait_for_signal("go", timeout=patience_seconds)))
    return entered("waiting")


@task(tags=["heavy"])
def heavy(call: str) -> Value:
    with concurrency("gate", occupy=1):
        return entered(call)


@flow
def limited() -> Value:
    for each in heavy.map(["a", "b"]).result():
        told(each)
    return entered("limited")


@task
def load(call: str) -> Value:
    connection: Any = get_run_context().transaction.connection
    connection.execute("insert into loaded values (:call)", {"call": call})
    connection.execute("insert into loaded values (:call)", {"call": f"{call}, again"})
    return entered(call)


@flow
def loading() -> Value:
    told(load("one"))
    told(load("two"))
    return entered("loading")


@task
async def load_later(call: str) -> Value:
    connection: Any = get_run_context().transaction.connection
    await connection.execute("insert into loaded values (:call)", {"call": call})
    return entered(call)


@flow
async def loading_later() -> Value:
    told(await load_later("one"))
    async with anyio.create_task_group() as group:
        for call in ("a", "b"):
            group.start_soon(_tell_later, call)
    return entered("loading later")


async def _tell_later(call: str) -> None:
    told(await step_later(call))


@flow
def keyed() -> Value:
    with transaction(key="a day", isolation_level="SERIALIZABLE") as day:
        if not day.is_committed():
            day.stage(step("of the day"))
    told(day.read().result)
    return entered("keyed")


@flow
def undone() -> Value:
    told(step("kept"))
    try:
        with transaction():
            step("to be undone")
            raise ValueError("the block fails")
    except ValueError:
        return entered("undone")


@flow
def showing() -> Value:
    told(step("shown"))
    create_markdown_artifact(markdown="a table", key="shown")
    return entered("showing")


def note_end(_flow: object, _run: object, _state: object) -> None:
    entered("hook")


@flow(on_completion=[note_end])
def hooked() -> Value:
    told(step("hooked step"))
    return entered("hooked")


@flow(on_crash="resume")
def lasting() -> Value:
    told(step("done in lasting"))
    told(step("died in lasting"))
    return entered("lasting")


@flow
def failing() -> Value:
    told(step("done in failing"))
    told(step("died in failing"))
    return entered("failing")


@task
def _of_old(number: int) -> int:
    return number


@flow
def _section_of_old() -> int:
    return _of_old(1)


@flow
def old() -> int:
    """Nobody is told of it: it is there to be removed."""
    return _section_of_old() + _of_old(2) + _of_old(3)
