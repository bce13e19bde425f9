"""One transition of one run, as a function of values.

``decide`` is given a run as it stands, the state that somebody proposes for it, and the time. It
asks the rules of its kind of run in order; the first that objects decides, else the proposal is
accepted. A state that is stored, the proposed one or the one that a rule put in its place, changes
fields of the run; those changes are worked out here too, so that the store only writes them.

Nothing here reads a clock, draws a random number or touches a database. The rules and the
bookkeeping follow Prefect 3's policies, in their order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from embedded_orch import times
from embedded_orch.orchestration.bookkeeping import bookkeep
from embedded_orch.orchestration.rules import FLOW_RULES, TASK_RULES
from embedded_orch.orchestration.values import Decision, Proposal, Run, Verdict
from embedded_orch.states import StateType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedded_orch.orchestration.rules import Rule


def decide(run: Run, proposal: Proposal, *, now: int) -> Decision:
    """What becomes of a proposed state.

    Args:
        run: the run as it stands.
        proposal: the state that is proposed for it.
        now: microseconds since 1970 UTC.

    Returns:
        ``ACCEPT`` with the state to store; ``REJECT`` with another state to store, or with none
        when the run keeps its own; ``WAIT`` with the seconds to wait before proposing again;
        ``ABORT`` with the reason. With a state to store, the run as it is after it.
    """
    if run.state_id == proposal.id:
        # The same proposal a second time: the answer is the first one, and nothing is stored
        # twice. A rule that put another state in its place gave that one its id.
        is_as_proposed = run.state_type is proposal.type
        verdict = Verdict.ACCEPT if is_as_proposed else Verdict.REJECT
        return Decision(verdict, run=run, is_repeat=True)
    rules: Sequence[Rule] = FLOW_RULES if run.is_flow_run else TASK_RULES
    intended = (run.state_type, proposal.type)
    for rule in rules:
        if not rule.applies_to(*intended):
            continue
        decision = rule.ask(run, proposal, now)
        if decision is None:
            continue
        if isinstance(decision, Proposal):
            # The rule only completes the proposal; the others go on with it.
            proposal = decision
        elif decision.proposal is None:
            return decision
        else:
            return _stored(run, decision.proposal, decision)
    return _stored(run, proposal, Decision(Verdict.ACCEPT))


def _stored(run: Run, proposal: Proposal, decision: Decision) -> Decision:
    timestamp = proposal.timestamp
    if run.state_timestamp is not None and timestamp <= run.state_timestamp:
        # A clock that was set back, or two states in one microsecond: (run, timestamp) is the
        # key of a history, and its order.
        timestamp = run.state_timestamp + 1
    details = proposal.details
    if proposal.type is StateType.SCHEDULED and details.scheduled_time is None:
        now = times.datetime_from_microseconds(proposal.timestamp)
        details = msgspec.structs.replace(details, scheduled_time=now)
    proposal = msgspec.structs.replace(proposal, timestamp=timestamp, details=details)
    return msgspec.structs.replace(decision, proposal=proposal, run=bookkeep(run, proposal))
