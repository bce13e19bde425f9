"""What a transition costs: the decision alone, and with all that it reads and writes."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from uuid import UUID

import embedded_orch
from benchmarks.measuring import Row, Stopwatch, Work
from embedded_orch import Orchestrator, flow
from embedded_orch.orchestration.transition import decide
from embedded_orch.orchestration.values import Facts, FlowRunFacts, Proposal, Run
from embedded_orch.process import OWN
from embedded_orch.states import VALUE, Running, StateType
from embedded_orch.store.flow_runs import propose_flow_state

_TRANSITIONS = 1_000


@flow
def empty() -> None:
    """A run whose states are then moved."""


@contextmanager
def _decided(_folder: Path) -> Generator[Work]:
    """The end of a task run, decided over and over."""
    facts = Facts(flow_run=FlowRunFacts(1, StateType.RUNNING))
    run = Run(
        id=OWN.new_id(),
        is_flow_run=False,
        state_id=OWN.new_id(),
        state_type=StateType.RUNNING,
        state_name="Running",
        state_timestamp=1,
        run_count=1,
    )
    completed = Proposal(
        id=OWN.new_id(),
        type=StateType.COMPLETED,
        name="Completed",
        timestamp=OWN.now(),
        data=b"1",
        data_format=VALUE,
    )

    def work(stopwatch: Stopwatch) -> None:
        with stopwatch:
            for _ in range(_TRANSITIONS):
                decide(run, completed, now=2, facts=facts)

    yield work


@contextmanager
def _stored(folder: Path, *, url: str | None = None) -> Generator[Work]:
    """A flow run that enters RUNNING again and again, each time in a transaction of its own."""
    with embedded_orch.open(url or folder / "orch.db") as orch:
        empty()
        run_id = next(orch.flow_runs.find()).id
        orch.flow_runs.set_state(run_id, Running(), force=True)

        def work(stopwatch: Stopwatch) -> None:
            with stopwatch:
                for _ in range(_TRANSITIONS):
                    _run_again(orch, run_id)

        yield work


def _run_again(orch: Orchestrator, run_id: UUID) -> None:
    now = OWN.now()
    running = Proposal(id=OWN.new_id(), type=StateType.RUNNING, name="Running", timestamp=now)
    orch.database.write(
        lambda tx: propose_flow_state(tx, run_id=run_id, proposal=running, now=now, epoch=0)
    )


ROWS = [
    Row("transition decided", _TRANSITIONS, _decided),
    Row("transition stored, memory", _TRANSITIONS, partial(_stored, url=":memory:")),
    Row("transition stored, file", _TRANSITIONS, _stored, target="125 us"),
]
