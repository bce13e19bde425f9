"""What a database holds after the process was killed or the power was cut, at every point.

A workload runs once over a ``RecordingVFS`` and marks its operations. Then the log is played back
to many points, the files that may be found there are written into a fresh folder, SQLite recovers
them, and a verdict says whether what it holds is allowed:

- ``killed_states``: the process died, the operating system lives. Every prefix of the writes, and
  every write left half done. Whatever the durability, all that was acknowledged must be there.
- ``power_cut_states``: chosen by a seed; the model is told in ``recording_vfs``. ``full`` must hold
  everything acknowledged. ``normal`` may lose the latest operations, but must hold the earlier
  ones whole, with no hole. ``off`` promises nothing, and is run because the harness must find
  damage there: if it does not, it would not find any elsewhere.

An operation that was in flight at the cut may be there or not, wholly. Holes are judged by what the
log proves: an operation that was acknowledged before another began must not be missing while the
later one is there. So concurrent operations, and those of one group commit, may come in any order.

A workload is a callable ``(open_database, log) -> None``. It opens the database through
``open_database()``, or takes ``open_database.path`` and ``.vfs`` and opens it in its own way, with
the durability named there; marks every operation by a number of its own; and leaves the file open
or closed as it likes. The ``check`` that goes with it is ``(connection) -> numbers held``, and
raises ``TornOperation`` where one is there in part. Where there is a ``go_on``, it works on with a
share of the states that are as they should be. Such workloads stand in ``raw_workload``, on bare
apsw, and in ``orchestrator_workload``, flows on the orchestrator itself.

State number n of a seed is a function of the seed, n and the log. SQLite salts its WAL from the
operating system's entropy, so two recordings differ in those bytes, but not in what is done when.

States that hold the same bytes are recovered once, and judged each: of what is cut often at the
same place, many are alike.

    python -m tests.faults.power_cuts --workload runs --durability full --states 5000 --seed 7
    python -m tests.faults.power_cuts --operation retention --durability normal
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from random import Random

import apsw
import msgspec

from tests.faults.recording_vfs import Disk, Log, Mark, RecordingVFS, Write

SYNCHRONOUS = {"full": "FULL", "normal": "NORMAL", "off": "OFF"}

Check = Callable[[apsw.Connection], frozenset[int]]
Workload = Callable[["OpenDatabase", Log], None]
GoOn = Callable[[str], None]


class TornOperation(Exception):
    """An operation is there in part: what one transaction wrote was not kept or lost as one."""


class Verdict(Enum):
    """What became of the operations, from good to bad."""

    WHOLE = "all acknowledged are there"
    SHORTENED = "the latest acknowledged are lost, the earlier ones whole"
    HOLE = "one is lost, a later one is there"
    TORN = "one is there in part"
    CORRUPT = "the file is damaged"
    STUCK = "all is as it should be, and yet the work could not go on"


ALLOWED_AFTER_POWER_CUT = {
    "full": frozenset({Verdict.WHOLE}),
    "normal": frozenset({Verdict.WHOLE, Verdict.SHORTENED}),
    # Nothing is promised: the same measure as for normal, which it must fail.
    "off": frozenset({Verdict.WHOLE, Verdict.SHORTENED}),
}
ALLOWED_AFTER_KILL = frozenset({Verdict.WHOLE})


class OpenDatabase:
    """Opens the recorded database. Call it for a connection with the settings of ``durability``."""

    def __init__(self, path: str, vfs: str, durability: str) -> None:
        self.path = path
        self.vfs = vfs
        self.durability = durability

    def __call__(self) -> apsw.Connection:
        connection = apsw.Connection(self.path, vfs=self.vfs)
        connection.set_busy_timeout(10_000)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={SYNCHRONOUS[self.durability]}")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA wal_autocheckpoint=0")
        # The last to close would checkpoint in one go: the workload does it in steps of its own.
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        return connection


def record(
    workload: Workload,
    *,
    durability: str,
    folder: str,
    held_at_start: frozenset[int] = frozenset(),
) -> Log:
    """Run a workload once on ``recorded.db`` in ``folder`` and give the log of what it did.

    If the file exists, closed, it is taken as durable, with the operations ``held_at_start`` in it.
    """
    log = Log(held_at_start)
    path = os.path.join(folder, "recorded.db")
    name = f"recording-{id(log):x}"
    vfs = RecordingVFS(name, path, log)
    try:
        workload(OpenDatabase(path, name, durability), log)
    finally:
        vfs.unregister()
    return log


class State(msgspec.Struct, frozen=True):
    """Files that may be found, and where in the log this was."""

    number: int
    position: int
    files: dict[str, bytes]

    def digest(self) -> bytes:
        """The same for the same bytes under the same names, wherever in the log."""
        digest = hashlib.blake2b(digest_size=16)
        for name, content in sorted(self.files.items()):
            digest.update(f"{name} {len(content)} ".encode())
            digest.update(content)
        return digest.digest()


def killed_states(log: Log, *, every: int = 1) -> Iterator[State]:
    """What a killed process can leave: each prefix of the log, and each write half done.

    With ``every``, only those whose number is a multiple of it.
    """
    disk = Disk(log)
    number = 0
    for position, entry in enumerate(log.entries):
        if isinstance(entry, Mark):
            continue
        if isinstance(entry, Write):
            half = disk.files_with_part_of(entry)
            if half is not None:
                if number % every == 0:
                    yield State(number, position, half)
                number += 1
        disk.play(entry)
        disk.settle()
        if number % every == 0:
            yield State(number, position + 1, disk.files())
        number += 1


def power_cut_states(
    log: Log, *, seed: int, states: int, only: int | None = None
) -> Iterator[State]:
    """States that a power cut can leave, ``states`` of them, or only the one of that number.

    They come in the order of the log, not of their numbers: so it is played back once.
    """
    cuts: list[tuple[int, int, Random]] = []
    for number in range(states):
        random = Random(f"{seed}/{number}")
        cuts.append((random.randint(0, len(log.entries)), number, random))
    disk = Disk(log)
    played = 0
    for position, number, random in sorted(cuts, key=lambda cut: cut[:2]):
        for entry in log.entries[played:position]:
            disk.play(entry)
        played = position
        if only in {None, number}:
            yield State(number, position, disk.files_after_power_cut(random))


class History:
    """What the marks of a log say about the operations at each of its points."""

    def __init__(self, log: Log) -> None:
        # Before the first entry, and in no order among themselves.
        self._begun = dict.fromkeys(log.held_at_start, -1)
        self._acknowledged = dict.fromkeys(log.held_at_start, -1)
        for position, entry in enumerate(log.entries):
            if isinstance(entry, Mark):
                if entry.begun is not None:
                    self._begun[entry.begun] = position
                if entry.acknowledged is not None:
                    self._acknowledged[entry.acknowledged] = position

    def judge(self, position: int, held: frozenset[int]) -> tuple[Verdict, str]:
        """The verdict on a state cut before entry ``position``, and what is wrong with it.

        Raises:
            ValueError: an operation is held that had not begun: the workload marks too late.
        """
        early = [n for n in held if self._begun.get(n, position) >= position]
        if early:
            raise ValueError(f"operations {early} are held but had not begun")
        lost = {n for n, at in self._acknowledged.items() if at < position} - held
        if not lost:
            return Verdict.WHOLE, ""
        first_lost = min(lost, key=self._acknowledged.__getitem__)
        later = [n for n in held if self._begun[n] > self._acknowledged[first_lost]]
        if later:
            return Verdict.HOLE, f"operation {first_lost} is lost, {min(later)} is there"
        return Verdict.SHORTENED, f"{len(lost)} lost, from operation {first_lost} on"


class Finding(msgspec.Struct, frozen=True):
    """One state that is not allowed, with what it takes to see it again."""

    state: int
    position: int
    verdict: Verdict
    detail: str


class Survey(msgspec.Struct):
    """The verdicts on many states, how many differ, and in how many the work went on."""

    counts: dict[Verdict, int]
    findings: list[Finding]
    different: int = 0
    went_on: int = 0

    @property
    def states(self) -> int:
        return sum(self.counts.values())

    def __str__(self) -> str:
        allowed = f"{len(self.findings)} not allowed, work went on in {self.went_on}"
        lines = [f"{self.states} states, {allowed}, {self.different} of them different"]
        lines += [f"  {self.counts[verdict]:6}  {verdict.value}" for verdict in Verdict]
        lines += [
            f"  state {finding.state}, cut before entry {finding.position}: "
            f"{finding.verdict.name}, {finding.detail}"
            for finding in self.findings[:5]
        ]
        return "\n".join(lines)


def survey(
    log: Log,
    states: Iterator[State],
    *,
    check: Check,
    allowed: frozenset[Verdict],
    folder: str,
    go_on: GoOn | None = None,
    go_on_every: int = 25,
) -> Survey:
    """Recover each state in a fresh folder below ``folder`` and judge it.

    Args:
        log: what the states are of.
        states: to be judged.
        check: what the database holds.
        allowed: the verdicts that are no findings.
        folder: where each state gets a folder of its own.
        go_on: given the path of an allowed state, works on with it and raises if it cannot.
        go_on_every: for which numbers: multiples of this.
    """
    history = History(log)
    result = Survey(counts=dict.fromkeys(Verdict, 0), findings=[])
    recovered: dict[bytes, _Recovered] = {}
    for state in states:
        digest = state.digest()
        goes_on = go_on is not None and state.number % go_on_every == 0
        if digest in recovered and not goes_on:
            verdict, detail = _verdict_on(recovered[digest], state.position, history)
        else:
            with _restored(state, folder) as path:
                recovered[digest] = _what_is_left(path, check)
                verdict, detail = _verdict_on(recovered[digest], state.position, history)
                if go_on is not None and goes_on and verdict in allowed:
                    stuck = _failure_of(go_on, path)
                    result.went_on += stuck is None
                    verdict, detail = (Verdict.STUCK, stuck) if stuck else (verdict, detail)
        result.counts[verdict] += 1
        if verdict not in allowed:
            result.findings.append(Finding(state.number, state.position, verdict, detail))
    result.different = len(recovered)
    return result


# The operations that a database holds, or what is wrong with it.
_Recovered = frozenset[int] | tuple[Verdict, str]


@contextmanager
def _restored(state: State, folder: str) -> Iterator[str]:
    """The path of the database of a state, in a folder where there is nothing else."""
    with tempfile.TemporaryDirectory(dir=folder) as fresh:
        for name, content in state.files.items():
            with open(os.path.join(fresh, name), "wb") as file:
                file.write(content)
        yield os.path.join(fresh, "recorded.db")


def _what_is_left(path: str, check: Check) -> _Recovered:
    try:
        return _recover(path, check)
    except TornOperation as torn:
        return Verdict.TORN, str(torn)
    except apsw.Error as error:
        return Verdict.CORRUPT, f"{type(error).__name__}: {error}"


def _verdict_on(found: _Recovered, position: int, history: History) -> tuple[Verdict, str]:
    return found if isinstance(found, tuple) else history.judge(position, found)


def _failure_of(go_on: GoOn, path: str) -> str | None:
    try:
        go_on(path)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def _recover(path: str, check: Check) -> frozenset[int]:
    """What a database holds once SQLite has recovered it; raises apsw.Error if it is damaged."""
    connection = apsw.Connection(path)
    try:
        # The folder goes when this closes: a last checkpoint would cost more than all the rest.
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.execute("PRAGMA synchronous=OFF")
        problems = connection.execute("PRAGMA integrity_check(1)").get
        if problems != "ok":
            raise apsw.CorruptError(f"integrity_check: {problems}")
        if connection.execute("PRAGMA foreign_key_check").get is not None:
            raise apsw.CorruptError("foreign_key_check: a row without its parent")
        return check(connection)
    finally:
        connection.close()


# -- Command line --------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """Survey a workload and print the counts; 0 if the durability kept its promise.

    For ``off`` 0 means that damage was found, as it must be.
    """
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        workload, check, go_on, held = _workload(options, folder)
        log = record(workload, durability=options.durability, folder=folder, held_at_start=held)
        print(f"seed {options.seed}, durability {options.durability}, {len(log.entries)} entries")
        cuts = survey(
            log,
            power_cut_states(log, seed=options.seed, states=options.states, only=options.only),
            check=check,
            allowed=ALLOWED_AFTER_POWER_CUT[options.durability],
            folder=folder,
            go_on=go_on if options.durability != "off" else None,
            go_on_every=options.go_on_every,
        )
        print(f"power cuts: {cuts}")
        kept = bool(cuts.findings) == (options.durability == "off")
        if options.kills_every:
            kills = survey(
                log,
                killed_states(log, every=options.kills_every),
                check=check,
                allowed=ALLOWED_AFTER_KILL,
                folder=folder,
                go_on=go_on,
                go_on_every=options.kills_every * options.go_on_every,
            )
            print(f"kills: {kills}")
            kept = kept and not kills.findings
    return 0 if kept else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.power_cuts", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--workload", choices=("runs", "raw"), default="runs")
    parser.add_argument("--operation", help="of tests.faults.operations, in place of a workload")
    parser.add_argument("--size", type=int, help="how many flow calls (runs) or operations (raw)")
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--durability", choices=sorted(SYNCHRONOUS), default="full")
    parser.add_argument("--states", type=int, default=5000, help="power cuts to draw")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="judge only the state of this number")
    parser.add_argument("--kills-every", type=int, default=0, help="every nth killed state as well")
    parser.add_argument("--go-on-every", type=int, default=25, help="resume in every nth state")
    return parser


def _workload(
    options: argparse.Namespace, folder: str
) -> tuple[Workload, Check, GoOn | None, frozenset[int]]:
    """What is recorded, how it is judged and goes on, and what is there before it."""
    if options.operation:
        from tests.faults.operation_subjects import RecordedOperation
        from tests.faults.operations import OPERATIONS

        operation = RecordedOperation(OPERATIONS[options.operation], Path(folder))
        held = operation.lay_out(os.path.join(folder, "recorded.db"))
        return operation, operation.held, operation.go_on, held
    size = {} if options.size is None else {"size": options.size}
    if options.workload == "raw":
        from tests.faults.raw_workload import RawWorkload, held_operations

        return RawWorkload(threads=options.threads, **size), held_operations, None, frozenset()
    from tests.faults.orchestrator_workload import OrchestratorWorkload

    runs = OrchestratorWorkload(threads=options.threads, **size)
    return runs, runs.held_operations, runs.go_on, frozenset()


if __name__ == "__main__":
    # By its name: the workloads raise and expect the classes of the module, not of __main__.
    from tests.faults.power_cuts import main as main_of_module

    sys.exit(main_of_module())
