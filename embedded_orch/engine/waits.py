"""Sleeping and waiting for signals, in ways that the process of the run need not survive.

A wait stands in the database from the moment at which the run comes to it, with its deadline. A run
that is resumed or retried comes to the same wait again, and waits for the rest, or for nothing. A
signal is found whenever it was sent, also before the run waits for it.

A wait has a key: its place among the sleeps of the run, or among its waits for that signal, when
none is given.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from embedded_orch import errors, times
from embedded_orch.db.waiting_room import Waiter
from embedded_orch.engine import results
from embedded_orch.engine.effects import Read, Sleep, Turn, Write
from embedded_orch.engine.json_schema import problems
from embedded_orch.engine.pausing import check_key
from embedded_orch.engine.watching import place_of, tell_moved
from embedded_orch.orchestration.values import Proposal, Verdict
from embedded_orch.states import StateDetails, StateType
from embedded_orch.store import waits

if TYPE_CHECKING:
    from datetime import timedelta
    from uuid import UUID

    from embedded_orch.db.port import Transaction
    from embedded_orch.engine.contexts import FlowRunContext
    from embedded_orch.engine.effects import Steps
    from embedded_orch.engine.engine import Engine
    from embedded_orch.engine.run_inputs import WantedInput
    from embedded_orch.orchestration.values import Decision
    from embedded_orch.store.inputs import InputRow
    from embedded_orch.store.waits import Wait

_FIRST_LOOK, _LAST_LOOK = 0.05, 1.0
"""Seconds between two looks at what other processes do: the first, and the longest."""
_LONGEST_NAP = 60.0
"""Seconds after which the clock is looked at again: it may have been set, or the machine slept."""
_MICROSECONDS = 1_000_000


def sleep(
    context: FlowRunContext, deadline: int | timedelta, key: str | None, *, is_suspending: bool
) -> Steps[None]:
    """Sleep until a time, of which a resumed run sleeps the rest.

    Args:
        context: the flow run.
        deadline: microseconds since 1970 UTC, or from now on.
        key: of the wait.
        is_suspending: let the process go, and leave the run to whoever resumes it in time.

    Raises:
        Pause: the run is suspended.
        RunNotPausable: it cannot be.
    """
    key = f"sleep-{context.next_wait('sleep', key)}"
    wait = yield from _come_to(context, key, deadline=_from_now(context, deadline))
    assert wait.deadline is not None
    process = context.engine.process
    while (left := (wait.deadline - process.now()) / _MICROSECONDS) > 0:
        if is_suspending:
            until = times.datetime_from_microseconds(wait.deadline)
            yield from _suspend(context, wait, f"sleeps until {until.isoformat()}")
        # A clock that does not go by itself wakes whoever waits for a time that it is set to.
        nap = min(left, _LONGEST_NAP) if process.sleep is time.sleep else left
        yield Sleep(nap, process.sleep)


def receive(
    context: FlowRunContext,
    name: str,
    wanted: WantedInput | None,
    timeout: timedelta | None,
    key: str | None,
    *,
    is_suspending: bool,
) -> Steps[Any]:
    """Wait for a signal; its value.

    Args:
        context: the flow run.
        name: of the signal.
        wanted: what its value has to be; any JSON when None.
        timeout: how long it may take, from the first time at which the run comes here.
        key: of the wait.
        is_suspending: let the process go, and leave the run to whoever resumes it then.

    Raises:
        SignalTimeout: it did not come in time.
        RunInputError: it was sent before, and its value does not fit.
        Pause: the run is suspended.
        RunNotPausable: it cannot be.
    """
    check_key(name)
    key = f"signal-{name}-{context.next_wait(f'signal {name}', key)}"
    deadline = None if timeout is None else _from_now(context, timeout)
    wait = yield from _come_to(context, key, signal=name, wanted=wanted, deadline=deadline)
    found = yield from _answer(context, wait, is_suspending=is_suspending)
    value = msgspec.json.decode(found.value)
    return value if wanted is None else wanted.load(wanted.as_answer(value))


def send(engine: Engine, run_id: UUID, name: str, value: object) -> Steps[bool]:
    """Send a signal to a flow run; False when it was sent one of this name before, which stands.

    Raises:
        RunNotFound: no flow run has this id.
        SignalRefused: the run has completed.
        RunInputError: the value is no JSON, or is not what the run waits for.
        ConfigurationError: the name cannot be.
    """
    check_key(name)
    try:
        text = msgspec.json.encode(value).decode()
    except (TypeError, ValueError) as error:
        raise errors.RunInputError(f"the signal {name!r} is no JSON: {error}") from error
    process = engine.process
    id, now = process.new_id(), process.now()

    def problem(wanted: str) -> str | None:
        return _problem(wanted, text)

    def operation(tx: Transaction) -> bool:
        return waits.send(tx, id=id, run_id=run_id, name=name, value=text, now=now, problem=problem)

    is_first: bool = yield Write(engine.database, operation)
    tell_moved(engine.room, run_id)
    return is_first


def _problem(wanted: str, text: str) -> str | None:
    """What of a value does not fit a schema, which may be about an object with the value in it."""
    schema, value = msgspec.json.decode(wanted), msgspec.json.decode(text)
    found = problems(schema["schema"], {"value": value} if schema["is_wrapped"] else value)
    return "; ".join(found) or None


# -- waiting ---------------------------------------------------------------------------------------


def _from_now(context: FlowRunContext, deadline: int | timedelta) -> int:
    if isinstance(deadline, int):
        return deadline
    return context.engine.process.now() + times.microseconds(deadline)


def _come_to(
    context: FlowRunContext,
    key: str,
    *,
    deadline: int | None,
    signal: str | None = None,
    wanted: WantedInput | None = None,
) -> Steps[Wait]:
    check_key(key)
    now = context.engine.process.now()
    schema = None
    if wanted is not None:
        described = {"schema": wanted.schema, "is_wrapped": wanted.is_wrapped}
        schema = msgspec.json.encode(described).decode()
    wait: Wait = yield Write(
        context.engine.database,
        lambda tx: waits.begin(
            tx,
            run_id=context.run_id,
            key=key,
            signal=signal,
            wanted=schema,
            deadline=deadline,
            now=now,
            epoch=context.epoch,
        ),
    )
    return wait


def _answer(context: FlowRunContext, wait: Wait, *, is_suspending: bool) -> Steps[InputRow]:
    engine, process = context.engine, context.engine.process
    name = wait.signal
    assert name is not None
    waiter = Waiter(process.new_id(), (place_of(context.run_id),), passes=True)
    look = _FIRST_LOOK
    engine.room.enter(waiter)
    try:
        while True:
            wait, found = yield from _judged(context, wait)
            if found is not None:
                return found
            if wait.is_over:
                raise errors.SignalTimeout(
                    f"flow run {context.name} ({context.run_id}) waited for the signal {name!r}, "
                    f"and it was not sent in time"
                )
            if is_suspending:
                yield from _suspend(context, wait, f"waits for the signal {name!r}")
            seconds = _LONGEST_NAP if engine.owner.is_alone else look
            if wait.deadline is not None:
                seconds = min(seconds, (wait.deadline - process.now()) / _MICROSECONDS)
            yield Turn(waiter, max(seconds, 0.0), process.sleep)
            yield from engine.recovery.sweeping_when_due()
            look = min(look * 1.5, engine.room.longest_look(_LAST_LOOK))
    finally:
        engine.room.leave(waiter)


def _judged(context: FlowRunContext, wait: Wait) -> Steps[tuple[Wait, InputRow | None]]:
    """The wait and its signal; in a write only when there is something to be judged."""
    database, run_id, now = context.engine.database, context.run_id, context.engine.process.now()
    name = wait.signal
    assert name is not None
    is_late = wait.deadline is not None and wait.deadline <= now
    if not is_late and not wait.is_over:
        found: InputRow | None = yield Read(
            database, lambda tx: waits.signal_of(tx, run_id=run_id, name=name)
        )
        if found is None:
            return wait, None
    judged: tuple[Wait, InputRow | None] = yield Write(
        database, lambda tx: waits.judge(tx, run_id=run_id, key=wait.key, now=now)
    )
    return judged


def _suspend(context: FlowRunContext, wait: Wait, message: str) -> Steps[None]:
    """Let the process go; the run is due when what it waits for has come."""
    process = context.engine.process
    suspended = Proposal(
        id=process.new_id(),
        type=StateType.PAUSED,
        name="Suspended",
        timestamp=process.now(),
        message=message,
        details=StateDetails(pause_reschedule=True),
    )
    decision: Decision = yield Write(
        context.engine.database,
        lambda tx: waits.suspend(
            tx,
            run_id=context.run_id,
            key=wait.key,
            suspended=suspended,
            now=suspended.timestamp,
            epoch=context.epoch,
        ),
    )
    if decision.verdict is not Verdict.ACCEPT:
        raise errors.RunNotPausable(
            f"flow run {context.name} ({context.run_id}) is not suspended: {decision.reason}"
        )
    tell_moved(context.engine.room, context.run_id)
    state = results.state_of(suspended).of_run(flow_run_id=context.run_id, task_run_id=None)
    raise errors.Pause(f"flow run {context.name} {message}", state=state)
