"""Going through arguments: every value inside of collections and objects with fields.

Generators and other iterators are left alone: who looks into them uses them up.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

from embedded_orch.annotations import BaseAnnotation, opaque, quote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Visit = Callable[[Any, BaseAnnotation[Any] | None], Any]

PLAIN: frozenset[type] = frozenset(
    {bool, bytes, bytearray, complex, float, int, range, str, type(None)}
)
"""Types whose values hold no others."""


class Stop(Exception):
    """Raised by a visit: the value stays as it is, and is not looked into."""


class Walk:
    """One walk through one or more values; what is met twice is looked into once.

    Args:
        visit: is given each value that is not plain, with the annotation around it, if any, and
            returns it or what takes its place. That is not looked into; what it left is.
    """

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        # The values too: an id is taken again once its object is gone.
        self._seen: dict[tuple[int, type], tuple[Any, Any]] = {}

    def __call__(self, value: Any, annotation: BaseAnnotation[Any] | None = None) -> Any:
        """``value``, or a copy of it in which something was replaced; annotations are taken off."""
        if type(value) in PLAIN:
            return value
        key = id(value), type(annotation)
        seen = self._seen.get(key)
        if seen is not None:
            return seen[1]
        # Itself, should it contain itself.
        self._seen[key] = value, value
        try:
            found = self._visit(value, annotation)
        except Stop:
            return value
        if found is value and not isinstance(annotation, opaque):
            found = self._inside(value, annotation)
        self._seen[key] = value, found
        return found

    def _inside(self, value: Any, annotation: BaseAnnotation[Any] | None) -> Any:
        if isinstance(value, quote):
            return value.value
        if isinstance(value, BaseAnnotation):
            return self(value.value, value)
        if isinstance(value, (list, tuple, set, frozenset)):
            items = [self(item, annotation) for item in value]
            return _rebuilt(value, items) if _differs(items, value) else value
        if isinstance(value, dict):
            pairs = [(self(k, annotation), self(v, annotation)) for k, v in value.items()]
            keys, values = [k for k, _ in pairs], [v for _, v in pairs]
            if not _differs(keys, value) and not _differs(values, value.values()):
                return value
            changed = copy(value)
            changed.clear()
            for key, item in pairs:
                changed[key] = item
            return changed
        names = _fields_of(value)
        items = [getattr(value, name) for name in names]
        replaced = [self(item, annotation) for item in items]
        return _with_fields(value, names, replaced) if _differs(replaced, items) else value


def _rebuilt(value: Any, items: list[Any]) -> Any:
    kind = type(value)
    return kind._make(items) if hasattr(kind, "_make") else kind(items)


def _fields_of(value: Any) -> Sequence[str]:
    """The fields of an instance of a dataclass, an attrs class, a pydantic model or a Struct."""
    kind = type(value)
    if hasattr(kind, "__pydantic_fields__"):
        return [name for name, _ in value]
    if hasattr(kind, "__dataclass_fields__"):
        from dataclasses import fields

        return [field.name for field in fields(value) if hasattr(value, field.name)]
    if hasattr(kind, "__attrs_attrs__"):
        return [field.name for field in kind.__attrs_attrs__ if hasattr(value, field.name)]
    names: Sequence[str] = getattr(kind, "__struct_fields__", ())
    return names


def _with_fields(value: Any, names: Sequence[str], items: Iterable[Any]) -> Any:
    """A copy with other fields, whether the class is frozen or not; nothing is validated."""
    fields = dict(zip(names, items, strict=True))
    if hasattr(type(value), "__pydantic_fields__"):
        return value.model_copy(update=fields)
    changed = copy(value)
    set_field: Callable[[Any, str, Any], None] = object.__setattr__
    if hasattr(type(value), "__struct_fields__"):
        from msgspec.structs import force_setattr

        set_field = force_setattr
    for name, item in fields.items():
        set_field(changed, name, item)
    return changed


def _differs(new: Iterable[object], old: Iterable[object]) -> bool:
    return any(a is not b for a, b in zip(new, old, strict=True))
