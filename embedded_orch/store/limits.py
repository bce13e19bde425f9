"""Concurrency limits: made, changed, found and removed by people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, UnsetType

from embedded_orch.errors import ConfigurationError, LimitNotFound
from embedded_orch.orchestration.slots import Spent
from embedded_orch.store.names import check_name
from embedded_orch.store.queues import given
from embedded_orch.store.slots import Held, Limit, taken_of
from embedded_orch.store.transitions import encode_struct

if TYPE_CHECKING:
    from uuid import UUID

    from embedded_orch.db.port import Transaction


class LimitFields(msgspec.Struct, frozen=True, kw_only=True):
    """Fields of a limit to set; those left out stay as they are."""

    name: str | UnsetType = UNSET
    slot_limit: int | UnsetType = UNSET
    is_active: bool | UnsetType = UNSET
    slot_decay_per_second: float | UnsetType = UNSET


class LimitState(msgspec.Struct, frozen=True):
    """A limit with what is taken of it, and by whom."""

    limit: Limit
    taken: int
    claims: tuple[Held, ...]


def create(
    tx: Transaction,
    *,
    id: UUID,
    name: str,
    slot_limit: int,
    slot_decay_per_second: float,
    is_active: bool,
    now: int,
) -> LimitState:
    """Make a limit.

    Raises:
        ConfigurationError: the name is taken, or a value cannot be.
    """
    check_name("concurrency limit", name)
    _check_numbers(name, slot_limit, slot_decay_per_second)
    tx.run(
        "concurrency_limit.insert",
        id=id,
        name=name,
        slot_limit=slot_limit,
        is_active=is_active,
        slot_decay_per_second=slot_decay_per_second,
        now=now,
    )
    found = _get(tx, name)
    if found.id != id:
        raise ConfigurationError(
            f"there is a concurrency limit {name!r} already; update it, or use upsert()"
        )
    return _with_claims(tx, found, now)


def get(tx: Transaction, *, name: str, now: int) -> LimitState:
    """One limit, as of now.

    Raises:
        LimitNotFound: none has the name.
    """
    return _with_claims(tx, _get(tx, name), now)


def find(
    tx: Transaction, *, name_like: str | None, after_name: str, limit: int, now: int
) -> list[LimitState]:
    """Limits by name, a page at a time."""
    rows = tx.rows(
        "concurrency_limit.find", name_like=name_like, after_name=after_name, limit=limit
    )
    return [_with_claims(tx, Limit(*row), now) for row in rows]


def update(tx: Transaction, *, name: str, fields: LimitFields, now: int) -> LimitState:
    """Set the given fields of a limit. Who holds slots keeps them, also when they are too many now.

    Raises:
        LimitNotFound: none has the name.
        ConfigurationError: a value cannot be.
    """
    values: dict[str, Any] = given(fields)
    new_name = values.get("name", name)
    if new_name != name and _was_renamed(tx, name, new_name, now):
        return _with_claims(tx, _get(tx, new_name), now)
    old = _lock(tx, name)
    if new_name != name:
        check_name("concurrency limit", values["name"])
        if tx.rows("concurrency_limit.by_names", names=encode_struct([values["name"]])):
            raise ConfigurationError(f"there is a concurrency limit {values['name']!r} already")
    # The decay begins anew with what is taken now.
    new = msgspec.structs.replace(
        old, **values, spent_slots=taken_of(tx, old, now=now), spent_at=now
    )
    _check_numbers(new.name, new.slot_limit, new.slot_decay_per_second)
    _update(tx, new, Spent(new.spent_slots, now) if new.decays else Spent(0, now), now)
    return _with_claims(tx, _get(tx, new.name), now)


def reset(tx: Transaction, *, name: str, now: int) -> LimitState:
    """Take its slots from whoever holds them, as if none were taken.

    Raises:
        LimitNotFound: none has the name.
    """
    limit = _lock(tx, name)
    tx.run("slot_claim.delete_of_limit", limit_id=limit.id)
    _update(tx, limit, Spent(0, now), now)
    return _with_claims(tx, _get(tx, name), now)


def delete(tx: Transaction, *, name: str) -> bool:
    """Remove a limit with all claims on it; whether there was one."""
    rows = tx.rows("concurrency_limit.by_names", names=encode_struct([name]))
    return bool(rows) and tx.run("concurrency_limit.delete", id=rows[0][0]) > 0


def _check_numbers(name: str, slot_limit: int, decay: float) -> None:
    if slot_limit < 0:
        raise ConfigurationError(f"concurrency limit {name!r}: a limit of {slot_limit} slots")
    if not 0 <= decay < float("inf"):
        raise ConfigurationError(
            f"concurrency limit {name!r}: {decay} slots cannot come back in a second"
        )


def _was_renamed(tx: Transaction, name: str, new_name: str, now: int) -> bool:
    """Whether this very change has been made: its commit raised, and it is run again."""
    found = [
        tx.rows("concurrency_limit.by_names", names=encode_struct([each]))
        for each in (name, new_name)
    ]
    return not found[0] and bool(found[1]) and Limit(*found[1][0]).spent_at == now


def _lock(tx: Transaction, name: str) -> Limit:
    if tx.dialect == "postgres":
        tx.rows("concurrency_limit.by_names_lock", names=encode_struct([name]))
    return _get(tx, name)


def _get(tx: Transaction, name: str) -> Limit:
    row = tx.row("concurrency_limit.by_names", names=encode_struct([name]))
    if row is None:
        raise LimitNotFound(f"there is no concurrency limit {name!r}; create it first")
    return Limit(*row)


def _update(tx: Transaction, limit: Limit, spent: Spent, now: int) -> None:
    tx.run(
        "concurrency_limit.update",
        id=limit.id,
        name=limit.name,
        slot_limit=limit.slot_limit,
        is_active=limit.is_active,
        slot_decay_per_second=limit.slot_decay_per_second,
        spent=spent.slots,
        spent_at=spent.at,
        now=now,
    )


def _with_claims(tx: Transaction, limit: Limit, now: int) -> LimitState:
    claims = tuple(Held(*row) for row in tx.rows("slot_claim.of_limit", limit_id=limit.id))
    return LimitState(limit, taken_of(tx, limit, now=now), claims)
