"""Programs that tests run in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 60


def environment(**added: str) -> dict[str, str]:
    """This process's environment without databases of its own, and what is added.

    What runs log is not shown: the programs say on standard error what went wrong.
    """
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("EMBEDDED_ORCH")
    }
    return {**kept, "EMBEDDED_ORCH_LOG_LEVEL": "CRITICAL", "PYTHONPATH": str(ROOT), **added}


def run_program(
    text: str,
    *arguments: object,
    flags: tuple[str, ...] = (),
    patience: float = PATIENCE,
    **added: str,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; it has failed when that does not come."""
    return subprocess.run(
        [sys.executable, *flags, "-c", dedent(text), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=patience,
        env=environment(**added),
        check=False,
    )


def copy_with_log(path: Path, copy: Path) -> None:
    """Copy a database that is open here, as a crash would leave it.

    Another process does it: in this one it would drop the locks of the file.
    """
    for suffix in ("", "-wal"):
        subprocess.run(["cp", f"{path}{suffix}", f"{copy}{suffix}"], check=True)


def run_example(example: str, *arguments: object, **added: str) -> subprocess.CompletedProcess[str]:
    """Run a program of ``examples/`` to its end, as a person does."""
    return subprocess.run(
        [sys.executable, str(ROOT / "examples" / example), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment(**added),
        check=False,
    )
