"""What holds for the project as a whole: its files, what importing it costs, what it ships."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# Each costs more to import than declaring a flow may take, or is an extra that may be missing.
HEAVY_MODULES = {
    "asyncio",
    "click",
    "concurrent.futures",
    "dataclasses",
    "importlib.metadata",
    "multiprocessing",
    "psycopg",
    "rich",
    "sqlite3",
    "subprocess",
    "trio",
    "zoneinfo",
}

# Spelled so that this file does not contain them.
UNFINISHED_MARKS = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")


def project_files(*patterns: str) -> list[Path]:
    """The files of the project whose names match, without what its tools have made."""
    folders = [".ci", "benchmarks", "docs", "embedded_orch", "examples", "schema", "tests"]
    candidates = [*ROOT.iterdir(), *(path for name in folders for path in (ROOT / name).rglob("*"))]
    return sorted(path for path in candidates if path.is_file() and any(map(path.match, patterns)))


def run_python(code: str, *, path: Path = ROOT, folder: Path = ROOT) -> str:
    """What a fresh interpreter prints that finds the package under ``path``."""
    finished = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(path), "EMBEDDED_ORCH_HOME": str(folder / "home")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def empty_bodies(tree: ast.Module) -> list[int]:
    """The lines of functions and classes that consist of ``pass`` or ``...`` and should not."""
    protocols = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and "Protocol" in map(_last_name, node.bases)
    ]
    declared = {id(inner) for protocol in protocols for inner in ast.walk(protocol)}
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and id(node) not in declared
        and not {"abstractmethod", "overload"} & set(map(_last_name, node.decorator_list))
        and all(_says_nothing(statement) for statement in node.body)
        and not _is_docstring(node.body[-1])
    ]


def _last_name(node: ast.expr) -> str:
    """``Protocol`` for ``Protocol``, ``typing.Protocol`` and ``Protocol[T]``."""
    if isinstance(node, ast.Subscript):
        node = node.value
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _says_nothing(statement: ast.stmt) -> bool:
    is_constant = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return is_constant or isinstance(statement, ast.Pass)


def _is_docstring(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this checkout with nothing fetched from anywhere."""
    return _build("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def unpacked_wheel(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what an installation of the wheel puts into site-packages."""
    folder = tmp_path_factory.mktemp("site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def _build(target: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    finished = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert finished.returncode == 0, finished.stderr
    (made,) = folder.iterdir()
    return made


class TestSource:
    def test_no_file_carries_a_mark_of_unfinished_work(self) -> None:
        marked = [
            f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
            for path in project_files("*.py", "*.sql", "*.md", "*.toml", "Makefile", ".ci/run")
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
            if UNFINISHED_MARKS.search(line)
        ]

        assert marked == []

    def test_nothing_that_is_shipped_raises_not_implemented(self) -> None:
        raising = [
            f"{path.relative_to(ROOT)}:{node.lineno}"
            for path in project_files("*.py")
            if path.relative_to(ROOT).parts[0] != "tests"
            for node in ast.walk(ast.parse(path.read_bytes()))
            if isinstance(node, ast.Name) and node.id == "NotImplementedError"
        ]

        assert raising == []

    def test_no_function_or_class_that_is_shipped_is_empty(self) -> None:
        empty = [
            f"{path.relative_to(ROOT)}:{line}"
            for path in project_files("*.py")
            if path.relative_to(ROOT).parts[0] != "tests"
            for line in empty_bodies(ast.parse(path.read_bytes()))
        ]

        assert empty == []

    @pytest.mark.parametrize(
        ("source", "lines"),
        [
            ("def f(): pass", [1]),
            ("async def f(): ...", [1]),
            ("def f():\n    '''Says a lot.'''\n    pass", [1]),
            ("class C:\n    def f(self): ...", [2]),
            ("class C: pass", [1]),
            ("class Gone(Exception):\n    '''It is gone.'''", []),
            ("def close(self):\n    '''Nothing is held open.'''", []),
            ("def f():\n    return None", []),
            ("class Port(Protocol):\n    def f(self): ...", []),
            ("class Port(typing.Protocol[T]):\n    async def f(self): ...", []),
            ("class C:\n    @abc.abstractmethod\n    def f(self): ...", []),
            ("@overload\ndef f(a: int) -> int: ...", []),
        ],
    )
    def test_an_empty_body_is_told_from_a_declaration(self, source: str, lines: list[int]) -> None:
        assert empty_bodies(ast.parse(source)) == lines


class TestStartUp:
    @pytest.mark.parametrize(
        "statement", ["import embedded_orch", "from embedded_orch import flow, task"]
    )
    def test_declaring_a_flow_imports_nothing_heavy(self, statement: str) -> None:
        # A .pth file of the environment may have imported some of them before the first line.
        printed = run_python(
            "import sys; before = set(sys.modules)\n"
            f"{statement}\n"
            "print(*sorted(set(sys.modules) - before))"
        )

        assert HEAVY_MODULES.intersection(printed.split()) == set()

    def test_importing_starts_no_thread_and_touches_no_file(self, tmp_path: Path) -> None:
        threads = run_python(
            "import threading\nfrom embedded_orch import flow, task\n"
            "print(threading.active_count())",
            folder=tmp_path,
        )

        assert threads.strip() == "1"
        assert list(tmp_path.iterdir()) == []


class TestDistributions:
    def test_the_wheel_carries_every_statement_and_migration(self, unpacked_wheel: Path) -> None:
        def contents(folder: Path) -> dict[str, bytes]:
            files = [path for path in folder.rglob("*") if path.is_file()]
            return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}

        shipped = contents(unpacked_wheel / "embedded_orch" / "schema")

        assert any(name.startswith("migrations/") for name in shipped)
        assert shipped == contents(ROOT / "schema")

    def test_the_wheel_says_that_it_is_typed(self, unpacked_wheel: Path) -> None:
        assert (unpacked_wheel / "embedded_orch" / "py.typed").is_file()

    def test_the_wheel_holds_the_package_and_nothing_else(self, unpacked_wheel: Path) -> None:
        tops = {path.name for path in unpacked_wheel.iterdir()}

        assert tops == {"embedded_orch", f"embedded_orch-{PROJECT['version']}.dist-info"}

    def test_a_flow_runs_from_the_wheel_alone(self, unpacked_wheel: Path, tmp_path: Path) -> None:
        program = tmp_path / "program.py"
        program.write_text(
            "from embedded_orch import flow, task\n\n"
            "@task\ndef double(number):\n    return 2 * number\n\n"
            "@flow\ndef doubled(number):\n    return double(number)\n\n"
            "print(doubled(21))\n"
            "import embedded_orch; print(embedded_orch.__file__)\n",
            encoding="utf-8",
        )

        printed = run_python(
            f"import runpy; runpy.run_path({str(program)!r}, run_name='__main__')",
            path=unpacked_wheel,
            folder=tmp_path,
        )

        result, location = printed.splitlines()
        assert result == "42"
        assert Path(location).is_relative_to(unpacked_wheel)

    def test_the_installed_command_says_the_version_of_pyproject(
        self, unpacked_wheel: Path, tmp_path: Path
    ) -> None:
        printed = run_python(
            "import sys; sys.argv = ['embedded-orch', 'version']\n"
            "from embedded_orch.cli import main; sys.exit(main())",
            path=unpacked_wheel,
            folder=tmp_path,
        )

        assert PROJECT["version"] in printed.split()

    def test_the_sdist_carries_what_a_test_run_needs(self, tmp_path: Path) -> None:
        sdist = _build("sdist", tmp_path)

        with tarfile.open(sdist) as archive:
            packed = {name.partition("/")[2] for name in archive.getnames()}
        wanted = {
            path.relative_to(ROOT).as_posix()
            for path in project_files(
                "*.py", "*.sql", "*.md", "*.toml", "py.typed", "LICENSE", "Makefile", "run"
            )
        }
        assert wanted - packed == set()


class TestChangelog:
    def test_the_newest_section_is_the_unreleased_one(self) -> None:
        text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")

        sections = re.findall(r"^## (.+)$", text, re.MULTILINE)

        assert sections[0] == "[Unreleased]"
