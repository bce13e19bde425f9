"""A stable hash of what a call was given: equal inputs, equal hash, in any process.

The hash is taken of the JSON text that `tagging` makes, in one fixed order: names of arguments,
keys of dicts and members of sets are sorted, since ``==`` disregards their order. So it does not
depend on PYTHONHASHSEED, the machine or the version of Python. ``True``, ``1`` and ``1.0`` differ,
and so do values that are equal but not the same to a function that looks closely: ``0.0`` and
``-0.0``, ``Decimal("1.0")`` and ``Decimal("1.00")``, one instant in two time zones. NaN equals NaN.

What cannot be stored may still be hashed:

- Instances of dataclasses, attrs classes, Structs and named tuples count by their class and the
  fields that take part in ``==``, also where `codec` refuses to store them.
- Functions and classes count by their qualified names, a bound method by that and its object, a
  `functools.partial` by its parts.
- numpy arrays and numbers count by dtype, shape and bytes. numpy is never imported for that.
- Everything else (`self`, a connection, a DataFrame, a `Secret`) counts by the qualified name of
  its type, and `examine_inputs` says so: that is enough to find the record of a call in its own
  run, where calls with equal hashes are told apart by their order, and not enough to share a
  result between runs.
"""

from __future__ import annotations

import enum
import functools
import sys
from datetime import datetime
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

import msgspec

from embedded_orch.values import classes
from embedded_orch.values.plain import plain_json
from embedded_orch.values.tagging import Oversized, Refusal, Tagging, named_trees

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from hashlib import blake2b

    from embedded_orch.values.plain import Tree

#: Mixed into every hash. Another number here, when the text below changes its form, keeps hashes
#: of both forms from being compared.
_FORM = b"inputs-1"
_DIGEST_BYTES = 16

_to_canonical_json = msgspec.json.Encoder(order="deterministic").encode


class InputsHash(msgspec.Struct, frozen=True):
    """The hash of a call's inputs, and which of them do not count by their content alone.

    `by_type` maps the names of these arguments to the qualified name of the first type in them
    that counts by its name.
    """

    digest: bytes
    by_type: dict[str, str]


def hash_inputs(arguments: Mapping[str, object]) -> bytes:
    """Return 16 bytes that are the same for equal arguments of the same types.

    Futures and states among the arguments have to be resolved before.
    """
    text = plain_json(arguments, _to_canonical_json)
    return examine_inputs(arguments).digest if text is None else _digest(text)


def examine_inputs(arguments: Mapping[str, object]) -> InputsHash:
    """Return `hash_inputs` of the arguments, and those that do not count by their content alone."""
    text = plain_json(arguments, _to_canonical_json)
    if text is not None:
        return InputsHash(_digest(text), {})
    trees: dict[str, Tree] = {}
    by_type: dict[str, str] = {}
    for name, value in arguments.items():
        canonical = _Canonical()
        trees[name] = canonical.whole(value)
        if canonical.by_type:
            by_type[name] = canonical.by_type[0]
    return InputsHash(_digest(_to_canonical_json(named_trees(trees))), by_type)


def source_hash(function: Callable[..., object]) -> str | None:
    """Return a hash of the source lines of a function, None if there are none to be found.

    The lines are taken as the file has them now, without their common indentation, decorators
    included. There are none for functions typed into an interpreter or made by ``exec``.
    """
    import inspect
    from textwrap import dedent

    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):
        return None
    return _blake2b(dedent(source).encode(errors="surrogatepass")).hex()


def _digest(text: bytes) -> bytes:
    return _blake2b(text, _FORM)


def _blake2b(data: bytes, form: bytes = b"") -> bytes:
    return hasher()(data, digest_size=_DIGEST_BYTES, person=form).digest()


@functools.cache
def hasher() -> type[blake2b]:
    """blake2b, whose module brings OpenSSL: 3 ms that an import of this package does not pay."""
    from hashlib import blake2b

    return blake2b


class _Canonical(Tagging):
    """Tags values so that equal ones have one text, and never refuses.

    `by_type` lists the types of the values that count by their type or name.
    """

    def __init__(self) -> None:
        super().__init__(_to_canonical_json)
        self.by_type: list[str] = []

    def whole(self, value: object) -> Tree:
        """Return the tree of a whole argument."""
        try:
            return self.tag(value)
        except Oversized:
            return self._by_type(value)

    def tag_container(self, value: object) -> Tree:
        try:
            return super().tag_container(value)
        except Oversized:
            raise  # to replace one repetition by its type would leave all the others
        except Refusal:
            return self._by_type(value)

    def _by_type(self, value: object) -> Tree:
        name = classes.qualified_name(type(value))
        self.by_type.append(name)
        return {"$type": name}

    def pairs(self, value: dict[Any, object]) -> list[Tree]:
        return sorted(self.ordered_pairs(value), key=_to_canonical_json)

    def enum_member(self, value: enum.Enum) -> Tree:
        cls = type(value)
        listed = classes.enum_members(cls).get(value._name_) is value
        member: Tree = value._name_ if listed else self.tag(value._value_)
        return {"$enum": [classes.qualified_name(cls), member]}

    def record(self, value: object, shape: classes.Shape) -> Tree:
        if not shape.is_readable:
            raise Refusal(value)
        if classes.extra_attribute(value, shape) is not None:
            self.by_type.append(shape.name)
        fields = classes.read_fields(value, shape)
        compared = {f.name: fields[f.name] for f in shape.fields if f.compared and f.name in fields}
        return {f"${shape.kind}": [shape.name, self.named(compared, ".{}".format)]}

    def other_class(self, value: object) -> Tree:
        tree = self._code(value)
        if tree is None:
            tree = self._numpy(value)
        if tree is None:
            tree = self._subclass(value)
        return super().other_class(value) if tree is None else tree

    def _code(self, value: object) -> Tree:
        """Return the tree of a function, a method, a class or a module, None for all else."""
        call: Any = value
        if type(call) is functools.partial:
            return {"$partial": [self.tag(call.func), self.tag(call.args), self.tag(call.keywords)]}
        if isinstance(value, ModuleType):
            return {"$module": value.__name__}
        if not isinstance(value, (type, FunctionType, BuiltinFunctionType, MethodType)):
            return None
        name = classes.qualified_name(value)
        if "<" in name:  # <locals> or <lambda>: what it closes over is not in its name
            self.by_type.append(classes.qualified_name(type(value)))
        owner = getattr(value, "__self__", None)
        if isinstance(value, type) or owner is None or isinstance(owner, ModuleType):
            return {"$name": name}
        return {"$method": [name, self.tag(owner)]}

    def _numpy(self, value: object) -> Tree:
        numpy: Any = sys.modules.get("numpy")
        if numpy is None:
            return None
        array: Any = value
        if type(value) is numpy.ndarray:
            tag = "$ndarray"
        elif isinstance(value, numpy.generic):
            tag = "$npscalar"
        else:
            return None
        dtype = array.dtype
        if dtype.char in "gG":  # long double: its size and padding differ between machines
            return None
        if dtype.kind in "biufcmMSU":
            dtype = dtype.newbyteorder("<")
            content: Tree = _blake2b(array.astype(dtype).tobytes()).hex()
        else:
            content = self.tag(array.tolist())
        return {tag: [dtype.str, [*array.shape], content]}

    def _subclass(self, value: object) -> Tree:
        """Return the tree of an instance of a subclass of a builtin type, None for all else.

        Its content as that builtin is more than its type alone, but need not be all of it.
        """
        cls = type(value)
        if self.shape(cls) is not None or enum.Enum in cls.__mro__:
            return None
        base = next((base for base in _BUILTINS if base in cls.__mro__), None)
        if base is None:
            return None
        name = classes.qualified_name(cls)
        self.by_type.append(name)
        return {"$type": [name, self.tag(_as_builtin(value, base))]}


_BUILTINS = (str, int, float, bytes, list, tuple, dict, set, frozenset, datetime)


def _as_builtin(value: object, base: type) -> object:
    """Return an instance of a subclass as its base has it, past what the subclass redefines."""
    builtin: Any = base
    if base is int:
        return builtin.__add__(value, 0)
    if base is float:
        return builtin.__mul__(value, 1.0)
    if base is dict:
        return dict(builtin.items(value))
    if base is datetime:
        return builtin.isoformat(value)
    if base in (set, frozenset):
        return builtin(builtin.__iter__(value))
    return builtin.__getitem__(value, slice(None))
