"""Inputs of flow runs: what a pause waits for, and what runs send each other."""

from __future__ import annotations

from embedded_orch.engine.run_inputs import Keyset
from embedded_orch.input.actions import (
    acreate_flow_run_input,
    acreate_flow_run_input_from_model,
    adelete_flow_run_input,
    afilter_flow_run_input,
    aread_flow_run_input,
    create_flow_run_input,
    create_flow_run_input_from_model,
    delete_flow_run_input,
    filter_flow_run_input,
    read_flow_run_input,
)
from embedded_orch.input.receiving import GetInputHandler, receive_input
from embedded_orch.input.run_input import (
    RunInput,
    RunInputMetadata,
    keyset_from_base_key,
    keyset_from_paused_state,
)
from embedded_orch.input.sending import send_input

__all__ = [
    "GetInputHandler",
    "Keyset",
    "RunInput",
    "RunInputMetadata",
    "acreate_flow_run_input",
    "acreate_flow_run_input_from_model",
    "adelete_flow_run_input",
    "afilter_flow_run_input",
    "aread_flow_run_input",
    "create_flow_run_input",
    "create_flow_run_input_from_model",
    "delete_flow_run_input",
    "filter_flow_run_input",
    "keyset_from_base_key",
    "keyset_from_paused_state",
    "read_flow_run_input",
    "receive_input",
    "send_input",
]
