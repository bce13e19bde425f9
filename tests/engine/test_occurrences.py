"""Which of equal calls a call is, when most of them are let go of."""

from __future__ import annotations

from collections import Counter
from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedded_orch import flow, task
from embedded_orch.engine import occurrences
from embedded_orch.engine.occurrences import Occurrences
from embedded_orch.states import StateType
from tests.opened import opened, runs_of, the_flow_run

LETTERS = st.lists(st.sampled_from("abcdefghijkl"), max_size=60)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few calls are remembered, and marks of different calls meet."""
    monkeypatch.setattr(occurrences, "_REMEMBERED", 3)
    monkeypatch.setattr(occurrences, "_BITS", 32)


def digest_of(letter: str) -> bytes:
    return blake2b(letter.encode(), digest_size=12).digest()


@given(LETTERS)
def test_calls_are_numbered_as_by_a_count_of_all(calls: list[str]) -> None:
    counted = Occurrences(lets_go=True)
    records: Counter[str] = Counter()
    for call in calls:
        number = counted.next_of(digest_of(call))
        if number is None:
            number = counted.next_after(digest_of(call), records[call])
        assert number == records[call]
        records[call] += 1


@given(LETTERS)
def test_attempt_that_finds_records_looks_nothing_up(calls: list[str]) -> None:
    counted = Occurrences(lets_go=False)

    numbers = [counted.next_of(digest_of(call)) for call in calls]

    assert numbers == [calls[:place].count(call) for place, call in enumerate(calls)]


def test_two_threads_that_look_up_equal_calls_get_two_numbers() -> None:
    counted = Occurrences(lets_go=True)
    for letter in "abcdefgh":
        counted.next_of(digest_of(letter))
    assert counted.next_of(digest_of("a")) is None
    assert counted.next_of(digest_of("a")) is None

    assert [counted.next_after(digest_of("a"), 1) for _ in range(2)] == [1, 2]


@task
def work(number: int) -> int:
    return number


FAILURES: list[str] = []


@flow
def repeating() -> list[int]:
    found = [work(number % 7) for number in range(30)]
    if FAILURES:
        raise ValueError(FAILURES.pop())
    return found


def test_equal_calls_of_long_ago_have_their_own_records(url: str) -> None:
    with opened(url) as orchestrator:
        repeating()

        keys = {run.dynamic_key for run in runs_of(orchestrator, work)}

    assert len(keys) == 30
    endings = Counter(key.partition("-")[2] for key in keys)
    assert endings == {"": 7, "1": 7, "2": 7, "3": 7, "4": 2}


def test_resumed_run_takes_equal_calls_of_long_ago_from_their_records(url: str) -> None:
    with opened(url) as orchestrator:
        FAILURES.append("at the end")
        repeating(return_state=True)
        run = the_flow_run(orchestrator)

        assert repeating.resume(run.id) == [n % 7 for n in range(30)]

        done = runs_of(orchestrator, work)
        assert len(done) == 30
        assert {run.run_count for run in done} == {1}
        assert {run.state.type for run in done} == {StateType.COMPLETED}
