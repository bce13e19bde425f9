"""Runs whose code or calls have changed when they are resumed, and reruns from a task on."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING, Any

import pytest

from embedded_orch import errors, flow, task
from embedded_orch.cache_policies import INPUTS
from tests.opened import opened, runs_of, states, the_flow_run, the_run_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from embedded_orch import Orchestrator

WARNING = 30


@pytest.fixture
def orch(url: str) -> Iterator[Orchestrator]:
    with opened(url) as orchestrator:
        yield orchestrator


class Bench:
    """A flow whose body changes between its attempts, and what its tasks have been called with.

    Its tasks are load and save. They are found by their names, so a task that is decorated anew
    under the name of another is that task with other code.
    """

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.body: Callable[[], Any] = lambda: None
        self.load = task(self._named("load", lambda x: ["load", x]))
        self.save = task(self._named("save", lambda x: ["save", x]))

    def _named(self, name: str, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def call(x: Any) -> Any:
            self.calls.append((name, x))
            return function(x)

        call.__qualname__ = call.__name__ = name
        return call

    def with_new_code(self, name: str) -> None:
        """The task of a name has other code from now on."""

        def call(x: Any) -> Any:
            self.calls.append((name, x))
            return [name, "new", x]

        call.__qualname__ = call.__name__ = name
        setattr(self, name, task(call))

    def calls_again(self) -> list[Any]:
        """What was called since the last question."""
        found, self.calls = self.calls, []
        return found


@pytest.fixture
def bench() -> Bench:
    return Bench()


def made(bench: Bench, **options: Any) -> Any:
    @flow(**options)
    def report() -> Any:
        return bench.body()

    return report


def failed(orch: Orchestrator, bench: Bench, report: Any, body: Callable[[], Any]) -> Any:
    """The id of a run whose function has done something, and then failed."""

    def and_fail() -> None:
        body()
        raise ConnectionError("no network")

    bench.body = and_fail
    with pytest.raises(ConnectionError):
        report()
    bench.calls_again()
    return the_flow_run(orch, flow_name="report").id


def told(orch: Orchestrator) -> list[str]:
    """The warnings in the log of the run."""
    run_id = the_flow_run(orch).id
    lines = orch.logs.find(flow_run_id=run_id, min_level=WARNING, max_level=WARNING)
    return [line.message for line in lines]


# -- what is told ----------------------------------------------------------------------------------


def test_an_unchanged_run_is_told_nothing(orch: Orchestrator, bench: Bench) -> None:
    report = made(bench)

    def body() -> list[Any]:
        return [bench.load(1), bench.load(1), *bench.save.map([1, 2, 3]).result()]

    run_id = failed(orch, bench, report, body)
    bench.body = lambda: [*body(), bench.load(2)]

    assert report.resume(run_id)[-1] == ["load", 2]

    assert bench.calls_again() == [("load", 2)]
    assert told(orch) == []


def test_results_of_changed_code_stand_and_that_is_told_once(
    orch: Orchestrator, bench: Bench
) -> None:
    report = made(bench)

    def body() -> list[Any]:
        return [bench.load(1), bench.load(2), bench.save(1)]

    run_id = failed(orch, bench, report, body)
    recorded = runs_of(orch, bench.load)[0]
    bench.with_new_code("load")
    bench.body = body

    assert report.resume(run_id) == [["load", 1], ["load", 2], ["save", 1]]

    assert bench.calls_again() == []
    [line] = told(orch)
    assert f"the source of {bench.load.task_key} has changed: {recorded.name}" in line
    assert "with source" in line
    assert "finished results stand" in line


def test_the_fix_of_a_task_that_failed_is_no_change_that_is_told(
    orch: Orchestrator, bench: Bench
) -> None:
    report = made(bench)
    broken = [True]

    def fails(x: Any) -> Any:
        if broken:
            raise ValueError(x)
        return x

    fails.__qualname__ = "save"
    bench.save = task(fails)
    bench.body = lambda: [bench.load(1), bench.save(1)]
    with pytest.raises(ValueError, match="1"):
        report()
    bench.with_new_code("save")

    assert report.resume(the_flow_run(orch).id)[1] == ["save", "new", 1]

    assert [line for line in told(orch) if "changed" in line] == []


def test_calls_that_are_not_made_again_are_told_with_those_that_came(
    orch: Orchestrator, bench: Bench
) -> None:
    report = made(bench)
    run_id = failed(orch, bench, report, lambda: [bench.load(1), bench.load(2), bench.save(1)])
    names = [run.name for run in runs_of(orch, bench.load)]
    bench.body = lambda: [bench.load(2), bench.load(3)]

    assert report.resume(run_id) == [["load", 2], ["load", 3]]

    assert bench.calls_again() == [("load", 3)]
    came = runs_of(orch, bench.load)[-1].name
    saved = the_run_of(orch, bench.save).name
    of_load, of_save = sorted(told(orch), key=lambda line: "save" in line)
    assert of_load == (
        f"calls of {bench.load.task_key} that are on record were not made again: {names[0]}; made "
        f"instead: {came}; what is on record and was not asked for is not used"
    )
    assert of_save.startswith(
        f"calls of {bench.save.task_key} that are on record were not made again: {saved}; what"
    )


def test_a_run_that_fails_earlier_this_time_is_told_nothing(
    orch: Orchestrator, bench: Bench
) -> None:
    report = made(bench)
    run_id = failed(orch, bench, report, lambda: [bench.load(1), bench.save(1)])

    def fails() -> None:
        raise ConnectionError("again")

    bench.body = fails
    with pytest.raises(ConnectionError):
        report.resume(run_id)

    assert told(orch) == []


def test_calls_inside_of_a_task_that_is_not_run_again_are_not_missed(
    orch: Orchestrator, bench: Bench
) -> None:
    @task
    def outer() -> list[Any]:
        return [bench.load(1), bench.load(2)]

    report = made(bench)
    run_id = failed(orch, bench, report, outer)
    bench.body = lambda: [outer(), bench.save(1)]

    assert report.resume(run_id) == [[["load", 1], ["load", 2]], ["save", 1]]

    assert bench.calls_again() == [("save", 1)]
    assert told(orch) == []


def test_calls_inside_of_a_task_that_is_run_again_are_missed(
    orch: Orchestrator, bench: Bench
) -> None:
    inputs = iter([1, 2])

    @task
    def outer() -> Any:
        found = bench.load(next(inputs))
        if found == ["load", 1]:
            raise ConnectionError("in the middle")
        return found

    report = made(bench)
    bench.body = outer
    with pytest.raises(ConnectionError):
        report()

    assert report.resume(the_flow_run(orch).id) == ["load", 2]

    assert [line for line in told(orch) if bench.load.task_key in line] != []


# -- strict ----------------------------------------------------------------------------------------


def strict(given: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """That a run is strict, said for the flow or for the resume."""
    return ({"on_change": "strict"}, {}) if given == "flow" else ({}, {"on_change": "strict"})


CHANGES: dict[str, Callable[[Bench], Any]] = {
    "other inputs": lambda bench: [bench.load(3), bench.load(2), bench.save(9)],
    "one call more, before": lambda bench: [bench.load(0), bench.load(1), bench.load(2)],
    "one call less": lambda bench: [bench.load(1), bench.save(9)],
    "none of the task": lambda bench: [bench.save(9)],
}


@pytest.mark.parametrize("given", ["flow", "resume"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_strict_run_stops_before_anything_runs_that_is_not_as_it_was(
    orch: Orchestrator, bench: Bench, change: str, given: str
) -> None:
    options, choices = strict(given)
    report = made(bench, retries=2, **options)
    bench.body = lambda: [bench.load(1), bench.load(2), 1 / 0]
    with pytest.raises(ZeroDivisionError):
        report()
    bench.calls_again()
    bench.body = lambda: CHANGES[change](bench)
    run_id = the_flow_run(orch).id

    with pytest.raises(errors.RunChanged) as caught:
        report.resume(run_id, **choices)

    assert bench.calls_again() == []
    [found] = caught.value.changes
    assert (found.task, found.what) == (bench.load.task_key, "calls")
    assert str(found) in str(caught.value)
    # Not even the retries of the flow try again.
    assert states(the_flow_run(orch))[-1] == "Failed"
    assert bench.load.task_key in (the_flow_run(orch).state or bench).message
    # What is on record is still there, for whoever resumes it in another way.
    bench.body = lambda: [bench.load(1), bench.load(2)]
    assert report.resume(run_id) == [["load", 1], ["load", 2]]


def test_a_strict_run_stops_at_changed_code(orch: Orchestrator, bench: Bench) -> None:
    report = made(bench, on_change="strict")
    run_id = failed(orch, bench, report, lambda: bench.load(1))
    bench.with_new_code("load")
    bench.body = lambda: [bench.load(1), bench.save(1)]

    with pytest.raises(errors.RunChanged, match="the source of") as caught:
        report.resume(run_id)

    [change] = caught.value.changes
    assert (change.what, len(change.recorded), len(change.came)) == ("code", 1, 1)
    assert bench.calls_again() == []
    assert report.resume(run_id, on_change="keep") == [["load", 1], ["save", 1]]


def test_a_strict_run_that_ends_with_calls_left_has_failed(
    orch: Orchestrator, bench: Bench
) -> None:
    report = made(bench, on_change="strict")
    run_id = failed(orch, bench, report, lambda: [bench.load(1), bench.load(2)])
    bench.body = lambda: bench.load(1)

    with pytest.raises(errors.RunChanged, match="not made again"):
        report.resume(run_id)


def test_a_strict_run_cannot_swallow_that_it_has_changed(orch: Orchestrator, bench: Bench) -> None:
    report = made(bench, on_change="strict")
    run_id = failed(orch, bench, report, lambda: bench.load(1))

    def swallows() -> str:
        with pytest.raises(errors.RunChanged):
            bench.load(2)
        bench.load(1)
        return "all is well"

    bench.body = swallows

    with pytest.raises(errors.RunChanged):
        report.resume(run_id)


def test_an_unchanged_strict_run_goes_on(orch: Orchestrator, bench: Bench) -> None:
    """Submitted tasks of which some had not begun, a task in a task, and a flow in it."""

    @task
    def outer(x: int) -> Any:
        return [bench.load(x), bench.load(x + 1)]

    @flow
    def child() -> Any:
        return bench.save("child")

    report = made(bench, on_change="strict")

    def body(count: int) -> list[Any]:
        found = bench.load.map(range(count)).result()
        return [*found, outer(10), child(), bench.save("end")]

    run_id = failed(orch, bench, report, lambda: body(20))
    bench.body = lambda: [*body(20), bench.load.map(range(100, 110)).result(), outer(20)]

    found = report.resume(run_id)

    assert len(found) == 25
    assert ("save", "child") not in bench.calls
    assert len(bench.calls_again()) == 12


def test_a_flow_that_is_called_is_as_strict_as_its_caller(orch: Orchestrator, bench: Bench) -> None:
    inner: list[Any] = [1]

    @flow
    def child() -> Any:
        found = bench.load(inner[0])
        if inner == [1]:
            raise ConnectionError
        return found

    report = made(bench)
    bench.body = child
    with pytest.raises(ConnectionError):
        report()
    bench.calls_again()
    inner[0] = 2

    [run] = orch.flow_runs.find(flow_name="report")
    with pytest.raises(errors.RunChanged):
        report.resume(run.id, on_change="strict")
    assert bench.calls_again() == []
    assert report.resume(run.id) == ["load", 2]


# -- by position -----------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["flow", "resume"])
def test_inputs_that_never_repeat_are_matched_by_position(
    orch: Orchestrator, bench: Bench, given: str
) -> None:
    options, choices = (
        ({"match": "position"}, {}) if given == "flow" else ({}, {"match": "position"})
    )
    report = made(bench, **options)
    stamp = itertools.count(100)

    def body() -> list[Any]:
        first = bench.load(next(stamp))
        futures = [bench.save.submit(next(stamp)) for _ in range(8)]
        return [first, *(future.result() for future in futures)]

    run_id = failed(orch, bench, report, body)
    bench.body = lambda: [*body(), bench.load(next(stamp))]

    found = report.resume(run_id, **choices)

    assert found == [["load", 100], *(["save", 101 + n] for n in range(8)), ["load", 118]]
    assert bench.calls_again() == [("load", 118)]
    assert told(orch) == []


def test_a_retry_matches_by_position_too(orch: Orchestrator, bench: Bench) -> None:
    report = made(bench, match="position", retries=1)
    stamp = itertools.count(1)

    def body() -> list[Any]:
        found = [bench.load(next(stamp)), bench.load(next(stamp))]
        if next(stamp) == 3:
            raise ConnectionError
        return found

    bench.body = body

    assert report() == [["load", 1], ["load", 2]]
    assert bench.calls_again() == [("load", 1), ("load", 2)]


def test_calls_that_fall_out_of_place_do_not_meet_each_other(
    orch: Orchestrator, bench: Bench
) -> None:
    """By position, a new call has the inputs of a recorded one at another place."""
    report = made(bench)
    run_id = failed(orch, bench, report, lambda: [bench.load(1), bench.load(2)])
    bench.body = lambda: [bench.load(9), bench.load(9), bench.load(1), bench.load(1)]

    assert report.resume(run_id, match="position") == [
        ["load", 1],
        ["load", 2],
        ["load", 1],
        ["load", 1],
    ]
    assert bench.calls_again() == [("load", 1), ("load", 1)]


def test_inputs_that_never_repeat_are_told_of_where_nothing_is_chosen(
    orch: Orchestrator, bench: Bench
) -> None:
    report = made(bench)
    stamp = itertools.count(1)
    run_id = failed(orch, bench, report, lambda: bench.load(next(stamp)))
    bench.body = lambda: bench.load(next(stamp))

    assert report.resume(run_id) == ["load", 2]

    assert len(told(orch)) == 1


# -- rerun_from ------------------------------------------------------------------------------------


def test_a_run_is_run_again_from_a_task_on(orch: Orchestrator, bench: Bench) -> None:
    report = made(bench)
    bench.body = lambda: [bench.load(1), bench.save(1), bench.load(2), bench.save(2)]
    report()
    run = the_flow_run(orch)
    assert bench.calls_again() == [("load", 1), ("save", 1), ("load", 2), ("save", 2)]
    # A completed run, whose value is there, runs nothing otherwise.
    assert report.resume(run.id) == [["load", 1], ["save", 1], ["load", 2], ["save", 2]]
    bench.with_new_code("save")

    assert report.resume(run.id, rerun_from=bench.save) == [
        ["load", 1],
        ["save", "new", 1],
        ["load", 2],
        ["save", "new", 2],
    ]

    assert bench.calls_again() == [("save", 1), ("load", 2), ("save", 2)]
    run = the_flow_run(orch)
    assert states(run) == [
        "Pending",
        "Running",
        "Completed",
        "Superseded",
        "Running",
        "Completed",
    ]
    again = runs_of(orch, bench.save)[0]
    assert [state.name for state in again.history if state.is_final()] == [
        "Completed",
        "Superseded",
        "Completed",
    ]
    # What was recorded before can still be read.
    assert again.history[2].result() == ["save", 1]
    assert states(runs_of(orch, bench.load)[0]) == ["Pending", "Running", "Completed"]


@pytest.mark.parametrize("form", ["id", "text", "name", "task run", "key"])
def test_the_call_to_run_again_from_is_named_in_any_form(
    orch: Orchestrator, bench: Bench, form: str
) -> None:
    report = made(bench)
    run_id = failed(orch, bench, report, lambda: [bench.load(1), bench.load(2)])
    second = runs_of(orch, bench.load)[1]
    named: Any = {
        "id": second.id,
        "text": str(second.id),
        "name": second.name,
        "task run": second.id.hex,
        "key": bench.load.task_key,
    }[form]
    bench.body = lambda: [bench.load(1), bench.load(2)]

    report.resume(run_id, rerun_from=named)

    first = [("load", 1)] if form == "key" else []
    assert bench.calls_again() == [*first, ("load", 2)]


def test_what_is_to_be_run_again_stays_so_when_the_process_dies(
    orch: Orchestrator, bench: Bench
) -> None:
    """Here the flow fails after the first of them; the second resume is told nothing of it."""
    report = made(bench)
    bench.body = lambda: [bench.load(1), bench.save(1), bench.save(2)]
    report()
    run_id = the_flow_run(orch).id
    bench.calls_again()

    def fails() -> None:
        bench.load(1)
        raise ConnectionError

    bench.body = fails
    with pytest.raises(ConnectionError):
        report.resume(run_id, rerun_from=bench.load)
    assert bench.calls_again() == [("load", 1)]
    bench.body = lambda: [bench.load(1), bench.save(1), bench.save(2)]

    report.resume(run_id)

    assert bench.calls_again() == [("save", 1), ("save", 2)]


def test_a_call_inside_of_a_task_is_run_again_with_what_called_it(
    orch: Orchestrator, bench: Bench
) -> None:
    @task
    def outer() -> Any:
        return [bench.save(1), bench.load(1)]

    report = made(bench)
    bench.body = lambda: [bench.load(0), outer()]
    report()
    bench.calls_again()
    inner = runs_of(orch, bench.load)[1]

    report.resume(the_flow_run(orch).id, rerun_from=inner.id)

    assert bench.calls_again() == [("load", 1)]
    assert "Superseded" in states(the_run_of(orch, outer))


def test_a_flow_that_was_called_is_run_again_as_a_whole(orch: Orchestrator, bench: Bench) -> None:
    @flow
    def grandchild() -> Any:
        return bench.load("deep")

    @flow
    def child() -> Any:
        return [bench.load(1), grandchild()]

    report = made(bench)
    bench.body = lambda: [bench.save(1), child(), bench.save(2)]
    report()
    bench.calls_again()
    [run] = orch.flow_runs.find(flow_name="report")

    report.resume(run.id, rerun_from=child)

    assert bench.calls_again() == [("load", 1), ("load", "deep"), ("save", 2)]
    for name in ("child", "grandchild"):
        [run] = orch.flow_runs.find(flow_name=name)
        assert states(run)[-3:] == ["Superseded", "Running", "Completed"]


def test_what_is_run_again_is_not_taken_from_the_cache(orch: Orchestrator, bench: Bench) -> None:
    cached = bench.load.with_options(cache_policy=INPUTS)
    report = made(bench)
    bench.body = lambda: cached(1)
    report()
    report()
    assert bench.calls_again() == [("load", 1)]
    run = next(orch.flow_runs.find())

    report.resume(run.id, rerun_from=cached)

    assert bench.calls_again() == [("load", 1)]


def test_a_call_that_is_not_on_record_cannot_be_run_again(orch: Orchestrator, bench: Bench) -> None:
    report = made(bench)
    run_id = failed(orch, bench, report, lambda: bench.load(1))

    with pytest.raises(errors.RunNotFound, match=r"no call of .*save on record; it has calls of"):
        report.resume(run_id, rerun_from=bench.save)
    with pytest.raises(errors.ConfigurationError, match="rerun_from=5"):
        report.resume(run_id, rerun_from=5)
    for choices in ({"on_change": "stop"}, {"match": "name"}):
        with pytest.raises(errors.ConfigurationError, match="it is"):
            report.resume(run_id, **choices)
        with pytest.raises(errors.ConfigurationError, match="it is"):
            made(bench, **choices)
    assert states(the_flow_run(orch))[-1] == "Failed"


def test_a_result_that_cannot_be_read_is_made_again(orch: Orchestrator, bench: Bench) -> None:
    lock = threading.Lock()
    calls: list[int] = []

    @task
    def not_storable() -> Any:
        calls.append(1)
        return lock

    report = made(bench)
    run_id = failed(orch, bench, report, lambda: [not_storable(), bench.load(1)])
    with orch.session(begin_transaction=True) as session:
        session.execute("update task_run_state set data_format = 'unknown' where data is not null")
    bench.body = lambda: [not_storable() is lock, bench.load(1)]

    assert report.resume(run_id) == [True, ["load", 1]]

    assert (len(calls), bench.calls_again()) == (2, [("load", 1)])
