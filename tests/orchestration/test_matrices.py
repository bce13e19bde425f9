"""What may follow what, cell by cell: the tables of docs/states.md, which follow Prefect's."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedded_orch.orchestration.flow_rules import CORE_FLOW_POLICY
from embedded_orch.orchestration.task_rules import CORE_TASK_POLICY
from embedded_orch.orchestration.values import Verdict
from embedded_orch.states import TERMINAL_TYPES, StateDetails, StateType
from tests.orchestration.runs import (
    CANCELLED,
    CANCELLING,
    COMPLETED,
    CRASHED,
    FAILED,
    PAUSED,
    PENDING,
    RUNNING,
    SCHEDULED,
    a_proposal,
    a_run,
    a_task_run,
    in_flow,
    proposed,
)

COLUMNS = (SCHEDULED, PENDING, RUNNING, COMPLETED, FAILED, CANCELLED, CRASHED, PAUSED, CANCELLING)
VERDICTS = {"A": Verdict.ACCEPT, "X": Verdict.ABORT, "R": Verdict.REJECT, "C": Verdict.REJECT}

# A: accepted. X: aborted. R: rejected, the run stays as it is. C: rejected, CANCELLED is stored.
#
# Prefect aborts the four transitions that are marked with * for a run without a deployment. Here
# they are accepted for every run that `flow.resume` can continue.
FLOW_MATRIX = """
                 SCHED PEND RUN  COMPL FAIL CANCD CRASH PAUSED CANCING
    SCHEDULED    A     A    A    A     A    A     A     R      C
    PENDING      A     X    A    A     A    A     A     R      A
    RUNNING      A     X    A    A     A    A     A     A      A
    COMPLETED    A*    A    A    A     A    A     X     X      X
    FAILED       A*    A    A    A     A    A     X     X      X
    CANCELLED    A*    X    A    A     A    A     X     X      X
    CRASHED      A*    A    A    A     A    A     X     X      X
    PAUSED       A     R    A    A     A    A     A     R      A
    CANCELLING   R     R    R    R     R    A     R     R      R
"""
# Suspended: paused, with its process gone. In Prefect all but ending it asks for a deployment.
SUSPENDED_MATRIX = """
                 SCHED PEND RUN  COMPL FAIL CANCD CRASH PAUSED CANCING
    PAUSED       A     R    A    A     A    A     A     R      C
"""
# Only what nothing overrides. A result is not lost either: see test_flow_rules.py.
FORCED_FLOW_MATRIX = """
                 SCHED PEND RUN  COMPL FAIL CANCD CRASH PAUSED CANCING
    SCHEDULED    A     A    A    A     A    A     A     A      C
    PENDING      A     A    A    A     A    A     A     A      A
    RUNNING      A     A    A    A     A    A     A     A      A
    COMPLETED    A     A    A    A     A    A     A     A      A
    FAILED       A     A    A    A     A    A     A     A      A
    CANCELLED    A     A    A    A     A    A     A     A      A
    CRASHED      A     A    A    A     A    A     A     A      A
    PAUSED       A     A    A    A     A    A     A     A      A
    CANCELLING   A     A    A    A     A    A     A     A      A
"""
# The flow run is RUNNING.
TASK_MATRIX = """
                 SCHED PEND RUN  COMPL FAIL CANCD CRASH PAUSED CANCING
    SCHEDULED    A     A    A    A     A    A     A     A      A
    PENDING      A     A    A    A     A    A     A     A      A
    RUNNING      A     A    A    A     A    A     A     A      A
    COMPLETED    A     A    A    A     A    A     X     X      X
    FAILED       A     A    A    A     A    A     X     X      X
    CANCELLED    A     A    A    A     A    A     X     X      X
    CRASHED      A     A    A    A     A    A     X     X      X
    PAUSED       A     A    A    A     A    A     A     A      A
    CANCELLING   A     A    A    A     A    A     A     A      A
"""

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "states.md"
Cell = tuple[StateType, StateType, str]


def cells(matrix: str) -> list[Cell]:
    found: list[Cell] = []
    for line in matrix.strip().splitlines()[1:]:
        leaving, *row = line.split()
        found += [
            (StateType(leaving), entering, letter.rstrip("*"))
            for entering, letter in zip(COLUMNS, row, strict=True)
        ]
    return found


def test_matrices_are_those_of_the_documentation() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    tables = [part.split("\n\n")[0] for part in text.split("| from \\ to |")[1:]]

    told = [[line.replace("|", " ").split() for line in table.splitlines()[2:]] for table in tables]

    tested = [
        [line.split() for line in matrix.strip().splitlines()[1:]]
        for matrix in (FLOW_MATRIX, TASK_MATRIX)
    ]
    assert told == tested


def test_rules_are_documented_in_the_order_in_which_they_are_asked() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    for_flows, for_tasks = text.split("For flow runs:")[1].split("For task runs:")

    for policy, told in ((CORE_FLOW_POLICY, for_flows), (CORE_TASK_POLICY, for_tasks)):
        places = [told.find(rule.name) for rule in policy]
        assert -1 not in places
        assert places == sorted(places)


@pytest.mark.parametrize(("leaving", "entering", "letter"), cells(FLOW_MATRIX))
def test_flow_run_moves_as_the_matrix_says(
    leaving: StateType, entering: StateType, letter: str
) -> None:
    decision = proposed(a_run(leaving), entering)

    assert decision.verdict is VERDICTS[letter]
    assert decision.run.state_type is {"A": entering, "C": CANCELLED}.get(letter, leaving)
    assert (decision.proposal is not None) == (letter in "AC")


@pytest.mark.parametrize(("leaving", "entering", "letter"), cells(SUSPENDED_MATRIX))
def test_suspended_flow_run_moves_as_the_matrix_says(
    leaving: StateType, entering: StateType, letter: str
) -> None:
    run = a_run(leaving, state_details=StateDetails(pause_reschedule=True))
    decision = proposed(run, entering)

    assert decision.verdict is VERDICTS[letter]
    assert decision.run.state_type is {"A": entering, "C": CANCELLED}.get(letter, leaving)


@pytest.mark.parametrize(("leaving", "entering", "letter"), cells(FORCED_FLOW_MATRIX))
def test_forced_flow_run_moves_as_the_matrix_says(
    leaving: StateType, entering: StateType, letter: str
) -> None:
    decision = proposed(a_run(leaving), entering, force=True)

    assert decision.verdict is VERDICTS[letter]
    assert decision.run.state_type is (CANCELLED if letter == "C" else entering)


@pytest.mark.parametrize(("leaving", "entering", "letter"), cells(TASK_MATRIX))
def test_task_run_moves_as_the_matrix_says(
    leaving: StateType, entering: StateType, letter: str
) -> None:
    decision = proposed(a_task_run(leaving), entering, facts=in_flow(RUNNING))

    assert decision.verdict is VERDICTS[letter]
    assert decision.run.state_type is (entering if letter == "A" else leaving)


@pytest.mark.parametrize("entering", StateType)
@pytest.mark.parametrize("leaving", StateType)
def test_nothing_stops_a_task_run_that_is_forced(leaving: StateType, entering: StateType) -> None:
    decision = proposed(a_task_run(leaving), entering, facts=in_flow(CANCELLED), force=True)

    assert decision.verdict is Verdict.ACCEPT
    assert decision.run.state_type is entering


@pytest.mark.parametrize(
    ("flow_state", "letter"),
    [
        (None, "X"),
        (SCHEDULED, "X"),
        (PENDING, "X"),
        (RUNNING, "A"),
        (COMPLETED, "X"),
        (FAILED, "X"),
        (CANCELLED, "X"),
        (CRASHED, "X"),
        (PAUSED, "R"),
        (CANCELLING, "X"),
    ],
)
def test_task_run_runs_only_in_a_flow_run_that_runs(
    flow_state: StateType | None, letter: str
) -> None:
    decision = proposed(a_task_run(PENDING), RUNNING, facts=in_flow(flow_state))

    assert decision.verdict is VERDICTS[letter]
    name = {"A": "Running", "X": "Pending", "R": "NotReady"}[letter]
    assert decision.run.state_name == name


@pytest.mark.parametrize("leaving", StateType)
def test_task_run_that_runs_again_is_named_for_it(leaving: StateType) -> None:
    run = a_task_run(leaving, run_count=1)
    decision = proposed(run, RUNNING, facts=in_flow(RUNNING, run_count=1))

    is_over = leaving in TERMINAL_TYPES
    assert decision.run.state_name == ("Retrying" if is_over else "Rerunning")


@pytest.mark.parametrize("is_flow_run", [True, False])
@pytest.mark.parametrize("entering", StateType)
def test_new_run_may_begin_in_any_state(is_flow_run: bool, entering: StateType) -> None:
    decision = proposed(a_run(is_flow_run=is_flow_run), entering, force=True)

    assert decision.verdict is Verdict.ACCEPT
    assert decision.run.state_type is entering
    assert decision.proposal == a_proposal(entering, details=decision.run.state_details)
