"""Values that are not stored in their rows: put where they belong before the row is, and got again.

Which values those are is one comparison, of their length with ``Keeping.largest_inside``.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from msgspec.structs import replace

from embedded_orch import values
from embedded_orch.engine import results
from embedded_orch.engine.effects import Ask
from embedded_orch.errors import ValueNotStorable
from embedded_orch.states import is_value
from embedded_orch.values.text import storable_text

if TYPE_CHECKING:
    from embedded_orch.engine.effects import Steps
    from embedded_orch.engine.keeping import Keeping
    from embedded_orch.orchestration.values import Proposal
    from embedded_orch.states import State

_log = logging.getLogger("embedded_orch.engine")


def put_outside(
    completed: Proposal, keeping: Keeping, *, run_name: str, path: str | None = None
) -> Steps[Proposal]:
    """The same completion, whose value is outside of it.

    Args:
        completed: with the encoded value.
        keeping: how it is kept.
        run_name: for messages.
        path: in the storage; the hash of the value when None.

    Raises:
        ValueNotStorable: it was asked for that it be stored, and it cannot be.
    """
    assert completed.data is not None
    try:
        kept = yield Ask(keeping.put, completed.data, completed.data_format, path)
    except ValueNotStorable as error:
        if keeping.is_required:
            raise
        _log.warning("%s: %s; the run goes on with the value in memory", run_name, error)
        message = storable_text(f"the result was not stored: {error}")
        return replace(completed, data=None, data_format=None, message=message)
    return replace(completed, data=kept.data, data_format=kept.data_format, file=kept.file)


def outcome_outside(
    outcome: tuple[Proposal, State], keeping: Keeping, *, run_name: str
) -> Steps[tuple[Proposal, State]]:
    """What a function's return value stands for, with the value where it is kept.

    Args:
        outcome: the state to propose, and the same with its value at hand.
        keeping: how it is kept.
        run_name: for messages.

    Raises:
        ValueNotStorable: it was asked for that it be stored, and it cannot be.
    """
    proposal, state = outcome
    if not is_too_large(proposal, keeping):
        return outcome
    value = state.result_now()
    proposal = yield from put_outside(proposal, keeping, run_name=run_name)
    state.kept_as(proposal.data, proposal.data_format)
    return proposal, results.with_value(state, value, keeping)


def is_too_large(proposal: Proposal, keeping: Keeping) -> bool:
    """Whether the value of a state does not belong into its row."""
    data = proposal.data
    return (
        data is not None and len(data) > keeping.largest_inside and is_value(proposal.data_format)
    )


def read_recorded(
    data: bytes | None, data_format: str | None, keeping: Keeping
) -> Steps[tuple[bool, object]]:
    """Whether a stored value can be had again, and the value; see ``results.decode_recorded``."""
    if not values.is_outside(data_format):
        return results.decode_recorded(data, data_format, keeping)
    found: tuple[bool, object] = yield Ask(results.decode_recorded, data, data_format, keeping)
    return found
