"""The deployment of the flow run that the running code is in: there are none yet.

What Prefect answers for a flow run without one is answered here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedded_orch.engine.contexts import current_flow_run
from embedded_orch.runtime.overriding import Attribute, json, value_of

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


def _flow_run_id() -> str | None:
    here = current_flow_run()
    return None if here is None else str(here.run_id)


def _parameters() -> dict[str, Any]:
    here = current_flow_run()
    return {} if here is None else dict(here.parameters)


def _none() -> None:
    return None


_ATTRIBUTES = {
    "id": Attribute(_none),
    "name": Attribute(_none),
    "version": Attribute(_none),
    "flow_run_id": Attribute(_flow_run_id),
    "parameters": Attribute(_parameters, json),
}


def __getattr__(name: str) -> Any:
    return value_of("deployment", name, _ATTRIBUTES)


def __dir__() -> list[str]:
    return sorted(__all__)
