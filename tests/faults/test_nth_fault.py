"""Each I/O call of a script fails in turn: nothing acknowledged is lost, nothing is half done."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

import apsw
import pytest

from tests.faults.nth_fault_vfs import (
    Fates,
    Fault,
    FaultKind,
    Sweep,
    Trial,
    attempt,
    sweep,
)
from tests.faults.raw_workload import create_schema, held_operations, write_run


class RawSubject:
    """Operations on one connection of bare apsw, as a careful caller makes them.

    After an error it rolls back, looks up an operation whose COMMIT raised, and goes on with the
    next; it opens the database anew if the opening failed. It is left as a process leaves it that
    is killed: open transactions rolled back, no checkpoint at the end.

    Args:
        synchronous: the PRAGMA's value.
        autocheckpoint_pages: 0 for a checkpoint as a step of its own after every sixth operation;
            otherwise the size of the WAL at which COMMIT does it, SQLite's own way.
        operations: how many, besides the schema.
    """

    def __init__(
        self, *, synchronous: str, autocheckpoint_pages: int = 0, operations: int = 30
    ) -> None:
        self._synchronous = synchronous
        self._autocheckpoint_pages = autocheckpoint_pages
        self._operations = operations

    def script(self, path: str, vfs: str, fates: Fates) -> None:
        connection: apsw.Connection | None = None
        try:
            for number in range(self._operations + 1):
                connection = connection or self._try_to_open(path, vfs)
                if connection is None:
                    fates.refused.add(number)
                    continue
                self._operate(connection, number, fates)
                if number % 6 == 5 and not self._autocheckpoint_pages:
                    _try(connection, "PRAGMA wal_checkpoint(PASSIVE)")
        finally:
            if connection is not None:
                connection.close()

    def held(self, path: str) -> frozenset[int]:
        connection = self._open(path, "")
        try:
            problems = connection.execute("PRAGMA integrity_check(1)").get
            if problems != "ok":
                raise apsw.CorruptError(f"integrity_check: {problems}")
            return held_operations(connection)
        finally:
            connection.close()

    def goes_on(self, path: str) -> bool:
        before = self.held(path)
        number = self._operations + 1 if 0 in before else 0
        fates = Fates()
        connection = self._open(path, "")
        try:
            self._operate(connection, number, fates)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            connection.close()
        return self.held(path) == before | {number} == before | fates.acknowledged

    def _operate(self, connection: apsw.Connection, number: int, fates: Fates) -> None:
        committing = False
        try:
            connection.execute("BEGIN IMMEDIATE")
            if number == 0:
                create_schema(connection)
            else:
                write_run(connection, number)
            committing = True
            connection.execute("COMMIT")
            fates.acknowledged.add(number)
        except apsw.Error:
            if connection.in_transaction:
                _try(connection, "ROLLBACK")
            if committing:
                fates.unknown[number] = _look_up(connection, number)
            else:
                fates.refused.add(number)

    def _try_to_open(self, path: str, vfs: str) -> apsw.Connection | None:
        try:
            return self._open(path, vfs)
        except apsw.Error:
            return None

    def _open(self, path: str, vfs: str) -> apsw.Connection:
        connection = apsw.Connection(path, vfs=vfs or None)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(f"PRAGMA synchronous={self._synchronous}")
            connection.execute(f"PRAGMA wal_autocheckpoint={self._autocheckpoint_pages}")
            # Few pages, so that there are reads to fail, and spills before the COMMIT.
            connection.execute("PRAGMA cache_size=8")
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        except apsw.Error:
            connection.close()
            raise
        return connection


def _try(connection: apsw.Connection, statement: str) -> None:
    """Run a statement that the fault may hit; what it did is judged by the file, later."""
    with contextlib.suppress(apsw.Error):
        connection.execute(statement)


def _look_up(connection: apsw.Connection, number: int) -> bool | None:
    try:
        return number in held_operations(connection)
    except apsw.Error:
        return None


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


def calls_that_failed(trials: Iterable[Trial]) -> set[str | None]:
    return {trial.failed_call for trial in trials}


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
    kinds = (FaultKind.WRITE, FaultKind.FSYNC, FaultKind.READ)

    result = a_sweep(RawSubject(synchronous="NORMAL"), tmp_path, kinds=kinds)

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
    assert calls_that_failed(result.raised_but_durable) == {"xSync"}
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
    assert calls_that_failed(result.raised_but_durable) <= {"xSync"}
    assert synchronous == "FULL" or result.raised_but_durable == []
