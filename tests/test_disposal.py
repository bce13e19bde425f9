"""Rounds of loops and orchestrators leave no threads and no file descriptors."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from embedded_orch import flow, task
from tests.engine.waiting import until
from tests.opened import opened

if TYPE_CHECKING:
    from collections.abc import Callable

DESCRIPTORS = Path("/proc/self/fd")

pytestmark = [
    pytest.mark.usefixtures("only_new_garbage"),
    pytest.mark.skipif(not DESCRIPTORS.exists(), reason="descriptors are counted in Linux's /proc"),
]


@task
def one() -> int:
    return 1


@task
async def one_later() -> int:
    await anyio.sleep(0)
    return 1


@flow
def report() -> int:
    return one() + one.submit().result()


@flow
async def report_later() -> int:
    futures = [one.submit(), one_later.submit()]
    for future in futures:
        await future.wait_async()
    return await one_later() + sum(future.result() for future in futures)


def in_loop(backend: str) -> Callable[[], None]:
    return lambda: anyio.run(report_later, backend=backend)


def with_asyncio_run() -> None:
    asyncio.run(report_later())


ROUNDS = {
    "sync": report,
    "asyncio.run": with_asyncio_run,
    "anyio asyncio": in_loop("asyncio"),
    "trio": in_loop("trio"),
}


def held() -> tuple[int, int]:
    """How many threads and descriptors this process has."""
    gc.collect()
    return threading.active_count(), len(os.listdir(DESCRIPTORS))


def leaves_nothing(one_round: Callable[[], Any], rounds: int) -> None:
    one_round()
    first = held()
    for _ in range(rounds):
        one_round()

    def is_back() -> bool:
        now = held()
        return now[0] <= first[0] and now[1] <= first[1]

    until(is_back, f"as few threads and descriptors as after the first round: {first}, {held()}")


def database_of(kind: str, tmp_path: Path) -> str:
    return ":memory:" if kind == "memory" else str(tmp_path / "orch.db")


@pytest.mark.parametrize("kind", ["file", "memory"])
@pytest.mark.parametrize("way", ROUNDS)
def test_rounds_on_one_orchestrator_leave_nothing(kind: str, tmp_path: Path, way: str) -> None:
    with opened(database_of(kind, tmp_path)):
        leaves_nothing(ROUNDS[way], 25)


@pytest.mark.parametrize("kind", ["file", "memory"])
@pytest.mark.parametrize("way", ["sync", "asyncio.run", "trio"])
def test_rounds_with_an_orchestrator_each_leave_nothing(
    kind: str, tmp_path: Path, way: str
) -> None:
    leaves_nothing(one_orchestrator(database_of(kind, tmp_path), way), 10)


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["file", "memory"])
@pytest.mark.parametrize("way", ROUNDS)
def test_200_rounds_leave_nothing(kind: str, tmp_path: Path, way: str) -> None:
    url = database_of(kind, tmp_path)
    with opened(url):
        leaves_nothing(ROUNDS[way], 200)
    leaves_nothing(one_orchestrator(url, way), 200)


@pytest.mark.soak
def test_200_rounds_on_a_server_leave_no_connection(postgres_server: Any) -> None:
    url = str(postgres_server.new_database())
    leaves_nothing(one_orchestrator(url, "asyncio.run"), 200)


def test_rounds_on_a_server_leave_no_connection(postgres_server: Any) -> None:
    leaves_nothing(one_orchestrator(str(postgres_server.new_database()), "asyncio.run"), 10)


def one_orchestrator(url: str, way: str) -> Callable[[], None]:
    def one_round() -> None:
        with opened(url):
            ROUNDS[way]()

    return one_round


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_loop_that_ends_under_its_flow_leaves_nothing(tmp_path: Path, loop: str) -> None:
    """The flow is cancelled with the loop, and what it submitted is waited for."""

    async def main() -> None:
        with anyio.move_on_after(0.01):
            await report_for_ever()

    with opened(str(tmp_path / "orch.db")) as orch:
        leaves_nothing(lambda: anyio.run(main, backend=loop), 5)
        assert {run.state.name for run in orch.flow_runs.find() if run.state} == {"Crashed"}


@flow
async def report_for_ever() -> None:
    await one_later.submit().wait_async()
    await anyio.sleep(3600)
