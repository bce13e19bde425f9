"""Alterations that SQLite's ALTER TABLE lacks: a new table, a copy, a swap.

A migration for SQLite may hold blocks of this form::

    -- rebuild: flow_run
    -- column: priority = coalesce(old_priority, 1)
    create table flow_run (
        ...
    ) strict;

The table is made anew as written, its rows are copied (columns of the same name as they are,
others by the expressions given), and its indexes, triggers and the views of the database are kept;
foreign keys of other tables go on pointing to it, and are checked before the commit. The procedure
is the one of SQLite's documentation, "Making Other Kinds Of Table Schema Changes" (ALTER TABLE,
section 7).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from embedded_orch import errors

if TYPE_CHECKING:
    import apsw

# A semicolon in a comment or in a string of the definition does not end it.
_BLOCK = re.compile(
    r"""
    ^--\ rebuild:\ (\w+)\n
    ((?:--\ column:\ \w+\ =\ [^\n]+\n)*)
    (create\ table\ (?:--[^\n]*|'(?:[^']|'')*'|"(?:[^"]|"")*"|[^;])+?;)\n?
    """,
    re.MULTILINE | re.IGNORECASE | re.VERBOSE,
)
_COLUMN = re.compile(r"-- column: (\w+) = ([^\n]+)")


def apply_script(connection: apsw.Connection, script: str) -> None:
    """Run a migration, its rebuild blocks included.

    The caller holds a write transaction, begun with foreign_keys off, and checks the foreign keys
    before it commits.
    """
    position = 0
    for block in _BLOCK.finditer(script):
        connection.execute(script[position : block.start()])
        copied = {match[1]: match[2].strip() for match in _COLUMN.finditer(block[2])}
        rebuild_table(connection, block[1], block[3], copied)
        position = block.end()
    connection.execute(script[position:])


def rebuilt_tables(script: str) -> list[str]:
    """The tables that a migration makes anew."""
    return [block[1] for block in _BLOCK.finditer(script)]


def rebuild_table(
    connection: apsw.Connection, table: str, definition: str, copied: dict[str, str]
) -> None:
    """Give ``table`` a new definition and keep its rows, indexes, triggers and views.

    Args:
        connection: in a write transaction, with foreign_keys off.
        table: the table's name.
        definition: its new CREATE TABLE statement, under its own name.
        copied: expressions over the old columns, for new columns or for changed ones.

    Raises:
        MigrationFailed: the definition is of another table, a copied column does not exist, or
            nothing of the old table is kept.
    """
    fresh = f"{table}_rebuilt"
    renamed, count = re.subn(
        rf"^create table {table}\b", f"create table {fresh}", definition, flags=re.IGNORECASE
    )
    if count != 1:
        raise errors.MigrationFailed(f"the rebuild of {table} defines another table: {definition}")
    found = connection.execute(
        "select type, name, sql from sqlite_schema where sql is not null and"
        " (type = 'view' or type = 'trigger' or (type = 'index' and tbl_name = ?))",
        (table,),
    ).fetchall()
    kept = [(str(kind), str(name), str(sql)) for kind, name, sql in found]
    # Views and triggers may name the table; while it is gone, SQLite would refuse each statement.
    for kind, name, _ in kept:
        if kind != "index":
            connection.execute(f'drop {kind} if exists "{name}"')
    connection.execute(renamed)
    old = _columns(connection, table)
    new = _columns(connection, fresh)
    unknown = sorted(set(copied) - set(new))
    if unknown:
        raise errors.MigrationFailed(f"the rebuild of {table} copies into no column: {unknown}")
    into = [name for name in new if name in copied or name in old]
    if not into:
        raise errors.MigrationFailed(
            f"the rebuild of {table} keeps no column of it, so its rows would be lost"
        )
    sources = ", ".join(copied.get(name, f'"{name}"') for name in into)
    targets = ", ".join(f'"{name}"' for name in into)
    # Names and expressions of a migration that we ship; nothing of them comes from a user.
    copy = f'insert into "{fresh}" ({targets}) select {sources} from "{table}"'  # noqa: S608
    connection.execute(copy)
    connection.execute(f'drop table "{table}"')
    # Foreign keys of other tables, and of the table to itself, name it by the name that it has now.
    connection.execute(f'alter table "{fresh}" rename to "{table}"')
    order = {"index": 0, "view": 1, "trigger": 2}
    for _, _, sql in sorted(kept, key=lambda item: order[item[0]]):
        connection.execute(sql)


def _columns(connection: apsw.Connection, table: str) -> list[str]:
    rows = connection.execute("select name from pragma_table_info(?)", (table,))
    return [str(name) for (name,) in rows]
