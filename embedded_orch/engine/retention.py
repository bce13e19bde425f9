"""How long runs are kept that have ended: the default, and what else is asked for."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import msgspec

from embedded_orch import times
from embedded_orch.errors import ConfigurationError
from embedded_orch.store.retention import Extent

VARIABLE = "EMBEDDED_ORCH_RETENTION"

_UNITS = {"": 1, "b": 1, "kb": 2**10, "mb": 2**20, "gb": 2**30, "tb": 2**40}


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """How long runs that have ended are kept, with all that belongs to them.

    Attributes:
        completed: how long after their end runs that completed are kept; None for ever.
        unfinished: the same for runs that failed, crashed or were cancelled, which may be resumed.
        max_bytes: of a SQLite database, how much it may hold. Where it holds more, completed runs
            go before their time, oldest first, but none that ended within the last day. None for
            as much as there comes. A server is not looked at.
        keep_artifacts: whether artifacts outlive their runs. The newest of each key always does.
        cached_results: whether results that others may use, and that do not expire by themselves,
            go with the runs that computed them.
    """

    completed: timedelta | None = timedelta(days=90)
    unfinished: timedelta | None = timedelta(days=365)
    max_bytes: int | None = 4 * 2**30
    keep_artifacts: bool = False
    cached_results: bool = False

    def __post_init__(self) -> None:
        for name in ("completed", "unfinished"):
            age = getattr(self, name)
            if age is not None and (not isinstance(age, timedelta) or age < timedelta(0)):
                raise ConfigurationError(f"{name}={age!r}: a timedelta of 0 or more, or None")
        most = self.max_bytes
        if most is not None and (type(most) is not int or most < 0):
            raise ConfigurationError(f"max_bytes={most!r}: a number of bytes, or None")

    @property
    def extent(self) -> Extent:
        """What goes with a run."""
        return Extent(not self.keep_artifacts, self.cached_results)

    def older_than(self, completed: timedelta, unfinished: timedelta | None = None) -> Retention:
        """The same with other ages, whatever the size.

        Args:
            completed: how long completed runs are kept.
            unfinished: how long the others are kept. As long as before when not given, and not
                shorter than completed ones.
        """
        if unfinished is None and self.unfinished is not None:
            unfinished = max(self.unfinished, completed)
        return msgspec.structs.replace(
            self, completed=completed, unfinished=unfinished, max_bytes=None
        )

    def for_unfinished(self, unfinished: timedelta) -> Retention:
        """The same with another age of runs that did not complete, whatever the size."""
        return msgspec.structs.replace(self, unfinished=unfinished, max_bytes=None)


def retention_of(setting: object) -> Retention | None:
    """What ``open(retention=...)`` means; None for none.

    Args:
        setting: a :class:`Retention`; how long completed runs are kept; False for no end; None for
            what the environment says.

    Raises:
        ConfigurationError: it is none of these, or the environment is not understood.
    """
    if setting is None:
        return _of_environment()
    if setting is False:
        return None
    if isinstance(setting, Retention):
        return setting
    if isinstance(setting, timedelta):
        return _with_age(setting)
    raise ConfigurationError(
        f"retention={setting!r}: a Retention, a timedelta, or False for runs that are kept for ever"
    )


def _with_age(age: timedelta) -> Retention:
    default = Retention()
    assert default.unfinished is not None, "the default has one"
    return Retention(completed=age, unfinished=max(age, default.unfinished))


def _of_environment() -> Retention | None:
    """What ``EMBEDDED_ORCH_RETENTION`` says: off, an age, or fields such as ``completed=30d``."""
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return Retention()
    if text.lower() in ("off", "false", "no", "0"):
        return None
    try:
        if "=" not in text:
            return _with_age(times.duration_from_text(text))
        fields = dict(_field(part) for part in text.split(","))
        return Retention(**fields)
    except (ConfigurationError, TypeError) as error:
        raise ConfigurationError(
            f"the environment variable {VARIABLE}={text!r} is not understood: {error}; it is off, "
            f"30d, or completed=30d,unfinished=90d,max_bytes=2GB"
        ) from error


def _field(part: str) -> tuple[str, Any]:
    name, _, word = (each.strip() for each in part.partition("="))
    if word.lower() == "never":
        return name, None
    if name == "max_bytes":
        return name, _bytes_from_text(word)
    if name in ("completed", "unfinished"):
        return name, times.duration_from_text(word)
    return name, word.lower() in ("1", "true", "yes", "on")


def _bytes_from_text(word: str) -> int:
    number = word.rstrip("bBkKmMgGtT ")
    unit = word[len(number) :].strip().lower()
    if not number.isdecimal() or unit not in _UNITS:
        raise ConfigurationError(f"{word!r} is no size; it is a number of B, KB, MB, GB or TB")
    return int(number) * _UNITS[unit]
