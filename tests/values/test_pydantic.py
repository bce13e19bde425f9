"""Models of pydantic, its time zones and its addresses: stored by their fields, built again."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import functools
import threading
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedded_orch.errors import MissingResult, ValueNotStorable
from embedded_orch.values import decode, encode, hash_inputs, preview
from tests.values.builders import as_module, run_python, tagged
from tests.values.samples import Point, is_same, values

if TYPE_CHECKING:
    import pydantic
else:
    pydantic = pytest.importorskip("pydantic", "2.10")

T = TypeVar("T")
SLOTS = {
    "__pydantic_fields_set__": {"$set": []},
    "__pydantic_extra__": None,
    "__pydantic_private__": None,
}


class Size(enum.Enum):
    SMALL = "s"


class Line(pydantic.BaseModel):
    article: str
    count: Annotated[int, pydantic.Field(gt=0)] = 1
    price: decimal.Decimal = decimal.Decimal("1.10")


class Order(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, validate_default=True)

    id: int = pydantic.Field(alias="orderId")
    lines: list[Line] = []  # noqa: RUF012 (pydantic copies it)
    size: Size = Size.SMALL
    at: dt.datetime | None = None
    shop: pydantic.HttpUrl | None = None
    anything: Any = None

    @pydantic.field_validator("id")
    @classmethod
    def _next(cls, value: int) -> int:
        return value + 1  # so that validating again would give another order

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @functools.cached_property
    def total(self) -> int:
        return sum(line.count for line in self.lines)


class Open(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")

    x: Any = None
    _seen: Any = pydantic.PrivateAttr(default=0)


class Names(pydantic.RootModel[dict[str, Any]]):
    pass


class Box(pydantic.BaseModel, Generic[T]):
    content: T


IntBox = Box[int]


class Locked(pydantic.BaseModel):
    _lock: Any = pydantic.PrivateAttr(default_factory=threading.Lock)


class Secretive(pydantic.BaseModel):
    password: pydantic.SecretStr


class Never(pydantic.BaseModel):
    x: int = 1

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]


@pydantic.dataclasses.dataclass
class Checked:
    x: int


def box_of(kind: Any, content: Any) -> Any:
    """A box of a class that no module has."""
    return Box[kind](content=content)


def same(one: Any, other: Any) -> bool:
    """Whether two models differ in nothing, not even in what was given and what is private."""
    return type(one) is type(other) and all(
        is_same(getattr(one, name), getattr(other, name))
        for name in ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__")
    )


MODELS = [
    Line(article="pen"),
    Order(orderId=1, lines=[Line(article="pen", count=2)], at="2024-05-01T10:00:00+02:00"),
    Order(orderId=2, shop="http://example.org/a?b"),
    Open(x={1: {2}}, y=(1, 2)),
    Names({"a": {1}}),
    Box[int](content=1),
    IntBox(content=2),
    Checked(x=1),
]


@pytest.mark.parametrize("value", MODELS, ids=lambda value: type(value).__name__)
def test_a_model_comes_back_equal_without_being_validated_again(value: Any) -> None:
    read = decode(encode([value]))

    assert read == [value]
    assert isinstance(read, list)
    assert is_same(vars(read[0]), vars(value))
    assert type(read[0]) is type(value)


@given(st.builds(lambda x, y: Open(x=x, y=y), values, values))
def test_a_model_comes_back_whatever_its_fields_hold(value: Open) -> None:
    value._seen = value.x

    read = decode(encode(value))

    assert isinstance(read, Open)
    assert same(read, value)
    assert is_same(read._seen, value._seen)


def test_what_was_given_is_known_of_a_model_that_came_back() -> None:
    read = decode(encode(Line(article="pen", count=1)))

    assert isinstance(read, Line)
    assert read.model_dump(exclude_unset=True) == {"article": "pen", "count": 1}
    with pytest.raises(pydantic.ValidationError):
        Line.model_validate({"article": "pen", "count": 0})


def test_what_a_cached_property_keeps_is_computed_again() -> None:
    order = Order(orderId=1, lines=[Line(article="pen", count=3)])
    assert order.total == 3

    read = decode(encode(order))

    assert isinstance(read, Order)
    assert "total" not in vars(read)
    assert read.total == 3


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (Locked(), "__pydantic_private__['_lock'] is of type _thread:lock"),
        (Secretive(password="x"), ".password is of type pydantic.types:SecretStr"),
        (Never(), "its own == says"),
        (box_of(Line, MODELS[0]), "its class is not what"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_model_that_would_not_come_back_is_refused(value: Any, said: str) -> None:
    with pytest.raises(ValueNotStorable) as caught:
        encode(value)

    assert said in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        pydantic.HttpUrl("http://exämple.org:80/a?b#c"),
        pydantic.PostgresDsn("postgres://user:pw@one:1,two:2/shop"),
        pydantic.RedisDsn("redis://one"),
        pydantic.TypeAdapter(dt.datetime).validate_python("2024-05-01T10:00:00-05:30"),
        pydantic.TypeAdapter(dt.time).validate_python("10:00:00Z"),
    ],
    ids=repr,
)
def test_addresses_and_times_that_pydantic_made_come_back(value: Any) -> None:
    read: Any = decode(encode(value))

    assert read == value
    assert repr(read) == repr(value)
    assert type(read) is type(value)


def test_a_model_counts_by_what_its_equality_compares() -> None:
    given_x = hash_inputs({"order": Open(x=None)})

    assert given_x == hash_inputs({"order": Open()})
    assert given_x != hash_inputs({"order": Open(x=1)})
    assert given_x != hash_inputs({"order": Open(y=None)})


def test_a_preview_shows_the_fields_of_a_model() -> None:
    assert (
        preview(encode(Line(article="pen")))
        == "Line(article='pen', count=1, price=decimal('1.10'))"
    )


def test_a_field_added_later_gets_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    older = pydantic.create_model("Grown", x=(int, ...))
    newer = pydantic.create_model("Grown", x=(int, ...), y=(int, 5))
    changing = pydantic.create_model("Grown", x=(int, ...), y=(list[int], []))
    with as_module("grown_models", Grown=older):
        data = encode(older(x=1))
    with as_module("grown_models", Grown=newer):
        assert decode(data) == newer(x=1)
    with as_module("grown_models", Grown=changing), pytest.raises(MissingResult, match="field y"):
        decode(data)


@pytest.mark.parametrize(
    "data",
    [
        tagged("$pydantic", [f"{__name__}:Line", {"article": "a", "count": 1, "price": 1}]),
        tagged("$pydantic", [f"{__name__}:Point", {"x": 1, "y": 1}]),
        tagged("$pydantic", [f"{__name__}:Checked", {"x": 1, **SLOTS}]),
        tagged("$dataclass", [f"{__name__}:Open", {"x": 1, **SLOTS}]),
        tagged("$pydantic", [f"{__name__}:Open", {"x": 1, **SLOTS, "__pydantic_extra__": []}]),
        tagged("$pydantic", ["pydantic.main:BaseModel.model_validate", {}]),
        tagged("$address", ["BaseModel", "Url", "http://a"]),
        tagged("$address", ["import_email_validator", "Url", "http://a"]),
        tagged("$address", ["HttpUrl", "TzInfo", "http://a"]),
        tagged("$address", ["HttpUrl", "Url", "nonsense"]),
        tagged("$tzinfo", "x"),
        tagged("$tzinfo", 10**9),
    ],
)
def test_bytes_that_make_no_sense_raise(data: bytes) -> None:
    assert Point is not None
    with pytest.raises(MissingResult):
        decode(data)


def test_pydantic_is_not_imported_to_read_a_value_of_its() -> None:
    said = run_python(
        "import sys\n"
        "from embedded_orch.values import decode\n"
        "from embedded_orch.errors import MissingResult\n"
        "try:\n"
        "    decode(b'{\"$tzinfo\": 0}')\n"
        "except MissingResult as error:\n"
        "    print('pydantic' in sys.modules, error)\n"
    )

    assert said.startswith("False the stored value holds a value of pydantic")
