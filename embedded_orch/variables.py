"""Variables: named JSON values that runs share, and that people set from outside of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from embedded_orch import errors, times
from embedded_orch.collections import PAGE, Records, some
from embedded_orch.db.repeating import yes_once_yes
from embedded_orch.engine.dispatching import dispatch
from embedded_orch.engine.effects import Read, drive, drive_async
from embedded_orch.engine.fencing import fenced_write
from embedded_orch.filters import VariableFilters, VariableSort, checked, order
from embedded_orch.orchestrator import current_engine
from embedded_orch.store import finding, variables

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Mapping, Sequence
    from datetime import datetime
    from typing import Unpack
    from uuid import UUID

    from embedded_orch.db.port import Transaction
    from embedded_orch.engine.effects import Steps
    from embedded_orch.engine.engine import Engine
    from embedded_orch.store.finding import Cursor
    from embedded_orch.store.variables import VariableRow

T = TypeVar("T")

LONGEST_NAME = 255
LONGEST_VALUE = 5000
"""Characters of a value as JSON."""

_NAME = re.compile(r"[a-z0-9_-]+")


class Variable(Generic[T]):
    """A named value, as Prefect's class of the name: ``Variable.set("limit", 3)``.

    ``get``, ``set`` and ``unset`` return what they say in plain code, and in asynchronous code a
    coroutine; ``aget``, ``aset`` and ``aunset`` always return one.

    Attributes:
        name: of the variable.
        value: str, int, float, bool, None, or a list or dict of such.
        tags: of the variable.
    """

    __slots__ = ("name", "tags", "value")

    def __init__(self, name: str, value: T, tags: Sequence[str] | None = None) -> None:
        self.name = name
        self.value = value
        self.tags = list(tags or ())

    @classmethod
    def get(cls, name: str, default: Any = None, *, _sync: bool | None = None) -> Any:
        """The value of a variable, or ``default`` when there is none."""
        return dispatch(_getting(current_engine(), name, default), is_sync=_sync)

    @classmethod
    def aget(cls, name: str, default: Any = None) -> Coroutine[Any, Any, Any]:
        """:meth:`get` in asynchronous code."""
        return drive_async(_getting(current_engine(), name, default))

    @classmethod
    def set(
        cls,
        name: str,
        value: Any,
        tags: Sequence[str] | None = None,
        overwrite: bool = False,
        *,
        _sync: bool | None = None,
    ) -> Any:
        """Make a variable, or change the one there is.

        Args:
            name: up to 255 of the letters a to z, digits, ``_`` and ``-``.
            value: what JSON can hold, up to 5,000 characters of it.
            tags: of the variable; those that it had are gone.
            overwrite: whether there may be one.

        Returns:
            The variable as it is now.

        Raises:
            ConfigurationError: a ValueError: there is one already, or the name or the value
                cannot be.
        """
        return dispatch(_setting(current_engine(), name, value, tags, overwrite), is_sync=_sync)

    @classmethod
    def aset(
        cls, name: str, value: Any, tags: Sequence[str] | None = None, overwrite: bool = False
    ) -> Coroutine[Any, Any, Variable[Any]]:
        """:meth:`set` in asynchronous code."""
        return drive_async(_setting(current_engine(), name, value, tags, overwrite))

    @classmethod
    def unset(cls, name: str, *, _sync: bool | None = None) -> Any:
        """Remove a variable; whether there was one."""
        return dispatch(_unsetting(current_engine(), name), is_sync=_sync)

    @classmethod
    def aunset(cls, name: str) -> Coroutine[Any, Any, bool]:
        """:meth:`unset` in asynchronous code."""
        return drive_async(_unsetting(current_engine(), name))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Variable):
            return NotImplemented
        return (self.name, self.value, self.tags) == (other.name, other.value, other.tags)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Variable(name={self.name!r}, value={self.value!r}, tags={self.tags!r})"


class VariableRecord(Variable[Any]):
    """A variable as it was when it was read, with its id and times."""

    __slots__ = ("created", "id", "updated")

    def __init__(self, row: VariableRow) -> None:
        super().__init__(row.name, row.value, row.tags)
        self.id: UUID = row.id
        self.created: datetime = times.datetime_from_microseconds(row.created)
        self.updated: datetime = times.datetime_from_microseconds(row.updated)


class Variables(Records[VariableRecord]):
    """The variables of one database."""

    _what: ClassVar[str] = "variable"

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine.database)
        self._engine = engine

    def get(self, id: UUID | str) -> VariableRecord:
        """One of them, by its name or its id.

        Raises:
            RunNotFound: none has it.
        """
        if isinstance(id, str):
            row = self._database.read(lambda tx: variables.get_variable(tx, name=id))
            if row is not None:
                return VariableRecord(row)
        return super().get(id)

    def set(
        self, name: str, value: Any, tags: Sequence[str] | None = None, overwrite: bool = False
    ) -> Variable[Any]:
        """Make a variable, or change the one there is; see :meth:`Variable.set`."""
        return drive(_setting(self._engine, name, value, tags, overwrite))

    def unset(self, name: str) -> bool:
        """Remove a variable; whether there was one."""
        return drive(_unsetting(self._engine, name))

    def find(
        self,
        *,
        sort: VariableSort | str = VariableSort.NAME_ASC,
        limit: int | None = None,
        **filters: Unpack[VariableFilters],
    ) -> Iterator[VariableRecord]:
        """The variables that fit all filters, read a page at a time as they are taken.

        Args:
            sort: the order; by name when not given.
            limit: how many at most.
            filters: what the variables have to fit.

        Raises:
            UnknownFilter: there is no such filter or order, or it cannot have this value.
        """
        by = order(self._what, sort, VariableSort)
        return some(self._pages(self._checked(filters), by), limit)

    def count(self, **filters: Unpack[VariableFilters]) -> int:
        """How many variables fit all filters.

        Raises:
            UnknownFilter: there is no such filter, or it cannot have this value.
        """
        found = self._checked(filters)
        return self._database.read(lambda tx: finding.count(tx, "variable", found))

    def _checked(self, filters: VariableFilters) -> Mapping[str, object]:
        return checked(self._what, dict(filters), VariableFilters.__annotations__)

    def _get(self, tx: Transaction, ids: Sequence[UUID]) -> list[VariableRecord]:
        return [VariableRecord(row) for row in variables.get_variables(tx, ids)]

    def _find(
        self, tx: Transaction, filters: Mapping[str, object], sort: str, after: Cursor | None
    ) -> tuple[list[UUID], Cursor | None]:
        by = finding.NEWEST_FIRST if sort == VariableSort.CREATED_DESC else sort
        return finding.find_ids(tx, "variable", filters, order=by, after=after, limit=PAGE)


def _getting(engine: Engine, name: str, default: Any) -> Steps[Any]:
    row: VariableRow | None = yield Read(
        engine.database, lambda tx: variables.get_variable(tx, name=name)
    )
    return default if row is None else row.value


def _setting(
    engine: Engine, name: str, value: Any, tags: Sequence[str] | None, overwrite: bool
) -> Steps[Variable[Any]]:
    from embedded_orch.engine.checking import tags_of

    _check_name(name)
    encoded, listed = _encoded(name, value), tags_of(tags or ())
    id, now = engine.process.new_id(), engine.process.now()
    row: VariableRow = yield fenced_write(
        engine.database,
        lambda tx: variables.set_variable(
            tx, id=id, name=name, value=encoded, tags=listed, overwrite=overwrite, now=now
        ),
    )
    return VariableRecord(row)


def _unsetting(engine: Engine, name: str) -> Steps[bool]:
    was_there: bool = yield fenced_write(
        engine.database, yes_once_yes(lambda tx: variables.delete_variable(tx, name=name))
    )
    return was_there


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        raise errors.ConfigurationError(
            f"{name!r} cannot be the name of a variable: give it up to {LONGEST_NAME} of the "
            f"letters a to z, digits, _ and -"
        )


def _encoded(name: str, value: object) -> str:
    """A value as JSON text that gives the same value back."""
    import msgspec

    try:
        text = msgspec.json.encode(value)
        is_kept = _is_plain(value) and msgspec.json.decode(text) == value
    except (TypeError, ValueError, RecursionError) as error:
        raise errors.ConfigurationError(f"variable {name!r}: JSON cannot hold its value") from error
    if not is_kept:
        raise errors.ConfigurationError(
            f"variable {name!r}: its value would not come back from JSON as it is; give it texts, "
            f"numbers, True, False, None, and lists and dicts of them"
        )
    if len(text.decode()) > LONGEST_VALUE:
        raise errors.ConfigurationError(
            f"variable {name!r}: its value is {len(text.decode())} characters of JSON long, and "
            f"{LONGEST_VALUE} are allowed; keep it in a file and its path in the variable"
        )
    return text.decode()


def _is_plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or type(value) in (str, int, float, bool)
