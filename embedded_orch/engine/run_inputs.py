"""What a run waits for: a class or type as a JSON Schema, and JSON as its value again.

A class with fields (a ``RunInput``, dataclass, attrs class, Struct or model of pydantic) is an
object; any other type is an object with the one field ``value``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from embedded_orch import errors
from embedded_orch.engine.conversion import Compiler, is_pydantic
from embedded_orch.engine.converters import Mismatch
from embedded_orch.engine.parameter_schema import as_json, schema_of

if TYPE_CHECKING:
    from embedded_orch.engine.converters import Convert

Keyset = dict[str, str]


def keyset_of(base: str) -> Keyset:
    """The keys under which what a run waits for is described and answered."""
    return {kind: f"{base}-{kind}" for kind in ("description", "response", "schema")}


class WantedInput:
    """What a run waits for.

    Args:
        kind: the class or type.

    Attributes:
        title: of the class or type.
        description: for people; None when there is none.
    """

    __slots__ = ("_convert", "_has_fields", "description", "kind", "title")

    def __init__(self, kind: Any) -> None:
        self.kind = kind
        self.title = str(getattr(kind, "__name__", kind))
        self.description: str | None = getattr(kind, "_description", None)
        self._has_fields = _has_fields(kind)
        self._convert: Convert | None = Compiler().converter(kind)

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the answer, always of an object."""
        definitions: dict[str, Any] = {}
        found = schema_of(self.kind, definitions)
        if self._has_fields:
            name = found.get("$ref", "").rpartition("/")[2]
            found = {**definitions.get(name, found)}
        else:
            found = {"type": "object", "properties": {"value": found}, "required": ["value"]}
        found = {"additionalProperties": False, **found, "title": self.title}
        return {**found, "definitions": definitions} if definitions else found

    def load(self, answer: dict[str, Any]) -> Any:
        """The value that an answer stands for.

        Raises:
            RunInputError: it does not fit.
        """
        try:
            given: Any = answer if self._has_fields else answer["value"]
            return given if self._convert is None else self._convert(given)
        except (KeyError, Mismatch) as error:
            why = "value: needed, and not given"
            if isinstance(error, Mismatch):
                why = f"{error.path.lstrip('.') or 'value'}: {error.why}"
            raise errors.RunInputError(f"the input does not fit {self.title}: {why}") from error

    @property
    def is_wrapped(self) -> bool:
        """Whether an answer is an object with the value in it, and not the value."""
        return not self._has_fields

    def as_answer(self, value: Any) -> Any:
        """The answer that a value, as JSON holds it, is or stands in."""
        return {"value": value} if self.is_wrapped else value

    def dump(self, value: Any) -> dict[str, Any]:
        """The JSON that stands for a value."""
        if not self._has_fields:
            return as_json({"value": value})
        found = as_json({"value": value})["value"]
        assert isinstance(found, dict)
        return found

    def __repr__(self) -> str:
        return f"<WantedInput {self.title}>"


def _has_fields(kind: Any) -> bool:
    if not isinstance(kind, type):
        return False
    return (
        issubclass(kind, msgspec.Struct)
        or hasattr(kind, "__dataclass_fields__")
        or hasattr(kind, "__attrs_attrs__")
        or (is_pydantic(kind) and hasattr(kind, "model_fields"))
    )
