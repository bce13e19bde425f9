"""Runs that are resumed without being asked to, and kill their process each time."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from embedded_orch import errors
from tests import crashing
from tests.crashing import stopped_at
from tests.engine.waiting import until
from tests.opened import flow_runs, opened, states, the_flow_run
from tests.warm_parent import run_forked, talking

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from embedded_orch import Orchestrator
    from tests.warm_parent import Talking

BEGIN = """
import sys
from tests.crashing import main
main(*sys.argv[1:])
"""
RESUME = """
import sys
import embedded_orch
from tests import crashing
with embedded_orch.open(sys.argv[1]) as orch:
    limit = None if sys.argv[2] == "None" else int(sys.argv[2])
    print([run.state_name for run in orch.resume_crashed(max_resumes=limit)])
"""


@pytest.fixture(autouse=True)
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EMBEDDED_ORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TRACE", str(tmp_path / "trace"))
    monkeypatch.setenv("DIES_FROM", "99")
    return tmp_path / "trace"


@pytest.fixture(params=["file", "postgres"])
def shared_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database that two processes can open."""
    if request.param == "file":
        return str(tmp_path / "data" / "orch.db")
    return str(request.getfixturevalue("postgres_server").new_database())


class Story:
    """What processes do to one database, one after the other."""

    def __init__(self, url: str, home: Path) -> None:
        self.url = url
        self._home = {"TRACE": str(home / "trace"), "EMBEDDED_ORCH_HOME": str(home / "home")}

    def dies(self, text: str, *arguments: object, at: int) -> None:
        """A process that is killed by the task number ``at``."""
        ended = run_forked(text, self.url, *arguments, DIES_FROM=str(at), **self._home)
        assert ended.returncode == -signal.SIGKILL, ended.stderr

    def begins(self, text: str, *arguments: object) -> AbstractContextManager[Talking]:
        """A process that is to be killed."""
        return talking(text, self.url, *arguments, **self._home)

    def says(self, text: str, *arguments: object, at: int = 99) -> str:
        """What a process that lives has to say."""
        ended = run_forked(text, self.url, *arguments, DIES_FROM=str(at), **self._home)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.strip()


@pytest.fixture
def story(shared_url: str, tmp_path: Path) -> Story:
    return Story(shared_url, tmp_path)


def counted(orch: Orchestrator) -> list[int]:
    return [row[0] for row in orch.sql("select auto_resumes from flow_run order by id")]


@pytest.mark.slow
def test_a_run_that_kills_its_process_each_time_is_crashed_for_good(
    story: Story, trace: Path
) -> None:
    story.dies(BEGIN, "killing", 3, at=1)
    for _ in range(3):
        story.dies(RESUME, None, at=1)

    assert story.says(RESUME, None, at=1) == "[]"

    assert trace.read_text().splitlines() == ["deadly 0", *["deadly 1"] * 4]
    with opened(story.url) as orch:
        run = the_flow_run(orch)
        assert run.state is not None
        assert run.state.name == "Crashed"
        message = run.state.message or ""
        assert "resumed 3 times in a row" in message
        assert "task run deadly-" in message
        assert "(tests.crashing.deadly)" in message
        assert orch.task_runs.count(state_name="Running") == 0
        assert orch.resume_crashed() == []
        # By hand it is never refused, and counts from the beginning.
        assert crashing.killing.resume(run.id) == [0, 1, 2]
        assert counted(orch) == [0]


@pytest.mark.slow
def test_one_more_completed_task_begins_a_new_row(story: Story, trace: Path) -> None:
    story.dies(BEGIN, "killing", 9, at=0)
    for at in (1, 2, 3, 4, 4):
        # Each of them completes what killed the one before, but for the last.
        story.dies(RESUME, 1, at=at)

    assert story.says(RESUME, 1, at=4) == "[]"

    with opened(story.url) as orch:
        run = the_flow_run(orch)
        assert run.state is not None
        assert "resumed once, and each time its process died" in (run.state.message or "")


@pytest.mark.slow
def test_the_task_of_a_flow_that_was_called_is_named_and_all_of_it_ends(story: Story) -> None:
    story.dies(BEGIN, "killing_in_a_child", 2, at=1)
    # A task that completes in the child counts for the whole run.
    story.dies(RESUME, None, at=1)

    assert story.says(RESUME, None, at=1) == "[]"

    with opened(story.url) as orch:
        parent = the_flow_run(orch, flow_name="killing-in-a-child")
        assert parent.state is not None
        assert "(tests.crashing.deadly)" in (parent.state.message or "")
        assert "(tests.crashing.deadly_child)" not in (parent.state.message or "")
        ends = [states(run)[-1] for run in flow_runs(orch, flow_name="deadly-child")]
        assert ends == ["Completed", "Crashed"]
        for name in ("Running", "Pending"):
            assert orch.task_runs.count(state_name=name) == 0
            assert orch.flow_runs.count(state_name=name) == 0
        assert crashing.killing_in_a_child.resume(parent.id) == [0, 1]


@pytest.mark.slow
def test_a_run_that_only_waits_is_not_given_up(story: Story, trace: Path) -> None:
    """A program that is started anew each day must not lose what sleeps for a month."""
    with stopped_at("before the wait", story.url, "waiting", 3600, trace=trace) as process:
        until(lambda: waits(story.url), "the wait")
        process.kill()
    for attempt in (2, 3, 4):
        kill_while_it_waits(story, attempt)
    with opened(story.url) as orch:
        assert counted(orch) == [0]
        orch.send_signal(the_flow_run(orch).id, "approval", True)

        [run] = orch.resume_crashed(max_resumes=1)

        assert run.state is not None
        assert run.state.result() == [True, {0: (0, 0)}]


def waits(url: str) -> bool:
    with opened(url) as orch:
        return orch.sql("select count(*) from flow_run_wait").scalar() == 1


def kill_while_it_waits(story: Story, attempt: int) -> None:
    """A process resumes what crashed, and is killed when its run is in an attempt."""
    with story.begins(RESUME, 1), opened(story.url) as orch:
        until(lambda: the_flow_run(orch).run_count == attempt, "the attempt")


@pytest.mark.slow
def test_a_run_that_may_not_be_resumed_at_all_is_crashed_at_once(story: Story) -> None:
    story.dies(BEGIN, "killing", 1, at=0)

    assert story.says(RESUME, 0) == "[]"

    with opened(story.url) as orch:
        assert states(the_flow_run(orch))[-1] == "Crashed"
        with pytest.raises(errors.ConfigurationError, match="max_resumes=-1"):
            orch.resume_crashed(max_resumes=-1)
