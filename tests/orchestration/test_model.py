"""Any proposals at all, in any order: the rules against the plain model, without a database."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from embedded_orch.orchestration.transition import decide
from embedded_orch.orchestration.values import (
    NO_FACTS,
    Decision,
    Facts,
    FlowRunFacts,
    Policy,
    Proposal,
    Run,
    Verdict,
)
from embedded_orch.states import StateDetails, StateType
from tests.orchestration.model import Machine, walk
from tests.orchestration.runs import RUNNING, a_run, an_id, at, in_flow, proposed


class PureMachine(Machine):
    """The run is a value, and so is its history."""

    def make(self, *, is_flow_run: bool, policy: Policy) -> None:
        self.run = Run(id=an_id(99), is_flow_run=is_flow_run, policy=policy)
        self.facts = NO_FACTS if is_flow_run else in_flow(RUNNING, run_count=1)
        self.history: list[Proposal] = []

    def put(self, proposal: Proposal, now: int, *, force: bool) -> Decision:
        decision = decide(self.run, proposal, now=now, facts=self.facts, force=force)
        self.run = decision.run
        if decision.proposal is not None:
            self.history.append(decision.proposal)
        return decision

    def move_flow_run(self, state: StateType, attempt: int) -> None:
        self.facts = Facts(flow_run=FlowRunFacts(attempt, state))

    def read(self) -> Run:
        return self.run

    def read_history(self) -> list[tuple[StateType, str, int]]:
        return [(state.type, state.name, state.timestamp) for state in self.history]


def test_any_proposals_leave_a_run_that_agrees_with_its_history() -> None:
    run_state_machine_as_test(
        PureMachine, settings=settings(max_examples=60, stateful_step_count=20, deadline=None)
    )


@pytest.mark.parametrize("seed", range(12))
def test_long_walks_leave_a_run_that_agrees_with_its_history(seed: int) -> None:
    """Seen to fail with any one of the rules taken away."""
    for turn in range(20):
        walk(PureMachine(), 100 * seed + turn, steps=60)


@settings(max_examples=150, deadline=None)
@given(
    is_flow_run=st.booleans(),
    force=st.booleans(),
    state=st.sampled_from([None, *StateType]),
    type=st.sampled_from(StateType),
    name=st.sampled_from(["", "Running", "AwaitingRetry", "Pending", "Late"]),
    flags=st.tuples(*[st.booleans()] * 4),
    counts=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    moments=st.tuples(*[st.none() | st.integers(0, 4 * 10**15)] * 4),
    facts=st.builds(
        Facts,
        flow_run=st.none()
        | st.builds(FlowRunFacts, st.integers(0, 5), st.none() | st.sampled_from(StateType)),
    ),
    policy=st.builds(
        Policy,
        retries=st.integers(0, 5),
        retry_delay=st.lists(st.floats(0, 1e9), max_size=3).map(tuple),
        resuming=st.booleans(),
        pause_keys=st.lists(st.sampled_from("ab"), unique=True).map(tuple),
    ),
)
def test_every_pair_has_a_decision(
    is_flow_run: bool,
    force: bool,
    state: StateType | None,
    type: StateType,
    name: str,
    flags: tuple[bool, bool, bool, bool],
    counts: tuple[int, int],
    moments: tuple[int | None, int | None, int | None, int | None],
    facts: Facts,
    policy: Policy,
) -> None:
    fields: dict[str, Any] = {
        "has_value": flags[0],
        "is_resumable": flags[1],
        "has_infrastructure": flags[2],
        "run_count": counts[0],
        "flow_run_run_count": counts[1],
        "state_details": at(moments[0]),
        "start_time": moments[1],
        "policy": policy,
    }
    run = a_run(state, is_flow_run=is_flow_run, **fields)
    details = StateDetails(scheduled_time=at(moments[2]).scheduled_time, pause_reschedule=flags[3])

    decision = proposed(
        run,
        type,
        facts=facts,
        force=force,
        name=name,
        timestamp=moments[3] or 0,
        details=details,
    )

    assert isinstance(decision.verdict, Verdict)
    is_stored = decision.proposal is not None
    assert (decision.run == run) == (not is_stored)
    assert is_stored or decision.verdict is not Verdict.ACCEPT
    assert not is_stored or decision.verdict in (Verdict.ACCEPT, Verdict.REJECT)
    assert (decision.delay_seconds > 0) == (decision.verdict is Verdict.WAIT)
