"""Instances of the classes that say what their fields are: stored, built again, changed since."""

from __future__ import annotations

import math
import pathlib
from dataclasses import dataclass, field, make_dataclass
from typing import NamedTuple

import pytest

from embedded_orch.errors import MissingResult, ValueNotStorable
from embedded_orch.values import decode, encode
from tests.values.builders import as_module, run_python
from tests.values.samples import Box, Circle, Colour, Derived, Frozen, Point, is_same


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


# -- Equality --------------------------------------------------------------------------------------


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


# -- The main module -------------------------------------------------------------------------------

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
