"""What stands of a task call in the database: its start, and the states that follow.

A start is announced: it is committed soon, and nobody waits for it. When the call completes before
that has happened, the start is written together with the completion, as one run that has come to
its end; so a short task costs few statements. Not where lines wait that were logged meanwhile: they
stand behind the start in the queue, and may be committed after it. Until its start is known to be
committed, each write of a call sees to it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from embedded_orch.engine.effects import Write
from embedded_orch.states import StateType
from embedded_orch.store import caching, task_runs
from embedded_orch.store.transitions import interrupt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from embedded_orch.db.port import Announced, Database, Transaction
    from embedded_orch.engine.engine import Engine
    from embedded_orch.engine.hits import Hits
    from embedded_orch.engine.tag_slots import TagSlots
    from embedded_orch.orchestration.values import CachedResult, Decision, Proposal, Run
    from embedded_orch.store.slots import Claim
    from embedded_orch.store.task_runs import NewTaskRun


class TaskRecord:
    """The record of one task call, by which its run is made and moved.

    Args:
        engine: that runs the call.
        epoch: in which this process owns the flow run, or outside of flows the task run.
        completion_hooks: of the task. A completion notes that they are owed, until they were
            called; without any it costs nothing.
        caller: the record of the task run that makes the call, if any.
        hits: of its flow run, with which it may be announced that it took a cached result.

    Attributes:
        run_id: the task run: a new one, unless an earlier attempt left it.
        slots: of its tags, taken and given back with its states, if there are limits.
        is_start_awaited: whether the start is known to be committed.
        ending: its completion, while that is on its way to the database and may go with the start.
        begun: the run as its start has left it, where that went with a run called by it.
    """

    __slots__ = (
        "_announced",
        "_caller",
        "_decided",
        "_engine",
        "_epoch",
        "_hits",
        "_start",
        "_start_states",
        "begun",
        "completion_hooks",
        "ending",
        "is_start_awaited",
        "run_id",
        "slots",
    )

    def __init__(
        self,
        engine: Engine,
        epoch: int,
        completion_hooks: Sequence[object] = (),
        *,
        caller: TaskRecord | None,
        hits: Hits | None = None,
    ) -> None:
        self.completion_hooks = completion_hooks
        self.run_id: UUID = engine.process.new_id()
        self.slots: TagSlots | None = None
        self.is_start_awaited = False
        self.ending: Proposal | None = None
        self.begun: Run | None = None
        self._engine = engine
        self._epoch = epoch
        self._caller = caller
        self._hits = hits
        self._start: NewTaskRun | None = None
        self._start_states: Sequence[Proposal] = ()
        self._announced: Announced | None = None
        self._decided: Decision | None = None

    # -- its start -------------------------------------------------------------------------------

    def begin(self, new: NewTaskRun, states: Sequence[Proposal]) -> None:
        """The run is to be made: from here on, whatever is written of it has its start written.

        Args:
            new: the run.
            states: its first ones.
        """
        self._start_states = states
        self._start = new

    def announce_start(self) -> None:
        """Have the start committed soon, and go on."""
        self._announced = self._engine.database.announce(self._insert_start)

    def write_start(self) -> Write[None]:
        """The start, awaited; the caller notes that it was."""
        return Write(self._engine.database, self._insert_start)

    def _insert_start(self, tx: Transaction) -> None:
        start, states, ending = self._start, self._start_states, self.ending
        assert start is not None, "it has begun"
        now = states[0].timestamp
        # What a transaction that was rolled back has decided is no answer.
        self._decided = None
        if self._caller is not None:
            self._caller.insert_if_missing(tx)
        if start.owner_id is not None:
            self._engine.owner.ensure_registered(tx)
        if ending is None:
            task_runs.start_task_run(tx, start, states, now=now, epoch=self._epoch)
        else:
            self._store_failed_hits(tx)
            self._decided = task_runs.start_and_complete(
                tx,
                start,
                states,
                ending,
                now=now,
                epoch=self._epoch,
                is_all=not self.completion_hooks,
            )
            self._owe_hooks(tx, self._decided)

    def insert_if_missing(self, tx: Transaction) -> bool:
        """The start did not reach the database, and goes with that of a run called by it.

        Without it, what completes inside would belong to a run that nobody finds again.

        Returns:
            Whether it was written here.
        """
        if self._caller is not None:
            self._caller.insert_if_missing(tx)
        start, states = self._start, self._start_states
        if start is not None and self._is_start_in_doubt():
            if start.owner_id is not None:
                self._engine.owner.ensure_registered(tx)
            now = states[0].timestamp
            self.begun = task_runs.start_task_run(tx, start, states, now=now, epoch=self._epoch)
            return True
        return False

    def _insert_missing_start(self, tx: Transaction) -> None:
        """The start did not reach the database, or may not have: it goes with this state."""
        if self._is_start_in_doubt():
            self._insert_start(tx)

    def _is_start_in_doubt(self) -> bool:
        if self._announced is not None:
            return self._announced.error is not None
        return self._start is not None and not self.is_start_awaited

    # -- its states ------------------------------------------------------------------------------

    def propose(self, proposal: Proposal, *, force: bool = False) -> Write[Decision]:
        """A state for the run, by the rules.

        Args:
            proposal: the state.
            force: whether the rules are asked at all.
        """
        operation = self.operation(proposal, force=force)
        return Write(self._engine.database, operation, after=self.written_before())

    def complete(self, proposal: Proposal) -> Write[Decision]:
        """Its completion, by the rules; the start goes with it where it waits to be committed."""
        return _Completion(self, self._engine, proposal)

    def take_cached(
        self, running: Proposal, accepts: Callable[[CachedResult | None], bool]
    ) -> Write[Decision | None]:
        """The start and its end with what is cached under the key of a state, as one write.

        Args:
            running: RUNNING, which the cached result takes the place of; it names the key.
            accepts: whether that is to be taken, told what there is. If not, nothing is written,
                and the answer is None.
        """
        start = self._start
        assert start is not None, "it has begun"
        tries = 0

        def operation(tx: Transaction) -> Decision | None:
            nonlocal tries
            tries += 1
            now = running.timestamp
            found = caching.find_to_take(tx, key=running.details.cache_key or "", now=now)
            if found is None and tries > 1:
                # The commit of the first time may be there, and what it took gone since.
                return task_runs.repeat(tx, run_id=start.id, proposal=running)
            if not accepts(found) or found is None:
                return None
            self._store_failed_hits(tx)
            _, store = self._ended_as_cached(running, found)
            return store(tx)

        return _Taking(self, running, accepts, operation)

    def announce_cached(
        self, hits: Hits, running: Proposal, accepts: Callable[[CachedResult | None], bool]
    ) -> Decision | None:
        """What :meth:`take_cached` does and answers, without waiting for the commit."""
        key = running.details.cache_key or ""
        found = self.database.read_beside(
            lambda tx: caching.find(tx, key=key, now=running.timestamp)
        )
        if not accepts(found) or found is None:
            return None
        decision, store = self._ended_as_cached(running, found)
        hits.announce(store)
        return decision

    def _ended_as_cached(
        self, running: Proposal, found: CachedResult
    ) -> tuple[Decision, Callable[[Transaction], Decision]]:
        """How the run ends with what was found, and what writes that."""
        start = self._start
        assert start is not None, "it has begun"
        now = running.timestamp
        decision, states = task_runs.ended_as_cached(
            start, self._start_states, running, now=now, cached=found
        )

        def store(tx: Transaction) -> Decision:
            if self._caller is not None:
                self._caller.insert_if_missing(tx)
            if start.owner_id is not None:
                self._engine.owner.ensure_registered(tx)
            stored = task_runs.store_ended(
                tx, start, states, running, decision, now=now, epoch=self._epoch
            )
            self._owe_hooks(tx, stored)
            return stored

        return decision, store

    @property
    def announced_hits(self) -> Hits | None:
        """With what it may be announced that it took a cached result; None where it is awaited."""
        hits = self._hits
        # Hooks are called for what is on record.
        if hits is None or self.completion_hooks or not hits.may_be_announced():
            return None
        return hits

    def _store_failed_hits(self, tx: Transaction) -> None:
        if self._hits is not None:
            self._hits.store_failed(tx)

    @property
    def database(self) -> Database:
        """Where it stands."""
        return self._engine.database

    def interrupt(self, ending: Proposal) -> Write[Decision]:
        """The end of a run that was interrupted: that it crashed, or was cancelled."""
        now = self._engine.process.now()

        def operation(tx: Transaction) -> Decision:
            self._insert_missing_start(tx)
            self._store_failed_hits(tx)
            self._engine.logs.store_failed(tx)
            return interrupt(
                tx,
                "task_run",
                run_id=self.run_id,
                crashed=ending,
                now=now,
                epoch=self._epoch,
                claim=self._claim,
            )

        return Write(self._engine.database, operation, after=self.written_before())

    def operation(
        self, proposal: Proposal, *, force: bool = False
    ) -> Callable[[Transaction], Decision]:
        """What proposes a state, for a transaction that the caller begins."""
        # No function of its own, which would be made for each call.
        return partial(self._store, proposal, force, self._engine.process.now(), self._claim)

    def _store(
        self, proposal: Proposal, force: bool, now: int, claim: Claim | None, tx: Transaction
    ) -> Decision:
        self._insert_missing_start(tx)
        # Now the start is committed, or has just been written in this transaction.
        if self._decided is not None and self.ending is proposal:
            return self._decided
        self._store_failed_hits(tx)
        self._engine.logs.store_failed(tx)
        if claim is not None:
            self._engine.owner.register(tx)
        decision = task_runs.propose_task_state(
            tx,
            run_id=self.run_id,
            proposal=proposal,
            now=now,
            epoch=self._epoch,
            force=force,
            claim=claim,
        )
        self._owe_hooks(tx, decision)
        return decision

    # -- its hooks -------------------------------------------------------------------------------

    def _owe_hooks(self, tx: Transaction, decision: Decision) -> None:
        if self.completion_hooks and decision.run.state_type is StateType.COMPLETED:
            task_runs.note_owed_hooks(tx, run_id=self.run_id, owes=True)

    def settle_hooks(self) -> None:
        """Note that the hooks for its completion were called.

        Not awaited: should it be lost, they are called once more.
        """
        if self.completion_hooks:
            run_id = self.run_id
            self._engine.database.announce(
                lambda tx: task_runs.note_owed_hooks(tx, run_id=run_id, owes=False)
            )

    def written_before(self) -> Announced | None:
        """What is committed no later than a state: the start, and what was logged until now.

        None for everything that is announced.
        """
        if self._hits is not None:
            self._hits.hand_over()
        # The start of the task that made the call may wait too. Without it, what completed inside
        # would belong to a run that nobody finds again.
        return None if self._engine.logs.hand_over() or self._caller else self._announced

    @property
    def _claim(self) -> Claim | None:
        """On the slots that go with its states."""
        return None if self.slots is None else self.slots.claim


class _Completion(Write["Decision"]):
    """The completion of a run, which an announced start that is still to be written has with it."""

    __slots__ = ("_ending", "_owner", "_record")

    def __init__(self, record: TaskRecord, engine: Engine, proposal: Proposal) -> None:
        self._database = engine.database
        self._operation = record.operation(proposal)
        self._after = record.written_before()
        self._owner = engine.owner
        self._record = record
        self._ending = None if engine.logs.has_leaving else proposal

    def perform(self) -> Decision:
        """Do it in this thread."""
        self._record.ending = self._ending
        try:
            decision = super().perform()
        except BaseException:
            # Not done, as far as the caller is told: the start is to be written without it.
            self._record.ending = None
            raise
        self._owner.confirm()
        return decision

    async def perform_async(self) -> Decision:
        """Do it without blocking the event loop, and to its end even when cancelled."""
        self._record.ending = self._ending
        try:
            decision = await super().perform_async()
        except BaseException:
            self._record.ending = None
            raise
        self._owner.confirm()
        return decision


class _Taking(Write["Decision | None"]):
    """The taking of a cached result: awaited, or announced by a thread that is in a flow run."""

    __slots__ = ("_accepts", "_record", "_running")

    def __init__(
        self,
        record: TaskRecord,
        running: Proposal,
        accepts: Callable[[CachedResult | None], bool],
        operation: Callable[[Transaction], Decision | None],
    ) -> None:
        super().__init__(record.database, operation, after=record.written_before())
        self._record = record
        self._running = running
        self._accepts = accepts

    def perform(self) -> Decision | None:
        """Do it in this thread."""
        hits = self._record.announced_hits
        if hits is None:
            return super().perform()
        return self._record.announce_cached(hits, self._running, self._accepts)
