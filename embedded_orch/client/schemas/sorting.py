"""Orders of runs, log lines, artifacts and variables."""

from __future__ import annotations

from embedded_orch.filters import (
    ArtifactSort,
    FlowRunSort,
    TaskRunSort,
    VariableSort,
)
from embedded_orch.logs import LogSort

__all__ = ["ArtifactSort", "FlowRunSort", "LogSort", "TaskRunSort", "VariableSort"]
