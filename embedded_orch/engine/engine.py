"""What runs flows and tasks on one database: its connection, its clock, its ownership of runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedded_orch.engine.ownership import Owner

if TYPE_CHECKING:
    from embedded_orch.db.port import Database
    from embedded_orch.process import Process


class Engine:
    """One orchestrator's engine. Any thread may use it until it is closed.

    Args:
        database: where runs are recorded.
        process: its clock, ids and sleep.
        life_path: the file whose locks tell which owners live; None where nobody else can look.
    """

    def __init__(self, database: Database, process: Process, life_path: str | None) -> None:
        self.database = database
        self.process = process
        self.owner = Owner(database, process, life_path)

    def close(self) -> None:
        """Give up what it owns."""
        self.owner.end()

    def __repr__(self) -> str:
        return f"<Engine on {self.database.url}>"
