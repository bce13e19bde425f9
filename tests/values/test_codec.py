"""Values as bytes and back: equal and of the same type, or refused; and hostile bytes."""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import json
import math
import pathlib
import re
import threading
import types
import uuid
import zoneinfo
from typing import Any

import pytest
from hypothesis import example, given, settings

from embedded_orch.values import (
    Secret,
    decode,
    decode_parsed,
    encode,
    encode_parameters,
)
from embedded_orch.values.codec import to_json
from embedded_orch.values.plain import plain_json
from embedded_orch.values.tagging import Tagging
from tests.values import samples
from tests.values.builders import run_python
from tests.values.refused import Connection
from tests.values.samples import (
    Access,
    Bits,
    Colour,
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
    (
        dt.datetime.fromisoformat("0001-01-01T00:00:00.000007"),
        '{"$datetime":"0001-01-01T00:00:00.000007"}',
    ),
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
    (
        dt.datetime.fromisoformat("2024-05-01").replace(fold=1),
        '{"$datetime":["2024-05-01T00:00:00",null,1]}',
    ),
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


# -- Parameters ------------------------------------------------------------------------------------


def test_parameters_that_cannot_be_stored_are_named_by_their_type() -> None:
    text, not_stored = encode_parameters(
        {"rows": [(1, 2)], "conn": Connection(), "day": dt.date(2024, 1, 2), "key": Secret("s3")}
    )

    assert text == '{"rows":[{"$tuple":[1,2]}],"day":{"$date":"2024-01-02"}}'
    assert not_stored == {
        "conn": "tests.values.refused:Connection",
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


# -- Start-up and threads --------------------------------------------------------------------------


def test_importing_values_loads_nothing_heavy() -> None:
    script = (
        "import sys, msgspec\n"
        "before = set(sys.modules)\n"
        "import embedded_orch.values as values\n"
        "values.encode({'a': (1, {2})}); values.preview(b'[1]')\n"
        "new = set(sys.modules) - before\n"
        "print(sorted(name for name in new if not name.startswith('embedded_orch')))\n"
    )

    loaded = set(re.findall(r"'([^']+)'", run_python(script)))

    assert loaded <= {"__future__", "binascii", "math"}


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
