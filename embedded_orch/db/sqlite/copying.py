"""A whole, consistent copy of a SQLite database, made while it is in use.

By SQLite's backup interface and not by VACUUM INTO. Both copy one snapshot, need the same time and
leave writers alone (240 MB beside a writer: 0.9 to 1.2 s each, the writer's median went from 0.13
to 0.18 ms). But this one works in steps, so that Ctrl-C is answered between them; it runs on a
connection that may not write; and it copies pages without having to understand them, which is what
one wants of a file that is damaged.

The snapshot is held for the whole copy. Without one, SQLite begins again after each commit of
somebody else, and would never end beside a busy writer. While it is held no process can empty the
log into the file, so the log grows by what is written meanwhile.

The copy is made under a temporary name beside its target, and gets its own name only when it is on
the disk, so whoever finds a file under that name has a whole one.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import apsw

from embedded_orch import errors
from embedded_orch.db.sqlite.connecting import translate

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedded_orch.db.port import Transaction
    from embedded_orch.db.result_folder import ResultFolder

# 4 MB with pages of 4 KB, a few milliseconds each.
_PAGES_PER_STEP = 1_000


# How long a copy waits for another one, or for files that are being removed.
_PATIENCE_SECONDS = 600.0


def copy_with_results(
    read: Callable[[Callable[[Transaction], None]], None],
    path: str,
    folder: ResultFolder | None,
    *,
    connection_of: Callable[[Transaction], apsw.Connection],
) -> None:
    """Copy a database, and the files of its results into the folder that belongs to the copy.

    The files are there before the copy of the database gets its name, and none of those that its
    snapshot names is removed before that.

    Args:
        read: runs an operation on one snapshot.
        path: absolute, of the copy.
        folder: of the files; None where there are none.
        connection_of: the connection of a transaction.

    Raises:
        ConfigurationError: there is something under one of the two names.
        DatabaseFull: no room; nothing is left behind.
        DatabaseBusy: another copy took longer than this one waits.
        DatabaseUnavailable: the folder cannot be written, or the database not be read.
    """
    check_target(path)
    if folder is None:
        read(lambda transaction: copy_database(connection_of(transaction), path))
        return
    from embedded_orch.db.result_folder import folder_beside

    beside = folder_beside(os.path.realpath(path))
    check_target(beside)

    def copy(transaction: Transaction) -> None:
        def copy_files() -> None:
            names = [str(name) for (name,) in transaction.rows("result_file.named")]
            _copy_files(folder, beside, names)

        copy_database(connection_of(transaction), path, and_before=copy_files)

    with folder.locked(patience_seconds=_PATIENCE_SECONDS) as is_alone:
        if not is_alone:
            raise errors.DatabaseBusy(
                f"{folder.path} was being copied by another for {_PATIENCE_SECONDS:.0f} s; try "
                f"again later"
            )
        read(copy)


def _copy_files(folder: ResultFolder, beside: str, names: list[str]) -> None:
    try:
        folder.copy_to(beside, names)
    except BaseException as error:
        from shutil import rmtree

        rmtree(beside, ignore_errors=True)
        if isinstance(error, OSError):
            raise _cannot_be_written(beside, error) from error
        raise


def check_target(path: str) -> None:
    """Refuse a target that cannot become a copy.

    Raises:
        ConfigurationError: it exists, or its folder does not.
    """
    if os.path.lexists(path):
        raise errors.ConfigurationError(
            f"{path} exists already and was left as it is; name a file that does not exist yet"
        )
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise errors.ConfigurationError(
            f"{folder} is no folder, so no copy can be put there; make it first"
        )


def copy_database(
    source: apsw.Connection, path: str, *, and_before: Callable[[], None] | None = None
) -> None:
    """Write what a connection sees to a new file that only its owner may read.

    Args:
        source: in a transaction, so that the copy is of one moment.
        path: absolute; see :func:`check_target`.
        and_before: what is done when the copy is whole, before it gets its name.

    Raises:
        ConfigurationError: somebody else has made the file meanwhile.
        DatabaseFull: no room; nothing is left behind.
        DatabaseUnavailable: the folder cannot be written, or the database not be read.
    """
    partial = _new_file_beside(path)
    try:
        try:
            _copy_pages(source, partial)
        except apsw.Error as error:
            raise translate(error, path) from error
        if and_before is not None:
            and_before()
        _publish(partial, path)
    finally:
        if os.path.lexists(partial):
            os.unlink(partial)


def _new_file_beside(path: str) -> str:
    from tempfile import mkstemp

    folder, name = os.path.split(path)
    try:
        descriptor, partial = mkstemp(prefix=f"{name}.", suffix=".partial", dir=folder)
    except OSError as error:
        raise _cannot_be_written(path, error) from error
    os.close(descriptor)
    return partial


def _copy_pages(source: apsw.Connection, partial: str) -> None:
    target = apsw.Connection(partial, flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        # A transaction has its snapshot from its first statement on.
        source.pragma("schema_version")
        # Nobody else has the file; a copy that is not finished is thrown away.
        target.pragma("journal_mode", "off")
        target.pragma("synchronous", "off")
        with target.backup("main", source, "main") as backup:
            while not backup.done:
                backup.step(_PAGES_PER_STEP)
        # A file in WAL mode cannot be opened where nothing may be written beside it. Whoever
        # opens this one to work with it turns WAL on again.
        target.pragma("journal_mode", "delete")
    finally:
        target.close()


def _publish(partial: str, path: str) -> None:
    try:
        to_disk(partial, os.O_RDWR)
        _rename_to_new(partial, path)
        if os.name == "posix":
            to_disk(os.path.dirname(path), os.O_RDONLY)
    except FileExistsError as error:
        raise errors.ConfigurationError(
            f"{path} was made by somebody else meanwhile and was left as it is"
        ) from error
    except OSError as error:
        raise _cannot_be_written(path, error) from error


def to_disk(path: str, flags: int) -> None:
    """Sync a file, or a folder with the names in it."""
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _rename_to_new(partial: str, path: str) -> None:
    """Rename without replacing a file that has appeared under the new name."""
    link: Callable[[str, str], None] | None = getattr(os, "link", None)
    if link is not None:
        try:
            link(partial, path)
        except FileExistsError:
            raise
        except OSError:
            # A file system without hard links; there the look before the renaming must do.
            link = None
    if link is not None:
        os.unlink(partial)
        return
    if os.path.lexists(path):
        raise FileExistsError(path)
    os.rename(partial, path)


def _cannot_be_written(path: str, error: OSError) -> errors.DatabaseUnavailable:
    import errno

    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return errors.DatabaseFull(f"{path}: the disk is full, the copy was not made ({error})")
    return errors.DatabaseReadOnly(
        f"{path} cannot be written: {error.strerror}; name a file in a folder that you can write"
    )
