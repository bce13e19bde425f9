"""Every example in the documents runs, and every example program has its test."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs import code_blocks
from tests.docs.code_blocks import Block

ROOT = Path(__file__).parent.parent.parent
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
EXAMPLES = sorted((ROOT / "examples").rglob("*.py"))
# The other modules in the folder are parts of these.
PROGRAMS = [path for path in EXAMPLES if '\nif __name__ == "__main__":' in path.read_text("utf-8")]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks_of(document: Path) -> list[Block]:
    return code_blocks.read_blocks(document.read_text(encoding="utf-8"))


def has_code_to_run(document: Path) -> bool:
    return code_blocks.program(blocks_of(document)).strip() != ""


def run_program(source: str, folder: Path, *, name: str) -> subprocess.CompletedProcess[str]:
    """Run it in an interpreter of its own, in a folder and with a database of its own."""
    commands = folder / "bin"
    commands.mkdir()
    (commands / "embedded-orch").write_text(code_blocks.command_script(), encoding="utf-8")
    (commands / "embedded-orch").chmod(0o755)
    (folder / name).write_text(source, encoding="utf-8")
    environment = {
        **os.environ,
        "EMBEDDED_ORCH_HOME": str(folder / "home"),
        "PATH": os.pathsep.join([str(commands), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "docs")]),
    }
    environment.pop("EMBEDDED_ORCH_URL", None)
    return subprocess.run(
        [sys.executable, "-W", "error", name],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


class TestDocuments:
    @pytest.mark.parametrize("document", list(filter(has_code_to_run, DOCUMENTS)), ids=name_of)
    def test_the_code_blocks_run_in_order(self, document: Path, tmp_path: Path) -> None:
        source = code_blocks.program(blocks_of(document))

        finished = run_program(source, tmp_path, name=f"{document.stem}.py")

        assert finished.returncode == 0, finished.stdout + finished.stderr

    @pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
    def test_each_block_names_a_language_and_a_reason_when_it_is_not_run(
        self, document: Path
    ) -> None:
        wrong = [
            f"{name_of(document)}:{block.line}: {block.language!r}"
            for block in blocks_of(document)
            if block.language not in code_blocks.RUN | code_blocks.SHOWN or block.reason == ""
        ]

        assert wrong == []

    @pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
    def test_links_lead_to_files_that_exist(self, document: Path) -> None:
        text = re.sub(r"`[^`]*`", "", document.read_text(encoding="utf-8"))

        targets = re.findall(r"\]\((?!https?://|mailto:|#)([^)#\s]+)", text)

        assert [target for target in targets if not (document.parent / target).exists()] == []


class TestExamples:
    @pytest.mark.parametrize("example", EXAMPLES, ids=name_of)
    def test_an_example_compiles(self, example: Path) -> None:
        compile(example.read_bytes(), name_of(example), "exec")

    @pytest.mark.parametrize("program", PROGRAMS, ids=name_of)
    def test_an_example_program_has_its_test(self, program: Path) -> None:
        assert (ROOT / "tests" / "examples" / f"test_{program.name}").is_file()


class TestReading:
    def test_a_block_knows_its_language_and_its_first_line(self) -> None:
        (block,) = code_blocks.read_blocks("# Title\n\n```python\na = 1\nb = 2\n```\n")

        assert block == Block("python", "a = 1\nb = 2", line=4)

    def test_a_block_in_a_list_loses_its_indent(self) -> None:
        (block,) = code_blocks.read_blocks("- so:\n\n  ```python\n  if 1:\n      x = 1\n  ```\n")

        assert block.text == "if 1:\n    x = 1"

    def test_a_comment_before_a_block_says_why_it_is_not_run(self) -> None:
        (block,) = code_blocks.read_blocks("<!-- not run: no server -->\n\n```sql\nselect 1\n```")

        assert block.reason == "no server"

    @pytest.mark.parametrize("comment", ["<!-- not run -->", "<!-- not run: -->"])
    def test_a_comment_without_a_reason_is_told_from_none(self, comment: str) -> None:
        (block,) = code_blocks.read_blocks(f"{comment}\n```python\nx\n```")

        assert block.reason == ""

    def test_a_comment_counts_for_the_next_block_only(self) -> None:
        first, second = code_blocks.read_blocks(
            "<!-- not run: no server -->\n```python\nx\n```\n```python\ny\n```\n"
        )

        assert first.reason is not None
        assert second.reason is None

    def test_a_comment_does_not_reach_over_a_paragraph(self) -> None:
        (block,) = code_blocks.read_blocks("<!-- not run: why -->\n\nText.\n\n```python\nx\n```")

        assert block.reason is None

    def test_a_longer_fence_may_show_a_shorter_one(self) -> None:
        (block,) = code_blocks.read_blocks("````text\n```python\nx\n```\n````\n")

        assert block.text == "```python\nx\n```"

    def test_a_block_without_an_end_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="line 2 has no end"):
            code_blocks.read_blocks("Text.\n```python\nx = 1\n")


class TestRunning:
    def test_a_traceback_points_at_the_line_of_the_document(self, tmp_path: Path) -> None:
        blocks = code_blocks.read_blocks("# T\n\n```python\na = 1\n```\n\n```python\na.b\n```\n")

        finished = run_program(code_blocks.program(blocks), tmp_path, name="document.py")

        assert finished.returncode == 1
        assert 'document.py", line 8' in finished.stderr

    def test_blocks_that_are_not_run_leave_their_lines_empty(self) -> None:
        blocks = [
            Block("python", "a = 1", 1),
            Block("sh", "rm -r /", 3),
            Block("python", "raise SystemExit", 5, reason="it would end here"),
            Block("python", "b = 2", 7),
        ]

        assert code_blocks.program(blocks) == "a = 1\n\n\n\n\n\nb = 2\n"

    def test_a_console_block_becomes_a_call_in_its_first_line(self) -> None:
        blocks = [Block("console", "$ embedded-orch version\n0.1", 2, is_checked=True)]

        assert code_blocks.program(blocks) == (
            "\n__import__('code_blocks').run_console('$ embedded-orch version\\n0.1', True)\n"
        )

    def test_a_console_block_is_split_into_commands_and_what_they_show(self) -> None:
        pairs = code_blocks.split_console("$ embedded-orch a\n$ embedded-orch b\none\ntwo\n")

        assert pairs == [("embedded-orch a", ""), ("embedded-orch b", "one\ntwo\n")]

    def test_a_console_block_without_a_command_is_an_error(self) -> None:
        with pytest.raises(AssertionError, match="begins with a line"):
            code_blocks.split_console("embedded-orch runs")

    def test_another_command_than_ours_is_not_run(self) -> None:
        with pytest.raises(AssertionError, match="only embedded-orch is run"):
            code_blocks.run_console("$ false\n")

    @pytest.mark.parametrize(
        ("shown", "message"), [("hello", None), ("goodbye", "(?s)shown:.*goodbye.*printed:.*hello")]
    )
    def test_checked_output_has_to_be_what_the_command_prints(
        self, shown: str, message: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        command = tmp_path / "embedded-orch"
        command.write_text("#!/bin/sh\necho hello\n", encoding="utf-8")
        command.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        block = f"$ embedded-orch version\n{shown}\n"

        if message is None:
            code_blocks.run_console(block, is_checked=True)
        else:
            with pytest.raises(AssertionError, match=message):
                code_blocks.run_console(block, is_checked=True)

    def test_a_command_that_fails_fails_its_block(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        command = tmp_path / "embedded-orch"
        command.write_text("#!/bin/sh\necho no such run >&2\nexit 1\n", encoding="utf-8")
        command.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

        with pytest.raises(AssertionError, match="no such run"):
            code_blocks.run_console("$ embedded-orch run 1\n")
