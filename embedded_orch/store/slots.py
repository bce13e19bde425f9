"""Slots of concurrency limits: taken, waited for and given back, each in one transaction.

A claim takes all the slots it asks for or none, on all its limits at once. One that cannot have
them now waits in a row of its own, and later claims on the same limits wait behind it. What makes
nobody wait for ever:

- a claim belongs to a process, and ends with it;
- who holds slots already is not kept behind those who wait, since they may be waiting for what it
  holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from embedded_orch import errors
from embedded_orch.orchestration.slots import Spent, has_room

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedded_orch.db.port import Transaction


class Limit(msgspec.Struct, frozen=True):
    """A concurrency limit as it is stored."""

    id: UUID
    name: str
    slot_limit: int
    is_active: bool
    slot_decay_per_second: float
    spent_slots: int
    spent_at: int
    spent_claim_id: UUID | None
    created: int
    updated: int

    @property
    def decays(self) -> bool:
        """Whether its slots come back by themselves."""
        return self.slot_decay_per_second > 0

    def spent(self, now: int) -> Spent:
        """What is spent of a limit that decays, as of now."""
        return Spent(self.spent_slots, self.spent_at).settled(self.slot_decay_per_second, now=now)


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for.

    Attributes:
        id: of the claim; earlier ids are served first.
        names: of the limits.
        slots: of each of them.
        owner_id: the process, which ends with all that it claims.
        holder_type: for people: what it is for.
        holder_id: for people: which one.
        is_rate: the slots are never given back, and have to decay.
        passes_waiters: whoever asks holds slots already.
        held_until_served: claims that are not given back before this one is served, since their
            holders wait for whoever asks, for as long as it takes.
        lease: how long other hosts believe in it unheard, in microseconds; None on one host.
    """

    id: UUID
    names: tuple[str, ...]
    slots: int
    owner_id: UUID
    holder_type: str | None = None
    holder_id: UUID | None = None
    is_rate: bool = False
    passes_waiters: bool = False
    held_until_served: tuple[UUID, ...] = ()
    lease: int | None = None


class Answer(msgspec.Struct, frozen=True):
    """What became of a claim.

    Attributes:
        is_taken: whether it has its slots.
        known: its limits that exist.
        blocking: the limits that it waits for, each with what they allow.
        refusal: why it can never be served; None when it can.
        decays_in: microseconds after which there is room, if nobody else takes it; None when that
            is up to others.
    """

    is_taken: bool
    known: tuple[str, ...]
    blocking: tuple[tuple[str, int], ...] = ()
    refusal: str | None = None
    decays_in: int | None = None


class Held(msgspec.Struct, frozen=True):
    """A claim on one limit, for people."""

    claim_id: UUID
    state: str
    slots: int
    owner_id: UUID
    holder_type: str | None
    holder_id: UUID | None
    since: int


def take_at_once(tx: Transaction, claim: Claim, *, now: int) -> Answer | None:
    """Take the slots of a claim by one statement, where nothing is in its way.

    What :func:`take` does and answers then; nothing, and None, when there is more to be looked at.

    Args:
        tx: a write transaction.
        claim: what is asked for.
        now: microseconds since 1970 UTC.
    """
    if len(claim.names) != 1 or claim.is_rate:
        return None
    _lock(tx, claim.names)
    [name] = claim.names
    is_taken = tx.run(
        "slot_claim.take", name=name, passes_waiters=claim.passes_waiters, **_fields(claim, now)
    )
    return Answer(is_taken=True, known=claim.names) if is_taken else None


def take(tx: Transaction, claim: Claim, *, now: int, waits: bool) -> Answer:
    """Take the slots of a claim on all its limits, or on none; taking them again changes nothing.

    Limits that do not exist and those that are not active ask for nothing.

    Args:
        tx: a write transaction.
        claim: what is asked for.
        now: microseconds since 1970 UTC.
        waits: whether a claim that cannot be served now keeps its place.

    Raises:
        ConcurrencySlotAcquisitionError: it can never be served.
    """
    _lock(tx, claim.names)
    limits = _by_names(tx, claim.names)
    known = tuple(limit.name for limit in limits)
    active = [limit for limit in limits if limit.is_active]
    before = {row[1] for row in tx.rows("slot_claim.of_claim", claim_id=claim.id)}
    if "HOLDING" in before or any(limit.spent_claim_id == claim.id for limit in active):
        return Answer(is_taken=True, known=known)
    lease_now = _expire(tx, active, now) if claim.lease is not None else now
    answer = _weigh(tx, claim, active, known, now=now)
    if answer.refusal is not None:
        raise errors.ConcurrencySlotAcquisitionError(answer.refusal)
    if answer.is_taken:
        if before:
            tx.run("slot_claim.delete", claim_id=claim.id)
        for limit in active:
            _hold(tx, claim, limit, now=now, lease_now=lease_now)
    elif waits:
        for limit in active:
            _insert(tx, claim, limit, "WAITING", now=now, lease_now=lease_now)
    return answer


def look(tx: Transaction, claim: Claim, *, now: int, is_before_take: bool = False) -> Answer:
    """What :func:`take` would answer now, as far as a read can tell.

    Args:
        tx: a transaction; one that writes, for a look before a take.
        claim: what would be asked for.
        now: microseconds since 1970 UTC.
        is_before_take: the answer has to hold until the transaction ends.
    """
    if is_before_take:
        _lock(tx, claim.names)
    limits = _by_names(tx, claim.names)
    known = tuple(limit.name for limit in limits)
    if any(row[1] == "HOLDING" for row in tx.rows("slot_claim.of_claim", claim_id=claim.id)):
        return Answer(is_taken=True, known=known)
    active = [limit for limit in limits if limit.is_active]
    return _weigh(tx, claim, active, known, now=now)


def stand_in_line(tx: Transaction, claim: Claim, *, now: int) -> None:
    """Keep the place of a claim that has to wait, whatever was given back since that was found."""
    lease_now = now
    if claim.lease is not None:
        lease_now = tx.value("concurrency_limit.clock", now=now)
    for limit in _by_names(tx, claim.names):
        if limit.is_active:
            _insert(tx, claim, limit, "WAITING", now=now, lease_now=lease_now)


def release(tx: Transaction, *, claim_id: UUID, now: int) -> None:
    """Give back what a claim holds, and its place where it waits; nothing when it is over."""
    if tx.run("slot_claim.delete_whole", claim_id=claim_id):
        return
    rows = tx.rows("slot_claim.of_claim", claim_id=claim_id)
    spent = {name: slots for _, state, slots, name, decay in rows if decay and state == "HOLDING"}
    if spent:
        _lock(tx, tuple(spent))
    for limit in _by_names(tx, tuple(spent)) if spent else ():
        left = limit.spent(now).give_back(spent[limit.name])
        _spend(tx, limit, left, claim_id=limit.spent_claim_id)
    if rows:
        tx.run("slot_claim.delete", claim_id=claim_id)


def names_among(tx: Transaction, names: Sequence[str]) -> list[str]:
    """Those of the names that are limits."""
    found = tx.rows("concurrency_limit.names_among", names=_json(tuple(names)))
    return [name for (name,) in found]


def renew(tx: Transaction, *, owner_id: UUID, now: int) -> set[UUID]:
    """Say to other hosts that a process lives; the claims that it still has."""
    clock = tx.value("concurrency_limit.clock", now=now)
    return {claim_id for (claim_id,) in tx.rows("slot_claim.renew", owner_id=owner_id, now=clock)}


def taken_of(tx: Transaction, limit: Limit, *, now: int) -> int:
    """How many slots of a limit are taken."""
    if limit.decays:
        return limit.spent(now).slots
    held: int = tx.value("slot_claim.held", limit_id=limit.id)
    return held


def _weigh(
    tx: Transaction,
    claim: Claim,
    active: Sequence[Limit],
    known: tuple[str, ...],
    *,
    now: int,
) -> Answer:
    for limit in active:
        refusal = _refusal(claim, limit)
        if refusal is not None:
            return Answer(False, known, ((limit.name, limit.slot_limit),), refusal)
    full: list[Limit] = []
    behind: list[Limit] = []
    for limit in active:
        taken, is_behind = tx.rows("slot_claim.room", limit_id=limit.id, claim_id=claim.id)[0]
        if limit.decays:
            taken = limit.spent(now).slots
        if not has_room(limit.slot_limit, taken, claim.slots):
            full.append(limit)
        elif is_behind and not claim.passes_waiters:
            behind.append(limit)
    for limit in full:
        refusal = _deadlock(tx, claim, limit)
        if refusal is not None:
            return Answer(False, known, ((limit.name, limit.slot_limit),), refusal)
    blocking = tuple((limit.name, limit.slot_limit) for limit in (*full, *behind))
    decays_in = None
    if full and not behind and all(limit.decays for limit in full):
        decays_in = max(_decays_in(limit, claim.slots, now) for limit in full)
    return Answer(not blocking, known, blocking, decays_in=decays_in)


def _refusal(claim: Claim, limit: Limit) -> str | None:
    if claim.slots > limit.slot_limit:
        return (
            f"{claim.slots} slot(s) of the concurrency limit {limit.name!r} were asked for, which "
            f"has {limit.slot_limit}: that would wait for ever; raise the limit or ask for fewer"
        )
    if claim.is_rate and not limit.decays:
        return (
            f"the slots of the concurrency limit {limit.name!r} do not decay, so a rate limit "
            f"would wait for ever; give it a slot_decay_per_second, or use concurrency()"
        )
    return None


def _deadlock(tx: Transaction, claim: Claim, limit: Limit) -> str | None:
    """Why a claim would wait for itself: its callers hold what it asks for."""
    if limit.decays:
        return None
    kept = sum(
        slots
        for claim_id in claim.held_until_served
        for limit_id, state, slots, *_ in tx.rows("slot_claim.of_claim", claim_id=claim_id)
        if limit_id == limit.id and state == "HOLDING"
    )
    if kept + claim.slots <= limit.slot_limit:
        return None
    return (
        f"{claim.slots} slot(s) of the concurrency limit {limit.name!r} were asked for by code "
        f"whose callers hold {kept} of its {limit.slot_limit} and wait for it: that would be a "
        f"deadlock; let only the outer or only the inner one take them, or raise the limit"
    )


def _decays_in(limit: Limit, slots: int, now: int) -> int:
    spent = limit.spent(now)
    return spent.until(limit.slot_limit - slots, limit.slot_decay_per_second, now=now)


def _hold(tx: Transaction, claim: Claim, limit: Limit, *, now: int, lease_now: int) -> None:
    if limit.decays:
        _spend(tx, limit, limit.spent(now).spend(claim.slots), claim_id=claim.id)
    if not claim.is_rate:
        _insert(tx, claim, limit, "HOLDING", now=now, lease_now=lease_now)


def _spend(tx: Transaction, limit: Limit, spent: Spent, *, claim_id: UUID | None) -> None:
    tx.run(
        "concurrency_limit.spend",
        id=limit.id,
        spent=spent.slots,
        spent_at=spent.at,
        claim_id=claim_id,
    )


def _insert(
    tx: Transaction, claim: Claim, limit: Limit, state: str, *, now: int, lease_now: int
) -> None:
    tx.run(
        "slot_claim.insert",
        limit_id=limit.id,
        claim_state=state,
        expires=None if claim.lease is None else lease_now + claim.lease,
        **_fields(claim, now),
    )


def _fields(claim: Claim, now: int) -> dict[str, object]:
    """What a claim says of itself, on whichever limit, as columns."""
    return {
        "claim_id": claim.id,
        "slots": claim.slots,
        "owner_id": claim.owner_id,
        "holder_type": claim.holder_type,
        "holder_id": claim.holder_id,
        "now": now,
        "lease": claim.lease,
    }


def _expire(tx: Transaction, limits: Sequence[Limit], now: int) -> int:
    """Free what hosts held that were not heard of in time; the time by which leases are kept."""
    clock: int = tx.value("concurrency_limit.clock", now=now)
    for limit in limits:
        tx.run("slot_claim.delete_expired", limit_id=limit.id, now=clock)
    return clock


def _lock(tx: Transaction, names: tuple[str, ...]) -> None:
    """Keep other claims off these limits; on SQLite a transaction that writes does that anyway."""
    if tx.dialect == "postgres":
        tx.rows("concurrency_limit.by_names_lock", names=_json(names))


def _by_names(tx: Transaction, names: tuple[str, ...]) -> list[Limit]:
    return [Limit(*row) for row in tx.rows("concurrency_limit.by_names", names=_json(names))]


def _json(names: tuple[str, ...]) -> str:
    return msgspec.json.encode(names).decode()
