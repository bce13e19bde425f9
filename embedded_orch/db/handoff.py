"""How an event loop waits for an answer that another thread gives, on asyncio and on trio.

The loop's own primitive for it in each: an asyncio future or a trio event, set by a function that
the loop is asked to call. Nothing here blocks, and no thread is borrowed.

A loop is asked once for all answers that wait to be given there, and gives a few of them in each of
its rounds; calls that begin all at once are let in a few in a round likewise. So a thousand of ours
do not keep the other tasks of the loop from running until each of them has had its turn.
"""

from __future__ import annotations

import sys
import threading
import weakref
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

# Each works for a tenth of a millisecond or two once it is woken.
_MOST_IN_A_ROUND = 16


class Answer(Protocol):
    """What the waiting task holds."""

    def notify(self) -> None:
        """Called by the answering thread, once."""
        ...

    def wait(self) -> Awaitable[object]:
        """To be awaited once: until :meth:`notify`. Raises the cancellation of the task."""
        ...


def answer_for_running_loop() -> Answer:
    """An answer that the running task can wait for."""
    return _mailbox_here().answer()


def call_in_running_loop(function: Callable[[], object]) -> Callable[[], None]:
    """What has a function called in the loop that runs here, when another thread calls it."""
    mailbox = _mailbox_here()

    def call() -> None:
        mailbox.call(function)

    return call


def turn_to_begin() -> Awaitable[object] | None:
    """What a call has to await before it begins; None if few have begun in this round of the loop.

    It raises the cancellation of the task.
    """
    mailbox = _mailbox_here()
    if mailbox.lets_in():
        return None
    answer = mailbox.answer()
    answer.notify()
    return answer.wait()


class _Mailbox(ABC):
    """What is to be done in one loop, in order, a few in each of its rounds.

    Any thread may put something in. It keeps no loop alive that nobody else does.
    """

    def __init__(self, loop: Any) -> None:
        self.loop = weakref.ref(loop)
        self._letters: deque[Callable[[], object]] = deque()
        self._is_called = False
        self._begun = 0

    @abstractmethod
    def answer(self) -> Answer:
        """An answer that a task of the loop can wait for."""

    @abstractmethod
    def _call_soon(self, loop: Any, function: Callable[[], object]) -> None:
        """Have a loop call a function; RuntimeError when it has ended."""

    def put(self, letter: Callable[[], object]) -> None:
        """Have something done in the loop that cannot raise; for nothing if the loop has ended."""
        self._letters.append(letter)
        if not self._is_called:
            self._ask()

    def call(self, function: Callable[[], object]) -> bool:
        """Have a function called in the loop, before what is in here; False if it has ended."""
        loop = self.loop()
        if loop is None:
            return False
        try:
            self._call_soon(loop, function)
        except RuntimeError:
            # The loop was closed, or the run ended: nobody waits there any more.
            return False
        return True

    def lets_in(self) -> bool:
        """Whether the task that runs may go on in this round."""
        if self._letters or self._begun >= _MOST_IN_A_ROUND:
            return False
        self._begun += 1
        return True

    def _ask(self) -> None:
        # Before the call: the loop may be there before this thread goes on.
        self._is_called = True
        if not self.call(self._open):
            self._is_called = False
            self._letters.clear()

    def _open(self) -> None:
        # Before anything is taken: who comes too late for this round asks for another.
        self._is_called = False
        self._begun = 0
        try:
            for _ in range(min(len(self._letters), _MOST_IN_A_ROUND)):
                self._letters.popleft()()
        finally:
            # Also when Ctrl-C came between two of them.
            if self._letters:
                self._ask()


class _AsyncioMailbox(_Mailbox):
    def answer(self) -> Answer:
        return _AsyncioAnswer(self)

    def _call_soon(self, loop: Any, function: Callable[[], object]) -> None:
        loop.call_soon_threadsafe(function)


class _TrioMailbox(_Mailbox):
    def answer(self) -> Answer:
        return _TrioAnswer(self)

    def _call_soon(self, loop: Any, function: Callable[[], object]) -> None:
        loop.run_sync_soon(function)


class _Here(threading.local):
    """The mailbox of the loop that ran last in this thread: a thread runs one at a time."""

    mailbox: _Mailbox | None = None


_here = _Here()


def _mailbox_here() -> _Mailbox:
    token = _running_trio()
    loop = sys.modules["asyncio"].get_running_loop() if token is None else token
    mailbox = _here.mailbox
    if mailbox is None or mailbox.loop() is not loop:
        kind = _AsyncioMailbox if token is None else _TrioMailbox
        mailbox = _here.mailbox = kind(loop)
    return mailbox


def _running_trio() -> object | None:
    """The token of the trio that runs here, if one does."""
    trio = sys.modules.get("trio")
    if trio is None:
        return None
    try:
        token: object = trio.lowlevel.current_trio_token()
    except RuntimeError:
        # trio is imported, and this loop is not its.
        return None
    return token


class _AsyncioAnswer:
    """An asyncio future, set from another thread."""

    __slots__ = ("_future", "_mailbox")

    def __init__(self, mailbox: _Mailbox) -> None:
        loop = mailbox.loop()
        assert loop is not None, "it runs"
        self._mailbox = mailbox
        self._future: asyncio.Future[None] = loop.create_future()

    def notify(self) -> None:
        """Called by the answering thread, once."""
        self._mailbox.put(self._set)

    def _set(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    def wait(self) -> Awaitable[object]:
        """To be awaited once: until :meth:`notify`. Raises the cancellation of the task."""
        # Itself, and no coroutine around it: a thousand of them are looked at by the collector.
        return self._future


class _TrioAnswer:
    """A trio event, set from another thread."""

    __slots__ = ("_event", "_mailbox")

    def __init__(self, mailbox: _Mailbox) -> None:
        import trio

        self._mailbox = mailbox
        self._event = trio.Event()

    def notify(self) -> None:
        """Called by the answering thread, once."""
        self._mailbox.put(self._event.set)

    def wait(self) -> Awaitable[object]:
        """To be awaited once: until :meth:`notify`. Raises the cancellation of the task."""
        return self._event.wait()
