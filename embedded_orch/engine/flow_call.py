"""One flow run, from its parameters to its final state: a new one, or one that is resumed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from embedded_orch import errors
from embedded_orch.db.waiting_room import Waiter
from embedded_orch.engine import results
from embedded_orch.engine.calling import call_of, iteration_of
from embedded_orch.engine.cancellation import Cancellable, Cancellation
from embedded_orch.engine.contexts import (
    FlowRunContext,
    flow_run_context,
    go_to,
    place_here,
    task_run_context,
)
from embedded_orch.engine.creating import new_flow_run
from embedded_orch.engine.effects import Stop, Turn
from embedded_orch.engine.flow_record import FlowRecord
from embedded_orch.engine.hooks import call_flow_hooks, has_final_hooks, hooks_on
from embedded_orch.engine.inputs import is_plain, resolve
from embedded_orch.engine.interruption import record_crash
from embedded_orch.engine.keeping import keeping_of
from embedded_orch.engine.names import run_name
from embedded_orch.engine.naming import chosen_name
from embedded_orch.engine.outcome import outcome_of, settled
from embedded_orch.engine.outside import outcome_outside
from embedded_orch.engine.printing import keeping_prints
from embedded_orch.engine.retrying import not_retriable
from embedded_orch.engine.run_logging import listen
from embedded_orch.engine.tags import tags_of_run
from embedded_orch.engine.telling import LastLine, log_beginning, log_end, log_retry
from embedded_orch.engine.walking import PLAIN
from embedded_orch.engine.watching import place_of
from embedded_orch.orchestration.values import Decision, Proposal, Run, Verdict
from embedded_orch.process import id_after, random_bits
from embedded_orch.states import TERMINAL_TYPES, State, StateType

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from embedded_orch.engine.effects import Steps, Write
    from embedded_orch.engine.engine import Engine
    from embedded_orch.engine.options import OnCrash
    from embedded_orch.engine.records import Choices, Records
    from embedded_orch.engine.specs import FlowSpec
    from embedded_orch.engine.task_record import TaskRecord
    from embedded_orch.store.flow_runs import NewFlowRun

    # What takes a run, and the state that its first attempt begins with.
    Beginning = tuple[Write[None], Proposal]


def call_flow(
    engine: Engine, flow: FlowSpec, arguments: Mapping[str, Any], wait_for: object
) -> Steps[State]:
    """Run a flow that no other flow calls.

    Args:
        engine: that runs it.
        flow: what is called.
        arguments: by parameter; may hold states of other runs.
        wait_for: more runs that have to have completed.
    """
    if wait_for is not None or not is_plain(arguments):
        resolved = yield from resolve(arguments, wait_for)
        if resolved.obstacle is not None:
            return (yield from FlowCall(engine, flow, arguments).not_ready(resolved.obstacle))
        arguments = resolved.arguments
    return (yield from FlowCall(engine, flow, arguments).create_and_run())


class FlowCall:
    """One flow run that this process owns.

    Args:
        engine: that runs it.
        flow: what is called.
        arguments: by parameter.
        run_id: the run; a new one when not given.
        caller: the flow run that calls it, if any.
        tracker: the record of the caller's task run that tracks it, whose start goes with its own.
        choices: what was chosen for this resume; those of the caller when not given.
    """

    def __init__(
        self,
        engine: Engine,
        flow: FlowSpec,
        arguments: Mapping[str, Any],
        *,
        run_id: UUID | None = None,
        caller: FlowRunContext | None = None,
        tracker: TaskRecord | None = None,
        choices: Choices | None = None,
    ) -> None:
        self._engine = engine
        self._flow = flow
        # What it is called with is recorded; what the function gets may be converted.
        self._given = arguments
        self._arguments = arguments
        self._caller = caller
        self._keeping = keeping_of(flow.options, engine.kept if caller is None else caller.keeping)
        # The attempt that is on record as having begun, and what tells of its end.
        self._begun: FlowRunContext | None = None
        self._last_line: LastLine | None = None
        self._parent_task_run_id = None if tracker is None else tracker.run_id
        self._tags = tags_of_run(flow.tags)
        # What a flow calls shares its fate: it is continued by its caller, or not at all.
        self._on_crash: OnCrash = flow.options.on_crash if caller is None else caller.on_crash
        self._record = FlowRecord(
            engine, run_id, owes_hooks=has_final_hooks(flow.options), tracker=tracker
        )
        self._choices = choices if caller is None else caller.choices
        self._has_records = False
        self._refusal: Exception | None = None
        self._refusal_message: str | None = None
        self.run_id = self._record.run_id
        self.name = run_name(random_bits(self.run_id, 32).to_bytes(4, "big"))
        self._cancellation = Cancellation(
            self.run_id, self.name, None if caller is None else caller.cancellation
        )

    def create_and_run(self) -> Steps[State]:
        """Make the run and run it; returns its final state, or raises what interrupted it."""
        self._accept_parameters()
        if self._refusal is None:
            self._choose_name()
        return (yield from self._run(self._creation()))

    def take_over_and_run(
        self,
        *,
        name: str,
        tags: Sequence[str],
        epoch: int,
        owner_died: bool,
        is_automatic: bool = False,
        rerun_from: UUID | None = None,
    ) -> Steps[State]:
        """Take an interrupted run over and run it again; what it completed is not run again.

        Args:
            name: of the run.
            tags: of the run.
            epoch: in which its last owner was seen to be gone.
            owner_died: whether its state still claims that it runs.
            is_automatic: whether nobody asked for it by hand.
            rerun_from: the task run from which on completed calls are made again.
        """
        self.name = name
        self._tags = tuple(tags)
        self._has_records = True
        self._accept_parameters()
        states = self._states_of_take_over(owner_died=owner_died)
        take = self._record.take_over(
            epoch,
            states,
            now=states[0].timestamp,
            caller=self._caller,
            is_automatic=is_automatic,
            rerun_from=rerun_from,
        )
        return (yield from self._run((take, states[-1])))

    def _run(self, beginning: Beginning) -> Steps[State]:
        take, running = beginning
        owner, watch = self._engine.owner, self._engine.watch
        self._cancellation.name = self.name
        self._cancellation.epoch = self._record.epoch
        listen()
        self._engine.unrecorded.settle()
        owner.begin(self.run_id, self._cancellation)
        watch.add(self._cancellation)
        has_ended = False
        try:
            yield from self._record.taken(take)
            context = self._context()
            log_beginning(context)
            self._begun = context
            if self._refusal is not None:
                state = yield from self._refuse(self._refusal)
            else:
                yield from self._has_begun(running)
                state = yield from self._attempts(context)
            self._log_end(state)
            # Nobody can cancel it any more: not in its hooks either.
            has_ended = True
            watch.discard(self._cancellation)
            yield from self._call_final_hooks(state)
            return state
        except errors.DatabaseError as error:
            self._note_unrecorded(str(error))
            raise
        except (Exception, GeneratorExit):
            # The run is not ours any more: there is nothing to record.
            raise
        except BaseException as error:
            if has_ended:
                # In a hook.
                raise
            yield from self._record_interruption(error)
            raise
        finally:
            watch.discard(self._cancellation)
            owner.finish(self.run_id, self._cancellation)
            if self._caller is None:
                self._engine.upkeep.after_flow_run()

    def _note_unrecorded(self, reason: str | None) -> None:
        """What cannot be written now is written as soon as it can be."""
        self._engine.unrecorded.note(self.run_id, self._record.epoch, reason)
        if self._caller is not None:
            self._caller.has_loose_ends = True

    def _record_interruption(self, error: BaseException) -> Steps[None]:
        """Ctrl-C, SystemExit or a cancelled task, whether it met the function or a wait of ours."""
        if isinstance(error, errors.Pause) and self._is_own(error):
            yield self._record.release()
            return
        process, reason = self._engine.process, self._cancellation.reason
        ending = results.crashed(process.new_id(), process.now(), error, kind="Flow")
        if reason is not None:
            ending = results.cancelled(process.new_id(), process.now(), reason)
        stored: Proposal | None = None
        try:
            write = self._interrupt(ending)
            stored = yield from record_crash(write, ending, f"flow run {self.name}")
        finally:
            if stored is None:
                # That failed, or was interrupted as well, unless the run had ended before.
                self._note_unrecorded(ending.message)
        if stored is not None:
            state = self._own(results.state_of(stored)).with_error(error)
            self._log_end(state)
            yield from self._call_final_hooks(state, is_interrupted=True)

    def _is_own(self, pause: errors.Pause) -> bool:
        """Whether it is this run that was suspended, and not one that called it."""
        state = pause.state
        return state is not None and state.state_details.flow_run_id == self.run_id

    # -- taking it -------------------------------------------------------------------------------

    def _new_run(self) -> NewFlowRun:
        return new_flow_run(
            self._flow,
            self._given,
            id=self.run_id,
            name=self.name,
            tags=self._tags,
            on_crash=self._on_crash,
            owner_id=self._engine.owner.id,
            parent_task_run_id=self._parent_task_run_id,
        )

    def _creation(self) -> Beginning:
        process = self._engine.process
        now = process.now()
        new = self._new_run()
        pending = Proposal(
            id=id_after(self.run_id, 1), type=StateType.PENDING, name="Pending", timestamp=now
        )
        running = self._running(now + 1, id=id_after(self.run_id, 2))
        states = [pending, running] if self._refusal is None else [pending]
        return self._record.create(new, states, caller=self._caller), running

    def _states_of_take_over(self, *, owner_died: bool) -> list[Proposal]:
        process = self._engine.process
        now = process.now()
        running = self._running(now + 1, message="resumed")
        if not owner_died:
            return [running]
        crashed = Proposal(
            id=process.new_id(),
            type=StateType.CRASHED,
            name="Crashed",
            timestamp=now,
            message="the process that ran it died",
        )
        return [crashed, running]

    # -- before the function ---------------------------------------------------------------------

    def not_ready(self, obstacle: str) -> Steps[State]:
        """Record that the run could not begin, because of a run that it depends on."""
        process = self._engine.process
        pending = Proposal(
            id=process.new_id(),
            type=StateType.PENDING,
            name="NotReady",
            timestamp=process.now(),
            message=obstacle,
        )
        yield self._record.create(self._new_run(), [pending], is_to_run=False)
        error = errors.UpstreamFailed(f"{self.name}: {obstacle}")
        return self._own(results.state_of(pending)).with_error(error)

    def _accept_parameters(self) -> None:
        """Check and convert the parameters; those that do not fit fail the run before it runs."""
        if not self._flow.options.validate_parameters:
            return
        try:
            parameters = self._flow.parameters
            self._given = parameters.filled(self._given)
            self._arguments = parameters.converted(self._given)
        except Exception as error:  # noqa: BLE001 - the user's annotations and classes may raise
            self._refusal = error
            self._refusal_message = "Validation of flow parameters failed"

    def _choose_name(self) -> None:
        """Name the run as the flow says; a name that cannot be made fails it before it runs."""
        naming = self._flow.options.naming
        if naming is None:
            return
        token, task_token = flow_run_context.set(self._context()), task_run_context.set(None)
        try:
            self.name = chosen_name("flow_run_name", naming, self._arguments)
        except Exception as error:  # noqa: BLE001 - the user's function, or values it formats
            self._refusal = error
        finally:
            flow_run_context.reset(token)
            task_run_context.reset(task_token)

    def _refuse(self, error: Exception) -> Steps[State]:
        """Fail without having called the function."""
        process = self._engine.process
        failed = not_retriable(
            results.failed(
                process.new_id(), process.now(), error, kind="Flow", what=self._refusal_message
            )
        )
        yield self._propose(failed)
        return self._own(results.state_of(failed)).with_error(error)

    # -- running it ------------------------------------------------------------------------------

    def _context(self) -> FlowRunContext:
        return FlowRunContext(
            self._engine,
            self._flow,
            run_id=self.run_id,
            name=self.name,
            epoch=self._record.epoch,
            run_count=self._record.run_count,
            on_crash=self._on_crash,
            parameters=self._arguments,
            tags=self._tags,
            start_time=self._engine.process.now(),
            caller=self._caller,
            keeping=self._keeping,
            cancellation=self._cancellation,
            has_records=self._has_records,
            choices=self._choices,
            hits=self._record.hits,
        )

    def _own(self, state: State) -> State:
        """A state of this flow run, which says so."""
        return state.of_run(flow_run_id=self.run_id, task_run_id=self._parent_task_run_id)

    def _log_end(self, state: State) -> None:
        if self._last_line is not None and self._last_line.is_stored_with(state):
            self._last_line.tell()
        elif self._begun is not None:
            log_end(self._begun, state)

    def _attempts(self, context: FlowRunContext) -> Steps[State]:
        """Call the function until a final state is accepted.

        Args:
            context: of the first attempt.
        """
        while True:
            if self._has_records:
                from embedded_orch.engine.records import records_of

                context.records = yield from records_of(context)
            try:
                proposal, state = yield from self._attempt(context)
                if context.records is not None:
                    proposal, state = self._judged(context.records, proposal, state)
            finally:
                context.is_over = True
                self._record.has_loose_ends |= context.has_loose_ends
                context.links.clear()
            decision: Decision = yield self._propose(proposal)
            if decision.verdict is Verdict.REJECT:
                if decision.run.state_type is not StateType.SCHEDULED:
                    return (yield from self._give_way(decision, proposal, state))
                log_retry(context, proposal.message)
                # The rules granted a retry. What this attempt completed is on record, and stands.
                decision = yield from self._enter_running(decision.run)
                if decision.run.state_type is not StateType.RUNNING:
                    return (yield from self._give_way(decision, proposal, state))
                self._record.run_count = decision.run.run_count
                self._has_records = True
                context = self._context()
                continue
            if decision.proposal is not None:
                state = results.as_stored(state, decision.proposal)
            return self._own(state)

    def _judged(self, records: Records, proposal: Proposal, state: State) -> tuple[Proposal, State]:
        """The end of a resumed or retried attempt, unless it has changed and must not."""
        try:
            records.end(has_failed=proposal.type is not StateType.COMPLETED)
        except errors.RunChanged as error:
            process = self._engine.process
            failed = results.failed(
                process.new_id(), process.now(), error, kind="Flow", run_id=self.run_id
            )
            proposal = not_retriable(failed)
            state = results.state_of(proposal).with_error(error)
        return proposal, state

    def _outcome(self, value: object, not_kept: str | None) -> Steps[tuple[Proposal, State]]:
        if type(value) not in PLAIN:
            value = yield from settled(value)
        keeping, run_name = self._keeping, f"flow run {self.name}"
        outcome = outcome_of(
            value, self._engine.process, keeping, run_name=run_name, not_kept=not_kept
        )
        return (yield from outcome_outside(outcome, keeping, run_name=run_name))

    def _attempt(self, context: FlowRunContext) -> Steps[tuple[Proposal, State]]:
        """Call the function once; the state to propose, and the same with its value at hand."""
        process = self._engine.process
        flow, has_failed, outside = self._flow, False, place_here()
        flow_run_context.set(context)
        task_run_context.set(None)
        on_call = self._engine.on_call
        try:
            if on_call is not None:
                on_call(flow.name, "before")
            not_kept: str | None = None
            arguments, run_id = self._arguments, self.run_id
            with keeping_prints(context.log_prints):
                if flow.is_generator:
                    value, not_kept = yield from iteration_of(
                        flow,
                        arguments,
                        kind="Flow",
                        run_id=run_id,
                        wrapped=lambda effect: Cancellable(effect, context),
                    )
                else:
                    call = call_of(flow, flow.function, arguments, kind="Flow", run_id=run_id)
                    value = yield Cancellable(call, context)
            if on_call is not None:
                on_call(flow.name, "after")
            outcome = yield from self._outcome(value, not_kept)
        except (errors.OwnershipLost, GeneratorExit):
            context.abandon_runner()
            raise
        except Exception as error:  # noqa: BLE001 - the user's function may raise anything
            reason = self._cancellation.reason
            if reason is not None:
                proposal = results.cancelled(process.new_id(), process.now(), reason)
            else:
                proposal = results.failed(
                    process.new_id(), process.now(), error, kind="Flow", run_id=self.run_id
                )
            outcome = proposal, results.state_of(proposal).with_error(error)
            has_failed = True
        except BaseException:
            yield from self._stop_at_once(context)
            raise
        finally:
            go_to(outside)
        yield from self._stop(context, is_interrupting=has_failed)
        return outcome

    def _stop(self, context: FlowRunContext, *, is_interrupting: bool) -> Steps[None]:
        """Let nothing run on behind the attempt. One that failed does not wait for the rest."""
        try:
            yield Stop(context, is_interrupting=is_interrupting)
        except GeneratorExit:
            context.abandon_runner()
            raise
        except BaseException:
            yield from self._stop_at_once(context)
            raise

    def _stop_at_once(self, context: FlowRunContext) -> Steps[None]:
        """Interrupt what runs, and wait for it, unless that is interrupted as well."""
        try:
            yield Stop(context, is_interrupting=True)
        except BaseException:
            # A second Ctrl-C: what is blocked is left alone, and cannot say how it ends.
            self._record.has_loose_ends = True
            raise

    def _enter_running(self, waiting: Run) -> Steps[Decision]:
        """Begin the next attempt once it is due, unless somebody moved the run meanwhile."""
        process, room = self._engine.process, self._engine.room
        waiter = Waiter(process.new_id(), (place_of(self.run_id),), passes=True)
        room.enter(waiter)
        cancellation = self._cancellation
        cancellation.begin(None, waiter.ring)
        try:
            while True:
                reason = cancellation.reason
                next_one = self._running(process.now())
                if reason is not None:
                    next_one = results.cancelled(process.new_id(), process.now(), reason)
                running = replace(next_one, follows=waiting.state_id)
                decision: Decision = yield self._propose(running)
                if decision.run.state_type is StateType.CANCELLED:
                    return decision
                if decision.verdict is not Verdict.WAIT:
                    if decision.verdict is Verdict.ACCEPT:
                        yield from self._has_begun(decision.proposal or running)
                    return decision
                yield Turn(waiter, decision.delay_seconds, process.sleep)
        finally:
            cancellation.end()
            room.leave(waiter)

    def _give_way(self, decision: Decision, proposal: Proposal, state: State) -> Steps[State]:
        """The state of a run that somebody else moved while it ran; Cancelled when that was asked.

        Args:
            decision: why the run cannot end as it would.
            proposal: how it would have ended.
            state: the same, with its value or error at hand.
        """
        if decision.proposal is not None:
            is_told = state.is_completed() or decision.run.state_type is StateType.CANCELLED
            error = None if is_told else state.data
            return self._own(results.state_of(decision.proposal).with_error(error))
        if decision.run.state_type is StateType.CANCELLING:
            process = self._engine.process
            message = f"cancelled while it ran; it would have become {proposal.name}"
            cancelled = results.cancelled(process.new_id(), process.now(), message)
            yield self._propose(cancelled)
            return self._own(results.state_of(cancelled))
        return self._own(results.state_of_run(decision.run, decision.reason))

    def _call_final_hooks(self, state: State, *, is_interrupted: bool = False) -> Steps[None]:
        """Call the hooks for the end of the run, and strike it off."""
        yield from call_flow_hooks(self._engine, self._flow, state, is_interrupted=is_interrupted)
        if state.is_final():
            self._record.settle_hooks()

    def _has_begun(self, running: Proposal) -> Steps[None]:
        """An attempt begins: RUNNING is on record."""
        if not hooks_on(self._flow.options, StateType.RUNNING):
            return
        state = self._own(results.state_of(running))
        yield from call_flow_hooks(self._engine, self._flow, state)

    def _running(
        self, timestamp: int, message: str | None = None, *, id: UUID | None = None
    ) -> Proposal:
        return Proposal(
            id=id or self._engine.process.new_id(),
            type=StateType.RUNNING,
            name="Running",
            timestamp=timestamp,
            message=message,
        )

    def _propose(self, proposal: Proposal) -> Write[Decision]:
        if proposal.type is StateType.CANCELLED:
            return self._record.end_cancelled(proposal)
        if self._begun is None or proposal.type not in TERMINAL_TYPES:
            return self._record.propose(proposal)
        self._last_line = LastLine(self._begun)
        return self._record.propose(proposal, self._last_line)

    def _interrupt(self, ending: Proposal) -> Write[Decision]:
        is_cancelled = ending.type is StateType.CANCELLED
        return (self._record.end_cancelled if is_cancelled else self._record.interrupt)(ending)
