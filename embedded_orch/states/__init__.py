"""States of runs: their types, their names, and the state object.

The types and the names in use are Prefect 3's. A type is one of nine; a name is free text that
says more ("AwaitingRetry" is a SCHEDULED state), and is the capitalised type when nobody gave one.
"""

from __future__ import annotations

from embedded_orch.states.details import (
    ERROR,
    NO_DETAILS,
    TERMINAL_STATES,
    TERMINAL_TYPES,
    VALUE,
    StateDetails,
    StateType,
    checked_details,
    is_value,
)
from embedded_orch.states.making import (
    AwaitingConcurrencySlot,
    AwaitingRetry,
    Cancelled,
    Cancelling,
    Completed,
    Crashed,
    Failed,
    InfrastructurePending,
    Late,
    Paused,
    Pending,
    Retrying,
    Running,
    Scheduled,
    Submitting,
    Suspended,
)
from embedded_orch.states.several import (
    StateGroup,
    aget_state_exception,
    araise_state_exception,
    get_state_exception,
    raise_state_exception,
)
from embedded_orch.states.state import State, is_state, is_state_iterable

__all__ = [
    "ERROR",
    "NO_DETAILS",
    "TERMINAL_STATES",
    "TERMINAL_TYPES",
    "VALUE",
    "AwaitingConcurrencySlot",
    "AwaitingRetry",
    "Cancelled",
    "Cancelling",
    "Completed",
    "Crashed",
    "Failed",
    "InfrastructurePending",
    "Late",
    "Paused",
    "Pending",
    "Retrying",
    "Running",
    "Scheduled",
    "State",
    "StateDetails",
    "StateGroup",
    "StateType",
    "Submitting",
    "Suspended",
    "aget_state_exception",
    "araise_state_exception",
    "checked_details",
    "get_state_exception",
    "is_state",
    "is_state_iterable",
    "is_value",
    "raise_state_exception",
]
