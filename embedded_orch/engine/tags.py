"""Tags that the code around a call gives to the runs made in it."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from embedded_orch.engine.checking import tags_of

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

_NONE: frozenset[str] = frozenset()
_here: ContextVar[frozenset[str]] = ContextVar("embedded_orch_tags", default=_NONE)


@contextmanager
def tags(*new_tags: str) -> Generator[set[str]]:
    """Tag the flow runs and task runs that are called inside the block.

    Blocks nest: a run has the tags of its flow or task and those of every block around its call,
    in this thread and in whatever inherits its context: submitted tasks, tasks of asyncio and trio.

    Args:
        new_tags: added to those of the blocks around this one.

    Yields:
        All tags that runs get here.

    Raises:
        ConfigurationError: a tag is no text.
    """
    found = _here.get() | frozenset(tags_of(new_tags))
    token = _here.set(found)
    try:
        yield set(found)
    finally:
        _here.reset(token)


def current_tags() -> frozenset[str]:
    """The tags of all blocks around the running code."""
    return _here.get()


def tags_of_run(own: Sequence[str]) -> tuple[str, ...]:
    """The tags of a run that is made here: those of its flow or task, then the others."""
    around = _here.get()
    return (*own, *sorted(around.difference(own))) if around else tuple(own)
