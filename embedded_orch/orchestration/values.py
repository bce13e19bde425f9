"""What goes into a decision and what comes out of it."""

from __future__ import annotations

from enum import Enum
from typing import Protocol
from uuid import UUID

import msgspec

from embedded_orch.orchestration.jitter import clamped_poisson
from embedded_orch.states import NO_DETAILS, StateDetails, StateType


class Policy(msgspec.Struct, omit_defaults=True, frozen=True):
    """What a run may do by itself; stored with it as ``empirical_policy``."""

    retries: int = 0
    retry_delay: float | tuple[float, ...] = 0
    """Seconds before each retry; the last of several goes on."""
    retry_jitter_factor: float | None = None
    """How far a delay may be off, as a part of it: see :func:`.jitter.clamped_poisson`."""
    retry_type: str | None = None
    """``in_process`` while its own process retries it, so that no worker claims it; ``reschedule``
    once it was scheduled again after its end."""
    resuming: bool = False
    """Whether it was paused and goes on: the RUNNING that comes is no new attempt."""
    pause_keys: tuple[str, ...] = ()
    """The pauses that it has entered: it enters none twice."""

    def delay(self, attempt: int, *, chance: float) -> float:
        """Seconds to wait before the retry that follows attempt number ``attempt``.

        Args:
            attempt: counted from 1.
            chance: where in the range of its jitter the delay lies, from 0 up to 1.
        """
        delay = self._plain_delay(attempt)
        if not self.retry_jitter_factor:
            return delay
        return clamped_poisson(delay, factor=self.retry_jitter_factor, chance=chance)

    def _plain_delay(self, attempt: int) -> float:
        if isinstance(self.retry_delay, tuple):
            if not self.retry_delay:
                return 0
            return self.retry_delay[min(attempt - 1, len(self.retry_delay) - 1)]
        return self.retry_delay


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A flow run or task run, as far as rules read it and states change it.

    Times and durations are microseconds.
    """

    id: UUID
    is_flow_run: bool
    state_id: UUID | None = None
    state_type: StateType | None = None
    state_name: str | None = None
    state_timestamp: int | None = None
    state_details: StateDetails = NO_DETAILS
    """Of its state; read for the states whose rules look at it."""
    has_value: bool = False
    """Whether a value is stored with its state; read for COMPLETED."""
    run_count: int = 0
    expected_start_time: int | None = None
    next_scheduled_start_time: int | None = None
    start_time: int | None = None
    end_time: int | None = None
    total_run_time: int = 0
    policy: Policy = Policy()
    parent_task_run_id: UUID | None = None
    """Of a flow run that a flow called: the task run that tracks it."""
    is_resumable: bool = True
    """Of a flow run: whether a process that has ended can be followed by another, because its flow
    can be found again, by its entry point or its deployment."""
    has_infrastructure: bool = False
    """Of a flow run: whether something was started for it that has to be stopped."""
    flow_run_run_count: int = 0
    """Of a task run: which attempt of its flow run it ran in last."""


LONGEST_CACHE_KEY = 2000
"""Characters of a cache key; a result with a longer one is not cached. Prefect's limit."""


class CachedResult(msgspec.Struct, frozen=True):
    """The result of another run, which a run with the same cache key may take for its own."""

    data: bytes
    data_format: str


class FlowRunFacts(msgspec.Struct, frozen=True):
    """The flow run of a task run."""

    run_count: int
    state_type: StateType | None
    state_details: StateDetails = NO_DETAILS
    """Of its state; read when it is PAUSED."""


class SlotFacts(msgspec.Struct, frozen=True):
    """The concurrency limits of a task run's tags, as they are when it is to run."""

    waits_for: tuple[str, ...] = ()
    """Those whose slots it would have to wait for."""
    refusal: str | None = None
    """Why it would wait for ever."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What rules ask of the database beside the run itself.

    The store reads what the rules of a transition need, and nothing for those that need nothing.
    """

    flow_run: FlowRunFacts | None = None
    """Of a task run: its flow run; None outside of flows."""
    slots: SlotFacts | None = None
    """Of a task run: the limits of its tags; None when there are none, or they were not read."""
    cached: CachedResult | None = None
    """Of a task run that is about to run: what is cached under its key and has not expired."""


NO_FACTS = Facts()


class WrittenFile(Protocol):
    """The file of a value, see ``values/places.py``: there before the row is that names it."""

    def ensure(self) -> None:
        """See to it that it is there."""
        ...


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """A state that is proposed for a run, and stored when it is accepted."""

    id: UUID
    type: StateType
    name: str
    timestamp: int
    message: str | None = None
    details: StateDetails = NO_DETAILS
    data: bytes | None = None
    data_format: str | None = None
    chance: float = 0.5
    """Not stored: a random number from 0 up to 1, for the jitter of a retry."""
    follows: UUID | None = None
    """Not stored: the state that the proposer saw, where another one by now makes the proposal
    void."""
    file: WrittenFile | None = None
    """Not stored: the file that the data name, if they name one."""


class Verdict(Enum):
    """How a proposal ends."""

    ACCEPT = "accept"
    REJECT = "reject"
    WAIT = "wait"
    ABORT = "abort"


class Amendment(msgspec.Struct, frozen=True):
    """What a rule makes of a proposal to which it has no objection."""

    proposal: Proposal
    policy: Policy | None = None
    """Of the run, once the proposal is stored; as it is when None."""


class Objection(msgspec.Struct, frozen=True):
    """A rule's decision against a proposal.

    Attributes:
        verdict: REJECT, WAIT or ABORT.
        reason: why, for people.
        delay_seconds: for WAIT.
        proposal: for REJECT: the state to store instead; None when the run keeps its own.
        policy: of the run from now on; as it is when None.
    """

    verdict: Verdict
    reason: str
    delay_seconds: float = 0
    proposal: Proposal | None = None
    policy: Policy | None = None


class Decision(msgspec.Struct, frozen=True):
    """What becomes of a proposal.

    Attributes:
        verdict: how it ends.
        run: the run as it is after that.
        reason: why, when it was not accepted.
        delay_seconds: for WAIT.
        proposal: the state to store; None when the run keeps the one it has.
        is_repeat: the state was stored before, by the same proposal.
    """

    verdict: Verdict
    run: Run
    reason: str | None = None
    delay_seconds: float = 0
    proposal: Proposal | None = None
    is_repeat: bool = False
