"""Names of runs that the user chooses, and descriptions.

A name is made by a template over the parameters, or by a function.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedded_orch.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from embedded_orch.engine.options import Options

    Naming = str | Callable[..., str]


def fields_of(template: str) -> set[str]:
    """The names that a template asks for.

    Raises:
        ValueError: it is no template.
    """
    if "{" not in template and "}" not in template:
        return set()
    from string import Formatter

    fields = [field for _, field, _, _ in Formatter().parse(template) if field is not None]
    return {field.partition(".")[0].partition("[")[0] for field in fields}


def check_template(option: str, naming: Naming | None, names: Sequence[str]) -> None:
    """Refuse a template that asks for a name that it is not given.

    Raises:
        ConfigurationError: it does, or it is no template.
    """
    if not isinstance(naming, str):
        return
    try:
        unknown = sorted(fields_of(naming) - {*names})
    except ValueError as error:
        raise ConfigurationError(f"{option}={naming!r} is no template: {error}") from error
    if unknown:
        raise ConfigurationError(
            f"{option}={naming!r} names {unknown[0]!r}; it can name {', '.join(names)}"
        )


def chosen_name(option: str, naming: Naming, parameters: Mapping[str, Any]) -> str:
    """The name of a run with these parameters.

    A function may take them as ``parameters``; else it is called with nothing.

    Raises:
        ConfigurationError: a function returned something else than a text.
        Exception: what the function raised, or the values for the template did when formatted.
    """
    if isinstance(naming, str):
        return naming.format(**parameters)
    name = _called(naming, parameters)
    if not isinstance(name, str):
        raise ConfigurationError(
            f"{option}={naming!r} returned {name!r}; the name of a run is a text"
        )
    return name


def _called(naming: Callable[..., object], parameters: Mapping[str, Any]) -> object:
    from inspect import signature

    takes_them = "parameters" in signature(naming).parameters
    return naming(parameters=dict(parameters)) if takes_them else naming()


def description_of(function: Callable[..., Any], options: Options) -> str | None:
    """What a function is for: as its decorator was told, or as its docstring says."""
    if options.description is not None:
        return options.description
    from inspect import getdoc

    return getdoc(function)
