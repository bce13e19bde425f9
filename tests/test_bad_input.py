"""What nobody meant to give us: an exception of ours with what to do, and nothing changed."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
import psycopg
import pytest

import embedded_orch
from embedded_orch import errors, flow
from embedded_orch.db.sqlite.connecting import APPLICATION_ID
from embedded_orch.db.statements import schema_folder
from tests.postgres_server import PostgresServer

NOBODY = 65534


@flow
def hello(name: str) -> str:
    return f"hello {name}"


def run_elsewhere(program: str, *arguments: str) -> None:
    """Run a program in another process, so that its SQLite is not ours."""
    subprocess.run([sys.executable, "-c", program, *arguments], check=True, timeout=60)


def seen(folder: Path) -> dict[str, tuple[int, str]]:
    """Each file below a folder, by its kind and rights, and by what it holds."""
    found = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        content = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(mode) else ""
        found[str(path.relative_to(folder))] = (mode, content)
    return found


# -- files that are not what they should be --------------------------------------------------------


def text(path: Path) -> None:
    path.write_text("No database, but a letter.\n" * 500)


def short_text(path: Path) -> None:
    path.write_text("hi")


def random_bytes(path: Path) -> None:
    path.write_bytes(hashlib.shake_256(b"seed").digest(100_000))


def zeros(path: Path) -> None:
    path.write_bytes(bytes(8192))


def another_program(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.executescript("create table song (title text); insert into song values ('x');")
    connection.close()


def another_program_with_a_log(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("pragma journal_mode = wal")
    connection.executescript("create table song (title text); insert into song values ('x');")
    connection.close()


def another_program_without_tables(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("pragma application_id = 77")
    connection.close()


def ours(path: Path) -> None:
    with embedded_orch.open(path):
        hello("world")
    for suffix in ("-wal", "-shm", "-lock", "-owners"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def ours_truncated_to(size: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        ours(path)
        os.truncate(path, size)

    make.__name__ = f"ours_truncated_to_{size}"
    return make


def ours_with_a_broken_schema(path: Path) -> None:
    ours(path)
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 200)


def ours_with_a_foreign_id(path: Path) -> None:
    ours(path)
    connection = sqlite3.connect(path)
    connection.execute("pragma application_id = 0")
    connection.close()


def newer(path: Path) -> None:
    ours(path)
    connection = sqlite3.connect(path)
    connection.execute("pragma user_version = 999")
    connection.close()
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def newer_without_a_log(path: Path) -> None:
    newer(path)
    connection = sqlite3.connect(path)
    connection.execute("pragma journal_mode = delete")
    connection.close()


def a_folder(path: Path) -> None:
    path.mkdir()


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/null")


def a_link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


FILES: list[tuple[Callable[[Path], None], type[errors.DatabaseError]]] = [
    (text, errors.NotOurDatabase),
    (short_text, errors.NotOurDatabase),
    (random_bytes, errors.NotOurDatabase),
    (zeros, errors.NotOurDatabase),
    (another_program, errors.NotOurDatabase),
    (another_program_with_a_log, errors.NotOurDatabase),
    (another_program_without_tables, errors.NotOurDatabase),
    (ours_with_a_foreign_id, errors.NotOurDatabase),
    (ours_truncated_to(60), errors.DatabaseDamaged),
    (ours_truncated_to(4096), errors.DatabaseDamaged),
    (ours_truncated_to(50_000), errors.DatabaseDamaged),
    (newer, errors.DatabaseTooNew),
    (newer_without_a_log, errors.DatabaseTooNew),
    (a_folder, errors.DatabaseUnavailable),
    (a_pipe, errors.DatabaseUnavailable),
    (a_link_to_a_device, errors.DatabaseUnavailable),
    (a_link_to_itself, errors.DatabaseUnavailable),
]


@pytest.mark.parametrize("journal", ["wal", "truncate"])
@pytest.mark.parametrize(("make", "error"), FILES, ids=[make.__name__ for make, _ in FILES])
def test_a_file_that_is_not_ours_or_not_whole_is_refused_and_left_without_a_trace(
    tmp_path: Path, make: Callable[[Path], None], error: type[errors.DatabaseError], journal: str
) -> None:
    """Seen to fail without the look at the file before its lock file is made."""
    path = tmp_path / "orch.db"
    make(path)
    before = seen(tmp_path)

    with pytest.raises(error) as raised:
        embedded_orch.open(path, journal=journal)

    assert type(raised.value) is error
    assert str(path) in str(raised.value)
    assert seen(tmp_path) == before


def test_our_own_file_with_a_broken_schema_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "orch.db"
    ours_with_a_broken_schema(path)
    before = path.read_bytes()

    with pytest.raises(errors.DatabaseDamaged, match="db check"):
        embedded_orch.open(path)

    assert path.read_bytes() == before


def test_another_programs_log_that_is_not_empty_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "orch.db"
    program = (
        "import os, sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1])\n"
        "connection.execute('pragma journal_mode = wal')\n"
        "connection.execute('create table song (title text)')\n"
        "connection.commit()\n"
        "os._exit(0)\n"
    )
    run_elsewhere(program, str(path))
    before = seen(tmp_path)

    with pytest.raises(errors.NotOurDatabase):
        embedded_orch.open(path)

    after = seen(tmp_path)
    # The index of the log is made anew by whoever looks into the log first.
    for found in (before, after):
        found.pop("orch.db-shm", None)
    assert after == before


def test_a_database_that_another_program_has_open_is_left_to_it(tmp_path: Path) -> None:
    path = tmp_path / "orch.db"
    program = (
        "import sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connection.execute('create table song (title text)')\n"
        "connection.execute('begin exclusive')\n"
        "connection.execute(\"insert into song values ('x')\")\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "connection.execute('commit')\n"
        "print(connection.execute('select count(*) from song').fetchone()[0])\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "ready\n"
    try:
        with pytest.raises(errors.DatabaseError):
            embedded_orch.open(path, busy_timeout_seconds=0.1)
    finally:
        printed, _ = other.communicate("go\n", timeout=60)

    assert (printed, other.returncode) == ("1\n", 0)


def test_our_own_file_with_all_its_content_in_the_log_is_opened(tmp_path: Path) -> None:
    """As after a kill directly after the first flow; the file itself may say nothing yet."""
    path = tmp_path / "orch.db"
    program = (
        "import os, sys, embedded_orch\n"
        "@embedded_orch.flow\n"
        "def hello(): return 1\n"
        "orch = embedded_orch.open(sys.argv[1])\n"
        "hello()\n"
        "os._exit(0)\n"
    )
    run_elsewhere(program, str(path))
    assert (tmp_path / "orch.db-wal").stat().st_size > 0

    with embedded_orch.open(path) as orch:
        assert orch.flow_runs.count() == 1


def test_an_empty_file_becomes_a_database(tmp_path: Path) -> None:
    (tmp_path / "orch.db").touch()

    with embedded_orch.open(tmp_path / "orch.db") as orch:
        assert orch.sql("pragma application_id").scalar() == APPLICATION_ID


@pytest.mark.parametrize("name", ["a b", "100%", "what?", "#1", "%3f", "ünï", "semi;colon", "'q'"])
def test_a_file_may_be_called_anything(tmp_path: Path, name: str) -> None:
    for _ in range(2):
        with embedded_orch.open(tmp_path / name):
            hello("world")

    with embedded_orch.open(tmp_path / name) as orch:
        assert orch.flow_runs.count() == 2
    assert all(each.startswith(name) for each in os.listdir(tmp_path))


# -- places where nothing can be written -----------------------------------------------------------


@pytest.mark.parametrize("below", ["file/orch.db", "file/folder/orch.db"])
def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, below: str) -> None:
    # Whoever we are: below a file there are no folders.
    (tmp_path / "file").write_text("no folder")
    before = seen(tmp_path)

    with pytest.raises(errors.DatabaseUnavailable, match="name a file in a folder"):
        embedded_orch.open(tmp_path / below)

    assert seen(tmp_path) == before


def test_a_folder_that_nobody_may_write_to_is_named() -> None:
    if not Path("/proc/self").is_dir():
        pytest.skip("needs a folder that not even root can write to")

    with pytest.raises(errors.DatabaseUnavailable, match="name a file in a folder"):
        embedded_orch.open("/proc/self/orch.db")


@pytest.fixture
def without_rights(tmp_path: Path) -> Iterator[Callable[[], Any]]:
    """Inside its block we are somebody who may not write to what belongs to root."""
    if os.geteuid() != 0:
        yield _as_we_are
        return
    # What is imported on first use has to be there: nobody may not be allowed to read it.
    with embedded_orch.open(tmp_path / "warm-up.db") as orch:
        hello("world")
        orch.sql("select 1")
    yield _as_nobody


@contextmanager
def _as_we_are() -> Iterator[None]:
    yield


@contextmanager
def _as_nobody() -> Iterator[None]:
    os.seteuid(NOBODY)
    try:
        try:
            os.listdir(os.path.join(schema_folder(), "migrations"))
        except PermissionError:
            pytest.skip("runs as root from a folder that nobody else may read")
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody can read; pytest's own cannot be entered by others."""
    folder = Path(tempfile.mkdtemp(prefix="embedded-orch-"))
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.parametrize("has_database", [False, True], ids=["a new file", "an existing file"])
def test_a_read_only_folder_is_refused_and_left_as_it_is(
    open_folder: Path, without_rights: Callable[[], Any], has_database: bool
) -> None:
    if has_database:
        ours(open_folder / "orch.db")
        (open_folder / "orch.db").chmod(0o644)
    before = seen(open_folder)
    open_folder.chmod(0o555)

    with without_rights(), pytest.raises(errors.DatabaseReadOnly, match=r"rights|can write"):
        embedded_orch.open(open_folder / "orch.db")

    open_folder.chmod(0o755)
    assert seen(open_folder) == before


def test_a_read_only_file_is_refused_and_left_as_it_is(
    open_folder: Path, without_rights: Callable[[], Any]
) -> None:
    ours(open_folder / "orch.db")
    (open_folder / "orch.db").chmod(0o444)
    open_folder.chmod(0o777)
    before = seen(open_folder)["orch.db"]

    with without_rights(), pytest.raises(errors.DatabaseReadOnly, match="rights"):
        embedded_orch.open(open_folder / "orch.db")

    assert seen(open_folder)["orch.db"] == before


def test_a_file_that_may_not_be_read_is_refused(
    open_folder: Path, without_rights: Callable[[], Any]
) -> None:
    ours(open_folder / "orch.db")
    (open_folder / "orch.db").chmod(0o000)
    open_folder.chmod(0o777)

    with without_rights(), pytest.raises(errors.DatabaseUnavailable):
        embedded_orch.open(open_folder / "orch.db")


def test_a_copy_without_rights_to_the_folder_says_so(
    open_folder: Path, without_rights: Callable[[], Any], tmp_path: Path
) -> None:
    open_folder.chmod(0o555)

    with (
        embedded_orch.open(":memory:") as orch,
        without_rights(),
        pytest.raises(errors.DatabaseReadOnly, match="can write"),
    ):
        orch.backup(open_folder / "copy.db")


# -- a full disk -----------------------------------------------------------------------------------


@contextmanager
def a_disk_of(pages: int) -> Iterator[None]:
    """Each database that is opened meanwhile can grow to so many pages."""

    def limit(connection: apsw.Connection) -> None:
        connection.pragma("max_page_count", pages)

    apsw.connection_hooks.append(limit)
    try:
        yield
    finally:
        apsw.connection_hooks.remove(limit)


@pytest.fixture(params=["file", "truncate", "memory"])
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[embedded_orch.Orchestrator]:
    """A database on a disk that holds not much more than the schema."""
    url = ":memory:" if request.param == "memory" else tmp_path / "orch.db"
    settings = {"journal": "truncate"} if request.param == "truncate" else {}
    with embedded_orch.open(url, **settings) as orch:
        pages = int(orch.sql("pragma page_count").scalar())
        if request.param == "memory":
            set_size(orch, pages + 20)
            yield orch
            return
    with a_disk_of(pages + 20), embedded_orch.open(url, **settings) as orch:
        yield orch


def run_until_it_is_full() -> None:
    for _ in range(200):
        hello("x" * 2000)


def set_size(orch: embedded_orch.Orchestrator, pages: int) -> None:
    database = orch.database
    assert hasattr(database, "with_connection")
    database.with_connection(lambda connection: connection.pragma("max_page_count", pages))


def test_a_full_disk_is_told_and_what_was_committed_stays(
    small: embedded_orch.Orchestrator,
) -> None:
    hello("before")

    with pytest.raises(errors.DatabaseFull, match="disk is full"):
        run_until_it_is_full()

    # The run that found no room could not record its end either.
    completed = small.flow_runs.count(state_type="COMPLETED")
    assert (
        completed
        == small.sql("select count(*) from flow_run_states where type = 'COMPLETED'").scalar()
    )
    assert completed >= 1
    assert small.sql("pragma integrity_check").scalar() == "ok"


def test_once_there_is_room_again_it_goes_on(small: embedded_orch.Orchestrator) -> None:
    with pytest.raises(errors.DatabaseFull):
        run_until_it_is_full()

    set_size(small, 10_000)

    assert hello("again") == "hello again"


def test_a_session_on_a_full_disk_keeps_nothing_of_its_transaction(
    small: embedded_orch.Orchestrator,
) -> None:
    with small.session() as session:
        session.execute("create table ballast (data blob) strict")

    fill = (
        "with recursive n (i) as (select 1 union all select i + 1 from n where i < 200) "
        "insert into ballast select randomblob(2000) from n"
    )

    with pytest.raises(errors.DatabaseFull), small.session(begin_transaction=True) as session:
        session.execute(fill)

    assert small.sql("select count(*) from ballast").scalar() == 0


def test_a_new_database_on_a_full_disk_can_be_opened_once_there_is_room(tmp_path: Path) -> None:
    with a_disk_of(5), pytest.raises(errors.DatabaseFull, match="disk is full"):
        embedded_orch.open(tmp_path / "orch.db")

    with embedded_orch.open(tmp_path / "orch.db"):
        assert hello("world") == "hello world"


# -- words that mean nothing -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "",
        "   ",
        "sqlite:orch.db",
        "sqlite:///",
        "sqlite:///orch.db?mode=ro",
        "file:orch.db",
        "file:///tmp/orch.db",
        "mysql://host/db",
        "http://example.org/orch.db",
        "postgresql+psycopg://host/db",
        "sqlite+aiosqlite:///orch.db",
        "postgresql://",
        "postgresql://host",
        "postgresql://host:port/db",
        "postgresql://host/db?nonsense=1",
        "folder/",
        "or\0ch.db",
        "or\udcffch.db",
        "~nobody-of-this-name/orch.db",
        b"orch.db",
        7,
    ],
)
def test_a_wrong_url_is_refused_and_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: Any
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(errors.InvalidURL):
        embedded_orch.open(url)

    assert os.listdir(tmp_path) == []


def test_a_relative_path_from_a_folder_that_is_gone_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()

    with pytest.raises(errors.InvalidURL, match="whole path"):
        embedded_orch.open("orch.db")


def test_a_wrong_default_url_is_found_at_the_first_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EMBEDDED_ORCH_URL", "mysql://host/db")

    with pytest.raises(errors.InvalidURL, match="mysql"):
        hello("world")


SETTINGS: list[dict[str, object]] = [
    {"durability": "nonsense"},
    {"durability": "FULL"},
    {"durability": None},
    {"journal": "delete"},
    {"jounral": "wal"},
    {"cache_size": "large"},
    {"cache_size": 0},
    {"cache_size": 10**12},
    {"cache_size": True},
    {"busy_timeout_seconds": -1},
    {"busy_timeout_seconds": float("nan")},
    {"busy_timeout_seconds": float("inf")},
    {"max_readers": 0},
    {"checkpoint_pages": 0},
    {"pool_size": 5},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("kind", ["file", "memory"])
def test_a_wrong_setting_is_named_and_nothing_is_made(
    tmp_path: Path, settings: dict[str, object], kind: str
) -> None:
    url = ":memory:" if kind == "memory" else tmp_path / "orch.db"
    (name,) = settings

    with pytest.raises(errors.ConfigurationError, match=name):
        embedded_orch.open(url, **settings)

    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "settings",
    [
        {"durability": "nonsense"},
        {"journal": "wal"},
        {"pool_size": 0},
        {"pool_size": "many"},
        {"max_overflow": -1},
        {"schema_name": "no good"},
        {"sslmode": "perhaps"},
        {"command_timeout_seconds": 0},
        {"server_settings": {"search_path": "public"}},
    ],
    ids=str,
)
def test_a_wrong_setting_for_postgres_is_named_before_anybody_is_asked(
    settings: dict[str, object],
) -> None:
    (name,) = settings

    with pytest.raises(errors.ConfigurationError, match=name):
        embedded_orch.open("postgresql://user@nowhere.invalid/db", **settings)


def test_settings_that_differ_from_those_it_is_open_with_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "orch.db"
    with (
        embedded_orch.open(path, durability="full"),
        pytest.raises(errors.ConfigurationError, match="durability='full'"),
    ):
        embedded_orch.open(path, durability="normal")


# -- a server that is not there, or not ours -------------------------------------------------------


def test_a_wrong_password_is_told_and_not_shown(postgres_server: PostgresServer) -> None:
    with pytest.raises(errors.AuthenticationFailed) as raised:
        embedded_orch.open(postgres_server.tcp_url(password="not-the-password"))

    assert "not-the-password" not in str(raised.value)
    assert "password" in str(raised.value)


def test_a_server_that_is_down_is_told() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    with pytest.raises(errors.DatabaseUnavailable, match="is the server started"):
        embedded_orch.open(f"postgresql://user@127.0.0.1:{port}/db")


def test_a_database_that_the_server_does_not_have_is_told(postgres_server: PostgresServer) -> None:
    with pytest.raises(errors.DatabaseUnavailable, match="createdb"):
        embedded_orch.open(postgres_server.url("no_such_database"))


def in_schema(url: str, *statements: str) -> list[tuple[Any, ...]]:
    """Run statements in our schema by hand; the rows of the last one."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("set search_path = embedded_orch")
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)
        return cursor.fetchall() if cursor.description is not None else []


TABLES = "select tablename from pg_tables where schemaname = 'embedded_orch' order by 1"


def test_a_schema_of_another_program_is_left_as_it_is(postgres_server: PostgresServer) -> None:
    url = postgres_server.new_database()
    in_schema(url, "create schema embedded_orch", "create table embedded_orch.song (title text)")

    with pytest.raises(errors.NotOurDatabase, match="schema_name"):
        embedded_orch.open(url)

    assert in_schema(url, TABLES) == [("song",)]


def test_a_newer_schema_on_a_server_is_left_as_it_is(postgres_server: PostgresServer) -> None:
    url = postgres_server.new_database()
    embedded_orch.open(url).close()
    in_schema(url, "insert into schema_migration values (999, 'newer', 'x', 1)")
    before = in_schema(url, TABLES)

    with pytest.raises(errors.DatabaseTooNew, match="version 999"):
        embedded_orch.open(url)

    assert in_schema(url, TABLES) == before


def test_a_migration_that_reads_differently_now_is_refused_on_a_server(
    postgres_server: PostgresServer,
) -> None:
    url = postgres_server.new_database()
    embedded_orch.open(url).close()
    in_schema(url, "update schema_migration set checksum = 'another'")

    with pytest.raises(errors.MigrationFailed, match="reads differently"):
        embedded_orch.open(url)
