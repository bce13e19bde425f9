"""Kill the demo with SIGKILL at random moments, resume it, and look at what was done twice.

    python tests/faults/kill_the_demo.py --times 200

Each round starts `examples/stdlib_report.py` in a new folder, kills its process at a random moment
between its start and its usual end, and lets `--resume` finish the run; now and then the resumed
process is killed too. A round holds if

- a file whose facts were recorded, as the killed process saw it, is never begun again;
- the resumed process took from the record just as many files as a copy of the database, made
  after the kill, has in it, and did just the others itself;
- the database has one run in the end, which is completed, and each file in it once;
- both reports are, byte for byte, those of a run that nobody disturbed.

The copy is there so that nothing but the resumed process repairs what the kill left behind.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import embedded_orch

EXAMPLE = Path(__file__).parents[2] / "examples" / "stdlib_report.py"
PACKAGE_ROOT = Path(embedded_orch.__file__).parents[1]
REPORTS = ("report.md", "report.html")
FLOW = "stdlib-report"
TIME_LIMIT_SECONDS = 120.0
#: How often the process that resumes is killed in its turn.
SECOND_KILL = 0.2


class Attempt(NamedTuple):
    """One process of the demo, from its start to its end or its death."""

    was_killed: bool
    seconds: float
    output: str
    begun: list[str]  # the files whose task functions were called, in order
    recorded: set[str]  # the files whose facts are on record, as the process saw it
    files_in_database: int  # with their facts recorded, when the process was gone


class Undisturbed(NamedTuple):
    """What a run looks like that is left in peace."""

    seconds: float
    reports: list[bytes]
    files: int


def run_demo(
    folder: Path, root: Path, *, number: int = 0, kill_after_seconds: float | None = None
) -> Attempt:
    """Run the demo once in ``folder``; the second and later ``number`` resumes.

    Raises:
        RuntimeError: It ended by itself and not well.
        subprocess.TimeoutExpired: It did not end in time, and was killed for that.
    """
    trace = folder / f"trace-{number}.log"
    command = [sys.executable, str(EXAMPLE), "--root", str(root), "--out", str(folder / "out")]
    command += ["--trace", str(trace), *(["--resume"] if number else [])]
    path = os.pathsep.join(filter(None, [str(PACKAGE_ROOT), os.environ.get("PYTHONPATH")]))
    # Into a file: what a killed process has printed is still there, and no pipe can fill up.
    with open(folder / f"output-{number}.log", "w+b") as output:
        started = time.monotonic()
        process = subprocess.Popen(
            command, env=os.environ | {"PYTHONPATH": path}, stdout=output, stderr=output
        )
        try:
            process.wait(TIME_LIMIT_SECONDS if kill_after_seconds is None else kill_after_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(TIME_LIMIT_SECONDS)
            if kill_after_seconds is None:
                raise
        seconds = time.monotonic() - started
        output.seek(0)
        text = output.read().decode("utf-8", "replace")
    was_killed = process.returncode == -signal.SIGKILL
    if process.returncode != 0 and not was_killed:
        raise RuntimeError(f"attempt {number} in {folder} ended with {process.returncode}:\n{text}")
    begun, recorded = read_trace(trace)
    files = look_at_copy(folder, count_files)
    return Attempt(was_killed, seconds, text, begun, recorded, files)


def read_trace(trace: Path) -> tuple[list[str], set[str]]:
    """The files that were begun, and those that were recorded, as ``--trace`` wrote them."""
    if not trace.exists():
        return [], set()
    events = [line.split(" ", 1) for line in os.fsdecode(trace.read_bytes()).splitlines()]
    begun = [path for event, path in events if event == "begun"]
    return begun, {path for event, path in events if event == "recorded"}


def look_at_copy(folder: Path, question: Callable[[embedded_orch.Orchestrator], int]) -> int:
    """The answer of a copy of the database, or 0 when there is none yet."""
    if not (folder / "out" / "report.db").exists():
        return 0
    with tempfile.TemporaryDirectory(dir=folder) as copy:
        shutil.copytree(folder / "out", copy, dirs_exist_ok=True)
        with embedded_orch.open(str(Path(copy, "report.db"))) as orch:
            return question(orch)


def count_files(orch: embedded_orch.Orchestrator) -> int:
    """How many files have their facts recorded."""
    return orch.task_runs.count(task_key="stdlib_report.analyse", state_type="COMPLETED")


def count_unfinished_or_extra_runs(orch: embedded_orch.Orchestrator) -> int:
    """How many runs there are beside a single completed one; 1 if that is missing."""
    runs = orch.flow_runs.count(flow_name=FLOW)
    completed = orch.flow_runs.count(flow_name=FLOW, state_type="COMPLETED")
    return runs - 1 if completed else 1


def leave_undisturbed(folder: Path, root: Path) -> Undisturbed:
    """Run the demo with nobody in its way."""
    folder.mkdir(parents=True)
    attempt = run_demo(folder, root)
    return Undisturbed(attempt.seconds, read_reports(folder), len(attempt.recorded))


def read_reports(folder: Path) -> list[bytes]:
    """Both reports."""
    return [(folder / "out" / name).read_bytes() for name in REPORTS]


def disturb(folder: Path, root: Path, moments: Sequence[float]) -> list[Attempt]:
    """Start the demo, kill it and the processes that resume it at ``moments``, and let one finish.

    A moment is in seconds after the start of the process. A process that ends before its moment
    is the last: the run is finished.
    """
    folder.mkdir(parents=True)
    attempts: list[Attempt] = []
    for number, moment in enumerate([*moments, None]):
        attempts.append(run_demo(folder, root, number=number, kill_after_seconds=moment))
        if not attempts[-1].was_killed:
            break
    return attempts


def problems_with(attempts: Sequence[Attempt], files: int) -> list[str]:
    """What is wrong with these attempts at one run of so many ``files`` that can be read."""
    found: list[str] = []
    recorded: set[str] = set()
    for number, attempt in enumerate(attempts):
        if again := recorded.intersection(attempt.begun):
            found.append(f"attempt {number} did {len(again)} finished files again: {sorted(again)}")
        recorded |= attempt.recorded
    for number, (before, after) in enumerate(pairwise(attempts), start=1):
        kept = before.files_in_database
        if after.files_in_database < kept:
            found.append(f"{kept} files were recorded, and {after.files_in_database} later")
        if len(before.recorded) > kept:
            found.append(f"{len(before.recorded)} files were on record, and {kept} were kept")
        if after.was_killed:
            continue
        said = re.search(r"([\d,]+) files from the record, ([\d,]+) done now", after.output)
        counts = [int(count.replace(",", "")) for count in said.groups()] if said else []
        if counts != [kept, files - kept]:
            found.append(
                f"attempt {number}: {kept} of {files} files were recorded, but it said {counts}"
            )
    if attempts[-1].files_in_database != files:
        found.append(f"{attempts[-1].files_in_database} files are recorded of {files}")
    return found


def check(folder: Path, attempts: Sequence[Attempt], undisturbed: Undisturbed) -> list[str]:
    """What is wrong with a run that was disturbed and has finished in ``folder``."""
    found = problems_with(attempts, undisturbed.files)
    for name, ours, theirs in zip(REPORTS, read_reports(folder), undisturbed.reports, strict=True):
        if ours != theirs:
            found.append(f"{name} is another than that of an undisturbed run")
    if look_at_copy(folder, count_unfinished_or_extra_runs):
        found.append("the database has other runs than the one that was resumed")
    return [f"{folder}: {problem}" for problem in found]


def kill_often(
    folder: Path, root: Path, *, times: int, seed: int, say: Callable[[str], None] = print
) -> list[str]:
    """Kill the demo so many ``times``; what did not hold, one line each."""
    undisturbed = leave_undisturbed(folder / "undisturbed", root)
    say(f"undisturbed: {undisturbed.files} files in {undisturbed.seconds:.1f} s; seed {seed}")
    usual_seconds = undisturbed.seconds
    chance = random.Random(seed)
    problems: list[str] = []
    kills = rounds = early = late = kept = 0
    while kills < times:
        rounds += 1
        # Each round has a share of the usual time of its own, so that no phase is left out.
        share = (kills + chance.random()) / times
        moments = [share * usual_seconds]
        if chance.random() < SECOND_KILL and kills + 2 <= times:
            moments.append(chance.random() * usual_seconds)
        here = folder / f"round-{rounds}"
        attempts = disturb(here, root, moments)
        found = check(here, attempts, undisturbed)
        problems += found
        if not attempts[0].was_killed:
            # It was quicker than thought. Think so of the next, or the last kills never come.
            usual_seconds = min(usual_seconds, attempts[0].seconds)
        deaths = [attempt for attempt in attempts if attempt.was_killed]
        kills += len(deaths)
        early += sum(not attempt.files_in_database for attempt in deaths)
        late += sum(attempt.files_in_database == undisturbed.files for attempt in deaths)
        kept += sum(attempt.files_in_database for attempt in deaths)
        for problem in found:
            say(problem)
        if not found:
            shutil.rmtree(here)
        say(
            f"{kills:4} kills in {rounds} rounds: {early} before a file was done, {late} after the "
            f"last; {kept:,} files kept through a kill; {len(problems)} problems"
        )
    return problems


def main() -> None:
    """Read the command line, kill, and end with 1 if something did not hold."""
    parser = argparse.ArgumentParser(description="Kill the demo at random moments and resume it.")
    parser.add_argument("--times", type=int, default=200, metavar="N", help="how often (200)")
    parser.add_argument("--root", type=Path, metavar="DIR", help="sources to read (stdlib)")
    parser.add_argument("--seed", type=int, metavar="N", help="to repeat an earlier series")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.randrange(1_000_000)
    root = options.root or Path(os.__file__).parent
    folder = Path(tempfile.mkdtemp(prefix="kill-the-demo-"))
    problems = kill_often(folder, root, times=options.times, seed=seed)
    if problems:
        print(f"{len(problems)} problems; the folders are in {folder}, the seed was {seed}")
        raise SystemExit(1)
    shutil.rmtree(folder)
    print("nothing was done twice, nothing was lost, and every report is the same")


if __name__ == "__main__":
    main()
