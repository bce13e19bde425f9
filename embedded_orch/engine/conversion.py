"""Annotations as functions that check a value, and convert it where Prefect's users expect that.

An annotation is compiled once into a converter: a function that returns the value, or what it was
converted to, or raises :class:`Mismatch`. A value that is right already is returned itself, never
a copy, and what cannot be checked passes: an annotation that nobody understands, an array, an
object of an unknown class. The conversions are those of pydantic's lax mode ("1" for an int, a dict
for a dataclass). pydantic is asked itself for what comes from it, and never imported otherwise.
"""

from __future__ import annotations

import collections
import collections.abc
import enum
import types
import typing
from typing import Any, TypeVar

from embedded_orch.engine import converters
from embedded_orch.engine.converters import SEQUENCES, UNIONS, Mismatch, said
from embedded_orch.engine.scalars import SCALARS

if typing.TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from embedded_orch.engine.converters import Convert

_Types = dict[Any, Any]

_WRAPPERS = ("Final", "Required", "NotRequired", "ReadOnly", "ClassVar")


class Compiler:
    """Compiles annotations; classes that hold themselves are compiled once."""

    def __init__(self) -> None:
        self._by_class: dict[Any, list[Convert]] = {}

    def converter(self, annotation: Any, bound: _Types | None = None) -> Convert | None:
        """The converter of an annotation; None where every value passes.

        Args:
            annotation: evaluated, not a text.
            bound: what type variables stand for.
        """
        bound = bound or {}
        if annotation is None:
            annotation = type(None)
        if isinstance(annotation, type) and annotation in SCALARS:
            return converters.scalar(annotation)
        if is_pydantic(annotation):
            return _by_pydantic(annotation)
        if isinstance(annotation, TypeVar):
            return self._type_variable(annotation, bound)
        inner = getattr(annotation, "__supertype__", None) or getattr(annotation, "__value__", None)
        if inner is not None and not isinstance(annotation, type):
            return self.converter(inner, bound)
        origin = typing.get_origin(annotation)
        if origin is None:
            return self._class(annotation) if isinstance(annotation, type) else None
        return self._generic(annotation, origin, typing.get_args(annotation), bound)

    @staticmethod
    def elements(convert: Convert) -> Convert:
        """The converter of ``*args``, of those of one."""
        return converters.elements(tuple, convert, "tuple")

    @staticmethod
    def values(convert: Convert) -> Convert:
        """The converter of ``**kwargs``, of those of one."""
        return converters.mapping(dict, None, convert, "dict")

    def _type_variable(self, variable: TypeVar, bound: _Types) -> Convert | None:
        if variable in bound:
            return self.converter(bound[variable])
        if variable.__constraints__:
            return self._union(variable.__constraints__, bound)
        return self.converter(variable.__bound__, bound) if variable.__bound__ else None

    def _generic(
        self, annotation: Any, origin: Any, args: tuple[Any, ...], bound: _Types
    ) -> Convert | None:
        if not args:
            return self._class(origin)
        if origin is typing.Literal:
            return converters.literal(args)
        if origin is type:
            return converters.subclass(args[0])
        if origin in UNIONS:
            return self._union(args, bound)
        if getattr(origin, "_name", None) in _WRAPPERS:
            return self.converter(args[0], bound)
        marks = getattr(annotation, "__metadata__", None)
        if marks is not None:
            return converters.constrained(self.converter(annotation.__origin__, bound), marks)
        return self._container(annotation, origin, args, bound)

    def _container(
        self, annotation: Any, origin: Any, args: tuple[Any, ...], bound: _Types
    ) -> Convert | None:
        if origin is tuple:
            return self._tuple(args, bound)
        if origin in SEQUENCES:
            return converters.elements(origin, self.converter(args[0], bound), said(annotation))
        if _is_a(origin, collections.abc.Mapping):
            key, item = [*(self.converter(arg, bound) for arg in args), None][:2]
            return converters.mapping(origin, key, item, said(annotation))
        if _is_a(origin, collections.abc.Collection) and len(args) == 1:
            return converters.collection(origin, self.converter(args[0], bound), said(annotation))
        parameters = getattr(origin, "__parameters__", ())
        return self._class(origin, dict(zip(parameters, args, strict=False)), annotation)

    def _union(self, members: tuple[Any, ...], bound: _Types) -> Convert | None:
        each = [self.converter(member, bound) for member in members]
        known = [convert for convert in each if convert is not None]
        if len(known) < len(each):
            # A member that takes every value.
            return None
        return converters.union(known, " | ".join(map(said, members)))

    def _tuple(self, args: tuple[Any, ...], bound: _Types) -> Convert:
        wanted = f"tuple[{', '.join(map(said, args))}]".replace("Ellipsis", "...")
        if args[-1] is Ellipsis:
            return converters.elements(tuple, self.converter(args[0], bound), wanted)
        return converters.fixed_tuple([self.converter(arg, bound) for arg in args], wanted)

    # -- classes ---------------------------------------------------------------------------------

    def _class(self, cls: Any, bound: _Types | None = None, said_as: Any = None) -> Convert | None:
        if cls is object or cls is Any:
            return None
        if issubclass(cls, enum.Enum):
            return converters.enumeration(cls)
        if cls in SEQUENCES:
            return converters.elements(cls, None, cls.__name__)
        if cls in (dict, collections.OrderedDict):
            return converters.mapping(cls, None, None, cls.__name__)
        key = (cls, *(bound or {}).values())
        if key in self._by_class:
            # It holds itself: its converter is looked up once it is there.
            made = self._by_class[key]
            return lambda value: made[0](value)  # noqa: PLW0108 - it is not there yet
        self._by_class[key] = made = []
        convert = self._with_fields(cls, bound or {}, said(said_as or cls))
        if convert is None:
            del self._by_class[key]
            return converters.instance(cls)
        made.append(convert)
        return convert

    def _with_fields(self, cls: Any, bound: _Types, wanted: str) -> Convert | None:
        """The converter of a class that is known by its fields; None for another class."""
        if hasattr(cls, "__struct_fields__"):
            return self._struct(cls, wanted)
        hints = hints_of(cls)
        fields = _fields_of(cls, hints)
        if fields is None:
            return None
        converters = {
            name: self.converter(hints[attribute], bound) if attribute in hints else None
            for name, (attribute, _) in fields.items()
        }
        needed = [name for name, (_, is_needed) in fields.items() if is_needed]
        make = _Maker(cls, converters, needed, wanted)
        return make.typed_dict if typing.is_typeddict(cls) else make.instance

    def _struct(self, cls: Any, wanted: str) -> Convert:
        import msgspec

        def unknown(kind: Any, value: Any) -> Any:
            convert = self.converter(kind)
            return value if convert is None else convert(value)

        def convert(value: Any) -> Any:
            if isinstance(value, cls):
                return value
            if not isinstance(value, collections.abc.Mapping):
                raise converters.unfit(wanted, value)
            try:
                return msgspec.convert(value, cls, strict=False, dec_hook=unknown)
            except msgspec.ValidationError as error:
                raise Mismatch(f"wanted {wanted}: {error}") from error

        return convert


class _Maker:
    """Makes objects of one class from mappings of its fields."""

    def __init__(
        self,
        cls: Any,
        fields: Mapping[str, Convert | None],
        needed: Iterable[str],
        wanted: str,
    ) -> None:
        self._class = cls
        self._fields = fields
        self._needed = frozenset(needed)
        self._wanted = wanted
        self._is_tuple = issubclass(cls, tuple)

    def instance(self, value: Any) -> Any:
        """A dataclass, an attrs class or a named tuple."""
        if isinstance(value, self._class):
            return value
        if self._is_tuple and converters.is_iterable(value):
            value = dict(zip(self._fields, value, strict=False))
        if not isinstance(value, collections.abc.Mapping):
            raise converters.unfit(self._wanted, value)
        surplus = [key for key in value if key not in self._fields]
        if surplus:
            raise Mismatch(f"{self._wanted} has no {', '.join(map(repr, surplus))}")
        given = self._converted(value)
        try:
            return self._class(**given)
        except Exception as error:
            # What the user's class makes of its fields.
            raise Mismatch(f"{self._wanted} refuses it: {type(error).__name__}: {error}") from error

    def typed_dict(self, value: Any) -> Any:
        """A dict with known keys; those that are not known pass."""
        if not isinstance(value, collections.abc.Mapping):
            raise converters.unfit(self._wanted, value)
        given = self._converted(value)
        if type(value) is dict and all(value[key] is item for key, item in given.items()):
            return value
        return {**value, **given}

    def _converted(self, value: Mapping[str, Any]) -> dict[str, Any]:
        missing = sorted(self._needed - value.keys())
        if missing:
            raise Mismatch(f"wanted {self._wanted}, which needs {', '.join(missing)}")
        return {
            name: converters.at(f".{name}", convert, value[name])
            for name, convert in self._fields.items()
            if name in value
        }


def hints_of(owner: Any, names: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The evaluated annotations of a class or function; those that cannot be are left out.

    Args:
        owner: the class or function.
        names: further names that its annotations may use, such as those of its closure.
    """
    import sys

    local = dict(names or {})
    try:
        return typing.get_type_hints(owner, localns=local or None, include_extras=True)
    except Exception:  # noqa: BLE001, S110 - evaluating is running the user's code; one by one then
        pass
    found: dict[str, Any] = {}
    for part in reversed(getattr(owner, "__mro__", (owner,))):
        module = sys.modules.get(getattr(part, "__module__", ""), None)
        space = getattr(part, "__globals__", None) or vars(module or types)
        for name, annotation in getattr(part, "__annotations__", {}).items():
            one = types.SimpleNamespace(__annotations__={name: annotation})
            try:
                found |= typing.get_type_hints(one, space, local, include_extras=True)
            except Exception:  # noqa: BLE001 - a name that only a type checker sees, or no type
                found.pop(name, None)
    return found


def is_pydantic(annotation: Any) -> bool:
    """Whether an annotation is pydantic's business: a class of its, or marked by its objects."""
    if isinstance(annotation, type):
        return hasattr(annotation, "__get_pydantic_core_schema__") or hasattr(
            annotation, "__pydantic_validator__"
        )
    return any(_is_from_pydantic(mark) for mark in getattr(annotation, "__metadata__", ()))


def _is_from_pydantic(mark: object) -> bool:
    module = type(mark).__module__.partition(".")[0]
    return module == "pydantic" or hasattr(mark, "__get_pydantic_core_schema__")


def _by_pydantic(annotation: Any) -> Convert:
    import pydantic

    # A class brings its own configuration; what is no class is allowed to name any.
    adapter: Any = (
        pydantic.TypeAdapter(annotation)
        if isinstance(annotation, type)
        else pydantic.TypeAdapter(
            annotation, config=pydantic.ConfigDict(arbitrary_types_allowed=True)
        )
    )

    def convert(value: Any) -> Any:
        try:
            return adapter.validate_python(value)
        except pydantic.ValidationError as error:
            whys = [
                f"{'.'.join(map(str, each['loc']))}: {each['msg']}".removeprefix(": ")
                for each in error.errors(include_url=False, include_input=False)
            ]
            raise Mismatch("; ".join(whys)) from error

    return convert


# -- small things --------------------------------------------------------------------------------


def _fields_of(cls: Any, hints: Mapping[str, Any]) -> dict[str, tuple[str, bool]] | None:
    """How a class is called: its argument names, the attribute of each, and whether it is needed.

    None for a class that is not known by its fields.
    """
    if typing.is_typeddict(cls):
        # With annotations that were texts its __required_keys__ do not know what those say.
        optional = {name for name, hint in hints.items() if _is_marked(hint, typing.NotRequired)}
        needed = {name for name, hint in hints.items() if _is_marked(hint, typing.Required)}
        needed |= cls.__required_keys__ - optional
        return {name: (name, name in needed) for name in hints}
    is_named_tuple = issubclass(cls, tuple) and hasattr(cls, "_field_defaults")
    attributes = getattr(cls, "__attrs_attrs__", ())
    if not (is_named_tuple or attributes or hasattr(cls, "__dataclass_fields__")):
        return None
    import inspect

    aliases = {field.alias: field.name for field in attributes}
    return {
        name: (aliases.get(name, name), parameter.default is parameter.empty)
        for name, parameter in inspect.signature(cls).parameters.items()
    }


def _is_marked(hint: Any, mark: Any) -> bool:
    return typing.get_origin(hint) is mark


def _is_a(origin: Any, kind: Any) -> bool:
    return isinstance(origin, type) and issubclass(origin, kind)
