"""Whether a database holds what it must: looked at as a whole, changing nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedded_orch.times import datetime_from_microseconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedded_orch.db.port import Transaction

# Of one kind of problem, this many are named.
_MOST_NAMED = 20


class Check:
    """One thing to look at.

    Attributes:
        what: what holds when nothing is found.
        find: finds the problems, one sentence each.
    """

    __slots__ = ("find", "what")

    def __init__(self, what: str, find: Callable[[Transaction], list[str]]) -> None:
        self.what = what
        self.find = find


def all_checks() -> list[Check]:
    """Every check, those first that explain what the later ones find."""
    return [
        Check("the database is not damaged", _damages),
        Check("every reference has its row", _broken_references),
        Check(
            "the state of every flow run is the last of its history",
            lambda tx: _beside_history(tx, "flow_run"),
        ),
        Check(
            "the state of every task run is the last of its history",
            lambda tx: _beside_history(tx, "task_run"),
        ),
        Check(
            "a flow run has an end time when it has ended, and only then",
            lambda tx: _wrong_end(tx, "flow_run"),
        ),
        Check(
            "a task run has an end time when it has ended, and only then",
            lambda tx: _wrong_end(tx, "task_run"),
        ),
        Check("the default queue of every work pool is its own", _foreign_queues),
    ]


def _damages(tx: Transaction) -> list[str]:
    return [str(problem) for (problem,) in tx.rows("checks.damages")]


def _broken_references(tx: Transaction) -> list[str]:
    return [
        f"{how_many} rows of {child} name a row of {parent} that is not there"
        if how_many
        else f"a reference from {child} to {parent} was never checked (NOT VALID)"
        for child, parent, how_many in tx.rows("checks.broken_references")
    ]


def _beside_history(tx: Transaction, kind: str) -> list[str]:
    rows = tx.rows(f"checks.{kind}s_beside_their_history", limit=_MOST_NAMED + 1)
    return _named(
        [
            f"{kind.replace('_', ' ')} {name} ({run_id}): its state is {_state(*state)}, and its "
            f"history ends with {_state(*recorded)}"
            for run_id, name, *states in rows
            for state, recorded in [(states[:3], states[3:])]
        ]
    )


def _wrong_end(tx: Transaction, kind: str) -> list[str]:
    rows = tx.rows(f"checks.{kind}s_with_wrong_end", limit=_MOST_NAMED + 1)
    return _named(
        [
            f"{kind.replace('_', ' ')} {name} ({run_id}) is {state or 'without a state'}, which "
            f"does not go with its end time"
            for run_id, name, state in rows
        ]
    )


def _foreign_queues(tx: Transaction) -> list[str]:
    rows = tx.rows("checks.pools_with_foreign_queue", limit=_MOST_NAMED + 1)
    return _named([f"work pool {pool} has {queue} of another pool" for pool, queue in rows])


def _state(name: str | None, type: str | None, timestamp: int | None) -> str:
    if timestamp is None:
        return "nothing"
    return f"{name} ({type}, {datetime_from_microseconds(timestamp).isoformat()})"


def _named(problems: list[str]) -> list[str]:
    if len(problems) <= _MOST_NAMED:
        return problems
    return [*problems[:_MOST_NAMED], "and more of the same kind"]
