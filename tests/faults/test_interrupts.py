"""Ctrl-C, a time limit, a cancelling: wherever they come, what comes after them works.

Seen to fail: an interrupt between the taking of a lock and the block that gives it back had every
later read wait for ever, and one in the registering of the process had every later run refused.
"""

from __future__ import annotations

import gc
from contextlib import suppress
from itertools import count, cycle
from typing import TYPE_CHECKING

import pytest

from embedded_orch import flow, get_run_logger, task
from embedded_orch.cache_policies import INPUTS
from embedded_orch.concurrency.sync import concurrency
from tests.faults.interrupts import Interrupt
from tests.opened import opened

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedded_orch import Orchestrator

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("only_new_garbage"),
]


@task
def add(number: int) -> int:
    return number + 1


@task(cache_policy=INPUTS)
def cached(number: int) -> int:
    return number + 1


@task(timeout_seconds=60)
def limited(number: int) -> int:
    return number + 1


@flow
def report() -> int:
    return add(1)


@flow
def hits() -> int:
    cached(1)
    return cached(1)


@flow(timeout_seconds=60)
def times() -> int:
    return limited(1)


@flow
def logs() -> None:
    get_run_logger().info("a line")


@flow
def submits() -> int:
    return add.submit(1).result()


@task(tags=["limited"])
def within_a_limit() -> int:
    return 2


@flow
def limits() -> int:
    return within_a_limit()


def runs(orch: Orchestrator) -> None:
    assert report() == 2


def runs_what_is_cached(orch: Orchestrator) -> None:
    assert hits() == 2


def runs_with_time_limits(orch: Orchestrator) -> None:
    assert times() == 2


def runs_and_logs(orch: Orchestrator) -> None:
    logs()


def submits_a_task(orch: Orchestrator) -> None:
    assert submits() == 2


def sets_a_variable(orch: Orchestrator) -> None:
    orch.variables.set("name", 1, overwrite=True)
    assert orch.variables.get("name")


def takes_a_slot(orch: Orchestrator) -> None:
    with concurrency("cpu", occupy=1):
        assert report() == 2


def reads(orch: Orchestrator) -> None:
    orch.task_runs.count()
    orch.flow_runs.count()


def reads_beside_a_read(orch: Orchestrator) -> None:
    def inner(_: object) -> object:
        return orch.database.read(lambda tx: tx.rows("migration.applied"))

    # On a file this needs one reader more than there are; in memory there is one connection.
    if orch.database.reads_beside:
        orch.database.read(inner)
    else:
        inner(None)


def runs_within_a_limit(orch: Orchestrator) -> None:
    assert limits() == 2


UNFINISHED = ["Pending", "Running"]
ACTS: list[Callable[[Orchestrator], None]] = [
    runs,
    runs_what_is_cached,
    runs_with_time_limits,
    runs_and_logs,
    submits_a_task,
    sets_a_variable,
    takes_a_slot,
    reads,
    reads_beside_a_read,
    runs_within_a_limit,
]


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
@pytest.mark.parametrize(
    ("every", "is_repeated"),
    [
        pytest.param(97, (False, True), id="some"),
        pytest.param(1, (False,), id="every", marks=pytest.mark.soak),
        pytest.param(1, (True,), id="every-again", marks=pytest.mark.soak),
    ],
)
def test_what_is_interrupted_leaves_everything_usable(
    url: str, act: Callable[[Orchestrator], None], every: int, is_repeated: tuple[bool, ...]
) -> None:
    if url.startswith("postgresql"):
        # Where opening takes long.
        every *= 5
    for number, repeats in zip(count(1, every), cycle(is_repeated), strict=False):
        with opened(url) as orch:
            orch.recover()
            assert not orch.flow_runs.count(state_name=UNFINISHED)
            orch.concurrency_limits.upsert("cpu", 1)
            orch.concurrency_limits.upsert("tag:limited", 1)
            if repeats:
                act(orch)
            interrupt = Interrupt(number)
            with interrupt, suppress(KeyboardInterrupt):
                act(orch)
            if interrupt.where is None:
                break
            assert_usable(orch)
            assert not orch.flow_runs.count(state_name=UNFINISHED), interrupt.where
    assert number > 1
    # Here, where it is expected, and not in a later test: a connection to a server that was
    # interrupted while it was made warns that nobody closed it.
    gc.collect()


def assert_usable(orch: Orchestrator) -> None:
    runs(orch)
    sets_a_variable(orch)
    runs_within_a_limit(orch)
    takes_a_slot(orch)
    reads(orch)
    reads_beside_a_read(orch)
