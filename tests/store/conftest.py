"""What the tests of the store have in common."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedded_orch.db.port import Database
from embedded_orch.process import Process
from tests.builders import Builder


@pytest.fixture(params=["file", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each dialect.

    The statements of one in memory are those of a file. How it is opened, read and written is put
    to the test by ``tests/db/contract``, and what flows do with it by the tests of those.
    """
    if request.param == "file":
        return str(tmp_path / "data" / "orch.db")
    return str(request.getfixturevalue("postgres_server").emptied_database())


@pytest.fixture
def build(database: Database, process: Process) -> Builder:
    """Puts things into the database, of each dialect in turn."""
    return Builder(database, process)
