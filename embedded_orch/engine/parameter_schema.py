"""The parameters of a flow as a JSON Schema, in the form that Prefect gives it."""

from __future__ import annotations

import sys
from datetime import datetime, time
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from embedded_orch.engine.conversion import is_pydantic
from embedded_orch.engine.converters import bounds_in
from embedded_orch.engine.parameters import annotations_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from embedded_orch.engine.signatures import Signature

_REFERENCES = "#/definitions/"
# What calls fill in by themselves.
_IMPLICIT = ("self", "cls")
# msgspec gives these a format only with a rule for their time zone.
_FORMATS: Mapping[Any, str] = {datetime: "date-time", time: "time"}


class ParameterSchema(msgspec.Struct):
    """A JSON Schema of the parameters of a flow.

    Attributes:
        title: "Parameters".
        type: "object".
        properties: the schema of each parameter, with its position.
        required: the parameters without a default.
        definitions: schemas that others refer to.
    """

    title: Literal["Parameters"] = "Parameters"
    type: Literal["object"] = "object"
    properties: dict[str, Any] = {}
    required: list[str] = []
    definitions: dict[str, Any] = {}

    def model_dump(self) -> dict[str, Any]:
        """The schema as a dict."""
        dumped: dict[str, Any] = msgspec.to_builtins(self)
        return dumped

    def model_dump_for_openapi(self) -> dict[str, Any]:
        """The schema as a dict that OpenAPI takes: an empty ``required`` is left out."""
        dumped = self.model_dump()
        if not dumped["required"]:
            del dumped["required"]
        return dumped


def parameter_schema(function: Callable[..., Any], signature: Signature) -> ParameterSchema:
    """The schema of a function's parameters; what JSON Schema cannot say is left open."""
    import inspect

    annotations = annotations_of(function, signature)
    descriptions = described_arguments(inspect.getdoc(function) or "")
    schema = ParameterSchema()
    for position, name in enumerate(signature.parameters):
        if name in _IMPLICIT:
            continue
        found = schema_of(annotations[name], schema.definitions) if name in annotations else {}
        if name == signature.var_positional:
            found = {"type": "array", "items": found}
        elif name == signature.var_keyword:
            found = {"type": "object", "additionalProperties": found}
        elif name in signature.defaults:
            found |= _default(signature.defaults[name])
        else:
            schema.required.append(name)
        if name in descriptions:
            found["description"] = descriptions[name]
        schema.properties[name] = {**found, "title": name, "position": position}
    return schema


def as_json(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as JSON would hold them; what it cannot is named by its type in brackets."""
    return {name: _as_json(value) for name, value in parameters.items()}


def _as_json(value: Any) -> Any:
    try:
        return msgspec.to_builtins(value, str_keys=True, enc_hook=_dumped)
    except (TypeError, ValueError, RecursionError):
        return f"<{type(value).__name__}>"


def _dumped(value: Any) -> Any:
    import pathlib

    if isinstance(value, pathlib.PurePath):
        return str(value)
    if hasattr(value, "__pydantic_validator__") and hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    raise TypeError(value)


def schema_of(annotation: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of an annotation; those that it refers to are added to the definitions."""
    if is_pydantic(annotation):
        return _by_pydantic(annotation, definitions)
    if annotation in _FORMATS:
        return {"type": "string", "format": _FORMATS[annotation]}
    bounds = bounds_in(getattr(annotation, "__metadata__", ()))
    if bounds:
        annotation = Annotated[annotation.__origin__, msgspec.Meta(**bounds)]

    def other(kind: Any) -> dict[str, Any]:
        if is_pydantic(kind):
            return _by_pydantic(kind, definitions)
        is_path = kind.__module__.startswith("pathlib")
        return {"type": "string", "format": "path"} if is_path else {}

    try:
        [schema], components = msgspec.json.schema_components(
            (annotation,), schema_hook=other, ref_template=f"{_REFERENCES}{{name}}"
        )
    except (TypeError, RuntimeError):
        # A type that msgspec does not know, such as a callable.
        return {}
    definitions.update(components)
    return schema


def _by_pydantic(annotation: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    adapter = sys.modules["pydantic"].TypeAdapter(annotation)
    schema: dict[str, Any] = adapter.json_schema(ref_template=f"{_REFERENCES}{{model}}")
    definitions.update(schema.pop("$defs", {}))
    name = getattr(annotation, "__name__", None)
    if name is None or schema.get("type") != "object":
        return schema
    definitions[name] = schema
    return {"$ref": f"{_REFERENCES}{name}"}


def _default(value: Any) -> dict[str, Any]:
    if type(value).__module__ == "pydantic.fields":
        return {} if value.is_required() else _default(value.get_default())
    try:
        return {"default": msgspec.to_builtins(value, str_keys=True, enc_hook=_dumped)}
    except (TypeError, ValueError, RecursionError):
        # A default that JSON cannot hold is no less a default.
        return {}


def described_arguments(docstring: str) -> dict[str, str]:
    """What the ``Args:`` section of a docstring says of each argument.

    Args:
        docstring: cleaned, as ``inspect.getdoc`` gives it.
    """
    found: dict[str, str] = {}
    indent, name = None, ""
    lines = iter(docstring.splitlines())
    for line in lines:
        if line.strip() in ("Args:", "Arguments:", "Parameters:", "Params:"):
            break
    for line in lines:
        if not line.strip():
            continue
        depth = len(line) - len(line.lstrip())
        if depth == 0:
            break
        indent = indent or depth
        if depth == indent:
            head, colon, text = line.strip().partition(":")
            name = head.partition(" ")[0].lstrip("*") if colon else ""
            if name:
                found[name] = text.strip()
        elif name:
            found[name] += f"\n{line.strip()}"
    return found
