"""The client that programs for Prefect ask about runs with, on the database of this process."""

from __future__ import annotations

from embedded_orch.client.orchestration import PrefectClient, SyncPrefectClient, get_client

__all__ = ["PrefectClient", "SyncPrefectClient", "get_client"]
