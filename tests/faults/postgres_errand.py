"""One flow that does a little of everything, and what must be true of it after any fault.

The process lives through the fault, so nobody may notice it: the flow returns what it should, each
function was called as often as without it, and each run is on record once.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any
from uuid import UUID

import psycopg

from embedded_orch import Orchestrator, flow, get_run_logger, runtime, task
from embedded_orch.artifacts import create_markdown_artifact
from embedded_orch.cache_policies import INPUTS
from embedded_orch.concurrency.sync import concurrency
from embedded_orch.variables import Variable
from tests.faults.invariants import problems
from tests.faults.run_records import asking_bare

_lock = threading.Lock()
_calls: Counter[str] = Counter()


def _called(what: str) -> int:
    """Count a call; how many there were by now."""
    with _lock:
        _calls[what] += 1
        return _calls[what]


@task
def add(number: int, errand: int) -> int:
    _called(f"{errand} add {number}")
    return number + 1


@task(retries=1)
def stumble(errand: int) -> str:
    if _called(f"{errand} stumble") == 1:
        raise ValueError("the first attempt fails")
    return "stumbled"


@task(record_start="before")
def careful(errand: int) -> str:
    _called(f"{errand} careful")
    return "careful"


@task(cache_policy=INPUTS)
def cached(errand: int) -> str:
    _called(f"{errand} cached")
    return "cached"


@flow
def inner(number: int, errand: int) -> int:
    return add(number, errand)


@flow
def errand(number: int) -> list[Any]:
    """The whole errand; what it returns says that nothing was left out."""
    found: list[Any] = [add(1, number), add(1, number)]
    found += add.map([10, 11, 12], number).result()
    found += [stumble(number), careful(number), cached(number), cached(number)]
    with concurrency("slot", occupy=1):
        found.append(add(2, number))
    get_run_logger().info("half way through errand %d", number)
    Variable.set(f"errand_{number}", number, overwrite=True)
    create_markdown_artifact("done", key=f"errand-{number}")
    found.append(inner(20, number))
    _ids[number] = UUID(str(runtime.flow_run.id))
    return found


EXPECTED = [2, 2, 11, 12, 13, "stumbled", "careful", "cached", "cached", 3, 21]
_CALLS = {
    "add 1": 2,
    "add 2": 1,
    "add 10": 1,
    "add 11": 1,
    "add 12": 1,
    "add 20": 1,
    "stumble": 2,
    "careful": 1,
    "cached": 1,
}
_TASK_RUNS = 11
"""Of the errand itself; the one that stands for the inner flow is among them."""
_ids: dict[int, UUID] = {}


def prepare(orch: Orchestrator) -> None:
    """What the errand needs."""
    orch.concurrency_limits.create("slot", 1)


def run_errand(number: int) -> None:
    """Run one, and see that nothing was noticed; ``number`` is used for one only."""
    assert errand(number) == EXPECTED
    with _lock:
        # Other threads are counting.
        counted = dict(_calls)
    calls = {what: count for what, count in counted.items() if what.startswith(f"{number} ")}
    assert calls == {f"{number} {what}": count for what, count in _CALLS.items()}


def problems_on_record(url: str, numbers: list[int]) -> list[str]:
    """What is wrong on record of errands that have returned.

    Args:
        url: of the database, without faults on the way.
        numbers: of the errands.
    """
    with asking_bare(url) as asked:
        found = problems(asked)
    with psycopg.connect(url) as connection:
        connection.execute("set search_path to embedded_orch")
        for number in numbers:
            found += _problems_of(connection, number)
    return found


def _problems_of(connection: psycopg.Connection[Any], number: int) -> list[str]:
    run_id = _ids[number]

    def count(query: str) -> int:
        row = connection.execute(query.encode(), [run_id]).fetchone()
        assert row is not None
        return int(row[0])

    counts = {
        "completed flow runs": (
            1,
            count("select count(*) from flow_run where id = %s and state_type = 'COMPLETED'"),
        ),
        "attempts at it": (1, count("select run_count from flow_run where id = %s")),
        "task runs": (
            _TASK_RUNS,
            count("select count(*) from task_run where flow_run_id = %s"),
        ),
        "task runs that did not complete": (
            0,
            count(
                "select count(*) from task_run where flow_run_id = %s and state_type <> 'COMPLETED'"
            ),
        ),
        "lines": (
            1,
            count("select count(*) from log where flow_run_id = %s and message like 'half way%%'"),
        ),
        "artifacts": (1, count("select count(*) from artifact where flow_run_id = %s")),
        "slots held": (0, count("select count(*) from slot_claim where holder_id = %s")),
    }
    return [
        f"errand {number}: {found} {what}, and not {right}"
        for what, (right, found) in counts.items()
        if found != right
    ]
