"""Runs and states from outside of the engine: made, proposed, and what the rules answered."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec

from embedded_orch.engine import results
from embedded_orch.engine.checking import tags_of
from embedded_orch.engine.creating import new_flow_run
from embedded_orch.engine.names import run_name
from embedded_orch.engine.tags import tags_of_run
from embedded_orch.orchestration.values import Verdict
from embedded_orch.states import State
from embedded_orch.store import flow_runs, task_runs
from embedded_orch.store.transitions import propose

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from uuid import UUID

    from embedded_orch.db.port import Transaction
    from embedded_orch.engine.specs import FlowSpec
    from embedded_orch.orchestration.values import Decision
    from embedded_orch.process import Process
    from embedded_orch.store.transitions import Kind


class SetStateStatus(StrEnum):
    """What became of a proposed state."""

    ACCEPT = "ACCEPT"
    REJECT = "REJECT"
    ABORT = "ABORT"
    WAIT = "WAIT"


class StateAcceptDetails(msgspec.Struct, frozen=True):
    """The state was stored."""

    type: str = "accept_details"


class StateRejectDetails(msgspec.Struct, frozen=True):
    """Another state was stored, or none."""

    reason: str | None = None
    type: str = "reject_details"


class StateAbortDetails(msgspec.Struct, frozen=True):
    """Nothing was stored, and nothing will be."""

    reason: str | None = None
    type: str = "abort_details"


class StateWaitDetails(msgspec.Struct, frozen=True):
    """Nothing was stored; the same may be proposed again after a while."""

    delay_seconds: float
    reason: str | None = None
    type: str = "wait_details"


Details = StateAcceptDetails | StateRejectDetails | StateAbortDetails | StateWaitDetails


class OrchestrationResult(msgspec.Struct, frozen=True):
    """The answer to a proposed state.

    Attributes:
        status: what became of it.
        state: that of the run after it; None for a run that has none.
        details: the reason, and for WAIT how long.
    """

    status: SetStateStatus
    state: State | None
    details: Details


def proposing(
    process: Process, kind: Kind, run_id: UUID, state: State, *, force: bool
) -> Callable[[Transaction], OrchestrationResult]:
    """The operation that proposes a state for a run on behalf of nobody who owns it.

    Args:
        process: whose clock and ids; the state is stored as a new one, entered now.
        kind: which kind of run.
        run_id: the run.
        state: what to propose.
        force: whether only the rules are asked that nothing overrides.

    Raises:
        ConfigurationError: it is no state, or says something that no state can.
        ValueNotStorable: its data would not come back equal and of their type.
    """
    now = process.now()
    proposal = results.proposal_of(state, id=process.new_id(), now=now)

    def operation(tx: Transaction) -> OrchestrationResult:
        decision = propose(
            tx, kind, run_id=run_id, proposal=proposal, now=now, epoch=None, force=force
        )
        if kind == "flow_run":
            found = flow_runs.get_flow_runs(tx, [run_id])[0].state
        else:
            found = task_runs.get_task_runs(tx, [run_id])[0].state
        return OrchestrationResult(SetStateStatus(decision.verdict.name), found, _details(decision))

    return operation


def creating(
    process: Process,
    flow: FlowSpec,
    *,
    name: str | None,
    parameters: Mapping[str, Any],
    tags: Iterable[str],
    state: State,
    idempotency_key: str | None,
) -> Callable[[Transaction], UUID]:
    """The operation that records a flow run that nobody runs yet, and gives its id.

    Args:
        process: whose clock, ids and names.
        flow: whose run it is.
        name: of the run; made up when None.
        parameters: what to call the flow with.
        tags: of the run, beside those of the flow and of the code around.
        state: to begin in.
        idempotency_key: when the flow has a run with it, its id is given.

    Raises:
        ParameterBindError: the parameters do not fit the flow.
        ParameterTypeError: one is not, and cannot become, what the flow declares.
        ConfigurationError: tags or a state that cannot be.
    """
    now = process.now()
    arguments: Mapping[str, Any] = flow.signature.bind((), parameters)
    if flow.options.validate_parameters:
        arguments = flow.parameters.filled(arguments)
        flow.parameters.converted(arguments)
    new = new_flow_run(
        flow,
        arguments,
        id=process.new_id(),
        name=name or run_name(process.random_bytes(4)),
        tags=tags_of_run(tuple(dict.fromkeys((*flow.tags, *tags_of(tags))))),
        on_crash=flow.options.on_crash,
        idempotency_key=idempotency_key,
    )
    first = results.proposal_of(state, id=process.new_id(), now=now)
    return lambda tx: flow_runs.create_flow_run_once(tx, new, [first], now=now)


def _details(decision: Decision) -> Details:
    if decision.verdict is Verdict.ACCEPT:
        return StateAcceptDetails()
    if decision.verdict is Verdict.WAIT:
        return StateWaitDetails(decision.delay_seconds, decision.reason)
    if decision.verdict is Verdict.REJECT:
        return StateRejectDetails(decision.reason)
    return StateAbortDetails(decision.reason)
