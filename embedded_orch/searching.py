r"""What a search in a text asks for, as Prefect spells it.

Words and ``"phrases"``, of which one has to be there; those with ``+`` before them all have to be,
and those with ``-`` or ``!`` must not. ``\"`` is a quotation mark inside a phrase.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from embedded_orch.errors import UnknownFilter

_LONGEST = 200
_TERM = re.compile(r'([-!+]?)(?:"((?:\\.|[^"\\]|\\$)*)"?|([^\s"]+))')


class Search(NamedTuple):
    """Terms by what they are for."""

    any_of: list[str]
    all_of: list[str]
    none_of: list[str]


def parse(text: object) -> Search:
    """The terms of a search; of None there are none.

    Raises:
        UnknownFilter: it is no text, or too long a one.
    """
    search = Search([], [], [])
    if text is None:
        return search
    if not isinstance(text, str):
        raise UnknownFilter(f"text={text!r} is no text")
    if len(text) > _LONGEST:
        raise UnknownFilter(f"text has {len(text)} characters; a search has {_LONGEST} at most")
    kinds = {"": search.any_of, "+": search.all_of, "-": search.none_of, "!": search.none_of}
    for sign, phrase, word in _TERM.findall(text):
        term = word or re.sub(r'\\(["\\])', r"\1", phrase)
        # A sign with nothing behind it asks for nothing.
        if term.strip() and (sign or term not in kinds):
            kinds[sign].append(term)
    return search
