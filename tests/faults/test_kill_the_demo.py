"""A few of the kills that `kill_the_demo.py` does by the hundred, and what it would notice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.faults.kill_the_demo import Attempt, kill_often, problems_with

SMALL_PACKAGE = Path(json.__file__).parent


def an_attempt(
    *,
    was_killed: bool = False,
    begun: tuple[str, ...] = (),
    recorded: tuple[str, ...] = (),
    files_in_database: int | None = None,
    said: tuple[int, int] = (0, 0),
) -> Attempt:
    return Attempt(
        was_killed=was_killed,
        seconds=1.0,
        output="" if was_killed else f"{said[0]} files from the record, {said[1]} done now",
        begun=list(begun),
        recorded=set(recorded),
        files_in_database=len(recorded) if files_in_database is None else files_in_database,
    )


KILLED = an_attempt(was_killed=True, begun=("a", "b"), recorded=("a",))


def test_three_kills_at_random_moments_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    said: list[str] = []

    problems = kill_often(tmp_path, SMALL_PACKAGE, times=3, seed=11, say=said.append)

    assert problems == []
    assert "   3 kills" in said[-1]


def test_a_run_that_goes_on_where_it_was_killed_has_no_problem() -> None:
    resumed = an_attempt(begun=("b", "c"), recorded=("a", "b", "c"), said=(1, 2))

    assert problems_with([KILLED, resumed], files=3) == []


@pytest.mark.parametrize(
    ("resumed", "problem"),
    [
        pytest.param(
            an_attempt(begun=("a", "b", "c"), recorded=("a", "b", "c"), said=(1, 2)),
            "attempt 1 did 1 finished files again: ['a']",
            id="a recorded file is begun again",
        ),
        pytest.param(
            an_attempt(begun=("b", "c"), recorded=("a", "b", "c"), said=(0, 3)),
            "attempt 1: 1 of 3 files were recorded, but it said [0, 3]",
            id="the figures it prints are not true",
        ),
        pytest.param(
            an_attempt(begun=("b",), recorded=("a", "b"), said=(1, 2)),
            "2 files are recorded of 3",
            id="a file is missing in the end",
        ),
        pytest.param(
            an_attempt(recorded=("a", "b", "c"), files_in_database=0, said=(1, 2)),
            "1 files were recorded, and 0 later",
            id="the record shrinks",
        ),
    ],
)
def test_what_does_not_hold_is_reported(resumed: Attempt, problem: str) -> None:
    assert problem in problems_with([KILLED, resumed], files=3)


def test_a_file_that_the_flow_saw_and_the_kill_lost_is_reported() -> None:
    forgetful = KILLED._replace(files_in_database=0)
    resumed = an_attempt(begun=("b", "c"), recorded=("a", "b", "c"), said=(0, 3))

    assert "1 files were on record, and 0 were kept" in problems_with([forgetful, resumed], files=3)
