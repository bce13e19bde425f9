"""Options of flows and tasks: every one with its default, what callers may give, and the checks.

A decorator takes what :class:`TaskArguments` or :class:`FlowArguments` name. Checked and completed
it is a :class:`TaskOptions` or :class:`FlowOptions`, which the decorated function and the engine
read. The checks run when the function is decorated, not in the third hour; an option that is not
honoured yet is refused then, with the reason (``NOT_YET``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypedDict

from embedded_orch.engine.checking import (
    Delays,
    check_callable,
    check_choices,
    check_delays,
    check_expiration,
    check_flag,
    check_jitter,
    check_max_resumes,
    check_retries,
    check_run_name,
    check_task_runner,
    check_text,
    check_timeout,
    hooks_of,
    tags_of,
)
from embedded_orch.engine.settings import Default
from embedded_orch.errors import ConfigurationError, OptionNotSupported

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from embedded_orch.engine.runner import RunnerSource
    from embedded_orch.orchestration.values import Policy

OnCrash = Literal["fail", "resume"]
OnChange = Literal["keep", "strict"]
Match = Literal["inputs", "position"]
RecordStart = Literal["announced", "before"]


class Options:
    """What flows and tasks have in common. A class attribute is the default of an option.

    Attributes:
        HOOKS: the options that are lists of functions to call.
        naming: of tasks and of flows, what names their runs.
        hooks: those lists; hooks may be added to them at any time.
        KEEPING: the options that say how results are kept.
        says_how_to_keep: whether one of those is given.
        NONE_IS_A_VALUE: the options that ``with_options`` sets back to their default when it is
            given None; for the others None is "as it is". Prefect's signatures decide which.
    """

    HOOKS: ClassVar[tuple[str, ...]] = ("on_completion", "on_failure", "on_running")
    NONE_IS_A_VALUE = frozenset(
        {"log_prints", "persist_result", "result_serializer", "result_storage"}
    )
    KEEPING = frozenset(
        {"cache_result_in_memory", "persist_result", "result_serializer", "result_storage"}
    )

    name: str | None = None
    description: str | None = None
    version: str | None = None
    tags: tuple[str, ...] = ()
    retries: Default[int] = Default(0, check_retries)
    retry_delay_seconds: Default[Delays] = Default(0, check_delays)
    timeout_seconds: float | None = None
    persist_result: bool | None = None
    result_storage: Any = None
    result_serializer: Any = None
    cache_result_in_memory: bool = True
    log_prints: bool | None = None
    on_completion: Sequence[Callable[..., Any]] | None = None
    on_failure: Sequence[Callable[..., Any]] | None = None
    on_running: Sequence[Callable[..., Any]] | None = None

    def __init__(self, given: Mapping[str, Any]) -> None:
        """Check and keep what was given.

        Raises:
            OptionNotSupported: an option that there is not, or that is not honoured yet.
            ConfigurationError: a value that an option cannot have.
        """
        self._refuse(given)
        self._given = given
        self.naming: str | Callable[..., str] | None = None
        # Prefect's signatures spell "not given" as None throughout.
        chosen = {name: value for name, value in given.items() if value is not None}
        vars(self).update(chosen)
        self.tags = tags_of(self.tags)
        self.hooks = {name: hooks_of(name, chosen.get(name, ())) for name in self.HOOKS}
        if chosen.keys() & {"persist_result", "result_serializer"}:
            from embedded_orch.engine.keeping import check_keeping

            check_keeping(self)
        if "result_storage" in chosen:
            from embedded_orch.filesystems import storage_from

            self.result_storage = storage_from(chosen["result_storage"])
        self.says_how_to_keep = not chosen.keys().isdisjoint(self.KEEPING)
        if "retries" in chosen:
            check_retries(self.retries)
        if "timeout_seconds" in chosen:
            self.timeout_seconds = check_timeout(self.timeout_seconds)
        if "retry_delay_seconds" in chosen:
            delays = chosen["retry_delay_seconds"]
            found = delays(self.retries) if callable(delays) else delays
            vars(self)["retry_delay_seconds"] = check_delays(found)

    @property
    def has_hooks(self) -> bool:
        """Whether there are hooks by now, of any kind."""
        return any(self.hooks.values())

    @classmethod
    def names(cls) -> list[str]:
        """Every option there is, in the order of the documentation."""
        kinds = reversed(cls.__mro__[:-1])
        names = [name for kind in kinds for name in kind.__annotations__]
        return [name for name in names if name.islower()]

    def changed(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What to make the options of ``with_options`` from, which is given ``given``."""
        changes = {k: v for k, v in given.items() if v is not None or k in self.NONE_IS_A_VALUE}
        # Those that were added to the decorated function are its too.
        return {**self._given, **{k: v for k, v in self.hooks.items() if v}, **changes}

    def _refuse(self, given: Mapping[str, Any]) -> None:
        what = type(self).__name__.removesuffix("Options").lower()
        names = self.names()
        unknown = sorted(set(given) - set(names))
        if unknown:
            raise OptionNotSupported(
                f"@{what} does not support {', '.join(map(repr, unknown))}; it has "
                f"{', '.join(names)}"
            )
        for name, reason in NOT_YET.items():
            if name in given and given[name] != getattr(type(self), name):
                raise OptionNotSupported(
                    f"@{what} does not support {name!r} yet: {reason}; leave it out"
                )

    @property
    def keeping_given(self) -> dict[str, Any]:
        """What was given of how results are kept."""
        return {name: value for name, value in self._given.items() if name in self.KEEPING}

    @property
    def key_storage(self) -> Any:
        """Where the cache keys of a task have their records, if that is not the database."""
        return None

    @property
    def asks_to_persist(self) -> bool:
        """Whether an option asks for stored results without ``persist_result``."""
        return self.result_storage is not None or self.result_serializer is not None

    @property
    def policy(self) -> Policy:
        """The retries as the rules read them."""
        from embedded_orch.orchestration.values import Policy

        delay = self.retry_delay_seconds
        return Policy(
            retries=self.retries,
            retry_delay=tuple(delay) if isinstance(delay, Sequence) else delay,
        )


class TaskOptions(Options):
    """Every option of ``@task``."""

    HOOKS = (*Options.HOOKS, "on_commit", "on_rollback")
    KEEPING = Options.KEEPING | {"cache_policy", "cache_key_fn", "result_storage_key"}
    NONE_IS_A_VALUE = Options.NONE_IS_A_VALUE | {
        "cache_policy",
        "refresh_cache",
        "result_storage_key",
        "retries",
        "retry_delay_seconds",
        "retry_jitter_factor",
        "task_run_name",
    }

    cache_policy: Any = None
    cache_key_fn: Callable[..., Any] | None = None
    cache_expiration: timedelta | None = None
    refresh_cache: Default[bool] = Default(False, check_flag)
    task_run_name: str | Callable[..., str] | None = None
    retry_jitter_factor: float | None = None
    retry_condition_fn: Callable[..., Any] | None = None
    result_storage_key: str | None = None
    on_commit: Sequence[Callable[..., Any]] | None = None
    on_rollback: Sequence[Callable[..., Any]] | None = None
    viz_return_value: Any = None
    asset_deps: Sequence[Any] | None = None
    record_start: RecordStart = "announced"

    def __init__(self, given: Mapping[str, Any]) -> None:
        super().__init__(given)
        check_run_name("task_run_name", self.task_run_name)
        self.naming = self.task_run_name
        check_callable("retry_condition_fn", self.retry_condition_fn)
        check_jitter(self.retry_jitter_factor)
        check_callable("cache_key_fn", self.cache_key_fn)
        check_text("result_storage_key", self.result_storage_key)
        check_expiration(self.cache_expiration)
        if given.get("refresh_cache") is not None:
            check_flag(given["refresh_cache"])
        if self.record_start not in ("announced", "before"):
            raise ConfigurationError(
                f"record_start={self.record_start!r}: it is 'announced' or 'before'"
            )

    @property
    def key_storage(self) -> Any:
        """Where the cache keys of a task have their records, if that is not the database."""
        return getattr(self.cache_policy, "key_storage", None)

    @property
    def asks_to_persist(self) -> bool:
        """Whether an option asks for stored results without ``persist_result``."""
        keyed = (self.cache_policy, self.cache_key_fn, self.result_storage_key)
        return any(each is not None for each in keyed) or super().asks_to_persist

    @property
    def policy(self) -> Policy:
        """The retries as the rules read them."""
        policy = super().policy
        if not self.retry_jitter_factor:
            return policy
        from msgspec.structs import replace

        return replace(policy, retry_jitter_factor=self.retry_jitter_factor)


class FlowOptions(Options):
    """Every option of ``@flow``."""

    HOOKS = (*Options.HOOKS, "on_cancellation", "on_crashed")

    flow_run_name: str | Callable[..., str] | None = None
    task_runner: RunnerSource | None = None
    validate_parameters: bool = True
    on_cancellation: Sequence[Callable[..., Any]] | None = None
    on_crashed: Sequence[Callable[..., Any]] | None = None
    on_crash: OnCrash = "fail"
    max_resumes: int = 3
    on_change: OnChange | None = None
    match: Match | None = None

    def __init__(self, given: Mapping[str, Any]) -> None:
        super().__init__(given)
        check_run_name("flow_run_name", self.flow_run_name)
        self.naming = self.flow_run_name
        if isinstance(given.get("retry_delay_seconds"), Sequence):
            raise ConfigurationError("retry_delay_seconds of a flow is one number of seconds")
        if self.task_runner is not None:
            self.task_runner = check_task_runner(self.task_runner)
        if self.on_crash not in ("fail", "resume"):
            raise ConfigurationError(f"on_crash={self.on_crash!r}: it is 'fail' or 'resume'")
        check_max_resumes(self.max_resumes)
        check_choices(self.on_change, self.match)


class Arguments(TypedDict, total=False):
    """What both decorators take."""

    name: str | None
    description: str | None
    version: str | None
    tags: Iterable[str] | None
    retries: int | None
    timeout_seconds: float | None
    persist_result: bool | None
    result_storage: Any
    result_serializer: Any
    cache_result_in_memory: bool
    log_prints: bool | None
    on_completion: Sequence[Callable[..., Any]] | None
    on_failure: Sequence[Callable[..., Any]] | None
    on_running: Sequence[Callable[..., Any]] | None


class TaskArguments(Arguments, total=False):
    """What ``@task`` and ``Task.with_options`` take."""

    retry_delay_seconds: Delays | Callable[[int], Sequence[float]] | None
    cache_policy: Any
    cache_key_fn: Callable[..., Any] | None
    cache_expiration: timedelta | None
    refresh_cache: bool | None
    task_run_name: str | Callable[..., str] | None
    retry_jitter_factor: float | None
    retry_condition_fn: Callable[..., Any] | None
    result_storage_key: str | None
    on_commit: Sequence[Callable[..., Any]] | None
    on_rollback: Sequence[Callable[..., Any]] | None
    viz_return_value: Any
    asset_deps: Sequence[Any] | None
    record_start: RecordStart


class FlowArguments(Arguments, total=False):
    """What ``@flow`` and ``Flow.with_options`` take."""

    retry_delay_seconds: float | None
    flow_run_name: str | Callable[..., str] | None
    task_runner: RunnerSource | type[RunnerSource] | None
    validate_parameters: bool | None
    on_cancellation: Sequence[Callable[..., Any]] | None
    on_crashed: Sequence[Callable[..., Any]] | None
    on_crash: OnCrash
    max_resumes: int
    on_change: OnChange | None
    match: Match | None


# Options that are known and not honoured yet, and why.
NOT_YET = {
    "viz_return_value": "flows are not drawn",
    "asset_deps": "assets are not recorded",
}
