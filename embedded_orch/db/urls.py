"""What a database URL names, and which database is the default."""

from __future__ import annotations

import os
import sys

from embedded_orch import errors

MEMORY = ":memory:"
_FORMS = (
    "a path, sqlite:///relative/path, sqlite:////absolute/path, :memory:, or "
    "postgresql://user@host/database"
)


def default_url() -> str:
    """The database of flows that are called without an open orchestrator.

    ``EMBEDDED_ORCH_URL``; else ``orch.db`` in ``EMBEDDED_ORCH_HOME``; else ``orch.db`` in the
    folder where this platform keeps the data of the user's programs.
    """
    return os.environ.get("EMBEDDED_ORCH_URL") or os.path.join(home(), "orch.db")


def home() -> str:
    """The folder of what belongs to this user and to no single project."""
    named = os.environ.get("EMBEDDED_ORCH_HOME")
    if named:
        return os.path.expanduser(named)
    if sys.platform == "darwin":
        parent = os.path.expanduser("~/Library/Application Support")
    elif sys.platform == "win32":
        parent = os.environ.get("LOCALAPPDATA") or os.path.expanduser("~\\AppData\\Local")
    else:
        parent = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return os.path.join(parent, "embedded_orch")


def private_home() -> str:
    """:func:`home`, made for this user alone if it does not exist."""
    folder = home()
    os.makedirs(folder, mode=0o700, exist_ok=True)
    return folder


def as_text(url: object) -> str:
    """The URL or path as text.

    Raises:
        InvalidURL: it is none, or holds what no file name and no URL can hold.
    """
    text = os.fspath(url) if isinstance(url, str | os.PathLike) else None
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise errors.InvalidURL(f"{url!r} is no database URL; expected {_FORMS}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise errors.InvalidURL(
            f"{text!r} cannot be written as UTF-8, and SQLite takes no other name of a file"
        ) from error
    return text


def is_postgres(url: str) -> bool:
    """Whether the URL names a Postgres server."""
    return url.startswith(("postgresql://", "postgres://"))


def sqlite_path(url: str | os.PathLike[str]) -> str | None:
    """The absolute path of the file that the URL names; None for ``:memory:``.

    Raises:
        InvalidURL: it names no SQLite database.
    """
    text = as_text(url)
    if text in (MEMORY, "sqlite://", "sqlite:///:memory:"):
        return None
    if text.startswith("sqlite:///"):
        text = text.removeprefix("sqlite:///")
        if "?" in text:
            raise errors.InvalidURL(
                f"{os.fspath(url)!r}: settings cannot stand in the URL; give them to open() by name"
            )
    elif text.startswith(("sqlite:", "file:")) or "://" in text:
        scheme = text.partition(":")[0]
        raise errors.InvalidURL(
            f"{scheme}: is no form of database URL that is known here; expected {_FORMS}"
        )
    if not text or text.endswith((os.sep, "/")):
        raise errors.InvalidURL(f"{os.fspath(url)!r} names no file; expected {_FORMS}")
    path = os.path.expanduser(text)
    if path.startswith("~"):
        raise errors.InvalidURL(f"{text!r} begins with a user that this machine does not know")
    try:
        return os.path.abspath(path)
    except FileNotFoundError as error:
        raise errors.InvalidURL(
            f"{text!r} is relative, and the current folder does not exist any more; give the "
            f"whole path"
        ) from error
