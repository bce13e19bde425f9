"""Times between people and databases: aware datetimes here, microseconds there."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from embedded_orch.errors import ConfigurationError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def datetime_from_microseconds(microseconds: int) -> datetime:
    """An aware datetime in UTC, exact."""
    return _EPOCH + timedelta(microseconds=microseconds)


def optional_datetime(microseconds: int | None) -> datetime | None:
    """The same for a time that may be missing."""
    return None if microseconds is None else datetime_from_microseconds(microseconds)


def microseconds_from_datetime(moment: datetime) -> int:
    """Microseconds since 1970-01-01 UTC, exact.

    Raises:
        ConfigurationError: the datetime has no time zone, so it names no moment.
    """
    if moment.tzinfo is None:
        raise ConfigurationError(f"{moment!r} has no time zone; give it one, such as UTC")
    return (moment - _EPOCH) // _MICROSECOND


def microseconds(duration: timedelta) -> int:
    """A duration as a number of microseconds, exact."""
    return duration // _MICROSECOND


def duration(microseconds: int) -> timedelta:
    """A number of microseconds as a duration."""
    return timedelta(microseconds=microseconds)
