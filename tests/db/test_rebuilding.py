"""A table made anew keeps its rows and everything that hangs on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest

import embedded_orch
from embedded_orch import errors, flow
from embedded_orch.db.migrations import migrations
from embedded_orch.db.sqlite.rebuilding import apply_script, rebuilt_tables
from embedded_orch.db.statements import schema_folder
from tests.db.test_migrating import look, schema_with, upgrade

A_LIBRARY = """
create table author (
    id   integer primary key,
    name text not null unique
) strict;
create table book (
    id        integer primary key,
    author_id integer not null references author (id) on delete cascade,
    sequel_of integer references book (id),
    title     text not null,
    pages     text
) strict;
create table loan (
    book_id integer not null references book (id),
    reader  text not null,
    primary key (book_id, reader)
) strict, without rowid;
create table written (title text not null) strict;
create index book_by_author on book (author_id, title);
create index book_thick on book (pages) where pages > '500';
create unique index book_by_lower_title on book (lower(title));
create trigger book_is_written after insert on book
begin
    insert into written values (new.title);
end;
create trigger loan_is_written after insert on loan
begin
    insert into written select title from book where id = new.book_id;
end;
create view thick_book as select title from book where pages > '500';
create view thick_book_of_author as
    select author.name, book.title from thick_book
    join book using (title) join author on author.id = book.author_id;
insert into author values (1, 'Ada'), (2, 'Bo');
insert into book values
    (1, 1, null, 'Alpha', '600'), (2, 1, 1, 'Beta', '100'), (7, 2, null, 'Gamma', null);
insert into loan values (1, 'Cy'), (7, 'Cy');
"""

REBUILD = """
-- rebuild: book
-- column: pages = cast(pages as integer)
-- column: shelf = case when pages > '500' then 'thick; heavy' else 'thin' end
create table book (
    id        integer primary key,
    author_id integer not null references author (id) on delete cascade,
    sequel_of integer references book (id),
    title     text not null,
    pages     integer check (pages > 0),    -- a number now; it was a text
    shelf     text not null default 'a;b'
) strict;
"""


@contextmanager
def a_transaction(connection: apsw.Connection) -> Iterator[None]:
    """As a migration runs in one."""
    connection.execute("pragma foreign_keys = off")
    connection.execute("begin immediate")
    try:
        yield
        assert connection.execute("pragma foreign_key_check").fetchall() == []
        connection.execute("commit")
    finally:
        if connection.in_transaction:
            connection.execute("rollback")
        connection.execute("pragma foreign_keys = on")


@pytest.fixture
def library() -> Iterator[apsw.Connection]:
    """A database with everything that can hang on a table."""
    connection = apsw.Connection(":memory:")
    connection.execute("pragma foreign_keys = on")
    connection.execute(A_LIBRARY)
    yield connection
    connection.close()


def rows(connection: apsw.Connection, sql: str) -> list[tuple[Any, ...]]:
    return connection.execute(sql).fetchall()


def rebuild(connection: apsw.Connection, script: str = REBUILD) -> None:
    with a_transaction(connection):
        apply_script(connection, script)


class TestKept:
    def test_rows_are_kept_and_expressions_fill_what_is_new_or_changed(
        self, library: apsw.Connection
    ) -> None:
        rebuild(library)

        assert rows(library, "select * from book") == [
            (1, 1, None, "Alpha", 600, "thick; heavy"),
            (2, 1, 1, "Beta", 100, "thin"),
            (7, 2, None, "Gamma", None, "thin"),
        ]

    def test_a_new_column_without_an_expression_has_its_default(
        self, library: apsw.Connection
    ) -> None:
        script = "\n".join(line for line in REBUILD.splitlines() if "column: shelf" not in line)

        rebuild(library, script)

        assert rows(library, "select distinct shelf from book") == [("a;b",)]

    def test_a_column_that_is_left_out_goes(self, library: apsw.Connection) -> None:
        rebuild(library, "-- rebuild: author\ncreate table author (id integer primary key);\n")

        assert rows(library, "select * from author") == [(1,), (2,)]

    def test_indexes_triggers_and_views_are_the_same_as_before(
        self, library: apsw.Connection
    ) -> None:
        kept = (
            "select type, name, tbl_name, sql from sqlite_schema"
            " where type <> 'table' order by type, name"
        )
        before = rows(library, kept)

        rebuild(library)

        assert rows(library, kept) == before
        assert len([row for row in before if row[3] is not None]) == 7

    def test_indexes_serve_and_unique_ones_hold(self, library: apsw.Connection) -> None:
        rebuild(library)

        plan = rows(library, "explain query plan select title from book where author_id = 1")
        assert "book_by_author" in plan[0][3]
        with pytest.raises(apsw.ConstraintError):
            library.execute("insert into book values (8, 1, null, 'ALPHA', 1, 'x')")

    def test_triggers_fire_again_and_did_not_fire_meanwhile(self, library: apsw.Connection) -> None:
        before = rows(library, "select count(*) from written")

        rebuild(library)

        assert rows(library, "select count(*) from written") == before
        library.execute("insert into book values (8, 1, null, 'Delta', 1, 'x')")
        library.execute("insert into loan values (8, 'Di')")
        assert rows(library, "select count(*) from written where title = 'Delta'") == [(2,)]

    def test_views_read_the_new_table(self, library: apsw.Connection) -> None:
        rebuild(library)

        assert rows(library, "select * from thick_book_of_author") == [("Ada", "Alpha")]

    def test_other_tables_refer_to_the_new_table(self, library: apsw.Connection) -> None:
        rebuild(library)

        with pytest.raises(apsw.ConstraintError):
            library.execute("insert into loan values (99, 'nobody')")
        with pytest.raises(apsw.ConstraintError):
            library.execute("delete from book where id = 1")
        assert "rebuilt" not in str(rows(library, "select sql from sqlite_schema"))

    def test_it_refers_to_itself_and_to_others(self, library: apsw.Connection) -> None:
        rebuild(library)

        references = {(row[2], row[3]) for row in rows(library, "pragma foreign_key_list(book)")}
        assert references == {("author", "author_id"), ("book", "sequel_of")}
        with pytest.raises(apsw.ConstraintError):
            library.execute("insert into book values (8, 1, 99, 'Delta', 1, 'x')")
        library.execute("delete from loan")
        library.execute("delete from author where id = 1")
        assert rows(library, "select title from book") == [("Gamma",)]

    def test_statements_around_a_rebuild_run_in_their_order(self, library: apsw.Connection) -> None:
        script = (
            "update book set pages = '700' where id = 7;\n"
            f"{REBUILD}"
            "update book set shelf = 'last' where pages = 700;\n"
        )

        rebuild(library, script)

        assert rows(library, "select id, shelf from book where pages = 700") == [(7, "last")]

    def test_two_tables_can_be_made_anew_in_one_migration(self, library: apsw.Connection) -> None:
        script = REBUILD + (
            "-- rebuild: author\n"
            "-- column: name = upper(name)\n"
            "create table author (id integer primary key, name text not null) strict;\n"
        )

        rebuild(library, script)

        assert rebuilt_tables(script) == ["book", "author"]
        assert rows(library, "select * from thick_book_of_author") == [("ADA", "Alpha")]
        assert len(rows(library, "select * from book")) == 3


class TestRefused:
    def test_rows_that_lose_their_parent_are_found_before_the_commit(
        self, library: apsw.Connection
    ) -> None:
        script = (
            "-- rebuild: author\n"
            "-- column: id = id + 100\n"
            "create table author (id integer primary key, name text not null) strict;\n"
        )

        with pytest.raises(AssertionError, match="book"):
            rebuild(library, script)

        assert rows(library, "select id from author order by id") == [(1,), (2,)]

    @pytest.mark.parametrize(
        ("script", "error"),
        [
            (
                "-- rebuild: book\ncreate table author (id integer) strict;\n",
                errors.MigrationFailed,
            ),
            (
                "-- rebuild: book\n-- column: nothing = 1\ncreate table book (id int) strict;\n",
                errors.MigrationFailed,
            ),
            (
                "-- rebuild: written\ncreate table written (id integer) strict;\n",
                errors.MigrationFailed,
            ),
            (
                "-- rebuild: nothing\ncreate table nothing (id integer) strict;\n",
                errors.MigrationFailed,
            ),
            (
                "-- rebuild: book\ncreate table book (id int, title text, shelf int not null);\n",
                apsw.ConstraintError,
            ),
            (
                "-- rebuild: book\ncreate table book (id integer, pages integer) strict;\n",
                apsw.SQLError,
            ),
        ],
        ids=[
            "another table",
            "an unknown column",
            "nothing is kept",
            "no such table",
            "a row that breaks a rule",
            "an index on what is gone",
        ],
    )
    def test_what_cannot_be_done_is_refused_and_changes_nothing(
        self, library: apsw.Connection, script: str, error: type[Exception]
    ) -> None:
        def everything() -> list[Any]:
            return [rows(library, f"select * from {name}") for name in ("sqlite_schema", "book")]

        before = everything()

        with pytest.raises(error):
            rebuild(library, script)

        assert everything() == before


@flow
def hello(name: str) -> str:
    return f"hello {name}"


class TestAsAMigration:
    def test_the_table_of_runs_can_be_made_anew(self, tmp_path: Path) -> None:
        path = tmp_path / "orch.db"
        with embedded_orch.open(path):
            hello("world")
        kept = "select count(*) from sqlite_schema where type in ('index', 'view', 'trigger')"
        before = look(path, kept)

        upgrade(path, schema_with(tmp_path, the_table_of_runs_with("note text default 'new'")))

        assert look(path, kept) == before
        assert look(
            path,
            "select note from flow_run",
            "select flow_name from flow_runs",
            "select count(*) from flow_run_state join flow_run on flow_run.id = flow_run_id",
        ) == ["new", "hello", 3]

    def test_one_that_would_orphan_rows_is_rolled_back(self, tmp_path: Path) -> None:
        path = tmp_path / "orch.db"
        with embedded_orch.open(path):
            hello("world")
        script = the_table_of_runs_with("note text").replace(
            "-- rebuild: flow_run\n", "-- rebuild: flow_run\n-- column: id = randomblob(16)\n"
        )

        with pytest.raises(errors.MigrationFailed, match="without their parents"):
            upgrade(path, schema_with(tmp_path, script))

        with embedded_orch.open(path) as orch:
            assert orch.sql("select count(*) from flow_run_states").scalar() == 3
            hello("again")


def the_table_of_runs_with(column: str) -> str:
    """A migration that gives the table of flow runs one more column, the hard way."""
    text = migrations("sqlite", str(Path(schema_folder()) / "migrations"))[0].sql
    start = text.index("create table flow_run (")
    definition = text[start : text.index(") strict, without rowid;", start)]
    first_check = definition.index("\n    check (") + 1
    return (
        "-- rebuild: flow_run\n"
        + definition[:first_check]
        + f"    {column},\n"
        + definition[first_check:]
        + ") strict, without rowid;\n"
    )
