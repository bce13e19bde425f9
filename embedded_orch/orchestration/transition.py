"""One transition of one run, as a function of values.

``decide`` is given a run as it stands, the state that somebody proposes for it, what the rules ask
of the database, and the time. It asks the rules of its policy in order; the first that objects
decides, else the proposal is accepted as the rules have amended it. A state that is stored, the
proposed one or the one that a rule put in its place, changes fields of the run; those changes are
worked out here too, so that the store only writes them.

Nothing here reads a clock, draws a random number or touches a database. The rules and the
bookkeeping follow Prefect 3's policies, in their order. Prefect enters its rules as nested contexts
and undoes what a rule changed when a later one objects; here an objection drops the amendments that
came before it, which is the same.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import msgspec

from embedded_orch import times
from embedded_orch.orchestration.bookkeeping import bookkeep
from embedded_orch.orchestration.flow_rules import CORE_FLOW_POLICY, MINIMAL_FLOW_POLICY
from embedded_orch.orchestration.task_rules import (
    CORE_TASK_POLICY,
    IS_CACHED,
    MINIMAL_TASK_POLICY,
    with_cached,
)
from embedded_orch.orchestration.values import (
    NO_FACTS,
    Amendment,
    Decision,
    Facts,
    Policy,
    Proposal,
    Run,
    Verdict,
)
from embedded_orch.states import NO_DETAILS, StateType, is_value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedded_orch.orchestration.rules import Question
    from embedded_orch.orchestration.values import CachedResult


def decide(
    run: Run, proposal: Proposal, *, now: int, facts: Facts = NO_FACTS, force: bool = False
) -> Decision:
    """What becomes of a proposed state.

    Args:
        run: the run as it stands.
        proposal: the state that is proposed for it.
        now: microseconds since 1970 UTC.
        facts: what the rules ask of the database beside the run.
        force: whether only the rules are asked that nothing overrides.

    Returns:
        ``ACCEPT`` with the state to store; ``REJECT`` with another state to store, or with none
        when the run keeps its own; ``WAIT`` with the seconds to wait before proposing again;
        ``ABORT`` with the reason. The run as it is after it.
    """
    if run.state_id == proposal.id:
        # The same proposal a second time: the answer is the first one, and nothing is stored
        # twice. A rule that put another state in its place gave that one its id.
        is_as_proposed = run.state_type is proposal.type
        verdict = Verdict.ACCEPT if is_as_proposed else Verdict.REJECT
        return Decision(verdict, run, is_repeat=True)
    if proposal.follows is not None and proposal.follows != run.state_id:
        return Decision(Verdict.ABORT, run, f"the run is {run.state_name} by now")
    amended, policy = proposal, run.policy
    for ask in _questions(run.is_flow_run, force, run.state_type, proposal.type):
        answer = ask(run, amended, facts, now)
        if answer is None:
            continue
        if isinstance(answer, Amendment):
            amended = answer.proposal
            policy = answer.policy or policy
            continue
        verdict, reason = answer.verdict, answer.reason
        if answer.proposal is None:
            return Decision(verdict, run, reason, answer.delay_seconds)
        stored, after = _stored(run, answer.proposal, answer.policy or run.policy, facts)
        return Decision(verdict, after, reason, proposal=stored)
    stored, after = _stored(run, amended, policy, facts)
    return Decision(Verdict.ACCEPT, after, proposal=stored)


def is_plain_pending(states: Sequence[Proposal]) -> bool:
    """Whether this is the PENDING of a run, alone, and says nothing more."""
    return (
        len(states) == 1
        and states[0].type is StateType.PENDING
        and states[0].details is NO_DETAILS
        and states[0].message is None
        and states[0].data is None
    )


def is_plain_beginning(states: Sequence[Proposal]) -> bool:
    """Whether these are the PENDING and RUNNING of a run that begins, and say nothing more."""
    try:
        pending, running = states
    except ValueError:
        return False
    return (
        pending.type is StateType.PENDING
        and running.type is StateType.RUNNING
        and pending.details is running.details is NO_DETAILS
        and pending.message is running.message is None
        and pending.data is running.data is None
    )


def begin(run: Run, pending: Proposal, running: Proposal) -> tuple[Run, list[Proposal]]:
    """A run without a state after a plain beginning, and the two states as they are stored.

    What :func:`decide` makes of them one by one, by force, is worked out in one step: each task
    run and flow run begins so.
    """
    running = _later(running, pending.timestamp)
    begun = msgspec.structs.replace(
        run,
        state_id=running.id,
        state_type=StateType.RUNNING,
        state_name=running.name,
        state_timestamp=running.timestamp,
        run_count=1,
        expected_start_time=pending.timestamp,
        start_time=running.timestamp,
    )
    return begun, [pending, running]


def is_plain_life(states: Sequence[Proposal], ending: Proposal) -> bool:
    """Whether these begin a task run plainly, and complete it so that no rule has to be asked."""
    return (
        ending.type is StateType.COMPLETED
        and ending.follows is None
        and ending.details.cache_key is None
        and is_plain_beginning(states)
    )


def live(
    run: Run, beginning: Sequence[Proposal], completed: Proposal
) -> tuple[Decision, list[Proposal]]:
    """A task run without a state after a plain life, and its three states as they are stored.

    What :func:`begin` and then :func:`decide` make of them is worked out in one step: most task
    runs are on record at once, from their beginning to their end.
    """
    pending, running = beginning
    running = _later(running, pending.timestamp)
    completed = _later(completed, running.timestamp)
    began, ended = running.timestamp, completed.timestamp
    # What _completed() makes of it, at two thirds of its price.
    lived = msgspec.structs.replace(
        run,
        state_id=completed.id,
        state_type=StateType.COMPLETED,
        state_name=completed.name,
        state_timestamp=ended,
        state_details=completed.details,
        has_value=is_value(completed.data_format),
        run_count=1,
        expected_start_time=pending.timestamp,
        start_time=began,
        end_time=ended,
        total_run_time=ended - began,
    )
    return Decision(Verdict.ACCEPT, lived, proposal=completed), [pending, running, completed]


def is_plain_completion(run: Run, completed: Proposal) -> bool:
    """Whether this completes a RUNNING run so that nothing but its end changes on it.

    Of a flow run a rule is asked about a proposal with a ``transition_id``; the caller has none.
    """
    return (
        completed.type is StateType.COMPLETED
        and completed.follows is None
        and run.state_type is StateType.RUNNING
        and run.start_time is not None
        and run.end_time is None
        and not run.policy.resuming
        and run.state_id != completed.id
    )


def complete(run: Run, completed: Proposal) -> Decision:
    """What :func:`decide` makes of a plain completion that no rule is asked about, in one step."""
    began = run.state_timestamp
    assert began is not None, "it runs"
    completed = _later(completed, began)
    after = _completed(
        run,
        completed,
        next_scheduled_start_time=None,
        total_run_time=run.total_run_time + completed.timestamp - began,
    )
    return Decision(Verdict.ACCEPT, after, proposal=completed)


def decide_end(run: Run, ending: Proposal, *, now: int, force: bool = False) -> Decision:
    """:func:`decide` for the end of a run, in one step where it completes plainly."""
    if is_plain_completion(run, ending):
        return complete(run, ending)
    return decide(run, ending, now=now, force=force)


def is_plain_taking(states: Sequence[Proposal], running: Proposal) -> bool:
    """Whether a run begins with a plain PENDING, and a cached result may take RUNNING's place."""
    details = running.details
    return (
        is_plain_pending(states)
        and running.type is StateType.RUNNING
        and running.follows is None
        and bool(details.cache_key)
        and not details.refresh_cache
    )


def take(
    run: Run, pending: Proposal, running: Proposal, cached: CachedResult
) -> tuple[Decision, list[Proposal]]:
    """A task run without a state that takes a cached result, and its two states as they are stored.

    What :func:`decide` makes of a plain PENDING, by force, and then of RUNNING is worked out in one
    step.
    """
    taken = _later(with_cached(running, cached), pending.timestamp)
    after = _completed(
        run, taken, expected_start_time=pending.timestamp, start_time=taken.timestamp
    )
    return Decision(Verdict.REJECT, after, IS_CACHED, proposal=taken), [pending, taken]


def _completed(run: Run, state: Proposal, **more: int | None) -> Run:
    """A run after a COMPLETED state that is its end, and what else has changed on it."""
    return msgspec.structs.replace(
        run,
        state_id=state.id,
        state_type=StateType.COMPLETED,
        state_name=state.name,
        state_timestamp=state.timestamp,
        state_details=state.details,
        has_value=is_value(state.data_format),
        end_time=state.timestamp,
        **more,
    )


def _later(proposal: Proposal, before: int) -> Proposal:
    """A state as it is stored after one that was entered at a time.

    After a clock that was set back, or for the second state in one microsecond: (run, timestamp) is
    the key of a history, and its order.
    """
    if proposal.timestamp > before:
        return proposal
    return msgspec.structs.replace(proposal, timestamp=before + 1)


@cache
def _questions(
    is_flow_run: bool, force: bool, current: StateType | None, intended: StateType
) -> tuple[Question, ...]:
    """What the rules about a pair of types ask, in order."""
    if is_flow_run:
        policy = MINIMAL_FLOW_POLICY if force else CORE_FLOW_POLICY
    else:
        policy = MINIMAL_TASK_POLICY if force else CORE_TASK_POLICY
    return tuple(rule.ask for rule in policy if rule.applies_to(current, intended))


def _stored(run: Run, proposal: Proposal, policy: Policy, facts: Facts) -> tuple[Proposal, Run]:
    """The state as it is stored, and the run after it."""
    details = proposal.details
    if proposal.type is StateType.SCHEDULED and details.scheduled_time is None:
        moment = times.datetime_from_microseconds(proposal.timestamp)
        details = msgspec.structs.replace(details, scheduled_time=moment)
        proposal = msgspec.structs.replace(proposal, details=details)
    if run.state_timestamp is not None:
        proposal = _later(proposal, run.state_timestamp)
    return proposal, bookkeep(run, proposal, policy, facts)
