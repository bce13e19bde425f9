"""A flow run as it is recorded when it is made: at once with its call, or to be run later."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedded_orch import values
from embedded_orch.store.flow_runs import NewFlowRun

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from embedded_orch.engine.options import OnCrash
    from embedded_orch.engine.specs import FlowSpec


def new_flow_run(
    flow: FlowSpec,
    arguments: Mapping[str, Any],
    *,
    id: UUID,
    name: str,
    tags: Sequence[str],
    on_crash: OnCrash,
    owner_id: UUID | None = None,
    parent_task_run_id: UUID | None = None,
    idempotency_key: str | None = None,
) -> NewFlowRun:
    """A flow run with what it is called with, as far as that can be stored.

    Args:
        flow: that is called.
        arguments: by parameter.
        id: of the run.
        name: of the run.
        tags: of the run.
        on_crash: what becomes of it when its process dies.
        owner_id: the process that is about to run it.
        parent_task_run_id: the task run that tracks it.
        idempotency_key: the flow has at most one run with it.
    """
    parameters, unstored = values.encode_parameters(arguments)
    return NewFlowRun(
        id=id,
        # The first run of a flow gives it its own id: another would be made for each run.
        flow_id=id,
        flow_name=flow.name,
        name=name,
        owner_id=owner_id,
        on_crash=on_crash,
        parameters=parameters,
        unstored_parameters=unstored,
        parameters_hash=values.hash_inputs(arguments),
        entrypoint=flow.entrypoint,
        flow_version=flow.version,
        idempotency_key=idempotency_key,
        tags=tags,
        policy=flow.policy,
        parent_task_run_id=parent_task_run_id,
    )
