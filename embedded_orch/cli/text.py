"""How things are written for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

_SECOND = 1_000_000
_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400
_CUT = "…"
_GAP = "  "


def printable(text: str) -> str:
    """The text with everything escaped that a terminal would take for a command."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def cut(text: str, width: int) -> str:
    """At most ``width`` characters of a text, on one line."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= width else line[: width - 1] + _CUT


def block(text: str, *, indent: int) -> str:
    """Lines of text, indented; line breaks and tabs are the only commands that are kept."""
    margin = " " * indent
    return "\n".join(margin + printable(line.expandtabs()) for line in text.splitlines())


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, indent: int = 0) -> str:
    """Columns as wide as they need to be, under their heads; the last one is not padded."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    widths[-1] = 0
    lines = [
        " " * indent + _GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in [head, *rows]
    ]
    return "\n".join(line.rstrip() for line in lines)


def moment(microseconds: int | None, *, exact: bool = False) -> str:
    """A time of the database in the zone of the terminal.

    Args:
        microseconds: since 1970 UTC; None for a time that is not there.
        exact: with milliseconds and the zone.
    """
    if microseconds is None:
        return "-"
    found = _local(microseconds)
    if exact:
        return found.isoformat(sep=" ", timespec="milliseconds")
    return found.strftime("%Y-%m-%d %H:%M:%S")


def duration(microseconds: int | None) -> str:
    """A length of time, as exactly as it matters."""
    if microseconds is None:
        return "-"
    seconds, rest = divmod(max(0, microseconds), _SECOND)
    if seconds < _MINUTE:
        return f"{seconds}.{rest // 10_000:02}s" if seconds else f"{rest // 1000}ms"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE}m {seconds % _MINUTE:02}s"
    if seconds < _DAY:
        return f"{seconds // _HOUR}h {seconds % _HOUR // _MINUTE:02}m"
    return f"{seconds // _DAY}d {seconds % _DAY // _HOUR:02}h"


def elapsed(start: int | None, end: int | None, now: int) -> int | None:
    """How long something took that began, or has taken until now; None before it begins."""
    if start is None:
        return None
    return (now if end is None else end) - start


def _local(microseconds: int) -> datetime:
    from embedded_orch.times import datetime_from_microseconds

    return datetime_from_microseconds(microseconds).astimezone()
