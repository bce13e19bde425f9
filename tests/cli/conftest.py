"""The command, run inside the test's own process, on each database that a command can look at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from embedded_orch.cli import main


class Answer(NamedTuple):
    """What a command did."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


Command = Callable[..., Answer]


@pytest.fixture(params=["file", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new, empty database of each kind that outlives its process."""
    if request.param == "file":
        return str(tmp_path / "data" / "orch.db")
    return str(request.getfixturevalue("postgres_server").new_database())


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """``command("runs", "--limit", "3")``."""

    def run(*words: str) -> Answer:
        capsys.readouterr()
        status = main(words)
        printed = capsys.readouterr()
        return Answer(status, printed.out, printed.err)

    return run
