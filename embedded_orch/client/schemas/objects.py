"""What the client gives: flows, runs and states."""

from __future__ import annotations

from embedded_orch.input.actions import FlowRunInput
from embedded_orch.runs import FlowRecord as Flow
from embedded_orch.runs import FlowRun, TaskRun
from embedded_orch.states import TERMINAL_TYPES as TERMINAL_STATES
from embedded_orch.states import State, StateDetails, StateType

__all__ = [
    "TERMINAL_STATES",
    "Flow",
    "FlowRun",
    "FlowRunInput",
    "State",
    "StateDetails",
    "StateType",
    "TaskRun",
]
