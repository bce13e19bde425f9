"""Reads the log of a SQLite file as a recovery does.

For one question that SQLite does not answer: whether a commit that it has taken back, since the
disk was full, would be found when the file is opened the next time.

The format: https://www.sqlite.org/fileformat2.html#the_write_ahead_log
"""

from __future__ import annotations

import os
import struct
from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import BinaryIO

_HEADER = struct.Struct(">8I")
# What stands before each page.
_FRAME = struct.Struct(">6I")
HEADER_BYTES = _HEADER.size
FRAME_HEADER_BYTES = _FRAME.size
# Its page and whether it ends a commit: the part that its checksum covers.
_CHECKED = 8
_WORD = 0xFFFFFFFF
# What the last bit of the header's first number is where words are made as this machine does.
_NATIVE_ORDER = array("I", b"\0\0\0\1")[0] & 1


def has_commit_after(log: BinaryIO, frames: int) -> bool:
    """Whether a recovery would find a commit behind the first so many frames.

    Args:
        log: the log, from its beginning.
        frames: how many are known to be there, and whole.

    Raises:
        OSError: the log cannot be read.
    """
    header = log.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return False
    magic, _, page_size, _, *salts, first, second = _HEADER.unpack(header)
    is_swapped = magic & 1 != _NATIVE_ORDER
    size = _FRAME.size + page_size
    if frames:
        log.seek((frames - 1) * size, os.SEEK_CUR)
        *_, first, second = _FRAME.unpack(log.read(size)[: _FRAME.size])
    while len(frame := log.read(size)) == size:
        page, commit_size, *its_salts, its_first, its_second = _FRAME.unpack(frame[: _FRAME.size])
        # Each goes on from the one before: none is whole that stands behind one that is not.
        first, second = _add(first, second, frame[:_CHECKED], is_swapped=is_swapped)
        first, second = _add(first, second, frame[_FRAME.size :], is_swapped=is_swapped)
        if not page or its_salts != salts or (its_first, its_second) != (first, second):
            return False
        if commit_size:
            return True
    return False


def _add(first: int, second: int, data: bytes, *, is_swapped: bool) -> tuple[int, int]:
    """A checksum, gone on with over more data."""
    words = array("I", data)
    if is_swapped:
        words.byteswap()
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = first + even + second & _WORD
        second = second + odd + first & _WORD
    return first, second
