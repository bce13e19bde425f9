"""Sending inputs to flow runs, which receive them by their class or type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedded_orch.engine.exchange import write_input
from embedded_orch.engine.run_inputs import WantedInput
from embedded_orch.input.actions import performed, sending_run, target

if TYPE_CHECKING:
    from uuid import UUID

    from embedded_orch.engine.effects import Steps


def send_input(
    run_input: Any,
    flow_run_id: UUID | str,
    sender: str | None = None,
    key_prefix: str | None = None,
) -> Any:
    """Send an input to a flow run, which receives it by its class or type.

    In asynchronous code this is awaited.

    Args:
        run_input: an object of a class with fields, or any value that JSON holds.
        flow_run_id: who receives it.
        sender: who sends it; the flow run that the calling code is in when not given.
        key_prefix: how its key begins; made from its type when not given.

    Raises:
        RunNotFound: no flow run has the id.
        ConfigurationError: the prefix cannot be one.
    """
    return performed(sending(run_input, flow_run_id, sender, key_prefix))


def sending(
    run_input: Any, flow_run_id: UUID | str, sender: str | None, key_prefix: str | None
) -> Steps[None]:
    """The steps of :func:`send_input`."""
    engine, run_id = target(flow_run_id)
    kind = type(run_input)
    key = f"{key_prefix or prefix_of(kind)}-{engine.process.new_id()}"
    return write_input(
        engine, run_id, key, WantedInput(kind).dump(run_input), sender or sending_run()
    )


def prefix_of(kind: Any) -> str:
    """How the keys of inputs of a class or type begin."""
    return f"{base_key(kind)}-auto"


def base_key(kind: Any) -> str:
    """The name of a class or type as keys have it: lower-case letters, digits and dashes."""
    name = str(getattr(kind, "__name__", kind)).lower()
    return "".join(each if each.isascii() and each.isalnum() else "-" for each in name)
