"""Single values made of others: what pydantic's lax mode makes, written down once.

Each function gets a value that is not of the kind itself, and raises ValueError, TypeError or
ArithmeticError for what it cannot take.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_TRUE = frozenset({"1", "on", "t", "true", "y", "yes"})
_FALSE = frozenset({"0", "off", "f", "false", "n", "no"})
# A larger number of seconds since 1970 is one of milliseconds.
_MOST_SECONDS = 2e10
_UUID_BYTES = 16
# Modules of the standard library whose classes are made from their text.
_TEXT_MODULES = frozenset({"fractions", "ipaddress", "pathlib", "pathlib._local", "zoneinfo"})


def _int(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        return int(value)
    if isinstance(value, (bytes, bytearray)):
        return int(value.decode())
    number = int(value)
    if number != value:
        raise ValueError(value)
    return number


def _float(value: Any) -> float:
    if isinstance(value, float):
        return value
    return float(value.decode() if isinstance(value, (bytes, bytearray)) else value)


def _bool(value: Any) -> bool:
    if isinstance(value, (bytes, bytearray)):
        value = value.decode()
    if isinstance(value, str):
        value = value.lower()
        if value in _TRUE:
            return True
        if value in _FALSE:
            return False
    elif value in (0, 1):
        return bool(value)
    raise ValueError(value)


def _str(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (bytes, bytearray)):
        return value.decode()
    raise TypeError(value)


def _bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    raise TypeError(value)


def _complex(value: Any) -> complex:
    return value if isinstance(value, complex) else complex(value)


def _decimal(value: Any) -> Decimal:
    if isinstance(value, (Decimal, int)):
        return value if isinstance(value, Decimal) else Decimal(value)
    if isinstance(value, (str, float)):
        # The decimal that the float is written as.
        return Decimal(str(value))
    raise TypeError(value)


def _uuid(value: Any) -> UUID:
    if isinstance(value, UUID):
        return value
    if isinstance(value, bytes):
        return UUID(bytes=value) if len(value) == _UUID_BYTES else UUID(value.decode())
    if isinstance(value, str):
        return UUID(value)
    raise TypeError(value)


def _datetime(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return datetime.combine(value, time())
    seconds = _number(value)
    if seconds is None:
        return datetime.fromisoformat(_str(value).strip())
    return datetime.fromtimestamp(seconds if abs(seconds) <= _MOST_SECONDS else seconds / 1000, UTC)


def _date(value: Any) -> date:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    found = _datetime(value)
    if found.time() != time():
        raise ValueError(value)
    return found.date()


def _time(value: Any) -> time:
    if isinstance(value, time):
        return value
    seconds = _number(value)
    if seconds is None:
        return time.fromisoformat(_str(value).strip())
    if not 0 <= seconds < 24 * 3600:
        raise ValueError(value)
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)).time()


def _timedelta(value: Any) -> timedelta:
    if isinstance(value, timedelta):
        return value
    seconds = _number(value)
    if seconds is not None:
        return timedelta(seconds=seconds)
    text = _str(value).strip()
    if "P" in text.upper():
        import msgspec

        return msgspec.convert(text, timedelta)
    return _clock(text)


def _clock(text: str) -> timedelta:
    """``[-][days ]hours:minutes[:seconds]``, as str() of a timedelta writes it too."""
    sign = -1 if text.startswith("-") and "day" not in text else 1
    days, _, clock = text.lstrip("-" if sign < 0 else "").rpartition(" ")
    hours, minutes, *seconds = clock.split(":")
    length = timedelta(
        days=int(days.partition(" ")[0] or 0),
        hours=int(hours),
        minutes=int(minutes),
        seconds=float(seconds[0] if seconds else 0),
    )
    return sign * length


def _number(value: Any) -> float | None:
    """The number that a value is or that its text says; None for any other text."""
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        return float(value)
    try:
        return float(_str(value))
    except ValueError:
        # Another text.
        return None


def _none(value: Any) -> None:
    if value is not None:
        raise TypeError(value)


SCALARS: Mapping[type, Callable[[Any], Any]] = {
    bool: _bool,
    bytes: _bytes,
    complex: _complex,
    date: _date,
    datetime: _datetime,
    Decimal: _decimal,
    float: _float,
    int: _int,
    str: _str,
    time: _time,
    timedelta: _timedelta,
    type(None): _none,
    UUID: _uuid,
}


def from_text(cls: type, value: Any) -> Any:
    """An object of a class that knows how to read its own text, such as a path.

    Raises:
        TypeError: the class is none of those, or the value is no text.
    """
    if cls.__module__ in _TEXT_MODULES and isinstance(value, str):
        return cls(value)
    if cls.__module__ == "re" and cls.__name__ == "Pattern" and isinstance(value, str):
        import re

        return re.compile(value)
    raise TypeError(value)
