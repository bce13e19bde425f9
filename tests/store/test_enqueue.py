"""Scheduling many runs at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import msgspec

from embedded_orch import times
from embedded_orch.db.port import Database
from embedded_orch.orchestration.values import Policy
from embedded_orch.states import StateType
from embedded_orch.store.claims import enqueue_runs
from embedded_orch.store.flow_runs import flow_run_history, get_flow_runs
from tests.builders import NOON, SECOND, Builder, select


def counts(database: Database) -> tuple[int, int]:
    """How many runs and how many states there are."""
    (runs,) = select(database, "select count(*) from flow_run")
    (states,) = select(database, "select count(*) from flow_run_state")
    return runs[0], states[0]


def test_runs_are_scheduled_each_with_its_state(build: Builder) -> None:
    flow_id = build.flow()
    runs = [
        build.new_run(flow_id, name=f"run-{n}", scheduled_time=NOON + n * SECOND) for n in range(3)
    ]

    ids = build.enqueue(runs, now=NOON - SECOND)

    assert ids == [run.id for run in runs]
    rows = build.database.read(lambda tx: get_flow_runs(tx, ids))
    for run, row in zip(runs, rows, strict=True):
        assert row.state is not None
        assert (row.name, row.state.id, row.state.type) == (
            run.name,
            run.state_id,
            StateType.SCHEDULED,
        )
        assert row.state.timestamp_microseconds == NOON - SECOND
        due = times.datetime_from_microseconds(run.scheduled_time)
        assert row.state.state_details.scheduled_time == due
        assert row.expected_start_time == row.next_scheduled_start_time == run.scheduled_time
        assert (row.run_count, row.start_time, row.epoch) == (0, None, 0)


def test_every_field_comes_back_as_it_was_given(build: Builder) -> None:
    flow_id = build.flow()
    queue = build.queue("slow", build.pool().name)
    fields: dict[str, Any] = {
        "work_queue_id": queue.id,
        "deployment_id": build.process.new_id(),
        "deployment_version": "7",
        "idempotency_key": 'daily "é" %_\\',
        "parameters": '{"x":[1,2.5,null,"a\\"b"],"x\\u0000":1}',
        "entrypoint": "flows.py:report",
        "flow_version": "abc",
        "tags": ["a", 'b"c', "é"],
        "labels": {"team": "data"},
        "empirical_policy": Policy(retries=2, retry_delay=(1.0, 2.0)),
        "created_by": {"id": "s1", "type": "SCHEDULE"},
        "job_variables": {"env": {"A": "1"}},
        "auto_scheduled": True,
    }

    (id,) = build.enqueue([build.new_run(flow_id, **fields)])

    columns = ", ".join(fields)
    mark = "?1" if build.database.dialect == "sqlite" else "$1"
    value = id.bytes if build.database.dialect == "sqlite" else id
    (row,) = select(build.database, f"select {columns} from flow_run where id = {mark}", value)
    found = dict(zip(fields, map(_plain, row), strict=True))
    expected = {name: _plain(value) for name, value in fields.items()}
    assert found == expected | {"auto_scheduled": found["auto_scheduled"]}
    assert bool(found["auto_scheduled"]) is True


def _plain(value: object) -> object:
    """A value as it is whichever driver gives it: JSON decoded, ids as bytes."""
    if isinstance(value, UUID):
        return value.bytes
    if isinstance(value, Policy):
        return msgspec.json.decode(msgspec.json.encode(value))
    if isinstance(value, str) and value[:1] in ("{", "["):
        return msgspec.json.decode(value)
    return value


def test_nothing_is_left_out_and_nothing_doubled_when_it_runs_again(build: Builder) -> None:
    flow_id = build.flow()
    runs = [build.new_run(flow_id, idempotency_key=f"key-{n}") for n in range(5)]
    runs += [build.new_run(flow_id) for _ in range(5)]

    first = build.enqueue(runs)
    second = build.enqueue(runs, now=NOON + SECOND)

    assert first == second == [run.id for run in runs]
    assert counts(build.database) == (10, 10)


def test_running_again_leaves_a_run_alone_that_has_moved_on(build: Builder) -> None:
    flow_id = build.flow()
    run = build.new_run(flow_id)
    build.enqueue([run])
    build.set_state(run.id, StateType.PENDING)

    build.enqueue([run], now=NOON + SECOND)

    history = build.database.read(lambda tx: flow_run_history(tx, run_id=run.id))
    assert [state.type for state in history] == [StateType.SCHEDULED, StateType.PENDING]


def test_a_key_that_is_taken_answers_with_the_older_run(build: Builder) -> None:
    flow_id = build.flow()
    older, newer = (build.new_run(flow_id, idempotency_key="today") for _ in range(2))
    build.enqueue([older])

    ids = build.enqueue([newer, build.new_run(flow_id, id=older.id)])

    assert ids == [older.id, older.id]
    assert counts(build.database) == (1, 1)


def test_the_first_of_two_with_one_key_in_one_call_is_inserted(build: Builder) -> None:
    flow_id = build.flow()
    runs = [build.new_run(flow_id, idempotency_key="today") for _ in range(2)]

    assert build.enqueue(runs) == [runs[0].id, runs[0].id]
    assert counts(build.database) == (1, 1)


def test_runs_without_a_key_and_keys_of_other_flows_do_not_meet(build: Builder) -> None:
    one, two = build.flow("one"), build.flow("two")

    build.runs(one, 2)
    build.runs(one, 1, idempotency_key="today")
    build.runs(two, 1, idempotency_key="today")

    assert counts(build.database) == (4, 4)


def test_no_runs_are_no_runs(build: Builder) -> None:
    assert build.enqueue([]) == []


def test_a_thousand_runs_take_as_few_statements_as_one(build: Builder) -> None:
    flow_id = build.flow()
    runs = [build.new_run(flow_id) for _ in range(1000)]
    names: list[str] = []

    build.database.write(lambda tx: enqueue_runs(_Noting(tx, names), runs, now=NOON))

    assert counts(build.database) == (1000, 1000)
    states = [] if build.database.dialect == "postgres" else ["claim.insert_first_states"]
    assert names == ["claim.insert_runs", *states]


class _Noting:
    """A transaction that notes which statements it runs."""

    def __init__(self, tx: Any, names: list[str]) -> None:
        self._tx = tx
        self._names = names

    def __getattr__(self, attribute: str) -> Any:
        method = getattr(self._tx, attribute)
        if not callable(method):
            return method

        def noted(name: str, /, **values: object) -> Any:
            self._names.append(name)
            return method(name, **values)

        return noted


def test_threads_that_schedule_the_same_keys_at_once_make_each_run_once(build: Builder) -> None:
    flow_id = build.flow()
    batches = [
        [build.new_run(flow_id, idempotency_key=f"key-{n}") for n in range(20)] for _ in range(8)
    ]

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(build.enqueue, batches))

    assert counts(build.database) == (20, 20)
    assert all(answer == answers[0] for answer in answers)
