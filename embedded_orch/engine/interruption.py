"""Recording that a run was interrupted, without standing in the way of the interruption."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from embedded_orch.errors import OrchestratorError

if TYPE_CHECKING:
    from embedded_orch.engine.effects import Steps, Write
    from embedded_orch.orchestration.values import Decision, Proposal

_log = logging.getLogger("embedded_orch.engine")


class ProcessDied(Exception):
    """The process of a pool that ran the function of a task ended before it answered."""


def record_crash(write: Write[Decision], label: str) -> Steps[Proposal | None]:
    """Perform the write that says that a run crashed; the state that it stored, if any.

    Where it fails, Ctrl-C or the cancellation of a task goes on all the same: what was not
    recorded now is, once the orchestrator is closed or its process is found dead.
    """
    try:
        decision: Decision = yield write
    except OrchestratorError as failure:
        _log.warning("%s was interrupted, and that could not be recorded: %s", label, failure)
        return None
    # None where it had ended before.
    return decision.proposal
