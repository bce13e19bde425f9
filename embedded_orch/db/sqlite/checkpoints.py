"""Checkpoints: copying the log of a SQLite file into the file, as a step of their own.

Never inside a COMMIT, where a checkpoint that fails makes a durable commit raise. The writer takes
the step after it has answered its callers: a passive one when the log has grown by so many pages
and when it rests, and one that empties the log when it closes. A step that finds the file in use is
put off, and the next one copies what it has left.

Where a commit is not synced, the log has to be before it is copied, which is most of the work: 5.5
of 7 ms for 2,000 pages, measured, and 24 to 43 of 26 to 50 on another disk. So a thread of its own
does that while the writer goes on, and the step comes when it is done.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import apsw

from embedded_orch import errors
from embedded_orch.db.flusher import Flusher
from embedded_orch.db.sqlite import audit

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from embedded_orch.db.sqlite.guard import FileGuard

# How long to wait for another process that writes: the commit before is done and answered.
_PATIENCE_SECONDS = 0.1
# How long new reads may have to wait for a checkpoint, and its pauses between two tries.
_HOLD_READERS_SECONDS = 0.1
_PAUSE_SECONDS = 0.000_5
# How often the thread that syncs the log looks by itself whether it is to end.
_LOOK_SECONDS = 0.5


class Checkpoints:
    """The checkpoints of one write connection. Its owner calls them one at a time.

    Attributes:
        log_pages: how long the log is.
        on_put_off: is told how many bytes a log holds that is longer than it should be, because
            somebody reads or writes; None for nobody.
        syncs_ahead: whether the log is brought to the disk before the step: it is not there yet,
            and has to be.

    Args:
        connection: the write connection, outside of any transaction.
        path: the file.
        guard: the locks between processes; None where no other process can open the file.
        pages: how much the log grows until it is copied.
        busy_timeout_seconds: of the connection.
    """

    def __init__(
        self,
        connection: apsw.Connection,
        path: str,
        guard: FileGuard | None,
        *,
        pages: int,
        busy_timeout_seconds: float,
    ) -> None:
        self.log_pages = 0
        self.on_put_off: Callable[[int], None] | None = None
        self.syncs_ahead = False
        # Whether no other process takes the step meanwhile.
        self._has_claim = False
        self._is_sync_asked_for = False
        self._is_synced = False
        self._syncer = Flusher(
            f"embedded_orch log {path}",
            has_work=lambda: self._is_sync_asked_for,
            work=self._sync_as_asked,
            soon_seconds=_LOOK_SECONDS,
        )
        self._connection = connection
        self._path = path
        # SQLite has it beside the file, by whatever link that was opened.
        self._log_path = f"{path if guard is None else guard.path}-wal"
        self._guard = guard
        self._pages = pages
        self._due_at = pages
        self._busy_timeout = int(busy_timeout_seconds * 1000)
        connection.set_wal_hook(self._after_commit)

    def run_if_due(self) -> None:
        """Copy what can be copied, once the log is long enough, and on the disk."""
        if self.log_pages < self._due_at:
            if self._has_claim:
                # Somebody has copied it meanwhile.
                self._end_step()
            return
        # As if nobody were at it.
        is_overdue = self.log_pages >= self._due_at + self._pages
        if not self._has_claim:
            # Another process is at it, so it is due to none of the others: each would wait for the
            # disk, and keep all from writing for a moment.
            self._has_claim = self._guard is None or self._guard.begin_checkpoint()
            if not self._has_claim and not is_overdue:
                return
        if self.syncs_ahead and not self._is_synced:
            if not is_overdue:
                self._ask_for_sync()
                return
            self._sync_log()
        self._run(apsw.SQLITE_CHECKPOINT_PASSIVE, holding_readers=True)
        self._end_step()

    def may_come_back(self) -> bool:
        """Whether a commit that was just taken back may be found by who opens the file next.

        Its last frame is whole although the disk had no room for it, where the log began anew
        within its file and held there, from before, just what was to be written (found by a test in
        which each write fails in turn: of a task's commit the last page was one that had not
        changed).
        """
        from embedded_orch.db.sqlite.log_frames import has_commit_after

        try:
            frames, _ = self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
            # To be closed: SQLite locks no bytes of its log, so nothing is dropped by that.
            with audit.allow(), open(self._log_path, "rb") as log:
                return has_commit_after(log, frames)
        except (apsw.Error, OSError) as error:
            _log().debug("%s: its log cannot be looked at: %s", self._path, error)
            return True

    def _ask_for_sync(self) -> None:
        if not self._is_sync_asked_for:
            self._is_sync_asked_for = True
            self._syncer.wake_now()

    def _end_step(self) -> None:
        self._is_synced = self._is_sync_asked_for = False
        if self._has_claim and self._guard is not None:
            self._guard.end_checkpoint()
        self._has_claim = False

    def _sync_as_asked(self) -> None:
        self._sync_log()
        # Not for a step that has come to its end meanwhile.
        self._is_synced = self._is_sync_asked_for
        self._is_sync_asked_for = False

    def close(self) -> None:
        """End the thread that syncs the log, if one has begun."""
        self._syncer.stop()

    def rest(self) -> None:
        """Copy the log while nobody waits; cut it if it has become long.

        Else it keeps its size, for one that begins anew within its file is synced faster than one
        that grows: 212 and 325 us a task with durability "full", measured.
        """
        if self.log_pages > 2 * self._pages:
            self.empty_log(holding_readers=False)
        elif self.log_pages:
            self._run(apsw.SQLITE_CHECKPOINT_PASSIVE, holding_readers=False)
            self._end_step()

    def empty_log(self, *, holding_readers: bool) -> None:
        """Copy all of the log and cut it to nothing.

        When somebody goes on reading, the log stays: nothing is lost by that, and the next one to
        close empties it.

        Args:
            holding_readers: have new reads wait for it if need be.
        """
        if not self._has_log():
            return
        # SQLite itself would wait for a reader for as long as for a writer.
        self._connection.set_busy_timeout(0)
        try:
            self._run(apsw.SQLITE_CHECKPOINT_TRUNCATE, holding_readers=holding_readers)
        finally:
            self._connection.set_busy_timeout(self._busy_timeout)
        self._end_step()

    def _after_commit(self, connection: apsw.Connection, name: str, pages: int) -> int:
        if pages < self.log_pages:
            # All of the log had been copied, and this commit began it anew.
            self._due_at = self._pages
        self.log_pages = pages
        return apsw.SQLITE_OK

    def _sync_log(self) -> None:
        """Bring the log to the disk without keeping anybody from writing."""
        if self._guard is None:
            return
        try:
            self._guard.sync_log()
        except (OSError, errors.DatabaseUnavailable) as error:
            # The step itself syncs what is left, and finds out what that means.
            _log().debug("%s: its log was not synced ahead: %s", self._path, error)

    def _has_log(self) -> bool:
        """Whether the log holds anything: of this process, of another, or of one that died."""
        if self.log_pages:
            return True
        try:
            # By its size: opening the file, and closing it again, would drop SQLite's locks.
            return os.stat(self._log_path).st_size > 0
        except OSError:
            # There is no such file; or it is one that only a test's VFS knows.
            return False

    def _run(self, mode: int, *, holding_readers: bool) -> None:
        """One step. One that fails is put off and never raised.

        What the caller wrote is committed, and an error would tell him otherwise.
        """
        try:
            try:
                if self._guard is not None:
                    self._guard.acquire_write(patience=_PATIENCE_SECONDS)
                self._copy_log(mode, holding_readers=holding_readers)
                if mode == apsw.SQLITE_CHECKPOINT_TRUNCATE:
                    self.log_pages = 0
            finally:
                if self._guard is not None:
                    self._guard.release_write()
        except (apsw.BusyError, errors.DatabaseBusy):
            # A reader holds the log, or another process writes.
            _log().debug("%s: the log is in use, checkpoint put off", self._path)
            if self.on_put_off is not None and self.log_pages >= self._pages:
                self.on_put_off(self.log_pages * int(self._connection.pragma("page_size")))
        except (apsw.Error, errors.DatabaseError, OSError) as error:
            # OSError: on a full disk even the word to the readers cannot be written.
            _log().warning("%s: checkpoint failed and is put off: %s", self._path, error)
        # Not at every commit, when a reader keeps the log from beginning anew.
        self._due_at = self.log_pages + self._pages

    def _copy_log(self, mode: int, *, holding_readers: bool) -> None:
        """Checkpoint, between two reads if need be.

        Every snapshot anywhere keeps the log from being copied, and where several processes read
        all the time there is never a moment without one (measured: 659 of 663 checkpoints found
        none, and the log grew without bound). So new reads wait for a moment, until those that
        have begun are done.
        """
        try:
            self._connection.wal_checkpoint(mode=mode)
        except apsw.BusyError:
            if self._guard is None or not holding_readers:
                raise
        else:
            return
        with self._guard.hold_readers(_HOLD_READERS_SECONDS):
            give_up = time.monotonic() + _HOLD_READERS_SECONDS
            while True:
                try:
                    self._connection.wal_checkpoint(mode=mode)
                except apsw.BusyError:
                    if time.monotonic() > give_up:
                        raise
                    time.sleep(_PAUSE_SECONDS)
                else:
                    return


def _log() -> logging.Logger:
    import logging

    return logging.getLogger("embedded_orch.db")
