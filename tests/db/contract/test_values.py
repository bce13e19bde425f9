from __future__ import annotations

import datetime as dt
import decimal
import enum
import math
from typing import Any
from uuid import UUID

import msgspec
import pytest

from embedded_orch.errors import DatabaseError
from tests.db.contract.probe import Probe

_COLUMNS = ("id", "number", "note", "amount", "data", "has_data", "labels")


class Colour(enum.StrEnum):
    RED = "red"


def stored(probe: Probe, **values: object) -> dict[str, Any]:
    """A row with the values, as it comes back."""
    id = probe.new_id()
    probe.database.write(probe.insert(**{"number": 1, **values}, id=id))  # type: ignore[arg-type]
    row = probe.database.read(lambda tx: tx.row("probe.get", id=id))
    assert row is not None
    assert row[0] == id
    return dict(zip(_COLUMNS, row, strict=True))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("number", 0),
        ("number", 2**63 - 1),
        ("number", -(2**63)),
        ("note", ""),
        ("note", "é 😀 e\u0301 \u202e \r\n\t"),
        ("note", "%s %(name)s $1 ?1 :name 'quoted' \"twice\" \\ --comment"),
        ("note", "x" * 1_000_000),
        ("amount", 0.1),
        ("amount", -0.0),
        ("amount", 5e-324),
        ("amount", math.inf),
        ("data", b""),
        ("data", bytes(range(256))),
        ("data", b"\0" * 1_000_000),
        ("has_data", True),
        ("has_data", False),
        ("note", None),
        ("data", None),
        ("has_data", None),
        ("labels", None),
    ],
)
def test_a_value_comes_back_equal_and_of_its_type(probe: Probe, column: str, value: object) -> None:
    found = stored(probe, **{column: value})[column]

    assert found == value
    assert type(found) is type(value)


def test_an_id_comes_back_as_a_uuid(probe: Probe) -> None:
    assert type(stored(probe)["id"]) is UUID


@pytest.mark.parametrize(
    "value",
    [{}, {"a": [1, 2.5, None, True, "é"], "b": {"c": {}}}, {"quote'": '"\\'}, [1], "text", 3],
)
def test_json_comes_back_as_the_value_it_encodes(probe: Probe, value: object) -> None:
    encoded = msgspec.json.encode(value).decode()

    assert stored(probe, labels=encoded)["labels"] == value


def test_a_member_of_a_string_enum_is_stored_as_its_value(probe: Probe) -> None:
    assert stored(probe, note=Colour.RED)["note"] == "red"


@pytest.mark.parametrize(
    "value",
    [[1], {"a": 1}, (1,), {1}, dt.date(2026, 1, 1), decimal.Decimal(1), object()],
    ids=lambda value: type(value).__name__,
)
def test_a_value_of_any_other_type_is_refused_and_nothing_is_written(
    probe: Probe, value: object
) -> None:
    with pytest.raises(TypeError, match=f"a {type(value).__name__} cannot be bound"):
        probe.database.write(probe.insert(1, note=value))

    assert probe.numbers() == []


def test_a_number_too_large_for_the_database_is_refused(probe: Probe) -> None:
    with pytest.raises(OverflowError):
        probe.database.write(probe.insert(2**63))

    assert probe.numbers() == []


def test_half_a_character_is_refused(probe: Probe) -> None:
    with pytest.raises(UnicodeEncodeError):
        probe.database.write(probe.insert(1, note="file\udcff"))

    assert probe.numbers() == []


def test_a_nul_character_is_kept_by_sqlite_and_refused_by_postgres(probe: Probe) -> None:
    """Postgres has no way to store one in text; nothing is cut off at it without a word."""
    if probe.database.dialect == "sqlite":
        assert stored(probe, note="a\0b")["note"] == "a\0b"
        return
    with pytest.raises(DatabaseError, match="NUL"):
        probe.database.write(probe.insert(1, note="a\0b"))
    assert probe.numbers() == []
