"""A whole machine, simulated: see :mod:`tests.simulation.machine`.

A machine is its seed. Some hundred are run, from ``--seed`` on; a failure tells its seed, and
``pytest tests/simulation --seed N`` begins with it. ``make soak`` goes through ``--machines`` of
them in slices, and says in a line for each what it found.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from embedded_orch.engine import task_record
from embedded_orch.engine.task_call import TaskCall
from embedded_orch.orchestration.values import Decision, Verdict
from embedded_orch.store import flow_runs, transitions
from tests.simulation.faults import FAULTS
from tests.simulation.machine import Violation
from tests.simulation.seeds import make_template, run_machine, run_slice
from tests.simulation.workload import WORKLOAD

SHARES = 4
MACHINES_OF_A_SHARE = 80
SOAK_SHARES = 100
# The seeds by which the simulation itself is tested, and as many as meet everything once.
KNOWN = range(60)
FEW = range(20)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What each machine has a copy of."""
    return make_template(tmp_path_factory.mktemp("template") / "orch.db")


@pytest.mark.slow
class TestMachine:
    @pytest.mark.parametrize("share", range(SHARES))
    def test_keeps_its_promises_whatever_fails(
        self, share: int, template: Path, tmp_path: Path, seed: int
    ) -> None:
        first = seed + share * MACHINES_OF_A_SHARE
        seeds = range(first, first + MACHINES_OF_A_SHARE)

        assert run_slice(seeds, template, tmp_path).told == []

    @pytest.mark.soak
    @pytest.mark.parametrize("share", range(SOAK_SHARES))
    def test_keeps_its_promises_for_as_many_seeds_as_are_asked_for(
        self,
        share: int,
        template: Path,
        tmp_path: Path,
        seed: int,
        pytestconfig: pytest.Config,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        count = pytestconfig.getoption("machines")
        first, end = (count * each // SOAK_SHARES for each in (share, share + 1))
        if first == end:
            pytest.skip("fewer machines are asked for than there are shares")

        found = run_slice(range(seed + first, seed + end), template, tmp_path)

        with capsys.disabled():
            print(f"\n{found}")
        assert found.told == []

    def test_does_the_same_again_with_the_same_seed(self, template: Path, tmp_path: Path) -> None:
        for seed in (3, 14, 15):
            first, second = (run_machine(seed, template, tmp_path).trace for _ in range(2))
            assert first == second

    def test_meets_every_fault_and_runs_every_flow(self, template: Path, tmp_path: Path) -> None:
        met: Counter[str] = Counter()
        for seed in FEW:
            machine = run_machine(seed, template, tmp_path)
            met.update(machine.met)
            met.update(name for name, _ in machine.ended.values())
            if met.keys() >= {*FAULTS, *WORKLOAD}:
                break

        assert set(met) == {*FAULTS, *WORKLOAD}


def forget_what_was_completed(patches: pytest.MonkeyPatch) -> None:
    original = TaskCall._dynamic_key

    def another(self: Any) -> Any:
        key = yield from original(self)
        return f"{key}-{self._flow_run.epoch}"

    patches.setattr(TaskCall, "_dynamic_key", another)


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
