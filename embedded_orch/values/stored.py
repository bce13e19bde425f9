"""A stored value as it lies in the database: bytes, and the name of their format.

The format is ``json`` for tagged JSON, or names another serializer.
"""

from __future__ import annotations

from embedded_orch.errors import MissingResult
from embedded_orch.values.codec import decode
from embedded_orch.values.serializers import load, serializer_of

JSON = "json"


def load_stored(data: bytes, data_format: str | None, *, runs_code: bool = True) -> object:
    """The value.

    Args:
        data: the bytes.
        data_format: what is stored beside them.
        runs_code: whether a serializer may be used that runs whatever the bytes say.

    Raises:
        MissingResult: it cannot be read, or would run code.
    """
    if data_format is None or data_format == JSON:
        return decode(data)
    serializer = serializer_of(data_format)
    if serializer.runs_code and not runs_code:
        raise MissingResult(
            f"the stored value was written by {serializer.type!r}, and reading it may run "
            f'anything; say result_serializer="{serializer.type}" to have it read'
        )
    return load(serializer, data)
