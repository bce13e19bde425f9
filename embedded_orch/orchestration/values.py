"""What goes into a decision and what comes out of it."""

from __future__ import annotations

from enum import Enum
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
    """``in_process`` while its own process retries it, so that no worker claims it."""

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
    """The fields of a flow run or task run that rules read and states change.

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
    run_count: int = 0
    expected_start_time: int | None = None
    next_scheduled_start_time: int | None = None
    start_time: int | None = None
    end_time: int | None = None
    total_run_time: int = 0
    policy: Policy = Policy()
    flow_run_run_count: int = 0
    """Of a task run: which attempt of its flow run it ran in last."""
    flow_run_attempt: int | None = None
    """Of a task run: the attempt that its flow run is in now; None outside of flows."""


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


class Verdict(Enum):
    """How a proposal ends."""

    ACCEPT = "accept"
    REJECT = "reject"
    WAIT = "wait"
    ABORT = "abort"


class Decision(msgspec.Struct, frozen=True):
    """What becomes of a proposal.

    Attributes:
        verdict: how it ends.
        reason: why, when it was not accepted.
        delay_seconds: for WAIT.
        proposal: the state to store; None when the run keeps the one it has.
        run: the run after that state.
        is_repeat: the state was stored before, by the same proposal.
    """

    verdict: Verdict
    reason: str | None = None
    delay_seconds: float = 0
    proposal: Proposal | None = None
    run: Run | None = None
    is_repeat: bool = False
