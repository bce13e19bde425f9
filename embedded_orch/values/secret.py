"""A value that is used, and never stored, shown, logged or sent to another process."""

from __future__ import annotations

from typing import Any, Generic, NoReturn, TypeVar, final

T_co = TypeVar("T_co", covariant=True)

_MASK = "**********"


@final
class Secret(Generic[T_co]):
    """Keeps a value out of every text and every file; `get()` hands it out.

    ``str()``, ``repr()`` and formatting show a mask. As a parameter or a result it counts as not
    storable, so the database holds its type only, and a resumed run asks for it again. In the
    hash of a call's inputs, too, it counts by its type: rotating a password makes no new call.
    Pickling is refused, since pickles end up in files; a copy is the same object.
    """

    __slots__ = ("_value",)

    _value: T_co

    def __init__(self, value: T_co) -> None:
        object.__setattr__(self, "_value", value)

    def get(self) -> T_co:
        """Return the value itself."""
        return self._value

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a Secret cannot be changed: make a new one")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("a Secret cannot be changed: make a new one")

    def __repr__(self) -> str:
        return f"Secret({_MASK!r})"

    def __str__(self) -> str:
        return _MASK

    def __format__(self, format_spec: str) -> str:
        return format(_MASK, format_spec)

    def __eq__(self, other: object) -> bool:
        theirs: Any = other
        return bool(self._value == theirs.get()) if type(other) is Secret else NotImplemented

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __copy__(self) -> Secret[T_co]:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Secret[T_co]:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(
            "a Secret cannot be pickled: read it where it is used (in the task that runs in the "
            "other process, for instance) instead of passing it there"
        )
