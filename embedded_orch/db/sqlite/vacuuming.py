"""Giving the room of removed rows back to the file system.

Rows that are removed leave free pages in a file, and new rows take those first, so this is not
needed for the file to stop growing. ``auto_vacuum=incremental``, which every new file of ours has,
lets the last pages be moved into free ones a few at a time; the file gets shorter with the next
checkpoint. One that was made without it is rebuilt once, whole (https://www.sqlite.org/pragma.html,
"auto_vacuum").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import apsw

from embedded_orch.db.sqlite.connecting import INCREMENTAL, translate

if TYPE_CHECKING:
    from embedded_orch.db.sqlite.guard import FileGuard


def give_room_back(connection: apsw.Connection, *, pages: int) -> int:
    """Free some pages at the end of the file; how many are free after that.

    Args:
        connection: in a write transaction.
        pages: how many at most.
    """
    # Each row of the pragma is a page; it goes as far as it is asked for rows.
    connection.execute(f"pragma incremental_vacuum({int(pages)})").fetchall()
    return int(connection.pragma("freelist_count"))


def is_incremental(connection: apsw.Connection) -> bool:
    """Whether the file can give room back a few pages at a time."""
    return bool(connection.pragma("auto_vacuum") == INCREMENTAL)


def rebuild(connection: apsw.Connection, guard: FileGuard | None, path: str) -> None:
    """Write the whole database anew, so that it can give room back from now on.

    Args:
        connection: the write connection, outside of any transaction.
        guard: the locks between processes; None in memory.
        path: for messages.

    Raises:
        DatabaseError: it cannot be written now; it is as it was.
    """
    try:
        if guard is not None:
            guard.acquire_write()
        connection.pragma("auto_vacuum", INCREMENTAL)
        connection.execute("vacuum")
    except apsw.Error as error:
        raise translate(error, path) from error
    finally:
        if guard is not None:
            guard.release_write()
