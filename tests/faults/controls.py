"""Operations that do not keep what they promise: the harnesses have to find out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from unittest.mock import patch

from embedded_orch import Orchestrator, flow, task
from embedded_orch.engine.ownership import Life, Owner
from embedded_orch.orchestrator import registry
from tests.faults import acts
from tests.faults import watched_flows as flows
from tests.faults.operations import Operation, calls


@task
def load_beside(call: str) -> flows.Value:
    """Its row and its completion are two transactions."""
    with registry.current().session() as own:
        own.execute("insert into loaded values (:call)", {"call": call})
    return flows.entered(call)


@flow
def loading_beside() -> flows.Value:
    flows.told(load_beside("one"))
    return flows.entered("loading beside")


@task
def boast(call: str) -> flows.Value:
    """Says that it is done before it is."""
    value = flows.entered(call)
    flows.told(value)
    return value


@flow
def boasting() -> flows.Value:
    boast("one")
    return flows.entered("boasting")


def begin_anew(orch: Orchestrator) -> None:
    """Call the flow again instead of resuming it."""
    if not orch.flow_runs.count(
        state_type="COMPLETED",
        flow_name=flows.plain.name,
    ):
        flows.told(flows.plain())


@contextmanager
def believing_in_the_dead() -> Iterator[None]:
    """Have this process take every owner for alive."""
    with patch.object(Owner, "life_of", lambda *_: Life.ALIVE):
        yield


CONTROLS = {
    operation.name: operation
    for operation in (
        Operation(
            "own SQL beside the task",
            partial(acts.finish, loading_beside),
            calls("one", "loading beside"),
            loaded=calls("one"),
            prepare=acts.make_table,
        ),
        Operation(
            "acknowledged too early", partial(acts.finish, boasting), calls("one", "boasting")
        ),
        Operation("a run that is begun anew", begin_anew, calls("first", "second", "plain")),
        Operation(
            "an owner that is not found",
            acts.only_open,
            calls("done in lasting", "done in failing"),
            prepare=acts.die_in_two_runs,
            arranged=believing_in_the_dead,
        ),
    )
}
