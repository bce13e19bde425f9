"""Defaults that the environment can change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from embedded_orch.engine.environment import said
from embedded_orch.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Default(Generic[T]):
    """The default of an option that the environment can change: read when it is asked for.

    A class attribute. The variable is named by the class and the attribute: that of ``retries`` of
    ``FlowOptions`` is ``EMBEDDED_ORCH_FLOW_DEFAULT_RETRIES``. Its value is JSON.

    Args:
        otherwise: the default where the variable is not set.
        check: refuses a value that the option cannot have.
    """

    __slots__ = ("_check", "_name", "_otherwise", "_variables")

    def __init__(self, otherwise: T, check: Callable[[object], T]) -> None:
        self._otherwise = otherwise
        self._check = check
        self._name = ""
        # By the class that is asked, which may be a subclass of the one that has this.
        self._variables: dict[type, str] = {}

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type) -> T:
        variable = self._variables.get(owner) or self._named(owner)
        text = said(variable)
        if text is None:
            return self._otherwise
        import msgspec

        try:
            return self._check(msgspec.json.decode(text))
        except (msgspec.DecodeError, ConfigurationError) as error:
            raise ConfigurationError(
                f"the environment variable {variable}={text!r} is not understood: {error}"
            ) from error

    def _named(self, owner: type) -> str:
        kind = owner.__name__.removesuffix("Options").upper()
        variable = f"EMBEDDED_ORCH_{kind}_DEFAULT_{self._name.upper()}"
        self._variables[owner] = variable
        return variable
