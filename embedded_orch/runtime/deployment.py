"""The deployment of the flow run that the running code is in: there are none yet.

What Prefect answers for a flow run without one is answered here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedded_orch.engine.contexts import current_flow_run
from embedded_orch.runtime.here import attributes_of, none
from embedded_orch.runtime.overriding import Attribute, value_of

if TYPE_CHECKING:
    id: str | None
    """None."""
    name: str | None
    """None."""
    version: str | None
    """None."""
    flow_run_id: str | None
    """The flow run."""
    parameters: dict[str, Any]
    """What the flow run was called with."""

__all__ = ["flow_run_id", "id", "name", "parameters", "version"]


_OF_RUN = attributes_of(current_flow_run)
_ATTRIBUTES = {
    "id": Attribute(none),
    "name": Attribute(none),
    "version": Attribute(none),
    "flow_run_id": _OF_RUN["id"],
    "parameters": _OF_RUN["parameters"],
}


def __getattr__(name: str) -> Any:
    return value_of("deployment", name, _ATTRIBUTES)


def __dir__() -> list[str]:
    return sorted(__all__)
