"""Inputs of flow runs by their keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedded_orch import errors
from embedded_orch.engine.contexts import current_flow_run
from embedded_orch.engine.effects import drive
from embedded_orch.engine.exchange import value_of, write_input
from embedded_orch.filters import as_uuid
from embedded_orch.orchestrator import registry
from embedded_orch.store import inputs

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from embedded_orch.engine.engine import Engine
    from embedded_orch.store.inputs import InputRow


def create_flow_run_input(
    key: str, value: Any, flow_run_id: UUID | str | None = None, sender: str | None = None
) -> None:
    """Write an input of a flow run.

    Args:
        key: lower-case letters, digits and dashes.
        value: anything that JSON holds.
        flow_run_id: the run; the one that the calling code is in when not given.
        sender: who gives it.

    Raises:
        RunNotFound: no flow run has the id.
        ConfigurationError: the key cannot be, or the run has it already.
        RunInputError: the value is no JSON.
        MissingContextError: no run is named, and none is running here.
    """
    engine, run_id = target(flow_run_id)
    drive(write_input(engine, run_id, key, value, sender))


def read_flow_run_input(key: str, flow_run_id: UUID | str | None = None) -> Any:
    """The value of an input; None when the run has none under the key."""
    engine, run_id = target(flow_run_id)
    row = engine.database.read(lambda tx: inputs.read_input(tx, flow_run_id=run_id, key=key))
    return None if row is None else value_of(row)


def delete_flow_run_input(key: str, flow_run_id: UUID | str | None = None) -> None:
    """Delete an input, if it is there."""
    engine, run_id = target(flow_run_id)
    engine.database.write(lambda tx: inputs.delete_input(tx, flow_run_id=run_id, key=key))


def filter_flow_run_input(
    key_prefix: str,
    limit: int = 1,
    exclude_keys: Iterable[str] | None = None,
    flow_run_id: UUID | str | None = None,
) -> list[InputRow]:
    """The inputs of a run whose keys begin alike, oldest first; their values are JSON text."""
    engine, run_id = target(flow_run_id)
    excluded = set(exclude_keys or ())
    return engine.database.read(
        lambda tx: inputs.inputs_with_prefix(
            tx, flow_run_id=run_id, prefix=key_prefix, exclude_keys=excluded, limit=limit
        )
    )


def target(flow_run_id: UUID | str | None) -> tuple[Engine, UUID]:
    """The run that is meant, and the engine that knows it.

    Raises:
        MissingContextError: none is named, and none is running here.
    """
    here = current_flow_run()
    engine = registry.current().engine if here is None else here.engine
    if flow_run_id is not None:
        return engine, as_uuid(flow_run_id, "flow run")
    if here is None:
        raise errors.MissingContextError(
            "no flow is running here; give flow_run_id to say whose input is meant"
        )
    return engine, here.run_id
