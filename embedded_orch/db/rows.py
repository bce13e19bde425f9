"""Rows of a statement that a person wrote."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload


class Rows(Sequence[tuple[Any, ...]]):
    """The answer of a statement: a sequence of tuples that knows its columns.

    Attributes:
        columns: the names of the columns; empty for a statement that returns no rows.
        changed: how many rows the statement wrote.
    """

    __slots__ = ("_rows", "changed", "columns")

    def __init__(
        self, columns: Sequence[str], rows: list[tuple[Any, ...]], *, changed: int = 0
    ) -> None:
        self.columns = tuple(columns)
        self.changed = changed
        self._rows = rows

    @overload
    def __getitem__(self, index: int) -> tuple[Any, ...]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[Any, ...]]: ...
    def __getitem__(self, index: int | slice) -> tuple[Any, ...] | list[tuple[Any, ...]]:
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self._rows)

    def dicts(self) -> list[dict[str, Any]]:
        """Each row as a dictionary by column name."""
        return [dict(zip(self.columns, row, strict=True)) for row in self._rows]

    def scalar(self) -> Any:
        """The first column of the first row; None when there is no row."""
        return self._rows[0][0] if self._rows else None

    def __repr__(self) -> str:
        return f"<Rows {len(self._rows)} x ({', '.join(self.columns)})>"
