"""Every operation of the table on a disk that fails, and through power cuts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from random import Random

import pytest

from tests.faults.nth_fault_vfs import Fault, FaultKind, Trial, attempt, count_calls, sweep
from tests.faults.operation_subjects import FaultyOperation, RecordedOperation
from tests.faults.operations import OPERATIONS
from tests.faults.power_cuts import (
    ALLOWED_AFTER_KILL,
    ALLOWED_AFTER_POWER_CUT,
    Survey,
    Verdict,
    killed_states,
    power_cut_states,
    record,
    survey,
)

DAMAGE = {Verdict.HOLE, Verdict.TORN, Verdict.CORRUPT}


def violations(trials: Iterable[Trial]) -> list[str]:
    return [f"{trial.fault}: {what}" for trial in trials for what in trial.violations]


def failing_somewhere(
    subject: FaultyOperation,
    kind: FaultKind,
    sticky: bool,
    *,
    among: int,
    random: Random,
    folder: Path,
) -> Trial:
    """A trial whose fault was met. Threads make calls too, and not as many each time."""
    for _ in range(10):
        trial = attempt(subject, Fault(kind, random.randint(1, among), sticky), str(folder))
        if trial.failed_call is not None:
            return trial
        assert trial.violations == ()
        among = trial.calls
    raise AssertionError(f"no {kind.name} was met in {among} calls")


def after_power_cuts(
    operation: str,
    folder: Path,
    *,
    durability: str,
    states: int,
    seed: int,
    kills_every: int = 0,
    go_on_every: int = 10,
) -> list[Survey]:
    """What power cuts leave of an operation, and, every so manieth, what kills leave.

    Of both, in every so manieth, it is brought to its end.
    """
    workload = RecordedOperation(OPERATIONS[operation], folder)
    held = workload.lay_out(str(folder / "recorded.db"))
    log = record(workload, durability=durability, folder=str(folder), held_at_start=held)
    chosen = [
        (power_cut_states(log, seed=seed, states=states), ALLOWED_AFTER_POWER_CUT[durability])
    ]
    if kills_every:
        chosen.append((killed_states(log, every=kills_every), ALLOWED_AFTER_KILL))
    found = [
        survey(
            log,
            states_of,
            check=workload.held,
            allowed=allowed,
            folder=str(folder),
            go_on=None if durability == "off" else workload.go_on,
            go_on_every=go_on_every * (kills_every if allowed is ALLOWED_AFTER_KILL else 1),
        )
        for states_of, allowed in chosen
    ]
    print(operation, durability, f"seed {seed}", *found, sep="\n")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS)
def test_operation_on_a_disk_that_fails_is_all_there_or_not_at_all(
    operation: str, tmp_path: Path, seed: int
) -> None:
    """Each kind of fault, once and from then on, at one place that the seed draws."""
    subject = FaultyOperation(OPERATIONS[operation], tmp_path)
    random = Random(f"{seed}/{operation}")

    trials: list[Trial] = []
    for kind, count in count_calls(subject, str(tmp_path)).items():
        trials += [
            failing_somewhere(subject, kind, sticky, among=count, random=random, folder=tmp_path)
            for sticky in (False, True)
        ]

    assert violations(trials) == []


def test_file_that_cannot_be_read_while_it_is_opened_is_an_error_of_ours(tmp_path: Path) -> None:
    """Seen to fail when the record of migrations was read outside of what translates errors."""
    subject = FaultyOperation(OPERATIONS["task"], tmp_path)
    faults = [Fault(FaultKind.READ, nth, sticky=False) for nth in range(1, 25)]

    trials = [attempt(subject, fault, str(tmp_path)) for fault in faults]

    assert violations(trials) == []


@pytest.mark.slow
@pytest.mark.parametrize("durability", ["full", "normal"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_operation_through_power_cuts_keeps_what_the_durability_promises(
    operation: str, durability: str, tmp_path: Path, seed: int
) -> None:
    """Some 500 power cuts for both durabilities, and a share of all kills within writes."""
    found = after_power_cuts(
        operation, tmp_path, durability=durability, states=12, seed=seed, kills_every=60
    )

    assert [survey.findings for survey in found] == [[], []]
    assert found[0].went_on > 0


@pytest.mark.slow
def test_operation_without_syncs_is_damaged_by_power_cuts(tmp_path: Path, seed: int) -> None:
    """Or the test above would be blind."""
    [found] = after_power_cuts("submit", tmp_path, durability="off", states=100, seed=seed)

    assert DAMAGE & {finding.verdict for finding in found.findings}


# -- At length -----------------------------------------------------------------------------------


@pytest.mark.soak
@pytest.mark.parametrize("kind", FaultKind)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_operation_is_all_there_or_not_at_all_whatever_call_fails(
    operation: str, kind: FaultKind, tmp_path: Path
) -> None:
    subject = FaultyOperation(OPERATIONS[operation], tmp_path)

    result = sweep(subject, kinds=(kind,), folder=str(tmp_path), at_most=None)

    print(result)
    assert result.violations == []


@pytest.mark.soak
@pytest.mark.parametrize("durability", ["full", "normal"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_operation_through_thousands_of_power_cuts_keeps_its_promise(
    operation: str, durability: str, tmp_path: Path, seed: int
) -> None:
    found = after_power_cuts(
        operation,
        tmp_path,
        durability=durability,
        states=5000,
        seed=seed,
        kills_every=1,
        go_on_every=25,
    )

    assert [survey.findings for survey in found] == [[], []]
