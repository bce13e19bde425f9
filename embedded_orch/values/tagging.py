"""From any value to one that JSON holds: the slow path of encoding, shared with hashing.

`Tagging.tag` returns a tree of None, bool, int, float, str, list and dict with str keys from
which `rebuilding` makes an equal value of the same types. What is plain stays as it is; the rest
becomes an object with one key that starts with ``$`` (see `known_types`). A dict of the user's
that looks like that is written as a list of pairs, and so are dicts whose keys are not plain text.

A value that would not come back raises `Refusal`, which collects the way to it while it leaves
the containers one by one.
"""

from __future__ import annotations

import enum
from collections import Counter, OrderedDict, defaultdict, deque
from datetime import datetime, time, timezone, tzinfo
from typing import TYPE_CHECKING, Any

from embedded_orch.values import classes, known_types, pydantic_types
from embedded_orch.values.plain import MAX_DEPTH, TAG_START, is_plain_int
from embedded_orch.values.rebuilding import FACTORIES, combines_members, rebuild

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from embedded_orch.values.plain import Tree

_TO_TAGGED = known_types.to_tagged

#: A container met twice is written twice. From this many values on, it is remembered what it was
#: turned into, so that a hundred lists that hold each other do not become 2**100 steps.
_REMEMBERED_SIZE = 64
#: What may be written in all, copies of shared containers included.
_MAX_WRITTEN = 100_000_000

# How much of the way to a refused value, and of each key on it, a message shows.
_SHOWN_PIECES = 12
_SHOWN_KEY = 40


class Refusal(Exception):
    """A value that cannot be stored, and where it was found.

    `reason` completes "it cannot be stored: ..."; it is empty if the type is simply not known.
    """

    def __init__(self, value: object, reason: str = "") -> None:
        super().__init__(reason)
        self.type_name = classes.qualified_name(type(value))
        self.reason = reason
        self._pieces: list[str] = []

    def found_in(self, piece: str) -> None:
        """Add one step of the way, from the inside out, as Python would write it."""
        self._pieces.append(piece)

    @property
    def path(self) -> str:
        """The way from the whole value to this one, such as ``['rows'][3].conn``."""
        pieces = self._pieces[::-1]
        if len(pieces) > _SHOWN_PIECES:
            pieces[_SHOWN_PIECES // 2 : -_SHOWN_PIECES // 2] = [" ... "]
        return "".join(pieces)


class Oversized(Refusal):
    """A value in which shared containers are repeated so often that it could not be written."""


class Tagging:
    """Turns values into trees that JSON holds. One is made for each value, and not shared."""

    def __init__(self, to_json: Callable[[object], bytes]) -> None:
        self.to_json = to_json
        self._open: set[int] = set()
        self._shapes: dict[type, classes.Shape | None] = {}
        self._names: dict[type, str | None] = {}
        self._written = 0
        # id: (the container, kept so that its id stays its own, its tree, values in it, depth)
        self._remembered: dict[int, tuple[object, Tree, int, int]] = {}

    def tag(self, value: object) -> Tree:
        """Return the tree of a value.

        Raises:
            Refusal: It cannot be stored.
        """
        single = _TO_TAGGED.get(type(value))
        return self.tag_container(value) if single is None else single(value)

    def tag_container(self, value: object) -> Tree:
        """Return the tree of a value that may hold others, itself among them."""
        key, depth = id(value), len(self._open)
        remembered = self._remembered.get(key)
        if remembered is not None and depth <= remembered[3]:
            self._count(value, remembered[2])
            return remembered[1]
        if key in self._open:
            raise Refusal(value, "it contains itself")
        if depth >= MAX_DEPTH:
            raise Refusal(value, f"it lies deeper than {MAX_DEPTH} levels")
        before = self._written
        self._open.add(key)
        try:
            convert = _CONTAINERS.get(type(value))
            tree = self.other_class(value) if convert is None else convert(self, value)
        finally:
            self._open.discard(key)
        size = self._written - before
        if size >= _REMEMBERED_SIZE:
            self._remembered[key] = (value, tree, size, depth)
        return tree

    def _count(self, value: object, values: int) -> None:
        self._written += values
        if self._written > _MAX_WRITTEN:
            raise Oversized(value, f"with its repetitions it has more than {_MAX_WRITTEN:,} values")

    def items(self, values: Iterable[object]) -> list[Tree]:
        """Return the trees of the items of a sequence."""
        trees: list[Tree] = []
        try:
            for item in values:
                single = _TO_TAGGED.get(type(item))
                trees.append(self.tag_container(item) if single is None else single(item))
        except Refusal as refusal:
            refusal.found_in(f"[{len(trees)}]")
            raise
        self._count(values, len(trees) + 1)
        return trees

    def members(self, values: Iterable[object]) -> list[Tree]:
        """Return the trees of the members of a set, in an order that only they decide."""
        trees: list[Tree] = []
        try:
            for member in values:
                trees.append(self.tag(member))  # noqa: PERF401
        except Refusal as refusal:
            refusal.found_in("{...}")
            raise
        self._count(values, len(trees) + 1)
        return sorted(trees, key=self.to_json)

    def mapping(self, value: dict[Any, object]) -> Tree:
        """Return the tree of a dict: an object if it can be one, else pairs."""
        if can_be_object(value):
            return self.named(value, lambda name: f"[{_shown(name)}]")
        return {"$dict": self.pairs(value)}

    def named(self, values: dict[str, object], piece: Callable[[str], str]) -> dict[str, Tree]:
        """Return the trees of values under their names."""
        trees: dict[str, Tree] = {}
        name = ""
        try:
            for name, value in values.items():
                single = _TO_TAGGED.get(type(value))
                trees[name] = self.tag_container(value) if single is None else single(value)
        except Refusal as refusal:
            refusal.found_in(piece(name))
            raise
        self._count(values, len(trees) + 1)
        return trees

    def pairs(self, value: dict[Any, object]) -> list[Tree]:
        """Return the trees of the keys and values of a dict whose order ``==`` disregards."""
        return self.ordered_pairs(value)

    def ordered_pairs(self, value: dict[Any, object]) -> list[Tree]:
        """Return the trees of the keys and values of a dict, in its order."""
        trees: list[Tree] = []
        key: object = None
        at_key = True
        try:
            for key, item in value.items():
                at_key = True
                pair = [self.tag(key)]
                at_key = False
                pair.append(self.tag(item))
                trees.append(pair)
        except Refusal as refusal:
            refusal.found_in(f".keys()[{len(trees)}]" if at_key else f"[{_shown(key)}]")
            raise
        self._count(value, 2 * len(trees) + 1)
        return trees

    def attribute(self, value: object, name: str) -> Tree:
        """Return the tree of one part of a value that has a name."""
        try:
            return self.tag(value)
        except Refusal as refusal:
            refusal.found_in(f".{name}")
            raise

    def shape(self, cls: type) -> classes.Shape | None:
        """Return what `classes.shape_of` says, asked once for each class."""
        if cls not in self._shapes:
            self._shapes[cls] = classes.shape_of(cls)
        return self._shapes[cls]

    def other_class(self, value: object) -> Tree:
        """Return the tree of a value whose type is not in the table of containers."""
        cls = type(value)
        tree: Tree = None
        if enum.Enum in cls.__mro__:
            member: Any = value
            tree = self.enum_member(member)
        elif (shape := self.shape(cls)) is not None:
            tree = self.record(value, shape)
        elif known_types.is_path_class(cls):
            tree = known_types.path_to_tagged(value)
        elif known_types.is_zone_class(cls):
            tree = known_types.zone_to_tagged(value)
        else:
            tree = pydantic_types.to_tagged(value)
        if tree is None:
            raise Refusal(value)
        return tree

    def enum_member(self, value: enum.Enum) -> Tree:
        """Return the tree of a member of an Enum, or of a combination of flags."""
        cls = type(value)
        if cls not in self._names:
            self._names[cls] = classes.storable_name(cls)
        name = self._names[cls]
        if name is None:
            raise Refusal(value, classes.unnamed(cls))
        if classes.enum_members(cls).get(value._name_) is value:
            return {"$enum": [name, value._name_]}
        if combines_members(cls) and cls(value._value_) is value:
            return {"$flag": [name, self.tag(value._value_)]}
        raise Refusal(value, "it is not one of the members that its class lists")

    def record(self, value: object, shape: classes.Shape) -> Tree:
        """Return the tree of an instance that is stored by its fields."""
        if shape.problem is not None:
            raise Refusal(value, shape.problem)
        fields = classes.read_fields(value, shape)
        unset = classes.unset_field(shape, fields)
        if unset is not None:
            raise Refusal(value, f"its field {unset} is not set")
        extra = classes.extra_attribute(value, shape)
        if extra is not None:
            raise Refusal(value, f"its attribute {extra} is not one of its fields")
        trees = self.named(fields, ".{}".format)
        tree: dict[str, Tree] = {f"${shape.kind}": [shape.name, trees]}
        if shape.checks_equality and not _comes_back_equal(value, tree):
            raise Refusal(value, "its own == says that an instance with the same fields differs")
        return tree


def can_be_object(value: dict[Any, Any]) -> bool:
    """Whether JSON can hold a dict as an object that is not taken for a tag."""
    if not {*map(type, value)} <= {str} or not known_types.is_plain_text("".join(value)):
        return False
    return len(value) != 1 or not next(iter(value)).startswith(TAG_START)


def named_trees(trees: dict[str, Tree]) -> dict[str, Tree]:
    """Return trees under their names as one tree: the object itself, or pairs if it cannot be."""
    if can_be_object(trees):
        return trees
    return {"$dict": [[known_types.to_tagged[str](name), trees[name]] for name in sorted(trees)]}


def _comes_back_equal(value: object, tree: Tree) -> bool:
    try:
        return bool(rebuild(tree) == value)
    except Exception:  # noqa: BLE001 (the user's __eq__, on what a reader would get)
        return False


def _shown(key: object) -> str:
    """Return a key for a message. Only exact types: another __repr__ is the user's code."""
    plain = type(key) in (str, float, bool, type(None))
    if not plain and not (type(key) is int and is_plain_int(key)):
        return f"<{type(key).__qualname__}>"
    shown = repr(key)
    return shown if len(shown) <= _SHOWN_KEY else f"{shown[:_SHOWN_KEY]}..."


def _datetime(tagging: Tagging, value: datetime) -> Tree:
    zone = value.tzinfo
    if value.fold == 0 and _says_all(zone):
        return {"$datetime": value.isoformat()}
    return {"$datetime": [value.isoformat(), tagging.attribute(zone, "tzinfo"), value.fold]}


def _time(tagging: Tagging, value: time) -> Tree:
    zone = value.tzinfo
    if value.fold == 0 and _says_all(zone):
        return {"$time": value.isoformat()}
    return {"$time": [value.isoformat(), tagging.attribute(zone, "tzinfo"), value.fold]}


def _says_all(zone: tzinfo | None) -> bool:
    """Whether the ISO form, which has the offset, says all there is to a time zone."""
    return zone is None or (isinstance(zone, timezone) and known_types.offset_says_all(zone))


def _defaultdict(tagging: Tagging, value: defaultdict[Any, object]) -> Tree:
    factory = value.default_factory
    name = next((name for name, known in FACTORIES.items() if known is factory), None)
    if factory is not None and name is None:
        raise Refusal(value, "its default_factory is a function, and functions are not stored")
    return {"$defaultdict": [name, tagging.pairs(value)]}


_CONTAINERS: dict[type, Callable[[Tagging, Any], Tree]] = {
    list: Tagging.items,
    tuple: lambda tagging, value: {"$tuple": tagging.items(value)},
    set: lambda tagging, value: {"$set": tagging.members(value)},
    frozenset: lambda tagging, value: {"$frozenset": tagging.members(value)},
    deque: lambda tagging, value: {"$deque": [value.maxlen, tagging.items(value)]},
    dict: Tagging.mapping,
    OrderedDict: lambda tagging, value: {"$ordereddict": tagging.ordered_pairs(value)},
    Counter: lambda tagging, value: {"$counter": tagging.pairs(value)},
    defaultdict: _defaultdict,
    range: lambda tagging, value: {"$range": tagging.items((value.start, value.stop, value.step))},
    slice: lambda tagging, value: {"$slice": tagging.items((value.start, value.stop, value.step))},
    datetime: _datetime,
    time: _time,
}
