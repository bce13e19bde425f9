"""What a machine has seen happen, kept outside of all its processes: it judges what they do.

=====================================  ===========================================================
what is written down                   what is wrong
=====================================  ===========================================================
a caller was given a task's value      the task's function runs again for whoever owns the run
a flow run has returned                it returned something else than its function says
a process lost a run to another        the database holds more of the run after a step of its own
a task did something by its own SQL    its row is there twice, or not at all once it has completed
a hook was called                      a run has ended, and its hook never was
=====================================  ===========================================================
"""

from __future__ import annotations

from collections import Counter
from typing import Any
from uuid import UUID


class Ledger:
    """The memory of one machine."""

    def __init__(self) -> None:
        self.violations: list[str] = []
        self.cancelled: set[UUID] = set()
        self.returned: dict[UUID, Any] = {}
        self.attempts: Counter[tuple[UUID, str]] = Counter()
        self.hooked: set[UUID] = set()
        self._signalled: set[UUID] = set()
        self._known: set[tuple[UUID, str]] = set()

    def acknowledge(self, run_id: UUID, step: str) -> None:
        """The flow was given the value of a step: it is completed, and stays so."""
        self._known.add((run_id, step))

    def begins(self, run_id: UUID, step: str, *, is_owner: bool) -> int:
        """The function of a step is called; the how-manieth time by now, from 1."""
        self.attempts[run_id, step] += 1
        if is_owner and (run_id, step) in self._known:
            self.violations.append(f"step {step} of {run_id} ran again after it had completed")
        return self.attempts[run_id, step]

    def signal_counts(self, run_id: UUID) -> None:
        """Who sent a signal was told that it counts: the first one does, and no other."""
        if run_id in self._signalled:
            self.violations.append(f"two signals of one name count for {run_id}")
        self._signalled.add(run_id)

    @property
    def acknowledged(self) -> set[tuple[UUID, str]]:
        return self._known
