"""``find``, ``count`` and ``history``: every filter and order, against a plain model of the rows.

The model reads each row whole and asks Python; what it says of a filter is the sentence of its
documentation, written again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedded_orch import Orchestrator, errors, flow, task
from embedded_orch.filters import (
    FlowRunFilters,
    FlowRunSort,
    TaskRunFilters,
    TaskRunSort,
)
from embedded_orch.states import StateType
from embedded_orch.times import datetime_from_microseconds
from tests.builders import NOON, SECOND, Builder
from tests.opened import opened
from tests.store.builders import PATHS, write_flow_run, write_task_run

NAMES = ["brave-otter", "Brave-Owl", "100%_sure", "ümlaut"]
STATES = [StateType.COMPLETED, StateType.FAILED, StateType.RUNNING, StateType.SCHEDULED]
TAGS = ["a", "b", 'q"%_']
UNKNOWN = UUID(int=5)

Row = dict[str, Any]

FLOW_RUN_COLUMNS = (
    "id, name, tags, state_type, state_name, start_time, end_time, expected_start_time, "
    "next_scheduled_start_time, parent_task_run_id, flow_version, idempotency_key, deployment_id"
)
TASK_RUN_COLUMNS = (
    "id, name, tags, state_type, state_name, start_time, end_time, expected_start_time, "
    "next_scheduled_start_time, parent_task_run_id, task_key"
)


@pytest.fixture
def orch(url: str) -> Iterator[Orchestrator]:
    with opened(url) as orchestrator:
        yield orchestrator


class World:
    """Runs of every kind, and the model of them: by what was written, and by what stands there."""

    def __init__(self, orch: Orchestrator) -> None:
        self.orch = orch
        self.chance = random.Random(7)
        self.build = Builder(orch.database, orch.engine.process)
        self.flow_runs: dict[UUID, Row] = {}
        self.task_runs: dict[UUID, Row] = {}
        self.build.pool("pool")
        self.queue = self.build.queue("urgent")
        self.deployments = [self.build.process.new_id() for _ in range(2)]
        orch.database.write(self._write)
        self._scheduled()
        self._read()

    def _write(self, tx: Any) -> None:
        process, chance = self.build.process, self.chance
        for number in range(60):
            parents = [*self.task_runs, None, None]
            flow_name = ("etl", "ETL-daily", "copy")[number % 3]
            tags = [tag for tag in TAGS if chance.random() < 0.4]
            fields = {
                "name": chance.choice(NAMES),
                "flow_name": flow_name,
                "tags": tags,
                "flow_version": chance.choice(["1", "2", None]),
                "parent_task_run_id": chance.choice(parents),
            }
            id = write_flow_run(tx, process, chance.choice(STATES), **fields)
            self.flow_runs[id] = {"flow_name": flow_name, "work_queue_name": None}
            for _ in range(2):
                flow_run_id = chance.choice([id, None])
                task_run_id = write_task_run(
                    tx,
                    process,
                    chance.choice(list(PATHS)),
                    flow_run_id=flow_run_id,
                    parent_task_run_id=chance.choice([*self.task_runs, None]),
                    name=chance.choice(NAMES),
                    task_key=chance.choice(["load", "store"]),
                    tags=[tag for tag in TAGS if chance.random() < 0.3],
                )
                self.task_runs[task_run_id] = {"flow_run_id": flow_run_id}

    def _scheduled(self) -> None:
        """What waits in a queue: scheduled for later, of deployments, with keys."""
        flow_id = self.build.flow("copy")
        for number in range(12):
            in_queue = number % 2 == 0
            (id,) = self.build.enqueue(
                [
                    self.build.new_run(
                        flow_id,
                        name=NAMES[number % 4],
                        scheduled_time=NOON + number // 2 * SECOND,
                        work_queue_id=self.queue.id if in_queue else None,
                        deployment_id=[*self.deployments, None][number % 3],
                        idempotency_key=f"key {number}" if number % 4 else None,
                    )
                ]
            )
            queue_name = "urgent" if in_queue else None
            self.flow_runs[id] = {"flow_name": "copy", "work_queue_name": queue_name}

    def _read(self) -> None:
        for table, columns, rows in (
            ("flow_run", FLOW_RUN_COLUMNS, self.flow_runs),
            ("task_run", TASK_RUN_COLUMNS, self.task_runs),
        ):
            for row in self.orch.sql(f"select {columns} from {table}"):
                found = dict(zip(columns.split(", "), row, strict=True))
                read = {key: as_id(value) for key, value in found.items()}
                rows[read["id"]].update({**read, "tags": as_list(read["tags"])})
        for each in self.flow_runs.values():
            parent = self.task_runs.get(each["parent_task_run_id"])
            each["parent_flow_run_id"] = parent and parent["flow_run_id"]
            each["flow_id"] = None
        flows = {found.name: found.id for found in self.orch.flows.find()}
        for each in self.flow_runs.values():
            each["flow_id"] = flows[each["flow_name"]]
        children = {each["parent_task_run_id"] for each in self.flow_runs.values()}
        for each in self.task_runs.values():
            each["has_subflow"] = each["id"] in children
        for each in (*self.flow_runs.values(), *self.task_runs.values()):
            each["started_or_expected"] = each["start_time"] or each["expected_start_time"]


def as_id(value: Any) -> Any:
    return UUID(bytes=value) if isinstance(value, bytes) else value


def as_list(value: Any) -> list[str]:
    import json

    return list(json.loads(value)) if isinstance(value, str) else list(value or [])


def fits(row: Row, filters: Row) -> bool:
    return all(fits_one(row, name, value) for name, value in filters.items())


def fits_one(row: Row, name: str, value: Any) -> bool:
    by_name = {
        "tags": lambda: set(several(value)) <= set(row["tags"]),
        "any_tag": lambda: bool(set(several(value)) & set(row["tags"])),
        "has_tags": lambda: bool(row["tags"]) is value,
        "is_subflow": lambda: (row["parent_task_run_id"] is not None) is value,
        "has_subflow": lambda: row["has_subflow"] is value,
        "has_flow_run": lambda: (row["flow_run_id"] is not None) is value,
        "has_deployment": lambda: (row["deployment_id"] is not None) is value,
    }
    if name in by_name:
        return by_name[name]()
    if name.startswith("has_"):
        return (row[name.removeprefix("has_")] is not None) is value
    if name.endswith("_like"):
        return lowered(value) in lowered(row[name.removesuffix("_like")])
    if name.endswith(("_after", "_before")):
        return is_on_its_side(row, name, value)
    found = row[name.removeprefix("not_")]
    is_wanted = str(found) in [str(each) for each in several(value)]
    return not is_wanted if name.startswith("not_") else is_wanted


def is_on_its_side(row: Row, name: str, bound: datetime) -> bool:
    column, _, side = name.rpartition("_")
    if row[column] is None:
        return False
    moment = datetime_from_microseconds(row[column])
    return moment >= bound if side == "after" else moment <= bound


def several(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple | set) else [value]


def lowered(text: str) -> str:
    """As both engines do it: A to Z alone."""
    return "".join(c.lower() if c.isascii() else c for c in text)


SORT_KEYS: dict[str, tuple[Callable[[Row], Any], bool]] = {
    "ID_DESC": (lambda row: row["id"], True),
    "START_TIME_ASC": (lambda row: (row["started_or_expected"], row["id"]), False),
    "START_TIME_DESC": (lambda row: (row["started_or_expected"], row["id"]), True),
    "EXPECTED_START_TIME_ASC": (lambda row: (row["expected_start_time"], row["id"]), False),
    "EXPECTED_START_TIME_DESC": (lambda row: (row["expected_start_time"], row["id"]), True),
    "NAME_ASC": (lambda row: (row["name"].encode(), row["id"]), False),
    "NAME_DESC": (lambda row: (row["name"].encode(), row["id"]), True),
    "NEXT_SCHEDULED_START_TIME_ASC": (
        lambda row: (row["next_scheduled_start_time"] or 2**63, row["id"]),
        False,
    ),
    "END_TIME_DESC": (lambda row: (row["end_time"] or 0, row["id"]), True),
}


def one_or_more(values: list[Any]) -> st.SearchStrategy[Any]:
    some = st.sampled_from(values)
    return some | st.lists(some, max_size=3)


def moments(rows: dict[UUID, Row], column: str) -> st.SearchStrategy[datetime]:
    found = sorted({row[column] for row in rows.values() if row[column] is not None})
    return st.sampled_from([datetime_from_microseconds(each) for each in found])


def filters_of(kind: Any, rows: dict[UUID, Row]) -> st.SearchStrategy[Row]:
    """Any filters of a kind of run, with values that occur and that do not."""
    known: dict[str, st.SearchStrategy[Any]] = {}
    for name in kind.__annotations__:
        column = name.removeprefix("not_")
        if name in ("tags", "any_tag"):
            known[name] = one_or_more(TAGS)
        elif name.startswith(("has_", "is_")):
            known[name] = st.booleans()
        elif name.endswith("_like"):
            known[name] = st.sampled_from(["OTTER", "%", "_", "etl", "ü", "Ü", "-", "nothing"])
        elif name.endswith(("_after", "_before")):
            known[name] = moments(rows, name.rpartition("_")[0])
        else:
            values = {row[column] for row in rows.values()} - {None}
            is_id = column == "id" or column.endswith("_id")
            nothing: Any = UNKNOWN if is_id else "PAUSED" if "type" in name else "nothing"
            known[name] = one_or_more([*sorted(values, key=str), nothing])
    # Few at a time, or nothing fits.
    names = st.lists(st.sampled_from(sorted(known)), max_size=3, unique=True)
    return names.flatmap(lambda chosen: st.fixed_dictionaries({k: known[k] for k in chosen}))


def check_against(orch: Orchestrator, world: World, what: str) -> None:
    runs: Any = orch.flow_runs if what == "flow_run" else orch.task_runs
    rows = world.flow_runs if what == "flow_run" else world.task_runs
    kind: Any = FlowRunFilters if what == "flow_run" else TaskRunFilters
    orders: Any = FlowRunSort if what == "flow_run" else TaskRunSort

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(filters=filters_of(kind, rows), sort=st.sampled_from(list(orders)))
    def check(filters: Row, sort: str) -> None:
        key, is_descending = SORT_KEYS[sort]
        fitting = [row for row in rows.values() if fits(row, filters)]
        expected = [row["id"] for row in sorted(fitting, key=key, reverse=is_descending)]
        assert [run.id for run in runs.find(**filters, sort=sort)] == expected
        assert runs.count(**filters) == len(expected)

    check()


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedded_orch.collections.PAGE", 7)


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("what", ["flow_run", "task_run"])
def test_runs_are_found_and_counted_as_the_model_says(orch: Orchestrator, what: str) -> None:
    check_against(orch, World(orch), what)


# -- as people use it ------------------------------------------------------------------------------


@task
def load(number: int) -> int:
    return 10 // number


@flow
def report(numbers: list[int]) -> list[int]:
    return [load(number) for number in numbers]


def test_several_values_of_a_filter_find_what_fits_any_of_them(orch: Orchestrator) -> None:
    report([1])
    with pytest.raises(ZeroDivisionError):
        report([0])

    ended = orch.flow_runs.find(state_type=["COMPLETED", StateType.FAILED])

    assert [run.state.name for run in ended if run.state] == ["Failed", "Completed"]
    assert orch.flow_runs.count(not_state_type="COMPLETED") == 1
    assert orch.flow_runs.count(flow_name=["report", "never-run"]) == 2
    assert orch.flow_runs.count(flow_name=[]) == 0
    assert orch.task_runs.count(state_type="COMPLETED") == 1
    assert orch.task_runs.count(state_type=["COMPLETED", StateType.FAILED]) == 2


def test_tag_is_found_however_its_text_is_written(orch: Orchestrator) -> None:
    report([1])
    spelled = '["caf\\u00e9"]'
    with orch.session() as session:
        session.execute("update flow_run set tags = :tags", {"tags": spelled})

    assert orch.flow_runs.count(tags=["café"]) == 1
    assert orch.flow_runs.count(tags=["tea"]) == 0


def test_no_more_than_the_limit_is_found(orch: Orchestrator) -> None:
    report([1, 2, 3])

    assert len(list(orch.task_runs.find(limit=2))) == 2
    assert list(orch.task_runs.find(limit=0)) == []
    with pytest.raises(errors.UnknownFilter, match="limit=-1"):
        orch.task_runs.find(limit=-1)


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        ({"sort": "BY_MOOD"}, "'BY_MOOD'; there are ID_DESC"),
        ({"sort": None}, "'None'|None"),
        ({"start_time_after": "today"}, "no datetime"),
        ({"start_time_after": datetime(2026, 1, 1)}, "no time zone"),  # noqa: DTZ001 - the point
        ({"has_tags": 1}, "True or False"),
        ({"id": 3}, "no id"),
        ({"name_like": ["a"]}, "no text"),
        ({"not_state_type": "DONE"}, "COMPLETED"),
    ],
)
def test_filter_or_order_that_cannot_be_is_refused(filters: Any, said: str) -> None:
    with opened(":memory:") as orch, pytest.raises(errors.UnknownFilter, match=said):
        orch.flow_runs.find(**filters)


def test_history_counts_what_fits_bucket_by_bucket(orch: Orchestrator) -> None:
    report([1])
    with pytest.raises(ZeroDivisionError):
        report([0])
    now = datetime.now(UTC)

    def counted(**filters: Any) -> dict[str, int]:
        (bucket,) = orch.flow_runs.history(
            start=now - timedelta(hours=1),
            end=now + timedelta(hours=1),
            step=timedelta(hours=2),
            **filters,
        )
        return {each.state_name: each.count_runs for each in bucket.states}

    assert counted() == {"Completed": 1, "Failed": 1}
    assert counted(state_type="FAILED") == {"Failed": 1}
    assert counted(flow_name="report", not_state_name=["Failed"]) == {"Completed": 1}
    assert counted(flow_name="never-run") == {}


# -- the graph of a run ----------------------------------------------------------------------------


@task
def extract(path: str) -> str:
    return path.upper()


@task
def join(parts: list[str], sep: str = "") -> str:
    return sep.join(parts)


@task
def both() -> str:
    return join([extract("c")])


@flow
def inner_flow() -> str:
    return "inner"


@flow
def pipeline() -> str:
    first = extract.submit("a")
    second = extract.submit("b", wait_for=[first])
    both()
    inner_flow()
    return join([first, second])  # type: ignore[list-item]


def test_graph_tells_what_waited_for_what(orch: Orchestrator) -> None:
    pipeline()
    (run,) = orch.flow_runs.find(flow_name="pipeline")

    graph = orch.flow_runs.graph(run.id)

    label = {node.id: node.label.partition("-")[0] for node in graph.nodes}
    shown = {
        (label[node.id], number): (
            node.kind,
            [label[id] for id in node.parents],
            [label[id] for id in node.encapsulating],
        )
        for number, node in enumerate(sorted(graph.nodes, key=lambda node: node.id))
    }
    kinds = sorted((name, *rest) for (name, _), rest in shown.items() if rest[0] == "task-run")
    assert kinds == [
        ("both", "task-run", [], []),
        ("extract", "task-run", [], []),
        ("extract", "task-run", [], ["both"]),
        ("extract", "task-run", ["extract"], []),
        ("join", "task-run", [], ["both"]),
        ("join", "task-run", ["extract", "extract"], []),
    ]
    (child,) = [node for node in graph.nodes if node.kind == "flow-run"]
    (inner,) = orch.flow_runs.find(flow_name="inner-flow")
    assert child.child_flow_run_id == inner.id
    assert {node.state_type for node in graph.nodes} == {StateType.COMPLETED}
    by_id = {node.id: node for node in graph.nodes}
    assert all(node.id in by_id[parent].children for node in graph.nodes for parent in node.parents)
    assert len(graph.root_node_ids) == 3


def test_run_that_is_not_there_has_no_graph(orch: Orchestrator) -> None:
    with pytest.raises(errors.RunNotFound, match="flow run"):
        orch.flow_runs.graph(UNKNOWN)
