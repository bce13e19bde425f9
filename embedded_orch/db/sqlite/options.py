"""What can be set on a SQLite database, and what the settings mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import msgspec

from embedded_orch.errors import ConfigurationError
from embedded_orch.values.places import LARGEST_INSIDE

if TYPE_CHECKING:
    from collections.abc import Mapping

Durability = Literal["normal", "full", "off"]
Journal = Literal["wal", "truncate"]

_CHOICES: dict[str, tuple[object, ...]] = {
    "durability": get_args(Durability),
    "journal": get_args(Journal),
}
_LONGEST_TIMEOUT_SECONDS = 2_000_000
_LARGEST_COUNT = 2**31 - 1
# Bytes of a value; SQLite as it is built here takes no more (https://sqlite.org/limits.html, 1).
_LARGEST_VALUE = 10**9


class SQLiteOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of one database file, the same for each of its connections.

    Attributes:
        durability: ``normal`` (synchronous=NORMAL) keeps every commit through the death of a
            process, and may lose the last ones at a power cut; ``full`` loses none; ``off`` is
            for data that may be lost.
        journal: ``wal``, or ``truncate`` for one process on a file system where WAL cannot work.
        cache_size: pages that each connection may keep.
        busy_timeout_seconds: how long to wait for a lock of another process.
        max_readers: how many read transactions may be open at once; more wait.
        checkpoint_pages: how long the write-ahead log grows before it is copied into the file.
        inline_result_bytes: the largest result that stays in its row; a larger one is a file in
            the folder beside the database. In memory all of them stay.
        vfs: the name of a registered SQLite VFS, for the tests that cut the power.
    """

    durability: Durability = "normal"
    journal: Journal = "wal"
    cache_size: int = 20_000
    busy_timeout_seconds: float = 60.0
    max_readers: int = 8
    checkpoint_pages: int = 2_000
    inline_result_bytes: int = LARGEST_INSIDE
    vfs: str | None = None

    @classmethod
    def of(cls, settings: Mapping[str, object]) -> SQLiteOptions:
        """The options with these names and values.

        Raises:
            ConfigurationError: a name that is no option, or a value that it cannot have.
        """
        known = cls.__struct_fields__
        unknown = sorted(set(settings) - set(known))
        if unknown:
            raise ConfigurationError(
                f"{', '.join(unknown)} cannot be set on a SQLite database; it has "
                f"{', '.join(name for name in known if name != 'vfs')}"
            )
        _check_choices(settings)
        try:
            return msgspec.convert(dict(settings), cls)
        except msgspec.ValidationError as error:
            # What __post_init__ raises arrives wrapped; the original is the better message.
            if isinstance(error.__cause__, ConfigurationError):
                raise error.__cause__ from None
            text, _, name = str(error).partition(" - at `$.")
            raise ConfigurationError(f"{name.rstrip('`')}: {text}") from error

    def __post_init__(self) -> None:
        _check_choices({"durability": self.durability, "journal": self.journal})
        # Also false for NaN; SQLite takes it as a number of milliseconds in 31 bits.
        if not 0 <= self.busy_timeout_seconds <= _LONGEST_TIMEOUT_SECONDS:
            raise ConfigurationError(
                f"busy_timeout_seconds={self.busy_timeout_seconds}: from 0 to "
                f"{_LONGEST_TIMEOUT_SECONDS}"
            )
        if not 0 <= self.inline_result_bytes <= _LARGEST_VALUE:
            raise ConfigurationError(
                f"inline_result_bytes={self.inline_result_bytes}: from 0 to {_LARGEST_VALUE}"
            )
        for name in ("cache_size", "max_readers", "checkpoint_pages"):
            if not 1 <= getattr(self, name) <= _LARGEST_COUNT:
                raise ConfigurationError(
                    f"{name}={getattr(self, name)}: from 1 to {_LARGEST_COUNT}"
                )

    @property
    def synchronous(self) -> str:
        """The value of ``PRAGMA synchronous``.

        Without a log NORMAL does not keep the file whole: damaged after 36 of 600 simulated power
        cuts (FULL: after none), so there ``normal`` means FULL.
        """
        if self.journal == "truncate" and self.durability == "normal":
            return "FULL"
        return self.durability.upper()


def _check_choices(settings: Mapping[str, object]) -> None:
    for name, choices in _CHOICES.items():
        if name in settings and settings[name] not in choices:
            raise ConfigurationError(
                f"{name}={settings[name]!r} is unknown; it is one of {', '.join(map(str, choices))}"
            )
