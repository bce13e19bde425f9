"""Runs over time: the edges of buckets, what falls into them, and what is summed up."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from embedded_orch import errors, times
from embedded_orch.states import StateType
from embedded_orch.store.run_history import (
    Bucket,
    CalendarStep,
    StateCount,
    calendar_edges,
    run_history,
)
from tests.builders import NOON, SECOND, Builder

MINUTE, HOUR, DAY = 60 * SECOND, 3600 * SECOND, 86_400 * SECOND


def at(text: str, zone: str = "UTC") -> int:
    """Microseconds of a time on the clocks of a zone; the second of two with an asterisk."""
    moment = datetime.fromisoformat(text.rstrip("*")).replace(
        tzinfo=ZoneInfo(zone), fold=1 if text.endswith("*") else 0
    )
    return times.microseconds_from_datetime(moment)


def on_clocks(edges: list[int], zone: str) -> list[str]:
    """Times as the clocks of a zone show them, with the hours that they are ahead of UTC."""
    local = [times.datetime_from_microseconds(edge).astimezone(ZoneInfo(zone)) for edge in edges]
    return [each.strftime("%Y-%m-%d %H:%M %z") for each in local]


# -- edges in a calendar ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "start", "end", "step", "expected"),
    [
        pytest.param(
            "UTC",
            "2023-01-31 06:00",
            "2023-05-01 00:00",
            CalendarStep(months=1),
            [
                "2023-01-31 06:00 +0000",
                "2023-02-28 06:00 +0000",
                "2023-03-31 06:00 +0000",
                "2023-04-30 06:00 +0000",
                "2023-05-31 06:00 +0000",
            ],
            id="a month that is too short ends early, and the next is whole again",
        ),
        pytest.param(
            "UTC",
            "2024-01-31 00:00",
            "2024-03-01 00:00",
            CalendarStep(months=1),
            ["2024-01-31 00:00 +0000", "2024-02-29 00:00 +0000", "2024-03-31 00:00 +0000"],
            id="a leap year",
        ),
        pytest.param(
            "UTC",
            "2024-02-29 00:00",
            "2028-02-29 00:00",
            CalendarStep(months=24),
            ["2024-02-29 00:00 +0000", "2026-02-28 00:00 +0000", "2028-02-29 00:00 +0000"],
            id="years from a leap day",
        ),
        pytest.param(
            "Europe/Zurich",
            "2026-03-28 00:00",
            "2026-03-31 00:00",
            CalendarStep(days=1),
            [
                "2026-03-28 00:00 +0100",
                "2026-03-29 00:00 +0100",
                "2026-03-30 00:00 +0200",
                "2026-03-31 00:00 +0200",
            ],
            id="a day of 23 hours",
        ),
        pytest.param(
            "Europe/Zurich",
            "2026-10-24 00:00",
            "2026-10-26 12:00",
            CalendarStep(days=1),
            [
                "2026-10-24 00:00 +0200",
                "2026-10-25 00:00 +0200",
                "2026-10-26 00:00 +0100",
                "2026-10-27 00:00 +0100",
            ],
            id="a day of 25 hours",
        ),
        pytest.param(
            "Europe/Zurich",
            "2026-03-28 02:30",
            "2026-03-30 02:30",
            CalendarStep(days=1),
            ["2026-03-28 02:30 +0100", "2026-03-29 03:30 +0200", "2026-03-30 02:30 +0200"],
            id="a time that clocks skip is as much later on that day",
        ),
        pytest.param(
            "Europe/Zurich",
            "2026-10-24 02:30",
            "2026-10-26 02:30",
            CalendarStep(days=1),
            ["2026-10-24 02:30 +0200", "2026-10-25 02:30 +0200", "2026-10-26 02:30 +0100"],
            id="a time that clocks show twice is the first",
        ),
        pytest.param(
            "Europe/Zurich",
            "2026-10-25 02:30*",
            "2026-10-26 02:30",
            CalendarStep(days=1),
            ["2026-10-25 02:30 +0100", "2026-10-26 02:30 +0100"],
            id="a beginning at the second of two stays there",
        ),
        pytest.param(
            "Europe/Zurich",
            "2026-03-23 00:00",
            "2026-04-06 00:00",
            CalendarStep(days=7),
            ["2026-03-23 00:00 +0100", "2026-03-30 00:00 +0200", "2026-04-06 00:00 +0200"],
            id="weeks over a change of clocks",
        ),
        pytest.param(
            "America/New_York",
            "2026-02-08 02:30",
            "2026-04-01 00:00",
            CalendarStep(months=1),
            ["2026-02-08 02:30 -0500", "2026-03-08 03:30 -0400", "2026-04-08 02:30 -0400"],
            id="a month that begins in a gap",
        ),
        pytest.param(
            "Pacific/Apia",
            "2011-12-29 00:00",
            "2012-01-01 00:00",
            CalendarStep(days=1),
            ["2011-12-29 00:00 -1000", "2011-12-31 00:00 +1400", "2012-01-01 00:00 +1400"],
            id="a day that a zone left out is no bucket",
        ),
        pytest.param(
            "Asia/Kathmandu",
            "2026-01-01 00:00",
            "2026-01-02 00:00",
            CalendarStep(days=1),
            ["2026-01-01 00:00 +0545", "2026-01-02 00:00 +0545"],
            id="a zone of quarter hours",
        ),
    ],
)
def test_edges_keep_the_time_of_day_and_the_day_of_the_month(
    zone: str, start: str, end: str, step: CalendarStep, expected: list[str]
) -> None:
    edges = calendar_edges(at(start, zone), end=at(end, zone), step=step, zone=zone)

    assert on_clocks(edges, zone) == expected
    assert edges == sorted(set(edges))


def test_the_first_edge_is_the_start_to_the_microsecond() -> None:
    start = at("2026-01-01 10:20") + 123_456

    edges = calendar_edges(start, end=start + 1, step=CalendarStep(days=1), zone="UTC")

    assert edges == [start, start + DAY]


@pytest.mark.parametrize(
    "step", [{}, {"days": 1, "months": 1}, {"days": -1}, {"days": 2, "months": -1}]
)
def test_a_calendar_step_is_of_days_or_of_months(step: dict[str, int]) -> None:
    with pytest.raises(errors.ConfigurationError, match="days or a number of months"):
        CalendarStep(**step)


@pytest.mark.parametrize("zone", ["Europe/Nowhere", "", "../etc/passwd", "/etc/passwd"])
def test_an_unknown_zone_is_refused(zone: str) -> None:
    with pytest.raises(errors.ConfigurationError, match="IANA"):
        calendar_edges(NOON, end=NOON + DAY, step=CalendarStep(days=1), zone=zone)


def test_the_end_of_the_calendar_is_an_error_of_ours() -> None:
    start, end = at("9999-12-01 00:00"), at("9999-12-31 00:00")

    with pytest.raises(errors.ConfigurationError, match="year 10000"):
        calendar_edges(start, end=end, step=CalendarStep(months=1), zone="UTC")


# -- histories -------------------------------------------------------------------------------------


def history(build: Builder, **arguments: Any) -> list[Bucket]:
    defaults: dict[str, Any] = {
        "start": NOON,
        "end": NOON + 3 * MINUTE,
        "step": MINUTE,
        "now": NOON,
    }
    return build.database.read(lambda tx: run_history(tx, **{**defaults, **arguments}))


def counted(buckets: list[Bucket]) -> list[dict[str, int]]:
    """How many runs of each state name are in each bucket."""
    return [{each.state_name: each.count_runs for each in bucket.states} for bucket in buckets]


def test_empty_buckets_lie_between_the_others(build: Builder) -> None:
    flow_id = build.flow()
    build.runs(flow_id, 2, scheduled_time=NOON)
    build.runs(flow_id, 1, scheduled_time=NOON + 3 * MINUTE - 1)

    buckets = history(build)

    assert [(bucket.start, bucket.end) for bucket in buckets] == [
        (NOON + n * MINUTE, NOON + (n + 1) * MINUTE) for n in range(3)
    ]
    assert counted(buckets) == [{"Scheduled": 2}, {}, {"Scheduled": 1}]
    assert all(isinstance(each.state_type, StateType) for each in buckets[0].states)


def test_a_bucket_has_its_start_and_not_its_end(build: Builder) -> None:
    flow_id = build.flow()
    for offset in (-1, 0, MINUTE - 1, MINUTE, 3 * MINUTE):
        build.runs(flow_id, 1, scheduled_time=NOON + offset)

    assert counted(history(build)) == [{"Scheduled": 2}, {"Scheduled": 1}, {}]


def test_the_last_bucket_is_as_long_as_the_others(build: Builder) -> None:
    build.runs(build.flow(), 1, scheduled_time=NOON + 110 * SECOND)

    buckets = history(build, end=NOON + 90 * SECOND)

    assert [bucket.end - bucket.start for bucket in buckets] == [MINUTE, MINUTE]
    assert counted(buckets) == [{}, {"Scheduled": 1}]


def test_runs_are_counted_by_type_and_name_of_their_state(build: Builder) -> None:
    flow_id = build.flow()
    runs = build.runs(flow_id, 5)
    build.set_state(runs[0], StateType.PENDING)
    build.set_state(runs[1], StateType.SCHEDULED, "Late")
    build.set_state(runs[2], StateType.SCHEDULED, "Late")
    build.set_state(runs[3], StateType.COMPLETED, "Scheduled")

    (bucket,) = history(build, end=NOON + MINUTE)

    assert [(each.state_type, each.state_name, each.count_runs) for each in bucket.states] == [
        (StateType.COMPLETED, "Scheduled", 1),
        (StateType.PENDING, "Pending", 1),
        (StateType.SCHEDULED, "Late", 2),
        (StateType.SCHEDULED, "Scheduled", 1),
    ]


def test_run_time_and_lateness_are_summed_up(build: Builder) -> None:
    """A table of runs due at noon, and what each adds ten minutes later."""
    flow_id = build.flow()

    def run(*states: tuple[StateType, int], due: int = NOON) -> None:
        """A run that enters each state so many minutes after noon."""
        (id,) = build.runs(flow_id, 1, scheduled_time=due)
        for type, minute in states:
            build.set_state(id, type, now=NOON + minute * MINUTE)

    pending, running = StateType.PENDING, StateType.RUNNING
    run()
    run()
    run(due=NOON + 11 * MINUTE)
    run((pending, 1))
    run((pending, 1), (running, 2))
    run((pending, 1), (running, 4))
    run((pending, 1), (running, 2), (StateType.COMPLETED, 5))
    run((pending, 1), (running, 2), (StateType.PAUSED, 3))
    run((StateType.CANCELLED, 3))

    (bucket,) = history(build, end=NOON + MINUTE, step=HOUR, now=NOON + 10 * MINUTE)

    def expected(type: StateType, name: str, runs: int, run_time: int, late: int) -> StateCount:
        return StateCount(type, name, runs, run_time * MINUTE, late * MINUTE)

    assert bucket.states == [
        # Ended before it started: Prefect sets its start to its end.
        expected(StateType.CANCELLED, "Cancelled", 1, 0, 3),
        expected(StateType.COMPLETED, "Completed", 1, 3, 2),
        expected(StateType.PAUSED, "Paused", 1, 1, 2),
        expected(StateType.PENDING, "Pending", 1, 0, 10),
        expected(StateType.RUNNING, "Running", 2, 8 + 6, 2 + 4),
        # One that is due in a minute is not early by a minute: the greatest of that and nothing.
        expected(StateType.SCHEDULED, "Scheduled", 3, 0, 10 + 10 + 0),
    ]


def test_a_run_that_ended_without_a_start_adds_no_lateness(build: Builder) -> None:
    """The greatest of NULL and 0 is 0: SQLite's own max() would make the sum NULL."""
    (run_id,) = build.runs(build.flow(), 1)
    build.set_state(run_id, StateType.CANCELLED)
    opened = build.database.begin()
    opened.script("update flow_run set start_time = null")
    opened.commit()

    (bucket,) = history(build, end=NOON + MINUTE, now=NOON + HOUR)

    assert [each.estimated_lateness for each in bucket.states] == [0]


def test_days_are_those_of_the_zone(build: Builder) -> None:
    flow_id = build.flow()
    for text in ("2026-03-28 23:59", "2026-03-29 00:00", "2026-03-29 23:59", "2026-03-30 00:00"):
        build.runs(flow_id, 1, scheduled_time=at(text, "Europe/Zurich"))

    buckets = history(
        build,
        start=at("2026-03-28 00:00", "Europe/Zurich"),
        end=at("2026-03-31 00:00", "Europe/Zurich"),
        step=CalendarStep(days=1),
        zone="Europe/Zurich",
    )

    assert counted(buckets) == [{"Scheduled": 1}, {"Scheduled": 2}, {"Scheduled": 1}]
    assert [(bucket.end - bucket.start) // HOUR for bucket in buckets] == [24, 23, 24]


def test_months_end_where_they_end(build: Builder) -> None:
    flow_id = build.flow()
    for day in ("01-31", "02-27", "02-28", "03-30", "03-31"):
        build.runs(flow_id, 1, scheduled_time=at(f"2026-{day} 00:00"))

    buckets = history(
        build,
        start=at("2026-01-31 00:00"),
        end=at("2026-04-01 00:00"),
        step=CalendarStep(months=1),
    )

    assert counted(buckets) == [{"Scheduled": 2}, {"Scheduled": 2}, {"Scheduled": 1}]


def test_filters_narrow_what_is_counted(build: Builder) -> None:
    one, two = build.flow("one"), build.flow("two")
    deployment_id = build.process.new_id()
    queue_id = build.pool().default_queue_id
    build.runs(one, 1)
    build.runs(one, 2, deployment_id=deployment_id)
    build.runs(two, 4, work_queue_id=queue_id)

    def total(**filters: list[Any]) -> int:
        (bucket,) = history(build, end=NOON + MINUTE, filters=filters)
        return sum(each.count_runs for each in bucket.states)

    assert {
        "all": total(),
        "flow": total(flow_ids=[one]),
        "deployment": total(deployment_ids=[deployment_id]),
        "queue": total(work_queue_names=["default"]),
        "both": total(flow_ids=[two], deployment_ids=[deployment_id]),
    } == {"all": 7, "flow": 3, "deployment": 2, "queue": 4, "both": 0}


def test_500_buckets_of_a_second_are_the_most(build: Builder) -> None:
    buckets = history(build, step=SECOND, end=NOON + 500 * SECOND)

    assert len(buckets) == 500
    assert buckets[-1].end == NOON + 500 * SECOND


REFUSED: dict[str, dict[str, Any]] = {
    "at least a second": {"step": SECOND - 1},
    "after its start": {"end": NOON},
    "no time zone": {"step": CalendarStep(days=1), "zone": "Mars/Olympus"},
    "500 buckets": {"step": SECOND, "end": NOON + 500 * SECOND + 1},
    "500 buckets at most": {"step": CalendarStep(days=1), "end": NOON + 501 * DAY},
}


def test_what_cannot_be_is_refused(build: Builder) -> None:
    for message, arguments in REFUSED.items():
        with pytest.raises(errors.ConfigurationError, match=message):
            history(build, **arguments)
