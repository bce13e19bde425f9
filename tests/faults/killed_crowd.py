"""A crowd on one file whose processes are killed at random, and replaced, again and again.

    python -m tests.faults.killed_crowd --seconds 3600 --processes 8 --threads 8 --seed 7

Every process opens the file by itself, resumes what the dead have left, and then runs flows in all
its threads: steps, mapped ones, retries, limits, and SQL that commits with its task. One of them is
never killed; it is looked at for what grows. After each round of at most ``--round`` seconds the
crowd stops, and the file has to hold

- everything that was acknowledged, and no call that was made again after that;
- each row of the tasks' own SQL once;
- all runs as Completed, and what ``invariants`` says.

Nobody may have seen an error, and neither memory, descriptors nor the log may have grown.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import embedded_orch
from embedded_orch import flow
from tests.faults.children import fork, in_child
from tests.faults.invariants import problems, unburied
from tests.faults.observing import Lines
from tests.faults.run_records import asking_bare
from tests.faults.watched_flows import (
    Value,
    entered,
    heavy,
    load,
    step,
    stumbling,
    told,
    watched_by,
)

LIMITS = {"gate": 4, "tag:heavy": 6}
# Each of its 8 readers, which are opened when they are first needed, has three.
MOST_NEW_DESCRIPTORS = 3 * 8 + 4
MOST_NEW_MEMORY_BYTES = 40_000_000
# Many times what starts a checkpoint, which must wait for readers and other processes.
MOST_LOG_BYTES = 64_000_000


# Whoever resumes it may be killed at once, as often as chance will have it.
@flow(on_crash="resume", max_resumes=1_000_000)
def crowded(name: str) -> Value:
    told(step(f"{name}/step"))
    told(load(f"{name}/load"))
    for each in step.map([f"{name}/a", f"{name}/b"]).result():
        told(each)
    told(stumbling(f"{name}/stumbling"))
    told(heavy(f"{name}/heavy"))
    return entered(name)


CALLS_OF_A_FLOW = 7


class Findings(NamedTuple):
    """What the rounds showed."""

    seed: int
    rounds: int
    kills: int
    flows: int
    resumed: int
    most_log_bytes: int
    memory_bytes: tuple[int, int]
    descriptors: tuple[int, int]
    problems: list[str]


class Round:
    """One file, from its first process to its last look."""

    def __init__(self, folder: Path, processes: int, threads: int, chance: random.Random) -> None:
        self.url = str(folder / "orch.db")
        self._stop = folder / "stop"
        self._lines = Lines(folder / "witness")
        self._processes = processes
        self._threads = threads
        self._chance = chance
        self._names = 0
        self.kills = 0
        self.most_log_bytes = 0
        self.memory: list[int] = []
        self.descriptors: list[int] = []

    def run(self, seconds: float) -> list[str]:
        """Let the crowd loose for so long, and look at what it leaves."""
        status, _ = in_child(self._set_up)
        assert status == 0
        until = time.monotonic() + seconds
        members = [self._member() for _ in range(self._processes)]
        # The first of them is left alone.
        elder = members[0]
        measure_from = time.monotonic() + seconds / 4
        while time.monotonic() < until:
            time.sleep(self._chance.uniform(0.05, 0.4))
            place = self._chance.randrange(1, len(members))
            os.kill(members[place], signal.SIGKILL)
            os.waitpid(members[place], 0)
            self.kills += 1
            members[place] = self._member()
            if time.monotonic() > measure_from:
                self._measure(elder)
        self._stop.touch()
        ends = [os.waitpid(each, 0)[1] for each in members]
        found = [f"a process ended with {end}" for end in ends if end]
        status, seen = in_child(self._judge)
        return found + (seen if status == 0 else [f"looking at it ended with {status}"])

    def _set_up(self) -> None:
        with embedded_orch.open(self.url) as orch:
            for name, limit in LIMITS.items():
                orch.concurrency_limits.upsert(name, limit)
            with orch.session() as session:
                session.execute("create table loaded (call text not null)")

    def _member(self) -> int:
        self._names += 1
        return fork(partial(self._take_part, self._names))

    def _take_part(self, number: int) -> None:
        logging.getLogger("embedded_orch.recovery").setLevel(logging.ERROR)
        with (
            watched_by(self._lines),
            embedded_orch.open(self.url, busy_timeout_seconds=60) as orch,
        ):
            for run in orch.resume_crashed(crowded):
                self._lines.add("resumed", str(run.id))
            threads = [
                threading.Thread(target=self._work, args=(f"{number}.{each}",))
                for each in range(self._threads)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    def _work(self, name: str) -> None:
        turn = 0
        while not self._stop.exists():
            turn += 1
            try:
                told(crowded(f"{name}.{turn}"))
            except BaseException as error:
                self._lines.add("error", f"{name}: {error!r}")
                return

    def _measure(self, pid: int) -> None:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            self.memory.append(int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
        self.descriptors.append(len(os.listdir(f"/proc/{pid}/fd")))
        log = Path(f"{self.url}-wal")
        if log.exists():
            self.most_log_bytes = max(self.most_log_bytes, log.stat().st_size)

    # -- what is left ------------------------------------------------------------------------------

    def _judge(self) -> list[str]:
        with watched_by(self._lines), embedded_orch.open(self.url) as orch:
            orch.resume_crashed(crowded)
        return [*self._problems_in_order(), *self._problems_in_file(), *self._growth()]

    def _problems_in_order(self) -> Iterator[str]:
        """What the witness heard, line by line: one that was told is never entered again."""
        acknowledged: set[str] = set()
        for what, call in self._lines.all():
            if what == "error":
                yield call
            elif what == "told":
                acknowledged.add(call)
            elif what == "entered" and call in acknowledged:
                yield f"{call} was acknowledged, and called again"

    def _problems_in_file(self) -> Iterator[str]:
        acknowledged = set(self._lines.calls("told"))
        with asking_bare(self.url) as asked:
            yield from problems(asked)
            yield from unburied(asked)
            [(damage,)] = asked("pragma integrity_check")
            states = Counter(name for (name,) in asked("select state_name from flow_run"))
            recorded = {
                value
                for table in ("flow_run", "task_run")
                for (value,) in asked(
                    f"select data ->> '$.call' from {table}_state where type = 'COMPLETED'"
                )
            }
            loaded = Counter(call for (call,) in asked("select call from loaded"))
        if damage != "ok":
            yield damage
        if set(states) != {"Completed"}:
            yield f"flow runs are {dict(states)}"
        if lost := acknowledged - recorded:
            yield f"{len(lost)} calls were acknowledged and are not on record: {sorted(lost)[:3]}"
        if len(recorded) != CALLS_OF_A_FLOW * states["Completed"]:
            yield f"{len(recorded)} calls are on record, of {states['Completed']} flows"
        if any(count != 1 for count in loaded.values()) or len(loaded) != 2 * states["Completed"]:
            yield f"{loaded.total()} rows were loaded, of {len(loaded)} calls"

    def _growth(self) -> Iterator[str]:
        if not self.memory:
            return
        if self.memory[-1] - self.memory[0] > MOST_NEW_MEMORY_BYTES:
            yield f"memory grew from {self.memory[0]:,} to {self.memory[-1]:,} bytes"
        if max(self.descriptors) - self.descriptors[0] > MOST_NEW_DESCRIPTORS:
            yield f"descriptors went from {self.descriptors[0]} to {max(self.descriptors)}"
        if self.most_log_bytes > MOST_LOG_BYTES:
            yield f"the log had {self.most_log_bytes:,} bytes"

    @property
    def counts(self) -> Counter[str]:
        """How many runs were resumed and completed, as the witness heard."""
        return Counter(
            "flows" if what == "told" else what
            for what, call in self._lines.all()
            if what == "resumed" or (what == "told" and "/" not in call)
        )


def run(
    *, seconds: float, processes: int, threads: int, seed: int, round_seconds: float = 300
) -> Findings:
    """Rounds until the time is over."""
    until = time.monotonic() + seconds
    found: list[str] = []
    rounds: list[Round] = []
    counts: Counter[str] = Counter()
    while time.monotonic() < until:
        left = until - time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            chance = random.Random(f"{seed}/{len(rounds)}")
            rounds.append(Round(Path(folder), processes, threads, chance))
            problems_here = rounds[-1].run(min(left, round_seconds))
            found += [f"round {len(rounds) - 1}: {each}" for each in problems_here]
            counts += rounds[-1].counts
    return Findings(
        seed=seed,
        rounds=len(rounds),
        kills=sum(each.kills for each in rounds),
        flows=counts["flows"],
        resumed=counts["resumed"],
        most_log_bytes=max(each.most_log_bytes for each in rounds),
        memory_bytes=(rounds[-1].memory[0], rounds[-1].memory[-1]),
        descriptors=(rounds[-1].descriptors[0], max(rounds[-1].descriptors)),
        problems=found[:50],
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the crowd as the command line says; 1 when something did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.killed_crowd")
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--round", type=float, default=300, help="seconds on one file")
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1, help="who is killed, and when")
    options = parser.parse_args(arguments)
    os.environ.setdefault("EMBEDDED_ORCH_LOG_LEVEL", "CRITICAL")
    found = run(
        seconds=options.seconds,
        processes=options.processes,
        threads=options.threads,
        seed=options.seed,
        round_seconds=options.round,
    )
    print(json.dumps(found._asdict()), flush=True)
    return 1 if found.problems else 0


if __name__ == "__main__":
    # By its name: a run names the module of its flow, which is not __main__.
    from tests.faults.killed_crowd import main as main_of_module

    sys.exit(main_of_module())
