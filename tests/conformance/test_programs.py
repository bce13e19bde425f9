"""Programs as a Prefect user writes them, with only the import line changed; see ``programs/``.

Each is an ordinary script that asserts what it expects. It runs here in this process, on each
backend in turn, with a new database as the only one that is open.
"""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from tests.opened import opened

PROGRAMS = sorted(Path(__file__).parent.joinpath("programs").glob("*.py"))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_program_does_what_it_says(program: Path, url: str) -> None:
    with opened(url):
        runpy.run_path(str(program), run_name="__main__")


def test_there_is_a_program_for_every_part() -> None:
    parts = {program.stem.split("_")[0] for program in PROGRAMS}

    assert len(PROGRAMS) >= 80
    assert parts >= {
        "states",
        "flows",
        "tasks",
        "futures",
        "results",
        "transactions",
        "subflows",
        "concurrency",
        "runtime",
        "hooks",
        "reading",
        "names",
    }
