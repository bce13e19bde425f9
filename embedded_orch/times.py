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


_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def duration_from_text(text: str) -> timedelta:
    """A duration as people write it: a number and one of s, m, h, d and w, as in ``30d``.

    Raises:
        ConfigurationError: it is none, or longer than a duration can be.
    """
    number, unit = text[:-1].strip(), text[-1:].lower()
    if unit in _SECONDS and number.replace(".", "", 1).isdecimal():
        try:
            return timedelta(seconds=float(number) * _SECONDS[unit])
        except OverflowError:
            # The message below says what is allowed.
            number = ""
    raise ConfigurationError(
        f"{text!r} is no duration; it is a number of s, m, h, d or w, such as 30d"
    )
