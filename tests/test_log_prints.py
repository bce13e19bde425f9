"""Prints of runs that ask for it are kept, and printed all the same."""

from __future__ import annotations

import builtins
import sys
import threading
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from embedded_orch import Orchestrator, errors, flow, task
from embedded_orch.engine.printing import Replacement
from embedded_orch.logging.loggers import patch_print, print_as_log
from embedded_orch.task_runners import ProcessPoolTaskRunner
from tests import pool_tasks
from tests.opened import opened, the_flow_run, the_run_of


@pytest.fixture
def orch() -> Iterator[Orchestrator]:
    with opened(":memory:") as orchestrator:
        yield orchestrator


def printed(orchestrator: Orchestrator) -> list[str]:
    own = ("begins: ", "ends as ")
    return [line.message for line in orchestrator.logs.find() if not line.message.startswith(own)]


@task
def says(word: str) -> None:
    print("says", word)


@task(log_prints=True)
def says_aloud(word: str) -> None:
    print("says", word)


@task(log_prints=False)
def whispers(word: str) -> None:
    print("says", word)


def test_what_is_printed_is_kept_and_still_printed(
    orch: Orchestrator, capsys: pytest.CaptureFixture[str]
) -> None:
    says_aloud("hello")

    [line] = orch.logs.find()
    assert (line.message, line.level_name) == ("says hello", "INFO")
    assert line.name == "embedded_orch.task_runs"
    assert line.task_run_id == the_run_of(orch, says_aloud).id
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("says hello\n", "")


@pytest.mark.parametrize("flow_asks", [True, False])
def test_tasks_do_as_their_flow_unless_they_say_otherwise(
    orch: Orchestrator, flow_asks: bool
) -> None:
    @flow(log_prints=flow_asks)
    def party() -> None:
        print("party")
        says("a")
        says_aloud("b")
        whispers("c")
        says.submit("d").wait()

    party()

    expected = ["party", "says a", "says b", "says d"] if flow_asks else ["says b"]
    assert printed(orch) == expected


def test_subflows_do_as_their_caller(orch: Orchestrator) -> None:
    @flow
    def child() -> None:
        print("child")

    @flow(log_prints=True)
    def parent() -> None:
        child()

    child()
    parent()

    assert printed(orch) == ["child"]


def test_the_environment_says_for_the_rest(
    orch: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDDED_ORCH_LOGGING_LOG_PRINTS", "true")

    says("a")
    whispers("b")

    assert printed(orch) == ["says a"]


def test_what_the_environment_cannot_mean_is_refused(
    orch: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDDED_ORCH_LOGGING_LOG_PRINTS", "perhaps")

    with pytest.raises(errors.ConfigurationError, match="LOG_PRINTS='perhaps'"):
        says("a")


def test_asynchronous_runs_print_too(orch: Orchestrator) -> None:
    @task
    async def later(word: str) -> None:
        await anyio.sleep(0)
        print("later", word)

    @flow(log_prints=True)
    async def party() -> None:
        await later("a")
        later.submit("b").wait()

    anyio.run(party)

    assert sorted(printed(orch)) == ["later a", "later b"]


def test_threads_that_a_run_starts_print_for_it(orch: Orchestrator) -> None:
    def deeper() -> None:
        print("deeper")

    def in_thread() -> None:
        print("in a thread")
        inner = threading.Thread(target=deeper)
        inner.start()
        inner.join()

    @flow(log_prints=True)
    def starts_threads() -> None:
        thread = threading.Thread(target=in_thread)
        thread.start()
        thread.join()

    starts_threads()

    assert printed(orch) == ["in a thread", "deeper"]
    assert orch.logs.count(flow_run_id=the_flow_run(orch).id, text="deeper") == 1


def test_threads_of_others_print_for_nobody(orch: Orchestrator) -> None:
    begin, end = threading.Event(), threading.Event()

    def elsewhere() -> None:
        assert begin.wait(30)
        print("elsewhere")
        end.set()

    thread = threading.Thread(target=elsewhere)
    thread.start()

    @flow(log_prints=True)
    def party() -> None:
        begin.set()
        assert end.wait(30)

    party()
    thread.join()

    assert printed(orch) == []


def test_a_thread_that_outlives_its_run_prints_for_nobody(orch: Orchestrator) -> None:
    is_over = threading.Event()

    def outlives() -> None:
        assert is_over.wait(30)
        print("too late")

    threads: list[threading.Thread] = []

    @flow(log_prints=True)
    def leaves_a_thread() -> None:
        threads.append(threading.Thread(target=outlives))
        threads[0].start()

    leaves_a_thread()
    is_over.set()
    threads[0].join()

    assert printed(orch) == []


def test_print_does_what_it_does(
    orch: Orchestrator, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    class Counted:
        made = 0

        def __str__(self) -> str:
            self.made += 1
            return "counted"

    value = Counted()

    @task(log_prints=True)
    def prints() -> None:
        print("a", 1, None, sep="-", end="!\n")
        print("to stderr", file=sys.stderr)
        print()
        print(value, flush=True)
        with open(tmp_path / "file", "w", encoding="utf-8") as file:
            print("to a file", file=file)

    prints()

    assert printed(orch) == ["a-1-None", "to stderr", "", "counted"]
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("a-1-None!\n\ncounted\n", "to stderr\n")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "to a file\n"
    assert value.made == 1


def test_prints_can_be_kept_by_hand(orch: Orchestrator, capsys: pytest.CaptureFixture[str]) -> None:
    @flow
    def by_hand() -> None:
        print_as_log("in a flow that does not ask for it")
        says_by_hand("a")

    @task(log_prints=True)
    def says_by_hand(word: str) -> None:
        print_as_log("by hand", word)
        with patch_print():
            print("in the block", word)

    by_hand()
    print_as_log("outside", end="!")

    assert printed(orch) == ["by hand a", "in the block a"]
    assert capsys.readouterr().out == (
        "in a flow that does not ask for it\nby hand a\nin the block a\noutside!"
    )


def test_nothing_is_replaced_when_nobody_needs_it(orch: Orchestrator) -> None:
    found = builtins.print, threading.Thread.start

    @flow
    def silent() -> tuple[Any, Any]:
        says("a")
        return builtins.print, threading.Thread.start

    @flow(log_prints=True)
    def fails() -> None:
        raise ZeroDivisionError

    assert silent() == found
    with pytest.raises(ZeroDivisionError):
        fails()
    assert (builtins.print, threading.Thread.start) == found


def test_what_another_puts_in_place_meanwhile_stays() -> None:
    class Place:
        @staticmethod
        def speak(word: str) -> str:
            return word

    def louder(original: Any) -> Any:
        return lambda word: original(word) + "!"

    original = Place.speak
    ours = Replacement(Place, "speak", louder)
    with ours:
        inner = Place.speak
        theirs = lambda word: f"<{inner(word)}>"  # noqa: E731 - put in the place of a function
        Place.speak = staticmethod(theirs)  # type: ignore[method-assign]
        with ours:
            assert Place.speak("a") == "<a!>"
    assert Place.speak("a") == "<a!>"
    with ours:
        assert Place.speak("a") == "<a!>"
    Place.speak = original  # type: ignore[method-assign]
    with ours, ours:
        assert Place.speak("a") == "a!"
    assert Place.speak is original


@pytest.mark.slow
def test_processes_of_a_pool_print_for_their_task(
    orch: Orchestrator, capfd: pytest.CaptureFixture[str]
) -> None:
    @flow(log_prints=True, task_runner=ProcessPoolTaskRunner(max_workers=1))
    def in_a_process() -> None:
        pool_tasks.tells.submit("it").wait()

    in_a_process()

    run = the_run_of(orch, pool_tasks.tells)
    lines = list(orch.logs.find(task_run_id=run.id))
    assert [line.message for line in lines] == ["logs it", "prints it"]
    assert capfd.readouterr().out == "prints it\n"
