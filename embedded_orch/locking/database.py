"""Locks of keys in the database, which end with the process that holds them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedded_orch import errors
from embedded_orch.db.repeating import yes_once_yes
from embedded_orch.locking.polling import PollingLocks
from embedded_orch.store import caching

if TYPE_CHECKING:
    from embedded_orch.db.port import Transaction
    from embedded_orch.engine.engine import Engine


class DatabaseLockManager(PollingLocks):
    """The locks that tasks with a SERIALIZABLE cache policy take, for the keys of anybody.

    Args:
        engine: on whose database.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def try_lock(self, key: str, holder: str, hold_timeout: float | None) -> bool:
        """Take the lock if it is free, also when its holder's process has died."""
        if hold_timeout is not None:
            raise errors.OptionNotSupported(
                "hold_timeout: a lock in the database is held until it is given back, or until its "
                "process ends"
            )
        engine = self._engine

        def take(tx: Transaction) -> str:
            engine.owner.register(tx)
            now, owner_id = engine.process.now(), engine.owner.id
            return caching.lock(tx, key=key, holder=holder, owner_id=owner_id, now=now).holder

        if engine.database.write(take) == holder:
            return True
        if not engine.owner.is_alone:
            engine.recovery.sweep()
        return False

    def release_lock(self, key: str, holder: str) -> None:
        """Give the lock of a key back.

        Raises:
            ValueError: that holder does not hold it.
        """
        release = yes_once_yes(lambda tx: caching.unlock(tx, key=key, holder=holder))
        if not self._engine.database.write(release):
            raise ValueError(f"{holder!r} does not hold the lock of {key!r}")

    def is_locked(self, key: str) -> bool:
        """Whether somebody holds it."""
        return self._holder(key) is not None

    def is_lock_holder(self, key: str, holder: str) -> bool:
        """Whether that holder does."""
        return self._holder(key) == holder

    def _holder(self, key: str) -> str | None:
        found = self._engine.database.read(lambda tx: caching.lock_holder(tx, key=key))
        return None if found is None else found.holder

    def __repr__(self) -> str:
        return f"<DatabaseLockManager on {self._engine.database.url}>"
