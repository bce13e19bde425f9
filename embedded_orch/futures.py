"""Futures of submitted and mapped tasks, and waiting for several of them."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from embedded_orch.engine.futures import Future, FutureList, until
from embedded_orch.engine.inputs import results_in, states_in
from embedded_orch.engine.workers import Bell, wait_here

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

__all__ = [
    "DoneAndNotDoneFutures",
    "Future",
    "FutureList",
    "PrefectConcurrentFuture",
    "PrefectFuture",
    "PrefectFutureList",
    "as_completed",
    "resolve_futures_to_results",
    "resolve_futures_to_states",
    "wait",
]

R = TypeVar("R")

PrefectFuture = Future
PrefectConcurrentFuture = Future
PrefectFutureList = FutureList

resolve_futures_to_results = results_in
resolve_futures_to_states = states_in


class DoneAndNotDoneFutures(NamedTuple, Generic[R]):
    """What :func:`wait` found."""

    done: set[Future[R]]
    not_done: set[Future[R]]


def wait(futures: Iterable[Future[R]], timeout: float | None = None) -> DoneAndNotDoneFutures[R]:
    """Wait until all futures have ended.

    Args:
        futures: of any flow runs.
        timeout: seconds to wait at most; None to wait as long as it takes.

    Returns:
        Those that have ended, and those that have not.
    """
    remaining = until(timeout)
    given = set(futures)
    for future in given:
        future.wait(remaining())
    done = {future for future in given if future.is_done}
    return DoneAndNotDoneFutures(done, given - done)


def as_completed(
    futures: Iterable[Future[R]], timeout: float | None = None
) -> Generator[Future[R], None, None]:
    """The futures in the order in which they end, each once; first those that have.

    Args:
        futures: of any flow runs.
        timeout: seconds from the first step to the last future; None if there is no limit.

    Raises:
        TimeoutError: not all have ended in time.
    """
    remaining = until(timeout)
    given = list(dict.fromkeys(futures))
    ended: deque[Future[R]] = deque()
    bell = Bell()

    def end_of(future: Future[R]) -> Callable[[], None]:
        def end() -> None:
            ended.append(future)
            bell.ring()

        return end

    ends = [(future, end_of(future)) for future in given]
    try:
        for future, end in ends:
            if not future.call_at_end(end):
                end()
        for number in range(len(given)):
            while not ended:
                left = remaining()
                if left == 0:
                    raise TimeoutError(
                        f"{len(given) - number} of {len(given)} futures have not ended after "
                        f"{timeout} s"
                    )
                wait_here(bell, left)
            yield ended.popleft()
    finally:
        for future, end in ends:
            future.forget(end)
