"""Single values of the standard library: what each is written as, and made from again.

A tagged value is an object with one key that starts with ``$``: ``{"$decimal": "1.10"}``. Here
are the types that hold no other values; `to_tagged` has a function for each type, `from_payload`
one for each tag. Only exact types are listed: a subclass would come back as its base.

The functions of `from_payload` get what a database file says. They raise ValueError, TypeError,
ArithmeticError, LookupError or OSError if it makes no sense, and `rebuilding` reports that.
"""

from __future__ import annotations

import binascii
import re
import sys
from datetime import date, timedelta, timezone
from decimal import Decimal
from math import copysign
from typing import TYPE_CHECKING, Any
from uuid import UUID

from embedded_orch.values.plain import is_plain_float, is_plain_int

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedded_orch.values.plain import Tree

_MICROSECOND = timedelta(microseconds=1)
#: The names of time zones in use; nothing that could lead out of the folder of time zones.
_ZONE_NAME = re.compile(r"[A-Za-z0-9_+\-]+(/[A-Za-z0-9_+\-]+)*")
#: What unicode_escape writes. It would also read other escapes, with a warning or by name.
_ESCAPED = re.compile(r"(?:[ -\[\]-~]|\\(?:[\\ntr]|x..|u....|U........))*")
_PATH_CLASSES = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")


def _int_to_tagged(value: int) -> Tree:
    return value if is_plain_int(value) else {"$int": hex(value)}


def _float_to_tagged(value: float) -> Tree:
    if is_plain_float(value) and (value or copysign(1.0, value) > 0):
        return value
    return {"$float": repr(value)}


def is_plain_text(text: str) -> bool:
    """Whether JSON and both databases hold a text as it is: no NUL, no half of a surrogate pair."""
    if "\0" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _str_to_tagged(value: str) -> Tree:
    if is_plain_text(value):
        return value
    return {"$str": value.encode("unicode_escape").decode("ascii")}


def _base64(value: bytes | bytearray) -> str:
    return binascii.b2a_base64(value, newline=False).decode("ascii")


def offset_says_all(zone: timezone) -> bool:
    """Whether a time zone has no name of its own beside its offset."""
    return zone.tzname(None) == timezone(zone.utcoffset(None)).tzname(None)


def _timezone_to_tagged(value: timezone) -> Tree:
    microseconds = value.utcoffset(None) // _MICROSECOND
    if offset_says_all(value):
        return {"$timezone": microseconds}
    return {"$timezone": [microseconds, _str_to_tagged(value.tzname(None))]}


to_tagged: dict[type, Callable[[Any], Tree]] = {
    type(None): lambda value: value,
    bool: lambda value: value,
    int: _int_to_tagged,
    float: _float_to_tagged,
    str: _str_to_tagged,
    bytes: lambda value: {"$bytes": _base64(value)},
    bytearray: lambda value: {"$bytearray": _base64(value)},
    complex: lambda value: {"$complex": [repr(value.real), repr(value.imag)]},
    date: lambda value: {"$date": value.isoformat()},
    timedelta: lambda value: {"$timedelta": [value.days, value.seconds, value.microseconds]},
    timezone: _timezone_to_tagged,
    Decimal: lambda value: {"$decimal": str(value)},
    UUID: lambda value: {"$uuid": str(value)},
}


def zone_to_tagged(value: object) -> Tree:
    """Return a ``zoneinfo.ZoneInfo`` as tagged value; None if it is not one that its key names.

    Zones compare by identity, so it has to be the very object that ``ZoneInfo(key)`` returns: one
    from `no_cache` or `from_file` would come back as another.
    """
    from zoneinfo import ZoneInfo  # loaded already: the value is an instance of it

    if type(value) is not ZoneInfo or not value.key or ZoneInfo(value.key) is not value:
        return None
    return {"$zone": value.key}


def path_to_tagged(value: object) -> Tree:
    """Return a path as tagged value; None if its text does not say it whole, or a subclass."""
    import pathlib  # loaded already: the value is an instance of a class there

    cls = type(value)
    if cls.__name__ not in _PATH_CLASSES or getattr(pathlib, cls.__name__) is not cls:
        return None
    path_class: Any = cls
    path = str(value)
    # Not so for PureWindowsPath("./c:d") before Python 3.12, whose text is another path.
    if path_class(path) != value:
        return None
    return {"$path": [cls.__name__, _str_to_tagged(path)]}


def is_zone_class(cls: type) -> bool:
    """Whether this is ``zoneinfo.ZoneInfo``, without importing zoneinfo."""
    return cls is getattr(sys.modules.get("zoneinfo"), "ZoneInfo", None)


def is_path_class(cls: type) -> bool:
    """Whether this is a class of pathlib or a subclass of one, without importing pathlib."""
    pure_path = getattr(sys.modules.get("pathlib"), "PurePath", None)
    return pure_path is not None and issubclass(cls, pure_path)


def text(payload: Tree) -> str:
    """Return a payload that has to be a text.

    Raises:
        TypeError: It is none.
    """
    if not isinstance(payload, str):
        raise TypeError(f"expected a text, found {type(payload).__name__}")
    return payload


def items(payload: Tree, count: int | None = None) -> list[Any]:
    """Return a payload that has to be a list, of `count` items if that is given.

    Raises:
        TypeError: It is none.
        ValueError: It has another number of items.
    """
    if not isinstance(payload, list):
        raise TypeError(f"expected a list, found {type(payload).__name__}")
    found: list[Any] = payload
    if count is not None and len(found) != count:
        raise ValueError(f"expected {count} items, found {len(found)}")
    return found


def mapping(payload: Tree) -> dict[str, Any]:
    """Return a payload that has to be an object.

    Raises:
        TypeError: It is none.
    """
    if not isinstance(payload, dict):
        raise TypeError(f"expected an object, found {type(payload).__name__}")
    found: dict[str, Any] = payload
    return found


def integer(payload: Tree) -> int:
    """Return a payload that has to be an integer.

    Raises:
        TypeError: It is none.
    """
    if type(payload) is not int:
        raise TypeError(f"expected an integer, found {type(payload).__name__}")
    return payload


def _int_from_payload(payload: Tree) -> int:
    return int(text(payload), 16)


def _str_from_payload(payload: Tree) -> str:
    escaped = text(payload)
    if not _ESCAPED.fullmatch(escaped):
        raise ValueError("not as unicode_escape writes it")
    return escaped.encode("ascii").decode("unicode_escape")


def _plain_or_escaped(payload: Tree) -> str:
    """Return a text inside a payload, which is a tagged value itself if it is not plain."""
    if isinstance(payload, dict):
        return _str_from_payload(payload.get("$str"))
    return text(payload)


def _bytes_from_payload(payload: Tree) -> bytes:
    return binascii.a2b_base64(text(payload), strict_mode=True)


def _complex_from_payload(payload: Tree) -> complex:
    real, imaginary = items(payload, 2)
    return complex(float(text(real)), float(text(imaginary)))


def _timedelta_from_payload(payload: Tree) -> timedelta:
    days, seconds, microseconds = map(integer, items(payload, 3))
    return timedelta(days, seconds, microseconds)


def _timezone_from_payload(payload: Tree) -> timezone:
    if isinstance(payload, list):
        microseconds, name = items(payload, 2)
        return timezone(integer(microseconds) * _MICROSECOND, _plain_or_escaped(name))
    return timezone(integer(payload) * _MICROSECOND)


def _zone_from_payload(payload: Tree) -> object:
    from zoneinfo import ZoneInfo

    if not _ZONE_NAME.fullmatch(text(payload)):
        raise ValueError("not the name of a time zone")
    return ZoneInfo(text(payload))


def _path_from_payload(payload: Tree) -> object:
    import pathlib

    name, path = items(payload, 2)
    if name not in _PATH_CLASSES:
        raise ValueError("not a class of paths")
    path_class: Any = getattr(pathlib, name)
    return path_class(_plain_or_escaped(path))


from_payload: dict[str, Callable[[Tree], object]] = {
    "$int": _int_from_payload,
    "$float": lambda payload: float(text(payload)),
    "$str": _str_from_payload,
    "$bytes": _bytes_from_payload,
    "$bytearray": lambda payload: bytearray(_bytes_from_payload(payload)),
    "$complex": _complex_from_payload,
    "$date": lambda payload: date.fromisoformat(text(payload)),
    "$timedelta": _timedelta_from_payload,
    "$timezone": _timezone_from_payload,
    "$zone": _zone_from_payload,
    "$decimal": lambda payload: Decimal(text(payload)),
    "$uuid": lambda payload: UUID(text(payload)),
    "$path": _path_from_payload,
}
