"""Options of flows and tasks: every one with its default, what callers may give, and the checks.

A decorator takes what :class:`TaskArguments` or :class:`FlowArguments` name. Checked and completed
it is a :class:`TaskOptions` or :class:`FlowOptions`, which the decorated function and the engine
read. The checks run when the function is decorated, not in the third hour; an option that is not
honoured yet is refused then, with the reason (``NOT_YET``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from embedded_orch.errors import ConfigurationError, OptionNotSupported

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from embedded_orch.orchestration.values import Policy

OnCrash = Literal["fail", "resume"]
RecordStart = Literal["announced", "before"]

# Prefect's limit.
_MOST_DELAYS = 50
_FORBIDDEN_IN_NAMES = "/%&<>"


class Options:
    """What flows and tasks have in common. A class attribute is the default of an option."""

    name: str | None = None
    description: str | None = None
    version: str | None = None
    tags: tuple[str, ...] = ()
    retries: int = 0
    retry_delay_seconds: float | Sequence[float] = 0
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
        # Prefect's signatures spell "not given" as None throughout.
        vars(self).update({k: v for k, v in given.items() if v is not None})
        self.tags = tags_of(self.tags)
        check_retries(self.retries, self.retry_delay_seconds)

    @classmethod
    def names(cls) -> list[str]:
        """Every option there is, in the order of the documentation."""
        return [name for kind in reversed(cls.__mro__[:-1]) for name in kind.__annotations__]

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
    def policy(self) -> Policy:
        """The retries as the rules read them."""
        return retry_policy(self.retries, self.retry_delay_seconds)


class TaskOptions(Options):
    """Every option of ``@task``."""

    cache_policy: Any = None
    cache_key_fn: Callable[..., Any] | None = None
    cache_expiration: Any = None
    refresh_cache: bool | None = None
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
        if self.record_start not in ("announced", "before"):
            raise ConfigurationError(
                f"record_start={self.record_start!r}: it is 'announced' or 'before'"
            )


class FlowOptions(Options):
    """Every option of ``@flow``."""

    flow_run_name: str | Callable[..., str] | None = None
    task_runner: Any = None
    validate_parameters: bool = True
    on_cancellation: Sequence[Callable[..., Any]] | None = None
    on_crashed: Sequence[Callable[..., Any]] | None = None
    on_crash: OnCrash = "fail"

    def __init__(self, given: Mapping[str, Any]) -> None:
        super().__init__(given)
        if isinstance(self.retry_delay_seconds, Sequence):
            raise ConfigurationError("retry_delay_seconds of a flow is one number of seconds")
        if self.on_crash not in ("fail", "resume"):
            raise ConfigurationError(f"on_crash={self.on_crash!r}: it is 'fail' or 'resume'")


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

    retry_delay_seconds: float | Sequence[float] | None
    cache_policy: Any
    cache_key_fn: Callable[..., Any] | None
    cache_expiration: Any
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
    task_runner: Any
    validate_parameters: bool | None
    on_cancellation: Sequence[Callable[..., Any]] | None
    on_crashed: Sequence[Callable[..., Any]] | None
    on_crash: OnCrash


# Options that are known and not honoured yet, and why.
NOT_YET = {
    "timeout_seconds": "time limits of runs are not built",
    "persist_result": "results are always stored where they can be",
    "result_storage": "results are stored in the database",
    "result_serializer": "results are stored as tagged JSON",
    "result_storage_key": "results are stored in the database",
    "cache_result_in_memory": "results are always at hand in memory",
    "log_prints": "output is not captured",
    "on_completion": "hooks are not called",
    "on_failure": "hooks are not called",
    "on_running": "hooks are not called",
    "on_cancellation": "hooks are not called",
    "on_crashed": "hooks are not called",
    "on_commit": "hooks are not called",
    "on_rollback": "hooks are not called",
    "cache_policy": "results are not cached between runs",
    "cache_key_fn": "results are not cached between runs",
    "cache_expiration": "results are not cached between runs",
    "refresh_cache": "results are not cached between runs",
    "task_run_name": "names of runs are made up",
    "flow_run_name": "names of runs are made up",
    "retry_jitter_factor": "delays are exact",
    "retry_condition_fn": "every failure is retried",
    "task_runner": "submitted tasks run in threads",
    "validate_parameters": "parameters are passed on as they are",
    "viz_return_value": "flows are not drawn",
    "asset_deps": "assets are not recorded",
}


def flow_name(function: Callable[..., Any], name: str | None) -> str:
    """The name of a flow: the one given, or that of its function with ``-`` for ``_``.

    Raises:
        ConfigurationError: it holds what no name may hold.
    """
    found = name or getattr(function, "__name__", type(function).__name__).replace("_", "-")
    bad = [character for character in _FORBIDDEN_IN_NAMES if character in found]
    if bad or not found:
        raise ConfigurationError(
            f"the flow name {found!r} holds {' '.join(bad)}; it cannot hold any of "
            f"{' '.join(_FORBIDDEN_IN_NAMES)}"
        )
    return found


def check_retries(retries: object, delay: object) -> None:
    """Refuse retries that cannot be made.

    Raises:
        ConfigurationError: the message says which and why.
    """
    if not isinstance(retries, int) or isinstance(retries, bool) or retries < 0:
        raise ConfigurationError(f"retries={retries!r}: it is a number of retries, 0 or more")
    delays = delay if isinstance(delay, Sequence) and not isinstance(delay, str) else [delay]
    if len(delays) > _MOST_DELAYS:
        raise ConfigurationError(
            f"retry_delay_seconds has {len(delays)} items, at most 50 are taken"
        )
    for each in delays:
        if (
            not isinstance(each, int | float)
            or isinstance(each, bool)
            or not 0 <= each < float("inf")
        ):
            raise ConfigurationError(
                f"retry_delay_seconds={delay!r}: it is a number of seconds, or a list of them"
            )


def tags_of(tags: object) -> tuple[str, ...]:
    """The tags, checked.

    Raises:
        ConfigurationError: they are one text, whose letters would be the tags, or no texts.
    """
    if isinstance(tags, Iterable) and not isinstance(tags, (str, bytes)):
        found = tuple(tags)
        if all(isinstance(tag, str) for tag in found):
            return found
    raise ConfigurationError(f"tags={tags!r}: give a list of texts")


def retry_policy(retries: int, delay: float | Sequence[float]) -> Policy:
    """The retries as the rules read them."""
    from embedded_orch.orchestration.values import Policy

    return Policy(
        retries=retries,
        retry_delay=tuple(delay) if isinstance(delay, Sequence) else delay,
    )
