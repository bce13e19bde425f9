"""Values as bytes and back: equal and of the same type, or refused; and hostile bytes."""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import importlib.util
import json
import math
import pathlib
import re
import subprocess
import sys
import threading
import types
import uuid
import zoneinfo
from collections.abc import Callable
from dataclasses import dataclass, field, make_dataclass
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import example, given, settings

from embedded_orch.errors import MissingResult, ValueNotStorable
from embedded_orch.values import (
    Secret,
    decode,
    decode_parsed,
    encode,
    encode_parameters,
    preview,
)
from embedded_orch.values.codec import to_json
from embedded_orch.values.plain import MAX_DEPTH, plain_json
from embedded_orch.values.tagging import Tagging
from tests.values import samples
from tests.values.samples import (
    Access,
    Bits,
    Box,
    Circle,
    Colour,
    Derived,
    Frozen,
    FrozenItem,
    Item,
    Level,
    Outer,
    Pair,
    Plain,
    Point,
    Row,
    Word,
    is_same,
)

HERE = "tests.values.samples"
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")

no_deadline = settings(deadline=None, database=None, max_examples=300)
# Hypothesis writes down the strategy of a set whenever a member comes twice.
large_repr = pytest.mark.filterwarnings("ignore:Generating overly large repr")

# Stored once, these texts are read by every later version, on every Python.
GOLDEN: list[tuple[object, str]] = [
    (None, "null"),
    (True, "true"),
    (0, "0"),
    (-(2**70), "-1180591620717411303424"),
    (-(10**308), f"-1{'0' * 308}"),
    (10**309, f'{{"$int":"{10**309:#x}"}}'),
    (1.0, "1.0"),
    (0.1, "0.1"),
    (9999999999999998.0, "9999999999999998.0"),
    (1e16, '{"$float":"1e+16"}'),
    (-1.5e300, '{"$float":"-1.5e+300"}'),
    (-0.0, '{"$float":"-0.0"}'),
    (math.nan, '{"$float":"nan"}'),
    (-math.inf, '{"$float":"-inf"}'),
    ("é\n\x7f", '"é\\n\x7f"'),
    ("\\u0000", '"\\\\u0000"'),
    ("a\0é", '{"$str":"a\\\\x00\\\\xe9"}'),
    ("\ud83d\ude00", '{"$str":"\\\\ud83d\\\\ude00"}'),
    ("$tuple", '"$tuple"'),
    ([1, [None, "x"]], '[1,[null,"x"]]'),
    ([0.0, -0.0], '[0.0,{"$float":"-0.0"}]'),
    ({"b": 1, "a": {"c": []}}, '{"b":1,"a":{"c":[]}}'),
    ({"$tuple": [1]}, '{"$dict":[["$tuple",[1]]]}'),
    ({"$tuple": [1], "x": 1}, '{"$tuple":[1],"x":1}'),
    ({"a\0": 1}, '{"$dict":[[{"$str":"a\\\\x00"},1]]}'),
    ({2: "b", True: "a"}, '{"$dict":[[2,"b"],[true,"a"]]}'),
    ({(1, 2): None}, '{"$dict":[[{"$tuple":[1,2]},null]]}'),
    ((1, ()), '{"$tuple":[1,{"$tuple":[]}]}'),
    ({3, 1, 2}, '{"$set":[1,2,3]}'),
    (frozenset({"b", "a", 1}), '{"$frozenset":["a","b",1]}'),
    (b"\0\xff", '{"$bytes":"AP8="}'),
    (bytearray(b"ab"), '{"$bytearray":"YWI="}'),
    (complex(-0.0, math.inf), '{"$complex":["-0.0","inf"]}'),
    (range(1, 9, 2), '{"$range":[1,9,2]}'),
    (slice(None, 3), '{"$slice":[null,3,null]}'),
    (collections.OrderedDict(b=1, a=2), '{"$ordereddict":[["b",1],["a",2]]}'),
    (collections.Counter("aba"), '{"$counter":[["a",2],["b",1]]}'),
    (collections.defaultdict(list, a=[1]), '{"$defaultdict":["list",[["a",[1]]]]}'),
    (collections.defaultdict(None, {1: 2}), '{"$defaultdict":[null,[[1,2]]]}'),
    (collections.deque([1, 2], 5), '{"$deque":[5,[1,2]]}'),
    (dt.date(2024, 2, 29), '{"$date":"2024-02-29"}'),
    (dt.datetime(1, 1, 1, 0, 0, 0, 7), '{"$datetime":"0001-01-01T00:00:00.000007"}'),
    (
        dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC),
        '{"$datetime":"2024-05-01T12:00:00+00:00"}',
    ),
    (
        dt.datetime(2024, 5, 1, 12, tzinfo=dt.timezone(dt.timedelta(hours=-3, seconds=5))),
        '{"$datetime":"2024-05-01T12:00:00-02:59:55"}',
    ),
    (
        dt.datetime(2024, 5, 1, 12, tzinfo=dt.timezone(dt.timedelta(hours=1), "CET")),
        '{"$datetime":["2024-05-01T12:00:00+01:00",{"$timezone":[3600000000,"CET"]},0]}',
    ),
    (
        dt.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN, fold=1),
        '{"$datetime":["2024-10-27T02:30:00+01:00",{"$zone":"Europe/Berlin"},1]}',
    ),
    (dt.datetime(2024, 5, 1, fold=1), '{"$datetime":["2024-05-01T00:00:00",null,1]}'),
    (dt.time(23, 59, tzinfo=dt.UTC), '{"$time":"23:59:00+00:00"}'),
    (dt.time(1, 2, 3, tzinfo=BERLIN), '{"$time":["01:02:03",{"$zone":"Europe/Berlin"},0]}'),
    (dt.timedelta(-1, 5, 6), '{"$timedelta":[-1,5,6]}'),
    (dt.timezone(dt.timedelta(minutes=-90)), '{"$timezone":-5400000000}'),
    (BERLIN, '{"$zone":"Europe/Berlin"}'),
    (decimal.Decimal("-1.10E+5"), '{"$decimal":"-1.10E+5"}'),
    (decimal.Decimal("sNaN12"), '{"$decimal":"sNaN12"}'),
    (uuid.UUID(int=7), '{"$uuid":"00000000-0000-0000-0000-000000000007"}'),
    (pathlib.PurePosixPath("/a/b"), '{"$path":["PurePosixPath","/a/b"]}'),
    (pathlib.PureWindowsPath("c:/x"), '{"$path":["PureWindowsPath","c:\\\\x"]}'),
    (Colour.ALSO_RED, f'{{"$enum":["{HERE}:Colour","RED"]}}'),
    (Level.HIGH, f'{{"$enum":["{HERE}:Level","HIGH"]}}'),
    (Word.YES, f'{{"$enum":["{HERE}:Word","YES"]}}'),
    (Access.READ | Access.RUN, f'{{"$flag":["{HERE}:Access",5]}}'),
    (Bits(64), f'{{"$flag":["{HERE}:Bits",64]}}'),
    (Point(1, (2,)), f'{{"$dataclass":["{HERE}:Point",{{"x":1,"y":{{"$tuple":[2]}}}}]}}'),
    (Outer.Inner(1), f'{{"$dataclass":["{HERE}:Outer.Inner",{{"x":1}}]}}'),
    (Pair(1), f'{{"$namedtuple":["{HERE}:Pair",{{"left":1,"right":null}}]}}'),
    (Plain(1, 2), f'{{"$namedtuple":["{HERE}:Plain",{{"a":1,"b":2}}]}}'),
    (Item("n"), f'{{"$struct":["{HERE}:Item",{{"name":"n","count":0,"tags":[]}}]}}'),
    (FrozenItem(item_name=1), f'{{"$struct":["{HERE}:FrozenItem",{{"item_name":1}}]}}'),
    (Row(id=1), '{"id":1}'),
]


@pytest.mark.parametrize(("value", "text"), GOLDEN, ids=lambda _: "")
def test_a_value_has_this_text_and_comes_back_from_it(value: object, text: str) -> None:
    assert encode(value).decode() == text
    assert is_same(decode(text), value)
    assert is_same(decode(text.encode()), value)
    assert is_same(decode_parsed(json.loads(text)), value)


@large_repr
@no_deadline
@given(samples.values)
@example([[0.0, -0.0], [1e300, 1e300]])
@example({"a": {"$tuple": 1}, "$b": 1})
def test_any_value_comes_back_equal_and_of_its_type(value: object) -> None:
    assert is_same(decode(encode(value)), value)


@no_deadline
@given(samples.plain_values)
@example([1e308, 1e308])
@example({"a": [math.nan]})
@example(["\\u0000", "\0"])
@example([{"$x": 1}])
@example(-0.0)
@example([-0.05, -0.0])
@example([0, 16**1200])
@example({"a": [0, "x" * 300, -(10**309)]})
def test_the_fast_path_writes_what_the_slow_path_writes(value: object) -> None:
    slow = to_json(Tagging(to_json).tag(value))

    assert plain_json(value, to_json) in (None, slow)


@pytest.mark.parametrize(
    "value",
    [None, True, 2**64, 1.5, "a$b", [], {}, [1, 2.5, "x", None, [], {}], {"a": {"b": [1, 2]}}],
)
def test_plain_values_take_the_fast_path(value: object) -> None:
    assert plain_json(value, to_json) is not None


@large_repr
@no_deadline
@given(samples.values)
def test_a_value_survives_a_database_that_has_only_numbers_and_unordered_objects(
    value: object,
) -> None:
    text = encode(value).decode()

    def as_jsonb(tree: Any) -> Any:
        if isinstance(tree, dict):
            return {key: as_jsonb(tree[key]) for key in sorted(tree, key=lambda k: (len(k), k))}
        return [as_jsonb(item) for item in tree] if isinstance(tree, list) else tree

    def number(digits: str) -> int | float:
        written = format(decimal.Decimal(digits), "f")
        negative_zero = written.lstrip("-0.") == "" and written.startswith("-")
        return float(written.lstrip("-")) if negative_zero else json.loads(written)

    read = as_jsonb(json.loads(text, parse_float=number))
    again = encode(decode_parsed(read)).decode()

    assert "\\u0000" not in text.replace("\\\\", "")
    # Only the order of a dict with text keys is lost, which == disregards.
    assert repr(as_jsonb(json.loads(again))) == repr(as_jsonb(json.loads(text)))


def test_a_stored_dict_keeps_its_order() -> None:
    value = {"b": 1, "a": {3: "x", 1: "y"}}

    read = decode(encode(value))

    assert isinstance(read, dict)
    assert [*read] == ["b", "a"]
    assert [*read["a"]] == [3, 1]


def test_sets_have_one_text_whatever_their_order() -> None:
    one, other = {"a", "b", "c", 1}, {1, "c", "b", "a"}

    assert encode(one) == encode(other)


# -- Records -------------------------------------------------------------------------------------


def test_a_dataclass_comes_back_without_its_constructor_being_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    value = Derived(1, note="n", scale=5)
    data = encode(value)

    def called(*_: object) -> None:
        raise AssertionError("called")

    for name in ("__init__", "__post_init__", "__setattr__"):
        monkeypatch.setattr(Derived, name, called)
    read = decode(data)

    assert is_same(read, value)
    assert isinstance(read, Derived)
    assert read.total == 5
    assert not hasattr(read, "never")


def test_a_frozen_dataclass_with_slots_comes_back() -> None:
    value = Frozen("n", (1, {2}))

    assert is_same(decode(encode(value)), value)


def test_an_instance_of_a_generic_class_comes_back() -> None:
    assert decode(encode(Box[int](5))) == Box(5)


def test_what_a_cached_property_keeps_is_computed_again() -> None:
    circle = Circle(2.0)
    assert circle.area > 12

    read = decode(encode(circle))

    assert isinstance(read, Circle)
    assert "area" not in vars(read)
    assert read.area == circle.area


def test_attrs_classes_come_back() -> None:
    attrs = pytest.importorskip("attrs")
    runs: list[object] = []

    @attrs.frozen
    class Size:
        width: int
        _depth: int = attrs.field(default=0, eq=False)
        area: int = attrs.field(init=False, default=attrs.Factory(lambda self: self.width, True))

        def __attrs_post_init__(self) -> None:
            runs.append(self)

    @attrs.define(slots=False)
    class Loose:
        width: int

    with as_module("attrs_samples", Size=Size, Loose=Loose):
        value = [Size(3, depth=4), Loose(2)]
        made = len(runs)
        read = decode(encode(value))

        assert is_same(read, value)
        assert len(runs) == made


def test_attrs_is_not_imported_for_a_class_of_it() -> None:
    script = (
        "import sys, types\n"
        "class Attribute:\n"
        "    def __init__(self, name): self.name, self.init, self.eq = name, True, True\n"
        "    default = None\n"
        "class Size:\n"
        "    __attrs_attrs__ = (Attribute('width'),)\n"
        "    def __eq__(self, other): return self.width == other.width\n"
        "from embedded_orch.values import decode, encode\n"
        "size = Size(); size.width = 5\n"
        "assert decode(encode(size)) == size\n"
        "assert 'attr' not in sys.modules and 'attrs' not in sys.modules\n"
    )

    assert run_python(script) == ""


def test_a_field_added_later_gets_its_default() -> None:
    with as_module("shop", Order=make_dataclass("Order", ["number"])) as shop:
        data = encode(shop.Order(1))
    newer = make_dataclass("Order", ["number", ("paid", bool, field(default=False))])
    with as_module("shop", Order=newer) as shop:
        read = decode(data)

        assert read == shop.Order(1, paid=False)


@pytest.mark.parametrize(
    ("newer", "said"),
    [
        (make_dataclass("Order", ["number", "customer"]), "field customer that was not stored"),
        (make_dataclass("Order", ["id"]), "no field number any more"),
        (
            make_dataclass("Order", ["number", ("rows", list, field(default_factory=list))]),
            "field rows that was not stored",
        ),
        (type("Order", (), {}), "not a class of kind dataclass"),
    ],
)
def test_a_class_that_has_changed_is_named(newer: type, said: str) -> None:
    with as_module("shop", Order=make_dataclass("Order", ["number"])) as shop:
        data = encode(shop.Order(1))

    with as_module("shop", Order=newer), pytest.raises(MissingResult, match=said):
        decode(data)


def test_a_member_that_an_enum_has_no_more_is_named() -> None:
    data = encode(Colour.RED).replace(b'"RED"', b'"GREEN"')

    with pytest.raises(MissingResult, match="Colour has no member GREEN any more"):
        decode(data)


# -- Refusals ------------------------------------------------------------------------------------


class Connection:
    pass


@dataclass(eq=False)
class ByIdentity:
    x: int


class StructByIdentity(msgspec.Struct, eq=False):
    x: int


class StructWithPostInit(msgspec.Struct):
    x: int

    def __post_init__(self) -> None:
        self.x += 1


deleted: list[int] = []


@dataclass
class WithDel:
    x: int

    def __del__(self) -> None:
        deleted.append(1)


@dataclass
class OnList(list[int]):
    x: int


@dataclass
class OnException(Exception):
    x: int


class Slotted:
    __slots__ = ("cache",)


@dataclass(slots=True)
class OnSlotted(Slotted):
    x: int


class NamedWithState(Pair):
    pass


class Text(str):
    __slots__ = ()


class Moment(dt.datetime):
    pass


class OtherZone(dt.tzinfo):
    def utcoffset(self, _: dt.datetime | None) -> dt.timedelta:
        return dt.timedelta(0)

    def dst(self, _: dt.datetime | None) -> None:
        return None

    def tzname(self, _: dt.datetime | None) -> str:
        return "other"


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


def nested(levels: int, innermost: object = None) -> object:
    value = innermost
    for _ in range(levels):
        value = [value]
    return value


def doubling(levels: int) -> object:
    value: object = ["x"]
    for _ in range(levels):
        value = [value, value]
    return value


REFUSED: list[tuple[Callable[[], object], str]] = [
    (lambda: object(), "result is a object, which would not come back"),
    (lambda: {"rows": [1, 2, 3, Point(Connection())]}, "result['rows'][3].x is a"),
    (lambda: [(1, {2: Connection()})], "result[0][1][2] is a"),
    (lambda: {"a": {(1, Connection()): 1}}, "result['a'].keys()[0][1] is a"),
    (lambda: [{1, Connection()}], "result[0]{...} is a"),
    (lambda: {Connection(): 1}, "result.keys()[0] is a"),
    (lambda: {"k" * 99: Connection()}, f"result['{'k' * 39}...] is a"),
    (lambda: {Pair(1): object()}, "result[<Pair>] is a object"),
    (lambda: dt.datetime(2024, 1, 1, tzinfo=OtherZone()), "result.tzinfo is a"),
    (lambda: zoneinfo.ZoneInfo.no_cache("UTC"), "would not come back"),
    (lambda: Secret("x"), "result is a embedded_orch.values.secret:Secret"),
    (lambda: len, "builtin_function_or_method"),
    (lambda: [print, lambda: 1], "result[0] is a builtin_function_or_method"),
    (lambda: ValueError("x"), "ValueError"),
    (lambda: Point, "result is a type"),
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
    (lambda: property_field(), "its field size is a property"),
    (lambda: OnList(1), "built on list, which keeps a state of its own"),
    (lambda: OnException(1), "built on Exception"),
    (lambda: with_extra(Point(1)), "its attribute cache is not one of its fields"),
    (lambda: with_extra(OnSlotted(1)), "its attribute cache is not one of its fields"),
    (lambda: with_extra(NamedWithState(1)), "its attribute cache is not one of its fields"),
    (lambda: tuple.__new__(Pair, (1, 2, 3)), "its attribute [2] is not one of its fields"),
    (lambda: tuple.__new__(Pair, (1,)), "its field right is not set"),
    (lambda: without_field(Point(1)), "its field x is not set"),
    (local_class, "defined inside a function"),
    (itself, "result[1]['again'][0] is a list, which cannot be stored: it contains itself"),
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


# -- Equality ------------------------------------------------------------------------------------


@dataclass
class Caseless:
    text: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Caseless) and other.text.lower() == self.text.lower()

    __hash__ = None  # type: ignore[assignment]


@dataclass
class NeverEqual:
    x: int

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]


@dataclass
class EqualityFails:
    x: int

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no")

    __hash__ = None  # type: ignore[assignment]


class PairByLeft(NamedTuple):
    left: object
    right: object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PairByLeft) and self.left == other.left

    def __hash__(self) -> int:
        return hash(self.left)


def test_a_class_with_its_own_equality_comes_back_with_every_field() -> None:
    read = decode(encode([Caseless("aB"), PairByLeft(1, 2)]))

    assert isinstance(read, list)
    assert [read[0].text, *read[1]] == ["aB", 1, 2]


@pytest.mark.parametrize("value", [NeverEqual(1), EqualityFails(1)])
def test_a_value_whose_own_equality_denies_its_copy_is_refused(value: object) -> None:
    """Seen to fail with the comparison in `Tagging.record` removed."""
    with pytest.raises(ValueNotStorable, match="its own == says"):
        encode({"a": value})


def test_nan_in_a_field_is_no_reason_to_refuse() -> None:
    value = Point(math.nan, [math.nan])

    assert is_same(decode(encode(value)), value)


# -- Hostile bytes -------------------------------------------------------------------------------


def tagged(kind: str, payload: object) -> bytes:
    return msgspec.json.encode({kind: payload})


HOSTILE = [
    tagged("$enum", ["os:system", "x"]),
    tagged("$dataclass", ["os:system", {"command": "touch pwned"}]),
    tagged("$dataclass", ["builtins:eval", {"source": "1/0"}]),
    tagged("$dataclass", ["builtins:object", {}]),
    tagged("$struct", ["builtins:dict", {}]),
    tagged("$struct", ["msgspec:Struct", {"x": 1}]),
    tagged("$namedtuple", ["builtins:tuple", {}]),
    tagged("$namedtuple", [f"{HERE}:Point", {"x": 1}]),
    tagged("$dataclass", [f"{HERE}:Pair", {"left": 1, "right": 1}]),
    tagged("$attrs", [f"{HERE}:Point", {"x": 1}]),
    tagged("$dataclass", [f"{HERE}:Point", {"x": 1, "__class__": 2}]),
    tagged("$dataclass", [f"{HERE}:Point", {"x": 1, "__dict__": {}}]),
    tagged("$dataclass", [f"{HERE}:Point", [["x", 1]]]),
    tagged("$dataclass", [f"{HERE}:Point.__class__", {}]),
    tagged("$dataclass", [f"{HERE}:Point.__init__", {}]),
    tagged("$dataclass", [f"{HERE}:dataclass", {}]),
    tagged("$dataclass", [f"{HERE}", {}]),
    tagged("$dataclass", [":", {}]),
    tagged("$dataclass", ["", {}]),
    tagged("$dataclass", [f"{HERE}:", {}]),
    tagged("$dataclass", [1, 2]),
    tagged("$dataclass", [[f"{HERE}:Point"], {"x": 1}]),
    tagged("$dataclass", {"x": 1}),
    tagged("$dataclass", ["this:Zen", {}]),
    tagged("$flag", [f"{HERE}:Colour", 1]),
    tagged("$flag", [f"{HERE}:Access", "1"]),
    tagged("$flag", [f"{HERE}:Access", 8]),
    tagged("$enum", [f"{HERE}:Colour", "__class__"]),
    tagged("$enum", [f"{HERE}:Colour", 1]),
    tagged("$enum", [f"{HERE}:Point", "x"]),
    tagged("$pickle", "gASVFAAAAAAAAACMAm9zlIwGc3lzdGVtlJOULg=="),
    tagged("$", 1),
    tagged("$tuple", 1),
    tagged("$tuple", {"a": 1}),
    tagged("$tuple", "abc"),
    tagged("$set", [[1]]),
    tagged("$frozenset", [{}]),
    tagged("$dict", {"a": 1}),
    tagged("$dict", [[1]]),
    tagged("$dict", [[1, 2, 3]]),
    tagged("$dict", [[[], 2]]),
    tagged("$defaultdict", ["system", []]),
    tagged("$defaultdict", ["exec", []]),
    tagged("$defaultdict", [["list"], []]),
    tagged("$counter", [1]),
    tagged("$deque", [-1, []]),
    tagged("$deque", ["5", []]),
    tagged("$range", [0, 1, 0]),
    tagged("$range", [0, 1]),
    tagged("$range", [0.5, 1, 1]),
    tagged("$int", "x"),
    tagged("$int", 5),
    tagged("$float", "x"),
    tagged("$float", None),
    tagged("$str", "\\q"),
    tagged("$str", "é"),
    tagged("$str", "\\N{BELL}"),
    tagged("$bytes", "a"),
    tagged("$bytes", "a b="),
    tagged("$bytes", [1]),
    tagged("$complex", ["1"]),
    tagged("$date", "2024-02-30"),
    tagged("$datetime", "yesterday"),
    tagged("$datetime", ["2024-01-01", {"$zone": "../../etc/passwd"}, 0]),
    tagged("$datetime", ["2024-01-01", 5, 0]),
    tagged("$datetime", ["2024-01-01", None, 2]),
    tagged("$datetime", ["2024-01-01T25:00", None, 0]),
    tagged("$time", ["1", 2]),
    tagged("$timedelta", [10**30, 0, 0]),
    tagged("$timedelta", [1, 2]),
    tagged("$timezone", 10**15),
    tagged("$timezone", ["1", "x"]),
    tagged("$zone", "No/Such"),
    tagged("$zone", "Europe"),
    tagged("$zone", "/etc/passwd"),
    tagged("$zone", "..\\x"),
    tagged("$decimal", "1,5"),
    tagged("$uuid", "1"),
    tagged("$path", ["os.system", "/"]),
    tagged("$path", ["Path", "/"]),
    tagged("$path", ["PurePosixPath", ["/"]]),
    b"",
    b"{",
    b"\x80\x04K\x01.",
    b"NaN",
    b"1e999",
    b'"\xff"',
    b'{"$tuple": [1, {"$set": [[]]}]}',
    b"[" * 100_000,
    b'{"$tuple":[' * 5_000 + b"]}" * 5_000,
    b'{"a":' * 50_000,
]


@pytest.mark.parametrize("data", HOSTILE, ids=lambda data: data[:60].decode(errors="replace"))
def test_bytes_that_make_no_sense_raise_and_import_nothing(data: bytes) -> None:
    before = set(sys.modules)
    with pytest.raises(MissingResult):
        decode(data)

    assert "this" not in sys.modules
    assert {name.partition(".")[0] for name in set(sys.modules) - before} <= {"tzdata", "importlib"}


def test_a_class_of_a_module_that_is_not_loaded_is_named_with_what_to_do() -> None:
    data = tagged("$dataclass", ["shop.models:Order", {"number": 1}])

    with pytest.raises(MissingResult, match="instance of shop.models:Order.*import shop.models"):
        decode(data)


def test_a_module_is_not_asked_for_what_it_does_not_have() -> None:
    """Seen to fail with ``getattr(module, part)`` in place of the look into ``__dict__``."""
    asked: list[str] = []

    def module_getattr(name: str) -> object:
        asked.append(name)
        return Point

    with (
        as_module("lazy_names", __getattr__=module_getattr),
        pytest.raises(MissingResult, match="no such class"),
    ):
        decode(tagged("$dataclass", ["lazy_names:Point", {"x": 1}]))

    assert asked == []


def test_a_lazy_module_is_not_loaded() -> None:
    """Seen to fail with ``vars(module)``, which runs the module's code."""
    spec = importlib.util.find_spec("antigravity")
    assert spec is not None
    assert spec.loader is not None
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    lazy_type = type(module)
    sys.modules["antigravity"] = module
    try:
        with pytest.raises(MissingResult, match="no such class"):
            decode(tagged("$dataclass", ["antigravity:Point", {"x": 1}]))
        assert type(module) is lazy_type is not types.ModuleType
    finally:
        del sys.modules["antigravity"]


@pytest.mark.parametrize(
    "class_name", ["WithDel", "ByIdentity", "StructWithPostInit", "OnList", "OnException"]
)
def test_a_class_that_would_not_be_stored_is_not_built_either(class_name: str) -> None:
    """Seen to fail without the check of `problem` in `rebuilding`: `__del__` runs."""
    kind = "$struct" if "Struct" in class_name else "$dataclass"

    with pytest.raises(MissingResult, match=class_name):
        decode(tagged(kind, [f"{__name__}:{class_name}", {"x": 1}]))

    assert deleted == []


def test_a_metaclass_is_not_called() -> None:
    class Meta(type):
        def __call__(cls, *_: object, **__: object) -> object:
            raise AssertionError("called")

    class Base(metaclass=Meta):
        pass

    order = make_dataclass("Order", ["number"], bases=(Base,))
    with as_module("shop", Order=order):
        read = decode(tagged("$dataclass", ["shop:Order", {"number": 1}]))

        assert type(read) is order


def test_an_enum_that_makes_members_by_its_own_code_is_not_asked_to() -> None:
    class Odd(samples.enum.Flag):
        ONE = 1

        @classmethod
        def _missing_(cls, value: object) -> object:
            raise AssertionError("called")

    with as_module("shop", Odd=Odd), pytest.raises(MissingResult, match="combines its members"):
        decode(tagged("$flag", ["shop:Odd", 4]))


# -- The main module -----------------------------------------------------------------------------

_MAIN_SCRIPT = """
import sys
from dataclasses import dataclass
from embedded_orch.values import decode, encode

@dataclass
class Order:
    number: int

if __name__ == "__main__":
    if sys.argv[1:] == ["pool"]:
        from concurrent.futures import ProcessPoolExecutor
        import multiprocessing
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            print(pool.submit(encode, Order(1)).result().decode())
            print(decode(pool.submit(encode, Order(2)).result()) == Order(2))
    else:
        print(encode(Order(1)).decode())
        print(decode(encode(Order(2))) == Order(2))
"""


@pytest.mark.parametrize("mode", [[], ["pool"]])
def test_classes_of_a_script_have_one_name_in_it_and_in_its_pool(
    tmp_path: pathlib.Path, mode: list[str]
) -> None:
    script = tmp_path / "jobs.py"
    script.write_text(_MAIN_SCRIPT)

    assert run_python(str(script), *mode) == (
        '{"$dataclass":["__main__:Order",{"number":1}]}\nTrue\n'
    )


def test_a_module_run_with_m_has_the_name_it_is_imported_by(tmp_path: pathlib.Path) -> None:
    (tmp_path / "shop_jobs.py").write_text(_MAIN_SCRIPT)
    text = '{"$dataclass":["shop_jobs:Order",{"number":1}]}\n'

    assert run_python("-m", "shop_jobs", path=tmp_path) == f"{text}True\n"
    assert run_python("-m", "shop_jobs", "pool", path=tmp_path) == f"{text}True\n"


# -- Parameters ----------------------------------------------------------------------------------


def test_parameters_that_cannot_be_stored_are_named_by_their_type() -> None:
    text, not_stored = encode_parameters(
        {"rows": [(1, 2)], "conn": Connection(), "day": dt.date(2024, 1, 2), "key": Secret("s3")}
    )

    assert text == '{"rows":[{"$tuple":[1,2]}],"day":{"$date":"2024-01-02"}}'
    assert not_stored == {
        "conn": f"{__name__}:Connection",
        "key": "embedded_orch.values.secret:Secret",
    }
    assert decode(text) == {"rows": [(1, 2)], "day": dt.date(2024, 1, 2)}


@pytest.mark.parametrize(
    "parameters",
    [{}, {"a": 1, "b": [None]}, {"$tuple": [1]}, {"$tuple": (1,)}, {"a\0": (1,)}, {"\ud800": 1}],
)
def test_parameters_come_back_whatever_their_names(parameters: dict[str, object]) -> None:
    text, not_stored = encode_parameters(parameters)

    assert text.startswith("{")
    assert not_stored == {}
    assert decode(text) == parameters


def test_parameters_may_be_any_mapping() -> None:
    assert encode_parameters(types.MappingProxyType({"a": 1})) == ('{"a":1}', {})


# -- Preview -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (None, "None"),
        ({"a": [1, True, "x"]}, "{'a': [1, True, 'x']}"),
        ((1,), "(1,)"),
        ({1: (2, 3)}, "{1: (2, 3)}"),
        ({5}, "{5}"),
        (set(), "set()"),
        (b"ab", "b'ab'"),
        (math.nan, "nan"),
        (Point(1, "y"), "Point(x=1, y='y')"),
        (Outer.Inner([]), "Inner(x=[])"),
        (Colour.RED, "Colour.RED"),
        (Access.READ | Access.RUN, "Access(5)"),
        (dt.datetime(2024, 5, 1, tzinfo=BERLIN), "2024-05-01T00:00:00+02:00"),
        (dt.timedelta(1), "timedelta(1, 0, 0)"),
        (decimal.Decimal("1.5"), "decimal('1.5')"),
        (pathlib.PurePosixPath("/a"), "'/a'"),
        ("\x1b[2J\u202e", r"'\x1b[2J\u202e'"),
    ],
)
def test_a_preview_looks_like_python(value: object, line: str) -> None:
    assert preview(encode(value)) == line


@pytest.mark.parametrize(
    "value",
    ["x" * 10**6, [*range(10**5)], b"x" * 10**6, [[()]] * 10**4, {"k" * 99: 1}, nested(90)],
    ids=lambda _: "",
)
def test_a_preview_keeps_to_its_limit(value: object) -> None:
    line = preview(encode(value), 20)

    assert len(line) == 20
    assert "…" in line


@pytest.mark.parametrize("data", [*HOSTILE, b"[\x1b\xff" + b"x" * 300_000], ids=lambda _: "")
def test_a_preview_of_anything_is_a_printable_line(data: bytes) -> None:
    assert preview(data).isprintable()


def test_a_preview_looks_up_no_class() -> None:
    data = tagged("$dataclass", ["not_loaded.shop:Order", {"number": {"$tuple": [1]}}])

    assert preview(data) == "Order(number=(1,))"


# -- Start-up, threads ---------------------------------------------------------------------------


def test_importing_values_loads_nothing_heavy() -> None:
    script = (
        "import sys, msgspec\n"
        "before = set(sys.modules)\n"
        "import embedded_orch.values as values\n"
        "values.encode({'a': (1, {2})}); values.preview(b'[1]')\n"
        "print(sorted(n for n in set(sys.modules) - before if n.partition('.')[0] != 'embedded_orch'))\n"
    )

    loaded = set(re.findall(r"'([^']+)'", run_python(script)))

    assert loaded <= {"binascii", "_strptime", "__future__"}


def test_threads_encode_at_the_same_time() -> None:
    value = {"a": (1, 2, {"b": {3}}), "c": [1.5] * 100}
    expected = encode(value)
    differing: list[bytes] = []

    def work() -> None:
        differing.extend(data for data in (encode(value) for _ in range(200)) if data != expected)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert differing == []


# -- Builders ------------------------------------------------------------------------------------


class as_module:  # noqa: N801 (used like a function)
    """A loaded module of this name that has these things, and they believe to come from it."""

    def __init__(self, name: str, **things: Any) -> None:
        self._module: Any = types.ModuleType(name)
        for key, thing in things.items():
            if isinstance(thing, type):
                thing.__module__, thing.__qualname__ = name, key
            setattr(self._module, key, thing)

    def __enter__(self) -> Any:
        sys.modules[self._module.__name__] = self._module
        return self._module

    def __exit__(self, *_: object) -> None:
        del sys.modules[self._module.__name__]


def run_python(*arguments: str, path: pathlib.Path | None = None) -> str:
    """What a new interpreter prints that runs a script, a module or a text."""
    if "\n" in arguments[0]:
        arguments = ("-c", *arguments)
    root = pathlib.Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PYTHONPATH": f"{root}:{path or root}", "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
