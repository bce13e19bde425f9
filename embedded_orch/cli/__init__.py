"""The command ``embedded-orch``: look at runs, and look after the database.

It reads what is stored as text. Nothing that a database holds is unpickled, imported or called.
"""

from __future__ import annotations

from embedded_orch.cli.command import main

__all__ = ["main"]
