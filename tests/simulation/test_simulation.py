"""A whole machine, simulated: see :mod:`tests.simulation.machine`.

A machine is its seed. Each of four shares takes seeds from ``--seed`` on for a quarter of a minute;
a failure tells its seed, and ``pytest tests/simulation --seed N`` begins with it. ``make soak``
goes through ``--machines`` of them.
"""

from __future__ import annotations

import time
from collections import Counter
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import embedded_orch
from embedded_orch.engine import contexts, task_record
from embedded_orch.orchestration.values import Decision, Verdict
from embedded_orch.store import flow_runs, transitions
from tests.simulation.faults import FAULTS
from tests.simulation.machine import Machine, Violation
from tests.simulation.workload import WORKLOAD

SHARES = 4
SECONDS_OF_A_SHARE = 15
# The seeds by which the simulation itself is tested.
KNOWN = range(60)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with a schema, a table of a user's, and nothing else."""
    path = tmp_path_factory.mktemp("template") / "orch.db"
    with (
        embedded_orch.open(path, durability="off") as orchestrator,
        orchestrator.session(begin_transaction=True) as session,
    ):
        session.execute("CREATE TABLE booking (run_id TEXT NOT NULL, step TEXT NOT NULL)")
    return path


def run_machine(seed: int, template: Path, folder: Path, **options: Any) -> Machine:
    machine = Machine(seed, template, folder, **options)
    machine.run()
    for path in folder.glob(f"{seed}.db*"):
        path.unlink()
    return machine


@pytest.mark.slow
class TestMachine:
    @pytest.mark.parametrize("share", range(SHARES))
    def test_keeps_its_promises_whatever_fails(
        self, share: int, template: Path, tmp_path: Path, seed: int
    ) -> None:
        until = time.monotonic() + SECONDS_OF_A_SHARE
        for number in count(seed + share, SHARES):
            run_machine(number, template, tmp_path)
            if time.monotonic() > until:
                break

    @pytest.mark.soak
    @pytest.mark.parametrize("share", range(100))
    def test_keeps_its_promises_for_as_many_seeds_as_are_asked_for(
        self, share: int, template: Path, tmp_path: Path, seed: int, pytestconfig: pytest.Config
    ) -> None:
        for number in range(share, pytestconfig.getoption("machines"), 100):
            run_machine(seed + number, template, tmp_path)

    def test_does_the_same_again_with_the_same_seed(self, template: Path, tmp_path: Path) -> None:
        for seed in (3, 14, 15):
            first, second = (run_machine(seed, template, tmp_path).trace for _ in range(2))
            assert first == second

    def test_meets_every_fault_and_runs_every_flow(self, template: Path, tmp_path: Path) -> None:
        met: Counter[str] = Counter()
        for seed in KNOWN:
            machine = run_machine(seed, template, tmp_path)
            met.update(machine.met)
            met.update(name for name, _ in machine.ended.values())

        assert set(met) == {*FAULTS, *WORKLOAD}


def forget_what_was_completed(patches: pytest.MonkeyPatch) -> None:
    original = contexts.FlowRunContext.dynamic_key

    def another(self: Any, *args: Any) -> str:
        return f"{original(self, *args)}-{self.epoch}"

    patches.setattr(contexts.FlowRunContext, "dynamic_key", another)


def announce_completions(patches: pytest.MonkeyPatch) -> None:
    """The result of a task is told to its caller before it is committed."""

    async def perform_async(self: Any) -> Any:
        self._database.announce(self._operation)
        run: Any = None
        return Decision(Verdict.ACCEPT, run, None)

    patches.setattr(task_record._Completion, "perform_async", perform_async)


def let_those_write_who_lost_the_run(patches: pytest.MonkeyPatch) -> None:
    for store in (transitions, flow_runs):
        patches.setattr(store, "check_epoch", lambda found, epoch, run_id: None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sabotage", "faults"),
    [
        (forget_what_was_completed, ("kill", "clock jump")),
        (announce_completions, ("kill", "kill at a statement")),
        (let_those_write_who_lost_the_run, ("stop", "taken by force")),
    ],
)
def test_machine_notices(
    sabotage: Any,
    faults: tuple[str, ...],
    template: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sabotage(monkeypatch)

    with pytest.raises(Violation):
        for seed in KNOWN:
            run_machine(seed, template, tmp_path, faults=faults, steps=500)
