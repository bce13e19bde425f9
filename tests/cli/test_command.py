"""The command as a whole: how it is started, what it imports, and what it says when it fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import embedded_orch
from embedded_orch import flow
from tests.cli.conftest import Command
from tests.test_project import HEAVY_MODULES, PROJECT, ROOT, run_python


@flow
def hello(name: str) -> str:
    return f"hello {name}"


def run_module(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """``python -m embedded_orch.cli`` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "embedded_orch.cli", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class TestStarting:
    def test_it_runs_as_a_module(self, tmp_path: Path) -> None:
        with embedded_orch.open(tmp_path / "orch.db"):
            hello("world")

        done = run_module("runs", "--db", str(tmp_path / "orch.db"))

        assert (done.returncode, done.stderr) == (0, "")
        assert "hello" in done.stdout

    def test_importing_it_imports_nothing_heavy(self) -> None:
        printed = run_python(
            "import sys; before = set(sys.modules)\n"
            "import embedded_orch.cli\n"
            "print(*sorted(set(sys.modules) - before))"
        )

        heavy = {*HEAVY_MODULES, "argparse", "apsw", "msgspec"}
        assert heavy.intersection(printed.split()) == set()

    def test_listing_runs_of_a_file_imports_nothing_of_postgres_or_event_loops(
        self, tmp_path: Path
    ) -> None:
        with embedded_orch.open(tmp_path / "orch.db"):
            hello("world")

        printed = run_python(
            "import sys; from embedded_orch.cli import main\n"
            f"main(['runs', '--db', {str(tmp_path / 'orch.db')!r}])\n"
            "print(*sorted(sys.modules))"
        )

        assert {"asyncio", "psycopg", "sqlite3", "trio"}.intersection(printed.split()) == set()

    def test_the_script_of_the_project_is_this_one(self) -> None:
        assert PROJECT["scripts"] == {"embedded-orch": "embedded_orch.cli:main"}


class TestDatabase:
    def test_the_default_database_is_that_of_the_environment(self, tmp_path: Path) -> None:
        with embedded_orch.open(tmp_path / "orch.db"):
            hello("world")

        by_url = run_module("runs", EMBEDDED_ORCH_URL=str(tmp_path / "orch.db"))
        by_home = run_module("runs", EMBEDDED_ORCH_URL="", EMBEDDED_ORCH_HOME=str(tmp_path))

        assert by_url.returncode == by_home.returncode == 0
        assert "hello" in by_url.stdout
        assert by_home.stdout == by_url.stdout

    @pytest.mark.parametrize("words", [("--db", "{url}", "runs"), ("runs", "--db", "{url}")])
    def test_it_is_named_before_or_after_the_command(
        self, command: Command, url: str, words: tuple[str, ...]
    ) -> None:
        with embedded_orch.open(url):
            hello("world")

        answer = command(*(word.format(url=url) for word in words))

        assert answer.status == 0
        assert "hello" in answer.out

    @pytest.mark.parametrize(
        "words",
        [("runs",), ("run", "0123"), ("db", "check"), ("db", "backup", "copy.db")],
        ids=" ".join,
    )
    def test_one_that_does_not_exist_is_not_made(
        self, command: Command, tmp_path: Path, words: tuple[str, ...]
    ) -> None:
        answer = command(*words, "--db", str(tmp_path / "folder" / "orch.db"))

        assert answer.status == 1
        assert "there is no database at" in answer.err
        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize("words", [("runs",), ("run", "0123")], ids=" ".join)
    def test_one_without_our_schema_is_not_given_one(
        self, command: Command, tmp_path: Path, words: tuple[str, ...]
    ) -> None:
        (tmp_path / "orch.db").touch()

        answer = command(*words, "--db", str(tmp_path / "orch.db"))

        assert answer.status == 1
        assert "db upgrade" in answer.err
        assert [(path.name, path.stat().st_size) for path in tmp_path.iterdir()] == [("orch.db", 0)]

    def test_one_in_memory_cannot_be_looked_at(self, command: Command) -> None:
        answer = command("runs", "--db", ":memory:")

        assert answer.status == 2
        assert "each process" in answer.err


class TestMistakes:
    @pytest.mark.parametrize(
        "words",
        [
            (),
            ("nonsense",),
            ("run",),
            ("db",),
            ("db", "nonsense"),
            ("db", "backup"),
            ("runs", "--limit", "0"),
            ("runs", "--limit", "many"),
            ("runs", "--state", "nonsense"),
            ("runs", "--db"),
            ("runs", "--db", "mysql://host/db"),
            ("runs", "--db", ""),
        ],
        ids=str,
    )
    def test_a_wrong_command_line_is_explained_with_status_2(
        self, command: Command, words: tuple[str, ...]
    ) -> None:
        answer = command(*words)

        assert answer.status == 2
        assert answer.out == ""
        assert "embedded-orch" in answer.err

    def test_our_errors_are_one_line_without_a_traceback(
        self, command: Command, tmp_path: Path
    ) -> None:
        (tmp_path / "letter.txt").write_text("Dear database,\n" * 100)

        answer = command("runs", "--db", str(tmp_path / "letter.txt"))

        assert answer.status == 1
        assert answer.err.count("\n") == 1
        assert answer.err.startswith("embedded-orch: ")
        assert "is no SQLite database" in answer.err

    def test_a_password_is_not_shown(self, command: Command, postgres_server: object) -> None:
        url = postgres_server.tcp_url(password="not-the-password")  # type: ignore[attr-defined]

        for words in (("runs",), ("db", "check"), ("db", "upgrade"), ("db", "upgrade", "--sql")):
            answer = command(*words, "--db", url)

            assert answer.status == 1
            assert "not-the-password" not in answer.out + answer.err

    def test_help_is_no_mistake(self, command: Command) -> None:
        for words in (("--help",), ("runs", "--help"), ("db", "upgrade", "--help")):
            answer = command(*words)

            assert (answer.status, answer.err) == (0, "")
            assert "usage: embedded-orch" in answer.out

    def test_a_reader_that_has_seen_enough_is_no_mistake(self, tmp_path: Path) -> None:
        with embedded_orch.open(tmp_path / "orch.db"):
            for number in range(30):
                hello(str(number))
        words = ["runs", "--limit", "30", "--db", str(tmp_path / "orch.db")]
        program = (
            "import sys\nfrom embedded_orch.cli import main\n"
            # A pipe whose reader is gone before the first line is written.
            "import os\nreader, writer = os.pipe()\nos.close(reader)\nos.dup2(writer, 1)\n"
            "sys.stdout.reconfigure(line_buffering=True)\n"
            f"sys.exit(main({words!r}))\n"
        )

        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

        assert (done.returncode, done.stderr) == (0, "")

    def test_ctrl_c_ends_it_quietly(
        self, command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        def press_ctrl_c(arguments: object) -> int:
            raise KeyboardInterrupt

        monkeypatch.setattr("embedded_orch.cli.listing.list_runs", press_ctrl_c)

        answer = command("runs", "--db", str(tmp_path / "orch.db"))

        assert (answer.status, answer.out, answer.err) == (130, "", "")

    def test_a_terminal_that_knows_few_characters_gets_their_numbers(self, tmp_path: Path) -> None:
        @flow(name="Gru\u00df")
        def greeting() -> int:
            return 1

        with embedded_orch.open(tmp_path / "orch.db"):
            greeting()

        done = run_module("runs", "--db", str(tmp_path / "orch.db"), PYTHONIOENCODING="ascii")

        assert (done.returncode, done.stderr) == (0, "")
        assert "Gru\\xdf" in done.stdout


def test_version_tells_what_is_installed(command: Command) -> None:
    answer = command("version")

    assert answer.status == 0
    assert [line.split()[0] for line in answer.lines] == [
        "embedded_orch",
        "apsw",
        "msgspec",
        "anyio",
        "psycopg",
        "Python",
    ]
