"""What the completed calls of a run have returned, read ahead in the order in which they were made.

A resumed flow asks for one value after the other. A transaction for each costs several times what
its row does, so each brings what is asked for next too: some, by how large they have been, so that
little is held at any time. In whatever order threads ask, what was read too early is forgotten.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from embedded_orch.store import task_runs

if TYPE_CHECKING:
    from uuid import UUID

    from embedded_orch.db.port import Transaction

    Stored = tuple[bytes | None, str | None]

_MOST = 256
"""Calls that are read at once, if their values are small."""
_BYTES = 256 * 1024
"""So large may be together what is read at once, if the next values are as large as the last."""
_LARGEST = 16 * 1024
"""Bytes of a value that is read ahead of its call."""
_MOST_HELD = 4 * _MOST


class RecordedValues:
    """The values that an earlier attempt at a flow run has on record. Any thread may use it.

    Args:
        flow_run_id: the flow run.
    """

    __slots__ = ("_flow_run_id", "_held", "_limit", "_lock")

    def __init__(self, flow_run_id: UUID) -> None:
        self._flow_run_id = flow_run_id
        self._held: dict[UUID, Stored] = {}
        self._limit = _MOST // 8
        self._lock = threading.Lock()

    def take(self, run_id: UUID) -> Stored | None:
        """What a call has returned, if it is at hand; it is not any more after that."""
        return self._held.pop(run_id, None)

    def read(self, tx: Transaction, run_id: UUID) -> Stored:
        """What a call has returned, as bytes and their format; None when it has not completed.

        Args:
            tx: a transaction.
            run_id: the task run of the call.
        """
        found = task_runs.recorded_values(
            tx,
            flow_run_id=self._flow_run_id,
            first=run_id,
            limit=self._limit,
            largest=_LARGEST,
        )
        if not found or found[0].run_id != run_id:
            return None, None
        with self._lock:
            self._limit = max(1, min(_MOST, _BYTES * len(found) // sum(v.size + 1 for v in found)))
            if len(self._held) + len(found) > _MOST_HELD:
                self._held.clear()
            for value in found[1:]:
                if value.size <= _LARGEST:
                    self._held[value.run_id] = value.data, value.data_format
        return found[0].data, found[0].data_format
