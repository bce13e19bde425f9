"""What the engine knows of a flow and of a task: the part of their options that running needs."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from embedded_orch import values
from embedded_orch.engine.running import is_generator_function

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedded_orch.engine.caching import CachePolicy
    from embedded_orch.engine.options import FlowOptions, Options, TaskOptions
    from embedded_orch.engine.parameters import Parameters
    from embedded_orch.engine.signatures import Signature

# Digits of a hash that are compared with those of one other source, not with all there are.
_RECORDED_DIGITS = 16


def module_name(function: Callable[..., Any]) -> str:
    """The module of a function, the same whether its file is run or imported.

    A script runs as ``__main__``; what it recorded has to be found again by a program that imports
    it, and by the processes that it starts. Without a file, as in a notebook, it stays as it is.
    """
    module: str = getattr(function, "__module__", None) or ""
    if module not in ("__main__", "__mp_main__"):
        return module
    main = sys.modules.get(module)
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name)
    path = getattr(main, "__file__", None)
    return os.path.splitext(os.path.basename(path))[0] if path else "__main__"


class Spec:
    """What flows and tasks have in common: a function that is called and retried.

    Attributes:
        function: the user's.
        name: for people.
        key: the function's module and qualified name, which identify its calls.
        signature: how arguments become parameters.
        is_async: whether the function is an ``async def``, also one that yields.
        is_generator: whether the function is a generator, plain or asynchronous.
        policy: its retries.
        timeout_seconds: how long one call of the function may take.
        tags: of its runs.
        decorated: the flow or task as the user has it, for those whom it is shown to.
    """

    __slots__ = (
        "_source_hash",
        "decorated",
        "function",
        "is_async",
        "is_generator",
        "key",
        "name",
        "policy",
        "signature",
        "tags",
        "timeout_seconds",
    )

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str,
        signature: Signature,
        is_async: bool,
        options: Options,
        decorated: object = None,
    ) -> None:
        self.decorated = decorated
        self.function = function
        self.name = name
        self.key = f"{module_name(function)}.{getattr(function, '__qualname__', None) or name}"
        self.signature = signature
        self.is_async = is_async
        self.timeout_seconds = options.timeout_seconds
        self.is_generator = is_generator_function(function)
        self.policy = options.policy
        self.tags = options.tags
        self._source_hash: str | None = ""

    @property
    def source_hash(self) -> str | None:
        """A hash of the function's source, made at the first call; None where there is none."""
        if self._source_hash == "":
            self._source_hash = values.source_hash(self.function)
        return self._source_hash

    @property
    def recorded_source(self) -> str | None:
        """What of it is on record with each run, to be compared with the same task's later."""
        found = self.source_hash
        return None if found is None else found[:_RECORDED_DIGITS]


class TaskSpec(Spec):
    """A task.

    Attributes:
        options: what its decorator was given.
        cache: how its calls get cache keys; None where results are not cached.
    """

    __slots__ = ("cache", "options")

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str,
        signature: Signature,
        is_async: bool,
        options: TaskOptions,
        decorated: object = None,
        cache: CachePolicy | None = None,
    ) -> None:
        super().__init__(
            function,
            name=name,
            signature=signature,
            is_async=is_async,
            options=options,
            decorated=decorated,
        )
        self.options = options
        self.cache = cache


class FlowSpec(Spec):
    """A flow.

    Attributes:
        options: what its decorator was given.
    """

    __slots__ = ("_parameters", "_version", "options")

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str,
        signature: Signature,
        is_async: bool,
        options: FlowOptions,
        decorated: object = None,
    ) -> None:
        super().__init__(
            function,
            name=name,
            signature=signature,
            is_async=is_async,
            options=options,
            decorated=decorated,
        )
        self.options = options
        self._version: str | None = ""
        self._parameters: Parameters | None = None

    @property
    def version(self) -> str | None:
        """The version given, or an MD5 of the file that defines it; None where there is no file."""
        if self._version == "":
            self._version = self.options.version or _file_hash(self.function)
        return self._version

    @property
    def parameters(self) -> Parameters:
        """What its parameters have to be; read from the annotations when it is first asked for."""
        if self._parameters is None:
            from embedded_orch.engine.parameters import Parameters

            self._parameters = Parameters(self.function, self.signature, name=self.name)
        return self._parameters

    @property
    def entrypoint(self) -> str:
        """Where the function is found again: module:qualified name."""
        qualified_name = getattr(self.function, "__qualname__", None) or self.name
        return f"{getattr(self.function, '__module__', '')}:{qualified_name}"


def _file_hash(function: Callable[..., Any]) -> str | None:
    """An MD5 of the file that defines a function, in hexadecimal, as Prefect makes it."""
    code = getattr(function, "__code__", None)
    if code is None:
        return None
    from hashlib import md5

    try:
        with open(code.co_filename, "rb") as file:
            return md5(file.read(), usedforsecurity=False).hexdigest()
    except OSError:
        # Typed in, or made by a program: there is no file.
        return None
