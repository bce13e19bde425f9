"""How calls of a task get their cache keys: one whose key is known takes the result that is there.

A key is made of what a policy looks at: the inputs, the source of the task, the parameters of the
flow, the run. It is the same in every process and every version of Python. Policies are added
(``INPUTS + TASK_SOURCE``), and an input is left out by subtracting its name (``INPUTS - "debug"``).

A key of these policies holds for the one task. One that a function of the user's gives is taken as
it is, so that several tasks can share results.
"""

from __future__ import annotations

import copy
import sys
import warnings
from typing import TYPE_CHECKING, Any, Literal, Self

from embedded_orch import values
from embedded_orch.errors import ConfigurationError, ValueNotStorable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from embedded_orch.context import TaskRunContext
    from embedded_orch.engine import contexts
    from embedded_orch.engine.options import TaskOptions

    Isolation = Literal["READ_COMMITTED", "SERIALIZABLE"]

_LEVELS = ("READ_COMMITTED", "SERIALIZABLE")


class CachePolicy:
    """How calls get their cache keys; a subclass computes them.

    Attributes:
        key_storage: where the keys are recorded besides, for those who share it and not the
            database: the path of a folder, a URL of fsspec's, or a storage; nowhere when None.
        isolation_level: with "SERIALIZABLE" one call computes the result of a key, and the others
            wait for it.
        lock_manager: who keeps the locks for that; the database when None.
    """

    # Whether equal keys of two tasks mean two results.
    is_scoped = False
    # Whether a key is a path in the storage of the result.
    names_paths = False

    def __init__(
        self,
        key_storage: object = None,
        isolation_level: Isolation | str | None = None,
        lock_manager: Any = None,
    ) -> None:
        _check(isolation_level)
        self.key_storage = _storage(key_storage)
        self.isolation_level = isolation_level
        self.lock_manager = lock_manager

    def __getattr__(self, name: str) -> Any:
        """What a subclass whose constructor is its own has left at its default."""
        if name in ("key_storage", "isolation_level", "lock_manager"):
            return None
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    @property
    def is_exclusive(self) -> bool:
        """Whether calls with one key take turns."""
        return bool(self.isolation_level == "SERIALIZABLE")

    def compute_key(
        self,
        task_ctx: TaskRunContext,
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """The key of a call, or None for a call that is not cached.

        Args:
            task_ctx: the task run that is about to begin.
            inputs: its arguments, by parameter.
            flow_parameters: those of the flow around it.
            kwargs: for later.
        """
        raise TypeError(f"{type(self).__name__} does not say how a cache key is computed")

    def key_for(self, here: contexts.TaskRunContext) -> str | None:
        """The key of the call that is about to be made there."""
        from embedded_orch.context import TaskRunContext

        key = self.compute_key(
            task_ctx=TaskRunContext(here),
            inputs=dict(here.parameters),
            flow_parameters={} if here.flow_run is None else dict(here.flow_run.parameters),
        )
        if key is None or not self.is_scoped:
            return key
        return f"{here.task.key}:{key}"

    def configure(
        self,
        key_storage: object = None,
        lock_manager: Any = None,
        isolation_level: Isolation | str | None = None,
    ) -> Self:
        """The same policy with other settings; those not given stay as they are.

        Raises:
            ConfigurationError: there is no such isolation level, or key_storage is no storage.
            MissingExtra: key_storage is a URL, and fsspec is not installed.
        """
        _check(isolation_level)
        other = copy.copy(self)
        if key_storage is not None:
            other.key_storage = _storage(key_storage)
        if lock_manager is not None:
            other.lock_manager = lock_manager
        if isolation_level is not None:
            other.isolation_level = isolation_level
        return other

    @classmethod
    def from_cache_key_fn(
        cls, cache_key_fn: Callable[[TaskRunContext, dict[str, Any]], str | None]
    ) -> CacheKeyFnPolicy:
        """A policy whose keys a function gives, from the task run's context and the inputs."""
        return CacheKeyFnPolicy(cache_key_fn=cache_key_fn)

    def __add__(self, other: CachePolicy) -> CachePolicy:
        """The policy whose key is made of both.

        Raises:
            ValueError: they are configured differently.
        """
        if isinstance(other, NoCache):
            return self
        return compound([self, other])

    def __sub__(self, name: str) -> CachePolicy:
        """The same without an input, if it looks at inputs."""
        _check_name(name)
        return self

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    __hash__ = None  # type: ignore[assignment]  # a subclass may have anything

    def __repr__(self) -> str:
        said = ", ".join(f"{name}={value!r}" for name, value in vars(self).items() if value)
        return f"{type(self).__name__}({said})"


class CacheKeyFnPolicy(CachePolicy):
    """Keys that a function of the user's gives."""

    def __init__(
        self,
        key_storage: object = None,
        isolation_level: Isolation | str | None = None,
        lock_manager: Any = None,
        cache_key_fn: Callable[[TaskRunContext, dict[str, Any]], str | None] | None = None,
    ) -> None:
        super().__init__(key_storage, isolation_level, lock_manager)
        self.cache_key_fn = cache_key_fn

    def compute_key(
        self,
        task_ctx: TaskRunContext,
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """What the function says."""
        return None if self.cache_key_fn is None else self.cache_key_fn(task_ctx, inputs)


class CompoundCachePolicy(CachePolicy):
    """Several policies: its key is made of theirs.

    Attributes:
        policies: none of them compound; the one about inputs is the last.
    """

    def __init__(
        self,
        key_storage: object = None,
        isolation_level: Isolation | str | None = None,
        lock_manager: Any = None,
        policies: Sequence[CachePolicy] = (),
    ) -> None:
        super().__init__(key_storage, isolation_level, lock_manager)
        self.policies = _flattened(policies)

    @property
    def is_scoped(self) -> bool:  # type: ignore[override]  # as its parts are
        """Whether equal keys of two tasks mean two results: if that of one part does."""
        return any(policy.is_scoped for policy in self.policies)

    def compute_key(
        self,
        task_ctx: TaskRunContext,
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """A hash of the keys that there are; None when there is none."""
        keys = [
            policy.compute_key(
                task_ctx=task_ctx, inputs=inputs, flow_parameters=flow_parameters, **kwargs
            )
            for policy in self.policies
        ]
        found = [key for key in keys if key is not None]
        return values.hash_inputs({"keys": found}).hex() if found else None

    def __sub__(self, name: str) -> CachePolicy:
        """The same without an input."""
        _check_name(name)
        other = copy.copy(self)
        other.policies = [policy - name for policy in self.policies]
        return other


class NoCache(CachePolicy):
    """Nothing is cached."""

    def compute_key(
        self,
        task_ctx: TaskRunContext,
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """None."""
        return None

    def __add__(self, other: CachePolicy) -> CachePolicy:
        """The other one."""
        return other


class TaskSource(CachePolicy):
    """The source of the task's function: another one once that was changed."""

    is_scoped = True

    def compute_key(
        self,
        task_ctx: TaskRunContext,
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """A hash of its lines; of its bytecode, which differs between Pythons, without a file."""
        return source_key(task_ctx)


class FlowParameters(CachePolicy):
    """What the flow was called with."""

    is_scoped = True

    def compute_key(
        self,
        task_ctx: TaskRunContext,
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """A hash of the parameters; None when there are none."""
        return content_key(flow_parameters) if flow_parameters else None


class RunId(CachePolicy):
    """The flow run, or the task run outside of flows."""

    is_scoped = True

    def compute_key(
        self,
        task_ctx: TaskRunContext,
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """Its id."""
        return str(task_ctx.task_run.flow_run_id or task_ctx.task_run.id)


class Inputs(CachePolicy):
    """The arguments of the call.

    Attributes:
        exclude: the names of those that do not count.
    """

    is_scoped = True

    def __init__(
        self,
        key_storage: object = None,
        isolation_level: Isolation | str | None = None,
        lock_manager: Any = None,
        exclude: Sequence[str] = (),
    ) -> None:
        super().__init__(key_storage, isolation_level, lock_manager)
        self.exclude = sorted(set(exclude))

    def compute_key(
        self,
        task_ctx: TaskRunContext,
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """A hash of the arguments that count; None when there are none.

        Raises:
            ValueNotStorable: one cannot be told from others of its type.
        """
        counted = {name: value for name, value in inputs.items() if name not in self.exclude}
        return content_key(counted) if counted else None

    def key_for(self, here: contexts.TaskRunContext) -> str | None:
        """The key of the call: of the hash that finds its record, where that says the same."""
        known = here.inputs if type(self) is Inputs and here.parameters else None
        if known is None or known.by_type or self.exclude:
            return super().key_for(here)
        return f"{here.task.key}:{known.digest.hex()}"

    def __sub__(self, name: str) -> CachePolicy:
        """The same without an input."""
        _check_name(name)
        other = copy.copy(self)
        other.exclude = sorted({*self.exclude, name})
        return other


def compound(policies: Sequence[CachePolicy]) -> CachePolicy:
    """One policy of several, which are configured alike or not at all.

    Raises:
        ValueError: they are configured differently.
    """
    settings: dict[str, Any] = {}
    for name in ("key_storage", "isolation_level", "lock_manager"):
        given = [found for policy in policies if (found := getattr(policy, name)) is not None]
        if any(found is not given[0] and found != given[0] for found in given):
            raise ConfigurationError(
                f"cache policies with different {name}s cannot be added; configure the sum instead"
            )
        settings[name] = given[0] if given else None
    return CompoundCachePolicy(policies=policies, **settings)


def policy_of(options: TaskOptions, names: Sequence[str]) -> CachePolicy | None:
    """The policy that the options of a task ask for; None when nothing is to be cached.

    Args:
        options: of the task.
        names: of its parameters.

    Raises:
        ConfigurationError: what was given is no policy.
    """
    policy: object = options.cache_policy
    if policy is not None and not isinstance(policy, CachePolicy):
        raise ConfigurationError(
            f"cache_policy={policy!r}: it is a policy of embedded_orch.cache_policies, or None"
        )
    if options.result_storage_key is not None:
        from embedded_orch.storage_keys import storage_key_of

        return storage_key_of(options, names, policy)
    if options.cache_key_fn is not None:
        if policy is not None:
            warnings.warn(
                "cache_policy and cache_key_fn are given; cache_key_fn is used", stacklevel=4
            )
        return CachePolicy.from_cache_key_fn(options.cache_key_fn)
    if policy is None or isinstance(policy, NoCache) or policy == DEFAULT:
        return None
    if options.persist_result is False:
        return None
    return policy


def source_key(task_ctx: TaskRunContext) -> str:
    """A hash of the source of a task's function."""
    task = task_ctx.task
    found = task.spec.source_hash
    if found is not None:
        return found
    code = getattr(task.fn, "__code__", None)
    parts = None if code is None else [code.co_code.hex(), repr(code.co_consts), code.co_names]
    return values.hash_inputs({"code": parts, "task": task.task_key}).hex()


def content_key(inputs: Mapping[str, Any]) -> str:
    """A hash of values by their content.

    Raises:
        ValueNotStorable: one of them is only known by its type, and could be any of it.
    """
    found = values.examine_inputs({name: _counted(value) for name, value in inputs.items()})
    if found.by_type:
        said = ", ".join(f"{name} (a {kind})" for name, kind in found.by_type.items())
        raise ValueNotStorable(
            f"no cache key can be made of {said}: its content cannot be hashed; leave it out by "
            f"INPUTS - {next(iter(found.by_type))!r}"
        )
    return found.digest.hex()


def _counted(value: Any) -> Any:
    """A DataFrame by its content, with its columns in order; everything else as it is."""
    pandas: Any = sys.modules.get("pandas")
    if pandas is None or not isinstance(value, pandas.DataFrame | pandas.Series):
        return value
    if isinstance(value, pandas.DataFrame):
        value = value.sort_index(axis="columns")
        labels = [(str(name), str(kind)) for name, kind in value.dtypes.items()]
    else:
        labels = [(str(value.name), str(value.dtype))]
    rows = pandas.util.hash_pandas_object(value)
    return [type(value).__name__, labels, rows.to_numpy().tobytes()]


def _flattened(policies: Sequence[CachePolicy]) -> list[CachePolicy]:
    parts: list[CachePolicy] = []
    excluded: list[set[str]] = []
    for policy in policies:
        for part in policy.policies if isinstance(policy, CompoundCachePolicy) else [policy]:
            if isinstance(part, Inputs):
                excluded.append(set(part.exclude))
            elif not isinstance(part, NoCache):
                parts.append(part)
    if excluded:
        parts.append(Inputs(exclude=sorted(set[str]().union(*excluded))))
    return parts


def _storage(key_storage: object) -> Any:
    if key_storage is None:
        return None
    from embedded_orch.filesystems import storage_from

    return storage_from(key_storage)


def _check(isolation_level: object) -> None:
    if isolation_level is not None and isolation_level not in _LEVELS:
        raise ConfigurationError(
            f"isolation_level={isolation_level!r}: it is one of {', '.join(_LEVELS)}"
        )


def _check_name(name: object) -> None:
    if not isinstance(name, str):
        raise ConfigurationError(
            f"{name!r} is subtracted from a cache policy: give an input's name"
        )


INPUTS = Inputs()
NONE = NO_CACHE = NoCache()
TASK_SOURCE = TaskSource()
FLOW_PARAMETERS = FlowParameters()
RUN_ID = RunId()
DEFAULT = INPUTS + TASK_SOURCE + RUN_ID
"""What a task has that says nothing: a call is not made twice in one flow run that is resumed or
retried. The records of runs do that by themselves, so that nothing is cached for it."""
