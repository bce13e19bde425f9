"""How result columns become Python values, decided by the column's name, once for both engines.

Every id is a ``uuid.UUID``, every JSON column a Python value, every flag a ``bool``, on SQLite as
on Postgres. Times stay integers of microseconds here; rows that people see turn them into aware
datetimes. Parameters stay text: they are decoded with their tags when somebody looks at them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from embedded_orch.process import uuid_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from embedded_orch.db.statements import Dialect

    Decoder = Callable[[object], object]
    Decoders = tuple[tuple[int, Decoder], ...]

_FLAGS = frozenset(
    {
        "auto_scheduled",
        "enforce_parameter_schema",
        "has_data",
        "is_active",
        "is_over",
        "is_overdue",
        "is_paused",
        "owes_hooks",
        "paused",
        "pool_is_paused",
    }
)
_JSON = frozenset(
    {
        "base_job_template",
        "buckets",
        "concurrency_options",
        "created_by",
        "empirical_policy",
        "job_variables",
        "json_data",
        "json_value",
        "labels",
        "metadata",
        "parameter_openapi_schema",
        "state_details",
        "states",
        "tags",
        "task_inputs",
        "unstored_parameters",
    }
)
_NOT_UUIDS = frozenset({"boot_id"})
_BYTES = frozenset({"data", "parameters_hash"})
_TEXT = frozenset({"parameters"})


def _uuid_from_bytes(value: object) -> object:
    return uuid_of(int.from_bytes(value, "big")) if type(value) is bytes else value


def _json(value: object) -> object:
    return msgspec.json.decode(value) if isinstance(value, (str, bytes)) else value


def _text(value: object) -> object:
    return value.decode() if type(value) is bytes else value


def decoders(names: Sequence[str], dialect: Dialect) -> Decoders:
    """The columns of a result that need decoding, by position, each with its decoder."""
    found: list[tuple[int, Decoder]] = []
    for position, name in enumerate(names):
        if name in _JSON:
            found.append((position, _json))
        elif dialect == "sqlite" and name in _FLAGS:
            found.append((position, bool))
        elif name in _TEXT and dialect == "postgres":
            found.append((position, _text))
        elif name in _BYTES or name in _NOT_UUIDS:
            continue
        elif dialect == "sqlite" and (name == "id" or name.endswith("_id")):
            found.append((position, _uuid_from_bytes))
    return tuple(found)


def decode_rows(rows: list[tuple[object, ...]], how: Decoders) -> list[tuple[object, ...]]:
    """The rows with their columns decoded; NULL stays ``None``."""
    if not how:
        return rows
    decoded: list[tuple[object, ...]] = []
    for row in rows:
        values = list(row)
        for position, decode in how:
            if values[position] is not None:
                values[position] = decode(values[position])
        decoded.append(tuple(values))
    return decoded
