"""What each call of a ``map`` is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedded_orch import errors
from embedded_orch.annotations import BaseAnnotation, unmapped
from embedded_orch.engine.futures import Future
from embedded_orch.states import State

if TYPE_CHECKING:
    from collections.abc import Mapping


def spread_over(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], name: str
) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """The arguments of each call of a map.

    Args:
        args: the positional arguments of the map.
        kwargs: the arguments that it was given by name.
        name: of the task, for messages.
    """
    given: dict[int | str, Any] = {n: _whole(value) for n, value in enumerate(args)}
    for key, value in kwargs.items():
        given[key] = _whole(value)
    spread = {key: _items_of(value) for key, value in given.items()}
    mapped = {key: items for key, items in spread.items() if items is not None}
    if not mapped:
        raise errors.MappingMissingIterable(
            f"{name}.map() needs an iterable argument to map over, and was given "
            f"{', '.join(type(value).__name__ for value in given.values()) or 'none'}"
        )
    lengths = {_said(key): len(items) for key, items in mapped.items()}
    if len(set(lengths.values())) > 1:
        raise errors.MappingLengthMismatch(
            f"{name}.map() was given iterables of different lengths: "
            + ", ".join(f"{length} in {key}" for key, length in lengths.items())
        )
    static = {key: _static(value) for key, value in given.items() if key not in mapped}
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    for items in zip(*mapped.values(), strict=True):
        each = {**static, **dict(zip(mapped, items, strict=True))}
        positional = tuple([each[position] for position in range(len(args))])
        calls.append((positional, {key: each[key] for key in kwargs}))
    return calls


def _said(key: int | str) -> str:
    return key if isinstance(key, str) else f"argument {key + 1}"


def _whole(value: Any) -> Any:
    """A run that is mapped over is waited for: the length of its result is needed."""
    if isinstance(value, Future):
        return value.result()
    return value.result_now() if isinstance(value, State) else value


def _static(value: Any) -> Any:
    """What goes to each call: without the mark that says so, and with the others."""
    if isinstance(value, unmapped):
        return value.value
    return value.rewrap(_static(value.value)) if isinstance(value, BaseAnnotation) else value


def _items_of(value: Any) -> list[Any] | None:
    """The items that go to one call each; None when the value goes to each as it is."""
    if isinstance(value, unmapped):
        return None
    if isinstance(value, BaseAnnotation):
        items = _items_of(value.value)
        return None if items is None else [value.rewrap(item) for item in items]
    if isinstance(value, (str, bytes)) or hasattr(value, "read"):
        return None
    try:
        return list(value)
    except TypeError:
        # It has no items.
        return None
