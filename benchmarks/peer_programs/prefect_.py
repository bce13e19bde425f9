"""Prefect: tasks of one flow, one after the other, with the server in the same process."""

from __future__ import annotations

import logging
import os
import sys

count, where = int(sys.argv[2]), sys.argv[3]
os.environ.update(
    PREFECT_HOME=os.path.dirname(where),
    PREFECT_API_DATABASE_CONNECTION_URL=f"sqlite+aiosqlite:///{where}",
    PREFECT_SERVER_ALLOW_EPHEMERAL_MODE="true",
    PREFECT_API_URL="",
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS="120",
    PREFECT_LOGGING_LEVEL="ERROR",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    PREFECT_RESULTS_PERSIST_BY_DEFAULT="true",
    DO_NOT_TRACK="1",
)
logging.disable(logging.ERROR)

from prefect import flow, task  # noqa: E402 - it reads its settings when it is imported
from timing import told  # noqa: E402


@task
def step(number: int) -> int:
    return number + 1


@flow
def steps(settings: str | None) -> None:
    if settings is None:
        step(0)
        return
    with told(settings):
        for number in range(count):
            step(number)


steps(None)
steps("journal_mode=wal synchronous=1")
