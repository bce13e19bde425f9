"""Fill a database with a past: many flow runs and task runs that have ended, written in bulk.

For measuring only. The rows are such as the package would have written, in its own schema, with
their indexes, spread over the last sixty days; but nothing of them was ever run, and they are
written without the locks and rules of the package, so nobody else may have the database open.

Of a hundred flow runs 95 completed, three failed, one crashed and one was cancelled; every tenth
hundred has the tag ``nightly``. Runs end as one state in each of three rows of history.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import apsw

DAY = 86_400 * 1_000_000
SPAN = 60 * DAY
FLOWS = 20
_CHUNK = 20_000

# Runs `n` from :first up to :last; a run began :start + n * :step.
_SQLITE_NUMBERS = """with recursive numbers (n) as (
    select :first union all select n + 1 from numbers where n < :last
)"""
_POSTGRES_NUMBERS = "with numbers (n) as (select generate_series(:first, :last))"

# What both engines have in common; the braces hold what they write differently.
_FLOW_RUNS = """
insert into {schema}flow_run (
    id, flow_id, name, state_id, state_type, state_name, state_timestamp, run_count,
    expected_start_time, start_time, end_time, total_run_time, owner_id, parameters,
    parameters_hash, entrypoint, flow_version, tags, created, updated)
{numbers}
select {run_id}, {flow_id}, 'busy-otter-' || n, {state_id}, {type}, {name}, {began} + 90000, 1,
    {began}, {began} + 1, {began} + 90000, 89999, {owner_id}, {parameters},
    {hash}, 'reports:report', '3bb166b0361afeaeffa835b116ef68bc', {tags}, {began}, {began} + 90000
from numbers"""
_FLOW_STATES = """
insert into {schema}flow_run_state (flow_run_id, timestamp, id, type, name, data, data_format)
{numbers}
select {run_id}, {began} + after, {any_id}, {each_type}, {each_name},
    case when after > 1 and {type} = 'COMPLETED' then {value} end,
    case when after > 1 and {type} = 'COMPLETED' then 'json' end
from numbers cross join (select 0 as after union all select 1 union all select 90000) as afters"""
_TASK_RUNS = """
insert into {schema}task_run (
    id, flow_run_id, name, task_key, dynamic_key, call_number, state_id, state_type, state_name,
    state_timestamp, run_count, flow_run_run_count, expected_start_time, start_time, end_time,
    total_run_time, source_hash, created)
{numbers}, tasks (t) as ({tasks})
select {task_id}, {run_id}, 'work-' || n % 1000, 'reports.work', {call}, t, {task_state_id},
    {task_type}, {task_name}, {task_began} + 800, 1, 1, {task_began}, {task_began} + 1,
    {task_began} + 800, 799, '79cc5d988f7d7415', {task_began}
from numbers cross join tasks"""
_TASK_STATES = """
insert into {schema}task_run_state (task_run_id, timestamp, id, type, name, data, data_format)
{numbers}, tasks (t) as ({tasks})
select {task_id}, {task_began} + after, {any_task_id}, {each_task_type}, {each_task_name},
    case when after > 1 and {task_type} = 'COMPLETED' then {value} end,
    case when after > 1 and {task_type} = 'COMPLETED' then 'json' end
from numbers cross join tasks
    cross join (select 0 as after union all select 1 union all select 800) as afters"""

_BEGAN = "(:start + n * :step)"
_TASK_BEGAN = "(:start + n * :step + 10000 + t * 1000)"
_TYPE = """case when n % 100 < 3 then 'FAILED' when n % 100 = 3 then 'CRASHED'
    when n % 100 = 4 then 'CANCELLED' else 'COMPLETED' end"""
# The last task of a run ends as the run does.
_TASK_TYPE = "case when n % 100 < 3 and t = {last_task} then 'FAILED' else 'COMPLETED' end"
_NAME = "substr({type}, 1, 1) || lower(substr({type}, 2))"


class Size(NamedTuple):
    """How much there is to be.

    Attributes:
        flow_runs: how many.
        tasks: task runs of each.
    """

    flow_runs: int
    tasks: int


def fill_file(path: str, size: Size, *, told: Callable[[int], None] = lambda _: None) -> None:
    """Fill a file that the package has made and nobody has open.

    Args:
        path: of the file.
        size: how much.
        told: is called with the number of flow runs that there are, now and then.
    """
    connection = apsw.Connection(path)
    try:
        connection.pragma("journal_mode", "wal")
        # Nobody needs half of it after a power cut.
        connection.pragma("synchronous", "off")
        connection.pragma("cache_size", -500_000)
        connection.wal_autocheckpoint(20_000)
        statements = _statements(_SQLITE, size)
        now = time.time_ns() // 1000
        connection.execute(
            "insert into process (id, host, pid, started, ended) values (?, 'past', 1, ?, ?)",
            (_owner(), now - SPAN, now),
        )
        for number in range(FLOWS):
            connection.execute(
                "insert into flow (id, name, created, updated) values (?, ?, ?, ?)",
                (_flow(number), f"report-{number}", now, now),
            )
        for values in _chunks(size, now):
            connection.execute("begin immediate")
            for statement in statements:
                connection.execute(statement, values)
            connection.execute("commit")
            told(values["last"] + 1)
        connection.execute("analyze")
        connection.pragma("wal_checkpoint(truncate)")
    finally:
        connection.close()


def fill_server(url: str, size: Size, *, told: Callable[[int], None] = lambda _: None) -> None:
    """The same in a database of a Postgres server, as a superuser."""
    import psycopg

    statements = [_for_psycopg(statement) for statement in _statements(_POSTGRES, size)]
    now = time.time_ns() // 1000
    with psycopg.connect(url, autocommit=True) as connection:
        # What refers to what is known here; looking each up would take longer than writing it.
        connection.execute("set session_replication_role = replica")
        connection.execute("set synchronous_commit = off")
        connection.execute(
            "insert into embedded_orch.process (id, host, pid, started, ended)"
            " values (%s::uuid, 'past', 1, %s, %s)",
            (_owner().hex(), now - SPAN, now),
        )
        for number in range(FLOWS):
            connection.execute(
                "insert into embedded_orch.flow (id, name, created, updated)"
                " values (%s::uuid, %s, %s, %s)",
                (_flow(number).hex(), f"report-{number}", now, now),
            )
        for values in _chunks(size, now):
            with connection.transaction():
                for statement in statements:
                    connection.execute(statement.encode(), values)
            told(values["last"] + 1)
        connection.execute("vacuum analyze")


def _flow(number: int) -> bytes:
    return (0x7000_8000_0000_0000_0000 + number).to_bytes(16, "big")


def _owner() -> bytes:
    return (0x7000_8000_0000_0001_0000).to_bytes(16, "big")


def _chunks(size: Size, now: int) -> Iterator[dict[str, int]]:
    step = SPAN // size.flow_runs
    for first in range(0, size.flow_runs, _CHUNK):
        last = min(first + _CHUNK, size.flow_runs) - 1
        yield {"first": first, "last": last, "start": now - SPAN, "step": step}


def _for_psycopg(statement: str) -> str:
    doubled = statement.replace("%", "%%")
    return re.sub(r"(?<!:):(first|last|start|step)\b", r"%(\1)s::bigint", doubled)


class _Dialect(NamedTuple):
    """What an engine writes differently: an id of its digits, and a few others."""

    schema: str
    numbers: str
    hex_digits: str
    id_of: str
    bytes_of: str
    text_bytes: str
    json: str


_SQLITE = _Dialect(
    schema="",
    numbers=_SQLITE_NUMBERS,
    hex_digits="printf('%0{width}x', {value})",
    id_of="unhex({})",
    bytes_of="unhex({})",
    text_bytes="cast({} as blob)",
    json="{}",
)
_POSTGRES = _Dialect(
    schema="embedded_orch.",
    numbers=_POSTGRES_NUMBERS,
    hex_digits="lpad(to_hex({value}), {width}, '0')",
    id_of="({})::uuid",
    bytes_of="decode({}, 'hex')",
    text_bytes="convert_to({}, 'UTF8')",
    json="({})::jsonb",
)


def _statements(dialect: _Dialect, size: Size) -> list[str]:
    task = f"(n * {size.tasks} + t)"

    def digits(value: str, width: int) -> str:
        return dialect.hex_digits.format(value=value, width=width)

    def new_id(when: str, kind: str, number: str) -> str:
        """Like a UUIDv7: the milliseconds, what it is of, and which of them."""
        text = f"{digits(when + ' / 1000', 12)} || '7{kind}8' || {digits(number, 15)}"
        return dialect.id_of.format(text)

    task_type = _TASK_TYPE.format(last_task=size.tasks - 1)
    each = "case after when 0 then 'PENDING' when 1 then 'RUNNING' else {} end"
    each_name = "case after when 0 then 'Pending' when 1 then 'Running' else {} end"
    name, task_name = _NAME.format(type=_TYPE), _NAME.format(type=task_type)
    flow_digits = f"'0000000000007000800000000000' || {digits(f'n % {FLOWS}', 4)}"
    pieces = {
        "schema": dialect.schema,
        "numbers": dialect.numbers,
        "began": _BEGAN,
        "task_began": _TASK_BEGAN,
        "type": _TYPE.join("()"),
        "name": name,
        "task_type": task_type.join("()"),
        "task_name": task_name,
        "each_type": each.format(_TYPE.join("()")),
        "each_name": each_name.format(name),
        "each_task_type": each.format(task_type.join("()")),
        "each_task_name": each_name.format(task_name),
        "run_id": new_id(_BEGAN, "001", "n"),
        "state_id": new_id(_BEGAN, "002", "n * 100000 + 90000"),
        "any_id": new_id(_BEGAN, "002", "n * 100000 + after"),
        "task_id": new_id(_TASK_BEGAN, "003", task),
        "task_state_id": new_id(_TASK_BEGAN, "004", f"{task} * 1000 + 800"),
        "any_task_id": new_id(_TASK_BEGAN, "004", f"{task} * 1000 + after"),
        "flow_id": dialect.id_of.format(flow_digits),
        "owner_id": dialect.id_of.format(f"'{_owner().hex()}'"),
        "hash": dialect.bytes_of.format(digits("n * 7919", 32)),
        "parameters": dialect.json.format("'{\"day\":' || n || '}'"),
        "tags": dialect.json.format(
            "case when n / 100 % 10 = 7 then '[\"nightly\"]' else '[\"daily\"]' end"
        ),
        "value": dialect.text_bytes.format("cast(n as text)"),
        "call": f"'~' || {digits('n * 104729 + t', 16)}",
        "tasks": " union all ".join(f"select {number} as t" for number in range(size.tasks)),
    }
    return [
        template.format(**pieces)
        for template in (_FLOW_RUNS, _FLOW_STATES, _TASK_RUNS, _TASK_STATES)
    ]
