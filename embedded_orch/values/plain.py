r"""The fast path: values that JSON holds as they are, told from all others at C speed.

Most results and parameters are small and plain: None, bool, int, float, str, and lists and
dicts of these. For them one call of msgspec's encoder is the whole work, if nothing in them
would come back changed. Two looks find that out, neither of which runs Python code per item:

- Before encoding, the types. `_is_plain` goes down level by level, not item by item: all
  items of all containers of one level are typed by one ``map(type, ...)``. Subclasses are not
  plain (an IntEnum is not an int).
- After encoding, the text. What cannot be seen by type is easy to see there: a key that looks
  like a tag of ours can only appear as ``{"$``, since a quote inside a string is escaped; a NUL
  is always written ``\u0000``; a negative zero is ``-0.0`` before something that is no digit;
  only a text of some length can hold an int of very many digits.

A false alarm costs time and nothing else: the slow path (`tagging`) writes the same text for
plain values.
"""

from __future__ import annotations

import re
from itertools import chain, starmap
from math import hypot
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: What JSON holds. The quotes make it a text for Python and a type for type checkers.
Tree: TypeAlias = "bool | int | float | str | list[Tree] | dict[str, Tree] | None"

#: How deep containers may be nested. Each level costs the slow path three frames of Python's
#: stack of 1,000, which user code above us needs too.
MAX_DEPTH = 100

#: Floats from here on have no fraction, and JSON writers use the exponent form for them. A reader
#: that knows only "number", such as Postgres' jsonb, gives them back without it: as integers.
MAX_PLAIN_FLOAT = 1e16

TAG_START = "$"

_TAG_IN_TEXT = b'{"' + TAG_START.encode()
_NUL_IN_TEXT = b"\\u0000"
_NEGATIVE_ZERO = re.compile(rb"-0\.0(?!\d)")
# Looking for one byte is six times as fast as looking for several, and mostly finds none.
_TAG_BYTE, _BACKSLASH, _MINUS = ord(TAG_START), ord("\\"), ord("-")

#: No int with more digits than the largest float has fits into so short a text.
_SHORT_TEXT = 308

_SINGLE = frozenset({type(None), bool, int, str})
_CONTAINERS = frozenset({list, dict})
_PLAIN = _SINGLE | _CONTAINERS | {float}
_STR = frozenset({str})
_values = dict[Any, Any].values


def plain_json(value: object, to_json: Callable[[object], bytes]) -> bytes | None:
    """Return the JSON text of a plain value, or None if it needs the slow path.

    `to_json` is msgspec's encoder, in the order of keys that the caller wants.
    """
    if value is None:
        # What most functions return that return nothing.
        return b"null"
    kind = type(value)
    held: Any = value
    with_ints: list[tuple[list[Any], set[type]]] = []
    if kind is dict:
        plain = _STR.issuperset(map(type, held)) and _is_plain([*held.values()], with_ints)
    elif kind is list:
        plain = _is_plain(held, with_ints)
    elif kind is int:
        plain = is_plain_int(held)
    elif kind is float:
        plain = is_plain_float(held)
    else:
        plain = kind in _SINGLE
    if not plain:
        return None
    try:
        text = to_json(value)
    except (ValueError, RecursionError):
        # A lone surrogate; an int of more digits than Python turns into text; a caller whose
        # stack is nearly used up. The slow path stores the first two and explains the third.
        return None
    if len(text) > _SHORT_TEXT and not all(starmap(_are_plain_ints, with_ints)):
        return None
    return None if _looks_changed(text) else text


def _looks_changed(text: bytes) -> bool:
    return bool(
        (_BACKSLASH in text and _NUL_IN_TEXT in text)
        or (_TAG_BYTE in text and _TAG_IN_TEXT in text)
        or (_MINUS in text and _NEGATIVE_ZERO.search(text))
    )


def is_plain_float(value: float) -> bool:
    """Whether this float comes back from any JSON reader as it is (negative zero aside)."""
    return -MAX_PLAIN_FLOAT < value < MAX_PLAIN_FLOAT


def is_plain_int(value: int) -> bool:
    """Whether an int is in the range of floats. Readers of JSON limit the number of digits."""
    try:
        float(value)
    except OverflowError:
        return False
    return True


def _are_plain_ints(level: list[Any], kinds: set[type]) -> bool:
    try:
        hypot(*_of_kind(int, level, kinds))
    except OverflowError:
        return False
    return True


def _is_plain(level: list[Any], with_ints: list[tuple[list[Any], set[type]]]) -> bool:
    """Whether what a container holds is plain by type. `with_ints` gets the levels that hold ints.

    False, too, for a list or dict that is met twice on one level. Without that, ``x = [x, x]``
    would double the work at each level; with it, what is walked and what is written are bounded
    by (distinct containers x MAX_DEPTH).
    """
    for _ in range(MAX_DEPTH):
        kinds = {*map(type, level)}
        if int in kinds:
            with_ints.append((level, kinds))
        if kinds <= _SINGLE:
            return True
        if not kinds <= _PLAIN:
            return False
        if float in kinds:
            floats = _of_kind(float, level, kinds)
            # The length of a vector is at least the size of its largest component, and inf or NaN
            # if a component is: one C call, four times as fast as a look at each. It can be too
            # large by accident, and only then each is looked at.
            if not hypot(*floats) < MAX_PLAIN_FLOAT and not all(map(is_plain_float, floats)):
                return False
        if kinds.isdisjoint(_CONTAINERS):
            return True
        dicts: list[dict[Any, Any]] = _of_kind(dict, level, kinds) if dict in kinds else []
        lists: list[list[Any]] = _of_kind(list, level, kinds) if list in kinds else []
        if _repeats(dicts) or _repeats(lists):
            return False
        if not _STR.issuperset(map(type, chain.from_iterable(dicts))):
            return False
        level = [*chain.from_iterable(map(_values, dicts)), *chain.from_iterable(lists)]
    return False


def _of_kind(kind: type, level: list[Any], kinds: set[type]) -> list[Any]:
    """Return the items of exactly this type, of a level that has items of these types."""
    return level if len(kinds) == 1 else [item for item in level if type(item) is kind]


def _repeats(containers: Sequence[object]) -> bool:
    return len(containers) > 1 and len({*map(id, containers)}) < len(containers)
