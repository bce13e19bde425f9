"""What a rule is, and the rules that flow runs and task runs have in common.

A rule names the transitions that it is about, by the type that the run has and the type that was
intended, and answers with nothing (no objection), with an amendment, or with an objection. The
names and the behaviour are Prefect 3's.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

import msgspec

from embedded_orch import times
from embedded_orch.orchestration.values import (
    Amendment,
    Facts,
    Objection,
    Policy,
    Proposal,
    Run,
    Verdict,
)
from embedded_orch.states import StateType

if TYPE_CHECKING:
    from collections.abc import Callable

    Answer = Amendment | Objection | None
    Question = Callable[[Run, Proposal, Facts, int], Answer]

ANY = frozenset(StateType)
MICROSECONDS = 1_000_000


class Rule(msgspec.Struct, frozen=True):
    """One rule: which transitions it is about, and its question."""

    name: str
    leaving: AbstractSet[StateType | None]
    entering: AbstractSet[StateType]
    ask: Question

    def applies_to(self, current: StateType | None, intended: StateType) -> bool:
        """Whether the rule is about this pair; a run without a state leaves None."""
        return current in self.leaving and intended in self.entering


def reject(run: Run, reason: str) -> Objection:
    """The run keeps the state that it has."""
    return Objection(Verdict.REJECT, f"{reason}; the run stays {run.state_name}")


def copy_scheduled_time(run: Run, proposal: Proposal, facts: Facts, now: int) -> Answer:
    """A run that is about to start still says for when it was scheduled."""
    scheduled_time = run.state_details.scheduled_time
    if proposal.details.scheduled_time is not None or scheduled_time is None:
        return None
    details = msgspec.structs.replace(proposal.details, scheduled_time=scheduled_time)
    return Amendment(msgspec.structs.replace(proposal, details=details))


def wait_for_scheduled_time(run: Run, proposal: Proposal, facts: Facts, now: int) -> Answer:
    """Nothing starts before its time. What was due once stays due when the clock is set back."""
    scheduled_time = run.state_details.scheduled_time
    if scheduled_time is None:
        return None
    due = times.microseconds_from_datetime(scheduled_time)
    if due <= max(now, run.state_timestamp or 0):
        return None
    delay = (due - now) / MICROSECONDS
    return Objection(Verdict.WAIT, "the run is scheduled for later", delay_seconds=delay)


def has_retries_left(run: Run, proposal: Proposal) -> bool:
    """Whether a failure is followed by another attempt."""
    return proposal.details.retriable is not False and run.run_count <= run.policy.retries


def retry_delay(run: Run, proposal: Proposal) -> float:
    """Seconds until the next attempt."""
    return run.policy.delay(run.run_count, chance=proposal.chance)


def wait_for_retry(proposal: Proposal, now: int, delay: float) -> Objection:
    """A failure becomes a wait of so many seconds for the next attempt."""
    due = now + int(delay * MICROSECONDS)
    details = msgspec.structs.replace(
        proposal.details, scheduled_time=times.datetime_from_microseconds(due)
    )
    waiting = msgspec.structs.replace(
        proposal, type=StateType.SCHEDULED, name="AwaitingRetry", details=details
    )
    return Objection(Verdict.REJECT, "the run has retries left", proposal=waiting)


def with_policy(run: Run, proposal: Proposal, policy: Policy) -> Answer:
    """No objection, and the run has another policy once the proposal is stored."""
    return None if policy == run.policy else Amendment(proposal, policy)


def is_plain_running(proposal: Proposal) -> bool:
    """Whether it is RUNNING under no name of its own, which a rule may give it."""
    return proposal.type is StateType.RUNNING and proposal.name == "Running"


COPY_SCHEDULED_TIME = Rule(
    "CopyScheduledTime",
    frozenset({StateType.SCHEDULED}),
    frozenset({StateType.PENDING}),
    copy_scheduled_time,
)
WAIT_FOR_SCHEDULED_TIME = Rule(
    "WaitForScheduledTime",
    frozenset({StateType.SCHEDULED, StateType.PENDING}),
    frozenset({StateType.RUNNING}),
    wait_for_scheduled_time,
)
