"""Converters: functions that return a value, or what it was converted to, or raise Mismatch.

They are made by :mod:`embedded_orch.engine.conversion` from annotations.
"""

from __future__ import annotations

import collections
import collections.abc
import types
import typing
from typing import Any, ClassVar, Union

from embedded_orch.engine.scalars import SCALARS, from_text

if typing.TYPE_CHECKING:
    import enum
    from collections.abc import Callable, Iterable, Mapping

    Convert = Callable[[Any], Any]

UNIONS: tuple[Any, ...] = (Union, types.UnionType)
SEQUENCES: tuple[Any, ...] = (list, tuple, set, frozenset, collections.deque)
_TEXTS = (str, bytes, bytearray, memoryview)
_BOUNDS = ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "pattern")
_LONGEST = 80


class Mismatch(Exception):
    """A value that is not, and cannot become, what an annotation asks for.

    Attributes:
        path: where in the parameter, such as ``[3].name``.
        why: what was wanted and what came.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.path = ""
        self.why = why

    def inside(self, place: str) -> Mismatch:
        """The same, of something that holds the value at ``place``."""
        self.path = place + self.path
        return self


def unfit(wanted: str, value: object) -> Mismatch:
    """The mismatch of a value with what was wanted."""
    return Mismatch(f"wanted {wanted}, got {_shown(value)} ({type(value).__qualname__})")


def said(annotation: Any) -> str:
    """An annotation as people write it."""
    if annotation is None or annotation is type(None):
        return "None"
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__qualname__
    if typing.get_origin(annotation) in UNIONS:
        return " | ".join(map(said, typing.get_args(annotation)))
    return str(annotation).replace("typing.", "").replace("collections.abc.", "")


def scalar(kind: type) -> Convert:
    """A value of one of the kinds in SCALARS."""
    make = SCALARS[kind]

    def convert(value: Any) -> Any:
        if type(value) is kind:
            return value
        try:
            return make(value)
        except (ValueError, TypeError, ArithmeticError):
            raise unfit(kind.__name__, value) from None

    convert.exact = kind  # type: ignore[attr-defined]
    return convert


def instance(cls: Any) -> Convert | None:
    """An object of a class that nothing else is known of; None where that cannot be asked."""
    if getattr(cls, "_is_protocol", False) and not getattr(cls, "_is_runtime_protocol", False):
        return None

    def convert(value: Any) -> Any:
        try:
            if isinstance(value, cls):
                return value
        except TypeError:
            # A class that cannot be asked.
            return value
        try:
            return from_text(cls, value)
        except (ValueError, TypeError, LookupError):
            raise unfit(said(cls), value) from None

    return convert


def subclass(cls: Any) -> Convert:
    """A class that is, or is made of, another one."""

    def convert(value: Any) -> Any:
        if isinstance(value, type) and (not isinstance(cls, type) or issubclass(value, cls)):
            return value
        raise unfit(f"type[{said(cls)}]", value)

    return convert


def literal(values: tuple[Any, ...]) -> Convert:
    """One of these values, of the same type."""

    def convert(value: Any) -> Any:
        for each in values:
            if type(each) is type(value) and each == value:
                return value
        raise unfit(" or ".join(map(repr, values)), value)

    return convert


def enumeration(cls: type[enum.Enum]) -> Convert:
    """A member of an enum, by its value."""
    kinds = {type(member.value) for member in cls}

    def convert(value: Any) -> Any:
        if isinstance(value, cls):
            return value
        try:
            return cls(value)
        except ValueError:
            pass
        for kind in kinds & SCALARS.keys():
            try:
                return cls(SCALARS[kind](value))
            except (ValueError, TypeError, ArithmeticError):
                # Another kind of value, or none of them.
                continue
        values = " or ".join(repr(member.value) for member in cls)
        raise unfit(f"{cls.__qualname__} ({values})", value)

    return convert


def elements(kind: Any, convert_one: Convert | None, wanted: str) -> Convert:
    """A list, tuple, set, frozenset or deque, made from any iterable but a text or a mapping."""
    exact = getattr(convert_one, "exact", None)

    def convert(value: Any) -> Any:
        if not isinstance(value, kind):
            if not is_iterable(value):
                raise unfit(wanted, value)
            value = kind(value)
        if convert_one is None or (exact is not None and set(map(type, value)) <= {exact}):
            return value
        new = [at(f"[{n}]", convert_one, item) for n, item in enumerate(value)]
        return value if are_same(new, value) else kind(new)

    return convert


def collection(kind: Any, convert_one: Convert | None, wanted: str) -> Convert:
    """Sequence, Collection and their like: of what can be made anew, the elements are looked at."""

    def convert(value: Any) -> Any:
        if isinstance(value, str) or not isinstance(value, kind):
            raise unfit(wanted, value)
        if convert_one is None or type(value) not in SEQUENCES:
            return value
        new = [at(f"[{n}]", convert_one, item) for n, item in enumerate(value)]
        return value if are_same(new, value) else type(value)(new)

    return convert


def mapping(
    kind: Any, convert_key: Convert | None, convert_value: Convert | None, wanted: str
) -> Convert:
    """A dict, or another mapping as it is, unless a key or value has to be converted."""
    make = kind if kind in (dict, collections.OrderedDict) else dict

    def convert(value: Any) -> Any:
        if not isinstance(value, kind):
            if not isinstance(value, collections.abc.Mapping) or make is not kind:
                raise unfit(wanted, value)
            value = make(value)
        if convert_key is None and convert_value is None:
            return value
        keys = [at(f"[{key!r}]", convert_key, key) for key in value]
        items = [at(f"[{key!r}]", convert_value, item) for key, item in value.items()]
        if are_same(keys, value) and are_same(items, value.values()):
            return value
        return make(zip(keys, items, strict=True))

    return convert


def union(members: list[Convert], wanted: str) -> Convert:
    """The first of several that the value is already, or else that takes it."""

    def convert(value: Any) -> Any:
        found: list[Any] = []
        mismatches: list[Mismatch] = []
        for each in members:
            try:
                converted = each(value)
            except Mismatch as mismatch:
                # Another member may take it.
                mismatches.append(mismatch)
                continue
            if converted is value:
                return value
            found.append(converted)
        if found:
            return found[0]
        # What was meant is the member that the value could almost become.
        raise next((each for each in mismatches if each.path), unfit(wanted, value))

    return convert


def fixed_tuple(members: list[Convert | None], wanted: str) -> Convert:
    """A tuple with a converter for each place."""

    def convert(value: Any) -> Any:
        items = tuple(value) if is_iterable(value) else ()
        if len(items) != len(members):
            raise unfit(wanted, value)
        new = [at(f"[{n}]", each, items[n]) for n, each in enumerate(members)]
        if isinstance(value, tuple) and are_same(new, value):
            return value
        return tuple(new)

    return convert


def constrained(convert_one: Convert | None, marks: Iterable[Any]) -> Convert | None:
    """What an ``Annotated`` asks for besides the type."""
    bounds = bounds_in(marks)
    if not bounds:
        return convert_one

    def convert(value: Any) -> Any:
        new = value if convert_one is None else convert_one(value)
        if new is not None:
            for name, limit in bounds.items():
                _Bounds.check(name, limit, new)
        return new

    return convert


class _Bounds:
    """What a bound asks of a value, and how that is said."""

    _SAID: ClassVar[Mapping[str, str]] = {
        "gt": "more than {}",
        "ge": "at least {}",
        "lt": "less than {}",
        "le": "at most {}",
        "multiple_of": "a multiple of {}",
        "min_length": "at least {} long",
        "max_length": "at most {} long",
        "pattern": "a text like {!r}",
    }

    @classmethod
    def check(cls, name: str, limit: Any, value: Any) -> None:
        """Raise the mismatch of a value that is out of a bound."""
        try:
            fits = cls._fits(name, limit, value)
        except TypeError:
            fits = False
        if not fits:
            raise unfit(cls._SAID[name].format(limit), value)

    @staticmethod
    def _fits(name: str, limit: Any, value: Any) -> bool:
        import operator
        import re

        if name in ("gt", "ge", "lt", "le"):
            return bool(getattr(operator, name)(value, limit))
        if name == "multiple_of":
            return bool(value % limit == 0)
        if name == "pattern":
            return re.search(limit, value) is not None
        return bool(len(value) >= limit if name == "min_length" else len(value) <= limit)


def bounds_in(marks: Iterable[Any]) -> dict[str, Any]:
    """The bounds that msgspec.Meta and the objects of annotated_types give, which name them alike.

    Args:
        marks: what an ``Annotated`` says besides the type.
    """
    return {
        name: getattr(mark, name)
        for mark in marks
        for name in _BOUNDS
        if not isinstance(mark, type) and getattr(mark, name, None) is not None
    }


def at(place: str, convert: Convert | None, value: Any) -> Any:
    """A part of a value, converted; a mismatch says that it is at ``place``."""
    if convert is None:
        return value
    try:
        return convert(value)
    except Mismatch as mismatch:
        raise mismatch.inside(place) from mismatch.__cause__


def is_iterable(value: Any) -> bool:
    """Whether a collection can be made of it: neither a text nor a mapping."""
    return isinstance(value, collections.abc.Iterable) and not isinstance(
        value, (*_TEXTS, collections.abc.Mapping)
    )


def are_same(new: Iterable[object], old: Iterable[object]) -> bool:
    """Whether nothing was converted."""
    return all(a is b for a, b in zip(new, old, strict=True))


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001 - the __repr__ of a user's class
        return f"<its text could not be made: {type(error).__name__}>"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
