"""Opening a database once per process, however often it is asked for.

Two connections' worth of settings and locks to one file in one process would only get in each
other's way, so a file that is open already is shared, whatever name it was asked for by (the file
itself is compared, not its path), and closed when its last user closes it. Two databases in memory
are always two. On Postgres, the same server, database and schema share one pool.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from embedded_orch import errors
from embedded_orch.db import urls
from embedded_orch.db.waiting_room import WaitingRoom

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from embedded_orch.db.port import Database
    from embedded_orch.process import Process


class Shared:
    """A database that is open, its settings, and how many use it.

    ``life_path`` is the file whose locks tell which of its processes live, ``lease_seconds`` how
    long other hosts believe in them unheard (None where there are none), ``room`` where those wait
    who share it here.
    """

    __slots__ = ("database", "key", "lease_seconds", "life_path", "options", "room", "users")

    def __init__(
        self,
        key: Hashable,
        database: Database,
        options: object,
        *,
        life_path: str | None,
        lease_seconds: float | None = None,
    ) -> None:
        self.key = key
        self.database = database
        self.options = options
        self.life_path = life_path
        self.lease_seconds = lease_seconds
        self.room = WaitingRoom(database.hints)
        self.users = 1


class OpenDatabases:
    """The databases that one process has open.

    Args:
        process: whose they are.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self._lock = threading.Lock()
        self._open: dict[Hashable, Shared] = {}

    def open(self, url: str | os.PathLike[str], settings: Mapping[str, object]) -> Shared:
        """Open a database, or share it when it is open already.

        Args:
            url: see :mod:`embedded_orch.db.urls`.
            settings: options of the backend, by name.

        Raises:
            ConfigurationError: unknown settings, or others than those it is open with.
            DatabaseError: it cannot be opened.
        """
        text = urls.as_text(url)
        if urls.is_postgres(text):
            return self._open_postgres(text, settings)
        return self._open_sqlite(urls.sqlite_path(text), settings)

    def close(self, shared: Shared) -> None:
        """Let go of a database; the last user closes it."""
        with self._lock:
            shared.users -= 1
            if shared.users > 0:
                return
            self._open.pop(shared.key, None)
            shared.database.close()

    def _open_sqlite(self, path: str | None, settings: Mapping[str, object]) -> Shared:
        from embedded_orch.db.sqlite.opening import create_file, open_file, open_memory
        from embedded_orch.db.sqlite.options import SQLiteOptions

        options = SQLiteOptions.of(settings)
        if path is None:
            return Shared(None, open_memory(options, self._process), options, life_path=None)
        with self._lock:
            self._refuse_lost(path)
            key = create_file(path, options)
            return self._share(
                key,
                options,
                settings,
                name=path,
                make=lambda: open_file(path, options, self._process),
                # Who opens the file by a link looks for the others where they are.
                life_path=f"{os.path.realpath(path)}-owners",
            )

    def _refuse_lost(self, path: str) -> None:
        """Refuse a file in the place of one that is open here, and is not there any more.

        Two files of one name would share one log.
        """
        from embedded_orch.db.sqlite.database import SQLiteDatabase

        for shared in self._open.values():
            database = shared.database
            if isinstance(database, SQLiteDatabase) and database.path == path:
                database.check_present()

    def _open_postgres(self, url: str, settings: Mapping[str, object]) -> Shared:
        from embedded_orch.db.postgres.options import parse

        # Says what to install where psycopg is missing, which the other module imports.
        folder = os.environ.get("EMBEDDED_ORCH_RESULT_FOLDER") or None
        options = parse(url, **{"result_folder": folder, **settings})
        from embedded_orch.db.postgres.database import open_server

        key = (options.safe_url, options.schema_name)
        with self._lock:
            return self._share(
                key,
                options,
                settings,
                name=options.safe_url,
                make=lambda: open_server(options, self._process),
                life_path=os.path.join(urls.private_home(), "owners"),
                lease_seconds=options.lease_seconds,
            )

    def _share(
        self,
        key: Hashable,
        options: object,
        settings: Mapping[str, object],
        *,
        name: str,
        make: Callable[[], Database],
        life_path: str,
        lease_seconds: float | None = None,
    ) -> Shared:
        shared = self._open.get(key)
        if shared is None:
            shared = self._open[key] = Shared(
                key, make(), options, life_path=life_path, lease_seconds=lease_seconds
            )
            return shared
        differing = [
            option
            for option in settings
            if getattr(options, option) != getattr(shared.options, option)
        ]
        if differing:
            raise errors.ConfigurationError(
                f"{name} is open in this process with other settings: "
                + ", ".join(f"{each}={getattr(shared.options, each)!r}" for each in differing)
            )
        shared.users += 1
        return shared
