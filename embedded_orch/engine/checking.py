"""What options of flows and tasks may be: checked when a function is decorated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeGuard

from embedded_orch.errors import ConfigurationError

if TYPE_CHECKING:
    from embedded_orch.engine.runner import RunnerSource

Delays = float | Sequence[float]

MOST_DELAYS = 50
"""How many delays a list of them may have; Prefect's limit."""
_FORBIDDEN_IN_NAMES = "/%&<>"


def flow_name(function: Callable[..., Any], name: str | None) -> str:
    """The name of a flow: the one given, or that of its function with ``-`` for ``_``.

    Raises:
        ConfigurationError: it holds what no name may hold.
    """
    found = name or getattr(function, "__name__", type(function).__name__).replace("_", "-")
    if found == "<lambda>":
        found = "unknown-lambda"
    bad = [character for character in _FORBIDDEN_IN_NAMES if character in found]
    if bad or not found:
        raise ConfigurationError(
            f"the flow name {found!r} holds {' '.join(bad)}; it cannot hold any of "
            f"{' '.join(_FORBIDDEN_IN_NAMES)}"
        )
    return found


def check_retries(retries: object) -> int:
    """How often a run is retried, checked.

    Raises:
        ConfigurationError: it is no number of retries.
    """
    if not isinstance(retries, int) or isinstance(retries, bool) or retries < 0:
        raise ConfigurationError(f"retries={retries!r}: it is a number of retries, 0 or more")
    return retries


def check_task_runner(runner: object) -> RunnerSource:
    """A task runner, made if only its class was given.

    Raises:
        ConfigurationError: it is none of ours.
    """
    made: Any = runner() if isinstance(runner, type) else runner
    if not callable(getattr(made, "open_runner", None)):
        raise ConfigurationError(
            f"task_runner={runner!r}: it is a ThreadPoolTaskRunner or a ProcessPoolTaskRunner of "
            f"embedded_orch.task_runners, the class or one that was made"
        )
    found: RunnerSource = made
    return found


def check_timeout(seconds: object) -> float | None:
    """How long a run may take, checked; None when it may take as long as it takes, as for 0.

    Raises:
        ConfigurationError: it is no number of seconds.
    """
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not seconds >= 0:
        raise ConfigurationError(f"timeout_seconds={seconds!r}: it is a number of seconds")
    return None if seconds in (0, float("inf")) else float(seconds)


def check_delays(delay: object) -> Delays:
    """The delays before retries, checked.

    Raises:
        ConfigurationError: the message says which and why.
    """
    if isinstance(delay, Sequence) and not isinstance(delay, str):
        if len(delay) > MOST_DELAYS:
            raise ConfigurationError(
                f"retry_delay_seconds has {len(delay)} items, at most {MOST_DELAYS} are taken"
            )
        if all(_is_amount(each) for each in delay):
            return delay
    elif _is_amount(delay):
        return delay
    raise ConfigurationError(
        f"retry_delay_seconds={delay!r}: it is a number of seconds, a list of them, or for a task "
        f"a function that makes a list for a number of retries"
    )


def _is_amount(value: object) -> TypeGuard[float]:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return 0 <= value < float("inf")


def check_expiration(expiration: object) -> None:
    """Refuse what is no time after which a cached result is not used any more.

    Raises:
        ConfigurationError: it is none.
    """
    if expiration is not None and not isinstance(expiration, timedelta):
        raise ConfigurationError(f"cache_expiration={expiration!r}: it is a timedelta, or None")


def check_flag(value: object) -> bool:
    """True or False as it is.

    Raises:
        ConfigurationError: it is neither.
    """
    if not isinstance(value, bool):
        raise ConfigurationError(f"{value!r} is neither True nor False")
    return value


def check_max_resumes(count: object) -> int:
    """Refuse what is no number of resumes.

    Raises:
        ConfigurationError: it is none.
    """
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise ConfigurationError(f"max_resumes={count!r}: it is a number from 0 on")
    return count


def check_choices(on_change: object, match: object) -> None:
    """Refuse what a resume cannot do about changes.

    Raises:
        ConfigurationError: it is neither None nor one of the words that there are.
    """
    if on_change not in (None, "keep", "strict"):
        raise ConfigurationError(f"on_change={on_change!r}: it is 'keep' or 'strict'")
    if match not in (None, "inputs", "position"):
        raise ConfigurationError(f"match={match!r}: it is 'inputs' or 'position'")


def check_jitter(factor: object) -> None:
    """Refuse a jitter that delays cannot have.

    Raises:
        ConfigurationError: it is not None and no factor.
    """
    if factor is not None and not _is_amount(factor):
        raise ConfigurationError(f"retry_jitter_factor={factor!r}: it is a factor, 0 or more")


def check_callable(option: str, value: object) -> None:
    """Refuse what cannot be called.

    Raises:
        ConfigurationError: it is not None and cannot be called.
    """
    if value is not None and not callable(value):
        raise ConfigurationError(f"{option}={value!r}: give a function")


def check_text(option: str, value: object) -> None:
    """Refuse what is no text.

    Raises:
        ConfigurationError: it is not None and no text, or an empty one.
    """
    if value is not None and (not isinstance(value, str) or not value):
        raise ConfigurationError(f"{option}={value!r}: it is a text")


def check_run_name(option: str, naming: object) -> None:
    """Refuse what cannot name runs.

    Raises:
        ConfigurationError: it is not None, and neither a text nor a function.
    """
    if naming is not None and not isinstance(naming, str) and not callable(naming):
        raise ConfigurationError(
            f"{option}={naming!r}: give a template such as 'load-{{path}}', or a function that "
            f"returns the name"
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


def hooks_of(option: str, hooks: object) -> list[Callable[..., Any]]:
    """The hooks, checked.

    Raises:
        ConfigurationError: they are no list of functions.
    """
    if isinstance(hooks, Iterable) and not isinstance(hooks, (str, bytes)):
        found = list(hooks)
        if all(callable(hook) for hook in found):
            return found
    raise ConfigurationError(f"{option}={hooks!r}: give a list of functions")
