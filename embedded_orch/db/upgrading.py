"""What would bring a database to the schema of this program, whichever engine it is on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedded_orch.db import urls
from embedded_orch.errors import ConfigurationError

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from embedded_orch.process import Process


def upgrade_script(
    url: str | os.PathLike[str], settings: Mapping[str, object], process: Process
) -> str:
    """The SQL that would bring the schema up to date; nothing is changed or made.

    Args:
        url: see :mod:`embedded_orch.db.urls`.
        settings: options of the backend, by name.
        process: who looks.

    Returns:
        Statements with their transactions, for the engine's own shell; empty when there is
        nothing to do.

    Raises:
        ConfigurationError: there is no database to look at.
        DatabaseError: it cannot be opened, is not ours, or is newer than this program.
    """
    text = urls.as_text(url)
    if urls.is_postgres(text):
        from embedded_orch.db.postgres.options import parse

        options = parse(text, **settings)
        # Only once parse() has said what to install where psycopg is missing.
        from embedded_orch.db.postgres import migrating

        return migrating.upgrade_script(options)
    path = urls.sqlite_path(text)
    if path is None:
        raise ConfigurationError(":memory: is a new database each time; name a file or a server")
    from embedded_orch.db.sqlite import upgrading
    from embedded_orch.db.sqlite.options import SQLiteOptions

    return upgrading.upgrade_script(path, SQLiteOptions.of(settings), process)
