"""Bytes that somebody else wrote: our own error, nothing imported, nothing called."""

from __future__ import annotations

import enum
import importlib.util
import sys
import types
from dataclasses import make_dataclass

import pytest

from embedded_orch.errors import MissingResult
from embedded_orch.values import decode, preview
from tests.values import refused
from tests.values.builders import as_module, tagged
from tests.values.samples import Point

HERE = "tests.values.samples"


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

    with pytest.raises(MissingResult, match=r"instance of shop.models:Order.*import shop.models"):
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
    refused.deleted.clear()
    kind = "$struct" if "Struct" in class_name else "$dataclass"

    with pytest.raises(MissingResult, match=class_name):
        decode(tagged(kind, [f"{refused.__name__}:{class_name}", {"x": 1}]))

    assert refused.deleted == []


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
    class Odd(enum.Flag):
        ONE = 1

        @classmethod
        def _missing_(cls, value: object) -> object:
            raise AssertionError("called")

    with as_module("shop", Odd=Odd), pytest.raises(MissingResult, match="combines its members"):
        decode(tagged("$flag", ["shop:Odd", 4]))


@pytest.mark.parametrize("data", [*HOSTILE, b"[\x1b\xff" + b"x" * 300_000], ids=lambda _: "")
def test_a_preview_of_anything_is_a_printable_line(data: bytes) -> None:
    assert preview(data).isprintable()
