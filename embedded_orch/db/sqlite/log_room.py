"""Room in the log of a SQLite file, made before it is needed.

A commit that makes its file longer is synced slower, since the file system has its new size to
bring to the disk as well: with durability "full" a task takes 430 to 540 us while the log grows,
and 300 within what it was before (measured). So the log is made longer for many commits at once, by
zeros, which no reader of it takes for a frame.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from embedded_orch.db.sqlite import audit
from embedded_orch.db.sqlite.log_frames import FRAME_HEADER_BYTES, HEADER_BYTES

if TYPE_CHECKING:
    from embedded_orch.db.sqlite.presence import Presence

# 257 KiB: of 16, 64, 256 and 1,024 the fewest that help nearly as much as any.
_FRAMES_AT_ONCE = 64
# What most commits need at most.
_FRAMES_OF_A_COMMIT = 8


class LogRoom:
    """Makes room in one log. Its owner calls it in write transactions that have written nothing.

    Args:
        path: of the database, its own and no link to it.
        page_size: of its pages, in bytes.
        presence: knows which log is the one that is open, and not another one by its name.
    """

    def __init__(self, path: str, page_size: int, presence: Presence) -> None:
        self._log = f"{path}-wal"
        self._frame = FRAME_HEADER_BYTES + page_size
        self._presence = presence
        self._frames = 0
        self._until = 0

    def have_behind(self, frames: int) -> None:
        """Have room for a commit behind so many frames.

        Where it cannot be made, nothing is: the commit makes the log longer itself, or tells why
        it cannot.
        """
        if frames < self._frames:
            # The log began anew, and may have been cut.
            self._until = 0
        self._frames = frames
        if frames + _FRAMES_OF_A_COMMIT <= self._until:
            return
        try:
            self._until = self._made(frames)
        except OSError as error:
            import logging

            log = logging.getLogger("embedded_orch.db")
            log.debug("%s: no room was made: %s", self._log, error)
            self._until = frames + _FRAMES_AT_ONCE

    def _made(self, frames: int) -> int:
        """How many frames the log has room for, by now."""
        # To be closed: SQLite locks no bytes of its log, so nothing is dropped by that.
        with audit.allow(), open(self._log, "r+b", buffering=0) as log:
            size = log.seek(0, os.SEEK_END)
            room = (size - HEADER_BYTES) // self._frame
            if frames + _FRAMES_OF_A_COMMIT > room and self._presence.has(self._log, log.fileno()):
                room += log.write(bytes(_FRAMES_AT_ONCE * self._frame)) // self._frame
        return room
