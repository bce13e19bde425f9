"""Options of flows and tasks, checked when the function is decorated, not in the third hour."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from embedded_orch.errors import ConfigurationError, OptionNotSupported

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from embedded_orch.orchestration.values import Policy

# Prefect's limit.
_MOST_DELAYS = 50


def refuse_unknown(what: str, options: Mapping[str, Any], init: Callable[..., Any]) -> None:
    """Refuse the options that the constructor does not take.

    Raises:
        OptionNotSupported: the message names those that there are.
    """
    code = init.__code__
    known = code.co_varnames[2 : code.co_argcount + code.co_kwonlyargcount]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise OptionNotSupported(
            f"@{what} does not support {', '.join(map(repr, unknown))} (yet); it has "
            f"{', '.join(known)}"
        )


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
