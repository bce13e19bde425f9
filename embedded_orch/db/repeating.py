"""Operations whose first answer stands when they are run again.

A write runs again when nobody knows whether its commit got through. What puts something in finds by
its id that it is there, and answers as before. What takes something away would find nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedded_orch.db.port import Transaction


def yes_once_yes(operation: Callable[[Transaction], bool]) -> Callable[[Transaction], bool]:
    """An operation that answers yes if it did in any of its runs."""
    answers: list[bool] = []

    def run(transaction: Transaction) -> bool:
        answers.append(operation(transaction))
        return any(answers)

    return run
