"""Each I/O call of a script fails in turn: nothing acknowledged is lost, nothing is half done."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.faults.nth_fault_vfs import (
    Fates,
    Fault,
    FaultKind,
    RawSubject,
    Sweep,
    Trial,
    attempt,
    sweep,
)

POSITIONS = 12
"""Of each kind and way in a normal run; all of them under soak."""


def a_sweep(
    subject: RawSubject,
    folder: Path,
    *,
    kinds: Iterable[FaultKind] = FaultKind,
    at_most: int | None = POSITIONS,
) -> Sweep:
    result = sweep(subject, kinds=kinds, folder=str(folder), at_most=at_most)
    print(result)
    return result


def durable_by_a_failed_sync(trials: Iterable[Trial]) -> bool:
    """Whether every one of these faults is of a kind that may have hit a sync."""
    return all("xSync" in trial.fault.kind.calls for trial in trials)


# -- What must hold ------------------------------------------------------------------------------


@pytest.mark.parametrize("synchronous", ["NORMAL", "FULL"])
def test_a_failed_call_loses_nothing_and_leaves_nothing_half_done(
    synchronous: str, tmp_path: Path
) -> None:
    result = a_sweep(RawSubject(synchronous=synchronous), tmp_path)

    assert {trial.fault.kind for trial in result.trials} == set(FaultKind)
    assert result.violations == []


def test_a_commit_that_raises_did_not_happen_when_it_neither_syncs_nor_checkpoints(
    tmp_path: Path,
) -> None:
    result = a_sweep(RawSubject(synchronous="NORMAL"), tmp_path)

    assert any(trial.unknown for trial in result.trials)
    assert result.raised_but_durable == []


def test_a_commit_whose_sync_fails_may_come_back_after_a_look_up_did_not_find_it(
    tmp_path: Path,
) -> None:
    """The frames are in the WAL, whole; only the index in memory does not count them.

    So with FULL "not found" right after a failed COMMIT is no proof that it will not be there.
    """
    kinds = (FaultKind.WRITE, FaultKind.FSYNC, FaultKind.READ)

    result = a_sweep(RawSubject(synchronous="FULL"), tmp_path, kinds=kinds)

    assert result.came_back != []
    assert durable_by_a_failed_sync(result.raised_but_durable)
    assert result.violations == []


def test_a_fault_leaves_no_descriptor_behind(tmp_path: Path) -> None:
    before = len(os.listdir("/dev/fd"))

    a_sweep(RawSubject(synchronous="FULL"), tmp_path, at_most=2)

    assert len(os.listdir("/dev/fd")) == before


# -- What must be found, or the sweep is blind ---------------------------------------------------


def test_with_automatic_checkpoints_a_commit_that_raises_may_be_durable(tmp_path: Path) -> None:
    subject = RawSubject(synchronous="NORMAL", autocheckpoint_pages=10)

    result = a_sweep(subject, tmp_path, kinds=(FaultKind.WRITE, FaultKind.READ))

    assert result.raised_but_durable != []
    assert result.violations == []


class Boasting(RawSubject):
    """Tells the caller that it is done whatever COMMIT answered."""

    def script(self, path: str, vfs: str, fates: Fates) -> None:
        super().script(path, vfs, fates)
        fates.acknowledged |= set(fates.unknown)
        fates.unknown.clear()


class Despairing(RawSubject):
    """Tells the caller that a COMMIT which raised did not happen."""

    def script(self, path: str, vfs: str, fates: Fates) -> None:
        super().script(path, vfs, fates)
        fates.refused |= set(fates.unknown)
        fates.unknown.clear()


def test_an_acknowledgement_that_is_not_true_is_a_violation(tmp_path: Path) -> None:
    result = a_sweep(Boasting(synchronous="NORMAL"), tmp_path, kinds=(FaultKind.WRITE,))

    assert any("acknowledged and lost" in violation for violation in result.violations)


def test_a_refusal_that_is_not_true_is_a_violation(tmp_path: Path) -> None:
    result = a_sweep(Despairing(synchronous="FULL"), tmp_path, kinds=(FaultKind.FSYNC,))

    assert any("and yet there" in violation for violation in result.violations)


def test_a_script_that_goes_wrong_by_itself_is_not_swept(tmp_path: Path) -> None:
    class Forgetful(RawSubject):
        def held(self, path: str) -> frozenset[int]:
            return super().held(path) - {3}

    with pytest.raises(AssertionError, match="without a fault"):
        a_sweep(Forgetful(synchronous="NORMAL"), tmp_path)


def test_one_fault_can_be_tried_alone(tmp_path: Path) -> None:
    fault = Fault(FaultKind.FULL, nth=40, sticky=True)

    trial = attempt(RawSubject(synchronous="NORMAL"), fault, str(tmp_path))

    assert str(trial.fault) == "FULL at 40 and from then on"
    assert trial.calls > 40
    assert trial.violations == ()
    assert list(tmp_path.iterdir()) == []


# -- At length -----------------------------------------------------------------------------------


@pytest.mark.soak
@pytest.mark.parametrize("kind", FaultKind)
@pytest.mark.parametrize("synchronous", ["NORMAL", "FULL"])
def test_every_call_that_fails_loses_nothing_and_leaves_nothing_half_done(
    synchronous: str, kind: FaultKind, tmp_path: Path
) -> None:
    result = a_sweep(RawSubject(synchronous=synchronous), tmp_path, kinds=(kind,), at_most=None)

    assert result.violations == []
    if synchronous == "NORMAL":
        assert result.raised_but_durable == []
    assert durable_by_a_failed_sync(result.raised_but_durable)
