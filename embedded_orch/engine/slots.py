"""Taking slots of concurrency limits, waiting for them, and giving them back.

The steps are told once, for threads and for tasks of both kinds of event loop. A waiter is woken at
once by what happens in its own process (:mod:`embedded_orch.db.waiting_room`). What other processes
give back is noticed by looking, more and more seldom, and whether a holder has died is asked of the
kernel then: its slots are given back in the same moment as its runs are set Crashed.
"""

from __future__ import annotations

import logging
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

from embedded_orch import errors
from embedded_orch.db.current import running_task, scope_for
from embedded_orch.db.waiting_room import Waiter
from embedded_orch.engine.contexts import (
    HeldSlots,
    current_flow_run,
    current_task_run,
    holds_slots,
)
from embedded_orch.engine.effects import Read, Turn, Write
from embedded_orch.engine.fencing import fenced_write
from embedded_orch.store import slots
from embedded_orch.store.slots import Claim

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from embedded_orch.db.port import Transaction
    from embedded_orch.engine.effects import Steps
    from embedded_orch.engine.engine import Engine
    from embedded_orch.store.slots import Answer

_log = logging.getLogger("embedded_orch.concurrency")

_FIRST_LOOK = 0.005
_LAST_LOOK = 0.25
"""Seconds between two looks at what other processes do: the first, and the longest where nobody
tells."""
_RETRY = 1.0
"""Seconds for which one of ``max_retries`` waits."""
_UNHEARD = 60.0
"""Seconds for which other hosts believe in a claim of the engine's own."""
_MICROSECONDS = 1_000_000


class Patience:
    """How long somebody waits for slots.

    Args:
        timeout_seconds: at most so long; None: as long as it takes.
        max_retries: at most so many looks after the first; None: as many as it takes.
    """

    __slots__ = ("_deadline", "_retries", "_timeout")

    def __init__(self, timeout_seconds: float | None, max_retries: int | None) -> None:
        self._timeout = timeout_seconds
        self._deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        self._retries = max_retries

    @property
    def is_endless(self) -> bool:
        """Whether the wait has no end of its own."""
        return self._deadline is None and self._retries is None

    def check(self, answer: Answer) -> None:
        """Refuse to look again.

        Raises:
            AcquireConcurrencySlotTimeoutError: the time is over.
            ConcurrencySlotAcquisitionError: there are no retries left.
        """
        waited_for = ", ".join(f"{name!r} (of {limit})" for name, limit in answer.blocking)
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise errors.AcquireConcurrencySlotTimeoutError(
                f"no slots of {waited_for} were free for {self._timeout} second(s)"
            )
        if self._retries is not None:
            if self._retries <= 0:
                raise errors.ConcurrencySlotAcquisitionError(
                    f"no slots of {waited_for} are free, and no retries are left"
                )
            self._retries -= 1

    def shorten(self, seconds: float | None) -> float | None:
        """How long to wait at most before the next look, if it were ``seconds`` without it."""
        bounds = [] if seconds is None else [seconds]
        if self._retries is not None:
            bounds.append(_RETRY)
        if self._deadline is not None:
            bounds.append(max(0.0, self._deadline - time.monotonic()))
        return min(bounds, default=None)


def claim_for(
    engine: Engine,
    names: Sequence[str],
    *,
    slots: int,
    patience: Patience,
    is_rate: bool = False,
    lease_seconds: float = _UNHEARD,
    holder: tuple[str, UUID] | None = None,
    held: tuple[HeldSlots, ...] | None = None,
) -> Claim:
    """A claim of the running code on slots of some limits.

    Args:
        engine: whose limits.
        names: of the limits.
        slots: of each.
        patience: for how long it waits.
        is_rate: whether they are spent and not given back.
        lease_seconds: for how long other hosts believe in it.
        holder: who they are for; what is running here when not given.
        held: what the code that asks holds already; what is held here when not given.
    """
    held = holds_slots.get() if held is None else held
    holder_type, holder_id = holder or _running()
    return Claim(
        id=engine.process.new_id(),
        names=tuple(sorted(set(names))),
        slots=slots,
        owner_id=engine.owner.id,
        holder_type=holder_type,
        holder_id=holder_id,
        is_rate=is_rate,
        passes_waiters=bool(held),
        held_until_served=_held_by_callers(held) if patience.is_endless else (),
        lease=round(lease_seconds * _MICROSECONDS) if engine.leases.are_needed else None,
    )


def acquire(engine: Engine, claim: Claim, patience: Patience) -> Steps[Answer]:
    """Take the slots of a claim, waiting for them as long as ``patience`` lasts.

    Whatever ends the wait before that leaves nothing behind: neither slots nor a place.

    Raises:
        AcquireConcurrencySlotTimeoutError: the time is over.
        ConcurrencySlotAcquisitionError: they cannot be had, or no retries are left.
        WouldDeadlock: they are taken, and the caller has a transaction open.
    """
    try:
        yield from give_back_owed(engine)
        engine.leases.keep(claim.id)
        answer: Answer = yield _taking(engine, claim)
        if not answer.is_taken:
            patience.check(answer)
            answer = yield from _wait(engine, claim, patience)
        if not answer.known or claim.is_rate:
            engine.leases.forget(claim.id)
    except GeneratorExit:
        raise
    except BaseException:
        yield from give_back(engine, claim)
        raise
    return answer


def _wait(engine: Engine, claim: Claim, patience: Patience) -> Steps[Answer]:
    line = Line(engine, claim)
    try:
        while True:
            # The first time at once: what was given back since the last one has rung no bell.
            answer: Answer = yield _taking(engine, claim)
            if answer.is_taken:
                return answer
            yield from line.turn(answer, patience)
    finally:
        line.leave()


def _taking(engine: Engine, claim: Claim) -> Write[Answer]:
    now = engine.process.now()

    def operation(tx: Transaction) -> Answer:
        answer = slots.take_at_once(tx, claim, now=now)
        if answer is None:
            engine.owner.register(tx)
            answer = slots.take(tx, claim, now=now, waits=True)
        return answer

    return fenced_write(engine.database, operation)


class Line:
    """The place of a claim among those who wait in this process, from its making until it is left.

    Args:
        engine: whose slots.
        claim: that waits.

    Raises:
        WouldDeadlock: the caller has a transaction open.
    """

    __slots__ = ("_claim", "_engine", "_waiter")

    def __init__(self, engine: Engine, claim: Claim) -> None:
        if scope_for(engine.database) is not None:
            raise errors.WouldDeadlock(
                f"slots of {', '.join(claim.names)} are taken, and this code has a transaction "
                f"open, inside of which nobody can give them back; take the slots before it"
            )
        self._engine = engine
        self._claim = claim
        self._waiter = Waiter(claim.id, claim.names, passes=claim.passes_waiters)
        engine.room.enter(self._waiter)

    def turn(self, answer: Answer, patience: Patience) -> Steps[None]:
        """Sleep until the claim may be served.

        Args:
            answer: why it was not, last time.
            patience: for how long.

        Raises:
            AcquireConcurrencySlotTimeoutError: the time is over.
            ConcurrencySlotAcquisitionError: no retries are left.
        """
        engine = self._engine
        pause = _FIRST_LOOK
        while not answer.is_taken and answer.refusal is None:
            patience.check(answer)
            seconds = self._next_look(answer, pause)
            is_rung: bool = yield Turn(self._waiter, patience.shorten(seconds))
            if is_rung:
                pause = _FIRST_LOOK
            else:
                pause = min(pause * 1.6, engine.room.longest_look(_LAST_LOOK))
                yield from engine.recovery.sweeping()
            yield from give_back_owed(engine)
            if engine.room.is_at_head(self._waiter):
                answer = yield self._looking()

    def leave(self) -> None:
        """Wait no longer."""
        self._engine.room.leave(self._waiter)

    def _looking(self) -> Read[Answer]:
        claim, now = self._claim, self._engine.process.now()
        return Read(self._engine.database, lambda tx: slots.look(tx, claim, now=now))

    def _next_look(self, answer: Answer, pause: float) -> float | None:
        """Seconds after which to look again; None for who will be rung."""
        if not self._engine.room.is_at_head(self._waiter):
            return None
        # Nobody rings for what this process still has to give back.
        is_rung = self._engine.owner.is_alone and not self._engine.unreturned
        bounds = [] if is_rung else [pause]
        if answer.decays_in is not None:
            bounds.append(answer.decays_in / _MICROSECONDS)
        return min(bounds, default=None)


def give_back(engine: Engine, claim: Claim) -> Steps[None]:
    """Give back what a claim holds, and its place where it waits."""
    now = engine.process.now()
    try:
        yield Write(engine.database, lambda tx: slots.release(tx, claim_id=claim.id, now=now))
    except errors.OrchestratorError as failure:
        # It must not stand in the way of what is raised.
        _owe(engine, claim)
        _log.warning("slots of %s could not be given back yet: %s", ", ".join(claim.names), failure)
    freed(engine, claim)


def _owe(engine: Engine, claim: Claim) -> None:
    """Have a claim given back later: in the background, since other processes may wait for it.

    Should that fail too, it is with the next thing that this process does about slots, and at the
    latest it ends with the process.
    """
    engine.unreturned[claim.id] = claim
    now = engine.process.now()
    try:
        engine.database.announce(partial(slots.release, claim_id=claim.id, now=now))
    except errors.OrchestratorError:
        # The database is closed, or fails still.
        return


def give_back_owed(engine: Engine) -> Steps[None]:
    """Give back what could not be given back when its time came, as far as that can be done now."""
    for claim in list(engine.unreturned.values()) if engine.unreturned else ():
        now, claim_id = engine.process.now(), claim.id
        try:
            yield Write(engine.database, partial(slots.release, claim_id=claim_id, now=now))
        except errors.OrchestratorError:
            # As before: it is tried again.
            return
        engine.unreturned.pop(claim_id, None)
        freed(engine, claim)


def freed(engine: Engine, claim: Claim) -> None:
    """Wake who waits in this process for what a claim has given back."""
    engine.leases.forget(claim.id)
    engine.room.ring(claim.names)


def _held_by_callers(held: Sequence[HeldSlots]) -> tuple[UUID, ...]:
    """Of slots that are held, those whose holder waits for the code here, in the same thread."""
    if not held:
        return ()
    thread, task = threading.get_ident(), running_task()
    return tuple(each.claim_id for each in held if (each.thread, each.task) == (thread, task))


def and_those_of(claim: Claim, held: tuple[HeldSlots, ...]) -> tuple[HeldSlots, ...]:
    """What the running code holds once it has the slots of a claim."""
    return (*held, HeldSlots(claim.id, threading.get_ident(), running_task()))


def _running() -> tuple[str | None, UUID | None]:
    """What the running code is part of."""
    task_run, flow_run = current_task_run(), current_flow_run()
    if task_run is not None:
        return "task_run", task_run.run_id
    return (None, None) if flow_run is None else ("flow_run", flow_run.run_id)
