"""The unique keys of each table: the same on both engines, and those that upserts name."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from embedded_orch import errors
from embedded_orch.db.port import Database
from embedded_orch.db.statements import schema_folder
from embedded_orch.store.keys import EXPRESSION, KEYS, Key
from tests.builders import NOON, Builder, select

STATEMENTS = Path(schema_folder()) / "statements"


def keys_of(database: Database) -> dict[str, set[Key]]:
    """The unique indexes that the engine has, by table."""
    found: dict[str, set[Key]] = defaultdict(set)
    rows = _sqlite_keys(database) if database.dialect == "sqlite" else _postgres_keys(database)
    for table, columns, condition in rows:
        found[table].add(Key(tuple(columns), _plain(condition)))
    return dict(found)


def _sqlite_keys(database: Database) -> list[tuple[str, list[str], str | None]]:
    rows = select(
        database,
        """
        select listed.tbl_name, found.name, found.partial, created.sql
        from sqlite_schema as listed, pragma_index_list(listed.tbl_name) as found
        left join sqlite_schema as created
            on created.type = 'index' and created.name = found.name
        where listed.type = 'table' and found."unique"
        """,
    )
    keys = []
    for table, index, is_partial, sql in rows:
        columns = select(
            database, "select name from pragma_index_info(?1) where cid <> -1 order by seqno", index
        )
        condition = sql.lower().split(" where ")[1] if is_partial else None
        keys.append((table, [name or EXPRESSION for (name,) in columns], condition))
    # A rowid table's integer primary key has no index of its own.
    keys.append(("schema_migration", ["version"], None))
    return keys


def _postgres_keys(database: Database) -> list[tuple[str, list[str], str | None]]:
    return [
        (table, columns, condition)
        for table, columns, condition in select(
            database,
            """
            select indexed.relname,
                   array_agg(coalesce(attname::text, '(an expression)') order by position),
                   pg_get_expr(indpred, indrelid)
            from pg_index
            join pg_class as indexed on indexed.oid = indrelid
            cross join unnest(indkey::int2[]) with ordinality as part (number, position)
            left join pg_attribute as attribute
                on attribute.attrelid = indrelid and attribute.attnum = part.number
            where indisunique and indexed.relnamespace = current_schema()::regnamespace
            group by indexed.relname, indexrelid, indpred, indrelid
            """,
        )
    ]


def _plain(condition: str | None) -> str | None:
    return None if condition is None else condition.lower().strip("() \n")


def test_each_table_has_exactly_the_declared_keys(database: Database) -> None:
    assert keys_of(database) == {table: set(keys) for table, keys in KEYS.items()}


def conflicts() -> list[tuple[str, str, Key]]:
    """Table, statement and target of each ``on conflict`` that names one."""
    found = []
    for file in sorted(STATEMENTS.glob("*.sql")):
        text = re.sub(r"--(?! name:)[^\n]*", "", file.read_text(encoding="utf-8")).lower()
        for block in text.split("-- name:")[1:]:
            table = re.search(r"insert into (\w+)", block)
            for target in re.finditer(
                r"on conflict \(([^)]*)\)(?: where (.*?))? do", block, re.DOTALL
            ):
                assert table is not None
                columns = tuple(re.split(r",\s*", target[1].strip()))
                name = f"{file.stem}.{block.split()[0]}"
                found.append((table[1], name, Key(columns, _plain(target[2]))))
    return found


def test_each_on_conflict_names_a_declared_key() -> None:
    targets = conflicts()

    assert len(targets) >= 10
    assert [(name, key) for table, name, key in targets if key not in KEYS.get(table, ())] == []


# -- NULL in a key ---------------------------------------------------------------------------------


def insert_task_run(build: Builder, flow_run_id: Any, key: str) -> None:
    """A row that is only there for its key."""
    mark = ("?1", "?2", "?3") if build.database.dialect == "sqlite" else ("$1", "$2", "$3")
    id = build.process.new_id()
    if build.database.dialect == "sqlite":
        id, flow_run_id = id.bytes, flow_run_id and flow_run_id.bytes
    opened = build.database.begin()
    try:
        opened.execute(
            f"insert into task_run (id, flow_run_id, name, task_key, dynamic_key, created)"
            f" values ({mark[0]}, {mark[1]}, 'clean-0', 'clean', {mark[2]}, {NOON})",
            (id, flow_run_id, key),
        )
    except BaseException:
        opened.roll_back()
        raise
    opened.commit()


def test_a_task_run_outside_of_flows_has_a_key_of_its_own(build: Builder) -> None:
    """Two NULLs differ in a unique index on both engines; the partial one beside it does not."""
    (flow_run_id,) = build.runs(build.flow(), 1)
    insert_task_run(build, None, "1")

    insert_task_run(build, flow_run_id, "1")
    insert_task_run(build, None, "2")

    for taken in (None, flow_run_id):
        with pytest.raises(errors.ConstraintViolated):
            insert_task_run(build, taken, "1")
    assert select(build.database, "select count(*) from task_run") == [(3,)]
