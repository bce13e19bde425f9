"""The walk through arguments: what is found, what is replaced, and what is left alone."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, namedtuple
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar
from unittest.mock import Mock

import attrs
import msgspec
import pytest

from embedded_orch.annotations import allow_failure, opaque, quote, unmapped
from embedded_orch.engine.walking import Stop, Walk


class Leaf:
    """What the walks below replace, by its name."""

    def __init__(self, name: str = "leaf") -> None:
        self.name = name


def named(value: Any, _: object) -> Any:
    return value.name if isinstance(value, Leaf) else value


def replaced(value: Any) -> Any:
    return Walk(named)(value)


@dataclass
class Plain:
    item: Any
    kept: ClassVar[str] = "of the class"
    made: list[int] = field(default_factory=list, init=False)


@dataclass(frozen=True, slots=True)
class Frozen:
    item: Any


@attrs.frozen
class Attrs:
    item: Any


class Struct(msgspec.Struct, frozen=True):
    item: Any


Pair = namedtuple("Pair", ["item", "other"])  # noqa: PYI024 - its class is what is tested


class Items(list[Any]):
    """A list of a class of the user's."""


def in_default_dict(leaf: Any) -> defaultdict[str, Any]:
    return defaultdict(list, a=leaf)


WRAPS: list[Any] = [
    lambda leaf: [leaf],
    lambda leaf: (leaf, 1),
    lambda leaf: {leaf},
    lambda leaf: frozenset([leaf]),
    lambda leaf: {"a": leaf},
    lambda leaf: {leaf: "a"},
    lambda leaf: OrderedDict(a=1, b=leaf),
    in_default_dict,
    lambda leaf: Items([leaf]),
    lambda leaf: Pair(leaf, 2),
    Plain,
    Frozen,
    Attrs,
    Struct,
    lambda leaf: {"list": [(leaf, {3: Plain([leaf])})]},
]


@pytest.mark.parametrize("wrap", WRAPS)
def test_leaf_is_replaced_wherever_it_is_and_its_holder_keeps_its_type(wrap: Any) -> None:
    holder = wrap(Leaf())

    found = replaced(holder)

    assert found == wrap("leaf")
    assert type(found) is type(holder)
    assert found is not holder


@pytest.mark.parametrize("wrap", WRAPS)
def test_what_holds_no_leaf_is_not_copied(wrap: Any) -> None:
    holder = wrap("leaf")

    assert replaced(holder) is holder


def test_default_of_a_dict_and_counts_are_kept() -> None:
    found = replaced(in_default_dict(Leaf()))

    assert found["missing"] == []
    assert replaced(Counter({Leaf("x"): 2})) == Counter({"x": 2})


def test_pydantic_model_keeps_its_type_and_is_not_validated() -> None:
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Model", item=(Any, ...), others=(list[Any], []))
    given = model(item=Leaf(), others=[Leaf("b")])

    found = replaced(given)

    assert type(found) is model
    assert (found.item, found.others) == ("leaf", ["b"])
    assert isinstance(given.item, Leaf)
    unchanged = model(item=1)
    assert replaced(unchanged) is unchanged


def test_what_holds_itself_is_walked_through_once() -> None:
    around: list[Any] = [Leaf()]
    around.append(around)

    assert replaced(around)[0] == "leaf"


def test_deep_copy_of_what_is_met_twice_is_one() -> None:
    twice = [Leaf()]

    first, second = replaced([twice, twice])

    assert first is second


@pytest.mark.parametrize("value", [Mock(), object(), Leaf, Plain, iter([1]), range(3)])
def test_what_has_no_items_is_left_as_it_is(value: Any) -> None:
    assert replaced(value) is value


def test_generator_is_not_used_up() -> None:
    def numbers() -> Iterator[int]:
        yield 1

    given = numbers()

    assert replaced({"a": [given]})["a"][0] is given
    assert list(given) == [1]


def test_visit_may_stop_the_walk() -> None:
    def stop_at_dicts(value: Any, annotation: object) -> Any:
        if isinstance(value, dict):
            raise Stop
        return named(value, annotation)

    leaf = Leaf()

    assert Walk(stop_at_dicts)([leaf, {"a": leaf}]) == ["leaf", {"a": leaf}]


# -- annotations ---------------------------------------------------------------------------------


def test_annotations_are_taken_off() -> None:
    assert replaced([unmapped([Leaf()]), allow_failure(Leaf()), 3]) == [["leaf"], "leaf", 3]


def test_what_is_quoted_is_not_looked_into() -> None:
    leaf, inside = Leaf(), [Leaf()]

    assert replaced([quote(leaf), quote(inside)]) == [leaf, inside]


def test_what_is_opaque_is_looked_at_and_not_into() -> None:
    inside = [Leaf()]

    assert replaced([opaque(Leaf()), opaque(inside)]) == ["leaf", inside]


def test_visit_is_told_the_innermost_annotation() -> None:
    seen: list[Any] = []

    def note(value: Any, annotation: Any) -> Any:
        if isinstance(value, Leaf):
            seen.append((value.name, type(annotation).__name__))
        return value

    Walk(note)([Leaf("a"), allow_failure([Leaf("b"), unmapped(Leaf("c"))])])

    assert seen == [("a", "NoneType"), ("b", "allow_failure"), ("c", "unmapped")]


def test_value_that_stands_with_and_without_an_annotation_is_visited_for_both() -> None:
    seen: list[str] = []

    def note(value: Any, annotation: Any) -> Any:
        if isinstance(value, Leaf):
            seen.append(type(annotation).__name__)
        return value

    leaf = Leaf()
    Walk(note)([leaf, allow_failure(leaf), leaf])

    assert seen == ["NoneType", "allow_failure"]


@pytest.mark.parametrize("mark", [unmapped, allow_failure, quote, opaque])
def test_annotation_unwraps_and_wraps_again(mark: Any) -> None:
    marked = mark([1])

    assert (marked.value, marked.unwrap()) == ([1], [1])
    assert marked.rewrap([2]) == mark([2])
    assert marked != mark([2])
    assert marked != [1]
    assert repr(marked) == f"{mark.__name__}([1])"
    assert hash(mark(1)) == hash(mark(1))


def test_quoted_value_is_unquoted() -> None:
    assert quote([1]).unquote() == [1]
