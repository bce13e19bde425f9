"""What the tests of the store have in common."""

from __future__ import annotations

import pytest

from embedded_orch.db.port import Database
from embedded_orch.process import Process
from tests.builders import Builder


@pytest.fixture
def build(database: Database, process: Process) -> Builder:
    """Puts things into the database, on each backend in turn."""
    return Builder(database, process)
