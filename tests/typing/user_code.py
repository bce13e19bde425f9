"""What a type checker has to make of a user's code; checked by test_typing.py, and never run.

Each ``type: ignore`` is a mistake that has to be found: one that is not found is an unused ignore,
which strict mypy reports.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine, Generator
from datetime import datetime
from typing import Any, assert_type

import embedded_orch
from embedded_orch import (
    Flow,
    Future,
    FutureList,
    State,
    Task,
    TaskRun,
    allow_failure,
    flow,
    task,
    unmapped,
)
from embedded_orch.futures import as_completed, wait
from embedded_orch.states import Completed, Paused, StateType
from embedded_orch.tasks import exponential_backoff


@task
def count_lines(path: str, *, limit: int = 10) -> int:
    return len(path) + limit


def is_worth_it(task: Task[..., Any], task_run: TaskRun, state: State) -> bool:
    return task_run.run_count < 3 and not isinstance(state.data, PermissionError)


@task(
    retries=2,
    retry_delay_seconds=exponential_backoff(1),
    retry_condition_fn=is_worth_it,
    retry_jitter_factor=0.5,
    task_run_name=lambda: "named",
    tags=["io"],
    record_start="before",
)
async def fetch(url: str) -> bytes:
    return url.encode()


@flow
def report(root: str) -> dict[str, int]:
    lines = count_lines(root)
    assert_type(lines, int)
    assert_type(count_lines.submit(root), Future[int])
    assert_type(count_lines.submit(root).result(), int)
    assert_type(count_lines.map([root]), FutureList[int])
    assert_type(count_lines.map([root]).result(), list[int])
    assert_type(count_lines.submit(root).state, State)
    assert_type(fetch.submit(root), Future[bytes])
    assert_type(fetch.map([root]).result(), list[bytes])
    waited_for = [count_lines.submit(root)]
    assert_type(count_lines(root, wait_for=waited_for), int)
    assert_type(count_lines(root, return_state=True), State[int])
    assert_type(count_lines(root, return_state=True, wait_for=waited_for).result(), int)
    assert_type(count_lines.submit(root, wait_for=waited_for), Future[int])
    assert_type(count_lines.submit(root, return_state=True), State[int])
    assert_type(count_lines.map([root], return_state=True), list[State[int]])
    assert_type(fetch.submit(root, return_state=True), State[bytes])
    assert_type(fetch.map(unmapped(root), [1], return_state=True), list[State[bytes]])
    assert_type(allow_failure(waited_for[0]).value, Future[int])
    return {root: lines}


@flow(name="Later", retries=1, retry_delay_seconds=0.5, on_crash="resume")
async def report_later(root: str, limit: int | None = None) -> list[bytes]:
    waiting: Coroutine[Any, Any, bytes] = fetch(root)
    assert_type(await waiting, bytes)
    one = await fetch(root)
    assert_type(one, bytes)
    assert_type(await fetch.submit(root).wait_async(), None)
    assert_type(await fetch.submit(root), bytes)
    assert_type(await count_lines.map([root]), list[int])
    done, not_done = wait([count_lines.submit(root)])
    assert_type(done, set[Future[int]])
    assert_type([each.result() for each in as_completed(not_done)], list[int])
    assert_type(await fetch(root, return_state=True), State[bytes])
    assert_type(await fetch(root, wait_for=[one]), bytes)
    return [one]


@task
def lines(path: str) -> Generator[str, None, int]:
    yield path
    return 1


@task
async def rows(path: str) -> AsyncGenerator[bytes, None]:
    yield path.encode()


@flow
def read(root: str) -> Generator[str, None, None]:
    count = yield from lines(root)
    assert_type(count, int)
    assert_type(lines.submit(root), Future[list[str]])
    assert_type(lines.map([root]).result(), list[list[str]])
    assert_type(rows.submit(root).result(), list[bytes])
    assert_type(lines(root, return_state=True), State[list[str]])


@flow
async def read_later(root: str) -> AsyncGenerator[bytes, None]:
    async for row in rows(root):
        assert_type(row, bytes)
        yield row


class Reader:
    @task
    @classmethod
    def opened(cls, path: str) -> int:
        return len(path)

    @task
    def first(self, path: str) -> str:
        return path


def methods() -> None:
    assert_type(Reader.opened("x"), int)
    assert_type(Reader().first("x"), str)
    assert_type(Reader().first.submit("x").result(), str)


def right() -> None:
    assert_type(count_lines("x", limit=3), int)
    assert_type(report("x"), dict[str, int])
    assert_type(read("x"), Generator[str, None, None])
    assert_type(read("x", return_state=True), State[list[str]])
    assert_type(report.resume(), dict[str, int])
    assert_type(report.resume("an id", parameters={"root": "x"}), dict[str, int])
    waiting: Coroutine[Any, Any, list[bytes]] = report_later("x")
    assert_type(count_lines.fn("x"), int)
    assert_type(report("x", return_state=True), State[dict[str, int]])
    assert_type(report("x", wait_for=[]), dict[str, int])
    assert_type(count_lines.with_options(retries=1)("x"), int)
    tasks: list[Task[..., Any]] = [count_lines, fetch]
    flows: list[Flow[..., Any]] = [report, report_later]
    with embedded_orch.open(":memory:") as orch:
        for run in orch.flow_runs.find(state_type="COMPLETED"):
            assert_type(run.parameters, dict[str, Any])
        orch.resume_crashed(*flows)
    del tasks, waiting


def states() -> None:
    checked = Completed(message="by hand", data=1)
    assert_type(checked, State[Any])
    known: State[int] = checked
    assert_type(known.result(), int)
    assert_type(known.result(raise_on_failure=False), int | BaseException)
    assert_type(known.type, StateType)
    assert_type(known.state_details.pause_timeout, datetime | None)
    with embedded_orch.open(":memory:") as orch:
        run = orch.flow_runs.create(report, parameters={"root": "x"})
        answer = orch.flow_runs.set_state(run.id, Paused(timeout_seconds=60))
        assert_type(answer.state, State[Any] | None)
        Paused(timeout="60")  # type: ignore[call-arg]
        orch.flow_runs.set_state(run.id, "COMPLETED")  # type: ignore[arg-type]


async def right_later() -> None:
    assert_type([row async for row in read_later("x")], list[bytes])
    assert_type(await read_later("x", return_state=True), State[list[bytes]])
    async with embedded_orch.open() as orch:
        assert_type(orch.flow_runs.count(), int)
        assert_type(await report_later("x", limit=3), list[bytes])
        assert_type(await report_later.resume(), list[bytes])


def wrong() -> None:
    count_lines(3)  # type: ignore[call-overload]
    count_lines("x", 3)  # type: ignore[call-overload]
    count_lines("x", limt=3)  # type: ignore[call-overload]
    count_lines()  # type: ignore[call-overload]
    report(root=3)  # type: ignore[call-overload]
    report("x").append(1)  # type: ignore[attr-defined]
    _ = report_later("x", limit="3")  # type: ignore[call-overload]
    _ = report_later("x") + [b""]  # type: ignore[operator]


@task(retry=2)  # type: ignore[call-overload,untyped-decorator]
def misspelt() -> None: ...


@flow(on_crash="ignore")  # type: ignore[call-overload,untyped-decorator]
def impossible() -> None: ...
