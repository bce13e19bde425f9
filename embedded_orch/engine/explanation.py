"""What is said of a run: why it is where it is, and what would move it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec


class Reason(StrEnum):
    """Why a run is where it is."""

    FINISHED = "finished"
    RUNNING = "running"
    OWNER_DIED = "its process died"
    TO_BE_RESUMED = "waits to be resumed"
    WAITING_FOR_SLOT = "waits for a slot"
    WAITING_FOR_SIGNAL = "waits for a signal"
    SLEEPING = "sleeps"
    PAUSED = "paused"
    SUSPENDED = "suspended"
    SCHEDULED = "scheduled"
    LATE = "due, and not begun"
    AWAITING_RETRY = "waits for its retry"
    NOT_READY = "what it depends on did not complete"
    CLAIMED = "claimed, and not begun"
    CANCELLING = "is being cancelled"
    NOT_BEGUN = "not begun"


class OwnerFacts(msgspec.Struct, frozen=True):
    """The process that a run names as its owner.

    Attributes:
        pid: in its own namespace.
        host: the name of the host, and the beginning of its machine id.
        life: "alive", "dead", or "overdue" when it was not heard of for the length of its lease.
    """

    pid: int
    host: str
    life: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class Blocker(msgspec.Struct, frozen=True):
    """What a run waits for.

    Attributes:
        kind: "slot", "task run", "flow run" or "signal".
        name: of the limit, the run or the signal.
        text: the same in words, with who has it or how it is.
        id: of the run; of a slot, the run that holds it.
        owner: of a slot, the process that holds it.
    """

    kind: str
    name: str
    text: str
    id: UUID | None = None
    owner: OwnerFacts | None = None


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Why a run is where it is, and what would move it; ``str()`` of it is both in words.

    Attributes:
        run_id: the run.
        kind: "flow run" or "task run".
        name: of the run.
        state_name: of its state; None when it has none.
        reason: why, as a word.
        text: why, as a sentence.
        next: what would move it, as a sentence.
        since: when it came to its state.
        until: when it goes on by itself, or may not go on any more.
        owner: the process that runs it, or did.
        waits_for: what it waits for.
    """

    run_id: UUID
    kind: str
    name: str
    state_name: str | None
    reason: Reason
    text: str
    next: str
    since: datetime | None = None
    until: datetime | None = None
    owner: OwnerFacts | None = None
    waits_for: tuple[Blocker, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.kind} {self.name} ({self.run_id}): {self.text}"]
        lines += [f"  - {each.text}" for each in self.waits_for]
        lines.append(f"What moves it: {self.next}")
        return "\n".join(lines)
