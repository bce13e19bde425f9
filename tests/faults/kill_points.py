"""Kill -9 before and after every statement of an operation, and look at what is left each time.

    python -m tests.faults.kill_points FOLDER --operation map --every 10 --seed 3
    python -m tests.faults.kill_points postgresql://... --operation recovery --at 37

A point is the beginning or the end of a statement on any connection of the process. For each, the
operation (see ``operations``) runs on a database of its own in a forked child, which kills itself
with SIGKILL when it comes there. A second child looks at the database through the bare driver,
brings the operation to its end, and looks again:

- every call that was acknowledged before the kill is on record then;
- no function is called again whose call was on record;
- rows that a task wrote by its own SQL are there if its call is, once;
- at the end all calls are on record, and one run of each flow;
- recovering again changes nothing, and the database holds what ``invariants`` says.

The program that forks has opened nothing, and has all modules loaded.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import psycopg

import embedded_orch
from tests.faults import watched_flows
from tests.faults.children import in_child, prepare_to_fork
from tests.faults.controls import CONTROLS
from tests.faults.grounds import FileGround, Ground, ServerGround
from tests.faults.invariants import changes
from tests.faults.observing import Lines, Seen, look
from tests.faults.operations import OPERATIONS, Operation

NEVER = 1 << 62


class Countdown:
    """Kills this process at the Nth point from now on; counts on all its connections.

    Attributes:
        points: how many have come so far.
        kill_at: at which of them.
    """

    def __init__(self, kill_at: int) -> None:
        self.points = 0
        self.kill_at = kill_at
        self._lock = threading.Lock()
        apsw.connection_hooks.append(self._on_connection)
        for kind in (psycopg.Connection, psycopg.Cursor):
            kind.execute = self._around(kind.execute)  # type: ignore[method-assign]

    def point(self, _event: object = None) -> None:
        with self._lock:
            self.points += 1
            if self.points == self.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    def _on_connection(self, connection: apsw.Connection) -> None:
        # The second event comes when a statement has ended.
        connection.trace_v2(apsw.SQLITE_TRACE_STMT | apsw.SQLITE_TRACE_PROFILE, self.point)

    def _around(self, execute: Any) -> Any:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.point()
            answer = execute(*args, **kwargs)
            self.point()
            return answer

        return counted


# -- children --------------------------------------------------------------------------------------


def act(operation: Operation, url: str, witness: Lines, kill_at: int) -> list[int]:
    """Do the operation, and die at a point; else how many there were in opening, and in all."""
    countdown = Countdown(kill_at)
    points: list[int] = []
    carry_on(operation, url, witness, opened=lambda: points.append(countdown.points))
    return [*points, countdown.points]


def carry_on(
    operation: Operation, url: str, witness: Lines, *, opened: Callable[[], object] = bool
) -> None:
    """Bring the operation to its end; ``opened`` is called in between."""
    with (
        operation.arranged(),
        watched_flows.watched_by(witness),
        embedded_orch.open(url) as orch,
    ):
        opened()
        operation.act(orch)


def prepare(operation: Operation, url: str) -> None:
    """What is there before the operation begins. May kill this process."""
    with embedded_orch.open(url) as orch:
        if operation.prepare is not None:
            operation.prepare(orch)


# -- looking ---------------------------------------------------------------------------------------


def judge(operation: Operation, url: str, witness: Lines) -> list[str]:
    """What is wrong with what a kill has left, and with how it went on."""
    before = look(operation, url)
    entered_before = witness.calls("entered")
    found = _problems_after_the_kill(operation, before, witness)
    carry_on(operation, url, witness)
    after = look(operation, url)
    with operation.arranged(), embedded_orch.open(url) as orch:
        orch.engine.recovery.sweep()
    if look(operation, url).records != after.records:
        found.append("recovering a second time changed something")
    done_again = set(witness.calls("entered") - entered_before) & set(before.calls)
    for call in done_again - operation.at_least_once:
        found.append(f"{call} was on record, and was called again")
    found += changes(before.records, after.records)
    found += _problems_at_the_end(operation, after, witness)
    if operation.check is not None:
        found += operation.check(url)
    return found


def _problems_after_the_kill(operation: Operation, seen: Seen, witness: Lines) -> list[str]:
    found = [
        f"{call} was acknowledged, and is not on record"
        for call in set(witness.calls("told")) - set(seen.calls)
    ]
    for row in seen.loaded:
        if row.split(",")[0] not in seen.calls:
            found.append(f"the row {row} is there, and its call is not")
    return found


def _problems_at_the_end(operation: Operation, after: Seen, witness: Lines) -> Iterator[str]:
    yield from after.problems
    recorded = set(after.calls) - operation.undone
    if recorded != operation.calls:
        yield f"on record at the end: {sorted(recorded)}, and not {sorted(operation.calls)}"
    for row in operation.loaded | set(after.loaded):
        if after.loaded[row] != (row in operation.loaded):
            yield f"the row {row} is there {after.loaded[row]} times"
    for call in operation.at_least_once - set(witness.calls("entered")):
        yield f"{call} was never called"
    flows = Counter(
        run.key for run in after.records.flow_runs.values() if not run.parent_task_run_id
    )
    for name, count in flows.items():
        if count != 1:
            yield f"there are {count} runs of {name}"


# -- the program -----------------------------------------------------------------------------------


class Report(NamedTuple):
    """What the kills of one operation showed."""

    operation: str
    points: int
    kills: int
    problems: list[str]


def kill_at_points(
    operation: Operation,
    ground: Ground,
    *,
    every: int = 1,
    seed: int = 0,
    only: int | None = None,
    until: str | None = None,
    after_opening: bool = False,
) -> Report:
    """Kill at every so manieth point, the first of them by the seed, and judge each time.

    With ``after_opening`` the database is open by then.
    With ``until`` it begins at the end, and is over when a problem says these words.
    """
    template = ground.template()
    if operation.name != "opening":
        in_child(lambda: prepare(operation, template))
    counts, found = _attempt(operation, ground, NEVER)
    if found or counts is None:
        return Report(operation.name, 0, 0, [f"without a kill: {each}" for each in found])
    in_opening, count = counts
    chosen = [only] if only else list(range(1 + seed % every, count + 1, every))
    if after_opening:
        chosen = [point for point in chosen if point > in_opening]
    if until:
        # 68 of some 160 points are the opening of the database.
        chosen.reverse()
    kills = 0
    for point in chosen:
        left, found_here = _attempt(operation, ground, point)
        kills += left is None
        found += [f"at {point}: {each}" for each in found_here]
        if until and any(until in each for each in found_here):
            break
    return Report(operation.name, count, kills, found)


def _attempt(
    operation: Operation, ground: Ground, point: int
) -> tuple[list[int] | None, list[str]]:
    """How many points there were, as ``act`` says; None when it was killed; and what is wrong."""
    url = ground.fresh()
    with tempfile.TemporaryDirectory() as folder:
        witness = Lines(Path(folder) / "witness")
        status, points = in_child(lambda: act(operation, url, witness, point))
        was_killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        if status and not was_killed:
            return None, [f"it ended with {status} and not by the kill"]
        ended, found = in_child(lambda: judge(operation, url, witness))
        if ended:
            found = [f"going on after it ended with {ended}"]
    ground.clear(url)
    return points, found


def main(arguments: list[str] | None = None) -> int:
    """Kill as the command line says; 1 when something did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.kill_points", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("where", help="an empty folder, or the URL of a server's superuser")
    parser.add_argument("--operation", choices=[*OPERATIONS, *CONTROLS], help="all when not given")
    parser.add_argument("--every", type=int, default=1, help="every nth point only")
    parser.add_argument("--seed", type=int, default=0, help="at which point to begin")
    parser.add_argument("--at", type=int, help="one point only")
    parser.add_argument("--after-opening", action="store_true", help="not while it is opened")
    parser.add_argument("--until", help="go backwards, until a problem says so")
    options = parser.parse_args(arguments)
    os.environ.setdefault("EMBEDDED_ORCH_LOG_LEVEL", "CRITICAL")
    prepare_to_fork()
    failed = 0
    for name in [options.operation] if options.operation else OPERATIONS:
        operation = {**OPERATIONS, **CONTROLS}[name]
        if options.where.startswith("postgresql") and not operation.is_on_server:
            continue
        ground: Ground
        if options.where.startswith("postgresql"):
            ground = ServerGround(options.where)
        else:
            ground = FileGround(Path(tempfile.mkdtemp(dir=options.where)))
        report = kill_at_points(
            operation,
            ground,
            every=options.every,
            seed=options.seed,
            only=options.at,
            until=options.until,
            after_opening=options.after_opening,
        )
        print(json.dumps(report._asdict()), flush=True)
        failed += bool(report.problems)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
