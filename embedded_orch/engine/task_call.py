"""One task call, from its arguments to its final state."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec

from embedded_orch import errors, values
from embedded_orch.engine import attempts, results
from embedded_orch.engine.caching import cache_use
from embedded_orch.engine.calling import call_of, iteration_of
from embedded_orch.engine.contexts import (
    TaskRunContext,
    holds_slots,
    surrounding,
    task_run_context,
)
from embedded_orch.engine.effects import Read, Sleep
from embedded_orch.engine.hooks import call_task_hooks
from embedded_orch.engine.identity import call_digest, digest_key, position_key
from embedded_orch.engine.inputs import futures_in, is_plain, resolve
from embedded_orch.engine.interruption import ProcessDied, record_crash
from embedded_orch.engine.keeping import keeping_of
from embedded_orch.engine.naming import chosen_name
from embedded_orch.engine.outcome import outcome_of, settled, tells_the_end
from embedded_orch.engine.outside import is_too_large, outcome_outside, put_outside, read_recorded
from embedded_orch.engine.printing import NOTHING, keeping_prints
from embedded_orch.engine.retrying import not_retriable, weighed
from embedded_orch.engine.run_logging import listen
from embedded_orch.engine.tags import tags_of_run
from embedded_orch.engine.task_record import TaskRecord
from embedded_orch.engine.telling import log_failure, log_retry
from embedded_orch.orchestration.values import Decision, Proposal, Verdict
from embedded_orch.process import id_after, random_bits
from embedded_orch.states import NO_DETAILS, State, StateType
from embedded_orch.store import task_runs
from embedded_orch.store.task_runs import NewTaskRun

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from uuid import UUID

    from embedded_orch.engine.caching import CacheUse
    from embedded_orch.engine.contexts import FlowRunContext
    from embedded_orch.engine.effects import Steps
    from embedded_orch.engine.engine import Engine, Moment
    from embedded_orch.engine.futures import Future
    from embedded_orch.engine.specs import TaskSpec
    from embedded_orch.engine.tag_slots import TagSlots
    from embedded_orch.store.task_runs import RecordedCall
    from embedded_orch.values import InputsHash

_log = logging.getLogger("embedded_orch.engine")

# Seconds between two questions whether a paused flow run goes on.
_LONGEST_PAUSE = 10


class TaskCall:
    """One call of a task, and everything that its steps share.

    Args:
        engine: that runs it.
        task: what is called.
        arguments: by parameter; may hold futures.
        flow_run: the flow run it belongs to, if any.
        parent: the task run that makes the call, if any.
        wait_for: runs that have to have completed first, beside those among the arguments.
        upstream: task runs that arguments are known to come from, by parameter.
        body: what to do as the function, given the record of the task run and the arguments: its
            final state is that of the call, and whether the task run was told of it already. It
            writes the start, with that of the run which it begins. The task's own function when
            not given.
    """

    def __init__(
        self,
        engine: Engine,
        task: TaskSpec,
        arguments: Mapping[str, Any],
        *,
        flow_run: FlowRunContext | None,
        parent: TaskRunContext | None,
        wait_for: object = None,
        upstream: Mapping[str, Sequence[UUID]] | None = None,
        body: Callable[[TaskRecord, Mapping[str, Any]], Steps[tuple[State, bool]]] | None = None,
    ) -> None:
        self._engine = engine
        self._task = task
        self._arguments = arguments
        self._flow_run = flow_run
        self._keeping = keeping_of(
            task.options, engine.kept if flow_run is None else flow_run.keeping
        )
        self._parent = None if parent is None else parent.run_id
        self._wait_for = wait_for
        self._upstream = upstream or {}
        self._body = body
        # A runner may have the function run in a place and way of its own.
        self.function = task.function
        self.is_async = task.is_async
        self._record = TaskRecord(
            engine,
            0 if flow_run is None else flow_run.epoch,
            task.options.hooks["on_completion"],
            caller=None if parent is None else parent.record,
            hits=None if flow_run is None else flow_run.hits,
        )
        self._inputs: InputsHash | None = None
        self._cache: CacheUse | None = None
        # Whether it is not on record yet when it begins.
        self._is_new = False
        self._retries = 0
        self._run_count = 1
        self._tags = tags_of_run(task.tags)
        self._beginning_error: Exception | None = None
        self._around = surrounding()
        self.run_id = self._record.run_id
        self._number = 0 if flow_run is None else flow_run.next_number(task, self._parent)
        self.name = task.name
        if flow_run is not None:
            self.name += f"-{random_bits(self.run_id, 12):03x}"

    def steps(self) -> Steps[State]:
        """Run it; returns the final state, or raises what interrupted it."""
        obstacle = None
        if self._wait_for is not None or not is_plain(self._arguments):
            obstacle = yield from self._resolve_arguments()
        elif self._flow_run is not None:
            found = self._flow_run.links.runs_of(self._arguments)
            self._upstream = {**found, **self._upstream} if found else self._upstream
        key = yield from self._dynamic_key()
        recorded = None if self._flow_run is None else self._find_record(self._flow_run, key)
        if recorded is not None:
            self.run_id = self._record.run_id = recorded.id
            known, value = yield from self._recorded_value(recorded)
            if known:
                yield from attempts.settle(self._context(), value)
                return (yield from self._recorded(recorded, value))
        if obstacle is not None:
            return (yield from self._not_ready(key, recorded is not None, obstacle))
        if self._task.cache is not None or (self._tags and self._body is None):
            yield from self._find_cache_and_limits()
        beginning = self._begin(key) if recorded is None else self._restart(recorded)
        if self._record.slots is None:
            return (yield from self._attempts(beginning))
        return (yield from self._attempts_with_slots(self._record.slots, beginning))

    @property
    def engine(self) -> Engine:
        """What runs it."""
        return self._engine

    @property
    def upstream(self) -> list[Future[Any]]:
        """The futures that it waits for before it begins."""
        if self._wait_for is None and is_plain(self._arguments):
            return []
        return futures_in([*self._arguments.values(), self._wait_for])

    # -- before the function ---------------------------------------------------------------------

    def _resolve_arguments(self) -> Steps[str | None]:
        """Wait for what the call depends on; what keeps it from being made, if anything."""
        links = None if self._flow_run is None else self._flow_run.links
        resolved = yield from resolve(self._arguments, self._wait_for, links=links)
        self._arguments = resolved.arguments
        self._upstream = {**self._upstream, **resolved.upstream}
        # Not kept: the runs that were waited for may hold large results.
        self._wait_for = None
        return resolved.obstacle

    def _dynamic_key(self) -> Steps[str]:
        """Which call of the task this is: by its parent, its inputs, and the how-manieth of equals.

        Equal calls are told apart by order alone, so it does not matter which of them a thread
        brings first.
        """
        flow_run = self._flow_run
        if flow_run is None:
            return f"{self._task.key}-{self.run_id}"
        if flow_run.match == "position":
            return position_key(self._parent, self._number)
        inputs = self._inputs = values.examine_inputs(self._arguments)
        digest = call_digest(self._parent, self._task.key, inputs.digest)
        occurrence = flow_run.occurrences.next_of(digest)
        if occurrence is None:
            flow_run_id, first = flow_run.run_id, digest_key(digest, 0)
            recorded: int = yield Read(
                self._engine.database,
                lambda tx: task_runs.count_equal_calls(tx, flow_run_id, first_key=first),
            )
            occurrence = flow_run.occurrences.next_after(digest, recorded)
        return digest_key(digest, occurrence)

    def _find_record(self, flow_run: FlowRunContext, key: str) -> RecordedCall | None:
        """What an earlier attempt at the flow run has on record of this call.

        Raises:
            RunChanged: the run is not to go on with changes, and this is one.
        """
        if flow_run.records is None:
            return None
        return flow_run.records.find(
            self._task.key,
            self._parent,
            key=key,
            number=self._number,
            source_hash=self._task.recorded_source,
            name=self.name,
        )

    def _recorded_value(self, recorded: RecordedCall) -> Steps[tuple[bool, object]]:
        """Whether the call has completed with a value that can be had again, and the value."""
        records = None if self._flow_run is None else self._flow_run.records
        if records is None or not recorded.is_completed:
            return False, None
        stored = records.values.take(recorded.id)
        if stored is None:
            run_id = recorded.id
            stored = yield Read(self._engine.database, lambda tx: records.values.read(tx, run_id))
        data, data_format = stored
        known, value = yield from read_recorded(data, data_format, self._keeping)
        if not known:
            records.runs_again(recorded)
        return known, value

    def _recorded(self, recorded: RecordedCall, value: object) -> Steps[State]:
        """What an earlier attempt completed, as the state of this call.

        Hooks for the completion that were not called then are called now.
        """
        now = self._engine.process.now()
        state = State(
            id=self.run_id,
            type=StateType.COMPLETED,
            name="Completed",
            timestamp=now,
            message="taken from the record of an earlier attempt",
        )
        state = self._completed(state, value)
        if recorded.owes_hooks:
            yield from call_task_hooks(self._engine, self._task, state)
            self._record.settle_hooks()
        return state

    def _completed(self, state: State, value: object) -> State:
        """A state of this task run with its value, which is known by it from now on."""
        if self._flow_run is not None:
            self._flow_run.links.note(value, self.run_id)
        return results.with_value(self._own(state), value, self._keeping)

    def _not_ready(self, key: str, is_on_record: bool, message: str) -> Steps[State]:
        """Record that the call could not be made, because a run before it did not complete."""
        process = self._engine.process
        pending = Proposal(
            id=process.new_id(),
            type=StateType.PENDING,
            name="NotReady",
            timestamp=process.now(),
            message=message,
        )
        if is_on_record:
            yield self._record.propose(pending)
        else:
            self._record.begin(self._new_run(key), [pending])
            yield self._record.write_start()
        return self._own(results.state_of(pending)).with_error(
            errors.UpstreamFailed(f"{self.name}: {message}")
        )

    def _new_run(self, key: str) -> NewTaskRun:
        flow_run = self._flow_run
        return NewTaskRun(
            id=self.run_id,
            flow_run_id=flow_run.run_id if flow_run is not None else None,
            parent_task_run_id=self._parent,
            name=self.name,
            task_key=self._task.key,
            dynamic_key=key,
            source_hash=self._task.recorded_source,
            task_version=self._task.options.version,
            tags=self._tags,
            task_inputs=self._upstream,
            policy=self._task.policy,
            flow_run_run_count=flow_run.run_count if flow_run is not None else 0,
            call_number=self._number,
            owner_id=self._engine.owner.id if flow_run is None else None,
        )

    def _begin(self, key: str) -> Steps[State | None]:
        """Record the start: announced, unless it has to be on disk before the function runs.

        That of a run which only stands for another goes with the start of that one.

        Returns:
            The final state, where a cached result makes an end of it.
        """
        flow_run = self._flow_run
        if flow_run is not None:
            flow_run.cancellation.check()
        self._choose_name()
        self._is_new = True
        process = self._engine.process
        now = process.now()
        # An id made out of another costs a third of a new one.
        pending = Proposal(
            id=id_after(self.run_id, 1), type=StateType.PENDING, name="Pending", timestamp=now
        )
        running_id = id_after(self.run_id, 2)
        states = [pending]
        self._record.begin(self._new_run(key), states)
        if self._cache is not None and self._record.slots is None:
            running = self._running(running_id, process.now())
            taken = yield from self._cache.take(self._engine, self._record, running)
            if taken is not None:
                self._record.is_start_awaited = True
                return (yield from self._cached(taken))
        is_cached = self._cache is not None and (
            yield from self._cache.look(self._engine, self._keeping)
        )
        if is_cached or self._record.slots is not None:
            # The start goes with the state that is proposed first.
            return (yield from self._enter_running(None))
        began = now if self._cache is None else process.now()
        running = self._running(running_id, began + 1)
        states.append(running)
        # In a run that was interrupted before, the start is awaited, so that a task that kills its
        # process each time is on record by name.
        is_awaited = (
            self._task.options.record_start == "before"
            or (flow_run is not None and flow_run.has_records)
            or self._task.options.hooks["on_running"]
        )
        if is_awaited:
            yield self._record.write_start()
            self._record.is_start_awaited = True
            # Hooks are called for what is on record.
            yield from self._has_begun(running)
        elif self._body is None:
            self._record.announce_start()
        return None

    def _restart(self, recorded: RecordedCall) -> Steps[State | None]:
        """Run a call again that an earlier attempt did not finish, or whose value is lost."""
        # A value that nobody can read is none that the rules have to keep.
        force = recorded.is_completed
        if self._cache is not None:
            # What is to be run again is not taken from another run either.
            self._cache.is_refreshing |= recorded.is_superseded
            yield from self._cache.look(self._engine, self._keeping)
        if force and self._record.slots is not None:
            yield from self._record.slots.take()
        return (yield from self._enter_running(None, force=force))

    def _find_cache_and_limits(self) -> Steps[None]:
        """Its cache key, if it has one, and whether one of its tags has a limit."""
        if self._task.cache is not None:
            try:
                self._cache = cache_use(self._context(), self._keeping)
            except Exception as error:  # noqa: BLE001 - the values that the user's template formats
                self._beginning_error = error
        if self._tags and self._body is None:
            yield from self._find_limits()

    def _find_limits(self) -> Steps[None]:
        """Look whether one of its tags has a limit; only then is anything else to be done."""
        from embedded_orch.engine.tag_slots import TagSlots

        found = TagSlots(self._engine, self.run_id, self._tags)
        if (yield from found.find()):
            self._record.slots = found

    # -- the function ----------------------------------------------------------------------------

    def _attempts(self, beginning: Steps[State | None]) -> Steps[State]:
        """Begin, and call the function until a final state is accepted."""
        try:
            state = yield from beginning
            while state is None:
                state = yield from (
                    self._attempt() if self._beginning_error is None else self._fail_at_once()
                )
            if self._record.slots is not None:
                self._record.slots.were_given_back()
            if self._task.options.has_hooks:
                yield from self._call_hooks(state)
            return state
        except errors.DatabaseError:
            # There is nothing to record now. The flow run tells of it with its end.
            if self._flow_run is not None:
                self._flow_run.has_loose_ends = True
            raise
        except (Exception, GeneratorExit, errors.Pause):
            # The run is not ours any more, or is going to be continued.
            raise
        except BaseException as error:
            # Ctrl-C, SystemExit or a cancelled task, whether it met the function or a wait of ours.
            yield from self._record_interruption(error)
            raise
        finally:
            if self._cache is not None:
                self._cache.release(self._engine)

    def _record_interruption(self, error: BaseException) -> Steps[None]:
        process, flow_run = self._engine.process, self._flow_run
        ending = results.crashed(process.new_id(), process.now(), error, kind="Task")
        if flow_run is not None and flow_run.cancellation.reason is not None:
            message = "the flow run that it belongs to was cancelled"
            ending = results.cancelled(process.new_id(), process.now(), message)
        stored: Proposal | None = None
        try:
            write = self._record.interrupt(ending)
            stored = yield from record_crash(write, ending, f"task run {self.name}")
        finally:
            if stored is None and flow_run is not None:
                # That failed, or was interrupted as well. The flow run tells of it with its end.
                flow_run.has_loose_ends = True

    def _call_hooks(self, state: State) -> Steps[None]:
        yield from call_task_hooks(self._engine, self._task, state)
        if state.type is StateType.COMPLETED:
            self._record.settle_hooks()

    def _attempts_with_slots(self, held: TagSlots, beginning: Steps[State | None]) -> Steps[State]:
        """The attempts, after which no slots are held, however they end."""
        held_before = holds_slots.get()
        try:
            return (yield from self._attempts(beginning))
        except GeneratorExit:
            raise
        except BaseException:
            yield from held.give_back()
            raise
        finally:
            holds_slots.set(held_before)
            held.stop_waiting()

    def _fail_at_once(self) -> Steps[State | None]:
        error = self._beginning_error
        assert error is not None, "there is a reason"
        return self._finish_failed(error, self._context(), is_final=True)

    def _attempt(self) -> Steps[State | None]:
        """Call the function once; the final state, or None when it is to be called again."""
        context = self._context()
        outside = task_run_context.get()
        task_run_context.set(context)
        told: tuple[Proposal, State] | None = None
        try:
            if self._body is None:
                task, arguments, not_kept = self._task, self._arguments, None
                with self._keeping_prints(context):
                    self._come_to("before")
                    # Here and not in a generator of its own, which a StopIteration would end.
                    if self._yields:
                        value, not_kept = yield from iteration_of(
                            task, arguments, kind="Task", run_id=self.run_id
                        )
                    else:
                        value = yield call_of(
                            task, self.function, arguments, kind="Task", run_id=self.run_id
                        )
                    self._come_to("after")
                if not_kept is not None or tells_the_end(value):
                    told = yield from self._told(value, not_kept)
            else:
                final, is_told = yield from self._body(self._record, self._arguments)
                if is_told:
                    return final
                # Raised here and not in the body, where a StopIteration would end its generator.
                value = final.result_now()
        except GeneratorExit:
            raise
        except ProcessDied as error:
            yield from attempts.fail(context, is_final=True)
            return (yield from self._finish_crashed(error))
        except BaseException as error:
            yield from attempts.undo(context, error)
            if not isinstance(error, Exception) or isinstance(error, errors.OwnershipLost):
                raise
            return (yield from self._finish_raised(error, context))
        finally:
            task_run_context.set(outside)
        if told is not None:
            return (yield from self._finish_as_told(*told, context))
        return (yield from self._finish_completed(value, context))

    def _come_to(self, point: Moment) -> None:
        """Tell a test that the function is about to be called, or has returned."""
        on_call = self._engine.on_call
        if on_call is not None:
            on_call(self._task.name, point)

    @property
    def _yields(self) -> bool:
        # Elsewhere, as in a process, its items are taken there.
        return self._task.is_generator and self.function is self._task.function

    def _told(self, value: object, not_kept: str | None) -> Steps[tuple[Proposal, State]]:
        value = yield from settled(value)
        process, run_name = self._engine.process, f"task run {self.name}"
        outcome = outcome_of(value, process, self._keeping, run_name=run_name, not_kept=not_kept)
        return (yield from outcome_outside(outcome, self._keeping, run_name=run_name))

    def _context(self) -> TaskRunContext:
        return TaskRunContext(
            self._engine,
            self._task,
            self._flow_run,
            run_id=self.run_id,
            name=self.name,
            run_count=self._run_count,
            parameters=self._arguments,
            inputs=self._inputs,
            tags=self._tags,
            start_time=self._engine.process.now(),
            around=self._around,
            is_tracker=self._body is not None,
            record=self._record,
        )

    def _keeping_prints(self, context: TaskRunContext) -> AbstractContextManager[None]:
        if self._flow_run is None:
            listen()
            return keeping_prints(context.log_prints)
        # Where the flow run asks for it, it has seen to it.
        is_asked_for = context.log_prints and not self._flow_run.log_prints
        return keeping_prints(True) if is_asked_for else NOTHING

    def _choose_name(self) -> None:
        """Name the run as the task says; a name that cannot be made fails it once it has begun."""
        naming = self._task.options.naming
        if naming is None:
            return
        token = task_run_context.set(self._context())
        try:
            self.name = chosen_name("task_run_name", naming, self._arguments)
        except Exception as error:  # noqa: BLE001 - the user's function, or values it formats
            self._beginning_error = error
        finally:
            task_run_context.reset(token)

    def _finish_completed(self, value: object, context: TaskRunContext) -> Steps[State | None]:
        process, keeping = self._engine.process, self._keeping
        run_name = f"task run {self.name}"
        try:
            completed = results.completed(
                self._completion_id(), process.now(), value, keeping, run_name=run_name
            )
            if is_too_large(completed, keeping):
                path = None if self._cache is None else self._cache.path
                completed = yield from put_outside(completed, keeping, run_name=run_name, path=path)
        except errors.ValueNotStorable as error:
            yield from attempts.undo(context, error)
            return (yield from self._finish_failed(error, context, is_final=True))
        if self._cache is not None:
            details = self._cache.completed_details(completed.timestamp)
            completed = msgspec.structs.replace(completed, details=details)
        decision: Decision = yield attempts.completion(context, self._record, completed)
        if decision.reason is not None and self._cache is not None:
            _log.warning("task run %s: not cached: %s", self.name, decision.reason)
        elif self._cache is not None:
            yield from self._cache.publish(context, completed)
        if context.is_in_transaction:
            yield from attempts.settle(context, value)
        return self._completed(results.state_of(decision.proposal or completed), value)

    def _completion_id(self) -> UUID:
        # An attempt before may have used the one after those of the beginning.
        if self._is_new and not self._retries:
            return id_after(self.run_id, 3)
        return self._engine.process.new_id()

    def _finish_as_told(
        self, proposal: Proposal, state: State, context: TaskRunContext
    ) -> Steps[State | None]:
        """End as the function said by what it returned; a failure may be retried."""
        if proposal.type is StateType.COMPLETED:
            yield attempts.completion(context, self._record, proposal)
            yield from attempts.settle(context, state)
            return self._own(state)
        yield from attempts.undo(context, errors.FailedRun(f"it returned {state!r}"))
        if proposal.type is StateType.FAILED:
            return (yield from self._end_failed(proposal, state.data, context))
        yield self._record.propose(proposal)
        yield from attempts.fail(context, is_final=True)
        return self._own(state)

    def _finish_raised(self, error: Exception, context: TaskRunContext) -> Steps[State | None]:
        """The function raised, or what was called in its place."""
        # A strict run that has changed stops, and tries nothing again.
        is_final = isinstance(error, errors.RunChanged)
        try:
            return (yield from self._finish_failed(error, context, is_final=is_final))
        except errors.DatabaseError:
            if self._body is not None and isinstance(error, errors.CommitOutcomeUnknown):
                # It tells more of the call: the run that this one stands for may be on record.
                raise error from error.__cause__
            raise

    def _finish_crashed(self, died: ProcessDied) -> Steps[State]:
        process = self._engine.process
        error = errors.CrashedRun(f"task run {self.name} crashed: {died}")
        crashed = results.crashed(
            process.new_id(), process.now(), error, kind="Task", message=f"Task run crashed: {died}"
        )
        decision: Decision = yield self._record.propose(crashed)
        return self._own(results.state_of(decision.proposal or crashed)).with_error(error)

    def _finish_failed(
        self, error: Exception, context: TaskRunContext, *, is_final: bool = False
    ) -> Steps[State | None]:
        """The final state, or None when the rules grant a retry, and its time has come."""
        process = self._engine.process
        failed = results.failed(
            process.new_id(), process.now(), error, kind="Task", run_id=self.run_id
        )
        if is_final:
            failed = not_retriable(failed)
        return (yield from self._end_failed(failed, error, context))

    def _end_failed(
        self, failed: Proposal, error: object, context: TaskRunContext
    ) -> Steps[State | None]:
        if failed.details.retriable is not False and self._retries < self._task.policy.retries:
            state = self._own(results.state_of(failed)).with_error(error)
            failed = yield from weighed(self._engine, self._task, failed, state)
        decision: Decision = yield self._record.propose(failed)
        has_ended = decision.run.state_type not in (StateType.SCHEDULED, StateType.RUNNING)
        yield from attempts.fail(context, is_final=has_ended)
        if self._body is None:
            # Of a flow that is called, its own run tells.
            log = log_failure if has_ended else log_retry
            log(context, failed.message)
        if has_ended:
            return self._own(results.state_of(decision.proposal or failed)).with_error(error)
        self._retries += 1
        if decision.run.state_type is StateType.RUNNING:
            self._run_count = decision.run.run_count
            yield from self._has_begun(decision.proposal or failed)
        else:
            if self._record.slots is not None:
                self._record.slots.claim_again()
            return (yield from self._enter_running(decision.run.state_id))
        return None

    # -- states ----------------------------------------------------------------------------------

    def _own(self, state: State) -> State:
        """A state of this task run, which says so."""
        flow_run = self._flow_run
        return state.of_run(
            flow_run_id=None if flow_run is None else flow_run.run_id, task_run_id=self.run_id
        )

    def _enter_running(self, waiting: UUID | None, *, force: bool = False) -> Steps[State | None]:
        """Propose RUNNING until it is accepted, waiting for as long as the rules say.

        Args:
            waiting: the state from which the run goes on, unless somebody moved it meanwhile.
            force: whether the rules are asked at all.

        Returns:
            The final state, where a cached result made an end of it.

        Raises:
            CancelledRun: the rules say that it never will be.
        """
        process = self._engine.process
        pause = 1
        while True:
            running = self._running(process.new_id(), process.now(), follows=waiting)
            decision: Decision = yield self._record.propose(running, force=force)
            self._record.is_start_awaited = True
            if decision.verdict is Verdict.ACCEPT:
                self._run_count = decision.run.run_count
                if self._record.slots is not None:
                    self._record.slots.were_taken()
                yield from self._has_begun(decision.proposal or running)
                return None
            if decision.run.state_type is StateType.COMPLETED:
                # The run that it stands for has completed in another process just now.
                return None if self._body is not None else (yield from self._cached(decision))
            if decision.verdict is Verdict.ABORT:
                refusal = (
                    None
                    if self._record.slots is None
                    else (yield from self._record.slots.refusal())
                )
                if refusal is None:
                    raise errors.CancelledRun(f"task run {self.name}: {decision.reason}")
                self._beginning_error = errors.ConcurrencySlotAcquisitionError(refusal)
                return None
            if self._record.slots is not None and (yield from self._record.slots.wait(decision)):
                waiting = decision.run.state_id
            elif decision.verdict is Verdict.WAIT:
                yield Sleep(decision.delay_seconds, process.sleep)
            else:
                # Its flow run is paused.
                waiting = decision.run.state_id
                yield Sleep(pause, process.sleep)
                pause = min(pause + 1, _LONGEST_PAUSE)

    def _cached(self, decision: Decision) -> Steps[State]:
        """The end of a run that took a cached result for its own."""
        assert self._cache is not None
        if decision.proposal is not None:
            state = results.state_of(decision.proposal)
        else:
            # The first answer was lost, and a second one does not bring the result again.
            [run] = yield Read(
                self._engine.database, lambda tx: task_runs.get_task_runs(tx, [self.run_id])
            )
            state = run.state
        is_known, value = self._cache.value_of(state.stored[0])
        return self._completed(state, value) if is_known else self._own(state)

    def _has_begun(self, running: Proposal) -> Steps[None]:
        """An attempt begins: RUNNING is on record, or announced."""
        if self._task.options.hooks["on_running"]:
            state = self._own(results.state_of(running))
            yield from call_task_hooks(self._engine, self._task, state)

    def _running(self, id: UUID, timestamp: int, *, follows: UUID | None = None) -> Proposal:
        return Proposal(
            id=id,
            type=StateType.RUNNING,
            name="Running",
            timestamp=timestamp,
            follows=follows,
            details=NO_DETAILS if self._cache is None else self._cache.details,
        )
