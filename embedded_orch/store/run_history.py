"""How many flow runs there were, bucket by bucket over a span of time, and in which states.

Buckets of a fixed length are made by the engine. Those of a calendar (days, weeks, months) keep
the time of day and the day of the month of their beginning as people read them in their zone, so
their edges are worked out here, by :func:`calendar_edges`, and handed to the engine.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec

from embedded_orch import times
from embedded_orch.errors import ConfigurationError
from embedded_orch.states import StateType
from embedded_orch.store import finding
from embedded_orch.store.transitions import encode_struct

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, tzinfo

    from embedded_orch.db.port import Transaction

MOST_BUCKETS = 500
SHORTEST_STEP = 1_000_000
"""Microseconds."""


class CalendarStep(msgspec.Struct, frozen=True, kw_only=True):
    """A step of whole days or of whole months; a week is seven days.

    Raises:
        ConfigurationError: neither is given, or both are, or one is negative.
    """

    days: int = 0
    months: int = 0

    def __post_init__(self) -> None:
        if min(self.days, self.months) < 0 or (self.days > 0) is (self.months > 0):
            raise ConfigurationError(
                f"a calendar step is a number of days or a number of months, not {self!r}"
            )


class StateCount(msgspec.Struct, frozen=True):
    """The runs of one bucket that are in one state. Durations are microseconds, summed up."""

    state_type: StateType
    state_name: str
    count_runs: int
    estimated_run_time: int
    """With the time that running ones have been running."""
    estimated_lateness: int
    """How long after the expected time they started, or have been waiting."""


class Bucket(msgspec.Struct, frozen=True):
    """A span of time, from its start up to but without its end, and the runs expected in it."""

    start: int
    end: int
    states: list[StateCount]


def run_history(
    tx: Transaction,
    *,
    start: int,
    end: int,
    step: int | CalendarStep,
    now: int,
    zone: str = "UTC",
    filters: Mapping[str, object] = MappingProxyType({}),
) -> list[Bucket]:
    """Count flow runs by the time at which they were expected to start.

    Args:
        tx: a transaction.
        start: where the first bucket begins, in microseconds since 1970 UTC.
        end: buckets begin before this; the last one is as long as the others.
        step: the length of a bucket in microseconds, at least a second, or in the calendar.
        now: microseconds since 1970 UTC, up to which running and waiting runs count.
        zone: whose calendar, by its IANA name, such as ``Europe/Zurich``.
        filters: only runs that fit; see :mod:`embedded_orch.store.finding`.

    Returns:
        All buckets in order of time, also those without a run, 500 at most.

    Raises:
        ConfigurationError: there would be more buckets, or a value cannot be.
    """
    if end <= start:
        raise ConfigurationError("a history ends after its start")
    if isinstance(step, CalendarStep):
        length, edges = None, calendar_edges(start, end=end, step=step, zone=zone)
    else:
        if step < SHORTEST_STEP:
            raise ConfigurationError(f"a step is at least a second, and {step} microseconds is not")
        _check_count(-((start - end) // step))
        length, edges = step, []
    found = finding.conditions(tx, "flow_run", filters)
    is_all = all(value is None for value in found.values())
    rows = tx.rows(
        "flow_run.all_by_bucket" if is_all else "flow_run.by_bucket",
        start=start,
        end=end,
        step=length,
        edges=encode_struct(edges),
        now=now,
        **({} if is_all else found),
    )
    return [Bucket(row[0], row[1], msgspec.convert(row[2], list[StateCount])) for row in rows]


def calendar_edges(start: int, *, end: int, step: CalendarStep, zone: str) -> list[int]:
    """The times at which buckets of a calendar begin, and the one at which the last ends.

    Each edge has the time of day of the first, as clocks in the zone show it. Where clocks skip
    that time it is as much later; where they show it twice it is the first. Months keep the day of
    the first edge as far as they have it: from January 31st they go to February 28th or 29th and
    on to March 31st. A day that a zone left out altogether is no bucket.

    Args:
        start: the first edge, in microseconds since 1970 UTC.
        end: the last edge is the first at or after this.
        step: from edge to edge.
        zone: the IANA name of the zone.

    Raises:
        ConfigurationError: the zone is unknown, or there would be more than 500 buckets.
    """
    first = times.datetime_from_microseconds(start).astimezone(_time_zone(zone))
    edges = [start]
    count = 0
    while edges[-1] < end:
        count += 1
        _check_count(count)
        edge = times.microseconds_from_datetime(_stepped(first, step, count))
        if edge > edges[-1]:
            edges.append(edge)
    return edges


def _stepped(first: datetime, step: CalendarStep, count: int) -> datetime:
    """The time on the clock that is ``count`` steps after ``first``."""
    import calendar
    from datetime import timedelta

    try:
        if step.days:
            return first.replace(fold=0) + timedelta(days=step.days * count)
        year, month = divmod(first.year * 12 + first.month - 1 + step.months * count, 12)
        day = min(first.day, calendar.monthrange(year, month + 1)[1])
        return first.replace(year=year, month=month + 1, day=day, fold=0)
    except (OverflowError, ValueError) as error:
        raise ConfigurationError("a history ends before the year 10000") from error


def _time_zone(name: str) -> tzinfo:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigurationError(
            f"{name!r} is no time zone that is known here; give its IANA name, such as "
            f"Europe/Zurich"
        ) from error


def _check_count(count: int) -> None:
    if count > MOST_BUCKETS:
        raise ConfigurationError(
            f"a history has {MOST_BUCKETS} buckets at most; take a longer step or a shorter span"
        )
