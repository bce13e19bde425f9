"""What a call waits for: futures and states among its arguments, and its ``wait_for``."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from embedded_orch import errors
from embedded_orch.annotations import BaseAnnotation, allow_failure, opaque
from embedded_orch.engine.effects import WaitFor
from embedded_orch.engine.futures import Future, FutureList
from embedded_orch.engine.walking import PLAIN, Stop, Walk
from embedded_orch.runs import Run
from embedded_orch.states import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedded_orch.engine.effects import Steps
    from embedded_orch.engine.links import Links

    Awaited = Future[Any] | State[Any]

WAIT_FOR = "wait_for"
"""Under which the runs of that option stand among those of the parameters."""


class Resolved(msgspec.Struct, frozen=True):
    """The arguments of a call as its function gets them.

    Attributes:
        arguments: by parameter; as they were given, when the call cannot be made.
        obstacle: why it cannot: what came of the first run that did not complete.
        upstream: the task runs that each parameter depends on, and those of ``wait_for``.
    """

    arguments: Mapping[str, Any]
    obstacle: str | None
    upstream: Mapping[str, Sequence[UUID]]


def is_plain(arguments: Mapping[str, Any]) -> bool:
    """Whether nothing in these arguments can have to be waited for or taken off."""
    return PLAIN.issuperset(map(type, arguments.values()))


def resolve(
    arguments: Mapping[str, Any], wait_for: object = None, *, links: Links | None = None
) -> Steps[Resolved]:
    """Wait for the runs that a call depends on, and replace futures and states by their results.

    Args:
        arguments: by parameter.
        wait_for: more to wait for, in any form that an argument may have.
        links: tell which run made an object among the arguments.

    Raises:
        ParameterTypeError: an argument is a flow run or a task run.
    """
    waiting = _Waiting(links)
    upstream: dict[str, list[UUID]] = {}
    given = dict(arguments) if wait_for is None else {**arguments, WAIT_FOR: wait_for}
    for name, value in given.items():
        found = yield from waiting.for_all_in(name, value)
        if found:
            upstream[name] = found
    if waiting.obstacle is not None:
        return Resolved(arguments, waiting.obstacle, upstream)
    replacing = _Replacing()
    replaced = {name: replacing.walk(value) for name, value in arguments.items()}
    return Resolved(replaced, None, upstream)


def runs_at_the_top(arguments: Mapping[str, Any]) -> dict[str, list[UUID]]:
    """The task runs that arguments are futures or states of, by parameter; not of those inside."""
    found = {name: _run_of(value) for name, value in arguments.items() if _is_awaited(value)}
    return {name: [run_id] for name, run_id in found.items() if run_id is not None}


def _is_awaited(value: object) -> bool:
    return isinstance(value, Future | State)


def futures_in(value: Any) -> list[Future[Any]]:
    """Every future in a value."""
    found: list[Future[Any]] = []

    def note(item: Any, _: object) -> Any:
        if isinstance(item, Future):
            found.append(item)
            raise Stop
        return item

    Walk(note)(value)
    return found


def results_in(expr: Any) -> Any:
    """``expr`` with each future in it replaced by its result, which is waited for.

    Raises:
        UpstreamFailed: one of them did not complete.
    """

    def take(future: Future[Any]) -> Any:
        future.wait()
        if not future.is_completed:
            raise errors.UpstreamFailed(f"task run {future.name} is {future.state.name}")
        return future.result()

    return _with_futures_replaced(expr, take)


def states_in(expr: Any) -> Any:
    """``expr`` with each future in it replaced by its final state, which is waited for."""

    def take(future: Future[Any]) -> State[Any]:
        future.wait()
        return future.state

    return _with_futures_replaced(expr, take)


def _with_futures_replaced(value: Any, take: Callable[[Future[Any]], Any]) -> Any:
    def visit(item: Any, annotation: BaseAnnotation[Any] | None) -> Any:
        if type(item) is FutureList:
            return [walk(each, annotation) for each in item]
        return take(item) if isinstance(item, Future) else item

    walk = Walk(visit)
    return walk(value)


class _Waiting:
    """Finds what there is to wait for, and in what came of it more.

    Attributes:
        obstacle: what came of the first run that did not complete and had to.
    """

    def __init__(self, links: Links | None) -> None:
        self.obstacle: str | None = None
        self._run_that_made = None if links is None else links.run_of

    def for_all_in(self, name: str, value: Any) -> Steps[list[UUID]]:
        """Wait for everything in an argument; returns the task runs that it depends on."""
        depends_on: dict[UUID, None] = {}
        run_that_made = self._run_that_made
        if run_that_made is not None and (run_id := run_that_made(value)) is not None:
            depends_on[run_id] = None
        found: deque[tuple[Awaited, BaseAnnotation[Any] | None]] = deque()

        def note(item: Any, annotation: BaseAnnotation[Any] | None) -> Any:
            if isinstance(item, Future | State):
                found.append((item, annotation))
                raise Stop
            _refuse_run(name, item, annotation)
            if run_that_made is not None and (run_id := run_that_made(item)) is not None:
                depends_on[run_id] = None
            return item

        looking = Walk(note)
        looking(value)
        while found:
            item, annotation = found.popleft()
            if isinstance(item, Future):
                yield WaitFor(item)
            run_id = _run_of(item)
            if run_id is not None:
                depends_on[run_id] = None
            if not _is_good(item, annotation):
                self.obstacle = self.obstacle or _obstacle(item)
            elif not isinstance(annotation, opaque):
                # The result may hold futures of its own.
                looking(_value_of(item), annotation)
        return list(depends_on)


class _Replacing:
    """Puts results in the place of futures and states, all of which have ended."""

    def __init__(self) -> None:
        self.walk = Walk(self._visit)

    def _visit(self, item: Any, annotation: BaseAnnotation[Any] | None) -> Any:
        if type(item) is FutureList:
            # What takes its place is a list of values.
            return [self.walk(each, annotation) for each in item]
        if not isinstance(item, Future | State):
            return item
        value = _value_of(item)
        return value if isinstance(annotation, opaque) else self.walk(value, annotation)


def _refuse_run(name: str, item: Any, annotation: BaseAnnotation[Any] | None) -> None:
    if isinstance(item, Run) and not isinstance(annotation, opaque):
        kind = type(item).__name__
        raise errors.ParameterTypeError(
            f"{name} is, or holds, a {kind} ({item.name}); pass what is needed of it, such as its "
            f"id, or opaque(...) of it, so that its state is not taken for something to wait for"
        )


def _run_of(item: Awaited) -> UUID | None:
    return item.task_run_id if isinstance(item, Future) else item.state_details.task_run_id


def _state_of(item: Awaited) -> State[Any]:
    return item if isinstance(item, State) else item.state


def _is_good(item: Awaited, annotation: BaseAnnotation[Any] | None) -> bool:
    """Whether the call may go on: it completed, or failed and that is allowed."""
    state = _state_of(item)
    if state.is_completed():
        return True
    may_fail = isinstance(annotation, allow_failure)
    return may_fail and (state.is_failed() or _was_not_ready(state))


def _was_not_ready(state: State[Any]) -> bool:
    return state.is_pending() and state.name == "NotReady"


def _obstacle(item: Awaited) -> str:
    if isinstance(item, Future):
        return f"upstream task run {item.name} did not complete: it is {item.state.name}"
    return f"an upstream run did not complete: it is {item.name}"


def _value_of(item: Awaited) -> Any:
    state = _state_of(item)
    return None if _was_not_ready(state) else state.result_now(raise_on_failure=False)
