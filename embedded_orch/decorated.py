"""What flows and tasks have in common: a function, its options, and the object it is a method of.

Decorating checks the function and its options, and imports nothing that only a call needs: the
engine is imported by the first call.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from embedded_orch.engine.naming import description_of
from embedded_orch.engine.running import (
    begun,
    is_async_function,
    is_generator_function,
    unwrapped,
)
from embedded_orch.engine.signatures import Signature
from embedded_orch.run_names import checked_naming

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping
    from typing import ClassVar, Literal

    from embedded_orch.engine.effects import Steps
    from embedded_orch.engine.options import Options
    from embedded_orch.states import State

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
OptionsT = TypeVar("OptionsT", bound="Options")
T = TypeVar("T")


class Decorated(Generic[P, R_co, OptionsT]):
    """A function that is decorated; flows and tasks say what a call of it does.

    Attributes:
        fn: the function.
        name: for people; all runs of a flow are found by it.
        options: what its decorator was given, and the defaults of the rest; each is an attribute
            too.
        is_async: whether calling it gives a coroutine or an asynchronous generator.
        is_generator: whether calling it gives a generator, plain or asynchronous.
    """

    _kind: ClassVar[str]
    name: str

    def __init__(
        self, fn: Callable[P, R_co] | classmethod[Any, P, R_co], options: OptionsT
    ) -> None:
        function, self._wrapper = unwrapped(fn)
        self.fn: Callable[P, R_co] = function
        self.is_async = is_async_function(function)
        self.is_generator = is_generator_function(function)
        self.options: OptionsT = options
        self._signature = Signature(function)
        parameters = self._signature.parameters
        options.naming = checked_naming(f"{self._kind}_run_name", options.naming, parameters)
        self._unbound: Any = None
        # Not the attributes of a callable object, which would take the place of ours.
        update_wrapper(self, self.fn, updated=())

    def __getattr__(self, name: str) -> Any:
        """Each option, by its name."""
        if name.startswith("_") or name not in self.options.names():
            raise AttributeError(f"a {self._kind} has no attribute {name!r}")
        return getattr(self.options, name)

    @property
    def isasync(self) -> bool:
        """Whether calling it gives a coroutine or an asynchronous generator."""
        return self.is_async

    @property
    def isgenerator(self) -> bool:
        """Whether calling it gives a generator, plain or asynchronous."""
        return self.is_generator

    @property
    def description(self) -> str | None:
        """What it is for: the option, or the docstring of the function."""
        return description_of(self.fn, self.options)

    @property
    def tags(self) -> set[str]:
        """The tags of its runs."""
        return set(self.options.tags)

    @property
    def ismethod(self) -> bool:
        """Whether it is bound to an object."""
        return bool(self._signature.bound) and not self.isclassmethod

    @property
    def isclassmethod(self) -> bool:
        """Whether it was made of a class method."""
        return self._wrapper is classmethod

    @property
    def isstaticmethod(self) -> bool:
        """Whether it was made of a static method."""
        return self._wrapper is staticmethod

    def _bound_to(self, instance: object, owner: type | None) -> Any:
        """The same, bound to its object or class where it is a method."""
        first = owner if self.isclassmethod else instance
        if first is None or self.isstaticmethod:
            return self
        bound: Decorated[..., R_co, OptionsT] = object.__new__(type(self))
        vars(bound).update(vars(self))
        bound._signature = self._signature.bound_to(first)
        # What is worked out of the function is worked out once.
        bound._unbound = self._unbound or self
        return bound

    def _with(self, options: Mapping[str, Any]) -> Any:
        """The same function, and object if it is bound to one, with other options."""
        function: Any = self.fn if self._wrapper is None else self._wrapper(self.fn)
        kind: Any = type(self)
        other: Decorated[P, R_co, OptionsT] = kind(function, **self.options.changed(options))
        if self._signature.bound:
            other._signature = other._signature.bound_to(*self._signature.bound)
        return other

    @abstractmethod
    def _called(self, arguments: Mapping[str, Any], wait_for: object) -> Steps[State]:
        """The steps of a call, to its final state."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(
        self: Decorated[P, Coroutine[Any, Any, T], Any],
        *args: Any,
        return_state: Literal[True],
        wait_for: object = None,
        **kwargs: Any,
    ) -> Coroutine[Any, Any, State[T]]: ...
    @overload
    def __call__(
        self: Decorated[P, AsyncGenerator[T, Any], Any],
        *args: Any,
        return_state: Literal[True],
        wait_for: object = None,
        **kwargs: Any,
    ) -> Coroutine[Any, Any, State[list[T]]]: ...
    @overload
    def __call__(
        self: Decorated[P, Generator[T, Any, Any], Any],
        *args: Any,
        return_state: Literal[True],
        wait_for: object = None,
        **kwargs: Any,
    ) -> State[list[T]]: ...
    @overload
    def __call__(
        self, *args: Any, return_state: Literal[True], wait_for: object = None, **kwargs: Any
    ) -> State[R_co]: ...
    @overload
    def __call__(
        self, *args: Any, wait_for: object, return_state: Literal[False] = False, **kwargs: Any
    ) -> R_co: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it, and return what the function returns; a coroutine for an ``async def``.

        Args:
            args: for the function. Futures and states among them, also inside of collections, are
                waited for and replaced by their results.
            kwargs: for the function, and ``return_state``: give the final state, whatever it is,
                and raise nothing that the function raises; ``wait_for``: futures or states, or a
                list of them, whose runs have to have completed first.

        Raises:
            Exception: what the function raised, once its retries are used up.
            ParameterBindError: the arguments do not fit.
            UpstreamFailed: a run that it depends on did not complete; it was not called.
        """
        return_state, wait_for = False, None
        if kwargs:
            return_state = kwargs.pop("return_state", False)
            wait_for = kwargs.pop("wait_for", None)
        return begun(
            self._called(self._signature.bind(args, kwargs), wait_for),
            is_async=self.is_async,
            is_generator=self.is_generator,
            return_state=return_state,
        )

    def __repr__(self) -> str:
        of = " of " + ", ".join(map(repr, self._signature.bound)) if self._signature.bound else ""
        return f"<{type(self).__name__} {self.name}{of}>"
