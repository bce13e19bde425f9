"""The parameters of a flow: checked and converted before its function is called.

What a flow's annotations ask for is read and compiled at its first call, once. A call with values
that are right already then costs a look at the type of each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from embedded_orch.engine.conversion import Compiler, hints_of
from embedded_orch.engine.converters import Mismatch
from embedded_orch.errors import ParameterBindError, ParameterTypeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from embedded_orch.engine.converters import Convert
    from embedded_orch.engine.signatures import Signature

_MISSING: Any = object()


class Parameters:
    """What the parameters of one function have to be."""

    __slots__ = ("_checks", "_fields", "_name", "_signature")

    def __init__(self, function: Callable[..., Any], signature: Signature, *, name: str) -> None:
        """Read the annotations.

        Args:
            function: that is called.
            signature: of the function.
            name: of the flow, for messages.
        """
        self._name = name
        self._signature = signature
        self._checks: list[tuple[str, Any, Convert]] = []
        # Parameters whose default is pydantic's Field(default=..., gt=...).
        defaults: Mapping[str, Any] = signature.defaults
        self._fields: dict[str, Any] = {
            parameter: default
            for parameter, default in defaults.items()
            if type(default).__module__ == "pydantic.fields"
        }
        compiler = Compiler()
        annotations = annotations_of(function, signature)
        for parameter, field in self._fields.items():
            annotations[parameter] = Annotated[annotations.get(parameter, Any), field]
        for parameter, annotation in annotations.items():
            convert = compiler.converter(annotation)
            if convert is None:
                continue
            if parameter == signature.var_positional:
                convert = compiler.elements(convert)
            elif parameter == signature.var_keyword:
                convert = compiler.values(convert)
            self._checks.append((parameter, getattr(convert, "exact", None), convert))

    def filled(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """The arguments, with the values of defaults that only describe their value."""
        missing: dict[str, Any] = {
            name: field.get_default(call_default_factory=True)
            for name, field in self._fields.items()
            if name in arguments and arguments[name] is field
        }
        return {**arguments, **missing} if missing else arguments

    def validated(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """All parameters as the function would get them, with its defaults for those left out.

        Raises:
            ParameterBindError: one of them is none of the function's.
            ParameterTypeError: some are missing or do not fit.
        """
        names = self._signature.parameters
        unknown = [name for name in parameters if name not in names]
        if unknown:
            raise ParameterBindError(
                f"flow {self._name} has no parameter {', '.join(map(repr, unknown))}; it takes "
                f"{', '.join(names) or 'none'}"
            )
        variable = (self._signature.var_positional, self._signature.var_keyword)
        empty: dict[Any, Any] = dict(zip(variable, ((), {}), strict=True))
        found = {**self._signature.defaults, **empty, **parameters}
        missing = [name for name in names if name not in found and name not in ("self", "cls")]
        given = {name: found[name] for name in names if name in found}
        return dict(self.converted(self.filled(given), missing))

    def converted(
        self, arguments: Mapping[str, Any], missing: Iterable[str] = ()
    ) -> Mapping[str, Any]:
        """The arguments as the function wants them; the very same when nothing is to be done.

        Args:
            arguments: by parameter.
            missing: parameters without a value, to be complained of.

        Raises:
            ParameterTypeError: some of them do not fit; the message names each.
        """
        changed: dict[str, Any] = {}
        problems = [f"{name}: needed, and not given" for name in missing]
        defaults = self._signature.defaults
        for name, exact, convert in self._checks:
            value = arguments.get(name, _MISSING)
            # None as a default needs no annotation that says so.
            if type(value) is exact or value is _MISSING:
                continue
            if value is None and defaults.get(name, name) is None:
                continue
            try:
                new = convert(value)
            except Mismatch as mismatch:
                problems.append(f"{name}{mismatch.path}: {mismatch.why}")
                continue
            if new is not value:
                changed[name] = new
        if problems:
            raise ParameterTypeError(
                f"flow {self._name} was called with parameters that do not fit:\n - "
                + "\n - ".join(problems)
            )
        return {**arguments, **changed} if changed else arguments


def annotations_of(function: Callable[..., Any], signature: Signature) -> dict[str, Any]:
    """The evaluated annotation of each parameter that has one.

    What only a type checker can evaluate is left out, as is a class of a function's inside that
    the function does not use.
    """
    inner: Any = function
    while hasattr(inner, "func"):
        inner = inner.func
    if not hasattr(inner, "__code__") and not hasattr(inner, "__wrapped__"):
        inner = getattr(type(inner), "__call__", inner)  # noqa: B004 - its annotations are read
    found = hints_of(inner, _closure_of(inner))
    return {name: found[name] for name in signature.parameters if name in found}


def _closure_of(function: Callable[..., Any]) -> dict[str, Any]:
    code = getattr(function, "__code__", None)
    cells = getattr(function, "__closure__", None) or ()
    names: dict[str, Any] = {}
    for name, cell in zip(code.co_freevars if code else (), cells, strict=False):
        try:
            names[name] = cell.cell_contents
        except ValueError:
            # Not set yet.
            continue
    return names
