"""Inputs that runs send each other: written under keys that begin alike, read in their order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from embedded_orch import errors
from embedded_orch.db.waiting_room import Waiter
from embedded_orch.engine.effects import Read, Turn
from embedded_orch.engine.fencing import fenced_write
from embedded_orch.engine.pausing import check_key
from embedded_orch.engine.resuming import owned_run
from embedded_orch.store import inputs

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from embedded_orch.db.port import Transaction
    from embedded_orch.engine.effects import Steps
    from embedded_orch.engine.engine import Engine
    from embedded_orch.store.inputs import InputRow

_FIRST_LOOK = 0.05
_MICROSECONDS = 1_000_000


def write_input(
    engine: Engine, run_id: UUID, key: str, value: object, sender: str | None
) -> Steps[None]:
    """Write an input of a run.

    Raises:
        RunNotFound: no flow run has this id.
        ConfigurationError: the key is none, or was taken.
        RunInputError: the value is no JSON.
    """
    check_key(key)
    try:
        text = msgspec.json.encode(value).decode()
    except (TypeError, ValueError) as error:
        raise errors.RunInputError(f"the input {key!r} is no JSON: {error}") from error
    id, now = engine.process.new_id(), engine.process.now()

    def operation(tx: Transaction) -> bool:
        owned_run(tx, run_id)
        return inputs.create_input(
            tx, id=id, flow_run_id=run_id, key=key, value=text, sender=sender, now=now
        )

    if not (yield fenced_write(engine.database, operation)):
        raise errors.ConfigurationError(f"flow run {run_id} has an input with the key {key!r}")
    engine.room.ring((_place(run_id),))


def receive_next(
    engine: Engine,
    run_id: UUID,
    prefix: str,
    exclude_keys: Iterable[str],
    *,
    timeout_seconds: float | None,
    poll_seconds: float,
) -> Steps[InputRow | None]:
    """The oldest input of a run whose key begins so; None when none comes in time."""
    process = engine.process
    deadline = None
    if timeout_seconds is not None:
        deadline = process.now() + round(timeout_seconds * _MICROSECONDS)
    waiter = Waiter(process.new_id(), (_place(run_id),), passes=True)
    look = _FIRST_LOOK
    engine.room.enter(waiter)
    try:
        while True:
            found: list[InputRow] = yield Read(
                engine.database,
                lambda tx: inputs.inputs_with_prefix(
                    tx, flow_run_id=run_id, prefix=prefix, exclude_keys=exclude_keys, limit=1
                ),
            )
            if found:
                return found[0]
            seconds = None if engine.owner.is_alone else min(look, poll_seconds)
            if deadline is not None:
                left = (deadline - process.now()) / _MICROSECONDS
                if left <= 0:
                    return None
                seconds = left if seconds is None else min(seconds, left)
            yield Turn(waiter, seconds, process.sleep)
            yield from engine.recovery.sweeping_when_due()
            look *= 1.5
    finally:
        engine.room.leave(waiter)


def value_of(row: InputRow) -> Any:
    """The value of an input."""
    return msgspec.json.decode(row.value)


def _place(run_id: UUID) -> str:
    return f"input of {run_id}"
