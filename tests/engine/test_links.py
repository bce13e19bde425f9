"""Which run made an object: by identity, for as long as somebody has the object."""

from __future__ import annotations

import gc
import weakref
from enum import Enum
from typing import Any
from uuid import UUID

import pytest

from embedded_orch.engine.links import Links

FIRST, SECOND = UUID(int=1), UUID(int=2)


class Thing:
    """Has room for weak references."""


class Colour(Enum):
    RED = "red"


MADE: list[Any] = [
    lambda: [1],
    list,
    lambda: {"a": 1},
    lambda: {1},
    lambda: (1, object()),
    lambda: frozenset([object()]),
    lambda: f"{len(MADE)}/b.csv",
    lambda: bytes([1, 2, 3]),
    lambda: bytearray(b"ab"),
    object,
    Thing,
]


@pytest.mark.parametrize("make", MADE)
def test_object_is_known_and_its_equal_is_not(make: Any) -> None:
    links = Links()
    made, other = make(), make()

    links.note(made, FIRST)

    assert links.run_of(made) == FIRST
    assert links.run_of(other) is None


@pytest.mark.parametrize(
    "value",
    [None, True, 3, 1 << 80, 2.5, ..., "", "a", "name", b"", b"a", (), frozenset(), Colour.RED, int,
     len, test_object_is_known_and_its_equal_is_not, gc],
)  # fmt: skip
def test_what_there_is_one_of_tells_nothing(value: object) -> None:
    links = Links()

    links.note(value, FIRST)

    assert links.run_of(value) is None


def test_items_of_a_collection_are_known_too() -> None:
    links = Links()
    made = [[1], "a b", 7, Thing()]
    by_name = {"part": [2]}

    links.note(made, FIRST)
    links.note(by_name, SECOND)

    assert [links.run_of(item) for item in made] == [FIRST, None, None, FIRST]
    assert links.run_of(by_name["part"]) == SECOND


def test_run_that_made_it_last_is_told() -> None:
    links, made = Links(), [1]

    links.note(made, FIRST)
    links.note(made, SECOND)

    assert links.run_of(made) == SECOND


def test_runs_of_arguments_are_told_by_parameter() -> None:
    links, made = Links(), [1]
    links.note(made, FIRST)

    assert links.runs_of({"a": made, "b": [1], "c": 3}) == {"a": [FIRST]}
    assert Links().runs_of({"a": made}) == {}


def test_object_with_room_for_a_weak_reference_is_not_kept() -> None:
    links, made = Links(), Thing()
    reference = weakref.ref(made)
    links.note(made, FIRST)

    del made
    gc.collect()

    assert reference() is None


def test_object_that_nobody_has_is_let_go_when_others_are_noted() -> None:
    """Seen to fail without the count of references: every result stayed until the run ended."""
    links = Links()
    inside = Thing()
    reference = weakref.ref(inside)
    links.note([inside], FIRST)

    del inside
    for _ in range(3):
        links.note("a b c", SECOND)
    gc.collect()

    assert reference() is None


def test_objects_that_somebody_has_stay_known_however_many_come() -> None:
    links = Links()
    kept = [[number] for number in range(50)]
    for item in kept:
        links.note(item, FIRST)

    for number in range(1000):
        links.note([number], SECOND)

    assert [links.run_of(item) for item in kept] == [FIRST] * 50
    assert len(links._entries) < 100


def test_memory_is_bounded() -> None:
    links = Links()
    kept = [[number] for number in range(12_000)]
    for item in kept:
        links.note(item, FIRST)
    links.note([[number] for number in range(5_000)], SECOND)

    assert len(links._entries) <= 10_000


def test_nothing_is_kept_once_it_is_over() -> None:
    links, made = Links(), [1]
    links.note(made, FIRST)

    links.clear()

    assert links.run_of(made) is None
