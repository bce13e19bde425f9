"""Helpers for tests, by the path where Prefect has them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from embedded_orch.orchestrator import open_orchestrator

if TYPE_CHECKING:
    from collections.abc import Generator

    from embedded_orch.orchestrator import Orchestrator


@contextmanager
def prefect_test_harness(
    server_startup_timeout: int | None = 30,  # noqa: ARG001 - there is no server to wait for
) -> Generator[Orchestrator]:
    """A block whose flows run on a new database in memory, gone at its end.

    Args:
        server_startup_timeout: taken for the sake of tests that give it.
    """
    with open_orchestrator(":memory:") as orchestrator:
        yield orchestrator
