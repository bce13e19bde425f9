"""Marks on arguments that say how a call takes them."""

from __future__ import annotations

from typing import Generic, Self, TypeVar

T = TypeVar("T")


class BaseAnnotation(Generic[T]):
    """A mark on a value. The function of the flow or task is given the value itself.

    Attributes:
        value: what is marked.
    """

    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value

    def unwrap(self) -> T:
        """What is marked."""
        return self.value

    def rewrap(self, value: T) -> Self:
        """The same mark on another value."""
        return type(self)(value)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and bool(other.value == self.value)

    def __hash__(self) -> int:
        return hash((type(self), self.value))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.value!r})"


class unmapped(BaseAnnotation[T]):  # noqa: N801 - these are functions to those who call them
    """An argument of ``map`` that goes to each call as it is, though it is iterable."""

    __slots__ = ()


class allow_failure(BaseAnnotation[T]):  # noqa: N801
    """Futures or states whose runs may have failed: the call is made all the same.

    It is given the exception in the place of the result, and None for a run that was not ready.
    """

    __slots__ = ()


class quote(BaseAnnotation[T]):  # noqa: N801
    """An argument that is not looked into: futures in it stay futures, and no run is tracked.

    Saves the walk through a large collection.
    """

    __slots__ = ()

    def unquote(self) -> T:
        """What is quoted."""
        return self.value


class opaque(BaseAnnotation[T]):  # noqa: N801
    """An argument that is not looked into further than itself.

    A future is waited for and replaced by its result; that result, or another value, is passed on
    without a walk through it.
    """

    __slots__ = ()
