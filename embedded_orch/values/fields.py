"""The kinds of class that say themselves what their fields are, and what each kind says.

These are dataclasses, attrs classes, `msgspec.Struct`, named tuples and models of pydantic. None
of their libraries is imported for that: whoever made a class of the kind has imported it.

A model of pydantic keeps three things beside its fields, in slots: which fields were given, the
values it took beyond its fields, and its private attributes. They are listed as fields too, so
that an instance comes back whole.
"""

from __future__ import annotations

from types import MemberDescriptorType
from typing import TYPE_CHECKING, Any, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Kind = Literal["dataclass", "attrs", "struct", "namedtuple", "pydantic"]

NO_DEFAULT: object = object()

#: Where a model keeps what is no field, and what that may be.
MODEL_SLOTS: dict[str, tuple[type, ...]] = {
    "__pydantic_fields_set__": (set,),
    "__pydantic_extra__": (dict, type(None)),
    "__pydantic_private__": (dict, type(None)),
}
#: The one of them that takes no part in ``==``.
_GIVEN_FIELDS = "__pydantic_fields_set__"


_BASE_MODEL = ("pydantic.main", "BaseModel")


class Field(msgspec.Struct, frozen=True):
    """One field of a class.

    `in_init`: the constructor sets it, so it is not unset. `default`: what an instance stored
    before the field existed gets, if the class gives a plain value for it; else `NO_DEFAULT`.
    `compared`: it takes part in ``==``.
    """

    name: str
    in_init: bool
    default: object
    compared: bool


def kind_of(cls: type) -> Kind | None:
    """Return which kind of class with fields this is, None if it is none."""
    if msgspec.Struct in cls.__mro__:
        return "struct"
    if tuple in cls.__mro__:
        return "namedtuple" if isinstance(static_attribute(cls, "_fields"), tuple) else None
    if isinstance(static_attribute(cls, "__attrs_attrs__"), tuple):
        return "attrs"
    if isinstance(static_attribute(cls, "__dataclass_fields__"), dict):
        return "dataclass"
    if isinstance(static_attribute(cls, "__pydantic_fields__"), dict) and _is_model(cls):
        return "pydantic"
    return None


def fields_of(cls: type, kind: Kind) -> tuple[Field, ...]:
    """Return the fields of a class of this kind, in its order."""
    return _FIELDS[kind](cls)


def check_model_slots(values: Mapping[str, object]) -> None:
    """Raise ValueError if a model could not work with what lies in its slots."""
    for name, kinds in MODEL_SLOTS.items():
        if name in values and not isinstance(values[name], kinds):
            raise ValueError(f"{name} is of type {type(values[name]).__name__}")


def _is_model(cls: type) -> bool:
    """Whether this is a model of pydantic; its dataclasses are dataclasses."""
    return any((base.__module__, base.__name__) == _BASE_MODEL for base in cls.__mro__)


def _dataclass_fields(cls: type) -> tuple[Field, ...]:
    from dataclasses import MISSING, fields  # loaded already: somebody made the class with it

    dataclass: Any = cls
    return tuple(
        Field(f.name, f.init, NO_DEFAULT if f.default is MISSING else f.default, f.compare)
        for f in fields(dataclass)
    )


def _attrs_fields(cls: type) -> tuple[Field, ...]:
    attributes: Any = static_attribute(cls, "__attrs_attrs__")
    return tuple(
        Field(str(a.name), bool(a.init), _plain_default(a.default, "attr"), bool(a.eq))
        for a in attributes
    )


def _struct_fields(cls: type) -> tuple[Field, ...]:
    struct: Any = cls
    names: tuple[str, ...] = struct.__struct_fields__
    defaults: tuple[object, ...] = struct.__struct_defaults__
    without = (msgspec.NODEFAULT,) * (len(names) - len(defaults))
    return tuple(
        Field(name, in_init=True, default=_plain_default(default, "msgspec"), compared=True)
        for name, default in zip(names, (*without, *defaults), strict=True)
    )


def _namedtuple_fields(cls: type) -> tuple[Field, ...]:
    namedtuple: Any = cls
    defaults: Mapping[str, object] = getattr(namedtuple, "_field_defaults", {})
    return tuple(
        Field(str(name), in_init=True, default=defaults.get(name, NO_DEFAULT), compared=True)
        for name in namedtuple._fields
    )


def _model_fields(cls: type) -> tuple[Field, ...]:
    known: Any = static_attribute(cls, "__pydantic_fields__")
    named = [
        Field(str(name), in_init=True, default=_default_of_model(info), compared=True)
        for name, info in known.items()
    ]
    slots = [
        Field(name, in_init=True, default=NO_DEFAULT, compared=name != _GIVEN_FIELDS)
        for name in MODEL_SLOTS
        # A RootModel has None in the place of two of them.
        if isinstance(static_attribute(cls, name), MemberDescriptorType)
    ]
    return (*named, *slots)


def _default_of_model(info: Any) -> object:
    # pydantic copies a default that can change for each instance; nobody would do that here.
    if info.default_factory is not None or type(info.default).__hash__ is None:
        return NO_DEFAULT
    return _plain_default(info.default, "pydantic_core")


def _plain_default(default: object, library: str) -> object:
    """Return a default, `NO_DEFAULT` for the markers of a library: none, or a function to call."""
    return NO_DEFAULT if type(default).__module__.startswith(library) else default


_FIELDS: dict[Kind, Callable[[type], tuple[Field, ...]]] = {
    "dataclass": _dataclass_fields,
    "attrs": _attrs_fields,
    "struct": _struct_fields,
    "namedtuple": _namedtuple_fields,
    "pydantic": _model_fields,
}


def static_attribute(cls: type, name: str) -> object:
    """Return what the class or a base of it has under a name, running none of their code."""
    for base in cls.__mro__:
        if name in base.__dict__:
            return base.__dict__[name]
    return None
