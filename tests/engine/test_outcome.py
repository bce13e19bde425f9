"""Final states from return values: the table of the specification, row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from embedded_orch import Orchestrator, State, errors, flow, task
from embedded_orch.states import (
    Cancelled,
    Completed,
    Crashed,
    Failed,
    Paused,
    Pending,
    Running,
    Scheduled,
)
from tests.opened import opened, states, the_flow_run, the_run_of


@pytest.fixture
def orch(url: str) -> Iterator[Orchestrator]:
    with opened(url) as orchestrator:
        yield orchestrator


@pytest.fixture
def quick() -> Iterator[Orchestrator]:
    with opened(":memory:") as orchestrator:
        yield orchestrator


@task
def one() -> int:
    return 1


@task
def bad() -> None:
    raise ValueError("bad")


def told(state: State[Any]) -> tuple[str, str, str | None]:
    return state.type.value, state.name, state.message


ROWS: list[tuple[str, Callable[[], Any], tuple[str, str, str | None]]] = [
    ("plain value", lambda: 5, ("COMPLETED", "Completed", None)),
    ("nothing", lambda: None, ("COMPLETED", "Completed", None)),
    ("empty list", list, ("COMPLETED", "Completed", None)),
    ("generator", lambda: (n for n in "ab"), ("COMPLETED", "Completed", None)),
    (
        "completed by hand",
        lambda: Completed(name="Fine", message="all is well", data=5),
        ("COMPLETED", "Fine", "all is well"),
    ),
    ("failed by hand", lambda: Failed(message="no luck"), ("FAILED", "Failed", "no luck")),
    ("failed with a text", lambda: Failed(data="no luck"), ("FAILED", "Failed", "no luck")),
    ("crashed by hand", lambda: Crashed(message="c"), ("CRASHED", "Crashed", "c")),
    ("cancelled by hand", lambda: Cancelled(message="c"), ("CANCELLED", "Cancelled", "c")),
    (
        "state of a run",
        lambda: one(return_state=True),
        ("COMPLETED", "Completed", "All states completed."),
    ),
    ("future", one.submit, ("COMPLETED", "Completed", "All states completed.")),
    ("failed future", bad.submit, ("FAILED", "Failed", "1/1 states failed.")),
    (
        "futures",
        lambda: [one.submit(), bad.submit()],
        ("FAILED", "Failed", "1/2 states failed."),
    ),
    (
        "states, one cancelled",
        lambda: (Completed(), Failed(), Cancelled()),
        ("CANCELLED", "Cancelled", "1/3 states cancelled."),
    ),
    (
        "states, one paused",
        lambda: {Completed(), Failed(), Paused()},
        ("PAUSED", "Paused", "1/3 states paused."),
    ),
    (
        "states, one crashed",
        lambda: [Completed(), Crashed()],
        ("FAILED", "Failed", "1/2 states failed."),
    ),
    (
        "states, one not final",
        lambda: [Completed(), Pending()],
        ("FAILED", "Failed", "1/2 states are not final."),
    ),
    ("states and values", lambda: [Completed(), 1], ("COMPLETED", "Completed", None)),
    ("states in a dict", lambda: {"a": Failed()}, ("COMPLETED", "Completed", None)),
]


@pytest.mark.parametrize(
    ("returned", "wanted"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_final_state_of_a_flow(quick: Orchestrator, returned: Any, wanted: Any) -> None:
    @flow
    def report() -> Any:
        return returned()

    state = report(return_state=True)
    stored = the_flow_run(quick).state

    assert told(state)[:2] == wanted[:2]
    assert stored is not None
    assert told(stored)[:2] == wanted[:2]
    if wanted[2] is not None:
        assert state.message == stored.message == wanted[2]


@pytest.mark.parametrize(
    ("returned", "wanted"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_final_state_of_a_task(quick: Orchestrator, returned: Any, wanted: Any) -> None:
    if wanted[0] == "PAUSED":
        pytest.skip("a task does not pause")

    @task
    def load() -> Any:
        return returned()

    @flow
    def report() -> Any:
        return told(load(return_state=True))

    assert report()[:2] == wanted[:2]


def test_state_made_by_the_user_has_its_value_also_when_it_is_read_again(
    orch: Orchestrator,
) -> None:
    @flow
    def report() -> Any:
        return Completed(name="Fine", data={"rows": 5})

    assert report() == {"rows": 5}

    stored = the_flow_run(orch).state
    assert stored is not None
    assert (stored.name, stored.result()) == ("Fine", {"rows": 5})


def test_failed_state_made_by_the_user_is_raised(orch: Orchestrator) -> None:
    @flow
    def report() -> Any:
        return Failed(name="Odd", message="no luck")

    with pytest.raises(errors.FailedRun, match="no luck"):
        report()

    stored = the_flow_run(orch).state
    assert stored is not None
    assert stored.name == "Odd"
    with pytest.raises(errors.FailedRun, match="no luck"):
        stored.result()


def test_exception_in_a_failed_state_made_by_the_user_is_raised_and_told(
    orch: Orchestrator,
) -> None:
    @flow
    def report() -> Any:
        return Failed(message="no luck", data=ValueError("at all"))

    with pytest.raises(ValueError, match="at all"):
        report()

    stored = the_flow_run(orch).state
    assert stored is not None
    assert stored.error_details is not None
    assert stored.error_details["message"] == "at all"


def test_generator_that_a_function_returns_gives_its_list(orch: Orchestrator) -> None:
    @task
    def load() -> Any:
        return (n for n in range(3))

    @flow
    def report() -> Any:
        return (n * 2 for n in load())

    assert report() == [0, 2, 4]


def test_generator_that_raises_fails_the_run(quick: Orchestrator) -> None:
    @flow
    def report() -> Any:
        return (1 / n for n in (1, 0))

    with pytest.raises(ZeroDivisionError):
        report()
    assert states(the_flow_run(quick))[-1] == "Failed"


def test_states_of_all_are_the_value(quick: Orchestrator) -> None:
    @flow
    def report() -> Any:
        return [one.submit(), one.submit()]

    found = report()

    assert [state.result() for state in found] == [1, 1]


def test_futures_among_values_become_states(quick: Orchestrator) -> None:
    @flow
    def report() -> Any:
        return {"one": one.submit(), "more": [bad.submit(), 3]}

    found = report()

    assert found["one"].result() == 1
    assert found["more"][0].is_failed()
    assert found["more"][1] == 3


@pytest.mark.parametrize("make", [Pending, Running, Scheduled])
def test_state_in_which_no_run_ends_fails_it(quick: Orchestrator, make: Any) -> None:
    @flow
    def report() -> Any:
        return make()

    with pytest.raises(errors.ConfigurationError, match="in which no run can end"):
        report()
    assert states(the_flow_run(quick))[-1] == "Failed"


def test_failed_state_that_a_task_returns_is_retried_like_an_exception(
    orch: Orchestrator,
) -> None:
    attempts: list[int] = []

    @task(retries=2)
    def load() -> Any:
        attempts.append(1)
        return Failed(message="not yet") if len(attempts) < 3 else "done"

    @flow
    def report() -> Any:
        return load()

    assert report() == "done"
    assert states(the_run_of(orch, load)) == [
        "Pending",
        "Running",
        "Retrying",
        "Retrying",
        "Completed",
    ]


def test_failed_state_that_a_task_returns_is_raised_once_its_retries_are_used_up(
    quick: Orchestrator,
) -> None:
    @task(retries=1)
    def load() -> Any:
        return Failed(message="never")

    @flow
    def report() -> Any:
        load()

    with pytest.raises(errors.FailedRun, match="never"):
        report()
    state = the_run_of(quick, load).state
    assert state is not None
    assert told(state) == ("FAILED", "Failed", "never")


def test_completed_state_that_a_task_returns_is_recorded_with_its_value(
    orch: Orchestrator,
) -> None:
    called: list[str] = []

    @task
    def load() -> Any:
        called.append("load")
        return Completed(name="Fine", data=5)

    @flow(retries=1)
    def report() -> Any:
        found = load()
        if len(called) == 1:
            called.append("again")
            raise ConnectionError
        return found

    assert report() == 5
    assert called == ["load", "again"]
    assert states(the_run_of(orch, load))[-1] == "Fine"
