"""Variables: named values, set, read and removed by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from embedded_orch.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedded_orch.db.port import Transaction


class VariableRow(msgspec.Struct, frozen=True):
    """A variable as it is stored."""

    id: UUID
    name: str
    value: Any
    tags: list[str]
    created: int
    updated: int


def get_variable(tx: Transaction, *, name: str) -> VariableRow | None:
    """The variable of this name, or None."""
    row = tx.row("variable.by_name", name=name)
    return None if row is None else VariableRow(*row)


def set_variable(
    tx: Transaction,
    *,
    id: UUID,
    name: str,
    value: str,
    tags: Sequence[str],
    overwrite: bool,
    now: int,
) -> VariableRow:
    """Make a variable, or give the one there is another value and other tags.

    Args:
        tx: a write transaction.
        id: for a new one.
        name: of the variable.
        value: as JSON text.
        tags: all of them.
        overwrite: whether there may be one.
        now: microseconds since 1970 UTC.

    Raises:
        ConfigurationError: there is one, and it is not to be overwritten.
    """
    encoded = msgspec.json.encode(list(tags)).decode()
    made = tx.run("variable.insert", id=id, name=name, json_value=value, tags=encoded, now=now)
    found = get_variable(tx, name=name)
    assert found is not None, "it was made, or was there"
    if made or found.id == id:
        return found
    if not overwrite:
        raise ConfigurationError(
            f"there is a variable {name!r} already; set it with overwrite=True to change it"
        )
    tx.run("variable.update", name=name, json_value=value, tags=encoded, now=now)
    return VariableRow(*(tx.row("variable.by_name", name=name) or ()))


def delete_variable(tx: Transaction, *, name: str) -> bool:
    """Remove a variable; whether there was one."""
    return tx.run("variable.delete", name=name) > 0


def get_variables(tx: Transaction, ids: Sequence[UUID]) -> list[VariableRow]:
    """The variables with these ids, in this order; those that do not exist are left out."""
    encoded = msgspec.json.encode([str(id) for id in ids]).decode()
    return [VariableRow(*row) for row in tx.rows("variable.get_many", ids=encoded)]
