"""What becomes of a parameter's value by its annotation: converted, passed by identity, refused."""

from __future__ import annotations

import collections
import dataclasses
import enum
import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Final,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Optional,
    Protocol,
    TypedDict,
    TypeVar,
    Union,
)
from uuid import UUID

import attrs
import msgspec
import pytest

from embedded_orch.engine.conversion import Compiler
from embedded_orch.engine.converters import Mismatch

T = TypeVar("T")
N = TypeVar("N", int, str)
B = TypeVar("B", bound=int)
Meta = msgspec.Meta
NEW_YEAR = datetime(2024, 1, 1)  # noqa: DTZ001 - naive ones are values too
UserId = NewType("UserId", int)
AN_ID = UUID("018f3f2e-0000-7000-8000-000000000001")


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


@dataclasses.dataclass
class Point:
    x: int
    y: float = 0.0
    near: list[Point] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Positive:
    value: int
    scale: dataclasses.InitVar[int] = 1

    def __post_init__(self, scale: int) -> None:
        if self.value < 0:
            raise ValueError("below zero")


@dataclasses.dataclass
class Box(Generic[T]):
    item: T


@attrs.define
class Person:
    name: str
    _age: int = 3


class Row(msgspec.Struct, rename="camel"):
    row_id: int
    point: Point | None = None


class Pair(NamedTuple):
    left: int
    right: str = "r"


class Settings(TypedDict):
    size: int
    unit: NotRequired[str]


class Closes(Protocol):
    def close(self) -> None: ...


class Other:
    pass


def convert(annotation: Any, value: Any) -> Any:
    converter = Compiler().converter(annotation)
    return value if converter is None else converter(value)


CONVERTED: list[tuple[Any, Any, Any]] = [
    (int, "1", 1),
    (int, " 1_000 ", 1000),
    (int, b"3", 3),
    (int, 2.0, 2),
    (int, Decimal(2), 2),
    (int, True, 1),
    (float, "1.5", 1.5),
    (float, 1, 1.0),
    (float, Decimal("0.5"), 0.5),
    (bool, "yes", True),
    (bool, "OFF", False),
    (bool, 1, True),
    (bool, 0.0, False),
    (str, b"text", "text"),
    (bytes, "text", b"text"),
    (complex, 2, 2 + 0j),
    (Decimal, 0.1, Decimal("0.1")),
    (Decimal, "1.10", Decimal("1.10")),
    (UUID, str(AN_ID), AN_ID),
    (UUID, AN_ID.bytes, AN_ID),
    (date, "2024-01-01", date(2024, 1, 1)),
    (date, NEW_YEAR, date(2024, 1, 1)),
    (date, "2024-01-01T00:00:00", date(2024, 1, 1)),
    (date, 86400, date(1970, 1, 2)),
    (datetime, "2024-01-01T10:00:00Z", datetime(2024, 1, 1, 10, tzinfo=UTC)),
    (datetime, "2024-01-01", NEW_YEAR),
    (datetime, date(2024, 1, 1), NEW_YEAR),
    (datetime, 0, datetime(1970, 1, 1, tzinfo=UTC)),
    (datetime, "1700000000", datetime.fromtimestamp(1700000000, UTC)),
    (datetime, 1700000000000, datetime.fromtimestamp(1700000000, UTC)),
    (time, "10:30", time(10, 30)),
    (time, 60, time(0, 1)),
    (timedelta, 5, timedelta(seconds=5)),
    (timedelta, "1.5", timedelta(seconds=1.5)),
    (timedelta, "PT5S", timedelta(seconds=5)),
    (timedelta, "1:30:00", timedelta(hours=1, minutes=30)),
    (timedelta, "1 day, 0:00:01.5", timedelta(days=1, seconds=1.5)),
    (timedelta, "-0:01", -timedelta(minutes=1)),
    (timedelta, str(-timedelta(hours=1)), -timedelta(hours=1)),
    (Path, "data/x.csv", Path("data/x.csv")),
    (ipaddress.IPv4Address, "127.0.0.1", ipaddress.IPv4Address("127.0.0.1")),
    (re.Pattern, "a+", re.compile("a+")),
    (Colour, "red", Colour.RED),
    (Level, "1", Level.LOW),
    (Optional[int], "1", 1),  # noqa: UP045 - the older form
    (int | float, "1.5", 1.5),
    (int | float, "1", 1),
    (date | str | None, NEW_YEAR, date(2024, 1, 1)),
    (list[int], ("1", 2), [1, 2]),
    (list[int], {3}, [3]),
    (list[int], (n for n in "12"), [1, 2]),
    (list[int], {"a": 1}.values(), [1]),
    (list, (1, 2), [1, 2]),
    (tuple[int, ...], ["1", "2"], (1, 2)),
    (tuple[int, str], ["1", "a"], (1, "a")),
    (set[int], ["1", "1"], {1}),
    (frozenset[str], ["a"], frozenset({"a"})),
    (collections.deque[int], ["1"], collections.deque([1])),
    (Sequence[int], ["1"], [1]),
    (Sequence[int], ("1",), (1,)),
    (dict[str, int], {"a": "1"}, {"a": 1}),
    (dict[int, list[date]], {"1": ["2024-01-01"]}, {1: [date(2024, 1, 1)]}),
    (Mapping[str, int], {"a": "1"}, {"a": 1}),
    (collections.OrderedDict[str, int], {"a": "1"}, collections.OrderedDict(a=1)),
    (Point, {"x": "1", "near": [{"x": 2}]}, Point(1, near=[Point(2)])),
    (Positive, {"value": "1", "scale": 2}, Positive(1)),
    (Box[int], {"item": "1"}, Box(1)),
    (list[Box[date]], [{"item": "2024-01-01"}], [Box(date(2024, 1, 1))]),
    (Person, {"name": "Ada", "age": "36"}, Person("Ada", 36)),
    (Row, {"rowId": "1", "point": {"x": 1}}, Row(1, Point(1))),
    (Pair, ["1", "a"], Pair(1, "a")),
    (Pair, {"left": "1"}, Pair(1)),
    (Settings, {"size": "1", "more": 2}, {"size": 1, "more": 2}),
    (UserId, "1", 1),
    (N, "1", "1"),
    (B, "1", 1),
    (Final[int], "1", 1),
    (Annotated[int, Meta(ge=1)], "1", 1),
    (Annotated[list[int], Meta(max_length=1)], ["1"], [1]),
]


@pytest.mark.parametrize(("annotation", "value", "wanted"), CONVERTED)
def test_value_is_converted(annotation: Any, value: Any, wanted: Any) -> None:
    converted = convert(annotation, value)

    assert converted == wanted
    assert type(converted) is type(wanted)


AN_OTHER = Other()
SAME: list[tuple[Any, Any]] = [
    (Any, AN_OTHER),
    (object, AN_OTHER),
    (Other, AN_OTHER),
    (Other | None, AN_OTHER),
    (Closes, AN_OTHER),
    ("not evaluated", AN_OTHER),
    (T, AN_OTHER),
    (list, [1]),
    (list[int], [1, 2]),
    (list[Any], [AN_OTHER]),
    (list[list[int]], [[1], [2]]),
    (tuple[int, ...], (1, 2)),
    (tuple[int, str], (1, "a")),
    (set[int], {1}),
    (Sequence[int], [1]),
    (Sequence[int], range(3)),
    (Iterator[int], iter([1])),
    (dict[str, list[int]], {"a": [1]}),
    (collections.Counter[str], collections.Counter("aa")),
    (collections.defaultdict[str, int], collections.defaultdict(int, a=1)),
    (Point, Point("not looked at")),  # type: ignore[arg-type]
    (list[Point], [Point(1)]),
    (Person, Person("Ada")),
    (Row, Row(1)),
    (Pair, Pair(1)),
    (Settings, {"size": 1, "more": 2}),
    (Colour, Colour.RED),
    (Literal["a", 1], "a"),
    (Literal[Colour.RED], Colour.RED),
    (int | str, "1"),
    (Union[list[int], dict[str, int]], {"a": 1}),  # noqa: UP007 - the older form
    (int | bool, True),
    (float | None, None),
    (Callable[[int], int], abs),
    (type[int], bool),
    (int, Level.LOW),
    (datetime, NEW_YEAR),
]


@pytest.mark.parametrize(("annotation", "value"), SAME)
def test_value_that_is_right_passes_by_identity(annotation: Any, value: Any) -> None:
    assert convert(annotation, value) is value


REFUSED: list[tuple[Any, Any, str]] = [
    (int, "a", "wanted int, got 'a' (str)"),
    (int, 1.5, "wanted int, got 1.5 (float)"),
    (int, float("inf"), "wanted int, got inf (float)"),
    (int, None, "wanted int, got None (NoneType)"),
    (bool, 2, "wanted bool, got 2 (int)"),
    (str, 1, "wanted str, got 1 (int)"),
    (str, Path("x"), f"wanted str, got {Path('x')!r} ({type(Path()).__name__})"),
    (date, NEW_YEAR.replace(hour=5), "wanted date, got datetime.datetime(2024, 1, 1, 5, 0) (dat"),
    (time, 86400, "wanted time, got 86400 (int)"),
    (timedelta, "soon", "wanted timedelta, got 'soon' (str)"),
    (Other, 3, "wanted Other, got 3 (int)"),
    (Colour, "RED", "wanted Colour ('red'), got 'RED' (str)"),
    (Literal["a", 1], "1", "wanted 'a' or 1, got '1' (str)"),
    (int | None, "a", "wanted int | None, got 'a' (str)"),
    (list[int], "12", "wanted list[int], got '12' (str)"),
    (list[int], {1: 2}, "wanted list[int], got {1: 2} (dict)"),
    (list[int], [1, "a"], "[1]: wanted int, got 'a' (str)"),
    (dict[str, Point], {"a": {"x": "q"}}, "['a'].x: wanted int, got 'q' (str)"),
    (tuple[int, str], [1], "wanted tuple[int, str], got [1] (list)"),
    (Point, {"y": 1}, "wanted Point, which needs x"),
    (Point, {"x": 1, "z": 1}, "Point has no 'z'"),
    (Point, 3, "wanted Point, got 3 (int)"),
    (Positive, {"value": -1}, "Positive refuses it: ValueError: below zero"),
    (Row, {"rowId": "q"}, "wanted Row: Expected `int`, got `str` - at `$.rowId`"),
    (Settings, {}, "wanted Settings, which needs size"),
    (Sequence[str], "abc", "wanted Sequence[str], got 'abc' (str)"),
    (Callable[[], int], 3, "wanted Callable, got 3 (int)"),
    (type[int], str, "wanted type[int], got <class 'str'> (type)"),
    (Annotated[int, Meta(gt=0)], "0", "wanted more than 0, got 0 (int)"),
    (Annotated[Decimal, Meta(le=1)], "1.5", "wanted at most 1, got Decimal('1.5') (Decimal)"),
    (Annotated[int, Meta(multiple_of=5)], 7, "wanted a multiple of 5, got 7 (int)"),
    (Annotated[str, Meta(pattern="^a")], "b", "wanted a text like '^a', got 'b' (str)"),
    (Annotated[list[int], Meta(min_length=1)], [], "wanted at least 1 long, got [] (list)"),
    (list[int], ["x" * 200], f"[0]: wanted int, got '{'x' * 78}… (str)"),
]


@pytest.mark.parametrize(("annotation", "value", "message"), REFUSED)
def test_value_that_does_not_fit_is_refused_and_said(
    annotation: Any, value: Any, message: str
) -> None:
    with pytest.raises(Mismatch) as refused:
        convert(annotation, value)

    assert f"{refused.value.path}: {refused.value.why}".removeprefix(": ").startswith(message)


def test_user_class_whose_repr_fails_is_refused_all_the_same() -> None:
    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError

    with pytest.raises(Mismatch, match="its text could not be made: RuntimeError"):
        convert(int, Odd())


class TestNumpy:
    def test_arrays_pass_and_numbers_become_pythons(self) -> None:
        numpy = pytest.importorskip("numpy")
        array = numpy.zeros(3)

        assert convert(numpy.ndarray, array) is array
        assert convert(Any, array) is array
        assert type(convert(int, numpy.int64(3))) is int
        assert convert(float, numpy.float32(0.5)) == 0.5
        assert convert(list[int], numpy.array([1, 2])) == [1, 2]
        with pytest.raises(Mismatch, match="wanted ndarray, got 3"):
            convert(numpy.ndarray, 3)


class TestPydantic:
    def test_models_are_made_of_dicts_and_pass_by_identity(self) -> None:
        pydantic = pytest.importorskip("pydantic")

        class Model(pydantic.BaseModel):  # type: ignore[misc, name-defined]
            size: int

        model = Model(size=1)

        assert convert(Model, model) is model
        assert convert(Model, {"size": "2"}) == Model(size=2)
        assert convert(list[Model], [model, {"size": 3}]) == [model, Model(size=3)]
        with pytest.raises(Mismatch, match="size: Input should be a valid integer"):
            convert(Model, {"size": "q"})

    def test_constraints_hold(self) -> None:
        pydantic = pytest.importorskip("pydantic")

        assert convert(pydantic.PositiveInt, "3") == 3
        with pytest.raises(Mismatch, match="wanted more than 0, got -1"):
            convert(pydantic.PositiveInt, -1)
        with pytest.raises(Mismatch, match="less than or equal to 5"):
            convert(Annotated[int, pydantic.Field(le=5)], 6)

    def test_field_of_a_dataclass_may_be_a_model(self) -> None:
        pydantic = pytest.importorskip("pydantic")

        class Model(pydantic.BaseModel):  # type: ignore[misc, name-defined]
            size: int

        made = convert(Box[Model], {"item": {"size": "2"}})

        assert made == Box(Model(size=2))
