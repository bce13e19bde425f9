"""Inputs of flow runs: what a pause waits for, and what runs send each other."""

from __future__ import annotations

from embedded_orch.engine.run_inputs import Keyset
from embedded_orch.input.actions import (
    create_flow_run_input,
    delete_flow_run_input,
    filter_flow_run_input,
    read_flow_run_input,
)
from embedded_orch.input.run_input import (
    RunInput,
    RunInputMetadata,
    keyset_from_base_key,
    keyset_from_paused_state,
    receive_input,
    send_input,
)

__all__ = [
    "Keyset",
    "RunInput",
    "RunInputMetadata",
    "create_flow_run_input",
    "delete_flow_run_input",
    "filter_flow_run_input",
    "keyset_from_base_key",
    "keyset_from_paused_state",
    "read_flow_run_input",
    "receive_input",
    "send_input",
]
