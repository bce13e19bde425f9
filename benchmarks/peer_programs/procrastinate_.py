"""procrastinate: jobs deferred, a thousand at once."""

from __future__ import annotations

import sys

from procrastinate import App, SyncPsycopgConnector
from timing import told

count, where = int(sys.argv[2]), sys.argv[3]
app = App(connector=SyncPsycopgConnector(conninfo=where))


@app.task(name="job")
def job(number: int) -> int:
    return number + 1


with app.open():
    app.schema_manager.apply_schema()
    with told("synchronous_commit=on"):
        for _ in range(count // 1_000):
            job.batch_defer(*({"number": number} for number in range(1_000)))
