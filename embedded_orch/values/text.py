"""Text that both databases store."""

from __future__ import annotations


def storable_text(text: str) -> str:
    """The text with lone surrogates and NUL written out, which no database takes."""
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
