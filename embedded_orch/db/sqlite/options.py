"""What can be set on a SQLite database, and what the settings mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import msgspec

from embedded_orch.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

Durability = Literal["normal", "full", "off"]
Journal = Literal["wal", "truncate"]


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
        vfs: the name of a registered SQLite VFS, for the tests that cut the power.
    """

    durability: Durability = "normal"
    journal: Journal = "wal"
    cache_size: int = 20_000
    busy_timeout_seconds: float = 60.0
    max_readers: int = 8
    checkpoint_pages: int = 2_000
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
        try:
            return msgspec.convert(dict(settings), cls)
        except msgspec.ValidationError as error:
            raise ConfigurationError(str(error)) from error

    def __post_init__(self) -> None:
        for name, allowed in (("durability", Durability), ("journal", Journal)):
            value = getattr(self, name)
            if value not in get_args(allowed):
                raise ConfigurationError(
                    f"{name}={value!r} is unknown; it is one of {', '.join(get_args(allowed))}"
                )
        if self.busy_timeout_seconds < 0:
            raise ConfigurationError("busy_timeout_seconds cannot be negative")
        for name in ("cache_size", "max_readers", "checkpoint_pages"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} must be at least 1")

    @property
    def synchronous(self) -> str:
        """The value of ``PRAGMA synchronous``."""
        return self.durability.upper()
