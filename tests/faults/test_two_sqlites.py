"""A bounded share of the stress with two SQLite libraries in one process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STRESS = Path(__file__).with_name("stress_two_sqlites.py")

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the defences need open file description locks"
)


def stress(folder: Path, *arguments: str) -> dict[str, object]:
    finished = subprocess.run(
        [sys.executable, str(STRESS), "--folder", str(folder / "stress"), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert finished.stdout, finished.stderr
    found: dict[str, object] = json.loads(finished.stdout)
    assert found["is_clean"] == (finished.returncode == 0)
    return found


def check(found: dict[str, object]) -> None:
    assert found["problems"] == {}
    assert found["deaths"] == {}
    assert found["missing"] == 0
    assert found["sum"] == 0
    assert found["integrity"] == "ok"
    # All took part.
    for what in ("acknowledged", "snapshots", "visits", "folder copies", "stdlib connections"):
        assert found[what], f"no {what}"


def test_nothing_is_lost_or_torn_beside_copies_and_a_second_sqlite(tmp_path: Path) -> None:
    """Seen to fail without each defence but one; see the soak below."""
    check(stress(tmp_path, "--seconds", "8"))


@pytest.mark.soak
def test_nothing_is_lost_or_torn_in_minutes(tmp_path: Path) -> None:
    check(stress(tmp_path, "--seconds", "180"))


@pytest.mark.soak
@pytest.mark.parametrize("defence", ["flock", "pins", "pin-shm", "pin-database", "reader-lock"])
def test_without_one_defence_it_fails(tmp_path: Path, defence: str) -> None:
    """Checkpoint-on-close is missing here: where the pins hold, SQLite's close never gets so far.

    What it is for is shown in tests/db/test_guard.py, by a process that has no pins.
    """
    found = stress(tmp_path, "--seconds", "20", "--without", defence)

    assert not found["is_clean"]
    # Of the file's own, and not because the stress itself broke.
    assert not re.search("TypeError|AttributeError|NameError|AssertionError", str(found))
