"""Classes whose instances are stored, values of every kind, and a comparison that sees all."""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import enum
import functools
import math
import pathlib
import zoneinfo
from dataclasses import InitVar, dataclass, field
from typing import Any, Generic, NamedTuple, TypedDict, TypeVar

import msgspec
from hypothesis import strategies as st

T = TypeVar("T")


class Colour(enum.Enum):
    RED = 1
    BLUE = "blue"
    ALSO_RED = 1  # noqa: PIE796 (an alias)


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Word(str, enum.Enum):  # noqa: UP042 (as people wrote it before StrEnum)
    YES = "yes"


class Access(enum.Flag):
    READ = 1
    WRITE = 2
    RUN = 4


class Bits(enum.IntFlag):
    ONE = 1
    TWO = 2


@dataclass
class Point:
    x: Any
    y: Any = 0


@dataclass(frozen=True, slots=True)
class Frozen:
    name: Any
    parts: Any = ()


@dataclass
class Derived(Point):
    """Runs code in __init__, has a field that is not set there, and one that == disregards."""

    total: Any = field(init=False)
    never: Any = field(init=False, repr=False)
    note: Any = field(default="", compare=False)
    scale: InitVar[int] = 1

    def __post_init__(self, scale: int) -> None:
        self.total = scale


@dataclass
class Box(Generic[T]):
    content: T


@dataclass
class Circle:
    radius: float

    @functools.cached_property
    def area(self) -> float:
        return math.pi * self.radius**2


class Pair(NamedTuple):
    left: Any
    right: Any = None


Plain = collections.namedtuple("Plain", ["a", "b"])  # noqa: PYI024 (the other way to make one)


class Item(msgspec.Struct):
    name: Any
    count: Any = 0
    tags: list[Any] = []


class FrozenItem(msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag="item"):
    item_name: Any


class Row(TypedDict):
    id: int


class Outer:
    @dataclass
    class Inner:
        x: Any


def fields_of(value: object) -> dict[str, object]:
    """Every attribute that an instance has, in its dict or in slots."""
    found = dict(getattr(value, "__dict__", {}))
    for base in type(value).__mro__:
        for name, attribute in vars(base).items():
            if type(attribute).__name__ == "member_descriptor" and hasattr(value, name):
                found[name] = getattr(value, name)
    found.pop("__orig_class__", None)
    return found


def is_same(one: Any, other: Any) -> bool:  # noqa: PLR0911, C901 (one line for each kind)
    """Whether no program could tell two values apart, but for their identity."""
    if type(one) is not type(other):
        return False
    if isinstance(one, enum.Enum) or one is None:
        return one is other
    if isinstance(one, float):
        return repr(one) == repr(other)
    if isinstance(one, complex):
        return is_same([one.real, one.imag], [other.real, other.imag])
    if isinstance(one, decimal.Decimal):
        return one.as_tuple() == other.as_tuple()
    if isinstance(one, (dt.datetime, dt.time)):
        return repr(one) == repr(other) and one.tzname() == other.tzname()
    if isinstance(one, (set, frozenset)):
        return len(one) == len(other) and all(any(is_same(a, b) for b in other) for a in one)
    if isinstance(one, dict):
        factories = getattr(one, "default_factory", 0), getattr(other, "default_factory", 0)
        return factories[0] is factories[1] and is_same([*one.items()], [*other.items()])
    if isinstance(one, (list, tuple, collections.deque)):
        if getattr(one, "maxlen", None) != getattr(other, "maxlen", None):
            return False
        return len(one) == len(other) and all(map(is_same, one, other))
    if isinstance(one, (range, slice)):
        return (one.start, one.stop, one.step) == (other.start, other.stop, other.step)
    if hasattr(type(one), "__match_args__"):  # dataclasses, attrs classes, Structs
        ours, theirs = fields_of(one), fields_of(other)
        return ours.keys() == theirs.keys() and all(is_same(ours[k], theirs[k]) for k in ours)
    return bool(one == other)


# -- Strategies ------------------------------------------------------------------------------------

_ZONES = [zoneinfo.ZoneInfo(key) for key in ("Europe/Berlin", "America/St_Johns", "UTC")]

zones = st.one_of(
    st.none(),
    st.sampled_from(_ZONES),
    st.builds(
        dt.timezone,
        st.timedeltas(dt.timedelta(hours=-23), dt.timedelta(hours=23)),
    ),
    st.builds(
        dt.timezone,
        st.timedeltas(dt.timedelta(hours=-23), dt.timedelta(hours=23)),
        st.text(max_size=3),
    ),
)

# NUL, lone surrogates and text that looks like our own tags or escapes included.
texts = st.one_of(
    st.text(st.characters(), max_size=8),
    st.text(st.sampled_from('$\0\\u0\ud800\udfff"{a'), max_size=6),
    st.sampled_from(["$tuple", "$dict", "\\u0000", '{"$', ""]),
)

numbers = st.one_of(
    st.booleans(),
    st.integers(),
    st.sampled_from([2**63, 2**64, -(2**63) - 1]),
    st.sampled_from([308, 309, 4299, 4300, 5001]).map(lambda exponent: -(10**exponent)),
    st.floats(),
    st.sampled_from([-0.0, 1e16, 9007199254740993.0, 9999999999999998.0, -1e16, 5e-324, 1e-7]),
)

hashable_leaves = st.one_of(
    st.none(),
    numbers,
    texts,
    st.binary(max_size=8),
    st.complex_numbers(),
    st.decimals(),
    st.uuids(),
    st.dates(),
    st.timedeltas(),
    st.datetimes(timezones=zones, allow_imaginary=True),
    st.times(timezones=zones),
    st.sampled_from([pathlib.PurePosixPath, pathlib.PureWindowsPath, pathlib.Path]).flatmap(
        lambda path: st.builds(path, st.sampled_from([".", "/", "/a/b c", "../x", "é", "\udcff"]))
    ),
    st.sampled_from([*Colour, *Level, *Word, Access.READ, Access.READ | Access.RUN, Access(0)]),
    st.sampled_from([Bits.ONE, Bits.ONE | Bits.TWO, Bits(64)]),
    st.builds(range, st.integers(), st.integers(), st.integers(1, 9)),
)

# Signalling NaNs cannot be hashed, and NaNs are members of a set as often as they are put in.
members = hashable_leaves.filter(
    lambda value: isinstance(value, int) or "nan" not in repr(value).lower()
)
hashables = st.recursive(
    members,
    lambda inner: st.one_of(
        st.tuples(inner, inner),
        st.frozensets(inner, max_size=3),
        st.builds(Pair, inner, inner),
        st.builds(Frozen, inner, inner),
    ),
    max_leaves=4,
)

leaves = st.one_of(
    hashable_leaves,
    st.builds(bytearray, st.binary(max_size=8)),
    st.builds(slice, st.integers(), st.none(), st.integers()),
    zones,
)


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.lists(inner, max_size=4)
    by_text = st.dictionaries(texts, inner, max_size=3)
    by_any = st.dictionaries(hashables, inner, max_size=3)
    return st.one_of(
        lists,
        lists.map(tuple),
        st.sets(hashables, max_size=4),
        st.frozensets(hashables, max_size=4),
        by_text,
        by_any,
        by_any.map(collections.OrderedDict),
        by_text.map(lambda found: collections.defaultdict(list, found)),
        st.dictionaries(hashables, st.integers(), max_size=3).map(collections.Counter),
        st.builds(collections.deque, lists, st.one_of(st.none(), st.integers(4, 9))),
        st.builds(Point, inner, inner),
        st.builds(Derived, inner, note=inner, scale=inner),
        st.builds(Box[int], inner),
        st.builds(Pair, inner, inner),
        st.builds(Plain, inner, inner),
        st.builds(Item, inner, inner, lists),
        st.builds(FrozenItem, item_name=inner),
        st.builds(Outer.Inner, inner),
    )


values = st.recursive(leaves, _containers, max_leaves=12)

plain_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), texts, st.floats()),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=15,
)
