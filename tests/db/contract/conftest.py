"""What every backend of the data layer is put to the test with."""

from __future__ import annotations

import pytest

from embedded_orch.db.port import Database
from embedded_orch.process import Process
from tests.db.contract.probe import Probe


@pytest.fixture
def probe(database: Database, process: Process) -> Probe:
    """A table in an open database, on each backend in turn."""
    return Probe(database, process)


@pytest.fixture(params=["asyncio", "trio"])
def event_loop(request: pytest.FixtureRequest) -> str:
    """The name of each kind of event loop in turn, for ``anyio.run``."""
    return str(request.param)
