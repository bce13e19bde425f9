"""What stands of a flow run in the database, and what this process writes of it as its owner."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedded_orch.engine.effects import Write
from embedded_orch.engine.hits import Hits
from embedded_orch.states import TERMINAL_TYPES
from embedded_orch.store import flow_runs, owed_hooks
from embedded_orch.store.transitions import interrupt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from embedded_orch.db.port import Transaction
    from embedded_orch.engine.contexts import FlowRunContext
    from embedded_orch.engine.effects import Steps
    from embedded_orch.engine.engine import Engine
    from embedded_orch.engine.task_record import TaskRecord
    from embedded_orch.engine.telling import LastLine
    from embedded_orch.orchestration.values import Decision, Proposal, Run
    from embedded_orch.store.flow_runs import NewFlowRun


class FlowRecord:
    """The record of one flow run, by which it is made, taken over and moved.

    Args:
        engine: that runs it.
        run_id: the run; a new one when not given.
        owes_hooks: whether hooks are to be called at its end, by whoever finds it should this
            process die.
        tracker: the task run that tracks it, whose start goes with its own.

    Attributes:
        run_id: the flow run.
        epoch: in which this process owns it.
        run_count: which attempt it is in.
        hits: of its tasks, which are on record no later than its end.
        has_loose_ends: whether runs that it called have ended, and the database could not be told.
    """

    __slots__ = (
        "_engine",
        "_left",
        "_owes_hooks",
        "_tracker",
        "epoch",
        "has_loose_ends",
        "hits",
        "run_count",
        "run_id",
    )

    def __init__(
        self,
        engine: Engine,
        run_id: UUID | None,
        *,
        owes_hooks: bool,
        tracker: TaskRecord | None = None,
    ) -> None:
        self.run_id = run_id or engine.process.new_id()
        self.epoch = 0
        self.run_count = 1
        self.has_loose_ends = False
        self.hits = Hits(engine.database)
        self._engine = engine
        self._owes_hooks = owes_hooks
        self._tracker = tracker
        # How this process has left it, as far as it knows.
        self._left: Run | None = None

    # -- taking it -------------------------------------------------------------------------------

    def create(
        self,
        new: NewFlowRun,
        states: Sequence[Proposal],
        *,
        caller: FlowRunContext | None = None,
        is_to_run: bool = True,
    ) -> Write[None]:
        """Make the run, owned by this process.

        Args:
            new: the run.
            states: its first ones.
            caller: the flow run that calls it, which must not have been taken over.
            is_to_run: whether it will be run, so that its hooks are owed.
        """
        now = states[0].timestamp

        tracker = self._tracker

        def create(tx: Transaction) -> None:
            # The start of the task run asks for the owner as well.
            has_parent_begun = tracker is not None and tracker.insert_if_missing(tx)
            if caller is not None and not has_parent_begun:
                flow_runs.check_owner(tx, run_id=caller.run_id, epoch=caller.epoch)
            self._left = flow_runs.create_flow_run(
                tx,
                new,
                states,
                now=now,
                register=lambda: self._engine.owner.register(tx),
                has_parent_begun=has_parent_begun,
            )
            if is_to_run:
                self._owe_hooks(tx)

        return Write(self._engine.database, create)

    def taken(self, take: Write[None]) -> Steps[None]:
        """Have what makes the run, or takes it over, committed."""
        yield take
        if self._tracker is not None:
            self._tracker.is_start_awaited = True

    def take_over(
        self,
        epoch: int,
        states: Sequence[Proposal],
        *,
        now: int,
        caller: FlowRunContext | None = None,
        is_automatic: bool = False,
        rerun_from: UUID | None = None,
    ) -> Write[None]:
        """Take an interrupted run, unless another process has taken it since.

        Args:
            epoch: in which its last owner was seen to be gone.
            states: what becomes of it, in order.
            now: microseconds since 1970 UTC.
            caller: the flow run that calls it, which must not have been taken over.
            is_automatic: whether nobody asked for it by hand.
            rerun_from: the task run from which on completed calls are made again.
        """
        engine = self._engine
        self.epoch = epoch + 1

        def take(tx: Transaction) -> None:
            engine.owner.register(tx)
            if caller is not None:
                flow_runs.check_owner(tx, run_id=caller.run_id, epoch=caller.epoch)
            run = flow_runs.take_over(
                tx,
                run_id=self.run_id,
                owner_id=engine.owner.id,
                epoch=epoch,
                states=states,
                now=now,
                new_id=engine.process.new_id,
                is_automatic=is_automatic,
                rerun_from=rerun_from,
            )
            self.run_count = run.run_count
            self._left = run
            self._owe_hooks(tx)

        return Write(engine.database, take)

    def release(self) -> Write[None]:
        """Let go of a run that is suspended: whoever continues it takes it over from nobody."""
        now, epoch = self._engine.process.now(), self.epoch
        return Write(
            self._engine.database,
            lambda tx: flow_runs.release(tx, run_id=self.run_id, epoch=epoch, now=now),
        )

    # -- its states ------------------------------------------------------------------------------

    def propose(self, proposal: Proposal, last_line: LastLine | None = None) -> Write[Decision]:
        """A state for the run, by the rules; what it has logged is committed no later.

        Args:
            proposal: the state.
            last_line: stored with it, if the run ends by it.
        """
        now, left = self._engine.process.now(), self._left
        assert left is not None, "it was made, or taken over"
        parent = None if self._tracker is None else self._tracker.begun

        def move(tx: Transaction) -> Decision:
            decision = flow_runs.propose_from(
                tx, left, proposal, now=now, epoch=self.epoch, parent=parent
            )
            self._left = decision.run
            if last_line is not None:
                last_line.store(tx, decision)
            return decision

        return self._tying_up(now, move)

    def end_cancelled(self, cancelled: Proposal) -> Write[Decision]:
        """Its end by a cancellation, and that of what it left unfinished."""
        process, epoch = self._engine.process, self.epoch
        now = process.now()
        return self._tying_up(
            now,
            lambda tx: flow_runs.end_cancelled(
                tx,
                run_id=self.run_id,
                cancelled=cancelled,
                now=now,
                epoch=epoch,
                new_id=process.new_id,
            ),
        )

    def interrupt(self, crashed: Proposal) -> Write[Decision]:
        """The end of a run that crashed in this process."""
        now, epoch = self._engine.process.now(), self.epoch
        return self._tying_up(
            now,
            lambda tx: interrupt(
                tx, "flow_run", run_id=self.run_id, crashed=crashed, now=now, epoch=epoch
            ),
        )

    def _tying_up(self, now: int, move: Callable[[Transaction], Decision]) -> Write[Decision]:
        """What moves the run, and with its end sets Crashed what could not say how it ended."""
        if not self.has_loose_ends:
            return self._after_what_waits(move)
        new_id = self._engine.process.new_id

        def operation(tx: Transaction) -> Decision:
            decision = move(tx)
            if decision.run.state_type in TERMINAL_TYPES:
                flow_runs.crash_unfinished(
                    tx,
                    run_id=self.run_id,
                    now=now,
                    new_id=new_id,
                    message="the database could not be told how it ended",
                )
                self._engine.unrecorded.settle_with(tx)
            return decision

        return self._after_what_waits(operation)

    def _after_what_waits(self, move: Callable[[Transaction], Decision]) -> Write[Decision]:
        """What moves the run, no earlier than what its tasks took cached, and what it logged."""
        logs, hits = self._engine.logs, self.hits
        hits.hand_over()
        if not logs.hand_over() and not hits.are_leaving:
            return Write(self._engine.database, move)

        def operation(tx: Transaction) -> Decision:
            hits.store_failed(tx)
            logs.store_failed(tx)
            return move(tx)

        return Write(self._engine.database, operation)

    # -- its hooks -------------------------------------------------------------------------------

    def _owe_hooks(self, tx: Transaction) -> None:
        """Note that the run has hooks for its end, so that they are called should we die."""
        if self._owes_hooks:
            owed_hooks.owe(tx, flow_run_id=self.run_id, epoch=self.epoch)

    def settle_hooks(self) -> None:
        """Strike off the hooks that were owed: they have been called.

        Not awaited: should it be lost, they are called once more.
        """
        if self._owes_hooks:
            epoch = self.epoch
            self._engine.database.announce(
                lambda tx: owed_hooks.settle(tx, flow_run_id=self.run_id, epoch=epoch)
            )
