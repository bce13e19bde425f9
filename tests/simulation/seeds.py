"""Machines by their seeds, one after the other, in slices of any size.

    python -m tests.simulation.seeds --seed 7184 --machines 500

runs the seeds from 7184 to 7683, says in one line which ones, on which commit and what they found,
and then tells of each that broke a promise. It goes on after one that did.
"""

from __future__ import annotations

import argparse
import gc
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import embedded_orch
from tests.simulation.machine import Machine, Violation

_HERE = Path(__file__).parent


def make_template(path: Path) -> Path:
    """A database with a schema, a table of a user's, and nothing else: each machine has a copy."""
    with (
        embedded_orch.open(path, durability="off") as orchestrator,
        orchestrator.session(begin_transaction=True) as session,
    ):
        session.execute("CREATE TABLE booking (run_id TEXT NOT NULL, step TEXT NOT NULL)")
    return path


def run_machine(seed: int, template: Path, folder: Path, **options: Any) -> Machine:
    """One machine, whose files are gone after it."""
    machine = Machine(seed, template, folder, **options)
    try:
        machine.run()
    finally:
        for path in folder.glob(f"{seed}.db*"):
            path.unlink()
    return machine


class Slice(NamedTuple):
    """Seeds that were run.

    Attributes:
        seeds: which ones.
        told: of each that broke a promise, what it is and how it came to that.
        seconds: of a processor, for all of them.
    """

    seeds: range
    told: list[str]
    seconds: float

    def __str__(self) -> str:
        first, last = self.seeds[0], self.seeds[-1]
        found = f"{len(self.told)} broke a promise" if self.told else "none broke a promise"
        return (
            f"seeds {first} to {last} at {commit()}: {found}, {self.seconds:.1f} s of a processor"
        )


def run_slice(seeds: range, template: Path, folder: Path) -> Slice:
    """Run all of them, also after one that broke a promise."""
    began = time.process_time()
    told = []
    for seed in seeds:
        try:
            run_machine(seed, template, folder)
        except Violation as violation:
            told.append(str(violation))
    return Slice(seeds, told, time.process_time() - began)


def commit() -> str:
    """The commit of the working folder, and whether something differs from it."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"],
        cwd=_HERE,
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() or "an unknown commit"


def main(arguments: list[str] | None = None) -> int:
    """Run a slice and print what it found; 0 if that is nothing."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.seeds", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seed", type=int, default=1, help="the first one")
    parser.add_argument("--machines", type=int, default=500, help="how many")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        template = make_template(Path(folder) / "template.db")
        # What is there now stays: no collection of a machine's garbage has to look at it.
        gc.collect()
        gc.freeze()
        seeds = range(options.seed, options.seed + options.machines)
        found = run_slice(seeds, template, Path(folder))
    print(found, *found.told, sep="\n")
    return 1 if found.told else 0


if __name__ == "__main__":
    sys.exit(main())
