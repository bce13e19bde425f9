"""Recording that a run was interrupted, without standing in the way of the interruption."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from msgspec.structs import replace

from embedded_orch.errors import OrchestratorError

if TYPE_CHECKING:
    from embedded_orch.engine.effects import Steps, Write
    from embedded_orch.orchestration.values import Decision, Proposal

_log = logging.getLogger("embedded_orch.engine")


class ProcessDied(Exception):
    """The process of a pool that ran the function of a task ended before it answered."""


def record_crash(write: Write[Decision], ending: Proposal, label: str) -> Steps[Proposal | None]:
    """Perform the write that says how an interrupted run ends; the state that it stored, if any.

    A write may be run twice, when its commit is in doubt or the task that awaits it is cancelled.
    Then the second time finds what the first one has stored.

    Where it fails, Ctrl-C or the cancellation of a task goes on all the same: what was not
    recorded now is, once the orchestrator is closed or its process is found dead.
    """
    try:
        decision: Decision = yield write
    except OrchestratorError as failure:
        _log.warning("%s was interrupted, and that could not be recorded: %s", label, failure)
        return None
    if decision.is_repeat:
        run = decision.run
        assert run.state_type is not None, "it has this state"
        assert run.state_name is not None, "it has this state"
        assert run.state_timestamp is not None, "it has this state"
        return replace(
            ending, type=run.state_type, name=run.state_name, timestamp=run.state_timestamp
        )
    # None where it had ended before.
    return decision.proposal
