"""A sweep computes each setting once."""

from __future__ import annotations

from pathlib import Path

from tests.programs import run_example


def test_settings_that_are_known_are_not_computed_again(tmp_path: Path) -> None:
    db = tmp_path / "sweep.db"

    first = run_example("sweep_parameters.py", "--db", db, "--points", 2000)
    second = run_example("sweep_parameters.py", "--db", db, "--points", 2000)

    assert "8 settings, 0 of them known from before" in first.stdout, first.stderr
    assert "8 settings, 8 of them known from before" in second.stdout, second.stderr
    assert "best" in first.stdout
