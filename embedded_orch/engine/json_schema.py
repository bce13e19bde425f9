"""Checking a value against a JSON Schema, as far as our own schemas of inputs go.

The process that resumes a run need not know the class of the input that the run waits for: it has
the schema that the run left behind. What a schema says beyond the words known here is checked by
the run itself, when it makes its object.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
    "null": type(None),
}

Schema = Mapping[str, Any]


def problems(schema: Schema, value: object) -> list[str]:
    """What is wrong with a value, each with its place in it; nothing when it fits."""
    return list(_Check(schema).of(schema, value, ""))


class _Check:
    def __init__(self, root: Schema) -> None:
        self._root = root

    def of(self, schema: Schema, value: object, place: str) -> list[str]:
        """The problems of the value at a place."""
        reference = schema.get("$ref")
        if reference is not None:
            return self.of(self._resolved(str(reference)), value, place)
        several = schema.get("anyOf") or schema.get("oneOf")
        if several is not None:
            each = [self.of(one, value, place) for one in several]
            return [] if [] in each else min(each, key=len)
        found = [
            problem for one in schema.get("allOf", ()) for problem in self.of(one, value, place)
        ]
        wrong = _wrong_type(schema, value) or _wrong_value(schema, value)
        if wrong is not None:
            return [*found, f"{place or 'the input'}: {wrong}"]
        if isinstance(value, dict):
            found += self._of_object(schema, value, place)
        if isinstance(value, list) and isinstance(schema.get("items"), dict):
            for index, item in enumerate(value):
                found += self.of(schema["items"], item, f"{place}[{index}]")
        return found

    def _of_object(self, schema: Schema, value: dict[str, Any], place: str) -> list[str]:
        properties: Schema = schema.get("properties", {})
        more = schema.get("additionalProperties", True)
        found = [
            f"{_inside(place, name)}: needed, and not given"
            for name in schema.get("required", ())
            if name not in value
        ]
        for name, item in value.items():
            inner = properties.get(name, more)
            if inner is False:
                known = ", ".join(properties) or "none"
                found.append(f"{_inside(place, name)}: there is no such field; there are {known}")
            elif isinstance(inner, dict):
                found += self.of(inner, item, _inside(place, name))
        return found

    def _resolved(self, reference: str) -> Schema:
        found: Any = self._root
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
        schema: Schema = found
        return schema


def _inside(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def _wrong_type(schema: Schema, value: object) -> str | None:
    kind = schema.get("type")
    if kind is None:
        return None
    kinds = kind if isinstance(kind, list) else [kind]
    for each in kinds:
        is_flag = isinstance(value, bool) and each in ("integer", "number")
        if isinstance(value, _TYPES.get(each, object)) and not is_flag:
            return None
    return f"{value!r} is no {' or '.join(kinds)}"


def _wrong_value(schema: Schema, value: object) -> str | None:
    if "const" in schema and value != schema["const"]:
        return f"{value!r} is not {schema['const']!r}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{value!r} is none of {', '.join(map(repr, schema['enum']))}"
    if isinstance(value, (int, float)):
        return _out_of_range(schema, value, "minimum", "maximum", what="")
    if isinstance(value, str):
        pattern = schema.get("pattern")
        if pattern is not None and re.search(pattern, value) is None:
            return f"{value!r} does not match {pattern!r}"
        return _out_of_range(schema, len(value), "minLength", "maxLength", what="its length ")
    if isinstance(value, list):
        return _out_of_range(schema, len(value), "minItems", "maxItems", what="its length ")
    return None


def _out_of_range(schema: Schema, number: float, least: str, most: str, *, what: str) -> str | None:
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if least in schema and number < schema[least]:
        return f"{what}{number!r} is less than {schema[least]}"
    if most in schema and number > schema[most]:
        return f"{what}{number!r} is more than {schema[most]}"
    if above is not None and number <= above:
        return f"{what}{number!r} is not more than {above}"
    if below is not None and number >= below:
        return f"{what}{number!r} is not less than {below}"
    return None
