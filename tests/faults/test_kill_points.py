"""Every operation is killed before and after its statements; see ``kill_points``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.faults.controls import CONTROLS
from tests.faults.operations import OPERATIONS
from tests.postgres_server import PostgresServer
from tests.warm_parent import run_forked

# A new database, an old one, two whose owner has died, and two that are in order. All others open
# one that is in order, too, which is the same 68 points: at length they are killed there as well.
KILLED_IN_OPENING = {
    *("opening", "migration", "recovery", "cancelling the dead"),
    *("task", "variable"),
}

ON_SERVER = [name for name, operation in OPERATIONS.items() if operation.is_on_server]


def kill(where: str, operation: str, *arguments: object) -> dict[str, Any]:
    """What the program reports of an operation that it killed at some points."""
    program = """
        import sys
        from tests.faults.kill_points import main
        sys.exit(main(sys.argv[1:]))
    """
    ended = run_forked(program, where, "--operation", operation, *arguments, patience=1800)
    assert ended.stdout, ended.stderr
    print(ended.stdout, ended.stderr)
    report: dict[str, Any] = json.loads(ended.stdout)
    return report


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS)
def test_operation_that_is_killed_loses_nothing_and_does_nothing_twice(
    operation: str, tmp_path: Path, seed: int
) -> None:
    """Seen to fail when own SQL and the completion are two transactions, as below."""
    options = [] if operation in KILLED_IN_OPENING else ["--after-opening"]
    report = kill(str(tmp_path), operation, "--every", 10, "--seed", seed, *options)

    assert report["problems"] == []
    assert report["kills"] > 4


@pytest.mark.slow
@pytest.mark.parametrize("operation", ON_SERVER)
def test_operation_that_is_killed_beside_a_server_loses_nothing(
    operation: str, postgres_server: PostgresServer, seed: int
) -> None:
    report = kill(postgres_server.url(), operation, "--every", 80, "--seed", seed)

    assert report["problems"] == []
    assert report["kills"] > 0


# -- What must be found, or the harness is blind -------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("control", "finding"),
    [
        ("own SQL beside the task", "is there 2 times"),
        ("acknowledged too early", "was acknowledged, and is not on record"),
        ("a run that is begun anew", "was on record, and was called again"),
        ("an owner that is not found", "were not found dead"),
    ],
)
def test_what_does_not_hold_is_found(control: str, finding: str, tmp_path: Path) -> None:
    assert control in CONTROLS

    report = kill(str(tmp_path), control, "--every", 3, "--until", finding)

    assert any(finding in problem for problem in report["problems"]), report


# -- At length -----------------------------------------------------------------------------------


@pytest.mark.soak
@pytest.mark.parametrize("operation", OPERATIONS)
def test_operation_that_is_killed_anywhere_loses_nothing(operation: str, tmp_path: Path) -> None:
    report = kill(str(tmp_path), operation)

    assert report["problems"] == []
    assert report["kills"] > 40


@pytest.mark.soak
@pytest.mark.parametrize("operation", ON_SERVER)
def test_operation_that_is_killed_anywhere_beside_a_server_loses_nothing(
    operation: str, postgres_server: PostgresServer
) -> None:
    report = kill(postgres_server.url(), operation)

    assert report["problems"] == []
    assert report["kills"] > 10
