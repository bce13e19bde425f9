"""Finding out why a run is where it is, and what would move it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedded_orch import errors, times
from embedded_orch.engine.effects import Read
from embedded_orch.engine.explanation import Blocker, Explanation, OwnerFacts, Reason
from embedded_orch.engine.ownership import Life
from embedded_orch.states import StateType
from embedded_orch.store.explaining import Record, WantedSlot, read_record

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from embedded_orch.engine.effects import Steps
    from embedded_orch.engine.engine import Engine
    from embedded_orch.states import State
    from embedded_orch.store.processes import ProcessRow


def explaining(engine: Engine, run_id: UUID) -> Steps[Explanation]:
    """Why a flow run or task run is where it is.

    Raises:
        RunNotFound: no run has this id.
    """
    now = engine.process.now()
    record: Record | None = yield Read(
        engine.database, lambda tx: read_record(tx, run_id=run_id, now=now)
    )
    if record is None:
        raise errors.RunNotFound(
            f"no flow run and no task run has the id {run_id} in {engine.database.url}; a task "
            f"that waits for what it depends on is on record once it begins"
        )
    return _Case(engine, record, now).explain()


class _Case:
    """One run that is to be explained, from what is on record of it.

    Args:
        engine: that asks; it judges which owners live.
        record: what was read.
        now: microseconds since 1970 UTC.
    """

    def __init__(self, engine: Engine, record: Record, now: int) -> None:
        run = record.task_run or record.flow_run
        assert run is not None, "one of them was found"
        self._engine = engine
        self._record = record
        self._now = now
        self._run = run
        self._kind = "flow run" if record.task_run is None else "task run"
        self._state: State | None = run.state
        self._owner = None if record.owner is None else self._owner_facts(record.owner)

    def explain(self) -> Explanation:
        """Why, and what would move it."""
        state = self._state
        if state is None:
            return self._because(Reason.NOT_BEGUN, "it has no state yet", "a state, by set_state()")
        if state.is_final():
            return self._finished(state)
        if state.name == "NotReady":
            return self._not_ready(state)
        if state.type is StateType.PAUSED:
            return self._paused(state)
        if self._owner is not None and self._is_left():
            return self._left(self._owner)
        if state.type is StateType.CANCELLING:
            return self._cancelling(state)
        return self._going_on(state)

    def _going_on(self, state: State) -> Explanation:
        if state.type is StateType.SCHEDULED:
            return self._scheduled(state)
        return self._pending() if state.type is StateType.PENDING else self._running()

    # -- one for each way of being ---------------------------------------------------------------

    def _finished(self, state: State) -> Explanation:
        text = f"it has ended as {state.name}"
        if state.message:
            text += f": {state.message}"
        can_resume = self._kind == "flow run" and state.type is not StateType.COMPLETED
        return self._because(
            Reason.FINISHED,
            text,
            f"nothing by itself; its flow, by .resume({str(self._run.id)!r})"
            if can_resume
            else "nothing: it has ended",
        )

    def _not_ready(self, state: State) -> Explanation:
        blockers = [
            Blocker("task run", each.name, f"task run {each.name} is {_name(each.state)}", each.id)
            for each in self._record.upstream
            if each.state is None or not each.state.is_completed()
        ]
        return self._because(
            Reason.NOT_READY,
            f"it was not run: {state.message or 'what it depends on did not complete'}",
            "nothing by itself; a resume of its flow run makes the call again",
            waits_for=tuple(blockers),
        )

    def _paused(self, state: State) -> Explanation:
        details, id = state.state_details, str(self._run.id)
        until = details.pause_timeout
        is_suspended = details.pause_reschedule
        waits = self._waits() if is_suspended else ()
        resume = f"resume_flow_run({id!r})"
        if details.run_input_keyset is not None:
            resume = f"resume_flow_run({id!r}, run_input={{...}}), since it waits for input"
        if waits:
            resume = "orch.resume_due(), once that has come"
        elif is_suspended:
            resume += ", and then its flow, by .resume()"
        elif self._is_left():
            resume += ", and then its flow, by .resume(), since its process died"
        text = f"it is {state.name} since {_at(state.timestamp_microseconds)}"
        if until is not None:
            text += f", until {_moment(until)} at the latest"
        return self._because(
            Reason.SUSPENDED if is_suspended else Reason.PAUSED,
            text,
            resume,
            until=until,
            waits_for=waits,
        )

    def _left(self, owner: OwnerFacts) -> Explanation:
        flow_run = self._record.flow_run
        if not self._record.has_ended:
            how = (
                "was not heard of for the length of its lease"
                if owner.life == "overdue"
                else "died"
            )
            return self._because(
                Reason.OWNER_DIED,
                f"it is {_name(self._state)} on record, and {owner} {how}",
                "orch.recover() now, or whoever looks next",
            )
        if flow_run is not None and flow_run.on_crash == "resume":
            resume = f".resume({str(flow_run.id)!r})"
            return self._because(
                Reason.TO_BE_RESUMED,
                f"{owner}, which ran it, has it no more, and it asks to be resumed",
                f"orch.resume_crashed(), or its flow, by {resume}",
            )
        return self._because(
            Reason.OWNER_DIED,
            f"{owner}, which ran it, has it no more",
            "`embedded-orch db repair`: no process can do this",
        )

    def _cancelling(self, state: State) -> Explanation:
        text = "it is being cancelled"
        if state.message:
            text += f", and {state.message}"
        if self._owner is None:
            return self._because(Reason.CANCELLING, text, "its cancellation once more, by cancel()")
        return self._because(
            Reason.CANCELLING,
            text,
            f"{self._owner}, once what is at work there has been interrupted",
            waits_for=self._tasks_at_work(),
        )

    def _scheduled(self, state: State) -> Explanation:
        due = self._run.next_scheduled_start_time
        until = times.optional_datetime(due)
        if state.name == "AwaitingRetry":
            when = "now" if due is None or due <= self._now else f"at {_at(due)}"
            return self._because(
                Reason.AWAITING_RETRY,
                f"it failed, and its retry is due {when}: {state.message or 'no message'}",
                f"{self._owner or 'its process'}, when the time has come",
                until=until,
            )
        if self._record.slots or state.name == "AwaitingConcurrencySlot":
            return self._for_slots()
        if self._record.queue is not None:
            return self._queued(due)
        if state.name == "Resuming":
            return self._because(
                Reason.TO_BE_RESUMED,
                "it was paused, and let go on; no process waits for it",
                f"its flow, by .resume({str(self._run.id)!r})",
            )
        is_due = due is None or due <= self._now
        text = "no process runs it" if due is None else f"it is due at {_at(due)}"
        return self._because(
            Reason.LATE if is_due and due is not None else Reason.SCHEDULED,
            text,
            f"its flow, by .resume({str(self._run.id)!r}): it is in no queue",
            until=until,
        )

    def _queued(self, due: int | None) -> Explanation:
        queue = self._record.queue
        assert queue is not None
        place = f"the queue {queue.name!r} of the pool {queue.pool_name!r}"
        is_late = due is not None and due <= self._now
        when = "" if due is None else f", {'due since' if is_late else 'due at'} {_at(due)}"
        obstacles = [
            words
            for is_so, words in (
                (queue.is_paused, "the queue is paused"),
                (queue.pool_is_paused, "the pool is paused"),
                (queue.concurrency_limit == 0, "the queue allows no runs"),
                (queue.pool_concurrency_limit == 0, "the pool allows no runs"),
            )
            if is_so
        ]
        text = f"it waits in {place}{when}"
        if obstacles:
            text += f"; {' and '.join(obstacles)}"
        return self._because(
            Reason.LATE if is_late else Reason.SCHEDULED,
            text,
            "whoever claims runs of that pool"
            + (", once that has changed" if obstacles else "" if is_late else ", then"),
            until=times.optional_datetime(due),
        )

    def _pending(self) -> Explanation:
        if self._record.slots:
            return self._for_slots()
        if self._record.queue is not None and self._owner is not None:
            return self._because(
                Reason.CLAIMED,
                f"{self._owner} has claimed it from a queue, and not begun",
                f"{self._owner}; should that die, it is back in its queue",
            )
        if self._owner is None:
            return self._because(
                Reason.NOT_BEGUN,
                "it was made, and no process runs it",
                f"its flow, by .resume({str(self._run.id)!r})",
            )
        return self._because(
            Reason.NOT_BEGUN, f"{self._owner} is about to begin it", f"{self._owner}"
        )

    def _running(self) -> Explanation:
        if self._record.slots:
            return self._for_slots()
        waits = self._waits()
        since = self._since()
        if waits:
            first = self._record.waits[0]
            return self._because(
                Reason.SLEEPING if first.signal is None else Reason.WAITING_FOR_SIGNAL,
                f"{self._owner or 'its process'} runs it{since}, and it waits",
                "the time" if first.signal is None else f"orch.send_signal() of {first.signal!r}",
                until=times.optional_datetime(first.deadline),
                waits_for=waits,
            )
        child = self._record.child
        if child is not None:
            text = f"flow run {child.name} is {_name(child.state)}; ask why({str(child.id)!r})"
            return self._because(
                Reason.RUNNING,
                f"it is the call of a flow{since}",
                "the end of that flow run",
                waits_for=(Blocker("flow run", child.name, text, child.id),),
            )
        if self._owner is None:
            return self._because(
                Reason.RUNNING,
                f"it is Running{since}, and no process is known to run it",
                "whoever set its state",
            )
        return self._because(
            Reason.RUNNING,
            f"it is running in {self._owner}{since}",
            "its own code",
            waits_for=self._tasks_at_work(),
        )

    def _for_slots(self) -> Explanation:
        blockers = tuple(
            blocker for wanted in self._record.slots for blocker in self._holders(wanted)
        )
        names = ", ".join(repr(wanted.name) for wanted in self._record.slots)
        return self._because(
            Reason.WAITING_FOR_SLOT,
            f"it waits for a slot of {names or 'a limit'}",
            "whoever gives a slot back, or a higher limit; those who came before are served first",
            waits_for=blockers,
        )

    # -- what they say ---------------------------------------------------------------------------

    def _because(
        self,
        reason: Reason,
        text: str,
        next: str,  # noqa: A002 - the field's own word
        *,
        until: datetime | None = None,
        waits_for: tuple[Blocker, ...] = (),
    ) -> Explanation:
        state = self._state
        return Explanation(
            run_id=self._run.id,
            kind=self._kind,
            name=self._run.name,
            state_name=None if state is None else state.name,
            reason=reason,
            text=text,
            next=next,
            since=None if state is None else state.timestamp,
            until=until,
            owner=self._owner,
            waits_for=waits_for,
        )

    def _is_left(self) -> bool:
        """Whether the process that the run names as its owner is gone."""
        if self._record.has_ended:
            return True
        return self._owner is not None and self._owner.life != Life.ALIVE.value

    def _since(self) -> str:
        return "" if self._state is None else f" since {_at(self._state.timestamp_microseconds)}"

    def _owner_facts(self, row: ProcessRow) -> OwnerFacts:
        has_ended = row is self._record.owner and self._record.has_ended
        life = Life.DEAD if has_ended else self._engine.owner.life_of(row)
        return OwnerFacts(row.pid, row.host, life.value)

    def _tasks_at_work(self) -> tuple[Blocker, ...]:
        return tuple(
            Blocker("task run", each.name, f"task run {each.name} is {_name(each.state)}", each.id)
            for each in self._record.at_work
        )

    def _waits(self) -> tuple[Blocker, ...]:
        found = []
        for wait in self._record.waits:
            limit = "" if wait.deadline is None else f" until {_at(wait.deadline)}"
            if wait.signal is None:
                found.append(Blocker("time", "sleep", f"it sleeps{limit}"))
            else:
                text = f"it waits for the signal {wait.signal!r}{limit}"
                found.append(Blocker("signal", wait.signal, text))
        return tuple(found)

    def _holders(self, wanted: WantedSlot) -> list[Blocker]:
        found = []
        for claim, run_name, process in wanted.holders:
            owner = None if process is None else self._owner_facts(process)
            who = (claim.holder_type or "code outside of runs").replace("_", " ")
            if run_name is not None:
                who += f" {run_name}"
            text = (
                f"{claim.slots} of {wanted.slot_limit} slot(s) of {wanted.name!r} held by {who}, "
                f"in {owner or 'a process that is gone'}, since {_at(claim.since)}"
            )
            found.append(Blocker("slot", wanted.name, text, claim.holder_id, owner))
        if not found:
            text = f"{wanted.name!r} has {wanted.slot_limit} slot(s), and others wait before it"
            found.append(Blocker("slot", wanted.name, text))
        return found


def _name(state: State | None) -> str:
    return "without a state" if state is None else state.name


def _at(microseconds: int) -> str:
    return _moment(times.datetime_from_microseconds(microseconds))


def _moment(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")
