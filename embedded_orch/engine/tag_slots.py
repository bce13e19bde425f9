"""The slots that a task run holds while it runs: one of each limit that is named after its tags.

They are taken and given back by the transitions of the run, in the same transactions
(:mod:`embedded_orch.store.transitions`); here is what lies between those: whether there are any
such limits, the wait, and waking others.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from embedded_orch.engine.contexts import holds_slots
from embedded_orch.engine.effects import Read
from embedded_orch.engine.slots import (
    Line,
    Patience,
    acquire,
    and_those_of,
    claim_for,
    freed,
    give_back,
)
from embedded_orch.orchestration.task_rules import AWAITING_SLOT
from embedded_orch.store import slots
from embedded_orch.store.slots import Answer, Claim

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from embedded_orch.engine.effects import Steps
    from embedded_orch.engine.engine import Engine
    from embedded_orch.orchestration.values import Decision

_log = logging.getLogger("embedded_orch.concurrency")

PREFIX = "tag:"
"""What the name of a limit begins with that is about task runs with a tag."""

_FOR_EVER = Patience(None, None)


class TagSlots:
    """The slots of one task run that has tags.

    Args:
        engine: that runs it.
        run_id: the task run.
        tags: of the task run.
    """

    __slots__ = ("_engine", "_held_before", "_line", "_names", "_run_id", "claim")

    def __init__(self, engine: Engine, run_id: UUID, tags: Sequence[str]) -> None:
        self._engine = engine
        self._run_id = run_id
        self._names = [f"{PREFIX}{tag}" for tag in tags]
        self._line: Line | None = None
        self._held_before = holds_slots.get()
        self.claim: Claim | None = None

    def find(self) -> Steps[bool]:
        """Whether there is a limit of one of its tags, on which it has a claim from now on."""
        names = self._names
        self._names = yield Read(self._engine.database, lambda tx: slots.names_among(tx, names))
        if self._names:
            self._claim_anew()
        return bool(self._names)

    def take(self) -> Steps[None]:
        """Take the slots before the state of the run does: one that is set by force does not wait.

        Raises:
            ConcurrencySlotAcquisitionError: they cannot be had.
        """
        if self.claim is not None:
            yield from acquire(self._engine, self.claim, _FOR_EVER)

    def wait(self, decision: Decision) -> Steps[bool]:
        """Wait for a turn, if a decision says that the run has to; whether it said so."""
        claim = self.claim
        if claim is None or decision.run.state_name != AWAITING_SLOT:
            return False
        if self._line is None:
            # Once more at once: what was given back before has rung no bell.
            self._line = Line(self._engine, claim)
            return True
        blocking = tuple((name, 0) for name in claim.names)
        yield from self._line.turn(Answer(False, claim.names, blocking), _FOR_EVER)
        return True

    def refusal(self) -> Steps[str | None]:
        """Why the slots cannot be had, if that is so."""
        claim, now = self.claim, self._engine.process.now()
        if claim is None:
            return None
        answer: Answer = yield Read(
            self._engine.database, lambda tx: slots.look(tx, claim, now=now)
        )
        return answer.refusal

    def were_taken(self) -> None:
        """The run has its slots."""
        self.stop_waiting()
        if self.claim is not None:
            self._engine.leases.keep(self.claim.id, self._warn_of_loss)
            holds_slots.set(and_those_of(self.claim, self._held_before))

    def stop_waiting(self) -> None:
        """The run has its slots, or wants them no longer."""
        line, self._line = self._line, None
        if line is not None:
            line.leave()

    def claim_again(self) -> None:
        """A state of the run gave the slots back; before it runs again it stands in line anew."""
        self.were_given_back()
        self._claim_anew()

    def were_given_back(self) -> None:
        """A state of the run gave the slots back."""
        if self.claim is not None:
            freed(self._engine, self.claim)

    def give_back(self) -> Steps[None]:
        """Give back what no state of the run has given back."""
        if self.claim is not None:
            yield from give_back(self._engine, self.claim)

    def _warn_of_loss(self) -> None:
        _log.warning(
            "slots of %s went to somebody else, since this host was not heard of for the length of "
            "their lease; task run %s, which held them, goes on",
            ", ".join(self._names),
            self._run_id,
        )

    def _claim_anew(self) -> None:
        self.claim = claim_for(
            self._engine,
            self._names,
            slots=1,
            holder=("task_run", self._run_id),
            patience=_FOR_EVER,
            held=self._held_before,
        )
        self._engine.leases.keep(self.claim.id)
