"""Decorated functions keep their signatures for a type checker."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs import PATIENCE, ROOT, environment

pytest.importorskip("mypy", reason="mypy comes with the dev extra")


@pytest.mark.slow
def test_strict_mypy_understands_what_a_user_writes() -> None:
    code = Path(__file__).with_name("user_code.py")

    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", str(code)],
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE,
        cwd=ROOT,
        env=environment(),
        check=False,
    )

    assert done.stdout.startswith("Success"), done.stdout + done.stderr
