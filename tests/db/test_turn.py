"""The turn at the write connection: one holder, first come, first served."""

from __future__ import annotations

import threading

from embedded_orch.db.sqlite.turn import Turn
from tests.engine.waiting import passed, until


def waiter(turn: Turn, holder: object, has_taken: threading.Event) -> threading.Thread:
    """A thread that waits for the turn and keeps it."""

    def wait() -> None:
        if turn.take(holder, seconds=60):
            has_taken.set()

    before = len(turn._waiting)
    thread = threading.Thread(target=wait)
    thread.start()
    until(lambda: len(turn._waiting) == before + 1, "the thread waits")
    return thread


def test_one_holder_at_a_time() -> None:
    turn, first, second = Turn(), object(), object()

    assert turn.take_if_free(first)
    assert not turn.take_if_free(second)
    assert not turn.take(second, seconds=0)

    turn.give(second)
    assert turn.is_held_by(first)

    turn.give(first)
    assert turn.take(second, seconds=0)


def test_nobody_passes_who_waits() -> None:
    """Seen to fail when whoever ran took it: the one that gave it had it again at once."""
    turn, busy, patient = Turn(), object(), object()
    has_taken = threading.Event()
    turn.take_if_free(busy)
    thread = waiter(turn, patient, has_taken)

    for _ in range(100):
        turn.give(busy)
        assert not turn.take_if_free(busy)

    passed(has_taken)
    thread.join()
    assert turn.is_held_by(patient)


def test_who_waits_is_served_in_order() -> None:
    turn, holder = Turn(), object()
    turn.take_if_free(holder)
    waiting = [(object(), threading.Event()) for _ in range(3)]
    threads = [waiter(turn, each, has_taken) for each, has_taken in waiting]

    for each, has_taken in waiting:
        turn.give(holder)
        passed(has_taken)
        assert turn.is_held_by(each)
        holder = each

    for thread in threads:
        thread.join()


def test_who_gives_up_stands_in_nobodys_way() -> None:
    turn, holder, impatient, next_one = Turn(), object(), object(), object()
    turn.take_if_free(holder)

    assert not turn.take(impatient, seconds=0.01)

    turn.give(holder)
    assert turn.take_if_free(next_one)
