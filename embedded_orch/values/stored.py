"""A stored value as it lies in the database: bytes, and the name of their format.

The format is ``json`` for tagged JSON, or names another serializer, or a place outside of the row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedded_orch.errors import MissingResult
from embedded_orch.values.codec import decode
from embedded_orch.values.places import is_outside
from embedded_orch.values.serializers import load, serializer_of

if TYPE_CHECKING:
    from embedded_orch.values.places import Places

JSON = "json"


def load_stored(
    data: bytes,
    data_format: str | None,
    *,
    runs_code: bool = True,
    places: Places | None = None,
) -> object:
    """The value.

    Args:
        data: the bytes.
        data_format: what is stored beside them.
        runs_code: whether a serializer may be used that runs whatever the bytes say.
        places: where the values of the database are that are not in its rows.

    Raises:
        MissingResult: it cannot be read, or would run code.
    """
    if data_format is None or data_format == JSON:
        return decode(data)
    if is_outside(data_format):
        if places is None:
            raise MissingResult("the result is outside of the database, and it is not known which")
        if not runs_code:
            refuse_code(data_format.partition(" ")[2])
        data, data_format = places.get(data, data_format)
        return load_stored(data, data_format, runs_code=runs_code)
    if not runs_code:
        refuse_code(data_format)
    return load(serializer_of(data_format), data)


def refuse_code(data_format: str) -> None:
    """Refuse a value whose bytes may run anything when they are read.

    Raises:
        MissingResult: it is such a one, or its serializer is not known here.
    """
    serializer = serializer_of(data_format)
    if serializer.runs_code:
        raise MissingResult(
            f"the stored value was written by {serializer.type!r}, and reading it may run "
            f'anything; say result_serializer="{serializer.type}" to have it read'
        )
