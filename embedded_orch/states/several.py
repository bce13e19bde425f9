"""Several states: how they are counted, and the exception that bad ones stand for."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from embedded_orch.states.details import StateType
from embedded_orch.states.state import State, awaits

if TYPE_CHECKING:
    from collections.abc import Coroutine


def get_state_exception(state: State[Any]) -> BaseException | Coroutine[Any, Any, BaseException]:
    """The exception of a run that did not end well; awaited in asynchronous code, as with Prefect.

    Raises:
        ConfigurationError: the state is not FAILED, CRASHED or CANCELLED, or its data no error.
    """
    return aget_state_exception(state) if awaits() else state.exception()


async def aget_state_exception(state: State[Any]) -> BaseException:
    """:func:`get_state_exception`, awaited whatever the code around."""
    return state.exception()


def raise_state_exception(state: State[Any]) -> Coroutine[Any, Any, None] | None:
    """Raise the exception of a run that did not end well; awaited in asynchronous code."""
    if awaits():
        return araise_state_exception(state)
    if state.is_bad_end():
        raise state.exception()
    return None


async def araise_state_exception(state: State[Any]) -> None:
    """:func:`raise_state_exception`, awaited whatever the code around."""
    if state.is_bad_end():
        raise state.exception()


class StateGroup:
    """States counted by their types.

    Attributes:
        states: all of them.
        type_counts: how many there are of each type.
        total_count: how many there are.
        cancelled_count: how many are CANCELLED.
        final_count: how many have ended.
        not_final_count: how many have not.
        paused_count: how many are PAUSED.
    """

    def __init__(self, states: list[State[Any]]) -> None:
        self.states = states
        self.type_counts = Counter(state.type for state in states)
        self.total_count = len(states)
        self.cancelled_count = self.type_counts[StateType.CANCELLED]
        self.final_count = sum(state.is_final() for state in states)
        self.not_final_count = self.total_count - self.final_count
        self.paused_count = self.type_counts[StateType.PAUSED]

    @property
    def fail_count(self) -> int:
        """How many are FAILED or CRASHED."""
        return self.type_counts[StateType.FAILED] + self.type_counts[StateType.CRASHED]

    def all_completed(self) -> bool:
        """Whether all are COMPLETED."""
        return self.type_counts[StateType.COMPLETED] == self.total_count

    def any_cancelled(self) -> bool:
        """Whether one is CANCELLED."""
        return self.cancelled_count > 0

    def any_failed(self) -> bool:
        """Whether one is FAILED or CRASHED."""
        return self.fail_count > 0

    def all_final(self) -> bool:
        """Whether all have ended."""
        return self.final_count == self.total_count

    def any_paused(self) -> bool:
        """Whether one is PAUSED."""
        return self.paused_count > 0

    def counts_message(self) -> str:
        """How many there are, in all and of each type, for people."""
        unfinished = [f"not_final={self.not_final_count}"] if self.not_final_count else []
        counts = [f"{type.value!r}={count}" for type, count in self.type_counts.items() if count]
        return ", ".join([f"total={self.total_count}", *unfinished, *counts])

    def __repr__(self) -> str:
        return f"StateGroup<{self.counts_message()}>"
