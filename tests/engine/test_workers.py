"""Interrupting the code of one thread from another, and bells."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from embedded_orch.db.bell import Bell
from embedded_orch.engine.workers import Interruptible, Interruption
from tests.engine.waiting import passed

if TYPE_CHECKING:
    from collections.abc import Callable


class InThread:
    """A function in a thread, and what it returned or raised."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.answer: Any = None
        self._function = function
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.answer = self._function()
        except BaseException as error:
            self.answer = error

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def ended(self) -> Any:
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self.answer


def go_on(code: Interruptible, begun: threading.Event) -> None:
    """Until it is interrupted."""
    with code:
        begun.set()
        while True:
            threading.Event().wait(0.001)


def test_interruption_is_raised_in_the_block() -> None:
    code, begun = Interruptible(), threading.Event()
    thread = InThread(lambda: go_on(code, begun))
    passed(begun)
    code.interrupt("enough")

    assert isinstance(thread.ended(), Interruption)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="threads have their own identity at once")
def test_interruption_waits_for_a_thread_that_is_being_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seen without that, 14 times of 400: it ended the new thread, not the one that started it."""
    code, begun, starting = Interruptible(), threading.Event(), threading.Thread()
    thread = InThread(lambda: go_on(code, begun))
    passed(begun)
    on_their_way: dict[threading.Thread, object] = {starting: None}
    monkeypatch.setattr(threading, "_limbo", on_their_way)
    sender = InThread(lambda: code.interrupt("enough"))
    time.sleep(0.05)
    assert thread.is_alive()
    del on_their_way[starting]

    assert sender.ended() is None
    assert isinstance(thread.ended(), Interruption)


def test_interruption_between_blocks_is_raised_when_the_next_is_entered() -> None:
    code = Interruptible()
    code.interrupt("enough")

    with pytest.raises(Interruption, match="enough"):
        with code:
            raise AssertionError("the block was entered")


def test_interruption_is_not_raised_behind_its_block() -> None:
    """Seen to fail without the taking back, which took place in about every second round."""

    def work(code: Interruptible, begun: Bell) -> str:
        try:
            with code:
                begun.ring()
        except Interruption:
            return "inside"
        for _ in range(1000):
            threading.get_ident()
        return "behind"

    for _ in range(300):
        code, begun = Interruptible(), Bell()
        thread = InThread(lambda code=code, begun=begun: work(code, begun))  # type: ignore[misc]
        begun.wait()
        code.interrupt("enough")
        assert thread.ended() in ("inside", "behind")


def test_block_in_a_block_is_still_inside() -> None:
    code, begun = Interruptible(), threading.Event()

    def work() -> None:
        with code:
            with code:
                begun.set()
            while True:
                threading.Event().wait(0.001)

    thread = InThread(work)
    passed(begun)
    code.interrupt("enough")

    assert isinstance(thread.ended(), Interruption)


LEFT_OVER = """
import sys
from embedded_orch.engine.workers import _take_back

_take_back()

def trace(frame, event, argument):
    return trace

sys.settrace(trace)
for _ in range(3):
    def function(): return 1
    function()
print("done")
"""


def test_nothing_is_left_in_the_interpreter_by_what_was_taken_back() -> None:
    """Seen to hang when the interpreter's own way of taking back was used."""
    ended = subprocess.run(
        [sys.executable, "-c", LEFT_OVER], capture_output=True, text=True, timeout=60, check=True
    )

    assert ended.stdout == "done\n"


@pytest.mark.parametrize("is_in_block", [False, True])
def test_interruption_ends_a_wait(is_in_block: bool) -> None:
    code, begun = Interruptible(), threading.Event()

    def work() -> None:
        if is_in_block:
            with code:
                begun.set()
                code.wait(Bell())
        else:
            begun.set()
            code.wait(Bell())

    thread = InThread(work)
    passed(begun)
    code.interrupt("enough")

    assert isinstance(thread.ended(), Interruption)


def test_what_comes_after_a_reset_is_not_interrupted() -> None:
    code = Interruptible()
    code.interrupt("enough")
    code.reset()

    with code:
        code.wait(Bell(), 0)


def test_bell_that_rang_twice_is_heard_once() -> None:
    bell = Bell()
    bell.ring()
    bell.ring()

    assert bell.wait()
    assert not bell.wait(0)
