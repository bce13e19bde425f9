"""The backends that every test of the data layer runs on, and what opens them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from embedded_orch.db.opening import OpenDatabases
from embedded_orch.process import Process

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from embedded_orch.db.port import Database

BACKENDS = ("file", "memory", "postgres")


@pytest.fixture(params=BACKENDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each backend in turn."""
    if request.param == "memory":
        return ":memory:"
    if request.param == "file":
        return str(tmp_path / "data" / "orch.db")
    server = request.getfixturevalue("postgres_server")
    return str(server.emptied_database())


@pytest.fixture
def process() -> Process:
    """This process, with its real clock."""
    return Process()


@pytest.fixture
def database(url: str, process: Process) -> Iterator[Database]:
    """The data layer alone, open on each backend in turn."""
    opened = OpenDatabases(process)
    shared = opened.open(url, {"busy_timeout_seconds": 5.0} if "postgres" not in url else {})
    yield shared.database
    opened.close(shared)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[object]:
    """One real Postgres for the whole run."""
    from tests.postgres_server import running_server

    with running_server() as server:
        yield server
