"""What runs have logged, to read back."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from heapq import merge
from itertools import islice
from typing import TYPE_CHECKING, TypedDict
from uuid import UUID

from embedded_orch import errors, times
from embedded_orch.filters import as_uuid, order
from embedded_orch.searching import parse
from embedded_orch.store.logs import (
    EARLIEST,
    LATEST,
    Lead,
    LogConditions,
    LogRow,
    count_logs,
    find_logs,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Unpack

    from embedded_orch.db.port import Database
    from embedded_orch.filters import Ids
    from embedded_orch.store.logs import Order

_PAGE = 200


class LogSort(StrEnum):
    """Orders of lines; those of one moment in the order in which they were logged."""

    TIMESTAMP_ASC = "TIMESTAMP_ASC"
    TIMESTAMP_DESC = "TIMESTAMP_DESC"


class LogFilters(TypedDict, total=False):
    """What lines are found by. All that are given have to fit; one that is None is none."""

    flow_run_id: Ids | None
    """Of one of these, their task runs' lines among them; not those of flows that they call."""
    task_run_id: Ids | None
    has_task_run: bool | None
    min_level: int | str | None
    """A number or a name of ``logging``; inclusive."""
    max_level: int | str | None
    timestamp_after: datetime | None
    """Inclusive."""
    timestamp_before: datetime | None
    """Inclusive."""
    text: str | None
    """What is in the message or in the name of the logger, whatever the case of ASCII letters:
    ``timeout`` or ``"timed out"``, of several one; ``+must`` and ``-not`` or ``!not``; 200
    characters at most."""


class LogLine:
    """One line that a run logged.

    Attributes:
        id: of the line.
        level: as ``logging`` numbers them.
        name: of the logger.
        message: with its traceback, if it had one.
        flow_run_id: the flow run that logged it, if any.
        task_run_id: the task run that logged it, if any.
    """

    __slots__ = ("_timestamp", "flow_run_id", "id", "level", "message", "name", "task_run_id")

    def __init__(self, row: LogRow) -> None:
        self._timestamp = row.timestamp
        self.id = row.id
        self.level = row.level
        self.name = row.name
        self.message = row.message
        self.flow_run_id = row.flow_run_id
        self.task_run_id = row.task_run_id

    @property
    def timestamp(self) -> datetime:
        """When it was logged, UTC."""
        return times.datetime_from_microseconds(self._timestamp)

    @property
    def level_name(self) -> str:
        """The name of its level."""
        return logging.getLevelName(self.level)

    def __repr__(self) -> str:
        return f"<LogLine {self.timestamp.isoformat()} {self.level_name}: {self.message}>"


class Logs:
    """The lines that runs have logged. Any thread may use it.

    What this process has logged so far is among them.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(
        self,
        *,
        sort: LogSort | str = LogSort.TIMESTAMP_ASC,
        limit: int | None = None,
        **filters: Unpack[LogFilters],
    ) -> Iterator[LogLine]:
        """The lines that fit all filters, read a page at a time as they are taken.

        Args:
            sort: by time, the oldest first when not given.
            limit: how many at most.
            filters: what the lines have to fit.

        Raises:
            UnknownFilter: there is no such filter or order, or it cannot have this value.
        """
        by: Order = "asc" if order("log line", sort, LogSort).endswith("_ASC") else "desc"
        if limit is not None and limit < 0:
            raise errors.UnknownFilter(f"limit={limit}: it is a number of lines, 0 or more")
        leads, conditions = _asked(filters)
        self._hand_over()
        found = merge(
            *(self._pages(lead, conditions, by) for lead in leads),
            key=lambda row: (row.timestamp, row.id),
            reverse=by == "desc",
        )
        return (LogLine(row) for row in islice(found, limit))

    def count(self, **filters: Unpack[LogFilters]) -> int:
        """How many lines fit all filters.

        Raises:
            UnknownFilter: there is no such filter, or it cannot have this value.
        """
        leads, conditions = _asked(filters)
        self._hand_over()
        return self._database.read(
            lambda tx: sum(count_logs(tx, lead, conditions) for lead in leads)
        )

    def _pages(self, lead: Lead, conditions: LogConditions, by: Order) -> Iterator[LogRow]:
        last: LogRow | None = None
        while True:
            page = self._page(lead, conditions, by, last)
            yield from page
            if len(page) < _PAGE:
                return
            last = page[-1]

    def _page(
        self,
        lead: Lead,
        conditions: LogConditions,
        by: Order,
        after: LogRow | None,
    ) -> list[LogRow]:
        return self._database.read(
            lambda tx: find_logs(tx, lead, conditions, order=by, after=after, limit=_PAGE)
        )

    def _hand_over(self) -> None:
        # What is not imported has opened nothing, so that nobody has logged. It stands above this.
        surface = sys.modules.get("embedded_orch.orchestrator")
        if surface is not None:
            surface.registry.hand_over_logs(self._database)

    def __repr__(self) -> str:
        return f"<Logs of {self._database.url}>"


def _asked(filters: LogFilters) -> tuple[list[Lead], LogConditions]:
    """Whose lines are asked for, each a search of its own, and which."""
    given: Mapping[str, object] = dict(filters)
    unknown = sorted(set(given) - set(LogFilters.__annotations__))
    if unknown:
        raise errors.UnknownFilter(
            f"log lines have no filter {', '.join(map(repr, unknown))}; there are "
            f"{', '.join(LogFilters.__annotations__)}"
        )
    flow_runs = _ids("flow_run_id", filters.get("flow_run_id"))
    task_runs = _ids("task_run_id", filters.get("task_run_id"))
    if task_runs is not None:
        leads = [Lead(task_run_id=each, flow_run_ids=flow_runs) for each in task_runs]
    elif flow_runs is not None:
        leads = [Lead(flow_run_id=each) for each in flow_runs]
    else:
        leads = [Lead()]
    search = parse(filters.get("text"))
    return leads, LogConditions(
        since=_moment("timestamp_after", filters.get("timestamp_after"), EARLIEST),
        until=_moment("timestamp_before", filters.get("timestamp_before"), LATEST),
        min_level=_level("min_level", filters.get("min_level")),
        max_level=_level("max_level", filters.get("max_level")),
        has_task_run=_flag("has_task_run", filters.get("has_task_run")),
        any_terms=search.any_of or None,
        all_terms=search.all_of or None,
        no_terms=search.none_of or None,
    )


def _ids(name: str, value: object) -> list[UUID] | None:
    if value is None:
        return None
    several = [value] if isinstance(value, str | UUID) or not isinstance(value, Iterable) else value
    found: list[UUID] = []
    for each in several:
        if not isinstance(each, UUID | str):
            raise errors.UnknownFilter(f"{name}={value!r} is no id, nor a list of ids")
        found.append(as_uuid(each, name.removesuffix("_id").replace("_", " ")))
    # Twice the same one would give its lines twice.
    return list(dict.fromkeys(found))


def _moment(name: str, value: object, otherwise: int) -> int:
    if value is None:
        return otherwise
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise errors.UnknownFilter(
            f"{name}={value!r}: give a datetime with a time zone, such as UTC"
        )
    return times.microseconds_from_datetime(value)


def _level(name: str, value: object) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    levels = logging.getLevelNamesMapping()
    if not isinstance(value, str) or value.upper() not in levels:
        raise errors.UnknownFilter(
            f"{name}={value!r}: it is a number, or one of {', '.join(levels)}"
        )
    return levels[value.upper()]


def _flag(name: str, value: object) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    raise errors.UnknownFilter(f"{name}={value!r}: it is True or False")
