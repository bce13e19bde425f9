"""The concurrency limits of a database, to make, change, look at and remove."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from embedded_orch import errors, times
from embedded_orch.db.repeating import yes_once_yes
from embedded_orch.store import limits
from embedded_orch.store.limits import LimitFields

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from uuid import UUID

    from embedded_orch.engine.engine import Engine
    from embedded_orch.store.limits import LimitState
    from embedded_orch.store.slots import Held

_PAGE = 200


class SlotHolder:
    """Who holds slots of a limit, or waits for them, as it was when it was read."""

    __slots__ = ("_row",)

    def __init__(self, row: Held) -> None:
        self._row = row

    @property
    def slots(self) -> int:
        """How many."""
        return self._row.slots

    @property
    def type(self) -> str | None:
        """What they are for: ``task_run``, ``flow_run``, what the caller said, or nothing of it."""
        return self._row.holder_type

    @property
    def id(self) -> UUID | None:
        """Which one."""
        return self._row.holder_id

    @property
    def owner_id(self) -> UUID:
        """The process that has it."""
        return self._row.owner_id

    @property
    def since(self) -> datetime:
        """When it began to hold them, or to wait."""
        return times.datetime_from_microseconds(self._row.since)

    def __repr__(self) -> str:
        return f"<SlotHolder {self.slots} for {self.type} {self.id}>"


class ConcurrencyLimit:
    """A limit, as it was when it was read."""

    __slots__ = ("_state",)

    def __init__(self, state: LimitState) -> None:
        self._state = state

    @property
    def id(self) -> UUID:
        """Its id."""
        return self._state.limit.id

    @property
    def name(self) -> str:
        """By which it is asked for; ``tag:`` and a tag for task runs with that tag."""
        return self._state.limit.name

    @property
    def limit(self) -> int:
        """How many slots it has."""
        return self._state.limit.slot_limit

    @property
    def active(self) -> bool:
        """Whether it limits anything now."""
        return self._state.limit.is_active

    @property
    def slot_decay_per_second(self) -> float:
        """How many slots come back in a second by themselves; 0 where they are given back."""
        return self._state.limit.slot_decay_per_second

    @property
    def active_slots(self) -> int:
        """How many slots are taken."""
        return self._state.taken

    @property
    def holders(self) -> list[SlotHolder]:
        """Who holds slots."""
        return [SlotHolder(row) for row in self._state.claims if row.state == "HOLDING"]

    @property
    def waiting(self) -> list[SlotHolder]:
        """Who waits for slots, in the order in which they are served."""
        return [SlotHolder(row) for row in self._state.claims if row.state == "WAITING"]

    @property
    def created(self) -> datetime:
        """When it was made."""
        return times.datetime_from_microseconds(self._state.limit.created)

    @property
    def updated(self) -> datetime:
        """When it was last changed; taking slots is no change."""
        return times.datetime_from_microseconds(self._state.limit.updated)

    def __repr__(self) -> str:
        return f"<ConcurrencyLimit {self.name}: {self.active_slots} of {self.limit} taken>"


class ConcurrencyLimits:
    """The limits of one database. Any thread may use it.

    A limit whose name is ``tag:`` and a tag is about task runs: each that has the tag holds a slot
    of it while it runs.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(
        self, name: str, limit: int, *, slot_decay_per_second: float = 0.0, active: bool = True
    ) -> ConcurrencyLimit:
        """Make a limit.

        Args:
            name: by which it is asked for; none of ``/ % & < >``.
            limit: how many slots it has.
            slot_decay_per_second: how many come back in a second by themselves, for rate limits;
                0: they are held until they are given back.
            active: whether it limits anything yet.

        Raises:
            ConfigurationError: the name is taken, or a value cannot be.
        """
        id, now = self._engine.process.new_id(), self._engine.process.now()
        fields = _fields(
            slot_limit=limit, slot_decay_per_second=slot_decay_per_second, is_active=active
        )
        return ConcurrencyLimit(
            self._engine.database.write(
                lambda tx: limits.create(tx, id=id, name=name, now=now, **fields)
            )
        )

    def get(self, name: str) -> ConcurrencyLimit:
        """One limit, with who holds its slots and who waits for them.

        Raises:
            LimitNotFound: none has the name.
        """
        now = self._engine.process.now()
        return ConcurrencyLimit(
            self._engine.database.read(lambda tx: limits.get(tx, name=name, now=now))
        )

    def find(self, *, name_like: str | None = None) -> Iterator[ConcurrencyLimit]:
        """The limits, by name, read a page at a time as they are taken.

        Args:
            name_like: only those whose name contains this, in either case of A to Z.
        """
        after = ""
        while True:
            page = self._page(name_like, after)
            yield from page
            if len(page) < _PAGE:
                return
            after = page[-1].name

    def _page(self, name_like: str | None, after: str) -> list[ConcurrencyLimit]:
        now = self._engine.process.now()
        found = self._engine.database.read(
            lambda tx: limits.find(tx, name_like=name_like, after_name=after, limit=_PAGE, now=now)
        )
        return [ConcurrencyLimit(state) for state in found]

    def update(
        self,
        name: str,
        *,
        limit: int | None = None,
        slot_decay_per_second: float | None = None,
        active: bool | None = None,
        new_name: str | None = None,
    ) -> ConcurrencyLimit:
        """Change a limit; what is not given stays as it is.

        Who holds slots keeps them, also when they are more than the limit has now.

        Raises:
            LimitNotFound: none has the name.
            ConfigurationError: a value cannot be.
        """
        given = {
            "slot_limit": limit,
            "slot_decay_per_second": slot_decay_per_second,
            "is_active": active,
            "name": new_name,
        }
        named = _fields(**{key: value for key, value in given.items() if value is not None})
        fields, now = LimitFields(**named), self._engine.process.now()
        state = self._engine.database.write(
            lambda tx: limits.update(tx, name=name, fields=fields, now=now)
        )
        return self._changed(name, state)

    def upsert(
        self, name: str, limit: int, *, slot_decay_per_second: float | None = None
    ) -> ConcurrencyLimit:
        """Make a limit, or change the one that there is.

        Raises:
            ConfigurationError: a value cannot be.
        """
        try:
            return self.update(name, limit=limit, slot_decay_per_second=slot_decay_per_second)
        except errors.LimitNotFound:
            return self.create(name, limit, slot_decay_per_second=slot_decay_per_second or 0.0)

    def reset(self, name: str) -> ConcurrencyLimit:
        """Take its slots from whoever holds them: for holders that are known to be gone.

        Those that are not go on without.

        Raises:
            LimitNotFound: none has the name.
        """
        now = self._engine.process.now()
        state = self._engine.database.write(lambda tx: limits.reset(tx, name=name, now=now))
        return self._changed(name, state)

    def delete(self, name: str) -> bool:
        """Remove a limit: who waits for it goes on; whether there was one."""
        was_there = self._engine.database.write(
            yes_once_yes(lambda tx: limits.delete(tx, name=name))
        )
        self._engine.room.ring([name])
        return was_there

    def _changed(self, name: str, state: LimitState) -> ConcurrencyLimit:
        self._engine.room.ring([name])
        return ConcurrencyLimit(state)

    def __repr__(self) -> str:
        return f"<ConcurrencyLimits of {self._engine.database.url}>"


def _fields(**values: object) -> dict[str, Any]:
    try:
        fields = msgspec.convert(values, LimitFields)
    except msgspec.ValidationError as error:
        raise errors.ConfigurationError(f"a concurrency limit: {error}") from error
    return {name: getattr(fields, name) for name in values}
