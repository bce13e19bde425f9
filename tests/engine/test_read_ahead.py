"""Values on record, read ahead: each call gets its own, few transactions do, and little is held."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from embedded_orch.engine import read_ahead
from embedded_orch.engine.read_ahead import RecordedValues
from embedded_orch.process import Process
from embedded_orch.states import StateType
from embedded_orch.store import task_runs
from tests.store.builders import (
    a_flow_run,
    a_new_task_run,
    a_proposal,
    a_task_run,
    proposals,
    write_flow_run,
)

if TYPE_CHECKING:
    from embedded_orch.db.port import Database, Transaction

LARGE = b'"' + b"a" * 20_000 + b'"'


class OnRecord:
    """A flow run whose calls have returned values, and who asks for them."""

    def __init__(self, database: Database, process: Process, values: list[bytes]) -> None:
        self._database = database
        self._process = process
        self.reads = 0
        self.ids: list[UUID] = []
        self.flow_run_id = database.write(lambda tx: self._write(tx, values))
        self.values = RecordedValues(self.flow_run_id)

    def _write(self, tx: Transaction, values: list[bytes]) -> UUID:
        flow_run_id = write_flow_run(tx, self._process)
        for number, value in enumerate(values):
            states = proposals(self._process, StateType.RUNNING)
            new = a_new_task_run(
                self._process, flow_run_id=flow_run_id, dynamic_key=f"{number}", call_number=number
            )
            ending = a_proposal(self._process, StateType.COMPLETED, data=value, data_format="json")
            now = self._process.now()
            task_runs.start_and_complete(tx, new, states, ending, now=now, epoch=None)
            self.ids.append(new.id)
        return flow_run_id

    def ask(self, run_id: UUID) -> bytes | None:
        """What a call has returned, as a resumed flow comes by it."""
        stored = self.values.take(run_id)
        if stored is None:
            self.reads += 1
            stored = self._database.read(lambda tx: self.values.read(tx, run_id))
        return stored[0]


@pytest.mark.parametrize("step", [1, -1, 7])
def test_calls_get_their_own_values_in_whatever_order_they_ask(
    database: Database, process: Process, step: int
) -> None:
    values = [LARGE if number % 10 == 3 else b"%d" % number for number in range(60)]
    run = OnRecord(database, process, values)
    order = [number * step % 60 for number in range(60)]

    found = {number: run.ask(run.ids[number]) for number in order}

    assert found == dict(enumerate(values))


def test_small_values_are_read_some_at_a_time(database: Database, process: Process) -> None:
    values = [b"%d" % number for number in range(100)]
    run = OnRecord(database, process, values)

    assert [run.ask(id) for id in run.ids] == values
    assert run.reads == 2  # 32 of them, then as many as their size allows


def test_large_values_are_read_alone(database: Database, process: Process) -> None:
    run = OnRecord(database, process, [LARGE] * 20)

    assert [run.ask(id) for id in run.ids] == [LARGE] * 20
    assert run.reads == 20


def test_value_of_a_call_that_has_not_completed_is_none(
    database: Database, process: Process
) -> None:
    flow_run_id = a_flow_run(database, process)
    unfinished = a_task_run(database, process, flow_run_id=flow_run_id, dynamic_key="1")
    a_task_run(database, process, StateType.COMPLETED, flow_run_id=flow_run_id, dynamic_key="2")
    values = RecordedValues(flow_run_id)

    assert database.read(lambda tx: values.read(tx, unfinished)) == (None, None)
    assert values.take(unfinished) is None


def test_values_that_nobody_asks_for_do_not_heap_up(
    database: Database, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_ahead, "_MOST", 20)
    monkeypatch.setattr(read_ahead, "_MOST_HELD", 60)
    run = OnRecord(database, process, [b"%d" % number for number in range(200)])

    for id in run.ids[::10]:
        run.ask(id)

    assert 0 < sum(run.values.take(id) is not None for id in run.ids) <= 60
