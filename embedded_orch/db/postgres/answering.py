"""A connection that does not wait for an answer for ever.

The server stops a statement by itself when it has taken too long, and the kernel gives up a peer
that acknowledges nothing. Neither helps when what is between us and the server takes our bytes and
does nothing with them: a pooler that hangs, a firewall that has forgotten the connection, a host
that went away behind a proxy. So there is a limit on this side as well.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.rows import TupleRow

if TYPE_CHECKING:
    from collections.abc import Generator

    from psycopg.abc import PQGen
    from psycopg.waiting import Ready

# How many limits psycopg's own wait() takes: the interval, and since 3.3 a time, which costs
# nothing where ours costs a fifth of a statement's work.
_LIMITS_OF_WAIT = psycopg.Connection.wait.__code__.co_argcount - 2
# What psycopg's waiting says when neither bytes came nor could be sent.
_NOTHING = 0


class AnsweringConnection(psycopg.Connection[TupleRow]):
    """A connection whose statements fail when nothing has come for a while.

    What failed so is as if the connection had been lost: nobody knows what became of it, and the
    connection is of no more use.

    Attributes:
        answer_seconds: how long a call may wait for the server; None for ever.
    """

    answer_seconds: float | None = None

    def wait(self, gen: PQGen[Any], *limits: Any, **named: Any) -> Any:
        """Drive one call of the driver to its end.

        Raises:
            OperationalError: no answer came in time.
        """
        seconds = self.answer_seconds
        if seconds is not None and not named.get("timeout") and len(limits) < _LIMITS_OF_WAIT:
            if _LIMITS_OF_WAIT > 1:
                named["timeout"] = seconds
            else:
                gen = _bounded(gen, seconds)
        return super().wait(gen, *limits, **named)


@contextmanager
def answering_within(
    connection: psycopg.Connection[TupleRow], seconds: float | None
) -> Generator[None, None, None]:
    """Have calls on a connection wait so long at most, in a block; None: for ever."""
    if not isinstance(connection, AnsweringConnection):
        yield
        return
    usual, connection.answer_seconds = connection.answer_seconds, seconds
    try:
        yield
    finally:
        connection.answer_seconds = usual


def _bounded(steps: PQGen[Any], seconds: float) -> PQGen[Any]:
    """The same steps, until they have taken so long without an end; for psycopg 3.2."""
    deadline = time.monotonic() + seconds
    ready: Ready | int | None = None
    while True:
        try:
            wanted = next(steps) if ready is None else steps.send(ready)
        except StopIteration as end:
            return end.value
        ready = yield wanted
        # It comes several times a second, so that Ctrl-C is heard.
        if ready == _NOTHING and time.monotonic() >= deadline:
            raise psycopg.OperationalError(f"no answer from the server for {seconds:g} s")
