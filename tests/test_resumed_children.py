"""A caller that is resumed finds its child again, whatever has become of it meanwhile.

The caller and the child are killed with their process while the child waits; what has completed in
them is done. A child that failed, or had completed, is told of in ``test_resume.py``.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from embedded_orch import errors, resume_flow_run
from tests import crashing
from tests.crashing import stopped_at
from tests.engine.waiting import until
from tests.opened import flow_runs, opened, states, the_flow_run
from tests.programs import PATIENCE
from tests.warm_parent import talking

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from embedded_orch import Flow, FlowRun, Orchestrator
    from tests.warm_parent import Talking

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EMBEDDED_ORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TRACE", str(tmp_path / "trace"))
    return tmp_path / "trace"


@pytest.fixture(params=["file", "postgres"])
def shared_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database that two processes can open."""
    if request.param == "file":
        return str(tmp_path / "data" / "orch.db")
    return str(request.getfixturevalue("postgres_server").new_database())


@contextmanager
def left_waiting(url: str, parent: Flow[..., Any], trace: Path) -> Iterator[Orchestrator]:
    """A database whose process was killed while a child of the parent waited."""
    name = parent.fn.__name__
    with stopped_at("in the parent", url, name, 0, trace=trace) as process:
        with opened(url) as orch:
            until(lambda: child_waits(orch), "the child waits")
        process.kill()
    with opened(url) as orch:
        yield orch


def child_waits(orch: Orchestrator) -> bool:
    waits = orch.sql("select count(*) from flow_run_wait").scalar() == 1
    return waits or orch.flow_runs.count(state_name="Paused") == 1


def of(orch: Orchestrator, called: Flow[..., Any]) -> FlowRun:
    return the_flow_run(orch, flow_name=called.name)


def resumed_in_a_thread(
    orch: Orchestrator, called: Flow[..., Any], answers: list[Any]
) -> threading.Thread:
    run_id = of(orch, called).id

    def resume() -> None:
        with orch:
            try:
                answers.append(called.resume(run_id))
            except errors.OrchestratorError as error:
                answers.append(error)

    # One that waits for ever fails its test, and does not keep the tests from ending.
    thread = threading.Thread(target=resume, daemon=True)
    thread.start()
    return thread


def nothing_was_done_twice(trace: Path) -> None:
    assert Counter(trace.read_text().splitlines()) == {"work 9": 1, "work 0": 1}


def test_a_crashed_child_is_continued(shared_url: str, trace: Path) -> None:
    with left_waiting(shared_url, crashing.patient_parent, trace) as orch:
        child = of(orch, crashing.patient_child)
        assert states(child)[-1] == "Crashed"
        orch.send_signal(child.id, "go", 5)

        found = crashing.patient_parent.resume(of(orch, crashing.patient_parent).id)

        assert found == [{9: (9, 90)}, [{0: (0, 0)}, 5]]
        assert states(of(orch, crashing.patient_child)) == [
            "Pending",
            "Running",
            "Crashed",
            "Running",
            "Completed",
        ]
    nothing_was_done_twice(trace)


RESUME_CHILD = """
import sys
import embedded_orch
from tests.crashing import patient_child
with embedded_orch.open(sys.argv[1]):
    print("ready", flush=True)
    print(patient_child.resume(sys.argv[2]), flush=True)
"""


@contextmanager
def child_resumed_elsewhere(url: str, orch: Orchestrator) -> Iterator[Talking]:
    """Another process resumes the child by hand, which waits there."""
    child = of(orch, crashing.patient_child)
    added = {name: os.environ[name] for name in ("TRACE", "EMBEDDED_ORCH_HOME")}
    with talking(RESUME_CHILD, url, child.id, **added) as process:
        assert process.stdout.readline() == "ready\n"
        until(lambda: states(of(orch, crashing.patient_child))[-1] == "Running", "the child runs")
        yield process


@pytest.mark.parametrize("ending", ["completes", "dies"])
def test_a_child_that_runs_in_another_process_is_waited_for(
    shared_url: str, trace: Path, ending: str
) -> None:
    answers: list[Any] = []
    with left_waiting(shared_url, crashing.patient_parent, trace) as orch:
        with child_resumed_elsewhere(shared_url, orch) as process:
            thread = resumed_in_a_thread(orch, crashing.patient_parent, answers)
            until(lambda: orch.logs.count(text="waits") == 1, "the caller waits")
            child = of(orch, crashing.patient_child)
            if ending == "dies":
                process.kill()
            orch.send_signal(child.id, "go", 5)
            thread.join(PATIENCE)
            said = process.stdout.read()

        assert answers == [[{9: (9, 90)}, [{0: (0, 0)}, 5]]]
        # Made by one of the two, and only once.
        history = states(of(orch, crashing.patient_child))
        assert history.count("Completed") == 1
        assert said == ("" if ending == "dies" else "[{0: (0, 0)}, 5]\n")
        assert len(flow_runs(orch)) == 2
    nothing_was_done_twice(trace)


def test_a_paused_child_comes_to_its_pause_again(shared_url: str, trace: Path) -> None:
    """Resuming the caller is no answer. Seen to fail when the child was taken over as Running."""
    answers: list[Any] = []
    with left_waiting(shared_url, crashing.asking_parent, trace) as orch:
        assert states(of(orch, crashing.asking_child))[-1] == "Paused"
        thread = resumed_in_a_thread(orch, crashing.asking_parent, answers)
        until(lambda: states(of(orch, crashing.asking_child)).count("Paused") == 2, "the pause")
        resume_flow_run(of(orch, crashing.asking_child).id, run_input={"value": 7})
        thread.join(PATIENCE)

    assert answers == [[{9: (9, 90)}, [{0: (0, 0)}, 7]]]
    nothing_was_done_twice(trace)


def test_a_paused_child_that_was_answered_meanwhile_goes_on(shared_url: str, trace: Path) -> None:
    with left_waiting(shared_url, crashing.asking_parent, trace) as orch:
        resume_flow_run(of(orch, crashing.asking_child).id, run_input={"value": 7})

        found = crashing.asking_parent.resume(of(orch, crashing.asking_parent).id)

        assert found == [{9: (9, 90)}, [{0: (0, 0)}, 7]]
    nothing_was_done_twice(trace)
