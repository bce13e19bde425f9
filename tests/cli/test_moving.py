"""``embedded-orch cancel``, ``pause``, ``resume`` and ``signal``."""

from __future__ import annotations

from uuid import UUID

import embedded_orch
from embedded_orch import flow, suspend_flow_run, wait_for_signal
from embedded_orch.states import StateType
from tests.cli.conftest import Command
from tests.store.builders import a_flow_run


@flow
def asking() -> int:
    return 1 + suspend_flow_run(wait_for_input=int)


def suspended(url: str) -> UUID:
    with embedded_orch.open(url) as orch:
        asking(return_state=True)
        [run] = orch.flow_runs.find()
        return run.id


def test_a_suspended_run_is_resumed_with_input(url: str, command: Command) -> None:
    run_id = suspended(url)

    for word, said in (("{", "is no JSON object"), ('{"value": "x"}', "'x' is no integer")):
        refused = command("resume", str(run_id), "--input", word, "--db", url)
        assert (refused.status, said in refused.err) == (1, True)
    answer = command("resume", str(run_id), "--input", '{"value": 41}', "--db", url)

    assert (answer.status, answer.out.split()[-1]) == (0, "Resuming")
    with embedded_orch.open(url):
        assert asking.resume(run_id) == 42


def test_a_run_is_cancelled_once(url: str, command: Command) -> None:
    run_id = suspended(url)

    assert command("cancel", str(run_id), "--db", url).out.split()[-1] == "Cancelled"

    refused = command("pause", str(run_id), "--db", url)
    assert (refused.status, "is not suspended" in refused.err) == (1, True)
    refused = command("resume", str(run_id), "--db", url)
    assert (refused.status, "only a paused run" in refused.err) == (1, True)


def test_a_running_run_is_suspended(url: str, command: Command) -> None:
    with embedded_orch.open(url) as orch:
        run_id = a_flow_run(
            orch.database, orch.engine.process, StateType.RUNNING, entrypoint="etl:main"
        )

    assert command("pause", str(run_id), "--db", url).out.split()[-1] == "Suspended"


def test_a_run_is_sent_a_signal_once(url: str, command: Command) -> None:
    @flow
    def waiting() -> list[int]:
        return [wait_for_signal("count", type=int, suspend=True)]

    with embedded_orch.open(url) as orch:
        waiting(return_state=True)
        [run] = orch.flow_runs.find()

    for word, said in (("five", "is no JSON"), ('"five"', "'five' is no integer")):
        refused = command("signal", str(run.id), "count", word, "--db", url)
        assert (refused.status, said in refused.err) == (1, True)
    answer = command("signal", str(run.id), "count", "5", "--db", url)
    assert (answer.status, answer.out) == (0, f"flow run {run.id} has got the signal count\n")
    again = command("signal", str(run.id), "count", "6", "--db", url)
    assert (again.status, "before, which stands" in again.out) == (1, True)
    assert command("signal", str(run.id), "go", "--db", url).status == 0

    with embedded_orch.open(url) as orch:
        [run] = orch.resume_due(waiting)
        assert run.state is not None
        assert run.state.result() == [5]
