"""What starting costs: whole processes, beside a bare interpreter."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.measuring import Row, Stopwatch, Work

# With one of them nothing is compiled for the next process, or for another optimization.
_ABOUT_BYTECODE = {"PYTHONDONTWRITEBYTECODE", "PYTHONOPTIMIZE", "PYTHONPYCACHEPREFIX"}
_BARE = "pass"
_IMPORT = "from embedded_orch import flow, task"
_DRIVERS = "import apsw, msgspec"
_FIRST_FLOW = """
import sys
import embedded_orch
from embedded_orch import flow, task

@task
def add(number):
    return number + 1

@flow
def first():
    return add(1)

with embedded_orch.open(sys.argv[1]):
    first()
"""


def _as_installed(folder: Path) -> dict[str, str]:
    """The environment of a process that finds everything compiled, as installed packages are.

    The round that does not count compiles into the folder, whatever the caller's environment says
    of bytecode.
    """
    wanted = {name: value for name, value in os.environ.items() if name not in _ABOUT_BYTECODE}
    return {
        **wanted,
        "PYTHONPATH": str(Path(__file__).parent.parent),
        "PYTHONPYCACHEPREFIX": str(folder / "compiled"),
    }


@contextmanager
def _process(folder: Path, program: str, *, keep_file: bool = True) -> Generator[Work]:
    """A whole Python process, from its start to its end."""
    data = folder / "data"
    environment = _as_installed(folder)

    def work(stopwatch: Stopwatch) -> None:
        if not keep_file:
            shutil.rmtree(data, ignore_errors=True)
        with stopwatch:
            subprocess.run(
                [sys.executable, "-c", program, str(data / "orch.db")], env=environment, check=True
            )

    yield work


ROWS = [
    Row(
        "import flow and task, over a bare interpreter",
        1,
        partial(_process, program=_IMPORT),
        partial(_process, program=_BARE),
        "60 ms more than bare",
    ),
    Row(
        "the drivers alone, over a bare interpreter",
        1,
        partial(_process, program=_DRIVERS),
        partial(_process, program=_BARE),
    ),
    Row(
        "process with a first flow and task, new file",
        1,
        partial(_process, program=_FIRST_FLOW, keep_file=False),
        partial(_process, program=_BARE),
        "180 ms",
    ),
    Row(
        "process with a first flow and task, existing file",
        1,
        partial(_process, program=_FIRST_FLOW),
        partial(_process, program=_BARE),
        "150 ms",
    ),
]
