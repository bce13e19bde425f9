"""What runs log, on its way into the database.

A line that is logged is put into a queue in memory, and nothing else happens in the thread that
logs: no lock is taken, and no database is called. So logging costs a task next to nothing, and is
safe inside an operation of the database, in a signal handler and in ``atexit``.

The queue is emptied in batches, each an announced write:

- by a thread of its own, 0.2 s after a line came, or once eight thousand are waiting;
- before a run is given a state: its lines are committed before that state, or with it, also when
  their own commit fails. What a task logged is on disk once the task is Completed;
- when the orchestrator is closed, which it also is when the interpreter ends.

So a process that is killed loses the lines of the last 0.2 s, those of unfinished tasks only.

What comes faster than it can or may be stored is dropped, counted, and told by a line of its own.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from typing import TYPE_CHECKING
from uuid import UUID

from embedded_orch import errors
from embedded_orch.db import fork
from embedded_orch.db.current import scope_for
from embedded_orch.db.flusher import Flusher
from embedded_orch.store.logs import NewLogRow, append

if TYPE_CHECKING:
    from embedded_orch.db.port import Announced, Database, Transaction
    from embedded_orch.process import Process

    # On their way, and whether they have failed on it before.
    _Leaving = tuple[Announced, "Batch", bool]

MOST_WAITING = 100_000
"""Lines in the queue, and again as many on their way; what comes on top of them is dropped."""
_BURST_SECONDS = 10

_SOON_SECONDS = 0.2
# Longer ones only make others wait for the write connection.
_MOST_IN_A_BATCH = 2_000
# The thread is woken each time so many more are waiting. It makes rows of them beside the code that
# logs, which then has half of the interpreter's time, so not for a few hundred.
_WAKE_EVERY = 8_192
_WARNING = 30
_NAME = "embedded_orch.logs"
# The end of an id that counts the lines of a batch.
_PLACES = (1 << 20) - 1

# A line that waits: the fields of a NewLogRow but its id, which its batch gives it.
Line = tuple[int, int, str, str, UUID | None, UUID | None]
# Whose lines: a flow run's, or those of a task run outside of flows.
Whose = tuple[UUID | None, UUID | None]
# Lines to be stored together, by their flow run.
Batch = dict[UUID | None, list[NewLogRow]]


class LogQueue:
    """The lines of one orchestrator. Any thread may put one in; the engine closes it.

    Args:
        database: where they go.
        process: its clock and ids.
        lines_per_second: how many are stored on the average; 0 for as many as come.
        most_waiting: how many may wait, and as many again be on their way.
    """

    def __init__(
        self,
        database: Database,
        process: Process,
        *,
        lines_per_second: int,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        self._database = database
        self._process = process
        self._now = process.now
        self._most_waiting = most_waiting
        self._lines: deque[Line] = deque()
        self._append = self._lines.append
        self._dropped: dict[Whose, itertools.count[int]] = {}
        # Announced, and not known to be committed yet.
        self._leaving: deque[_Leaving] = deque()
        # Held while lines go from the queue into an announced write, so that whoever finds the
        # queue empty knows that they are announced. Never held, nor waited for, by those who log.
        self._moving = threading.Lock()
        self._rate = lines_per_second
        self._allowance = float(lines_per_second * _BURST_SECONDS)
        self._allowed_at = process.now()
        self._is_closed = False
        self._flusher = Flusher(
            f"embedded_orch logs {database.url}",
            has_work=self._has_work,
            work=self._move,
            soon_seconds=_SOON_SECONDS,
        )
        fork.register(self)

    def put(
        self,
        level: int,
        name: str,
        message: str,
        flow_run_id: UUID | None,
        task_run_id: UUID | None,
    ) -> None:
        """Keep a line that was logged just now. Never waits and never raises."""
        if self._is_closed:
            return
        waiting = len(self._lines)
        if waiting >= self._most_waiting:
            self._drop(flow_run_id, task_run_id)
            return
        self._append((self._now(), level, name, message, flow_run_id, task_run_id))
        try:
            if waiting and not waiting % _WAKE_EVERY:
                self._flusher.wake_now()
            else:
                self._flusher.wake_soon()
        except RuntimeError:
            # No thread can be started, as when the interpreter ends: the line goes with the next
            # state of a run, or when the orchestrator is closed.
            return

    def hand_over(self) -> bool:
        """Announce what is waiting, so that writes of this thread from now on come after it.

        Inside an open transaction of the caller it stays where it is: the lines of a transaction
        that is rolled back are those that one wants to read.

        Returns:
            Whether there are lines that may not be committed yet.
        """
        if not self._has_work() or scope_for(self._database) is not None:
            return False
        self._move()
        return self.has_leaving

    def store_failed(self, tx: Transaction) -> None:
        """Store what was handed over and could not be committed, together with a state.

        For a state that is written after lines were handed over. Where their commit fails while the
        state waits behind them, they can only be announced again, which is after the state.
        """
        if not self._leaving:
            return
        with self._moving:
            for announced, batch, has_failed in self._leaving:
                if _may_succeed(announced.error) if announced.is_done else has_failed:
                    self._store(tx, batch)

    @property
    def has_leaving(self) -> bool:
        """Whether lines are announced that may not be committed yet."""
        return bool(self._leaving)

    def close(self) -> None:
        """Announce what is waiting. Closing the database commits it; later lines are ignored."""
        self._flusher.stop()
        self._move()
        self._is_closed = True

    def abandon_in_child(self) -> None:
        """In a forked child: what waits is the parent's, and nothing can be stored here."""
        self._is_closed = True

    def _has_work(self) -> bool:
        return bool(self._lines or self._leaving or self._dropped)

    # -- moving --------------------------------------------------------------------------------

    def _move(self) -> None:
        if self._is_closed:
            return
        with self._moving:
            self._settle()
            while self._lines or self._dropped:
                if sum(map(_size, self._leaving)) >= self._most_waiting:
                    # The database is away. What comes on top is dropped by the queue.
                    return
                self._announce(self._take())

    def _announce(self, batch: Batch, *, has_failed: bool = False) -> None:
        def operation(tx: Transaction) -> None:
            self._store(tx, batch)

        if batch:
            self._leaving.append((self._database.announce(operation), batch, has_failed))

    def _store(self, tx: Transaction, batch: Batch) -> None:
        for flow_run_id, rows in batch.items():
            append(tx, flow_run_id, rows, now=self._now())

    def _settle(self) -> None:
        """Let go of what is committed, and try again what could not be."""
        for _ in range(len(self._leaving)):
            announced, batch, has_failed = self._leaving.popleft()
            if announced.error is not None:
                self._recover(announced.error, batch)
            elif not announced.is_done:
                self._leaving.append((announced, batch, has_failed))

    def _recover(self, error: BaseException, batch: Batch) -> None:
        if _may_succeed(error):
            # The same rows with the same ids: those that are there stay.
            self._announce(batch, has_failed=True)
            return
        for flow_run_id, rows in batch.items():
            for row in rows:
                self._drop(flow_run_id, row.task_run_id)

    def _take(self) -> Batch:
        """A batch from the queue, as far as the rate allows. The caller holds the lock."""
        self._allow()
        first_id = self._process.new_id().int & ~_PLACES
        batch = self._told() if self._dropped else Batch()
        number, last_run_id, rows = 0, None, list[NewLogRow]()
        while self._lines and number < _MOST_IN_A_BATCH:
            timestamp, level, name, message, flow_run_id, task_run_id = self._lines.popleft()
            if self._rate and self._allowance < 1:
                self._drop(flow_run_id, task_run_id)
                continue
            self._allowance -= 1
            if not number or flow_run_id is not last_run_id:
                # Not looked up for each line: a UUID takes its time to be hashed.
                rows, last_run_id = batch.setdefault(flow_run_id, []), flow_run_id
            id = f"{first_id | number:032x}"
            rows.append(NewLogRow(timestamp, id, level, name, message, task_run_id))
            number += 1
        return batch

    def _allow(self) -> None:
        now = self._now()
        earned = (now - self._allowed_at) / 1e6 * self._rate
        self._allowed_at = now
        self._allowance = min(self._allowance + max(0.0, earned), self._rate * _BURST_SECONDS)

    # -- dropping ------------------------------------------------------------------------------

    def _drop(self, flow_run_id: UUID | None, task_run_id: UUID | None) -> None:
        key = (flow_run_id, None if flow_run_id is not None else task_run_id)
        # Counted by one call each, which no other thread comes between.
        next(self._dropped.setdefault(key, itertools.count()))

    def _told(self) -> Batch:
        """A line for each run whose lines were dropped."""
        now, told = self._now(), Batch()
        while self._dropped:
            (flow_run_id, task_run_id), counter = self._dropped.popitem()
            message = (
                f"{next(counter):,} lines that were logged about here are left out: they came "
                f"faster than lines are stored, or could not be"
            )
            id = self._process.new_id().hex
            row = NewLogRow(now, id, _WARNING, _NAME, message, task_run_id)
            told.setdefault(flow_run_id, []).append(row)
        return told

    def __repr__(self) -> str:
        return f"<LogQueue of {self._database.url}: {len(self._lines)} waiting>"


def _may_succeed(error: BaseException | None) -> bool:
    """Whether what failed may succeed when it is tried again."""
    return isinstance(
        error, errors.DatabaseUnavailable | errors.DatabaseBusy | errors.CommitOutcomeUnknown
    )


def _size(leaving: _Leaving) -> int:
    """How many lines are on their way in one."""
    return sum(map(len, leaving[1].values()))
