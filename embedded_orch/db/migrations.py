"""The numbered migrations of ``schema/migrations``, and what a database has had of them.

``0001_first.sqlite.sql`` and ``0001_first.postgres.sql`` are the two variants of one migration.
Each runs in one transaction together with the row that records it, so a database is always at one
version wholly. A migration never changes once released: its checksum is kept and compared.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import msgspec

from embedded_orch import errors
from embedded_orch.db.statements import schema_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedded_orch.db.statements import Dialect

_FILE = re.compile(r"^(\d{4})_(\w+)\.(sqlite|postgres)\.sql$")


class Migration(msgspec.Struct, frozen=True):
    """One migration, in the variant of one dialect."""

    version: int
    name: str
    path: str

    @property
    def sql(self) -> str:
        """Its statements."""
        with open(self.path, encoding="utf-8") as file:
            return file.read()

    @property
    def checksum(self) -> str:
        """SHA-256 of its text, whatever the line endings it was checked out with."""
        import hashlib

        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations(dialect: Dialect, folder: str | None = None) -> list[Migration]:
    """All migrations of a dialect, oldest first.

    Args:
        dialect: whose variants.
        folder: where they lie; the package's own when not given.
    """
    folder = folder or os.path.join(schema_folder(), "migrations")
    found: list[Migration] = []
    for file in sorted(os.listdir(folder)):
        match = _FILE.match(file)
        if match is not None and match[3] == dialect:
            found.append(Migration(int(match[1]), match[2], os.path.join(folder, file)))
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        raise errors.MigrationFailed(f"the migrations in {folder} are not numbered 1, 2, 3, ...")
    return found


def pending(
    known: Sequence[Migration], applied: Sequence[tuple[int, str, str]], where: str
) -> list[Migration]:
    """The migrations that a database lacks.

    Args:
        known: all migrations of this program, oldest first.
        applied: version, name and checksum of those the database has had.
        where: the database, for messages.

    Raises:
        DatabaseTooNew: the database has had a migration that this program does not know.
        MigrationFailed: one that both know reads differently now.
    """
    if len(applied) > len(known):
        raise too_new(where, version=applied[-1][0], known=len(known))
    for migration, (version, name, checksum) in zip(known, applied, strict=False):
        if (migration.version, migration.checksum) != (version, checksum):
            raise errors.MigrationFailed(
                f"{where} has had migration {version:04}_{name}, which reads differently in this "
                f"program; nothing was changed. Install the version of embedded_orch that made it"
            )
    return list(known[len(applied) :])


def too_new(where: str, *, version: int, known: int) -> errors.DatabaseTooNew:
    """What to raise about a database of a later version than this program.

    Args:
        where: the database.
        version: of its schema.
        known: the version of this program.
    """
    return errors.DatabaseTooNew(
        f"{where} was written by a newer embedded_orch: its schema has version {version}, this "
        f"program knows {known}. Nothing was changed; upgrade embedded_orch, or name another "
        f"database"
    )
