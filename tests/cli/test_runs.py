"""``embedded-orch runs`` and ``embedded-orch run ID``."""

from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import embedded_orch
from embedded_orch import Orchestrator, flow, task
from tests.cli.conftest import Command
from tests.test_project import ROOT

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


class Connection:
    """A value that cannot be stored."""


@task
def double(number: int) -> int:
    return 2 * number


@task(retries=1)
def fail(reason: str) -> None:
    raise ValueError(reason)


@flow(version="7")
def doubled(numbers: list[int], connection: Any = None) -> list[int]:
    return [double(number) for number in numbers]


@flow
def failing(reason: str) -> None:
    double(1)
    fail(reason)


def fail_with(reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        failing(reason)


def the_run(orch: Orchestrator) -> str:
    return str(next(orch.flow_runs.find()).id)


class TestList:
    def test_runs_are_listed_newest_first(self, command: Command, url: str) -> None:
        with embedded_orch.open(url) as orch:
            doubled([1])
            fail_with("on purpose")
            runs = list(orch.flow_runs.find())

        answer = command("runs", "--db", url)

        assert answer.status == 0
        head, *rows = answer.lines
        assert head.split() == ["NAME", "FLOW", "STATE", "STARTED", "DURATION", "ID"]
        for row, run, flow_name, state in zip(
            rows, runs, ["failing", "doubled"], ["Failed", "Completed"], strict=True
        ):
            pattern = rf"{run.name}\s+{flow_name}\s+{state}\s+{TIME}\s+\d+ms\s+{run.id}"
            assert re.fullmatch(pattern, row)

    def test_they_are_narrowed_by_flow_state_and_number(self, command: Command, url: str) -> None:
        with embedded_orch.open(url):
            for _ in range(3):
                doubled([1])
            fail_with("on purpose")

        def count(*words: str) -> int:
            return len(command("runs", "--db", url, *words).lines) - 1

        assert count() == 4
        assert count("--flow", "doubled") == 3
        assert count("--state", "failed") == count("--state", "FAILED") == 1
        assert count("--limit", "2") == 2
        assert count("--flow", "doubled", "--state", "completed", "--limit", "1") == 1

    def test_no_run_is_no_problem(self, command: Command, url: str) -> None:
        embedded_orch.open(url).close()

        assert "no flow runs in" in command("runs", "--db", url).out
        answer = command("runs", "--db", url, "--flow", "doubled")
        assert (answer.status, answer.out.rstrip().endswith("that fit")) == (0, True)

    def test_a_run_whose_process_was_killed_is_shown_as_crashed(
        self, command: Command, tmp_path: Path
    ) -> None:
        url = str(tmp_path / "orch.db")
        program = (
            "import os, signal, sys, embedded_orch\n"
            "@embedded_orch.flow\n"
            "def interrupted(): os.kill(os.getpid(), signal.SIGKILL)\n"
            "with embedded_orch.open(sys.argv[1]): interrupted()\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, url],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            timeout=60,
            check=False,
        )
        assert done.returncode == -signal.SIGKILL

        answer = command("runs", "--db", url)

        assert re.search(r"interrupted\s+Crashed", answer.out)

    def test_it_may_be_asked_while_flows_run(self, command: Command, url: str) -> None:
        answers = []

        @task
        def ask() -> None:
            answers.append(command("runs", "--db", url))
            answers.append(command("run", the_run(orch), "--db", url))

        @flow
        def asking() -> None:
            ask()

        with embedded_orch.open(url) as orch:
            asking()

        assert [answer.status for answer in answers] == [0, 0]
        assert re.search(rf"asking\s+Running\s+{TIME}", answers[0].out)
        assert re.search(rf"process\s+{os.getpid()} on ", answers[1].out)


class TestOne:
    def test_a_completed_run_is_shown_whole(self, command: Command, url: str) -> None:
        with embedded_orch.open(url) as orch:
            doubled([1, 2], Connection())
            run = next(orch.flow_runs.find())

        answer = command("run", str(run.id), "--db", url)

        assert answer.status == 0
        assert answer.lines[0] == f"Flow run {run.name}"
        for pattern in (
            r"  flow      doubled",
            rf"  id        {run.id}",
            r"  state     Completed",
            rf"  started   {TIME}\.\d{{3}}[+-]\d\d:\d\d",
            r"  duration  \d+ms",
            r"  attempts  1",
            r"  version   7",
            r"  numbers = \[1, 2\]",
            r"  connection: a \S+:Connection, not stored",
            rf"  {TIME}\.\d{{3}}\S+  Pending",
            rf"  {TIME}\.\d{{3}}\S+  Running",
            rf"  {TIME}\.\d{{3}}\S+  Completed",
            r"Tasks: 2 Completed",
            rf"  double-\w+  Completed  {TIME}  \d+ms\s+1",
            r"Result",
            r"  \[2, 4\]",
        ):
            assert any(re.fullmatch(pattern, line) for line in answer.lines), pattern
        assert "resume" not in answer.out

    def test_a_failed_run_is_shown_with_its_error(self, command: Command, url: str) -> None:
        with embedded_orch.open(url) as orch:
            fail_with("on purpose")
            run = the_run(orch)

        answer = command("run", run, "--db", url)

        assert answer.status == 0
        assert "Tasks: 1 Completed, 1 Failed" in answer.lines
        failed, completed = answer.out.index("  fail-"), answer.out.index("  double-")
        assert failed < completed, "what went wrong comes first"
        assert re.search(
            r"  fail-\w+ +Failed .* 2 +Task run encountered .*: on purpose", answer.out
        )
        error = answer.out[answer.out.index("\nError\n") :]
        assert "Traceback (most recent call last):" in error
        assert error.rstrip().endswith("ValueError: on purpose")
        assert f".resume('{run}')" in answer.out

    def test_the_beginning_of_an_id_is_enough(self, command: Command, url: str) -> None:
        with embedded_orch.open(url) as orch:
            doubled([1])
            run = the_run(orch)

        for beginning in (run[:1], run[:8], run[:9], run[:20], run.upper(), run.replace("-", "")):
            answer = command("run", beginning, "--db", url)

            assert answer.status == 0
            assert run in answer.out

    def test_a_beginning_of_several_names_them(self, command: Command, url: str) -> None:
        with embedded_orch.open(url) as orch:
            doubled([1])
            doubled([2])
            runs = [str(run.id) for run in orch.flow_runs.find()]

        answer = command("run", "0", "--db", url)

        assert (answer.status, answer.out) == (1, "")
        assert all(run in answer.err for run in runs)

    @pytest.mark.parametrize("word", ["f" * 32, "nonsense", "", "0-g", "0" * 33, "%", "0' or 1"])
    def test_an_id_that_nothing_has_is_told(self, command: Command, url: str, word: str) -> None:
        with embedded_orch.open(url):
            doubled([1])

        answer = command("run", word, "--db", url)

        assert (answer.status, answer.out) == (1, "")
        assert "id" in answer.err

    def test_only_as_many_tasks_are_listed_as_asked_for(self, command: Command, url: str) -> None:
        with embedded_orch.open(url) as orch:
            doubled(list(range(5)))
            run = the_run(orch)

        answer = command("run", run, "--tasks", "2", "--db", url)

        assert len([line for line in answer.lines if line.startswith("  double-")]) == 2
        assert "Tasks: 5 Completed" in answer.lines
        assert "  and 3 more; see --tasks" in answer.lines


class TestUntrusted:
    """What a database holds may come from anybody."""

    def test_nothing_reaches_the_terminal_as_a_command(self, command: Command, url: str) -> None:
        evil = "\x1b[2J\x1b]0;owned\x07\r\u202ereversed\u2028"
        with embedded_orch.open(url) as orch:
            fail_with(evil)
            run = the_run(orch)
            with orch.session() as session:
                session.execute("update flow set name = :name", {"name": evil})
                session.execute(
                    "update flow_run set name = :name, tags = :tags",
                    {
                        "name": evil + "\nsecond line",
                        "tags": f'["{"x" * 10}"]',
                    },
                )
                session.execute("update task_run set name = :name", {"name": evil})
                session.execute("update flow_run_state set message = :text", {"text": evil})

        for words in (("runs",), ("run", run), ("db", "check")):
            answer = command(*words, "--db", url)

            allowed = answer.out.replace("\n", "")
            assert allowed.isprintable(), words
            assert "\\x1b[2J" in answer.out or words == ("db", "check")

    def test_a_pickle_is_told_by_its_size_and_never_loaded(
        self, command: Command, url: str, tmp_path: Path
    ) -> None:
        class Trap:
            def __reduce__(self) -> tuple[Any, ...]:
                return (Path.touch, (tmp_path / "sprung",))

        trap = pickle.dumps(Trap())
        with embedded_orch.open(url) as orch:
            doubled([1])
            run = the_run(orch)
            with orch.session() as session:
                session.execute(
                    "update flow_run_state set data = :data, data_format = 'pickle'"
                    " where type = 'COMPLETED'",
                    {"data": trap},
                )

        answer = command("run", run, "--db", url)

        assert answer.status == 0
        assert f"  {len(trap):,} bytes, written by pickle" in answer.lines
        assert not (tmp_path / "sprung").exists()

    def test_a_result_that_is_not_in_its_row_is_told_by_its_place(
        self, command: Command, tmp_path: Path
    ) -> None:
        url = str(tmp_path / "orch.db")
        with embedded_orch.open(url, inline_result_bytes=100) as orch:
            doubled(list(range(100)))
            in_file = the_run(orch)
        with embedded_orch.open(url) as orch:
            doubled.with_options(result_storage=tmp_path / "results")([1])
            in_storage = the_run(orch)
        files = {str(each.relative_to(tmp_path)): each for each in tmp_path.rglob("*")}
        [name] = [
            name.rpartition("/")[2]
            for name in files
            if name.startswith("orch.db-results/") and len(name) > 70
        ]
        for path, file in files.items():
            if path.startswith("results/"):
                file.write_bytes(b"never read")

        shown = command("run", in_file, "--db", url).lines
        assert f"  in the file {name}, written by json" in shown
        shown = command("run", in_storage, "--db", url).lines
        assert any(f"3 bytes in {tmp_path / 'results'} at " in line for line in shown)

    def test_a_class_that_is_named_is_not_imported(
        self, command: Command, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "trap_module.py").write_text("raise SystemExit('sprung')")
        monkeypatch.syspath_prepend(tmp_path)
        value = '{"$dataclass": ["trap_module:Trap", {"a": 1}]}'
        with embedded_orch.open(url) as orch:
            doubled([1])
            run = the_run(orch)
            with orch.session() as session:
                session.execute(
                    "update flow_run set parameters = :text",
                    {"text": f'{{"trap": {value}}}'},
                )
                session.execute(
                    "update flow_run_state set data = :data where type = 'COMPLETED'",
                    {"data": value.encode()},
                )

        answer = command("run", run, "--db", url)

        assert answer.status == 0
        assert "  trap = Trap(a=1)" in answer.lines
        assert "trap_module" not in sys.modules

    @pytest.mark.parametrize("data", [b"", b"\xff", b"[", b'{"traceback": 7}', b"[" * 100_000])
    def test_an_error_that_cannot_be_read_is_told_by_its_size(
        self, command: Command, url: str, data: bytes
    ) -> None:
        with embedded_orch.open(url) as orch:
            fail_with("on purpose")
            run = the_run(orch)
            with orch.session() as session:
                session.execute(
                    "update flow_run_state set data = :data where type = 'FAILED'", {"data": data}
                )

        answer = command("run", run, "--db", url)

        assert answer.status == 0
        assert "\nError\n" in answer.out
