"""huey: tasks put into its queue, taken out, run and their results stored, one after the other."""

from __future__ import annotations

import sys

from huey import SqliteHuey
from timing import told

count, where = int(sys.argv[2]), sys.argv[3]
huey = SqliteHuey("bench", filename=where)


@huey.task()
def step(number: int) -> int:
    return number + 1


def once(number: int) -> None:
    step(number)
    huey.execute(huey.dequeue())


once(0)
connection = huey.storage.conn
mode = connection.execute("pragma journal_mode").fetchone()[0]
synchronous = connection.execute("pragma synchronous").fetchone()[0]
with told(f"journal_mode={mode} synchronous={synchronous}"):
    for number in range(count):
        once(number)
