"""A stored value as a line for people."""

from __future__ import annotations

import datetime as dt
import decimal
import math
import pathlib
import zoneinfo

import pytest

from embedded_orch.values import encode, preview
from tests.values.builders import nested, tagged
from tests.values.samples import Access, Colour, Outer, Point

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")


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


def test_a_preview_looks_up_no_class() -> None:
    data = tagged("$dataclass", ["not_loaded.shop:Order", {"number": {"$tuple": [1]}}])

    assert preview(data) == "Order(number=(1,))"
