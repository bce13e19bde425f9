"""Runs by the first digits of their ids."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from uuid import UUID

from embedded_orch import errors

if TYPE_CHECKING:
    from embedded_orch.db.port import Transaction

_ID_DIGITS = 32
_MOST_CANDIDATES = 10


def check_digits(word: str) -> None:
    """Refuse a word that is no id, nor the beginning of one.

    Raises:
        RunNotFound: it is not.
    """
    _range_of(word)


def flow_run_id(tx: Transaction, word: str, url: str) -> UUID:
    """The only flow run whose id begins with the digits of a word.

    Args:
        tx: a transaction.
        word: the digits, with dashes or without.
        url: of the database, for messages.

    Raises:
        RunNotFound: there is none, or there are several.
    """
    least, most = _range_of(word)
    ids: list[UUID] = [
        run_id
        for (run_id,) in tx.rows(
            "checks.flow_runs_between", least_id=least, most_id=most, limit=_MOST_CANDIDATES
        )
    ]
    if not ids:
        raise errors.RunNotFound(f"no flow run in {url} has an id that begins with {word}")
    if len(ids) > 1:
        raise errors.RunNotFound(
            f"several flow runs have an id that begins with {word}; give more of it: "
            f"{', '.join(map(str, ids))}{' ...' if len(ids) == _MOST_CANDIDATES else ''}"
        )
    return ids[0]


def whole_id(word: str) -> UUID | None:
    """The id that a word is as a whole, if it is one."""
    least, most = _range_of(word)
    return least if least == most else None


def _range_of(word: str) -> tuple[UUID, UUID]:
    """The first and the last id that begin with the digits of a word."""
    digits = word.replace("-", "").lower()
    if not re.fullmatch(rf"[0-9a-f]{{1,{_ID_DIGITS}}}", digits):
        raise errors.RunNotFound(
            f"{word!r} is no id of a run, nor the beginning of one; `embedded-orch runs` lists ids"
        )
    return UUID(digits.ljust(_ID_DIGITS, "0")), UUID(digits.ljust(_ID_DIGITS, "f"))
