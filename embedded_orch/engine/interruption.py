"""Recording that a run was interrupted, without standing in the way of the interruption."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from embedded_orch.errors import OrchestratorError

if TYPE_CHECKING:
    from embedded_orch.engine.effects import Steps, Write

_log = logging.getLogger("embedded_orch.engine")


class ProcessDied(Exception):
    """The process of a pool that ran the function of a task ended before it answered."""


def record_crash(write: Write[Any], label: str) -> Steps[None]:
    """Perform the write that says that a run crashed.

    Where it fails, Ctrl-C or the cancellation of a task goes on all the same: what was not
    recorded now is, once the orchestrator is closed or its process is found dead.
    """
    try:
        yield write
    except OrchestratorError as failure:
        _log.warning("%s was interrupted, and that could not be recorded: %s", label, failure)
