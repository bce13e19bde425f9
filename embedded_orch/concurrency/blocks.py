"""A block of code that holds slots, and a point that spends some: what both faces have in common.

The faces drive the same steps, in a thread or in a task.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from embedded_orch import errors
from embedded_orch.engine import slots
from embedded_orch.engine.contexts import holds_slots
from embedded_orch.engine.slots import Patience
from embedded_orch.orchestrator import current_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from embedded_orch.engine.effects import Steps
    from embedded_orch.store.slots import Answer

    class LeaseHolder(Protocol):
        """Who the slots are for, as Prefect's ``ConcurrencyLeaseHolder``."""

        type: str
        id: UUID

    Holder = Mapping[str, object] | LeaseHolder

_log = logging.getLogger("embedded_orch.concurrency")

SHORTEST_LEASE = 60.0
LONGEST_LEASE = 86400.0


class Block:
    """One entering of a block that holds slots. Entered and left by one thread or task.

    It is left also when entering it fails or is interrupted, and may be left again.

    Args:
        names: of the limits.
        occupy: slots of each of them.
        timeout_seconds: how long to wait for them; None: as long as it takes.
        max_retries: how often to look again; None: as often as it takes.
        lease_duration: seconds for which other hosts believe in it unheard.
        strict: a limit that does not exist is an error.
        holder: who the slots are for; the running task or flow run when not given.
        raises_on_loss: whether the block is ended when its slots were lost; as ``strict`` says
            when not given.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        occupy: int,
        timeout_seconds: float | None,
        max_retries: int | None,
        lease_duration: float,
        strict: bool,
        holder: Holder | None,
        raises_on_loss: bool | None,
    ) -> None:
        _check_slots(names, occupy)
        if not SHORTEST_LEASE <= lease_duration <= LONGEST_LEASE:
            raise errors.ConcurrencySlotAcquisitionError(
                f"lease_duration={lease_duration}: a lease is {SHORTEST_LEASE:.0f} to "
                f"{LONGEST_LEASE:.0f} seconds long"
            )
        self._strict = strict
        self._ends_on_loss = strict if raises_on_loss is None else raises_on_loss
        self._engine = current_engine()
        self._patience = Patience(timeout_seconds, max_retries)
        self._claim = slots.claim_for(
            self._engine,
            names,
            slots=occupy,
            patience=self._patience,
            lease_seconds=lease_duration,
            holder=None if holder is None else _type_and_id(holder),
        )
        self._held_before = holds_slots.get()
        self._may_hold = False
        self.is_lost = False

    @property
    def can_be_ended(self) -> bool:
        """Whether the block may have to be ended from outside."""
        return self._ends_on_loss and self._engine.leases.are_needed

    def enter(self, end: Callable[[], None] | None = None) -> Steps[None]:
        """Take the slots.

        Args:
            end: ends the block, from another thread; None for one that is never ended.
        """
        self._may_hold = True
        try:
            answer = yield from slots.acquire(self._engine, self._claim, self._patience)
        except errors.OrchestratorError:
            # Refused, and nothing is left behind.
            self._may_hold = False
            raise
        _tell_missing(self._claim.names, answer, strict=self._strict)
        if answer.known:
            self._engine.leases.keep(self._claim.id, lambda: self._lose(end))
        holds_slots.set(slots.and_those_of(self._claim, self._held_before))

    def leave(self) -> Steps[None]:
        """Give the slots back.

        Raises:
            ConcurrencyLeaseLost: the block was ended, since they were lost.
        """
        holds_slots.set(self._held_before)
        if self._may_hold:
            yield from slots.give_back(self._engine, self._claim)
            self._may_hold = False

    def loss(self) -> errors.ConcurrencyLeaseLost:
        """What to raise from a block that was ended."""
        return errors.ConcurrencyLeaseLost(
            f"slots of {', '.join(self._claim.names)} went to somebody else, since this host was "
            f"not heard of for the length of their lease; the block that held them was ended"
        )

    def _lose(self, end: Callable[[], None] | None) -> None:
        names = ", ".join(self._claim.names)
        if end is None or not self._ends_on_loss:
            _log.warning(
                "slots of %s went to somebody else, since this host was not heard of for the "
                "length of their lease; the block that held them goes on",
                names,
            )
            return
        _log.error("slots of %s went to somebody else; the block that held them is ended", names)
        self.is_lost = True
        end()


def rate_steps(
    names: Sequence[str], *, occupy: int, timeout_seconds: float | None, strict: bool
) -> Steps[None]:
    """Spend slots of limits that decay, waiting until there are some."""
    _check_slots(names, occupy)
    engine = current_engine()
    patience = Patience(timeout_seconds, None)
    claim = slots.claim_for(engine, names, slots=occupy, is_rate=True, patience=patience)
    answer = yield from slots.acquire(engine, claim, patience)
    _tell_missing(claim.names, answer, strict=strict)


def as_names(names: str | Sequence[str] | None) -> list[str]:
    """One name or several, as a list."""
    return [names] if isinstance(names, str) and names else list(names or ())


def _check_slots(names: Sequence[str], occupy: int) -> None:
    if occupy < 1:
        raise errors.ConcurrencySlotAcquisitionError(
            f"occupy={occupy} of {', '.join(names)}: it is a number of slots, 1 or more"
        )


def _tell_missing(names: Sequence[str], answer: Answer, *, strict: bool) -> None:
    missing = ", ".join(repr(name) for name in names if name not in answer.known)
    if not missing:
        return
    if strict:
        raise errors.ConcurrencySlotAcquisitionError(
            f"there is no concurrency limit {missing}; create it before its slots are taken"
        )
    _log.warning("there is no concurrency limit %s: nothing is limited by it", missing)


def _type_and_id(holder: Holder) -> tuple[str, UUID]:
    if isinstance(holder, Mapping):
        type, id = holder.get("type"), holder.get("id")
    else:
        type, id = holder.type, holder.id
    if isinstance(id, str):
        id = _uuid(id)
    if not isinstance(type, str) or not isinstance(id, UUID):
        raise errors.ConfigurationError(
            f"holder={holder!r}: it has a type, such as 'flow_run', and an id, which is a UUID"
        )
    return type, id


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
