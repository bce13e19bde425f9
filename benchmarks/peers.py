"""Beside its peers: ``make bench-peers``, or ``python -m benchmarks.peers --only dura``.

Each peer gets a virtual environment of its own under ``build/peers``, with embedded_orch's own
dependencies beside it, so that both sides run on the same interpreter. A comparison runs both on
the same job, in processes of their own that take turns, and only where a commit means the same to
both: what each guarantees is in the table. Starting is not in the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.reporting import ROOT, commit, machine
from benchmarks.rows_postgres import new_database

_PROGRAMS = Path(__file__).parent / "peer_programs"
_ENVIRONMENTS = ROOT / "build" / "peers"
_OURS = ("apsw>=3.51.3", "anyio>=4.4", "msgspec>=0.20", "psycopg[binary]>=3.2")


class Peer(NamedTuple):
    """Somebody else's.

    Attributes:
        name: of the package, and of its program without the underscore.
        requirement: what pip installs.
        python: a newer one than ours, where it needs that.
    """

    name: str
    requirement: str
    python: str = sys.executable


class Comparison(NamedTuple):
    """One job, done by a peer and by us.

    Attributes:
        peer: who.
        job: what the programs are asked for.
        operations: how many.
        what: what one operation is.
        ours: what we guarantee when it is done.
        theirs: what they guarantee.
        where: on a file, or on a Postgres of this machine.
    """

    peer: Peer
    job: str
    operations: int
    what: str
    ours: str
    theirs: str
    where: str = "file"


_DURA = Peer("dura", "dura==1.3.0", "python3.13")
_DBOS = Peer("dbos", "dbos==3.4.0")
_HUEY = Peer("huey", "huey==3.5.4")
# With what its server's own requirement lets in today, that does not start.
_PREFECT = Peer("prefect", "prefect==3.8.8 fastapi==0.139.*")
_PGQUEUER = Peer("pgqueuer", "pgqueuer==1.6.0")
_PROCRASTINATE = Peer("procrastinate", "procrastinate[psycopg]==3.10.0")

_POWER = "survives a power cut"
_KILL = "survives kill -9; a power cut may take the last"
_STATES = "row, its three states and the result"

COMPARISONS = (
    Comparison(
        *(_DURA, "steps:full", 1_000, "step of a run, one after the other"),
        ours=f"{_POWER}; {_STATES}, one commit",
        theirs=f"{_POWER}; the result alone, one commit",
    ),
    Comparison(
        *(_DURA, "steps:normal", 2_000, "the same, SQLite's synchronous=normal for both"),
        ours=f"{_KILL}; {_STATES}, one commit",
        theirs=f"{_KILL}; the result alone, one commit",
    ),
    Comparison(
        *(_DBOS, "steps:full", 300, "step of a run, one after the other"),
        ours=f"{_POWER}; {_STATES}, one commit",
        theirs=f"{_POWER} (rollback journal); the result and two times, one commit",
    ),
    Comparison(
        *(_HUEY, "steps:full", 300, "step of a run; of huey a task through its queue"),
        ours=f"{_POWER}; {_STATES}, one commit; resumed after a crash",
        theirs=f"{_POWER}; the result, three commits; a task leaves the queue before it runs",
    ),
    Comparison(
        *(_PREFECT, "steps:normal", 30, "task of a flow, one after the other"),
        ours=f"{_KILL}; {_STATES}, one commit",
        theirs="the result in a file, not synced; states reach its database later",
    ),
    Comparison(
        *(_DBOS, "steps", 300, "step of a run, one after the other"),
        ours=f"{_POWER}; {_STATES}, one commit",
        theirs=f"{_POWER}; the result and two times, one commit",
        where="postgres",
    ),
    Comparison(
        *(_PGQUEUER, "enqueue", 5_000, "run or job put into a queue, 1,000 at once"),
        ours=f"{_POWER}; run, state and due time",
        theirs=f"{_POWER}; job and a line of its log",
        where="postgres",
    ),
    Comparison(
        *(_PROCRASTINATE, "enqueue", 5_000, "run or job put into a queue, 1,000 at once"),
        ours=f"{_POWER}; run, state and due time",
        theirs=f"{_POWER}; job and its event",
        where="postgres",
    ),
    Comparison(
        *(_PGQUEUER, "claim", 5_000, "run or job taken from a queue, 100 at once"),
        ours=f"{_POWER}; owner, state and history",
        theirs=f"{_POWER}; status, heartbeat and a line of its log",
        where="postgres",
    ),
)


class Result(NamedTuple):
    """Seconds for one operation: by the clock, and of this process's processor time."""

    comparison: Comparison
    python: str
    ours: list[dict[str, Any]]
    theirs: list[dict[str, Any]]

    def median(self, side: str, kind: str = "seconds") -> float:
        """Of one side, ``ours`` or ``theirs``, for one operation."""
        samples: list[dict[str, Any]] = getattr(self, side)
        figures = [float(each[kind]) for each in samples]
        return statistics.median(figures) / self.comparison.operations


def environment(peer: Peer) -> Path:
    """The interpreter of a peer's virtual environment, made when it is not there."""
    python = _ENVIRONMENTS / peer.name / "bin" / "python"
    if not python.exists():
        found = shutil.which(peer.python)
        if found is None:
            raise RuntimeError(f"{peer.name} needs {peer.python}")
        print(f"installing {peer.requirement} ...", file=sys.stderr, flush=True)
        subprocess.run([found, "-m", "venv", python.parent.parent], check=True)
        command = [str(python), "-m", "pip", "--disable-pip-version-check", "-qq", "install"]
        try:
            subprocess.run([*command, *peer.requirement.split(), *_OURS], check=True)
        except subprocess.CalledProcessError:
            shutil.rmtree(python.parent.parent)
            raise
    return python


def compare(comparison: Comparison, rounds: int) -> Result:
    """Run both sides, in turns, each round on a new database."""
    python = environment(comparison.peer)
    programs = {"ours": "ours.py", "theirs": f"{comparison.peer.name}_.py"}
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in programs}
    for number in range(rounds):
        for side in list(programs)[:: 1 if number % 2 == 0 else -1]:
            with _place(comparison.where) as where:
                found[side].append(_run(python, programs[side], comparison, where))
    version = subprocess.run(
        [python, "-c", "import platform; print(platform.python_version())"],
        check=True,
        capture_output=True,
        text=True,
    )
    return Result(comparison, version.stdout.strip(), found["ours"], found["theirs"])


@contextmanager
def _place(where: str) -> Generator[str]:
    if where == "postgres":
        with new_database() as url:
            yield url
    else:
        with tempfile.TemporaryDirectory(prefix="bench-peers-") as folder:
            yield str(Path(folder) / "bench.db")


def _run(python: Path, program: str, comparison: Comparison, where: str) -> dict[str, Any]:
    done = subprocess.run(
        [python, _PROGRAMS / program, comparison.job, str(comparison.operations), where],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=300,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"seconds"')]
    figures: dict[str, Any] = json.loads(lines[-1])
    return figures


def table(results: Sequence[Result]) -> str:
    """Markdown: how many in a second, by how much we are ahead, and what that means to whom."""
    lines = [
        "| beside | what | ours | theirs | ours / theirs | ours guarantees | theirs guarantees |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        each, (ours, theirs) = result.comparison, map(result.median, ("ours", "theirs"))
        lines.append(
            f"| {each.peer.requirement}, {each.where}, Python {result.python} | {each.what} |"
            f" {1 / ours:,.0f}/s | {1 / theirs:,.0f}/s | {theirs / ours:.2f} x |"
            f" {each.ours} | {each.theirs} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit status: 1 when a peer could not be run.
    """
    parser = argparse.ArgumentParser(prog="benchmarks.peers", description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], metavar="PEER", help="names of peers")
    parser.add_argument("--rounds", type=int, default=3, help="of each side (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write samples and machine there")
    options = parser.parse_args(arguments)
    results: list[Result] = []
    failed = 0
    for each in COMPARISONS:
        if options.only and each.peer.name not in options.only:
            continue
        print(f"{each.peer.name}: {each.what}, {each.where}", file=sys.stderr, flush=True)
        try:
            results.append(compare(each, options.rounds))
        except (RuntimeError, subprocess.SubprocessError) as error:
            failed = 1
            print(f"  left out: {error}", file=sys.stderr)
            if isinstance(error, subprocess.CalledProcessError) and error.stderr:
                print(error.stderr[-2_000:], file=sys.stderr)
    print(table(results))
    if options.json is not None:
        told = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": commit(ROOT),
            "machine": machine(),
            "comparisons": [
                {
                    **result.comparison._asdict(),
                    "peer": result.comparison.peer.requirement,
                    "python": result.python,
                    "samples": {"ours": result.ours, "theirs": result.theirs},
                }
                for result in results
            ],
        }
        options.json.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    return failed


if __name__ == "__main__":
    sys.exit(main())
