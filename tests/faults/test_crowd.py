"""A bounded crowd on one database, and the full one under soak; see ``crowd``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.crowd import Findings, run
from tests.postgres_server import PostgresServer

TASKS = 5


def check(found: Findings, *, flows: int) -> None:
    print(f"{found.writes} writes in {found.seconds:.1f} s, slowest {found.slowest * 1000:.0f} ms")
    assert found.problems == []
    # Two for each flow, and one for each task, whose start is announced.
    assert found.writes >= flows * (TASKS + 2)


@pytest.mark.slow
def test_four_processes_of_four_threads_see_no_error_and_leave_exact_counts(
    tmp_path: Path,
) -> None:
    found = run(str(tmp_path / "orch.db"), processes=4, threads=4, flows=10, tasks=TASKS)

    check(found, flows=40)


@pytest.mark.slow
def test_many_threads_on_a_server_see_no_error_and_leave_exact_counts(
    postgres_server: PostgresServer,
) -> None:
    found = run(postgres_server.new_database(), processes=1, threads=4, flows=20, tasks=TASKS)

    check(found, flows=20)


# -- At length -----------------------------------------------------------------------------------


@pytest.mark.soak
def test_eight_processes_of_eight_threads_see_no_error_and_leave_exact_counts(
    tmp_path: Path,
) -> None:
    found = run(str(tmp_path / "orch.db"), processes=8, threads=8, flows=100, tasks=TASKS)

    check(found, flows=800)


@pytest.mark.soak
def test_one_process_of_eight_threads_on_a_server_leaves_exact_counts(
    postgres_server: PostgresServer,
) -> None:
    found = run(postgres_server.new_database(), processes=1, threads=8, flows=100, tasks=TASKS)

    check(found, flows=100)
