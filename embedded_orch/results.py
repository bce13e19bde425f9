"""Values by key, known to the database of the runs: what transactions with a key leave behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from embedded_orch import errors, times, values
from embedded_orch.engine.contexts import current_flow_run, current_task_run
from embedded_orch.engine.keeping import keeping_in, keeping_of
from embedded_orch.engine.key_records import KeyRecord, find_record, write_record
from embedded_orch.filesystems import check_path, storage_from
from embedded_orch.locking.database import DatabaseLockManager
from embedded_orch.orchestration.values import LONGEST_CACHE_KEY, CachedResult
from embedded_orch.orchestrator import current_engine
from embedded_orch.store import caching
from embedded_orch.values.places import row_key
from embedded_orch.values.serializers import Serializer, resolve_serializer

if TYPE_CHECKING:
    from datetime import datetime

    from embedded_orch.db.port import Transaction
    from embedded_orch.engine.engine import Engine
    from embedded_orch.engine.keeping import Keeping
    from embedded_orch.locking.protocol import LockManager
    from embedded_orch.values.places import WrittenFile

R = TypeVar("R")

__all__ = [
    "ResultRecord",
    "ResultStore",
    "get_result_store",
    "resolve_result_storage",
    "resolve_serializer",
    "should_persist_result",
]


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
    """Values by key, for the database of an orchestrator. Any thread may use it.

    They are the records that cached results have too, so a key that a task's ``cache_key_fn`` gave
    is found here.

    Args:
        result_storage: where values are put, under their keys: a folder, a URL of fsspec's, or a
            storage. The database, and for large ones the folder beside it, when not given.
        metadata_storage: where keys are recorded besides, as by ``key_storage`` of a cache policy.
        serializer: that makes bytes of values; tagged JSON when not given.
        lock_manager: who keeps the locks of keys; the database when not given.
        engine: on whose database; that of a flow called here when not given.

    Raises:
        ConfigurationError: a storage or serializer that is none.
    """

    def __init__(
        self,
        *,
        result_storage: Any = None,
        metadata_storage: Any = None,
        serializer: Serializer | str | None = None,
        lock_manager: LockManager | None = None,
        engine: Engine | None = None,
    ) -> None:
        self._engine = engine or current_engine()
        self.lock_manager = lock_manager or DatabaseLockManager(self._engine)
        self.metadata_storage = None if metadata_storage is None else storage_from(metadata_storage)
        self._keeping = keeping_in(
            self._engine.kept,
            storage=None if result_storage is None else storage_from(result_storage),
            key_storage=self.metadata_storage,
            serializer=serializer,
        )

    @property
    def result_storage(self) -> Any:
        """Where values are put; None for the database."""
        return self._keeping.storage

    @property
    def serializer(self) -> Serializer:
        """What makes bytes of values."""
        return self._keeping.serializer or resolve_serializer("json")

    def exists(self, key: str) -> bool:
        """Whether there is a value that has not expired."""
        return self._find(key) is not None

    def read(self, key: str, holder: str | None = None) -> ResultRecord[Any]:
        """The value at a key.

        Args:
            key: its key.
            holder: taken for the sake of programs that give it; reading needs no lock.

        Raises:
            MissingResult: there is none, or it cannot be read any more. A pickled one is read by a
                store whose serializer is pickle, and by no other.
        """
        found = self._find(key)
        if found is None:
            raise errors.MissingResult(f"nothing is stored under the key {key!r}, or not any more")
        keeping = self._keeping
        value = values.load_stored(
            found.data, found.data_format, runs_code=keeping.runs_code, places=keeping.places
        )
        return ResultRecord(key, value)

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
            ConfigurationError: no key, one that is too long or no path in the storage, or a moment
                without a time zone.
            ValueNotStorable: it would not come back equal and of its type, or cannot be written.
            DatabaseBusy: somebody else holds the lock of the key.
        """
        if not key:
            raise errors.ConfigurationError(f"a key has 1 to {LONGEST_CACHE_KEY} characters")
        row_key, path = self._row_key(key), self._path(key)
        if self.is_locked(key) and not self.is_lock_holder(key, holder):
            raise errors.DatabaseBusy(f"the key {key!r} is locked by another; nothing was stored")
        until = None if expiration is None else times.microseconds_from_datetime(expiration)
        data, data_format = self._keeping.encode(obj)
        file = None
        if len(data) > self._keeping.largest_inside:
            data, data_format, file = self._keeping.put(data, data_format, path)
        record = KeyRecord(key=row_key, data=data, data_format=data_format, expiration=until)
        self._put(record, file)
        if self.metadata_storage is not None:
            write_record(self.metadata_storage, record)

    def _put(self, record: KeyRecord, file: WrittenFile | None = None) -> None:
        process = self._engine.process
        ids, now = (process.new_id(), process.new_id()), process.now()

        def put(tx: Transaction) -> None:
            caching.put(
                tx,
                key=record.key,
                data=record.data,
                data_format=record.data_format,
                expiration=record.expiration,
                ids=ids,
                now=now,
                file=file,
            )

        self._engine.database.write(put)

    def _find(self, key: str) -> CachedResult | None:
        now, row_key = self._engine.process.now(), self._row_key(key)
        if self.metadata_storage is not None:
            record = find_record(self.metadata_storage, row_key, now)
            if record is None:
                return None
            self._put(record)
        return self._engine.database.read(lambda tx: caching.find(tx, key=row_key, now=now))

    def _row_key(self, key: str) -> str:
        found = row_key(self._own_storage, key)
        if not key or len(found) > LONGEST_CACHE_KEY:
            raise errors.ConfigurationError(
                f"a key has 1 to {LONGEST_CACHE_KEY} characters: {key!r}"
            )
        return found

    def _path(self, key: str) -> str | None:
        return None if self._own_storage is None else check_path(key, what="the key")

    @property
    def _own_storage(self) -> Any:
        """The storage whose paths the keys are: not one that has values for the sake of keys."""
        storage = self._keeping.storage
        return None if storage is self.metadata_storage else storage

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
    """The store of the run that the running code is in, with its storage and serializer.

    Outside of runs that of the orchestrator that a flow called here would use.
    """
    keeping = _keeping_here()
    if keeping is None:
        return ResultStore()
    return ResultStore(
        result_storage=keeping.storage, serializer=keeping.serializer, engine=current_engine()
    )


def should_persist_result() -> bool:
    """Whether the result of the run that the running code is in is stored, if it can be."""
    keeping = _keeping_here()
    return keeping is None or keeping.is_stored


def resolve_result_storage(result_storage: Any) -> Any:
    """A storage by itself, by the path of a folder, or by a URL of fsspec's.

    Raises:
        ConfigurationError: it is nothing of these.
        MissingExtra: it is a URL, and fsspec is not installed.
    """
    return storage_from(result_storage)


def _keeping_here() -> Keeping | None:
    task_run, flow_run = current_task_run(), current_flow_run()
    if task_run is None:
        return None if flow_run is None else flow_run.keeping
    around = task_run.flow_run
    kept = task_run.engine.kept if around is None else around.keeping
    return keeping_of(task_run.task.options, kept)
