"""Pausing, suspending and resuming flow runs.

A paused run keeps its process, which waits: it is woken by a resume in its own process, and notices
that of another one by looking, more and more seldom. A suspended run lets its process go; another
one, or the same, continues it by ``flow.resume``, and calls that completed are not run again.

A pause has a key, its place among the pauses of the run when none is given. A run that comes to a
pause that it has passed goes on: when it is resumed, and when it is retried. The time that a pause
has stands in the state, so that whoever looks can tell that it is over.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec

from embedded_orch import errors, times
from embedded_orch.db.waiting_room import Waiter
from embedded_orch.engine import results
from embedded_orch.engine.effects import Read, Turn, Write
from embedded_orch.engine.json_schema import problems
from embedded_orch.engine.pause_deadlines import NEVER_RESUMED, expire_pauses
from embedded_orch.engine.resuming import owned_run, runs_in_living_process
from embedded_orch.engine.run_inputs import WantedInput, keyset_of
from embedded_orch.engine.watching import place_of, tell_moved
from embedded_orch.orchestration.values import Proposal, Verdict
from embedded_orch.states import StateDetails, StateType
from embedded_orch.store import flow_runs, inputs, pauses

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from embedded_orch.db.port import Transaction
    from embedded_orch.engine.contexts import FlowRunContext
    from embedded_orch.engine.effects import Steps
    from embedded_orch.engine.engine import Engine
    from embedded_orch.engine.resuming import Owned
    from embedded_orch.orchestration.values import Decision
    from embedded_orch.states import State
    from embedded_orch.store.inputs import InputRow

_FIRST_LOOK = 0.05
_MICROSECONDS = 1_000_000


class PauseRequest(msgspec.Struct, frozen=True):
    """What a pause is about.

    Attributes:
        key: of the pause; its place among the pauses of the run when None.
        timeout_seconds: how long it may last; None for as long as it takes.
        poll_seconds: the longest time between two looks at what other processes do.
        wanted: the input that it waits for, if any.
        is_suspension: whether the process of the run does not wait.
    """

    key: str | None
    timeout_seconds: float | None
    poll_seconds: float
    wanted: WantedInput | None
    is_suspension: bool


def pause(context: FlowRunContext, request: PauseRequest) -> Steps[Any]:
    """Pause the flow run that the calling code is in; what it is answered.

    Raises:
        RunNotPausable: it cannot pause, or be suspended, as it is.
        FlowPauseTimeout: it was not resumed in time.
        RunInputError: it was resumed without the input that it waits for.
        Pause: it is suspended.
    """
    key = context.next_pause(request.key)
    name = "Suspended" if request.is_suspension else "Paused"
    base = f"{name.lower()}-{key}"
    if context.has_records and (yield from _was_passed(context, key)):
        return (yield from _answer(context, request, base))
    paused = _paused(context.engine, request, name, key, base)
    decision = yield from _enter(
        context.engine, context.run_id, request, paused, epoch=context.epoch
    )
    if decision.verdict is not Verdict.ACCEPT:
        is_passed = decision.verdict is Verdict.REJECT
        if is_passed and decision.run.state_type is StateType.RUNNING:
            return (yield from _answer(context, request, base))
        yield from _refuse_moved(context)
        raise errors.RunNotPausable(
            f"flow run {context.name} ({context.run_id}) is not {name.lower()}: {decision.reason}"
        )
    tell_moved(context.engine.room, context.run_id)
    if request.is_suspension:
        state = results.state_of(paused).of_run(flow_run_id=context.run_id, task_run_id=None)
        raise errors.Pause(f"flow run {context.name} was suspended", state=state)
    yield from _wait(context, request)
    return (yield from _answer(context, request, base))


def suspend_other(engine: Engine, run_id: UUID, request: PauseRequest) -> Steps[None]:
    """Suspend another flow run: one that is at work goes on to the next task that it calls.

    Raises:
        RunNotFound: no flow run has this id.
        RunNotPausable: it is not running, or cannot be suspended.
    """
    key = request.key or str(engine.process.new_id())
    base = f"suspended-{key}"
    paused = _paused(engine, request, "Suspended", key, base)
    decision = yield from _enter(engine, run_id, request, paused, epoch=None)
    if decision.verdict is not Verdict.ACCEPT:
        raise errors.RunNotPausable(f"flow run {run_id} is not suspended: {decision.reason}")
    tell_moved(engine.room, run_id)


def resume(engine: Engine, run_id: UUID, given: Mapping[str, Any] | None) -> Steps[None]:
    """Let a paused run go on, with the input that it waits for.

    Raises:
        RunNotFound: no flow run has this id.
        NotPausedError: it is not paused.
        FlowPauseTimeout: its time is over.
        RunInputError: the input does not fit; the run stays paused.
    """
    yield from expire_pauses(engine)
    found: Owned = yield Read(engine.database, lambda tx: owned_run(tx, run_id))
    run, owner = found
    label = f"flow run {run.name} ({run.id})"
    _check_paused(run.state, label)
    assert run.state is not None
    keyset = run.state.state_details.run_input_keyset
    answer = None
    if keyset is not None:
        answer = keyset["response"], (yield from _checked(engine, run_id, keyset, given, label))
    elif given:
        raise errors.RunInputError(f"{label} waits for no input, and was given {given!r}")
    is_waited_for = not run.state.state_details.pause_reschedule and runs_in_living_process(
        engine, run, owner
    )
    process = engine.process
    resumed = _resumed(engine, run.state.id, is_waited_for=is_waited_for)

    def operation(tx: Transaction) -> Decision:
        return pauses.leave(
            tx,
            run_id=run_id,
            resumed=resumed,
            answer=answer,
            now=resumed.timestamp,
            new_id=process.new_id,
        )

    decision: Decision = yield Write(engine.database, operation)
    tell_moved(engine.room, run_id)
    if decision.verdict is Verdict.ACCEPT:
        return
    if decision.run.state_type is StateType.FAILED:
        raise errors.FlowPauseTimeout(f"{label}: {NEVER_RESUMED}")
    raise errors.NotPausedError(f"{label} is not paused any more: {decision.reason}")


# -- entering --------------------------------------------------------------------------------------


def _paused(engine: Engine, request: PauseRequest, name: str, key: str, base: str) -> Proposal:
    now = engine.process.now()
    return Proposal(
        id=engine.process.new_id(),
        type=StateType.PAUSED,
        name=name,
        timestamp=now,
        details=StateDetails(
            pause_timeout=_deadline(now, request.timeout_seconds),
            pause_reschedule=request.is_suspension,
            pause_key=key,
            run_input_keyset=None if request.wanted is None else keyset_of(base),
        ),
    )


def _deadline(now: int, seconds: float | None) -> datetime | None:
    if seconds is None:
        return None
    return times.datetime_from_microseconds(now) + timedelta(seconds=seconds)


def _enter(
    engine: Engine,
    run_id: UUID,
    request: PauseRequest,
    paused: Proposal,
    *,
    epoch: int | None,
) -> Steps[Decision]:
    asked: dict[str, str] = {}
    wanted, keys = request.wanted, paused.details.run_input_keyset
    if wanted is not None and keys is not None:
        check_key(keys["schema"])
        asked[keys["schema"]] = msgspec.json.encode(wanted.schema).decode()
        if wanted.description is not None:
            asked[keys["description"]] = msgspec.json.encode(wanted.description).decode()

    def operation(tx: Transaction) -> Decision:
        return pauses.enter(
            tx,
            run_id=run_id,
            paused=paused,
            asked=asked,
            now=paused.timestamp,
            epoch=epoch,
            new_id=engine.process.new_id,
        )

    decision: Decision = yield Write(engine.database, operation)
    return decision


def check_key(key: str) -> None:
    """Refuse a key of an input that is not made of a-z, 0-9 and dashes.

    Raises:
        ConfigurationError: it is not.
    """
    if re.fullmatch("[a-z0-9-]+", key) is None:
        raise errors.ConfigurationError(
            f"the key {key!r} of an input: it consists of lower-case letters, digits and dashes"
        )


def _was_passed(context: FlowRunContext, key: str) -> Steps[bool]:
    """Whether the run has been in the pause before, and was let go on from it."""
    history: list[State] = yield Read(
        context.engine.database,
        lambda tx: flow_runs.flow_run_history(tx, run_id=context.run_id),
    )
    return any(
        state.state_details.pause_key == key and after.type in _GOES_ON
        for state, after in pairwise(history)
        if state.is_paused()
    )


_GOES_ON = frozenset({StateType.RUNNING, StateType.SCHEDULED})


# -- waiting ---------------------------------------------------------------------------------------


def _wait(context: FlowRunContext, request: PauseRequest) -> Steps[None]:
    """Wait until the run goes on."""
    engine, process = context.engine, context.engine.process
    waiter = Waiter(process.new_id(), (place_of(context.run_id),), passes=True)
    deadline = None
    if request.timeout_seconds is not None:
        deadline = process.now() + round(request.timeout_seconds * _MICROSECONDS)
    look = _FIRST_LOOK
    engine.room.enter(waiter)
    try:
        while (yield from _is_paused(context)):
            seconds = None if engine.owner.is_alone else min(look, request.poll_seconds)
            if deadline is not None:
                left = (deadline - process.now()) / _MICROSECONDS
                if left <= 0:
                    raise errors.FlowPauseTimeout(f"flow run {context.name}: {NEVER_RESUMED}")
                seconds = left if seconds is None else min(seconds, left)
            yield Turn(waiter, seconds, process.sleep)
            yield from engine.recovery.sweeping_when_due()
            look *= 1.5
    finally:
        engine.room.leave(waiter)


def _is_paused(context: FlowRunContext) -> Steps[bool]:
    """Whether the run is still paused; raises when it is not going to go on."""
    found: Owned = yield Read(context.engine.database, lambda tx: owned_run(tx, context.run_id))
    state = found[0].state
    if state is None or state.is_running():
        return False
    if state.is_paused():
        return True
    if state.is_scheduled():
        # Somebody took its process for dead, or set the state by hand.
        yield from _go_on(context)
        return False
    yield from _refuse_moved(context)
    if state.is_failed() and state.message == NEVER_RESUMED:
        raise errors.FlowPauseTimeout(f"flow run {context.name}: {NEVER_RESUMED}")
    raise errors.RunNotPausable(
        f"flow run {context.name} ({context.run_id}) does not go on: while it was paused it "
        f"became {state.name}"
    )


def _go_on(context: FlowRunContext) -> Steps[None]:
    process = context.engine.process
    running = Proposal(
        id=process.new_id(), type=StateType.RUNNING, name="Running", timestamp=process.now()
    )
    yield Write(
        context.engine.database,
        lambda tx: flow_runs.propose_flow_state(
            tx,
            run_id=context.run_id,
            proposal=running,
            now=running.timestamp,
            epoch=context.epoch,
        ),
    )


def _refuse_moved(context: FlowRunContext) -> Steps[None]:
    """Let a run end that is being cancelled.

    Raises:
        CancelledRun: it is.
    """
    found: Owned = yield Read(context.engine.database, lambda tx: owned_run(tx, context.run_id))
    state = found[0].state
    if state is not None and (state.is_cancelling() or state.is_cancelled()):
        context.cancellation.request("cancelled")
        context.cancellation.check()


# -- the answer ------------------------------------------------------------------------------------


def _answer(context: FlowRunContext, request: PauseRequest, base: str) -> Steps[Any]:
    """What the pause was answered; None when it waits for nothing."""
    wanted = request.wanted
    if wanted is None:
        return None
    key = keyset_of(base)["response"]
    row: InputRow | None = yield Read(
        context.engine.database,
        lambda tx: inputs.read_input(tx, flow_run_id=context.run_id, key=key),
    )
    value = wanted.load({} if row is None else msgspec.json.decode(row.value))
    return with_metadata(value, key, None if row is None else row.sender, context.run_id)


def with_metadata(value: Any, key: str, sender: str | None, receiver: UUID) -> Any:
    """A value that knows, where it is of a class for that, under which key it was found."""
    note = getattr(value, "_note_metadata", None)
    if note is not None:
        note(key, sender, receiver)
    return value


def _check_paused(state: State | None, label: str) -> None:
    if state is not None and state.is_paused():
        return
    if state is not None and state.is_failed() and state.message == NEVER_RESUMED:
        raise errors.FlowPauseTimeout(f"{label}: {NEVER_RESUMED}")
    name = "in no state" if state is None else state.name
    raise errors.NotPausedError(f"{label} is {name}, and only a paused run can be resumed")


def _checked(
    engine: Engine,
    run_id: UUID,
    keyset: Mapping[str, str],
    given: Mapping[str, Any] | None,
    label: str,
) -> Steps[str]:
    """An answer as JSON text, once it is known to fit."""
    row: InputRow | None = yield Read(
        engine.database,
        lambda tx: inputs.read_input(tx, flow_run_id=run_id, key=keyset["schema"]),
    )
    try:
        text = msgspec.json.encode(dict(given or {})).decode()
    except (TypeError, ValueError) as error:
        raise errors.RunInputError(f"{label}: the input is no JSON: {error}") from error
    schema = {} if row is None else msgspec.json.decode(row.value)
    wrong = problems(schema, msgspec.json.decode(text))
    if wrong:
        raise errors.RunInputError(
            f"{label} stays paused, since the input does not fit:\n - " + "\n - ".join(wrong)
        )
    return text


def _resumed(engine: Engine, follows: UUID, *, is_waited_for: bool) -> Proposal:
    process = engine.process
    now = process.now()
    if is_waited_for:
        return Proposal(
            id=process.new_id(),
            type=StateType.RUNNING,
            name="Running",
            timestamp=now,
            follows=follows,
        )
    return Proposal(
        id=process.new_id(),
        type=StateType.SCHEDULED,
        name="Resuming",
        timestamp=now,
        follows=follows,
        details=StateDetails(scheduled_time=times.datetime_from_microseconds(now)),
    )
