"""A plain model of a run, and a machine that proposes at random and compares.

The model knows no rule objects and no structs: it says in one function what becomes of a proposal,
and works everything else out from the whole history each time it is asked.
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from embedded_orch import times
from embedded_orch.orchestration.values import Decision, Policy, Proposal, Run, Verdict
from embedded_orch.states import TERMINAL_TYPES, VALUE, StateDetails, StateType
from tests.orchestration.runs import (
    CANCELLED,
    CANCELLING,
    COMPLETED,
    CRASHED,
    FAILED,
    NOW,
    PAUSED,
    PENDING,
    RUNNING,
    SCHEDULED,
    SECOND,
)
from tests.orchestration.test_matrices import FLOW_MATRIX, TASK_MATRIX, cells

ACCEPT, REJECT, WAIT, ABORT = Verdict.ACCEPT, Verdict.REJECT, Verdict.WAIT, Verdict.ABORT


class Entry(NamedTuple):
    """A state in the history of the model."""

    type: StateType
    name: str
    at: int
    due: int | None
    pause_until: int | None
    is_suspension: bool
    transition_id: UUID | None
    has_value: bool
    is_attempt: bool
    was_forced: bool


class Model:
    """What a run should be."""

    def __init__(self, *, is_flow_run: bool, retries: int, delay: int) -> None:
        self.is_flow_run, self.retries, self.delay = is_flow_run, retries, delay
        self.history: list[Entry] = []
        self.keys: set[str] = set()
        self.is_resuming = False
        self.retry_type: str | None = None
        self.flow_state: StateType | None = RUNNING
        self.flow_attempt = 1
        self.last_attempt = 0

    # -- what becomes of a proposal --------------------------------------------------------------

    def propose(
        self, proposal: Proposal, now: int, *, force: bool
    ) -> tuple[Verdict, StateType | None]:
        """The verdict, and the type of what is stored, if anything is."""
        verdict, stored, name = self._answer(proposal, now, force=force)
        if stored is not None:
            self._enter(proposal, stored, name, now, force=force)
        return verdict, stored

    def _answer(
        self, proposal: Proposal, now: int, *, force: bool
    ) -> tuple[Verdict, StateType | None, str]:
        to, name = proposal.type, proposal.name
        if self.is_flow_run:
            answer = self._flow_objection(proposal, now, force=force)
        else:
            answer = None if force else self._task_objection(proposal, now)
        if answer is not None:
            return answer
        if not self.is_flow_run and not force:
            name = self._task_name(to, name)
        return ACCEPT, to, name

    def _flow_objection(
        self, proposal: Proposal, now: int, *, force: bool
    ) -> tuple[Verdict, StateType | None, str] | None:
        here, to, details = self.current, proposal.type, proposal.details
        same_transition = details.transition_id is not None and here is not None
        if same_transition and here.transition_id == details.transition_id and not force:
            return REJECT, None, ""
        loses_value = to is COMPLETED and proposal.data_format != VALUE
        if here is not None and here.type in TERMINAL_TYPES:
            if to in (CANCELLING, PAUSED, CRASHED) and not force:
                return ABORT, None, ""
            if to not in TERMINAL_TYPES and here.has_value and not force:
                return REJECT, None, ""
            if here.has_value and loses_value:
                return REJECT, None, ""
        is_idle = here is not None and (
            here.type is SCHEDULED or (here.type is PAUSED and here.is_suspension)
        )
        if to is CANCELLING and is_idle:
            return REJECT, CANCELLED, "Cancelled"
        return None if force else self._unforced_flow_objection(proposal, now)

    def _unforced_flow_objection(
        self, proposal: Proposal, now: int
    ) -> tuple[Verdict, StateType | None, str] | None:
        here, to, name = self.current, proposal.type, proposal.name
        type, here_name = (None, "") if here is None else (here.type, here.name)
        is_next = type is PENDING and name not in ("Pending", here_name)
        may_be_late = type is SCHEDULED and here_name != "Late"
        if type is CANCELLING and to is not CANCELLED:
            return REJECT, None, ""
        if to is PENDING and type in (PENDING, RUNNING, CANCELLED) and not is_next:
            return ABORT, None, ""
        if (to, name, may_be_late) == (SCHEDULED, "Late", False):
            return REJECT, None, ""
        if here is None:
            return (ABORT, None, "") if to is PAUSED else None
        if to is PAUSED:
            key = proposal.details.pause_key or str(proposal.id)
            may_pause = type is RUNNING and key not in self.keys
            return None if may_pause else (REJECT, None, "")
        if type is PAUSED:
            return self._pause_objection(here, to, now)
        return self._waiting_or_retry(proposal, now)

    def _pause_objection(
        self, here: Entry, to: StateType, now: int
    ) -> tuple[Verdict, StateType | None, str] | None:
        if to is PENDING:
            return REJECT, None, ""
        is_late = here.pause_until is not None and here.pause_until < now
        return (REJECT, FAILED, "Failed") if is_late and to not in (FAILED, CANCELLING) else None

    def _task_objection(
        self, proposal: Proposal, now: int
    ) -> tuple[Verdict, StateType | None, str] | None:
        here, to = self.current, proposal.type
        if here is not None and here.type in TERMINAL_TYPES:
            if to in (CANCELLING, PAUSED, CRASHED):
                return ABORT, None, ""
            if here.has_value:
                return REJECT, None, ""
        if to is RUNNING and self.flow_state is PAUSED:
            is_told = here is not None and here.name == "NotReady"
            return (REJECT, None, "") if is_told else (REJECT, PAUSED, "NotReady")
        if to is RUNNING and self.flow_state is not RUNNING:
            return ABORT, None, ""
        return self._waiting_or_retry(proposal, now)

    def _waiting_or_retry(
        self, proposal: Proposal, now: int
    ) -> tuple[Verdict, StateType | None, str] | None:
        here, to = self.current, proposal.type
        if here is None:
            return None
        if (
            to is RUNNING
            and here.type in (SCHEDULED, PENDING)
            and (here.due or 0) > max(now, here.at)
        ):
            return WAIT, None, ""
        may_retry = here.type is RUNNING and to is FAILED and self.run_count <= self.retries
        if may_retry and proposal.details.retriable is not False:
            is_ready = self.flow_state is RUNNING and self.delay == 0
            if is_ready and not self.is_flow_run:
                return REJECT, RUNNING, "Retrying"
            return REJECT, SCHEDULED, "AwaitingRetry"
        return None

    def _task_name(self, to: StateType, name: str) -> str:
        here = self.current
        if to is not RUNNING or name != "Running" or here is None:
            return name
        if here.type in TERMINAL_TYPES:
            return "Retrying" if self.last_attempt < self.flow_attempt else "Running"
        if self.run_count == 0:
            return "Running"
        return "Retrying" if here.name == "AwaitingRetry" else "Rerunning"

    # -- what is stored --------------------------------------------------------------------------

    def _enter(
        self, proposal: Proposal, type: StateType, name: str, now: int, *, force: bool
    ) -> None:
        here, details = self.current, proposal.details
        if self.is_flow_run and not force:
            self._note(proposal, type)
        due = times_or_none(details.scheduled_time)
        if type is SCHEDULED:
            is_retry = proposal.type is FAILED
            due = now + self.delay * SECOND if is_retry else due or now
        elif type is PENDING and here is not None and due is None and not force:
            is_substate = here.type is PENDING and self.is_flow_run
            due = here.due if here.type is SCHEDULED or is_substate else None
        is_own = type is proposal.type
        keeps_transition = is_own or type in (SCHEDULED, CANCELLED)
        stamp = proposal.timestamp
        self.history.append(
            Entry(
                type=type,
                name=name,
                at=stamp if here is None or stamp > here.at else here.at + 1,
                due=due if is_own or type is SCHEDULED else None,
                pause_until=times_or_none(details.pause_timeout) if is_own else None,
                is_suspension=details.pause_reschedule and is_own,
                transition_id=details.transition_id if keeps_transition else None,
                has_value=type is COMPLETED and proposal.data_format == VALUE,
                is_attempt=type is RUNNING and not self.is_resuming,
                was_forced=force,
            )
        )
        if type is RUNNING:
            self.last_attempt = self.flow_attempt
        if type is RUNNING or type in TERMINAL_TYPES:
            self.is_resuming = False

    def _note(self, proposal: Proposal, type: StateType) -> None:
        """What a flow run remembers beside its history."""
        left = None if self.current is None else self.current.type
        if left in TERMINAL_TYPES and type not in TERMINAL_TYPES:
            self.keys, self.is_resuming = set(), False
            self.retry_type = "reschedule" if type is SCHEDULED else None
        if left is PAUSED and type in (RUNNING, SCHEDULED):
            self.is_resuming = True
        if type is PAUSED:
            self.keys.add(proposal.details.pause_key or str(proposal.id))
        if (left, proposal.type) == (RUNNING, FAILED):
            is_retry = type is SCHEDULED
            self.retry_type = "in_process" if is_retry else None
            if is_retry:
                self.keys, self.is_resuming = set(), False

    # -- what follows from the history -----------------------------------------------------------

    @property
    def current(self) -> Entry | None:
        return self.history[-1] if self.history else None

    @property
    def run_count(self) -> int:
        count, before = 0, None
        for entry in self.history:
            begins_anew = before in TERMINAL_TYPES and entry.type not in TERMINAL_TYPES
            if begins_anew and not self.is_flow_run:
                count = 0
            count += entry.is_attempt
            before = entry.type
        return count

    @property
    def run_time(self) -> int:
        pairs = zip(self.history, self.history[1:], strict=False)
        return sum(after.at - entry.at for entry, after in pairs if entry.type is RUNNING)

    @property
    def start(self) -> int | None:
        starts = (e.at for e in self.history if e.type is RUNNING or e.type in TERMINAL_TYPES)
        return next(starts, None)

    @property
    def end(self) -> int | None:
        end = None
        for entry in self.history:
            if entry.type not in TERMINAL_TYPES:
                end = None
            elif end is None:
                end = entry.at
        return end

    @property
    def expected(self) -> int | None:
        if not self.history:
            return None
        first = self.history[0]
        return first.due if first.type is SCHEDULED else first.at


def times_or_none(moment: Any) -> int | None:
    return None if moment is None else times.microseconds_from_datetime(moment)


def legal(matrix: str) -> set[tuple[StateType, StateType]]:
    """The pairs of types that may follow each other in a history."""
    return {(leaving, entering) for leaving, entering, letter in cells(matrix) if letter == "A"}


LEGAL = {
    # A pending flow run moves on to a pending state of another name.
    True: legal(FLOW_MATRIX) | {(PENDING, PENDING)},
    # A task run that was to begin anew in a paused flow run is not ready.
    False: legal(TASK_MATRIX) | {(end, PAUSED) for end in TERMINAL_TYPES},
}

NAMES = [None, None, None, "Late", "Submitting", "Resuming", "AwaitingRetry", "NotReady", "Mine"]


class Machine(RuleBasedStateMachine):
    """Proposes states at random for one run, and compares it with the model after each.

    A subclass says how a run is made, how a state is proposed, and how the run is read.
    """

    def make(self, *, is_flow_run: bool, policy: Policy) -> None:
        raise NotImplementedError

    def put(self, proposal: Proposal, now: int, *, force: bool) -> Decision:
        raise NotImplementedError

    def move_flow_run(self, state: StateType, attempt: int) -> None:
        raise NotImplementedError

    def read(self) -> Run:
        raise NotImplementedError

    def read_history(self) -> list[tuple[StateType, str, int]]:
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.number = 1000
        self.last: tuple[Proposal, bool] | None = None

    @initialize(is_flow_run=st.booleans(), retries=st.integers(0, 3), delay=st.sampled_from([0, 2]))
    def begin(self, is_flow_run: bool, retries: int, delay: int) -> None:
        self.model = Model(is_flow_run=is_flow_run, retries=retries, delay=delay)
        self.make(is_flow_run=is_flow_run, policy=Policy(retries=retries, retry_delay=delay))

    @rule(
        type=st.sampled_from(StateType),
        name=st.sampled_from(NAMES),
        step=st.integers(-3, 5),
        due=st.sampled_from([None, None, None, -2, 2, 7]),
        until=st.sampled_from([None, None, 3, 30]),
        pause_key=st.sampled_from([None, "a", "b"]),
        flags=st.tuples(st.booleans(), st.sampled_from([None, None, False])),
        transition=st.sampled_from([None, None, UUID(int=1), UUID(int=2)]),
        with_value=st.booleans(),
        force=st.sampled_from([False, False, False, True]),
    )
    def propose(
        self,
        type: StateType,
        name: str | None,
        step: int,
        due: int | None,
        until: int | None,
        pause_key: str | None,
        flags: tuple[bool, bool | None],
        transition: UUID | None,
        with_value: bool,
        force: bool,
    ) -> None:
        self.now += step * SECOND
        self.number += 2
        details = StateDetails(
            scheduled_time=self.moment(due),
            pause_timeout=self.moment(until),
            pause_key=pause_key,
            pause_reschedule=flags[0],
            retriable=flags[1],
            transition_id=transition,
        )
        proposal = Proposal(
            id=UUID(int=self.number),
            type=type,
            name=name or type.value.capitalize(),
            timestamp=self.now,
            details=details,
            data=b"1" if with_value else None,
            data_format=VALUE if with_value else None,
        )
        self.compare(proposal, force=force)
        self.last = proposal, force

    def moment(self, seconds: int | None) -> Any:
        return times.optional_datetime(None if seconds is None else self.now + seconds * SECOND)

    def compare(self, proposal: Proposal, *, force: bool) -> None:
        decision = self.put(proposal, self.now, force=force)
        verdict, stored = self.model.propose(proposal, self.now, force=force)
        assert decision.verdict is verdict, decision.reason
        assert (decision.proposal is not None) == (stored is not None)
        assert bool(decision.reason) == (verdict is not ACCEPT)
        assert (decision.delay_seconds > 0) == (verdict is WAIT)

    @precondition(lambda self: self.last is not None)
    @rule()
    def propose_the_last_again(self) -> None:
        assert self.last is not None
        proposal, force = self.last
        before = self.read()
        if before.state_id != proposal.id:
            return
        decision = self.put(proposal, self.now, force=force)
        is_as_proposed = before.state_type is proposal.type
        assert decision.is_repeat
        assert decision.verdict is (ACCEPT if is_as_proposed else REJECT)
        assert (decision.proposal, decision.run.state_id) == (None, before.state_id)

    @precondition(lambda self: not self.model.is_flow_run)
    @rule(state=st.sampled_from([RUNNING, RUNNING, PAUSED, CANCELLING, CRASHED]))
    def move_the_flow_run(self, state: StateType) -> None:
        attempt = self.model.flow_attempt + (state is RUNNING)
        self.move_flow_run(state, attempt)
        self.model.flow_state, self.model.flow_attempt = state, attempt

    @invariant()
    def run_agrees_with_its_history(self) -> None:
        model, run = self.model, self.read()
        here = model.current
        if here is None:
            assert run.state_type is None
            return
        assert (run.state_type, run.state_name, run.state_timestamp) == (
            here.type,
            here.name,
            here.at,
        )
        assert run.run_count == model.run_count
        assert run.total_run_time == model.run_time
        assert (run.start_time, run.end_time) == (model.start, model.end)
        assert run.expected_start_time == model.expected
        is_due = here.type is SCHEDULED
        assert run.next_scheduled_start_time == (here.due if is_due else None)
        if here.type in (SCHEDULED, PENDING):
            assert times_or_none(run.state_details.scheduled_time) == here.due
        assert run.has_value == here.has_value
        if model.is_flow_run:
            assert set(run.policy.pause_keys) == model.keys
            assert (run.policy.resuming, run.policy.retry_type) == (
                model.is_resuming,
                model.retry_type,
            )
        else:
            assert run.flow_run_run_count == model.last_attempt

    @invariant()
    def history_is_a_legal_path(self) -> None:
        model = self.model
        found = self.read_history()
        assert found == [(entry.type, entry.name, entry.at) for entry in model.history]
        stamps = [stamp for _, _, stamp in found]
        assert stamps == sorted(set(stamps))
        for before, entry in zip(model.history, model.history[1:], strict=False):
            pair = before.type, entry.type
            assert entry.was_forced or pair in LEGAL[model.is_flow_run], pair


def walk(machine: Machine, seed: int, *, steps: int) -> None:
    """Drive a machine further than Hypothesis does, by chance alone: rare paths take many steps."""
    chance = random.Random(seed)
    pick = chance.choice
    machine.begin(pick([True, False]), pick([0, 0, 1, 3]), pick([0, 2]))
    for _ in range(steps):
        if chance.random() < 0.1 and machine.last is not None:
            machine.propose_the_last_again()
            continue
        if chance.random() < 0.1 and not machine.model.is_flow_run:
            machine.move_the_flow_run(pick([RUNNING, RUNNING, PAUSED, CANCELLING, CRASHED]))
            continue
        is_plain = chance.random() < 0.5
        machine.propose(
            pick(list(StateType)),
            None if is_plain else pick(NAMES),
            chance.randint(-1, 5),
            None if is_plain else pick([None, -2, 2, 7]),
            None if is_plain else pick([None, 3, 30]),
            None if is_plain else pick([None, "a", "b"]),
            (not is_plain and pick([True, False]), None if is_plain else pick([None, False])),
            None if is_plain else pick([None, UUID(int=1), UUID(int=2)]),
            chance.random() < 0.2,
            chance.random() < 0.15,
        )
        machine.run_agrees_with_its_history()
    machine.history_is_a_legal_path()
