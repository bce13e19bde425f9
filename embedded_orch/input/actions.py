"""Inputs of flow runs by their keys.

Each function is there twice, as in Prefect: one that is awaited where the code around is
asynchronous, and one, with an ``a`` before its name, that always is.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from embedded_orch import errors, times
from embedded_orch.engine.contexts import current_flow_run
from embedded_orch.engine.effects import Read, Write, drive, drive_async
from embedded_orch.engine.exchange import value_of, write_input
from embedded_orch.engine.run_inputs import WantedInput
from embedded_orch.filters import as_uuid
from embedded_orch.orchestrator import registry
from embedded_orch.states.state import awaits
from embedded_orch.store import inputs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from embedded_orch.engine.effects import Steps
    from embedded_orch.engine.engine import Engine

#: How a run that sends is named.
SENDING_RUN = "flow-run-"


class FlowRunInput(msgspec.Struct, frozen=True):
    """An input of a flow run as it is on record; its `value` is JSON text."""

    id: UUID
    flow_run_id: UUID
    key: str
    value: str
    sender: str | None
    created: datetime

    @property
    def decoded_value(self) -> Any:
        """What the JSON text stands for."""
        return msgspec.json.decode(self.value)


def create_flow_run_input(
    key: str, value: Any, flow_run_id: UUID | str | None = None, sender: str | None = None
) -> Any:
    """Write an input of a flow run. In asynchronous code this is awaited.

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
    return performed(creating(key, value, flow_run_id, sender))


async def acreate_flow_run_input(
    key: str, value: Any, flow_run_id: UUID | str | None = None, sender: str | None = None
) -> None:
    """:func:`create_flow_run_input`, awaited whatever the code around."""
    await drive_async(creating(key, value, flow_run_id, sender))


def create_flow_run_input_from_model(
    key: str, model_instance: Any, flow_run_id: UUID | str | None = None, sender: str | None = None
) -> Any:
    """Write an object with fields as an input. In asynchronous code this is awaited.

    Args:
        key: as for :func:`create_flow_run_input`.
        model_instance: a ``RunInput``, a model of pydantic, or another object of a class with
            fields.
        flow_run_id: the run; the one that the calling code is in when not given.
        sender: who gives it; the flow run that the calling code is in when not given.

    Raises:
        RunNotFound, ConfigurationError, RunInputError, MissingContextError: as for
            :func:`create_flow_run_input`.
    """
    return performed(creating_from_model(key, model_instance, flow_run_id, sender))


async def acreate_flow_run_input_from_model(
    key: str, model_instance: Any, flow_run_id: UUID | str | None = None, sender: str | None = None
) -> None:
    """:func:`create_flow_run_input_from_model`, awaited whatever the code around."""
    await drive_async(creating_from_model(key, model_instance, flow_run_id, sender))


def read_flow_run_input(key: str, flow_run_id: UUID | str | None = None) -> Any:
    """The value of an input; None when the run has none under the key.

    In asynchronous code this is awaited.
    """
    return performed(reading(key, flow_run_id))


async def aread_flow_run_input(key: str, flow_run_id: UUID | str | None = None) -> Any:
    """:func:`read_flow_run_input`, awaited whatever the code around."""
    return await drive_async(reading(key, flow_run_id))


def delete_flow_run_input(key: str, flow_run_id: UUID | str | None = None) -> Any:
    """Delete an input, if it is there. In asynchronous code this is awaited."""
    return performed(_deleting(key, flow_run_id))


async def adelete_flow_run_input(key: str, flow_run_id: UUID | str | None = None) -> None:
    """:func:`delete_flow_run_input`, awaited whatever the code around."""
    await drive_async(_deleting(key, flow_run_id))


def filter_flow_run_input(
    key_prefix: str,
    limit: int = 1,
    exclude_keys: Iterable[str] | None = None,
    flow_run_id: UUID | str | None = None,
) -> Any:
    """The inputs of a run whose keys begin alike, oldest first, as list of ``FlowRunInput``.

    In asynchronous code this is awaited.

    Args:
        key_prefix: how their keys begin.
        limit: at most so many.
        exclude_keys: keys to pass over.
        flow_run_id: the run; the one that the calling code is in when not given.

    Raises:
        MissingContextError: no run is named, and none is running here.
    """
    return performed(_filtering(key_prefix, limit, exclude_keys, flow_run_id))


async def afilter_flow_run_input(
    key_prefix: str,
    limit: int = 1,
    exclude_keys: Iterable[str] | None = None,
    flow_run_id: UUID | str | None = None,
) -> list[FlowRunInput]:
    """:func:`filter_flow_run_input`, awaited whatever the code around."""
    return await drive_async(_filtering(key_prefix, limit, exclude_keys, flow_run_id))


def performed(steps: Steps[Any]) -> Any:
    """What steps come to; where the code around is asynchronous, that is to be awaited."""
    return drive_async(steps) if awaits() else drive(steps)


def creating_from_model(
    key: str, model_instance: Any, flow_run_id: UUID | str | None, sender: str | None
) -> Steps[None]:
    """The steps that write an object with fields as an input, from the run that is running here."""
    value = WantedInput(type(model_instance)).dump(model_instance)
    return creating(key, value, flow_run_id, sender or sending_run())


def creating(
    key: str, value: Any, flow_run_id: UUID | str | None, sender: str | None
) -> Steps[None]:
    """The steps of :func:`create_flow_run_input`."""
    engine, run_id = target(flow_run_id)
    return write_input(engine, run_id, key, value, sender)


def reading(key: str, flow_run_id: UUID | str | None) -> Steps[Any]:
    """The steps that read the value of an input; None when there is none."""
    engine, run_id = target(flow_run_id)
    row: inputs.InputRow | None = yield Read(
        engine.database, lambda tx: inputs.read_input(tx, flow_run_id=run_id, key=key)
    )
    return None if row is None else value_of(row)


def _deleting(key: str, flow_run_id: UUID | str | None) -> Steps[None]:
    engine, run_id = target(flow_run_id)
    yield Write(engine.database, lambda tx: inputs.delete_input(tx, flow_run_id=run_id, key=key))


def _filtering(
    key_prefix: str,
    limit: int,
    exclude_keys: Iterable[str] | None,
    flow_run_id: UUID | str | None,
) -> Steps[list[FlowRunInput]]:
    engine, run_id = target(flow_run_id)
    excluded = set(exclude_keys or ())
    rows: list[inputs.InputRow] = yield Read(
        engine.database,
        lambda tx: inputs.inputs_with_prefix(
            tx, flow_run_id=run_id, prefix=key_prefix, exclude_keys=excluded, limit=limit
        ),
    )
    return [recorded(row, run_id) for row in rows]


def recorded(row: inputs.InputRow, run_id: UUID) -> FlowRunInput:
    """A row as people see it."""
    created = times.datetime_from_microseconds(row.created)
    return FlowRunInput(row.id, run_id, row.key, row.value, row.sender, created)


def sending_run() -> str | None:
    """The flow run that the calling code is in, as sender; None outside of any."""
    here = current_flow_run()
    return None if here is None else f"{SENDING_RUN}{here.run_id}"


def target(flow_run_id: UUID | str | None) -> tuple[Engine, UUID]:
    """The run that is meant, and the engine that knows it.

    Raises:
        MissingContextError: none is named, and none is running here.
    """
    here = current_flow_run()
    if flow_run_id is not None:
        engine = registry.current().engine if here is None else here.engine
        return engine, as_uuid(flow_run_id, "flow run")
    if here is None:
        raise errors.MissingContextError(
            "no flow is running here; give flow_run_id to say whose input is meant"
        )
    return here.engine, here.run_id
