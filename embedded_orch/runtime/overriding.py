"""Attributes of the modules of :mod:`embedded_orch.runtime`, and what tests put in their place.

``EMBEDDED_ORCH__RUNTIME__FLOW_RUN__NAME=nightly`` makes ``runtime.flow_run.name`` ``"nightly"``,
inside of runs and outside. ``PREFECT__RUNTIME__...`` works too, so that a test that was written for
Prefect goes on; ours comes first. The text becomes the type of the attribute: a number, a time in
ISO 8601 (UTC where it names no zone), JSON for lists and dictionaries. A name that is no attribute
can be set as well, and is text.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from embedded_orch.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

_PREFIXES = ("EMBEDDED_ORCH__RUNTIME__", "PREFECT__RUNTIME__")


class Attribute(NamedTuple):
    """One attribute of a module.

    Attributes:
        read: its value here and now.
        cast: the value that a text stands for.
    """

    read: Callable[[], object]
    cast: Callable[[str], object] = str


def value_of(module: str, name: str, attributes: Mapping[str, Attribute]) -> Any:
    """The value of an attribute.

    Args:
        module: the last part of its name.
        name: of the attribute.
        attributes: those that the module has.

    Raises:
        AttributeError: there is none of this name.
        ConfigurationError: the environment sets it to what it cannot be.
    """
    attribute = attributes.get(name)
    for prefix in _PREFIXES:
        variable = f"{prefix}{module.upper()}__{name.upper()}"
        text = os.environ.get(variable)
        if text is not None:
            return _cast(variable, text, str if attribute is None else attribute.cast)
    if attribute is None:
        raise AttributeError(f"runtime.{module} has no attribute {name!r}")
    return attribute.read()


def _cast(variable: str, text: str, cast: Callable[[str], object]) -> object:
    try:
        return cast(text)
    except ValueError as error:
        raise ConfigurationError(
            f"the environment variable {variable}={text!r} is not understood: {error}"
        ) from error


def moment(text: str) -> datetime:
    """A time in ISO 8601; UTC where it names no zone."""
    from datetime import UTC, datetime

    found = datetime.fromisoformat(text)
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def json(text: str) -> Any:
    """A list or a dictionary."""
    import msgspec

    # Its errors are ValueErrors.
    return msgspec.json.decode(text)
