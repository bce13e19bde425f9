"""The demo: what it finds in sources, what it writes, and what it does after a kill."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import embedded_orch

EXAMPLES = Path(__file__).parents[2] / "examples"
PACKAGE_ROOT = Path(embedded_orch.__file__).parents[1]
BROKEN = 4  # files of the demo's own that do not parse
UNREADABLE = 2
TIME_LIMIT_SECONDS = 120


@pytest.fixture(scope="module", autouse=True)
def examples_on_path() -> Iterator[None]:
    """What Python does for a script: its folder is where modules are looked for."""
    sys.path.insert(0, str(EXAMPLES))
    yield
    sys.path.remove(str(EXAMPLES))


@pytest.fixture(scope="module")
def source_facts() -> ModuleType:
    return importlib.import_module("source_facts")


@pytest.fixture(scope="module")
def report_pages() -> ModuleType:
    return importlib.import_module("report_pages")


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """Twelve modules, two of which import each other, and tests, which do not count."""
    root = tmp_path / "sources"
    for number in range(10):
        write(root / "many" / f"m{number}.py", f"import os\n\ndef f{number}():\n    return 1\n")
    write(root / "hen.py", "import egg\n")
    write(root / "egg.py", "from hen import *\n")
    write(root / "many" / "tests" / "test_m.py", "assert True\n")
    write(root / "site-packages" / "other.py", "other = 1\n")
    return root


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text), encoding="utf-8")


def run_demo(root: Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [str(PACKAGE_ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, EXAMPLES / "stdlib_report.py", "--root", root, "--out", out, *options],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT_SECONDS,
        check=False,
    )


def finished(process: subprocess.CompletedProcess[str]) -> str:
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def done(output: str) -> tuple[int, int]:
    """(files from the record, files done now), as the demo says them."""
    said = re.search(r"([\d,]+) files from the record, ([\d,]+) done now", output)
    assert said is not None, output
    return int(said[1]), int(said[2])


def files_traced(trace: Path, event: str) -> list[str]:
    lines = trace.read_text(encoding="utf-8").splitlines()
    return [line.removeprefix(f"{event} ") for line in lines if line.startswith(f"{event} ")]


# -- The program ---------------------------------------------------------------------------------


def test_report_counts_every_file_and_names_those_with_a_problem(
    sources: Path, tmp_path: Path
) -> None:
    output = finished(run_demo(sources, tmp_path / "out"))

    assert "18 files, 3 packages, 42 lines, 10 functions, 0 classes, 4 do not parse" in output
    assert done(output) == (0, 12 + BROKEN)
    page = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    for name in ("vanished.py", "a\\_folder.py", "half\\_a\\_function.py", "null\\_byte.py"):
        assert f"| broken/{name} | " in page
    assert "| egg, hen | 2 |" in page


def test_unreadable_files_fail_as_task_runs_and_the_flow_completes(
    sources: Path, tmp_path: Path
) -> None:
    finished(run_demo(sources, tmp_path / "out"))

    with embedded_orch.open(str(tmp_path / "out" / "report.db")) as orch:
        failed = orch.task_runs.count(task_key="stdlib_report.analyse", state_type="FAILED")
        completed = orch.task_runs.count(task_key="stdlib_report.analyse", state_type="COMPLETED")
        runs = orch.flow_runs.count(flow_name="stdlib-report", state_type="COMPLETED")

    assert (failed, completed, runs) == (UNREADABLE, 12 + BROKEN, 1)


def test_a_file_that_cannot_be_read_is_tried_three_times(sources: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace.log"

    finished(run_demo(sources, tmp_path / "out", "--trace", str(trace)))

    begun = files_traced(trace, "begun")
    assert begun.count(str(tmp_path / "out" / "broken" / "vanished.py")) == 3
    assert begun.count(str(sources / "hen.py")) == 1


def test_a_killed_run_is_resumed_without_doing_finished_files_again(
    sources: Path, tmp_path: Path
) -> None:
    out, before, after = tmp_path / "out", tmp_path / "before.log", tmp_path / "after.log"
    undisturbed = tmp_path / "undisturbed"
    finished(run_demo(sources, undisturbed))

    killed = run_demo(sources, out, "--kill-after", "5", "--trace", str(before))
    output = finished(run_demo(sources, out, "--resume", "--trace", str(after)))

    assert killed.returncode == -signal.SIGKILL
    recorded = files_traced(before, "recorded")
    assert len(recorded) == 5
    assert not set(recorded) & set(files_traced(after, "begun"))
    from_record, done_now = done(output)
    assert from_record >= 5
    assert from_record + done_now == 12 + BROKEN
    for name in ("report.md", "report.html"):
        assert (out / name).read_bytes() == (undisturbed / name).read_bytes()


def test_resuming_a_run_that_had_finished_does_nothing(sources: Path, tmp_path: Path) -> None:
    out, trace = tmp_path / "out", tmp_path / "trace.log"
    first = finished(run_demo(sources, out))

    second = finished(run_demo(sources, out, "--resume", "--trace", str(trace)))

    assert done(second) == (12 + BROKEN, 0)
    assert not trace.exists()
    assert first.splitlines()[-2:] == second.splitlines()[-2:]


def test_resume_starts_a_run_when_none_has_begun(sources: Path, tmp_path: Path) -> None:
    output = finished(run_demo(sources, tmp_path / "out", "--resume"))

    assert "No run with these options has begun: starting one." in output
    assert done(output) == (0, 12 + BROKEN)


def test_resume_does_not_take_the_run_of_other_sources(sources: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_demo(sources, out, "--kill-after", "3")

    output = finished(run_demo(sources / "many", out, "--resume"))

    assert done(output) == (0, 10 + BROKEN)


def test_without_resume_everything_is_done_again(sources: Path, tmp_path: Path) -> None:
    finished(run_demo(sources, tmp_path / "out"))

    assert done(finished(run_demo(sources, tmp_path / "out"))) == (0, 12 + BROKEN)


def test_all_reads_the_tests_too(sources: Path, tmp_path: Path) -> None:
    output = finished(run_demo(sources, tmp_path / "out", "--all"))

    assert done(output) == (0, 13 + BROKEN)


def test_no_more_files_are_read_at_a_time_than_there_are_workers(tmp_path: Path) -> None:
    """Seen to fail without the semaphore."""
    root, trace = Path(asyncio.__file__).parent, tmp_path / "trace.log"

    finished(run_demo(root, tmp_path / "out", "--workers", "1", "--trace", str(trace)))

    events = [line.split(" ")[0] for line in trace.read_text(encoding="utf-8").splitlines()]
    steps = [event for event in events if event != "recorded"]
    assert len(steps) > 2 * 3 * UNREADABLE
    assert steps == ["begun", "ended"] * (len(steps) // 2)


def test_progress_is_a_line_for_each_tenth_where_there_is_no_terminal(
    sources: Path, tmp_path: Path
) -> None:
    output = finished(run_demo(sources, tmp_path / "out"))

    lines = [line for line in output.splitlines() if " of 18 files " in line]
    assert lines[-1].split() == ["18", "of", "18", "files", "100%"]
    assert 2 < len(lines) <= 10
    assert "\r" not in output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--root", "/no/such/folder"], "/no/such/folder is no folder"),
        (["--kill-after", "0"], "must be 1 or more"),
    ],
)
def test_wrong_options_are_refused(
    sources: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    process = run_demo(sources, tmp_path / "out", *options)

    assert process.returncode == 2
    assert message in process.stderr


# -- What one file tells -------------------------------------------------------------------------


def test_functions_classes_and_imports_are_found_wherever_they_stand(
    source_facts: ModuleType,
) -> None:
    source = b"""\
import os.path, sys
from . import near
from ..far import thing as other, more
try:
    import quick
except ImportError:
    quick = None
class Outer:
    import inside_class
    async def method(self):
        import late
        import sys
        def inner():
            return lambda: 1
        return inner
if __name__ == "__main__":
    import only_for_the_script
"""

    facts = source_facts.facts_of(source)

    assert facts.lines == 17
    assert (facts.functions, facts.classes) == (2, 1)
    assert facts.longest == ((6, "Outer.method", 10), (2, "Outer.method.inner", 13))
    assert facts.imports == (
        "..far.more",
        "..far.thing",
        ".near",
        "inside_class",
        "os.path",
        "quick",
        "sys",
    )
    assert facts.late_imports == ("late", "only_for_the_script")


@pytest.mark.parametrize(
    "source",
    [b"def half(\n", b"x = '\xff'\n", b"x = '\0'\n", b"# coding: no-such\n", b"(" * 5000],
    ids=["syntax", "not utf-8", "null byte", "unknown encoding", "nesting"],
)
def test_source_that_does_not_parse_is_a_finding(source_facts: ModuleType, source: bytes) -> None:
    facts = source_facts.facts_of(source)

    assert facts.problem
    assert facts.size_bytes == len(source)
    assert facts.functions == 0


def test_an_expression_nested_deeper_than_python_recurses_is_read(
    source_facts: ModuleType,
) -> None:
    # The parser builds a left-leaning tree of 2,000 additions in a loop; a visitor would recurse.
    source = b"x = " + b" + ".join([b"1"] * 2000) + b"\ndef f(): ...\n"

    assert source_facts.facts_of(source).functions == 1


# -- The import graph ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "written", "found"),
    [
        ("json/tool.py", "json", {"json"}),
        ("json/tool.py", "json.decoder.JSONDecoder", {"json.decoder"}),
        ("json/tool.py", ".decoder.scan", {"json.decoder"}),
        ("json/tool.py", ".decoder.*", {"json.decoder"}),
        ("json/tool.py", "..os.path", {"os"}),
        ("json/__init__.py", ".decoder.JSONDecoder", {"json.decoder"}),
        ("json/__init__.py", ".dumps", set()),
        ("json/tool.py", ".dumps", {"json"}),
        ("json/tool.py", "numpy.linalg", set()),
        ("json/tool.py", "json.tool", set()),
        ("os.py", ".far", set()),
    ],
)
def test_an_import_leads_to_the_longest_known_name(
    source_facts: ModuleType, name: str, written: str, found: set[str]
) -> None:
    modules = {"json", "json.decoder", "json.tool", "os"}

    assert source_facts.imported_modules(name, [written], modules) == found


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        ({}, []),
        ({"a": {"b"}, "b": set()}, []),
        ({"a": {"b"}, "b": {"a"}}, [["a", "b"]]),
        (
            {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": {"d"}, "f": {"a", "d"}},
            [["a", "b", "c"], ["d", "e"]],
        ),
        # Two rings that share a node, met from outside and in an order that is not theirs.
        ({"a": {"d"}, "b": {"c"}, "c": {"d"}, "d": {"b", "e"}, "e": {"d"}}, [["b", "c", "d", "e"]]),
        # An edge to a component that is closed already must not join the two.
        (
            {"a": {"b", "c"}, "b": {"c"}, "c": {"b"}, "d": {"c", "e"}, "e": {"d"}},
            [["b", "c"], ["d", "e"]],
        ),
    ],
)
def test_cycles_are_the_strongly_connected_components(
    source_facts: ModuleType, graph: dict[str, set[str]], expected: list[list[str]]
) -> None:
    assert source_facts.cycles(graph) == expected


def test_a_ring_longer_than_python_recurses_is_one_cycle(source_facts: ModuleType) -> None:
    nodes = [f"m{number:05}" for number in range(20_000)]
    ring = {node: {nodes[(number + 1) % len(nodes)]} for number, node in enumerate(nodes)}

    assert source_facts.cycles(ring) == [nodes]


# -- The pages -----------------------------------------------------------------------------------

HOSTILE = '<script>alert("1")</script>|*_`a`_*.py'


def a_hostile_report(source_facts: ModuleType) -> object:
    facts = source_facts.facts_of(b"def f(): ...\n")
    wrong = source_facts.facts_of(b"def half(\n")
    return source_facts.gather(
        HOSTILE, {HOSTILE: facts, f"z{HOSTILE}": wrong}, {f"y{HOSTILE}": "OSError: <b>\nno"}
    )


def test_html_escapes_names(source_facts: ModuleType, report_pages: ModuleType) -> None:
    page = report_pages.as_html(a_hostile_report(source_facts))

    assert "<script" not in page
    assert "<b>" not in page
    assert "&lt;script&gt;alert(&quot;1&quot;)" in page


def test_markdown_escapes_names(source_facts: ModuleType, report_pages: ModuleType) -> None:
    page = report_pages.as_markdown(a_hostile_report(source_facts))

    assert re.search(r"(?<!\\)[<`*]", page) is None
    tables = [line for line in page.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in tables} <= {3, 4, 5}


def test_a_report_about_nothing_can_be_written(
    source_facts: ModuleType, report_pages: ModuleType
) -> None:
    report = source_facts.gather("Nothing", {}, {})

    assert "None." in report_pages.as_markdown(report)
    assert report_pages.as_html(report).endswith("</html>\n")


def test_a_report_about_empty_files_can_be_written(
    source_facts: ModuleType, report_pages: ModuleType
) -> None:
    report = source_facts.gather("Empty", {"a/__init__.py": source_facts.facts_of(b"")}, {})

    assert "| a | 0 |" in report_pages.as_markdown(report)
    assert report_pages.as_html(report).endswith("</html>\n")


def test_facts_in_another_order_give_the_same_pages(
    source_facts: ModuleType, report_pages: ModuleType
) -> None:
    folder = Path(json.__file__).parent
    facts = {
        f"json/{path.name}": source_facts.facts_of(path.read_bytes())
        for path in sorted(folder.glob("*.py"))
    }
    unreadable = {"b.py": "OSError", "a.py": "OSError"}

    one = source_facts.gather("One", facts, unreadable)
    other = source_facts.gather(
        "One", dict(reversed(facts.items())), dict(reversed(unreadable.items()))
    )

    assert report_pages.as_html(one) == report_pages.as_html(other)
    assert report_pages.as_markdown(one) == report_pages.as_markdown(other)
