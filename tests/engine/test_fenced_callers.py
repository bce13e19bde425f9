"""A flow run that was taken from its process cannot take what it called either."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from embedded_orch import errors, flow
from embedded_orch.engine.flow_record import FlowRecord
from embedded_orch.orchestration.values import Proposal
from embedded_orch.states import StateType
from tests.opened import opened, states, the_flow_run


@flow
def child() -> None:
    raise ValueError("the first attempt fails")


@flow
def parent() -> None:
    child()


@pytest.mark.parametrize("is_lost", [False, True])
def test_a_child_is_taken_by_whoever_has_its_caller_and_by_nobody_else(
    url: str, is_lost: bool
) -> None:
    """Seen to fail without the look at the caller: the child ran under a parent that had ended."""
    with opened(url) as orchestrator:
        parent(return_state=True)
        engine, called = orchestrator.engine, the_flow_run(orchestrator, flow_name="child")
        caller: Any = SimpleNamespace(
            run_id=the_flow_run(orchestrator, flow_name="parent").id, epoch=7 if is_lost else 0
        )
        now = engine.process.now()
        running = Proposal(
            id=engine.process.new_id(), type=StateType.RUNNING, name="Running", timestamp=now
        )

        record = FlowRecord(engine, called.id, owes_hooks=False)
        taking = record.take_over(0, [running], now=now, caller=caller)

        if is_lost:
            with pytest.raises(errors.OwnershipLost):
                taking.perform()
        else:
            taking.perform()
        assert states(called)[-1] == ("Failed" if is_lost else "Running")
