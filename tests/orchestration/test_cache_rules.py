"""CacheRetrieval and CacheInsertion: a run with a known cache key takes the result there."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from embedded_orch.orchestration.transition import decide
from embedded_orch.orchestration.values import CachedResult, Facts, Proposal, Verdict
from embedded_orch.states import StateDetails, StateType
from tests.orchestration.runs import NOW, a_run, an_id

PENDING = a_run(StateType.PENDING, is_flow_run=False)
FOUND = Facts(cached=CachedResult(b"17", "json"))


def a_proposal(type: StateType, **details: object) -> Proposal:
    return Proposal(
        id=an_id(9),
        type=type,
        name=type.value.capitalize(),
        timestamp=NOW + 1,
        details=StateDetails(**details),  # type: ignore[arg-type]  # as the cases say
    )


def test_running_with_a_known_key_becomes_completed_as_cached() -> None:
    running = a_proposal(StateType.RUNNING, cache_key="key")

    decision = decide(PENDING, running, now=NOW, facts=FOUND)

    assert decision.verdict is Verdict.REJECT
    assert decision.proposal is not None
    assert decision.proposal == replace(
        running,
        type=StateType.COMPLETED,
        name="Cached",
        message=decision.proposal.message,
        data=b"17",
        data_format="json",
    )
    assert decision.run.has_value
    assert decision.run.run_count == 0
    assert decision.run.end_time == NOW + 1


@pytest.mark.parametrize(
    ("proposal", "facts"),
    [
        (a_proposal(StateType.RUNNING, cache_key="key"), Facts()),
        (a_proposal(StateType.RUNNING), FOUND),
        (a_proposal(StateType.RUNNING, cache_key="key", refresh_cache=True), FOUND),
        (a_proposal(StateType.FAILED, cache_key="key"), FOUND),
    ],
    ids=["nothing is cached", "no key", "refreshing", "another state"],
)
def test_otherwise_nothing_changes(proposal: Proposal, facts: Facts) -> None:
    decision = decide(PENDING, proposal, now=NOW, facts=facts)

    assert decision.verdict is Verdict.ACCEPT
    assert decision.proposal is not None
    assert decision.proposal.type is proposal.type


def test_force_asks_nothing() -> None:
    running = a_proposal(StateType.RUNNING, cache_key="key")

    assert decide(PENDING, running, now=NOW, facts=FOUND, force=True).verdict is Verdict.ACCEPT


@pytest.mark.parametrize(("length", "verdict"), [(2000, Verdict.ACCEPT), (2001, Verdict.REJECT)])
def test_a_key_that_is_too_long_is_told_and_the_state_stored(length: int, verdict: Verdict) -> None:
    completed = a_proposal(StateType.COMPLETED, cache_key="k" * length)

    decision = decide(PENDING, completed, now=NOW)

    assert decision.verdict is verdict
    assert decision.proposal == completed
