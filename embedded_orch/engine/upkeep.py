"""What a process does for its database now and then: it removes runs that were kept long enough.

Whichever process comes to it first takes a turn, and writes down when the next one is due, so that
all of them together do it once an interval. It is done beside the user's runs and never before
them: in a thread that is there for the length of a turn, after a flow run has ended in a process
that has been there for a while; or when the orchestrator is closed, for processes that are there
for one run. A turn removes so much and no more; where something is left, the next one is due at
once.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from embedded_orch import errors
from embedded_orch.db.bell import Bell

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from embedded_orch.db.port import Database
    from embedded_orch.engine.retention import Retention
    from embedded_orch.process import Process

_NAME = "retention"
_MINUTE = 60_000_000
_INTERVAL = 60 * _MINUTE
"""Microseconds between two turns, whichever processes take them."""
_LOOK = _MINUTE
"""After this long a process looks for the first time, and again, whether a turn is due."""
_GIVEN_UP = 10 * _MINUTE
"""After this long somebody else goes on with the turn of a process that died in it."""

_STEPS_BESIDE_RUNS = 400
_STEPS_AT_THE_END = 20
# Between two transactions of a turn, so that writers of other processes come in between.
_PAUSE_SECONDS = 0.002
# Free room below this stays in the file for the next rows; what is more than that and more than a
# quarter of the file is given back.
_KEPT_FREE_BYTES = 16 * 2**20
_GIVEN_BACK_AT_ONCE = 2 * 2**20


class Upkeep:
    """The upkeep of one database by one orchestrator. Any thread may use it until it is closed.

    Args:
        database: what is looked after.
        process: its clock.
        setting: what is kept; see :func:`embedded_orch.engine.retention.retention_of`.
    """

    def __init__(self, database: Database, process: Process, setting: object) -> None:
        self._database = database
        self._process = process
        self._setting = setting
        self._next_look = process.now() + _LOOK
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_stopping = False
        self._bell = Bell()

    @property
    def retention(self) -> Retention | None:
        """What is kept; None where it is everything."""
        from embedded_orch.engine.retention import retention_of

        return retention_of(self._setting)

    def after_flow_run(self) -> None:
        """A flow run has ended that no other one called: look whether a turn is due."""
        now = self._process.now()
        if now < self._next_look or self._setting is False:
            return
        self._next_look = now + _LOOK
        with self._starting:
            if self._is_stopping or self._thread is not None:
                return
            thread = threading.Thread(
                target=self._serve, name=f"embedded_orch upkeep {self._database.url}", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:
                # The interpreter is about to end; the next process comes to it.
                return
            self._thread = thread

    def close(self, *, has_run: bool) -> None:
        """End the turn that is on its way, or take a short one if it is due.

        Args:
            has_run: whether this orchestrator has run something, and did not only look.
        """
        with self._starting:
            self._is_stopping = True
            thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            self._bell.ring()
            thread.join()
        if has_run and self._setting is not False:
            self._attempt(_STEPS_AT_THE_END)

    def _serve(self) -> None:
        try:
            self._attempt(_STEPS_BESIDE_RUNS)
        finally:
            with self._starting:
                self._thread = None

    def _attempt(self, most: int) -> None:
        """Take a turn if it is due. What fails is no affair of the runs; it is tried again."""
        try:
            self.take_turn(most)
        except errors.DatabaseLost:
            # Whoever writes or reads next is told, and there is nothing left to look after.
            return
        except errors.OrchestratorError as error:
            _warn("the upkeep of %s was put off: %s", self._database.url, error)
        except Exception as error:  # noqa: BLE001 - a loop of ours that no run may suffer from
            _warn("the upkeep of %s has failed", self._database.url, error=error)

    def take_turn(self, most: int) -> bool:
        """Take a turn if it is due and nobody else has it.

        Args:
            most: how many transactions it may consist of.

        Returns:
            Whether it was due.
        """
        retention = self.retention
        now = self._process.now()
        if retention is None:
            return False
        row = self._database.read(lambda tx: tx.row("upkeep.due", name=_NAME, interval=_INTERVAL))
        assert row is not None, "a row is always there"
        due, position = row
        if now < due <= now + 2 * _INTERVAL or not self._claim(now):
            return False
        is_done, position = self._remove(retention, now, position, most)
        next_due = now + (_INTERVAL if is_done else 0)
        self._database.write(
            lambda tx: tx.run("upkeep.finish", name=_NAME, next_due=next_due, position_id=position)
        )
        return True

    def _claim(self, now: int) -> bool:
        claimed = self._database.write(
            lambda tx: tx.run(
                "upkeep.claim",
                name=_NAME,
                now=now,
                next_due=now + _GIVEN_UP,
                latest_due=now + 2 * _INTERVAL,
            )
        )
        return claimed > 0

    def _remove(
        self, retention: Retention, now: int, position: UUID | None, most: int
    ) -> tuple[bool, UUID | None]:
        from embedded_orch.engine.removing import Removal

        removal = Removal(self._database, retention, now, self._process.new_id)
        _, position = removal.processes(position)
        is_done = self._go_through(removal.steps(), most)
        if is_done and removal.is_too_large:
            _warn(
                "%s holds more than max_bytes=%s of its retention, and no completed run is left in "
                "it that ended more than a day ago; allow more, or remove runs by hand",
                self._database.url,
                retention.max_bytes,
            )
        self._give_room_back()
        if self._database.result_folder is not None:
            from embedded_orch.engine.unused_files import remove_some

            remove_some(self._database, self._process)
        return is_done, position

    def _go_through(self, steps: Iterator[object], most: int) -> bool:
        """Whether all steps were done that there were."""
        for number, _ in enumerate(steps, 1):
            # At the end of a process there is nobody to make room for, and little that is done.
            if number >= most or (not self._is_stopping and self._bell.wait(_PAUSE_SECONDS)):
                return False
        return True

    def _give_room_back(self) -> None:
        from embedded_orch.engine.removing import size_of

        used, free = self._database.read(size_of)
        if free > max(_KEPT_FREE_BYTES, (used + free) // 4):
            self._database.give_room_back(most_bytes=_GIVEN_BACK_AT_ONCE)


def _warn(message: str, *details: object, error: Exception | None = None) -> None:
    import logging

    logging.getLogger("embedded_orch.engine").warning(message, *details, exc_info=error)
