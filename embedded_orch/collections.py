"""The flows and runs of a database, to get, find and count."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar
from uuid import UUID

from embedded_orch import errors
from embedded_orch.runs import FlowRecord, FlowRun, TaskRun
from embedded_orch.states import StateType
from embedded_orch.store import flow_runs, flows, task_runs
from embedded_orch.store.flow_runs import NEWEST

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from embedded_orch.db.port import Database, Transaction

    Filters = Mapping[str, object]

_PAGE = 200

RecordT = TypeVar("RecordT", FlowRecord, FlowRun, TaskRun)


class Records(Generic[RecordT]):
    """What the collections have in common. Any thread may use it."""

    _what: ClassVar[str] = "record"
    _filters: ClassVar[tuple[str, ...]] = ()

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, id: UUID | str) -> RecordT:
        """One run.

        Raises:
            RunNotFound: no run has this id.
        """
        run_id = as_uuid(id, self._what)
        found = self._database.read(lambda tx: self._get(tx, [run_id]))
        if not found:
            raise errors.RunNotFound(f"no {self._what} has the id {id} in {self._database.url}")
        return found[0]

    def find(self, **filters: object) -> Iterator[RecordT]:
        """The runs that fit all filters, newest first, read a page at a time as they are taken.

        A filter that is None is none.

        Raises:
            UnknownFilter: there is no such filter, or it cannot have this value.
        """
        return self._pages(self._checked(filters))

    def count(self, **filters: object) -> int:
        """How many runs fit all filters.

        Raises:
            UnknownFilter: there is no such filter, or it cannot have this value.
        """
        checked = self._checked(filters)
        return self._database.read(lambda tx: self._count(tx, checked))

    def _pages(self, filters: Filters) -> Iterator[RecordT]:
        page = self._page(filters, NEWEST)
        while True:
            yield from page
            if len(page) < _PAGE:
                return
            page = self._page(filters, page[-1].id)

    def _page(self, filters: Filters, before: UUID) -> list[RecordT]:
        return self._database.read(lambda tx: self._find(tx, filters, before=before))

    def _checked(self, filters: Filters) -> Filters:
        unknown = sorted(set(filters) - set(self._filters))
        if unknown:
            raise errors.UnknownFilter(
                f"{self._what}s have no filter {', '.join(map(repr, unknown))}; there are "
                f"{', '.join(self._filters)}"
            )
        return {name: _value(name, value) for name, value in filters.items() if value is not None}

    def _get(self, tx: Transaction, ids: Sequence[UUID]) -> list[RecordT]:
        raise TypeError("a collection says how its runs are read")

    def _find(self, tx: Transaction, filters: Filters, *, before: UUID) -> list[RecordT]:
        raise TypeError("a collection says how its runs are found")

    def _count(self, tx: Transaction, filters: Filters) -> int:
        raise TypeError("a collection says how its runs are counted")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._database.url}>"


class Flows(Records[FlowRecord]):
    """Flows; filter ``name``."""

    _what: ClassVar[str] = "flow"
    _filters: ClassVar[tuple[str, ...]] = ("name",)

    def _get(self, tx: Transaction, ids: Sequence[UUID]) -> list[FlowRecord]:
        return [FlowRecord(row) for row in flows.get_flows(tx, ids)]

    def _find(self, tx: Transaction, filters: Filters, *, before: UUID) -> list[FlowRecord]:
        rows = flows.find_flows(tx, filters, before=before, limit=_PAGE)
        return [FlowRecord(row) for row in rows]

    def _count(self, tx: Transaction, filters: Filters) -> int:
        return flows.count_flows(tx, filters)


class FlowRuns(Records[FlowRun]):
    """Flow runs; filters ``flow_name, name, state_type, state_name, tags`` (it has all of them)."""

    _what: ClassVar[str] = "flow run"
    _filters: ClassVar[tuple[str, ...]] = ("flow_name", "name", "state_type", "state_name", "tags")

    def _get(self, tx: Transaction, ids: Sequence[UUID]) -> list[FlowRun]:
        return [FlowRun(self._database, row) for row in flow_runs.get_flow_runs(tx, ids)]

    def _find(self, tx: Transaction, filters: Filters, *, before: UUID) -> list[FlowRun]:
        rows = flow_runs.find_flow_runs(tx, filters, before=before, limit=_PAGE)
        return [FlowRun(self._database, row) for row in rows]

    def _count(self, tx: Transaction, filters: Filters) -> int:
        return flow_runs.count_flow_runs(tx, filters)


class TaskRuns(Records[TaskRun]):
    """Task runs; filters ``flow_run_id, name, task_key, state_type, state_name``."""

    _what: ClassVar[str] = "task run"
    _filters: ClassVar[tuple[str, ...]] = (
        "flow_run_id",
        "name",
        "task_key",
        "state_type",
        "state_name",
    )

    def _get(self, tx: Transaction, ids: Sequence[UUID]) -> list[TaskRun]:
        return [TaskRun(self._database, row) for row in task_runs.get_task_runs(tx, ids)]

    def _find(self, tx: Transaction, filters: Filters, *, before: UUID) -> list[TaskRun]:
        rows = task_runs.find_task_runs(tx, filters, before=before, limit=_PAGE)
        return [TaskRun(self._database, row) for row in rows]

    def _count(self, tx: Transaction, filters: Filters) -> int:
        return task_runs.count_task_runs(tx, filters)


def as_uuid(value: UUID | str, what: str) -> UUID:
    """An id, from itself or from its text.

    Raises:
        RunNotFound: it is no id, so nothing has it.
    """
    if isinstance(value, UUID):
        return value
    try:
        return UUID(value)
    except (ValueError, AttributeError, TypeError) as error:
        raise errors.RunNotFound(f"{value!r} is no id of a {what}") from error


def _value(name: str, value: object) -> object:
    """The value of a filter as its statement wants it."""
    if name == "state_type":
        try:
            return StateType(str(value)).value
        except ValueError as error:
            raise errors.UnknownFilter(
                f"state_type={value!r} is unknown; there are {', '.join(StateType)}"
            ) from error
    if name == "tags":
        tags = [value] if isinstance(value, str) else value
        if not isinstance(tags, list | tuple | set | frozenset) or not all(
            isinstance(tag, str) for tag in tags
        ):
            raise errors.UnknownFilter(f"tags={value!r}: give a tag or a list of tags")
        return sorted(tags)
    if name == "flow_run_id":
        if not isinstance(value, UUID | str):
            raise errors.UnknownFilter(f"flow_run_id={value!r} is no id")
        return as_uuid(value, "flow run")
    if not isinstance(value, str):
        raise errors.UnknownFilter(f"{name}={value!r} is no text")
    return value
