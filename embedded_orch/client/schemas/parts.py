"""What filters in the form of Prefect's client are made of: parts, and wholes of them."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, get_args, get_type_hints

import msgspec

from embedded_orch import errors

if TYPE_CHECKING:
    from collections.abc import Iterator


class Operator(StrEnum):
    """How the parts of a filter are joined."""

    and_ = "and_"
    or_ = "or_"


class Part(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What is asked of one field. ``asks`` names our filter for each of its operators."""

    asks: ClassVar[dict[str, str]] = {}

    def keywords(self) -> Iterator[tuple[str, Any]]:
        """Our filters, and their values."""
        for name, filter_name in self.asks.items():
            value = getattr(self, name)
            if value is not None:
                yield _asked(filter_name, value)

    def refuse_or(self) -> None:
        """Refuse parts that are joined by OR.

        Raises:
            OptionNotSupported: they are.
        """
        if getattr(self, "operator", Operator.and_) != Operator.and_:
            raise errors.OptionNotSupported(
                f"{type(self).__name__}: filters are joined by AND; ask twice for OR"
            )


class Whole(Part):
    """A filter of several fields, each a part of it or None."""

    operator: Operator = Operator.and_

    def __post_init__(self) -> None:
        """Take a part that was given as a dict.

        Raises:
            UnknownFilter: it cannot be one.
        """
        for name in self.__struct_fields__:
            given = getattr(self, name)
            if isinstance(given, dict):
                hint = get_type_hints(type(self))[name]
                (kind,) = [each for each in get_args(hint) if each is not type(None)]
                try:
                    setattr(self, name, msgspec.convert(given, kind))
                except msgspec.ValidationError as error:
                    raise errors.UnknownFilter(f"{type(self).__name__}.{name}: {error}") from error

    def keywords(self) -> Iterator[tuple[str, Any]]:
        """Our filters, and their values."""
        self.refuse_or()
        for name in self.__struct_fields__:
            part = getattr(self, name)
            if isinstance(part, Part):
                part.refuse_or()
                yield from part.keywords()


def _asked(filter_name: str, value: Any) -> tuple[str, Any]:
    """``!has_tags`` asks for the opposite of what is given: ``is_null_=True`` for none."""
    if filter_name.startswith("!"):
        return filter_name[1:], not value
    return filter_name, value


def asked_by(whole: Whole | None) -> dict[str, Any]:
    """Our filters that a filter stands for, by name; none when there is none."""
    return {} if whole is None else dict(whole.keywords())
