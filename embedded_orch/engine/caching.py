"""The cache of a task call: its key, what it finds there, and the lock of the key.

Whether a run takes a cached result is decided by the rules. Plain JSON is read in the transaction
in which the run would begin, and nothing before it; or beside writers, where it is announced that
it was taken. What has to be read otherwise, from a file or by a class or serializer of the user's,
is looked up before that too, outside of any transaction, because a result that cannot be read any
more is none.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Protocol

from embedded_orch import errors, times, values
from embedded_orch.db.current import scope_for
from embedded_orch.db.waiting_room import Waiter
from embedded_orch.engine import key_records
from embedded_orch.engine.contexts import task_run_context
from embedded_orch.engine.effects import Ask, Read, Turn, Write
from embedded_orch.engine.key_records import KeyRecord
from embedded_orch.engine.outside import read_recorded
from embedded_orch.states import StateDetails
from embedded_orch.store import caching
from embedded_orch.values.places import row_key
from embedded_orch.values.stored import JSON

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta
    from uuid import UUID

    from embedded_orch.db.port import Transaction
    from embedded_orch.engine.contexts import TaskRunContext
    from embedded_orch.engine.effects import Steps
    from embedded_orch.engine.engine import Engine
    from embedded_orch.engine.keeping import Keeping
    from embedded_orch.engine.task_record import TaskRecord
    from embedded_orch.orchestration.values import CachedResult, Decision, Proposal
    from embedded_orch.store.caching import LockHolder

_log = logging.getLogger("embedded_orch.engine")

_LARGEST_AT_ONCE = 64 * 1024
"""Bytes of a value that is read in the transaction that takes it."""
_FIRST_LOOK = 0.005
_LAST_LOOK = 0.25
"""Seconds between two looks at what other processes do: the first, and the longest."""


class CachePolicy(Protocol):
    """How calls of a task get their cache keys; see :mod:`embedded_orch.cache_policies`."""

    @property
    def is_exclusive(self) -> bool:
        """Whether calls with one key take turns."""
        ...

    @property
    def names_paths(self) -> bool:
        """Whether a key is the path of the result in its storage."""
        ...

    @property
    def key_storage(self) -> Any:
        """Where keys are recorded besides; nowhere when None."""
        ...

    @property
    def lock_manager(self) -> Any:
        """Who keeps the locks; the database when None."""
        ...

    def key_for(self, here: TaskRunContext) -> str | None:
        """The cache key of the call that is about to be made there; None for none."""
        ...


class CacheUse:
    """The part that the cache has in one call of a task.

    Attributes:
        key: its cache key.
        is_refreshing: whether what is cached is not used, and replaced.
        path: of the result in its storage; the hash of the value when None.
    """

    __slots__ = (
        "_expires_in",
        "_found",
        "_is_locked",
        "_is_missing",
        "_policy",
        "_run_id",
        "is_refreshing",
        "key",
        "path",
    )

    def __init__(
        self,
        key: str,
        policy: CachePolicy,
        *,
        expires_in: timedelta | None,
        is_refreshing: bool,
        run_id: UUID,
        path: str | None = None,
    ) -> None:
        self.key = key
        self.path = path
        self.is_refreshing = is_refreshing
        self._policy = policy
        self._expires_in = expires_in
        self._run_id = run_id
        self._is_locked = False
        self._is_missing = False
        self._found: tuple[CachedResult, object] | None = None

    @property
    def details(self) -> StateDetails:
        """What a RUNNING state says of it."""
        return StateDetails(cache_key=self.key, refresh_cache=self.is_refreshing or None)

    def completed_details(self, now: int) -> StateDetails:
        """What a COMPLETED state says of it."""
        expiration = None
        if self._expires_in is not None:
            expiration = times.datetime_from_microseconds(now) + self._expires_in
        return StateDetails(cache_key=self.key, cache_expiration=expiration)

    def take(self, engine: Engine, record: TaskRecord, running: Proposal) -> Steps[Decision | None]:
        """Have a run end with what is cached, where that takes one look; None when it has not.

        Args:
            engine: that runs it.
            record: of the run, which is to be begun.
            running: its RUNNING, which the cached result takes the place of.
        """
        if self.is_refreshing or self._policy.key_storage is not None:
            return None
        if self._policy.is_exclusive:
            yield from self._lock(engine)
        decision: Decision | None = yield record.take_cached(running, self._accepts)
        return decision

    def _accepts(self, found: CachedResult | None) -> bool:
        self._is_missing = found is None
        if found is None or found.data_format != JSON or len(found.data) > _LARGEST_AT_ONCE:
            return False
        is_plain, value = values.decode_plain(found.data)
        self._found = (found, value) if is_plain else None
        return is_plain

    def look(self, engine: Engine, keeping: Keeping) -> Steps[bool]:
        """Whether there is a result that can be read, once nobody else computes one."""
        if self._policy.is_exclusive and not self._is_locked:
            yield from self._lock(engine)
        if self.is_refreshing or self._is_missing:
            return False
        now = engine.process.now()
        if self._policy.key_storage is not None and not (yield from self._is_recorded(engine, now)):
            self.is_refreshing = True
            return False
        found: CachedResult | None = yield Read(
            engine.database, lambda tx: caching.find(tx, key=self.key, now=now)
        )
        if found is None:
            return False
        is_known, value = yield from read_recorded(found.data, found.data_format, keeping)
        if is_known:
            self._found = found, value
        else:
            self.is_refreshing = True
        return is_known

    def value_of(self, data: bytes | None) -> tuple[bool, object]:
        """Whether these are the bytes that were found, and their value."""
        if self._found is None or self._found[0].data != data:
            return False, None
        return True, self._found[1]

    # -- keys in a storage -----------------------------------------------------------------------

    def _is_recorded(self, engine: Engine, now: int) -> Steps[bool]:
        """Whether the storage has the key; then the database has it too from now on."""
        record: KeyRecord | None = yield Ask(
            key_records.find_record, self._policy.key_storage, self.key, now
        )
        if record is None:
            return False
        ids = engine.process.new_id(), engine.process.new_id()
        yield Write(
            engine.database,
            lambda tx: caching.put(
                tx,
                key=record.key,
                data=record.data,
                data_format=record.data_format,
                expiration=record.expiration,
                ids=ids,
                now=now,
            ),
        )
        return True

    def publish(self, context: TaskRunContext, completed: Proposal) -> Steps[None]:
        """Record the key of a completed run in its storage, once nothing can undo the run."""
        storage = self._policy.key_storage
        if storage is None or completed.data is None or completed.data_format is None:
            return
        expiration = completed.details.cache_expiration
        record = KeyRecord(
            key=self.key,
            data=completed.data,
            data_format=completed.data_format,
            expiration=None if expiration is None else times.microseconds_from_datetime(expiration),
        )
        if context.is_in_transaction:
            context.transaction.on_commit_hooks.append(
                lambda _: key_records.write_record(storage, record)
            )
        else:
            yield Ask(key_records.write_record, storage, record)

    # -- taking turns ----------------------------------------------------------------------------

    def _lock(self, engine: Engine) -> Steps[None]:
        # Before it is taken: whatever interrupts that, it is given back.
        self._is_locked = True
        if self._policy.lock_manager is not None:
            yield AcquireLock(self._policy.lock_manager, self.key, self._holder)
            return
        owner = engine.owner

        def take(tx: Transaction) -> LockHolder:
            owner.register(tx)
            return caching.lock(
                tx,
                key=self.key,
                holder=self._holder,
                owner_id=owner.id,
                now=engine.process.now(),
            )

        found: LockHolder = yield Write(engine.database, take)
        if found.holder != self._holder:
            yield from self._wait(engine, take)

    def _wait(self, engine: Engine, take: Callable[[Transaction], LockHolder]) -> Steps[None]:
        """Wait for the lock: woken by this process, and looking for what others do."""
        if scope_for(engine.database) is not None:
            raise errors.WouldDeadlock(
                f"another run computes the result of the cache key {self.key!r}, and this code has "
                f"a transaction open, inside of which it cannot be seen to end"
            )
        waiter = Waiter(engine.process.new_id(), (self._room_name,), passes=False)
        engine.room.enter(waiter)
        pause = _FIRST_LOOK
        try:
            # Once more: what was given back since the first time has rung no bell.
            found: LockHolder | None = yield Write(engine.database, take)
            while found is None or found.holder != self._holder:
                if found is None:
                    found = yield Write(engine.database, take)
                    continue
                is_watching = engine.room.is_at_head(waiter) and not engine.owner.is_alone
                if not (yield Turn(waiter, pause if is_watching else None, engine.process.sleep)):
                    pause = min(pause * 1.6, _LAST_LOOK)
                    yield from engine.recovery.sweeping()
                found = yield Read(
                    engine.database, lambda tx: caching.lock_holder(tx, key=self.key)
                )
        finally:
            engine.room.leave(waiter)

    def release(self, engine: Engine) -> None:
        """Give the lock back, if there is one; waits for nothing."""
        if not self._is_locked:
            return
        self._is_locked = False
        manager = self._policy.lock_manager
        try:
            if manager is not None:
                if manager.is_lock_holder(self.key, self._holder):
                    manager.release_lock(self.key, self._holder)
                return
            engine.database.announce(
                lambda tx: caching.unlock(tx, key=self.key, holder=self._holder)
            )
            engine.room.ring((self._room_name,))
        except errors.OrchestratorError as failure:
            # It must not stand in the way of what is raised; the lock ends with this process.
            _log.warning("the lock of the cache key %s was not given back: %s", self.key, failure)

    @property
    def _holder(self) -> str:
        return str(self._run_id)

    @property
    def _room_name(self) -> str:
        return f"cache key {self.key}"


class AcquireLock:
    """A lock of a lock manager, which may be the user's."""

    __slots__ = ("_holder", "_key", "_manager")

    def __init__(self, manager: Any, key: str, holder: str) -> None:
        self._manager = manager
        self._key = key
        self._holder = holder

    def perform(self) -> None:
        """Do it in this thread."""
        self._manager.acquire_lock(self._key, self._holder)

    async def perform_async(self) -> None:
        """Do it without blocking the event loop."""
        await self._manager.aacquire_lock(self._key, self._holder)


def cache_use(here: TaskRunContext, keeping: Keeping) -> CacheUse | None:
    """The part of the cache in a call that is about to be made; None when it has none.

    A key that cannot be computed is warned about, and the call is made without.

    Raises:
        Exception: a key that is a path cannot be made, or would be none.
    """
    policy = here.task.cache
    if policy is None or not keeping.is_stored:
        return None
    token = task_run_context.set(here)
    try:
        key: Any = policy.key_for(here)
    except Exception as error:
        if policy.names_paths:
            raise
        _log.warning(
            "task run %s: its cache key could not be computed, so its result is not cached: %s: "
            "%s. Say cache_policy=NO_CACHE if that is meant",
            here.name,
            type(error).__name__,
            error,
        )
        return None
    finally:
        task_run_context.reset(token)
    if key is None or key == "":
        return None
    path = None
    if policy.names_paths and keeping.storage is not None:
        path, key = key, row_key(keeping.storage, key)
    if not isinstance(key, str):
        _log.warning(
            "task run %s: its cache key is %r and no text, so its result is not cached",
            here.name,
            key,
        )
        return None
    options = here.task.options
    return CacheUse(
        key,
        policy,
        expires_in=options.cache_expiration,
        is_refreshing=options.refresh_cache,
        run_id=here.run_id,
        path=path,
    )
