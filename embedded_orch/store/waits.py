"""What flow runs wait for by themselves: a time, or a signal until a time.

A wait is a row, made when the run comes to it for the first time. A signal is an input of the run,
under a key that its name makes; the first one stands. Which of the two came first, the signal or
the deadline, is judged once, in one transaction, by whoever looks first: the run, or who sends the
signal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from embedded_orch import errors
from embedded_orch.states import StateType
from embedded_orch.store import inputs
from embedded_orch.store.flow_runs import check_owner
from embedded_orch.store.transitions import propose

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from embedded_orch.db.port import Transaction
    from embedded_orch.orchestration.values import Decision, Proposal
    from embedded_orch.store.inputs import InputRow


class Wait(msgspec.Struct, frozen=True):
    """What a run waits for."""

    key: str
    signal: str | None
    wanted: str | None
    deadline: int | None
    is_over: bool


def begin(
    tx: Transaction,
    *,
    run_id: UUID,
    key: str,
    signal: str | None,
    wanted: str | None,
    deadline: int | None,
    now: int,
    epoch: int,
) -> Wait:
    """Come to a wait: made now, or as it was made when the run came here before.

    Args:
        tx: a write transaction.
        run_id: the run.
        key: of the wait.
        signal: the name of the signal; None for a sleep.
        wanted: the JSON Schema of its value, as text.
        deadline: microseconds since 1970 UTC.
        now: the same.
        epoch: in which the caller owns the run.

    Raises:
        OwnershipLost: another process has taken the run since ``epoch``.
    """
    check_owner(tx, run_id=run_id, epoch=epoch)
    tx.run(
        "flow_run_wait.insert",
        flow_run_id=run_id,
        key=key,
        signal=signal,
        wanted=wanted,
        deadline=deadline,
        now=now,
    )
    return _get(tx, run_id, key)


def signal_of(tx: Transaction, *, run_id: UUID, name: str) -> InputRow | None:
    """The signal of a name that a run was sent, if any."""
    return inputs.read_input(tx, flow_run_id=run_id, key=signal_key(name))


def signal_key(name: str) -> str:
    """The key under which a signal is an input of its run."""
    return f"signal-{name}"


def judge(tx: Transaction, *, run_id: UUID, key: str, now: int) -> tuple[Wait, InputRow | None]:
    """A wait for a signal, and what answers it; over, when its deadline came first."""
    wait = _get(tx, run_id, key)
    assert wait.signal is not None
    if wait.is_over:
        return wait, None
    found = signal_of(tx, run_id=run_id, name=wait.signal)
    if found is None and _is_late(wait, now):
        tx.run("flow_run_wait.end", flow_run_id=run_id, key=key)
        wait = msgspec.structs.replace(wait, is_over=True)
    return wait, found


def send(
    tx: Transaction,
    *,
    id: UUID,
    run_id: UUID,
    name: str,
    value: str,
    now: int,
    problem: Callable[[str], str | None],
) -> bool:
    """Send a signal to a run; False when it was sent one of this name before.

    Args:
        tx: a write transaction.
        id: of the signal; sending the same one again changes nothing and answers the same.
        run_id: the run.
        name: of the signal.
        value: JSON text.
        now: microseconds since 1970 UTC.
        problem: says of a JSON Schema what of the value does not fit, if anything.

    Raises:
        RunNotFound: no flow run has this id.
        SignalRefused: the run has completed.
        RunInputError: the value is not what the run waits for.
    """
    row = tx.row("flow_run.for_transition", id=run_id)
    if row is None:
        raise errors.RunNotFound(f"no flow run has the id {run_id}")
    if row[1] == StateType.COMPLETED:
        raise errors.SignalRefused(
            f"flow run {row[11]} ({run_id}) has completed, and takes no signal {name!r} any more"
        )
    for each in tx.rows("flow_run_wait.for_signal", flow_run_id=run_id, signal=name):
        wait = Wait(*each)
        if _is_late(wait, now):
            # Nobody has looked since. What comes now is for the next wait.
            tx.run("flow_run_wait.end", flow_run_id=run_id, key=wait.key)
            continue
        wrong = None if wait.wanted is None else problem(wait.wanted)
        if wrong is not None:
            raise errors.RunInputError(
                f"flow run {row[11]} ({run_id}) waits on, since the signal {name!r} does not fit: "
                f"{wrong}"
            )
    return inputs.create_input(
        tx, id=id, flow_run_id=run_id, key=signal_key(name), value=value, sender=None, now=now
    )


def suspend(
    tx: Transaction, *, run_id: UUID, key: str, suspended: Proposal, now: int, epoch: int
) -> Decision:
    """Propose that a run is suspended for a wait, so that its end makes the run due."""
    decision = propose(tx, "flow_run", run_id=run_id, proposal=suspended, now=now, epoch=epoch)
    if decision.run.state_id == suspended.id:
        tx.run("flow_run_wait.suspend", flow_run_id=run_id, key=key, state_id=suspended.id)
    return decision


def due(tx: Transaction, *, now: int) -> list[tuple[UUID, str, str | None]]:
    """Id, flow name and entry point of the runs that are suspended for what has come."""
    return [(row[0], row[1], row[2]) for row in tx.rows("flow_run_wait.due", now=now)]


def _get(tx: Transaction, run_id: UUID, key: str) -> Wait:
    row = tx.row("flow_run_wait.get", flow_run_id=run_id, key=key)
    assert row is not None
    return Wait(*row)


def _is_late(wait: Wait, now: int) -> bool:
    return wait.deadline is not None and wait.deadline <= now
