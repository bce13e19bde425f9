"""Finding runs: which statement serves what was asked for, and its pages.

SQL is not assembled. For each kind of run there is a statement for every filter that can lead a
search by its index, and for every order; the other filters are conditions that a NULL turns off
(``schema/statements/flow_run.sql``, ``task_run.sql``). A filter that leads with several values is
as many searches, whose pages are merged, so that each reads only what it takes.

Filters come in by the names of the statements' parameters: a list holds texts or ids, and a run
fits by any of them; times are microseconds; flags are booleans.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from heapq import merge
from itertools import islice
from typing import TYPE_CHECKING, Literal
from uuid import UUID

import msgspec

from embedded_orch.states import StateType
from embedded_orch.store.flows import flow_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from embedded_orch.db.port import Transaction

Table = Literal["flow_run", "task_run", "variable", "artifact"]

_FIRST_ID, _LAST_ID = UUID(int=0), UUID(int=(1 << 128) - 1)
_EARLIEST, _LATEST = -(2**63), 2**63 - 1
# Names are compared by their bytes, and no text begins with more of this than it.
_LAST_TEXT = "\U0010ffff" * 8


class Order(msgspec.Struct, frozen=True):
    """An order: its statement, and what stands before the first page of it."""

    statement: str
    key: int | str
    id: UUID


class Cursor(msgspec.Struct, frozen=True):
    """The last run of a page: by what it is sorted, where that is not its id, and its id."""

    key: int | str | None
    id: UUID


NEWEST_FIRST = "ID_DESC"

_TASK_RUN_ORDERS = {
    "EXPECTED_START_TIME_ASC": Order("expected_asc", _EARLIEST, _FIRST_ID),
    "EXPECTED_START_TIME_DESC": Order("expected_desc", _LATEST, _LAST_ID),
    "NAME_ASC": Order("name_asc", "", _FIRST_ID),
    "NAME_DESC": Order("name_desc", _LAST_TEXT, _LAST_ID),
    "NEXT_SCHEDULED_START_TIME_ASC": Order("next_asc", _EARLIEST, _FIRST_ID),
    "END_TIME_DESC": Order("end_desc", _LATEST, _LAST_ID),
}
ORDERS: dict[Table, dict[str, Order]] = {
    "task_run": _TASK_RUN_ORDERS,
    "flow_run": {
        **_TASK_RUN_ORDERS,
        "START_TIME_ASC": Order("start_asc", _EARLIEST, _FIRST_ID),
        "START_TIME_DESC": Order("start_desc", _LATEST, _LAST_ID),
    },
    "variable": {
        "NAME_ASC": Order("name_asc", "", _FIRST_ID),
        "NAME_DESC": Order("name_desc", _LAST_TEXT, _LAST_ID),
        "UPDATED_DESC": Order("updated_desc", _LATEST, _LAST_ID),
    },
    "artifact": {
        "KEY_ASC": Order("key_asc", "", _FIRST_ID),
        "KEY_DESC": Order("key_desc", _LAST_TEXT, _LAST_ID),
        "UPDATED_DESC": Order("updated_desc", _LATEST, _LAST_ID),
    },
}
# The filters that can lead, the most selective first, each with its statement.
_LEADS: dict[Table, dict[str, str]] = {
    "flow_run": {
        "ids": "by_id",
        "names": "by_name",
        "parent_task_run_ids": "by_parent",
        "parent_flow_run_ids": "by_parent_run",
        "flow_ids": "by_flow",
        "state_types": "by_state",
    },
    "task_run": {"ids": "by_id", "flow_run_ids": "by_flow_run", "state_types": "by_state"},
    "variable": {"ids": "by_id", "names": "by_name"},
    "artifact": {
        "ids": "by_id",
        "keys": "by_key",
        "task_run_ids": "by_task_run",
        "flow_run_ids": "by_flow_run",
    },
}
# What an index counts by itself where nothing is asked besides what leads.
_COUNTED_BY_INDEX: dict[Table, frozenset[str]] = {
    "flow_run": frozenset(("by_flow", "by_state", "newest")),
    "task_run": frozenset(("by_flow_run", "by_state", "newest")),
}
# What the conditions of each kind of run are called.
_BOTH = (
    "ids",
    "names",
    "name_like",
    "tags",
    "any_tags",
    "has_tags",
    "state_types",
    "state_names",
    "parent_task_run_ids",
    "start_time_after",
    "start_time_before",
    "has_start_time",
    "end_time_after",
    "end_time_before",
    "has_end_time",
    "expected_start_time_after",
    "expected_start_time_before",
)
CONDITIONS: dict[Table, tuple[str, ...]] = {
    "flow_run": (
        *_BOTH,
        "not_ids",
        "flow_ids",
        "flow_name_like",
        "not_state_types",
        "not_state_names",
        "flow_versions",
        "next_scheduled_start_time_after",
        "next_scheduled_start_time_before",
        "parent_flow_run_ids",
        "is_subflow",
        "idempotency_keys",
        "not_idempotency_keys",
        "deployment_ids",
        "has_deployment",
        "work_queue_names",
    ),
    "task_run": (*_BOTH, "flow_run_ids", "has_flow_run", "task_keys", "has_subflow"),
    "variable": ("ids", "names", "name_like", "tags", "any_tags", "has_tags"),
    "artifact": (
        "ids",
        "keys",
        "key_like",
        "has_key",
        "flow_run_ids",
        "task_run_ids",
        "types",
        "not_types",
        "is_latest",
    ),
}


def conditions(tx: Transaction, table: Table, filters: Mapping[str, object]) -> dict[str, object]:
    """A value for each condition: NULL where nothing was asked for."""
    known = _without_flow_names(tx, filters)
    return {name: _bound(known.get(name)) for name in CONDITIONS[table]}


def find_ids(
    tx: Transaction,
    table: Table,
    filters: Mapping[str, object],
    *,
    order: str = NEWEST_FIRST,
    after: Cursor | None = None,
    limit: int,
) -> tuple[list[UUID], Cursor | None]:
    """A page of the runs that fit.

    Args:
        tx: a transaction.
        table: which kind of run.
        filters: by the names of :data:`CONDITIONS`, and ``flow_names`` for flow runs.
        order: one of :data:`ORDERS`, or ``ID_DESC``.
        after: the end of the page before.
        limit: how many at most.

    Returns:
        Their ids, and the end of this page; None when it is the last one.
    """
    if order == NEWEST_FIRST:
        before = _LAST_ID if after is None else after.id
        searches = [
            _ids(tx.rows(name, before=before, limit=limit, **values))
            for name, values in _searches(tx, table, filters, "find")
        ]
        ids = list(islice(merge(*searches, reverse=True), limit))
        return ids, Cursor(None, ids[-1]) if len(ids) == limit else None
    chosen = ORDERS[table][order]
    key = "after_name" if isinstance(chosen.key, str) else "after_key"
    rows = tx.rows(
        f"{table}.find_{chosen.statement}",
        after_id=chosen.id if after is None else after.id,
        limit=limit,
        **{key: chosen.key if after is None else after.key},
        **conditions(tx, table, filters),
    )
    return list(_ids(rows)), Cursor(rows[-1][1], rows[-1][0]) if len(rows) == limit else None


def find_flow_ids(
    tx: Transaction, filters: Mapping[str, object], *, after: Cursor | None, limit: int
) -> tuple[list[UUID], Cursor | None]:
    """A page of the flows that fit, newest first, and its end; None when it is the last one."""
    before = _LAST_ID if after is None else after.id
    rows = tx.rows("flow.find_newest", before=before, limit=limit, **_of_flows(filters))
    ids = [id for (id,) in rows]
    return ids, Cursor(None, ids[-1]) if len(ids) == limit else None


def count(tx: Transaction, table: Table, filters: Mapping[str, object]) -> int:
    """How many runs fit."""
    return sum(
        int(tx.value(name, **values)) for name, values in _searches(tx, table, filters, "count")
    )


def count_flows(tx: Transaction, filters: Mapping[str, object]) -> int:
    """How many flows fit."""
    return int(tx.value("flow.count_newest", **_of_flows(filters)))


def _of_flows(filters: Mapping[str, object]) -> dict[str, object]:
    return {name: _bound(filters.get(name)) for name in ("names", "name_like")}


def _searches(
    tx: Transaction,
    table: Table,
    filters: Mapping[str, object],
    what: Literal["find", "count", "count_all"],
) -> Iterator[tuple[str, dict[str, object]]]:
    """The statements that together give what fits, each run once and with these values."""
    filters = _without_flow_names(tx, filters)
    lead, statement = _lead_of(table, filters, is_count=what == "count")
    others = {name: filters[name] for name in _asked_for(filters) if name != lead}
    values: dict[str, object] = {}
    if what == "count" and not others and statement in _COUNTED_BY_INDEX.get(table, ()):
        what = "count_all"
    else:
        values = conditions(tx, table, others)
    if lead is None:
        yield f"{table}.{what}_newest", values
        return
    wanted = filters[lead]
    assert isinstance(wanted, Sequence)
    for value in dict.fromkeys(wanted):
        if lead == "state_types" and table == "task_run" and value == StateType.COMPLETED:
            yield "task_run.count_all_completed", {}
            continue
        key = "lead_id" if isinstance(value, UUID) else "lead"
        yield f"{table}.{what}_{statement}", {**values, key: value}


def _lead_of(
    table: Table, filters: Mapping[str, object], *, is_count: bool
) -> tuple[str | None, str]:
    for name, statement in _LEADS[table].items():
        values = filters.get(name)
        if values is None:
            continue
        assert isinstance(values, Sequence)
        is_of_tasks = statement == "by_state" and table == "task_run"
        if is_of_tasks and StateType.COMPLETED in values:
            # Nearly all are, and no index holds them by their state; what it does not hold can be
            # counted by it all the same.
            if is_count and _asked_for(filters) == {name}:
                return name, statement
            continue
        return name, statement
    return None, "newest"


def _asked_for(filters: Mapping[str, object]) -> set[str]:
    return {name for name, value in filters.items() if value is not None}


def _without_flow_names(tx: Transaction, filters: Mapping[str, object]) -> Mapping[str, object]:
    """The filters with the ids of flows in place of their names."""
    names = filters.get("flow_names")
    if names is None:
        return filters
    assert isinstance(names, Sequence)
    found = [id for name in names if (id := flow_id(tx, name=name)) is not None]
    given = filters.get("flow_ids")
    if isinstance(given, Sequence):
        found = [id for id in found if id in given]
    return {**{k: v for k, v in filters.items() if k != "flow_names"}, "flow_ids": found}


def _ids(rows: Sequence[Sequence[object]]) -> Iterator[UUID]:
    for row in rows:
        assert isinstance(row[0], UUID)
        yield row[0]


def _bound(value: object) -> object:
    """A list as the JSON array that a statement reads."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return value
    return msgspec.json.encode([str(item) for item in value]).decode()
