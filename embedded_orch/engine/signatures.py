"""Binding arguments to the signature of a function, read once when it is decorated.

Plain functions are read from their code object, which costs a few microseconds; what is no plain
function (a partial, a callable object, a wrapper that names what it wraps) is left to ``inspect``.
"""

from __future__ import annotations

from types import FunctionType
from typing import TYPE_CHECKING, Any

from embedded_orch.errors import ParameterBindError, SignatureError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_VARARGS = 0x04
_VARKEYWORDS = 0x08
RESERVED = frozenset({"return_state", "wait_for"})


class Signature:
    """The parameters of a function, and how a call fills them.

    Attributes:
        name: of the function, for messages.
        bound: the first arguments, where they are given already.
        parameters: the names that a call can fill, in order.
        var_positional: the name of ``*args``, if it takes them.
        var_keyword: the name of ``**kwargs``, if it takes them.
    """

    __slots__ = (
        "_defaults",
        "_keyword_only",
        "_only_positional",
        "_positional",
        "_positional_only",
        "bound",
        "name",
        "parameters",
        "var_keyword",
        "var_positional",
    )

    def __init__(self, function: Callable[..., Any]) -> None:
        """Read the signature.

        Raises:
            SignatureError: a parameter has a name that calls of flows and tasks reserve.
        """
        self.name = getattr(function, "__qualname__", None) or repr(function)
        self.bound: tuple[object, ...] = ()
        self._positional: tuple[str, ...] = ()
        self._positional_only = 0
        self._keyword_only: tuple[str, ...] = ()
        self._defaults: dict[str, object] = {}
        self.var_positional: str | None = None
        self.var_keyword: str | None = None
        if type(function) is FunctionType and not hasattr(function, "__wrapped__"):
            self._read_code(function)
        else:
            self._read_by_inspection(function)
        variable = (self.var_positional, self.var_keyword)
        self.parameters: tuple[str, ...] = (
            *self._positional,
            *self._keyword_only,
            *filter(None, variable),
        )
        self._only_positional = self._count_only_positional()
        reserved = sorted(RESERVED & set(self.parameters))
        if reserved:
            raise SignatureError(
                f"{self.name} has a parameter named {reserved[0]}, which calls of flows and tasks "
                f"use themselves; rename it"
            )

    def _read_code(self, function: FunctionType) -> None:
        code = function.__code__
        names = code.co_varnames
        count, keywords = code.co_argcount, code.co_kwonlyargcount
        self._positional = names[:count]
        self._positional_only = code.co_posonlyargcount
        self._keyword_only = names[count : count + keywords]
        defaults = function.__defaults__ or ()
        self._defaults = dict(zip(self._positional[count - len(defaults) :], defaults, strict=True))
        self._defaults.update(function.__kwdefaults__ or {})
        position = count + keywords
        if code.co_flags & _VARARGS:
            self.var_positional = names[position]
            position += 1
        if code.co_flags & _VARKEYWORDS:
            self.var_keyword = names[position]

    def _read_by_inspection(self, function: Callable[..., Any]) -> None:
        import inspect

        positional: list[str] = []
        keyword_only: list[str] = []
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind is parameter.VAR_POSITIONAL:
                self.var_positional = parameter.name
            elif parameter.kind is parameter.VAR_KEYWORD:
                self.var_keyword = parameter.name
            elif parameter.kind is parameter.KEYWORD_ONLY:
                keyword_only.append(parameter.name)
            else:
                positional.append(parameter.name)
                if parameter.kind is parameter.POSITIONAL_ONLY:
                    self._positional_only += 1
            if parameter.default is not parameter.empty:
                self._defaults[parameter.name] = parameter.default
        self._positional = tuple(positional)
        self._keyword_only = tuple(keyword_only)

    def _count_only_positional(self) -> int:
        """How many arguments without a name fill it, if there is nothing else to it; else -1."""
        if self._keyword_only or self.has_variable_arguments:
            return -1
        return len(self._positional)

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The value of each parameter, defaults filled in, in the order of the signature.

        Raises:
            ParameterBindError: the arguments do not fit; the message says which.
        """
        positional = self._positional
        if self.bound:
            args = self.bound + args
        if not kwargs and len(args) == self._only_positional:
            return dict(zip(positional, args, strict=True))
        if len(args) > len(positional) and self.var_positional is None:
            raise self._misfit(f"takes {len(positional)} positional arguments, {len(args)} given")
        given: dict[str, Any] = dict(zip(positional, args, strict=False))
        extra: dict[str, Any] = {}
        by_keyword = positional[self._positional_only :]
        for name, value in kwargs.items():
            if name in by_keyword or name in self._keyword_only:
                if name in given:
                    raise self._misfit(f"got {name!r} twice")
                given[name] = value
            elif self.var_keyword is not None:
                extra[name] = value
            else:
                raise self._misfit(f"has no parameter {name!r}")
        bound = self._in_order(given)
        if self.var_positional is not None:
            bound[self.var_positional] = tuple(args[len(positional) :])
        if self.var_keyword is not None:
            bound[self.var_keyword] = extra
        return bound

    def bound_to(self, *first: object) -> Signature:
        """The same signature with its first arguments given, as those of methods are."""
        copy = Signature.__new__(Signature)
        for name in Signature.__slots__:
            setattr(copy, name, getattr(self, name))
        copy.bound = first
        return copy

    @property
    def bound_arguments(self) -> dict[str, object]:
        """The arguments that are given already, by parameter."""
        return dict(zip(self._positional, self.bound, strict=False))

    def _in_order(self, given: Mapping[str, Any]) -> dict[str, Any]:
        bound: dict[str, Any] = {}
        missing: list[str] = []
        for name in (*self._positional, *self._keyword_only):
            if name in given:
                bound[name] = given[name]
            elif name in self._defaults:
                bound[name] = self._defaults[name]
            else:
                missing.append(name)
        if missing:
            raise self._misfit(f"misses {', '.join(map(repr, missing))}")
        return bound

    def spread(self, bound: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments that call the function with these values; the reverse of :meth:`bind`."""
        args = tuple([bound[name] for name in self._positional])
        kwargs = {}
        if self._keyword_only:
            kwargs = {name: bound[name] for name in self._keyword_only}
        if self.var_positional is not None:
            args += tuple(bound[self.var_positional])
        if self.var_keyword is not None:
            kwargs.update(bound[self.var_keyword])
        return args, kwargs

    @property
    def defaults(self) -> Mapping[str, object]:
        """The parameters that a call may leave out, and their values then."""
        return self._defaults

    @property
    def has_variable_arguments(self) -> bool:
        """Whether it takes ``*args`` or ``**kwargs``."""
        return self.var_positional is not None or self.var_keyword is not None

    def _misfit(self, why: str) -> ParameterBindError:
        return ParameterBindError(f"{self.name}({', '.join(self.parameters)}) {why}")
