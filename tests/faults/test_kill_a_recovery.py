"""A recovery that is killed anywhere, and done by the next one: all of it, and once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.warm_parent import run_forked

pytestmark = pytest.mark.parametrize("url", ["file", "postgres"], indirect=True)

PROGRAM = """
    import sys
    from tests.faults.kill_a_recovery import main
    main(*sys.argv[1:])
"""


def kills(url: str, home: Path, *, step: int) -> int:
    """How often a recovery was killed, at every so manieth point, with nothing wrong after."""
    home.mkdir()
    ended = run_forked(PROGRAM, url, step, patience=900, EMBEDDED_ORCH_HOME=str(home))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return int(json.loads(ended.stdout)["attempts"]) - 1


@pytest.mark.slow
def test_recovery_is_done_once_though_it_is_killed(url: str, tmp_path: Path) -> None:
    """Before and after a share of its statements."""
    assert kills(url, tmp_path / "home", step=17) >= 4


@pytest.mark.soak
def test_recovery_is_done_once_wherever_it_is_killed(url: str, tmp_path: Path) -> None:
    """Before and after every statement of it."""
    assert kills(url, tmp_path / "home", step=1) > 60
