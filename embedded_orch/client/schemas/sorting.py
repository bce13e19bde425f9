"""Orders of runs."""

from __future__ import annotations

from embedded_orch.filters import FlowRunSort, TaskRunSort

__all__ = ["FlowRunSort", "TaskRunSort"]
