"""The classes whose instances are stored by their fields, and how a stored name finds them.

Some kinds of class say themselves what their fields are (`fields` lists them). `shape_of`
describes such a class, and says why its instances cannot be stored, if they cannot; `read_fields`
and `build` take an instance apart and put an equal one together.

Whoever can write the database can write any name into it. So a name is looked up only among
modules that are loaded already, only through ``__dict__`` (a module's ``__getattr__`` and a lazy
module's loading never run), and it must lead to a class of the kind the tag says. Instances are
built without ``__init__``, ``__new__``, ``__post_init__``, ``__setattr__`` or any other method of
the class; a class with ``__del__`` is refused, because that one would run in the end. What is left
are ``__hash__`` and ``__eq__``, which a set or a dict calls for its members and keys.
"""

from __future__ import annotations

import functools
import sys
from types import BuiltinFunctionType, MemberDescriptorType, ModuleType
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from embedded_orch.values.fields import (
    NO_DEFAULT,
    Field,
    Kind,
    check_model_slots,
    fields_of,
    kind_of,
    static_attribute,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Child processes of multiprocessing load the main script under the second name.
_MAIN_NAMES = ("__main__", "__mp_main__")

#: Set by ``Box[int](...)`` on the instance; it says how the call was written, no more.
_IGNORED_ATTRIBUTES = frozenset({"__orig_class__"})

_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: the class was made by a class statement

# Called through their classes, past what a subclass makes of them.
_TUPLE: Any = tuple


class Shape(msgspec.Struct, frozen=True):
    """A class of one of the kinds with fields.

    `names`: of the fields. `other_slots`: what an instance may keep in slots that are no fields.
    `is_readable`: the fields hold the whole state, and reading them runs no code of the class.
    `problem` is why instances cannot be stored, or None. `checks_equality`: the class compares in
    its own way, which only a comparison can test.
    """

    cls: type
    kind: Kind
    name: str
    fields: tuple[Field, ...]
    names: frozenset[str]
    other_slots: dict[str, MemberDescriptorType]
    is_readable: bool
    problem: str | None
    checks_equality: bool


def qualified_name(item: object) -> str:
    """Return "module:qualname" of a class or function, the same in every process of a program.

    The main module counts by the name it would be imported under where ``python -m`` tells it,
    else as ``__main__``.
    """
    module = str(getattr(item, "__module__", None) or "builtins")
    qualname = str(getattr(item, "__qualname__", None) or type(item).__qualname__)
    return f"{_main_name() if module in _MAIN_NAMES else module}:{qualname}"


def storable_name(cls: type) -> str | None:
    """Return the name under which `find_class` finds exactly this class, None if there is none."""
    names = [qualified_name(cls)]
    if cls.__module__ in _MAIN_NAMES:
        # `python -m shop.jobs` beside an `import shop.jobs` makes two classes of each name.
        names.append(f"__main__:{cls.__qualname__}")
    return next((name for name in names if find_class(name) is cls), None)


def find_class(name: str) -> type | None:
    """Return the class that "module:qualname" names among the loaded modules, or None."""
    module_name, _, qualname = name.partition(":")
    found = _find_within(sys.modules.get(module_name), qualname)
    if found is None and module_name == _main_name():
        return _find_within(sys.modules.get("__main__"), qualname)
    return found


def _find_within(module: object, qualname: str) -> type | None:
    if not isinstance(module, ModuleType):
        return None
    # object's own method, or a module made by importlib.util.LazyLoader would load itself now.
    namespace: Mapping[str, object] = object.__getattribute__(module, "__dict__")
    found: object = None
    for part in qualname.split("."):
        found = namespace.get(part)
        if not isinstance(found, type):
            return None
        namespace = found.__dict__
    return found if isinstance(found, type) else None


def _main_name() -> str:
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return str(getattr(spec, "name", "__main__"))


def shape_of(cls: type) -> Shape | None:
    """Return what a class says of its fields, or None if it is of none of these kinds."""
    kind = kind_of(cls)
    if kind is None:
        return None
    fields = fields_of(cls, kind)
    names = frozenset(field.name for field in fields)
    name = storable_name(cls)
    obstacle = _obstacle_to_reading(cls, kind, fields)
    problem = unnamed(cls) if name is None else obstacle or _obstacle_to_storing(cls, kind)
    return Shape(
        cls=cls,
        kind=kind,
        name=name or qualified_name(cls),
        fields=fields,
        names=names,
        other_slots={
            slot: descriptor
            for base in cls.__mro__
            for slot, descriptor in base.__dict__.items()
            if type(descriptor) is MemberDescriptorType and slot not in names
        },
        is_readable=obstacle is None,
        problem=problem,
        checks_equality=_equality_of(cls, kind) == "own",
    )


def unnamed(cls: type) -> str:
    """Say why no other process can find a class by its name."""
    if "<locals>" in cls.__qualname__:
        return "its class is defined inside a function, where no other process can find it"
    return f"its class is not what {qualified_name(cls)} names"


def _obstacle_to_reading(cls: type, kind: Kind, fields: tuple[Field, ...]) -> str | None:
    """Say why the fields of an instance are not all there is to it, or None."""
    if kind in ("struct", "namedtuple"):
        return None
    # Not by trying object.__new__: what it makes would be deleted, and __del__ would run.
    for base in cls.__mro__[:-1]:
        written_in_c = isinstance(base.__dict__.get("__new__"), BuiltinFunctionType)
        if written_in_c or not base.__flags__ & _HEAP_TYPE:
            return f"its class is built on {base.__qualname__}, which keeps a state of its own"
    for field in fields:
        attribute = static_attribute(cls, field.name)
        if hasattr(type(attribute), "__set__") and type(attribute) is not MemberDescriptorType:
            return f"its field {field.name} is a {type(attribute).__name__}"
    return None


def _obstacle_to_storing(cls: type, kind: Kind) -> str | None:
    """Say why no instance with the same fields could be made, or be equal, or None."""
    if static_attribute(cls, "__del__") is not None:
        return "its class has __del__, which would run on whatever a database file says"
    if _equality_of(cls, kind) == "identity":
        return "its class compares by identity, so that no copy could be equal to it"
    if kind == "struct" and type(cls) is not type(msgspec.Struct):
        return "its class has a metaclass of its own"
    if kind == "struct" and static_attribute(cls, "__post_init__") is not None:
        return "a Struct with __post_init__ cannot be made without running that"
    return None


def _equality_of(cls: type, kind: Kind) -> Literal["fields", "identity", "own"]:
    """Tell how a class compares: as its kind generates it, by identity, or in its own way."""
    method = static_attribute(cls, "__eq__")
    if method is object.__eq__:
        return "identity"
    if method is static_attribute(msgspec.Struct, "__eq__"):
        struct: Any = cls
        return "fields" if struct.__struct_config__.eq else "identity"
    if method is _TUPLE.__eq__:
        return "fields" if kind == "namedtuple" else "own"
    if kind == "pydantic":
        return "fields" if str(getattr(method, "__module__", "")).startswith("pydantic.") else "own"
    code = getattr(method, "__code__", None)
    if code is None:
        return "own"
    generated = code.co_filename.startswith("<attrs generated") or (
        code.co_filename == "<string>" and code.co_qualname.startswith("__create_fn__.")
    )
    return "fields" if generated else "own"


def enum_members(cls: type) -> Mapping[str, object]:
    """Return the members that an Enum class lists, by name."""
    found: Any = static_attribute(cls, "_member_map_")
    members: Mapping[str, object] = found
    return members


def read_fields(value: object, shape: Shape) -> dict[str, object]:
    """Return the fields that are set, past any ``__getattr__`` or ``__iter__`` of the class."""
    if shape.kind == "namedtuple":
        items: tuple[object, ...] = _TUPLE.__getitem__(value, slice(None))
        return {field.name: item for field, item in zip(shape.fields, items, strict=False)}
    fields: dict[str, object] = {}
    for field in shape.fields:
        try:
            fields[field.name] = object.__getattribute__(value, field.name)
        except AttributeError:
            continue  # unset: `unset_field` tells whether it may be
    return fields


def unset_field(shape: Shape, fields: Mapping[str, object]) -> str | None:
    """Return the name of a field that is missing though `build` would set it, or None."""
    for field in shape.fields:
        if field.name not in fields and (field.in_init or field.default is not NO_DEFAULT):
            return field.name
    return None


def extra_attribute(value: object, shape: Shape) -> str | None:
    """Return the name of an attribute that is set beside the fields, and would be lost, or None.

    What ``functools.cached_property`` keeps is not one: it is computed again when asked for.
    """
    if shape.kind == "namedtuple" and _TUPLE.__len__(value) > len(shape.fields):
        return f"[{len(shape.fields)}]"
    for name in _instance_dict(value):
        known = name in shape.names or name in _IGNORED_ATTRIBUTES
        if not known and not isinstance(
            static_attribute(shape.cls, name), functools.cached_property
        ):
            return name
    for name, slot in shape.other_slots.items():
        try:
            slot.__get__(value, shape.cls)
        except AttributeError:
            continue  # never filled
        return name
    return None


def _instance_dict(value: object) -> Mapping[str, object]:
    try:
        found: Mapping[str, object] = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return {}
    return found


def build(shape: Shape, fields: Mapping[str, object]) -> object:
    """Return an instance with these fields.

    Raises:
        ValueError: The class has changed since: a field is gone, or one is new and has no default.
    """
    values = _values_to_build(shape, fields)
    cls: Any = shape.cls
    if shape.kind == "namedtuple":
        named_tuple: object = _TUPLE.__new__(cls, values.values())
        return named_tuple
    if shape.kind == "struct":
        struct: object = cls(**values)
        return struct
    if shape.kind == "pydantic":
        check_model_slots(values)
    instance: object = object.__new__(cls)
    for name, value in values.items():
        object.__setattr__(instance, name, value)
    return instance


def _values_to_build(shape: Shape, fields: Mapping[str, object]) -> dict[str, object]:
    for name in fields:
        if name not in shape.names:
            raise ValueError(f"{shape.name} has no field {name} any more")
    values: dict[str, object] = {}
    for field in shape.fields:
        value = fields.get(field.name, field.default)
        if value is not NO_DEFAULT:
            values[field.name] = value
        elif field.in_init:
            raise ValueError(f"{shape.name} has a field {field.name} that was not stored")
    return values
