"""What a finished task leaves on the disk: its row, its states, and their places in the indexes."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import embedded_orch
from benchmarks.floor import new_flow_run, open_raw, write_task
from benchmarks.measuring import Row, Stopwatch, Work
from embedded_orch import flow, task

_TASKS = 2_000
# Pages of a table that has only just been made are no figure for one task.
_OF_TASKS = """select s.name, s.pgsize from (select name, sum(pgsize) as pgsize from dbstat
    group by name) as s join sqlite_schema as m on m.name = s.name
    where m.tbl_name in ('task_run', 'task_run_state') order by s.pgsize desc"""


@task
def work(number: int) -> int:
    """As little as a task can do."""
    return number + 1


@flow
def in_sequence(start: int) -> None:
    """One task after the other."""
    for number in range(start, start + _TASKS):
        work(number)


def sizes(path: str) -> dict[str, int]:
    """The bytes of each table and index of task runs, the largest first."""
    connection = open_raw(path)
    try:
        return {str(name): int(size) for name, size in connection.execute(_OF_TASKS)}
    finally:
        connection.close()


def _by_us(path: str, start: int) -> None:
    with embedded_orch.open(path):
        in_sequence(start)


def _by_hand(path: str, start: int) -> None:
    embedded_orch.open(path).close()
    connection = open_raw(path)
    flow_run_id = new_flow_run(connection)
    for number in range(start, start + _TASKS):
        write_task(connection, flow_run_id, number)
    connection.close()


@contextmanager
def _grown(folder: Path, write: Callable[[str, int], None]) -> Generator[Work]:
    path = str(folder / "orch.db")
    starts = iter(range(0, 1_000_000_000, _TASKS))
    write(path, next(starts))

    def work(stopwatch: Stopwatch) -> None:
        before = sum(sizes(path).values())
        write(path, next(starts))
        stopwatch.seconds = float(sum(sizes(path).values()) - before)

    yield work


ROWS = [
    Row(
        "size of a finished task run, tables and indexes",
        _TASKS,
        partial(_grown, write=_by_us),
        partial(_grown, write=_by_hand),
        "600 bytes",
        "bytes",
    )
]
