"""What the running flow run and task run are: ``from embedded_orch import runtime``.

Outside of a run every attribute has an empty value and nothing is raised, so that code that reads
them can be called by itself. For tests each can be set by an environment variable; see
:mod:`embedded_orch.runtime.overriding`.
"""

from __future__ import annotations

from embedded_orch.runtime import deployment, flow_run, task_run

__all__ = ["deployment", "flow_run", "task_run"]
