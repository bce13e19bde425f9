"""Waiting for several futures: for all of them, or for one after the other as they end."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from embedded_orch.db.bell import Bell
from embedded_orch.db.handoff import answer_for_running_loop
from embedded_orch.engine.futures import Future, until
from embedded_orch.engine.workers import wait_here

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

R = TypeVar("R")


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
        for _ in given:
            while not ended:
                left = remaining()
                late = [future.name for future in given if not future.is_done] if left == 0 else []
                if late:
                    raise TimeoutError(
                        f"{len(late)} of {len(given)} futures have not ended after {timeout} s, "
                        f"such as that of task run {late[0]}"
                    )
                wait_here(bell, left)
            yield ended.popleft()
    finally:
        for future, end in ends:
            future.forget(end)


async def all_or_a_failure(futures: Sequence[Future[Any]]) -> None:
    """Wait, without blocking the event loop, until all have ended or one has and did not complete.

    Args:
        futures: of any flow runs.
    """
    answer = answer_for_running_loop()
    unfinished = set(futures)

    def end_of(future: Future[Any]) -> Callable[[], None]:
        def end() -> None:
            unfinished.discard(future)
            if not unfinished or not future.is_completed:
                answer.notify()

        return end

    ends = [(future, end_of(future)) for future in unfinished]
    if not ends:
        return
    try:
        for future, end in ends:
            if not future.call_at_end(end):
                end()
        await answer.wait()
    finally:
        for future, end in ends:
            future.forget(end)
