"""A person's query with its limits, checked before any engine sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from embedded_orch import errors
from embedded_orch.db.session import bind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from embedded_orch.db.statements import Dialect


class Query(msgspec.Struct, frozen=True):
    """One statement that only reads, in the form that its engine runs.

    Attributes:
        text: with numbered parameters.
        values: of the parameters.
        timeout_seconds: how long it may take, fetching its rows included.
        max_rows: how many rows it may find.
    """

    text: str
    values: tuple[object, ...]
    timeout_seconds: float
    max_rows: int

    def took_too_long(self) -> errors.StatementRefused:
        """What to raise when the time is over."""
        return errors.StatementRefused(
            f"the statement was stopped after timeout_seconds={self.timeout_seconds:g}; ask for "
            f"less, or give it more time"
        )

    def found_too_much(self) -> errors.StatementRefused:
        """What to raise when there are more rows than allowed."""
        return errors.StatementRefused(
            f"the statement found more than max_rows={self.max_rows} rows; add a limit clause or "
            f"count them, or allow more"
        )


def checked_query(
    dialect: Dialect,
    statement: str,
    parameters: Mapping[str, object] | None,
    *,
    timeout_seconds: float,
    max_rows: int,
) -> Query:
    """A query that is ready to run.

    Raises:
        ConfigurationError: a limit that nothing can keep.
        StatementRefused: there is no statement, or its parameters do not fit it.
    """
    # Also false for NaN.
    if not timeout_seconds > 0:
        raise errors.ConfigurationError(
            f"timeout_seconds={timeout_seconds!r}: a number of seconds above 0"
        )
    if max_rows < 1:
        raise errors.ConfigurationError(f"max_rows={max_rows!r}: at least 1")
    text, values = bind(dialect, statement, parameters)
    if not text:
        raise errors.StatementRefused("there is no statement to run")
    if "\0" in text:
        raise errors.StatementRefused("a NUL character cannot be part of a statement")
    return Query(text, values, timeout_seconds, max_rows)
