"""DBOS: steps of one workflow, one after the other."""

from __future__ import annotations

import sys

from dbos import DBOS
from timing import told

count, where = int(sys.argv[2]), sys.argv[3]
url = where if "://" in where else f"sqlite:///{where}"
DBOS(
    config={
        "name": "bench",
        "system_database_url": url,
        "run_admin_server": False,
        "log_level": "ERROR",
    }
)


@DBOS.step()
def step(number: int) -> int:
    return number + 1


@DBOS.workflow()
def steps(settings: str | None) -> None:
    if settings is None:
        step(0)
        return
    with told(settings):
        for number in range(count):
            step(number)


DBOS.launch()
steps(None)
steps("its own defaults")
DBOS.destroy()
