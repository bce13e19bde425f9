"""``embedded-orch logs ID``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import embedded_orch
from embedded_orch import Orchestrator, flow, get_run_logger, task
from tests.cli.conftest import Command

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d"


@task
def load(number: int) -> None:
    get_run_logger().info("loading %d\nwith \x1b[31mcolour", number)


@flow
def report() -> None:
    get_run_logger().warning("timeout")
    load(1)
    get_run_logger().error("gone")


def the_run(orch: Orchestrator) -> str:
    return str(next(orch.flow_runs.find()).id)


def shown(lines: list[str]) -> list[str]:
    """Without times, and without the digits of names."""
    return [re.sub(r"load-\w{3}", "load", re.sub(rf"^{TIME}  ", "", line)) for line in lines]


def test_lines_of_a_run_are_printed_in_their_order(command: Command, url: str) -> None:
    with embedded_orch.open(url) as orch:
        report()
        run_id = the_run(orch)

    answer = command("logs", run_id[:13], "--db", url)

    assert answer.status == 0
    assert re.match(TIME, answer.lines[0])
    assert [line.partition(" after")[0] for line in shown(answer.lines)] == [
        "INFO     begins: flow 'report'",
        "WARNING  timeout",
        "INFO     load: loading 1",
        r"    with \x1b[31mcolour",
        "ERROR    gone",
        "INFO     ends as Completed",
    ]


def test_lines_are_chosen(command: Command, tmp_path: Path) -> None:
    path = str(tmp_path / "orch.db")
    with embedded_orch.open(path) as orch:
        report()
        run_id = the_run(orch)
        [task_run] = orch.task_runs.find()

    def printed(*words: str) -> list[str]:
        return shown(command("logs", *words, "--db", path).lines)

    assert printed(run_id, "--level", "warning") == ["WARNING  timeout", "ERROR    gone"]
    assert printed(run_id, "--level", "40") == ["ERROR    gone"]
    assert printed(run_id, "--text", "timeout gone -gone") == ["WARNING  timeout"]
    assert printed(str(task_run.id))[0] == "INFO     load: loading 1"
    assert printed(
        run_id, "--limit", "2", "--level", "warning", "--text", "gone timeout begins"
    ) == [
        "WARNING  timeout",
        "ERROR    gone",
    ]
    assert printed(run_id, "--limit", "1", "--level", "warning") == [
        "1 earlier lines are left out; see --limit",
        "ERROR    gone",
    ]
    assert printed(run_id, "--text", "elsewhere") == ["it has logged nothing that fits"]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("0199",), 1, "no flow run in"),
        (("nonsense",), 1, "is no id of a run"),
        (("0199", "--level", "loud"), 2, "is no level"),
        (("0199", "--limit", "0"), 2, "is no number from 1 on"),
    ],
)
def test_what_cannot_be_is_said(
    command: Command, tmp_path: Path, words: tuple[str, ...], status: int, said: str
) -> None:
    path = str(tmp_path / "orch.db")
    embedded_orch.open(path).close()

    answer = command("logs", *words, "--db", path)

    assert answer.status == status
    assert said in answer.err
