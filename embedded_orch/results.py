"""Values by key, in the database of the runs: what transactions with a key leave behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from embedded_orch import errors, times, values
from embedded_orch.locking.database import DatabaseLockManager
from embedded_orch.orchestration.values import LONGEST_CACHE_KEY
from embedded_orch.orchestrator import current_engine
from embedded_orch.states import VALUE
from embedded_orch.store import caching

if TYPE_CHECKING:
    from datetime import datetime

    from embedded_orch.db.port import Transaction
    from embedded_orch.engine.engine import Engine
    from embedded_orch.locking.protocol import LockManager

R = TypeVar("R")

__all__ = ["ResultRecord", "ResultStore", "get_result_store"]


class ResultRecord(Generic[R]):
    """What a store has at a key.

    Attributes:
        key: its key.
        result: the value.
    """

    __slots__ = ("key", "result")

    def __init__(self, key: str, result: R) -> None:
        self.key = key
        self.result = result

    def __repr__(self) -> str:
        return f"<ResultRecord {self.key}>"


class ResultStore:
    """Values by key, as tagged JSON in the database of an orchestrator. Any thread may use it.

    They are the records that cached results have too, so a key that a task's ``cache_key_fn`` gave
    is found here.

    Args:
        engine: on whose database; that of a flow called here when not given.
        lock_manager: who keeps the locks of keys; the database when not given.
    """

    def __init__(
        self, *, engine: Engine | None = None, lock_manager: LockManager | None = None
    ) -> None:
        self._engine = engine or current_engine()
        self.lock_manager = lock_manager or DatabaseLockManager(self._engine)

    def exists(self, key: str) -> bool:
        """Whether there is a value that has not expired."""
        return self._find(key) is not None

    def read(self, key: str, holder: str | None = None) -> ResultRecord[Any]:
        """The value at a key.

        Args:
            key: its key.
            holder: taken for the sake of programs that give it; reading needs no lock.

        Raises:
            MissingResult: there is none, or it cannot be read any more.
        """
        data = self._find(key)
        if data is None:
            raise errors.MissingResult(f"nothing is stored under the key {key!r}, or not any more")
        return ResultRecord(key, values.decode(data))

    def write(
        self,
        obj: Any,
        key: str | None = None,
        expiration: datetime | None = None,
        holder: str | None = None,
    ) -> None:
        """Store a value; it takes the place of one that is there.

        Args:
            obj: the value.
            key: its key.
            expiration: when it expires; never when not given.
            holder: who writes it; refused while somebody else holds the lock of the key.

        Raises:
            ConfigurationError: no key, one that is too long, or a moment without a time zone.
            ValueNotStorable: it would not come back equal and of its type.
            DatabaseBusy: somebody else holds the lock of the key.
        """
        if not key or len(key) > LONGEST_CACHE_KEY:
            raise errors.ConfigurationError(
                f"a key has 1 to {LONGEST_CACHE_KEY} characters: {key!r}"
            )
        if self.is_locked(key) and not self.is_lock_holder(key, holder):
            raise errors.DatabaseBusy(f"the key {key!r} is locked by another; nothing was stored")
        until = None if expiration is None else times.microseconds_from_datetime(expiration)
        data, process = values.encode(obj), self._engine.process
        ids, now = (process.new_id(), process.new_id()), process.now()

        def put(tx: Transaction) -> None:
            caching.put(
                tx, key=key, data=data, data_format=VALUE, expiration=until, ids=ids, now=now
            )

        self._engine.database.write(put)

    def _find(self, key: str) -> bytes | None:
        now = self._engine.process.now()
        found = self._engine.database.read(lambda tx: caching.find(tx, key=key, now=now))
        return found.data if found is not None and found.data_format == VALUE else None

    # -- locks -----------------------------------------------------------------------------------

    def supports_isolation_level(self, level: object) -> bool:
        """Whether keys can be locked as far as a level asks for: always."""
        return level is not None

    def acquire_lock(
        self, key: str, holder: str | None = None, timeout: float | None = None
    ) -> bool:
        """Take the lock of a key, waiting for it; whether it was taken in so many seconds."""
        return self.lock_manager.acquire_lock(key, self._by(holder), acquire_timeout=timeout)

    def release_lock(self, key: str, holder: str | None = None) -> None:
        """Give the lock of a key back.

        Raises:
            ValueError: that holder does not hold it.
        """
        self.lock_manager.release_lock(key, self._by(holder))

    def is_locked(self, key: str) -> bool:
        """Whether somebody holds the lock of a key."""
        return self.lock_manager.is_locked(key)

    def is_lock_holder(self, key: str, holder: str | None = None) -> bool:
        """Whether that holder does."""
        return self.lock_manager.is_lock_holder(key, self._by(holder))

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Wait until nobody holds it; whether that came in so many seconds."""
        return self.lock_manager.wait_for_lock(key, timeout)

    def _by(self, holder: str | None) -> str:
        return holder or f"{self._engine.owner.id}"

    # -- the same for asynchronous code ------------------------------------------------------------

    async def aexists(self, key: str) -> bool:
        """:meth:`exists` without blocking the event loop."""
        import anyio.to_thread

        return await anyio.to_thread.run_sync(self.exists, key)

    async def aread(self, key: str, holder: str | None = None) -> ResultRecord[Any]:
        """:meth:`read` without blocking the event loop."""
        import anyio.to_thread

        return await anyio.to_thread.run_sync(self.read, key, holder)

    async def awrite(
        self,
        obj: Any,
        key: str | None = None,
        expiration: datetime | None = None,
        holder: str | None = None,
    ) -> None:
        """:meth:`write` without blocking the event loop."""
        import anyio.to_thread

        await anyio.to_thread.run_sync(self.write, obj, key, expiration, holder)

    def __repr__(self) -> str:
        return f"<ResultStore on {self._engine.database.url}>"


def get_result_store() -> ResultStore:
    """The store of the orchestrator that a flow called here would use."""
    return ResultStore()
