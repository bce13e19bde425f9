"""One hash for equal inputs, in any process; another for any other inputs."""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import functools
import itertools
import json
import linecache
import math
import pathlib
import sys
import uuid
import zoneinfo
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedded_orch.values import decode, encode, examine_inputs, hash_inputs, source_hash
from tests.values import samples
from tests.values.builders import run_python
from tests.values.samples import (
    Access,
    Bits,
    Box,
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
    Word,
)

no_deadline = settings(deadline=None, database=None, max_examples=200)
# Hypothesis writes down the strategy of a set whenever a member comes twice.
large_repr = pytest.mark.filterwarnings("ignore:Generating overly large repr")

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
MIDNIGHT = dt.datetime.fromisoformat("2024-01-01")


class Service:
    def method(self) -> None: ...


def a_function() -> None: ...


def near_misses() -> list[object]:
    """Values of which each two differ in content or type, if only just."""
    return [
        None, False, True, 0, 1, -1, 2**64, 10**400, 0.0, -0.0, 1.0, 1e16, 10**16, math.nan,
        math.inf, -math.inf, "", "0", "1", "None", "nan", "\0", "\\x00", "\ud800", "\\ud800",
        "$type", b"", b"1", bytearray(b"1"), [], [1], [1.0], [True], ["1"], [[1]], [1, 1], [None],
        (), (1,), (1.0,), {}, set(), {1}, {1.0}, {True}, frozenset({1}), {1: None}, {"1": None},
        {1.0: None}, {"a": 1}, {"a": 1, "b": 2}, {"a": 2, "b": 1}, {"$tuple": [1]},
        {"$type": "x"}, {"$dict": [[1, None]]}, [[1, None]], collections.OrderedDict(a=1, b=2),
        collections.OrderedDict(b=2, a=1), collections.Counter(a=1), collections.deque([1]),
        collections.deque([1], 2), collections.defaultdict(int, a=1),
        collections.defaultdict(list, a=1), range(1), range(2), range(0, 2, 2), slice(1),
        complex(1), complex(1, -0.0), decimal.Decimal(1), decimal.Decimal("1.0"),
        decimal.Decimal("NaN"), dt.date(2024, 1, 1), MIDNIGHT,
        dt.datetime(2024, 1, 1, tzinfo=dt.UTC), dt.datetime(2024, 1, 1, 1, tzinfo=BERLIN),
        dt.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN),
        dt.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN, fold=1), dt.time(1), dt.time(1, fold=1),
        dt.timedelta(1), dt.timedelta(seconds=1), dt.UTC, BERLIN, uuid.UUID(int=1),
        str(uuid.UUID(int=1)), pathlib.PurePosixPath("a"), pathlib.PureWindowsPath("a"), "a",
        Colour.RED, Colour.BLUE, Level.LOW, Word.YES, "yes", Access.READ, Access.WRITE,
        Access.READ | Access.WRITE, Bits.ONE, Bits(3), Point(1), Point(1, 1), Point((1,)),
        Frozen(1), Pair(1), Pair(1, 1), Plain(1, None), (1, None), Item(1), Item(1, 1),
        FrozenItem(item_name=1), Box(1), Outer.Inner(1), len, print, a_function, Service.method,
        Service().method, functools.partial(a_function), functools.partial(a_function, 1),
        Service, Service(), Point, int, sys, object(),
    ]  # fmt: skip


def test_values_that_differ_have_different_hashes() -> None:
    by_hash: dict[bytes, list[object]] = {}
    for value in near_misses():
        by_hash.setdefault(hash_inputs({"x": value}), []).append(value)

    assert [together for together in by_hash.values() if len(together) > 1] == []


def test_where_a_value_stands_is_part_of_the_hash() -> None:
    inputs: list[dict[str, object]] = [
        {},
        {"a": 1},
        {"b": 1},
        {"a": [1]},
        {"a": 1, "b": None},
        {"a": None, "b": 1},
        {"a": {"b": 1}},
        {"a": {"b": None}, "b": 1},
        {"$tuple": [1]},
        {"$tuple": (1,)},
        {"a\0": 1},
        {"\ud800": 1},
        {"a": (1, (2,)), "b": ()},
        {"a": (1, 2), "b": ()},
    ]

    assert len({hash_inputs(given) for given in inputs}) == len(inputs)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"b": 1, "a": 2}, {"a": 2, "b": 1}),
        ({1: "x", "a": {2, 3}}, {"a": {3, 2}, 1: "x"}),
        ({(1,): 1, None: 2, 1.5: 3}, {1.5: 3, (1,): 1, None: 2}),
        ({"x", "y", 1, (2,)}, {(2,), 1, "y", "x"}),
        (collections.Counter("ab"), collections.Counter("ba")),
        (math.nan, float("nan")),
        (Derived(1, note="one"), Derived(1, note="other")),
        ([[1], [1]], [[1]] * 2),
        ({"a": [{"b": 1}] * 2}, {"a": [{"b": 1}, {"b": 1}]}),
        (Colour.RED, Colour.ALSO_RED),
    ],
)
def test_equal_values_have_equal_hashes(one: object, other: object) -> None:
    assert hash_inputs({"x": one}) == hash_inputs({"x": other})


def test_the_order_of_arguments_does_not_count() -> None:
    for order in itertools.permutations({"a": 1, "b": (2,), "c": Service()}.items()):
        assert hash_inputs(dict(order)) == hash_inputs({"c": Service(), "b": (2,), "a": 1})


@large_repr
@no_deadline
@given(samples.values)
def test_a_value_that_was_stored_has_its_hash_when_it_comes_back(value: object) -> None:
    found = examine_inputs({"x": value})

    assert found.digest == hash_inputs({"x": decode(encode(value))})
    assert found.by_type == {}


@large_repr
@no_deadline
@given(st.dictionaries(samples.texts, samples.values, max_size=3))
def test_shared_containers_count_like_copies(arguments: dict[str, object]) -> None:
    shared = [1, "x"]

    one = hash_inputs({**arguments, "shared": [shared, shared]})

    assert one == hash_inputs({**arguments, "shared": [[1, "x"], [1, "x"]]})


# -- What counts by its type -----------------------------------------------------------------------


@dataclass(eq=False)
class ByIdentity:
    x: int


@dataclass
class OnDict(dict[str, int]):
    x: int


class Tree(dict[str, object]):
    pass


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "always the same"


def test_objects_count_by_their_type() -> None:
    one = examine_inputs({"self": Service(), "rows": [1, Service()], "n": 1})
    other = examine_inputs({"self": Service(), "rows": [1, Service()], "n": 1})

    assert one == other
    name = f"{__name__}:Service"
    assert one.by_type == {"self": name, "rows": name}


def test_only_the_object_itself_counts_by_its_type() -> None:
    assert hash_inputs({"x": [1, Service()]}) != hash_inputs({"x": [2, Service()]})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (ByIdentity(1), ByIdentity(2)),
        (Tree(a=1), Tree(a=2)),
        (Text("a"), Text("b")),
        ([Service(), 1], [Service(), 2]),
        (functools.partial(a_function, 1), functools.partial(a_function, 2)),
        (Point(Service(), 1), Point(Service(), 2)),
        (
            dt.datetime(2024, 1, 1, tzinfo=dt.timezone(dt.timedelta(0), "x")),
            MIDNIGHT,
        ),
    ],
)
def test_what_cannot_be_stored_may_still_differ(one: object, other: object) -> None:
    assert hash_inputs({"x": one}) != hash_inputs({"x": other})
    assert hash_inputs({"x": one}) == hash_inputs({"x": one})


@pytest.mark.parametrize(
    "value", [lambda: 1, Text("a"), Tree(), OnDict(1), iter([]), {"a": {1: (object(),)}}]
)
def test_what_does_not_count_by_its_content_alone_is_said(value: object) -> None:
    assert examine_inputs({"x": value, "y": 1}).by_type.keys() == {"x"}


@pytest.mark.parametrize("value", [len, a_function, Service, sys, ByIdentity(1), Point(1)])
def test_what_has_a_name_of_its_own_counts_by_it(value: object) -> None:
    assert examine_inputs({"x": value}).by_type == {}


def test_a_local_function_counts_by_its_name_and_that_is_said() -> None:
    def inner() -> None: ...

    found = examine_inputs({"one": inner, "other": lambda: 1})

    assert found.by_type == {"one": "builtins:function", "other": "builtins:function"}
    assert hash_inputs({"x": inner}) != hash_inputs({"x": lambda: 1})


def test_anything_can_be_hashed() -> None:
    cycle: list[object] = []
    cycle.append(cycle)
    deep: object = None
    bomb: object = ["x"]
    for _ in range(200):
        deep = [deep]
        bomb = [bomb, bomb]

    found = examine_inputs({"cycle": cycle, "deep": deep, "bomb": bomb})

    assert found.by_type == dict.fromkeys(("cycle", "deep", "bomb"), "builtins:list")
    assert len(found.digest) == 16


# -- numpy -----------------------------------------------------------------------------------------


def test_arrays_count_by_dtype_shape_and_content() -> None:
    numpy = pytest.importorskip("numpy")
    arrays = [
        numpy.zeros(4),
        numpy.zeros((2, 2)),
        numpy.zeros(4, dtype="f4"),
        numpy.array([0, 0, 0, 1.0]),
        numpy.zeros(4, dtype="i8"),
        numpy.array(["a", "b"]),
        numpy.array(["2024-01-01"], dtype="M8[D]"),
        numpy.array([{"a": 1}], dtype=object),
        numpy.array([{"a": 2}], dtype=object),
        numpy.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        numpy.float64(1),
        numpy.float32(1),
        numpy.int64(1),
    ]

    assert len({hash_inputs({"x": array}) for array in arrays}) == len(arrays)
    for array in arrays:
        assert hash_inputs({"x": array}) == hash_inputs({"x": array.copy()})
        assert examine_inputs({"x": array}).by_type == {}


def test_the_layout_of_an_array_in_memory_does_not_count() -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(6.0).reshape(2, 3)
    same = [array.T.copy().T, array.astype(">f8"), numpy.asfortranarray(array), array[::1]]

    assert {hash_inputs({"x": other}) for other in same} == {hash_inputs({"x": array})}


# -- Stability -------------------------------------------------------------------------------------

_SCRIPT = """
import json, sys
from tests.values.test_hashing import hash_inputs, stable_inputs
print(json.dumps([hash_inputs(given).hex() for given in stable_inputs()]))
"""


def stable_inputs() -> list[dict[str, object]]:
    """Inputs that can be made again in another process."""
    sets = [{"a", "b", "c", "ä"}, frozenset({("x", 1), "y", None, 2.5}), {*map(str, range(99))}]
    return [{}, *({"x": value} for value in [*near_misses(), *sets, {"k": sets}])]


def test_hashes_are_the_same_in_processes_with_other_hash_seeds() -> None:
    expected = [hash_inputs(given).hex() for given in stable_inputs()]

    for seed in ("0", "1", "4242"):
        assert json.loads(run_python(_SCRIPT, PYTHONHASHSEED=seed)) == expected


# A hash finds the records of earlier runs, so it stays what it is, on every Python. If one of
# these has to change, `_FORM` in hashing.py changes with it.
GOLDEN: list[tuple[dict[str, object], str]] = [
    ({}, "ebf457176f0114dc90a7b63b58c1d2fb"),
    ({"n": 1, "name": "ä", "flags": [True, None, 1.5]}, "c865acb3f1c687b3eb78dd1b162fb9b9"),
    ({"x": -0.0}, "d21c519825cd8827aadf70458f696a69"),
    ({"x": 1e16}, "ac5636c993bdc1331dbcc2ccd2313751"),
    ({"x": 1e-7}, "7716b3e39a03708c3d393ca0c22de4e2"),
    ({"x": math.nan}, "b4c9d3fa33e4898f4ba4b3734e1e7eb1"),
    ({"x": 10**400}, "4920e6c9812f79a925be319e77a9daba"),
    ({"x": "\0\ud800"}, "7e724af803d3d8bd362edc17c73edcee"),
    ({"x": {"$tuple": 1}}, "b67c9e8635da3de44031cd667c472f30"),
    ({"x": (1, [2], {3, 4, "5"})}, "19d52b826cf3e1f3b7fb283fc9df99f3"),
    ({"x": {2: "b", 1: "a", (3,): None}}, "51d6669366e4c30e30fcf17a67796cc1"),
    ({"x": b"abc", "y": bytearray(b"abc")}, "9f6fbf5198381725e8ff32e884b44625"),
    ({"x": collections.OrderedDict(b=1, a=2)}, "0d0f2b53f631f924af81f676b412d00c"),
    (
        {"x": collections.deque([1], 2), "y": collections.Counter("aab")},
        "bae5be511790f904369c970529d23e21",
    ),
    (
        {"x": dt.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN, fold=1)},
        "12e5971913a9b44d229bc5a4538451a1",
    ),
    ({"x": dt.timedelta(1), "y": dt.time(1, tzinfo=dt.UTC)}, "29ed75627034208513aa9ba6cd83732c"),
    ({"x": decimal.Decimal("1.10"), "y": uuid.UUID(int=7)}, "98f3b43e4afef5033ddd6ecfef9153fc"),
    ({"x": pathlib.PurePosixPath("/a"), "y": complex(0, -0.0)}, "5cb99fb2e4ed96a45343a8603943a1e2"),
    (
        {"x": Colour.RED, "y": Access.READ | Access.RUN, "z": Word.YES},
        "e9ea7a3f0563b6cea120cf70597e0edf",
    ),
    ({"x": Derived(1, note="not compared"), "y": Frozen("a")}, "9b518e72719ec57f67cb7e44a6650b52"),
    (
        {"x": Pair(1), "y": Item("n"), "z": FrozenItem(item_name=1)},
        "7c3ff38c7aad0b9ac596fa1db2143611",
    ),
    (
        {"self": Service(), "f": a_function, "g": len, "c": Service},
        "050eea68f352d6624f2f4170d2872aa6",
    ),
    (
        {"x": functools.partial(a_function, 1, k=2), "y": Service().method},
        "e1a223ca9e451391c8703c9d13c4dd4d",
    ),
]


@pytest.mark.parametrize(("inputs", "digest"), GOLDEN, ids=lambda _: "")
def test_hashes_are_those_of_earlier_versions(inputs: dict[str, object], digest: str) -> None:
    assert hash_inputs(inputs).hex() == digest


# -- Source ----------------------------------------------------------------------------------------


def test_functions_with_the_same_source_have_the_same_source_hash(tmp_path: pathlib.Path) -> None:
    top = load(tmp_path / "one.py", "def f(x):\n    return x + 1\n")["f"]
    indented = load(tmp_path / "two.py", "if True:\n    def f(x):\n        return x + 1\n")["f"]
    other = load(tmp_path / "three.py", "def f(x):\n    return x + 2\n")["f"]

    assert source_hash(top) == source_hash(indented)
    assert source_hash(top) != source_hash(other)


def test_the_source_hash_is_stable() -> None:
    assert source_hash(a_function) == "56ed26c82249efbd0837938a64edc800"


def test_a_decorated_function_counts_by_its_own_source(tmp_path: pathlib.Path) -> None:
    found = load(
        tmp_path / "wrapped.py",
        "import functools\n"
        "def wrap(f):\n"
        "    @functools.wraps(f)\n"
        "    def inner(*args): return f(*args)\n"
        "    return inner\n"
        "@wrap\n"
        "def one(): return 1\n"
        "@wrap\n"
        "def two(): return 2\n",
    )

    assert source_hash(found["one"]) != source_hash(found["two"])


@pytest.mark.parametrize("function", [len, functools.partial(a_function), Service()])
def test_what_has_no_source_has_no_source_hash(function: Any) -> None:
    assert source_hash(function) is None


def test_a_function_made_by_exec_has_no_source_hash() -> None:
    namespace: dict[str, Any] = {}
    exec("def f(): return 1", namespace)

    assert source_hash(namespace["f"]) is None


# -- Builders --------------------------------------------------------------------------------------


def load(path: pathlib.Path, source: str) -> dict[str, Any]:
    """The names that a module file defines."""
    path.write_text(source)
    linecache.checkcache(str(path))
    namespace: dict[str, Any] = {"__name__": path.stem}
    exec(compile(source, str(path), "exec"), namespace)
    return namespace
