"""From a tree that JSON held back to the value: the counterpart of `tagging`.

What a tree says is not trusted (see `classes`): nothing that it names is imported or called. A
tree that makes no sense raises `MissingResult`, whatever is wrong with it.
"""

from __future__ import annotations

import enum
from collections import Counter, OrderedDict, defaultdict, deque
from datetime import datetime, time, tzinfo
from typing import TYPE_CHECKING, Any

from embedded_orch.errors import MissingResult
from embedded_orch.values import classes, known_types, pydantic_types
from embedded_orch.values.fields import static_attribute
from embedded_orch.values.known_types import integer, items, mapping, text
from embedded_orch.values.plain import TAG_START

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedded_orch.values.plain import Tree

#: What a defaultdict may call for a missing key.
FACTORIES: dict[str, Callable[[], object]] = {
    factory.__name__: factory
    for factory in (list, dict, set, frozenset, tuple, str, bytes, int, float, bool, complex)
}

_CONTAINERS = frozenset({list, dict})


def rebuild(tree: Tree) -> object:
    """Return the value that `Tagging.tag` made this tree from.

    Raises:
        MissingResult: It was not made so, or names a class that is not loaded or has changed.
    """
    try:
        return _Rebuilding().value(tree)
    except MissingResult:
        raise
    except RecursionError:
        raise MissingResult("the stored value is nested too deeply to be read") from None
    except Exception as error:
        # From constructors that were given nonsense, and from __hash__ and __eq__ of the user's
        # classes: instances of them may be members of sets and keys of dicts.
        raise MissingResult(f"the stored value cannot be read: {error}") from error


def combines_members(cls: type) -> bool:
    """Whether a class is a Flag that makes combinations of its members by no code of its own."""
    return (
        issubclass(cls, enum.Flag)
        and type(cls) is enum.EnumMeta
        and static_attribute(cls, "_missing_") is enum.Flag.__dict__["_missing_"]
        and static_attribute(cls, "__new_member__") is None  # the user's own __new__
    )


class _Rebuilding:
    """Makes values from trees. One is made for each tree, and not shared."""

    def __init__(self) -> None:
        self._shapes: dict[str, classes.Shape | None] = {}

    def value(self, tree: Tree) -> Any:
        if isinstance(tree, list):
            return self.items(tree)
        if not isinstance(tree, dict):
            return tree
        if len(tree) == 1:
            [(key, payload)] = tree.items()
            if key.startswith(TAG_START):
                return self._tagged(key, payload)
        return {key: self.value(item) for key, item in tree.items()}

    def items(self, payload: Tree) -> list[Any]:
        found = items(payload)
        if _CONTAINERS.isdisjoint(map(type, found)):
            return found
        return [self.value(item) for item in found]

    def pairs(self, payload: Tree) -> list[tuple[Any, Any]]:
        pairs = (items(pair, 2) for pair in items(payload))
        return [(self.value(key), self.value(item)) for key, item in pairs]

    def _tagged(self, tag: str, payload: Tree) -> object:
        single = _SINGLE_TAGS.get(tag)
        if single is not None:
            return single(payload)
        container = _CONTAINER_TAGS.get(tag)
        if container is not None:
            return container(self, payload)
        if tag in _RECORD_TAGS:
            return self._record(tag.removeprefix(TAG_START), payload)
        raise ValueError(f"no value is known by the tag {tag[:40]!r}; a newer version may know it")

    def _record(self, kind: str, payload: Tree) -> object:
        class_name, trees = items(payload, 2)
        name = text(class_name)
        if name not in self._shapes:
            self._shapes[name] = classes.shape_of(_loaded_class(name))
        shape = self._shapes[name]
        if shape is None or shape.kind != kind:
            raise ValueError(f"{name} is not a class of kind {kind}")
        if shape.problem is not None:
            raise ValueError(f"{name}: {shape.problem}")
        fields = {field: self.value(tree) for field, tree in mapping(trees).items()}
        return classes.build(shape, fields)


def _loaded_class(name: str) -> type:
    cls = classes.find_class(name)
    if cls is None:
        module = name.partition(":")[0]
        raise MissingResult(
            f"the stored value holds an instance of {name[:200]}, and this process has no such "
            f"class: import {module[:200]} before reading the value"
        )
    return cls


def _enum_member(_: _Rebuilding, payload: Tree) -> object:
    class_name, member = items(payload, 2)
    cls = _loaded_class(text(class_name))
    if not issubclass(cls, enum.Enum):
        raise TypeError(f"{class_name} is not an Enum")
    found = classes.enum_members(cls).get(text(member))
    if found is None:
        raise ValueError(f"{class_name} has no member {member} any more")
    return found


def _flags(rebuilding: _Rebuilding, payload: Tree) -> object:
    class_name, value = items(payload, 2)
    cls = _loaded_class(text(class_name))
    if not combines_members(cls):
        raise ValueError(f"{class_name} is not a Flag that combines its members as usual")
    return cls(integer(rebuilding.value(value)))


def _deque(rebuilding: _Rebuilding, payload: Tree) -> deque[Any]:
    maxlen, found = items(payload, 2)
    return deque(rebuilding.items(found), None if maxlen is None else integer(maxlen))


def _defaultdict(rebuilding: _Rebuilding, payload: Tree) -> defaultdict[Any, Any]:
    factory, pairs = items(payload, 2)
    return defaultdict(
        None if factory is None else FACTORIES[text(factory)], rebuilding.pairs(pairs)
    )


def _counter(rebuilding: _Rebuilding, payload: Tree) -> Counter[Any]:
    counter: Counter[Any] = Counter()
    for key, count in rebuilding.pairs(payload):
        counter[key] = count  # its constructor would count the pairs
    return counter


def _range(rebuilding: _Rebuilding, payload: Tree) -> range:
    start, stop, step = map(integer, rebuilding.items(items(payload, 3)))
    return range(start, stop, step)


def _slice(rebuilding: _Rebuilding, payload: Tree) -> object:
    start, stop, step = rebuilding.items(items(payload, 3))
    return slice(start, stop, step)


def _datetime(rebuilding: _Rebuilding, payload: Tree) -> datetime:
    if isinstance(payload, str):
        return datetime.fromisoformat(payload)
    iso, tree, fold = items(payload, 3)
    zone = _zone(rebuilding, tree)
    return datetime.fromisoformat(text(iso)).replace(tzinfo=zone, fold=integer(fold))


def _time(rebuilding: _Rebuilding, payload: Tree) -> time:
    if isinstance(payload, str):
        return time.fromisoformat(payload)
    iso, tree, fold = items(payload, 3)
    zone = _zone(rebuilding, tree)
    return time.fromisoformat(text(iso)).replace(tzinfo=zone, fold=integer(fold))


def _zone(rebuilding: _Rebuilding, tree: Tree) -> tzinfo | None:
    zone = rebuilding.value(tree)
    if zone is not None and not isinstance(zone, tzinfo):
        raise TypeError(f"expected a time zone, found {type(zone).__name__}")
    return zone


_SINGLE_TAGS = {**known_types.from_payload, **pydantic_types.from_payload}
_CONTAINER_TAGS: dict[str, Callable[[_Rebuilding, Tree], object]] = {
    "$tuple": lambda rebuilding, payload: tuple(rebuilding.items(payload)),
    "$set": lambda rebuilding, payload: set(rebuilding.items(payload)),
    "$frozenset": lambda rebuilding, payload: frozenset(rebuilding.items(payload)),
    "$deque": _deque,
    "$dict": lambda rebuilding, payload: dict(rebuilding.pairs(payload)),
    "$ordereddict": lambda rebuilding, payload: OrderedDict(rebuilding.pairs(payload)),
    "$counter": _counter,
    "$defaultdict": _defaultdict,
    "$range": _range,
    "$slice": _slice,
    "$datetime": _datetime,
    "$time": _time,
    "$enum": _enum_member,
    "$flag": _flags,
}
_RECORD_TAGS = frozenset({"$dataclass", "$attrs", "$struct", "$namedtuple", "$pydantic"})
