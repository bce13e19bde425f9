"""Runs, states, answers and filters by the paths where Prefect has them."""

from __future__ import annotations

from embedded_orch.client.schemas.objects import FlowRun, State, StateDetails, StateType, TaskRun
from embedded_orch.proposals import (
    OrchestrationResult,
    SetStateStatus,
    StateAbortDetails,
    StateAcceptDetails,
    StateRejectDetails,
)

__all__ = [
    "FlowRun",
    "OrchestrationResult",
    "SetStateStatus",
    "State",
    "StateAbortDetails",
    "StateAcceptDetails",
    "StateDetails",
    "StateRejectDetails",
    "StateType",
    "TaskRun",
]
