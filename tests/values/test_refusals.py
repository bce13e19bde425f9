"""What would not come back equal and of its type is refused, with the place and the reason."""

from __future__ import annotations

import collections
import datetime as dt
import re
import sys
import zoneinfo
from collections.abc import Callable
from dataclasses import dataclass, make_dataclass
from typing import Any

import pytest

from embedded_orch.errors import ValueNotStorable
from embedded_orch.values import Secret, decode, encode
from embedded_orch.values.plain import MAX_DEPTH
from tests.values.builders import as_module, nested
from tests.values.refused import (
    ByIdentity,
    Connection,
    Moment,
    NamedWithState,
    OnException,
    OnList,
    OnSlotted,
    OtherZone,
    StructByIdentity,
    StructWithPostInit,
    Text,
)
from tests.values.samples import Pair, Point


def with_extra(value: Any) -> Any:
    object.__setattr__(value, "cache", 1)
    return value


def without_field(value: Any) -> Any:
    object.__delattr__(value, "x")
    return value


def property_field() -> object:
    @dataclass
    class Sized:
        size: int = 1

    Sized.size = property(lambda _: 1)  # type: ignore[assignment]
    sys.modules[__name__].__dict__["Sized"] = Sized
    Sized.__qualname__ = "Sized"
    return object.__new__(Sized)


def local_class() -> object:
    @dataclass
    class Local:
        x: int

    return Local(1)


def itself() -> object:
    value: list[Any] = [1]
    value.append({"again": (value,)})
    return value


def doubling(levels: int) -> object:
    value: object = ["x"]
    for _ in range(levels):
        value = [value, value]
    return value


REFUSED: list[tuple[Callable[[], object], str]] = [
    (object, "result is of type object, which would not come back"),
    (lambda: {"rows": [1, 2, 3, Point(Connection())]}, "result['rows'][3].x is of type"),
    (lambda: [(1, {2: Connection()})], "result[0][1][2] is of type"),
    (lambda: {"a": {(1, Connection()): 1}}, "result['a'].keys()[0][1] is of type"),
    (lambda: [{1, Connection()}], "result[0]{...} is of type"),
    (lambda: {Connection(): 1}, "result.keys()[0] is of type"),
    (lambda: {"k" * 99: Connection()}, f"result['{'k' * 39}...] is of type"),
    (lambda: {Pair(1): object()}, "result[<Pair>] is of type object"),
    (lambda: {10**5000: object()}, "result[<int>] is of type object"),
    (lambda: {1: object()}, "result[1] is of type object"),
    (lambda: dt.datetime(2024, 1, 1, tzinfo=OtherZone()), "result.tzinfo is of type"),
    (lambda: zoneinfo.ZoneInfo.no_cache("UTC"), "would not come back"),
    (lambda: Secret("x"), "result is of type embedded_orch.values.secret:Secret"),
    (lambda: len, "builtin_function_or_method"),
    (lambda: [print, lambda: 1], "result[0] is of type builtin_function_or_method"),
    (lambda: ValueError("x"), "ValueError"),
    (lambda: Point, "result is of type type"),
    (lambda: iter([]), "list_iterator"),
    (lambda: memoryview(b""), "memoryview"),
    (lambda: Text("x"), "Text, which would not come back"),
    (lambda: Moment(2024, 1, 1), "Moment, which would not come back"),
    (lambda: type("Sub", (dict,), {})(a=1), "Sub, which would not come back"),
    (lambda: collections.defaultdict(lambda: 1), "its default_factory is a function"),
    (lambda: collections.UserDict(a=1), "UserDict, which would not come back"),
    (lambda: ByIdentity(1), "compares by identity"),
    (lambda: StructByIdentity(1), "compares by identity"),
    (lambda: StructWithPostInit(1), "a Struct with __post_init__ cannot be made without"),
    (property_field, "its field size is a property"),
    (lambda: OnList(1), "built on list, which keeps a state of its own"),
    (lambda: OnException(1), "built on Exception"),
    (lambda: with_extra(Point(1)), "its attribute cache is not one of its fields"),
    (lambda: with_extra(OnSlotted(1)), "its attribute cache is not one of its fields"),
    (lambda: with_extra(NamedWithState(1)), "its attribute cache is not one of its fields"),
    (lambda: tuple.__new__(Pair, (1, 2, 3)), "its attribute [2] is not one of its fields"),
    (lambda: tuple.__new__(Pair, (1,)), "its field right is not set"),
    (lambda: without_field(Point(1)), "its field x is not set"),
    (local_class, "defined inside a function"),
    (itself, "result[1]['again'][0] is of type list, which cannot be stored: it contains itself"),
    (lambda: nested(MAX_DEPTH + 1), f"it lies deeper than {MAX_DEPTH} levels"),
    (lambda: nested(5000, ()), f"it lies deeper than {MAX_DEPTH} levels"),
    (lambda: doubling(60), "with its repetitions"),
]


@pytest.mark.parametrize(("make", "said"), REFUSED, ids=[said[:60] for _, said in REFUSED])
def test_what_would_not_come_back_is_refused_with_place_and_reason(
    make: Callable[[], object], said: str
) -> None:
    with pytest.raises(ValueNotStorable, match=re.escape(said)) as caught:
        encode(make(), advice='Use result_serializer="pickle".')

    assert str(caught.value).endswith('. Use result_serializer="pickle".')


def test_a_class_replaced_under_its_name_is_refused() -> None:
    with as_module("shop", Order=make_dataclass("Order", ["number"])) as shop:
        old = shop.Order(1)
    with (
        as_module("shop", Order=make_dataclass("Order", ["number"])),
        pytest.raises(ValueNotStorable, match="not what shop:Order names"),
    ):
        encode(old)


def test_values_as_deep_as_allowed_come_back() -> None:
    for value in (nested(MAX_DEPTH), nested(MAX_DEPTH - 1, ()), nested(MAX_DEPTH - 1, {1: 2})):
        assert decode(encode(value)) == value


def test_deep_records_come_back() -> None:
    value = Point(None)
    for _ in range(MAX_DEPTH - 1):
        value = Point(value)

    assert decode(encode(value)) == value


def test_lists_met_twice_come_back_as_two() -> None:
    shared = [1, 2]

    read = decode(encode({"a": [shared, shared], "b": (shared,)}))

    assert read == {"a": [[1, 2], [1, 2]], "b": ([1, 2],)}


def test_a_list_shared_at_many_depths_is_written_each_time() -> None:
    shared = list(range(100))
    value: list[object] = [(), shared]
    for _ in range(10):
        value = [shared, value, shared]

    assert decode(encode(value)) == value


def test_too_little_stack_is_said_and_not_mistaken_for_depth() -> None:
    said: list[str] = []
    deep: object = ()
    for _ in range(MAX_DEPTH - 1):
        deep = (deep,)

    def descend() -> None:
        try:
            descend()
        except RecursionError:
            try:
                encode(deep)
            except ValueNotStorable as error:
                said.append(str(error))
            raise

    with pytest.raises(RecursionError):
        descend()

    assert any("too little is left of Python's stack" in text for text in said)


def test_a_dict_that_changes_meanwhile_is_refused() -> None:
    value: dict[object, object] = {}

    @dataclass
    class Growing:
        def __eq__(self, other: object) -> bool:
            value[len(value)] = None
            return True

        __hash__ = None  # type: ignore[assignment]

    value[0] = (Growing(),)
    with (
        as_module("shop", Growing=Growing),
        pytest.raises(ValueNotStorable, match="another thread changes it meanwhile"),
    ):
        encode(value)
