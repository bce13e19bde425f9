from __future__ import annotations

import re
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from embedded_orch.db.postgres.connecting import (
    begin_statement,
    connect,
    is_disconnect,
    is_retryable,
    translate,
)
from embedded_orch.db.postgres.options import PostgresOptions, parse
from embedded_orch.errors import (
    AuthenticationFailed,
    CommitOutcomeUnknown,
    ConfigurationError,
    ConstraintViolated,
    DatabaseBusy,
    DatabaseDamaged,
    DatabaseError,
    DatabaseFull,
    DatabaseReadOnly,
    DatabaseUnavailable,
    StatementRefused,
    TransactionFailed,
)
from tests.postgres_server import PostgresServer

Connection = psycopg.Connection[tuple[Any, ...]]


class Session:
    """A connection in a schema of its own that reports errors as the database object does."""

    def __init__(self, server: PostgresServer, **overrides: object) -> None:
        url, self.schema = server.new_schema()
        self.options = parse(url, schema_name=self.schema, **overrides)
        self.connections: list[Connection] = []

    def open(self) -> Connection:
        connection = connect(self.options)
        self.connections.append(connection)
        return connection

    def error_of(self, action: Callable[[], object]) -> DatabaseError:
        with pytest.raises(psycopg.Error) as caught:
            action()
        return translate(caught.value, self.options)


@pytest.fixture
def session(postgres_server: PostgresServer) -> Iterator[Session]:
    made = Session(postgres_server)
    yield made
    for connection in made.connections:
        connection.close()


def refusal(options: PostgresOptions) -> DatabaseUnavailable:
    with pytest.raises(DatabaseUnavailable) as caught:
        connect(options)
    assert isinstance(caught.value.__cause__, psycopg.Error)
    return caught.value


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# -- Connecting ----------------------------------------------------------------------------------


def test_a_wrong_password_is_said_and_not_shown(postgres_server: PostgresServer) -> None:
    error = refusal(parse(postgres_server.tcp_url(password="s3cr3t")))

    assert isinstance(error, AuthenticationFailed)
    assert "check user and password" in str(error)
    assert "orchestra:***@127.0.0.1" in str(error)
    assert "s3cr3t" not in f"{error} {error.__cause__}"


def test_a_missing_password_says_where_one_may_stand(postgres_server: PostgresServer) -> None:
    url = postgres_server.tcp_url().replace(f":{postgres_server.password}@", "@")

    error = refusal(parse(url))

    assert isinstance(error, AuthenticationFailed)
    assert "PGPASSWORD" in str(error)


def test_an_unknown_user_is_an_authentication_error(postgres_server: PostgresServer) -> None:
    url = postgres_server.url().replace("postgres@", "stranger@")

    error = refusal(parse(url))

    assert isinstance(error, AuthenticationFailed)
    assert 'role "stranger" does not exist' in str(error)


def test_an_unknown_database_says_to_create_it(postgres_server: PostgresServer) -> None:
    error = refusal(parse(postgres_server.url("nowhere")))

    assert 'database "nowhere" does not exist' in str(error)
    assert "createdb" in str(error)


def test_a_server_that_is_down_is_unavailable() -> None:
    error = refusal(parse(f"postgresql://ann@127.0.0.1:{unused_port()}/d"))

    assert "is the server started" in str(error)


def test_a_missing_socket_is_unavailable(tmp_path: object) -> None:
    error = refusal(parse(f"postgresql:///d?host={tmp_path}"))

    assert "is the server started" in str(error)


def test_an_unknown_host_is_named() -> None:
    error = refusal(parse("postgresql://ann@no-such-host.invalid/d"))

    assert "no-such-host.invalid" in str(error)
    assert "check its spelling" in str(error)


def test_a_server_that_never_answers_is_given_up() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]

        error = refusal(parse(f"postgresql://ann@127.0.0.1:{port}/d", connect_timeout_seconds=2))

    assert "no answer in time" in str(error)


def test_too_many_connections_says_which_options_to_lower(postgres_server: PostgresServer) -> None:
    name = f"limited_{uuid.uuid4().hex}"
    postgres_server.administration.execute(f"CREATE ROLE {name} LOGIN CONNECTION LIMIT 0")

    error = refusal(parse(postgres_server.url().replace("postgres@", f"{name}@")))

    assert "lower pool_size and max_overflow" in str(error)


def test_a_user_without_the_right_to_connect_is_told(postgres_server: PostgresServer) -> None:
    name = f"barred_{uuid.uuid4().hex}"
    postgres_server.administration.execute(f"CREATE ROLE {name} LOGIN")
    url = postgres_server.new_database()
    database = parse(url).keywords()["dbname"]
    postgres_server.administration.execute(f"REVOKE CONNECT ON DATABASE {database} FROM PUBLIC")

    error = refusal(parse(url.replace("postgres@", f"{name}@")))

    assert isinstance(error, AuthenticationFailed)
    assert "GRANT CONNECT" in str(error)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"sslmode": "require"}, "server does not support SSL"),
        ({"sslmode": "verify-full", "sslrootcert": "/nowhere/ca.pem"}, "check sslmode"),
    ],
)
def test_tls_that_cannot_be_had_is_not_done_without(
    postgres_server: PostgresServer, arguments: dict[str, str], says: str
) -> None:
    error = refusal(parse(postgres_server.tcp_url(), **arguments))

    assert says in str(error)
    assert "check sslmode and the sslrootcert file" in str(error)


def test_a_standby_is_not_taken_for_a_primary(postgres_server: PostgresServer) -> None:
    error = refusal(parse(f"{postgres_server.url()}&target_session_attrs=standby"))

    assert "check target_session_attrs" in str(error)


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ("FATAL:  sorry, too many clients already", DatabaseUnavailable, "lower pool_size"),
        ("FATAL:  the database system is starting up", DatabaseUnavailable, "in a moment"),
        ('FATAL:  no pg_hba.conf entry for host "h"', AuthenticationFailed, "pg_hba.conf"),
        ("SSL error: certificate verify failed", DatabaseUnavailable, "check sslmode"),
        ("FATAL:  Passwort-Authentifizierung fehlgeschlagen", DatabaseUnavailable, "no connection"),
    ],
)
def test_other_refusals_are_told_by_their_text(
    text: str, kind: type[DatabaseError], says: str
) -> None:
    options = parse("postgresql://ann@h/d")

    error = translate(psycopg.OperationalError(f"connection failed: {text}\n"), options)

    assert type(error) is kind
    assert says in str(error)
    assert "postgresql://ann@h/d" in str(error)


@pytest.mark.parametrize(
    "settings", [{"work_memory": "1MB"}, {"work_mem": "much"}, {"max_connections": 5}]
)
def test_a_setting_that_the_server_refuses_is_a_configuration_error(
    postgres_server: PostgresServer, settings: dict[str, object]
) -> None:
    options = parse(postgres_server.url(), server_settings=settings)

    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        connect(options)


# -- Statements ----------------------------------------------------------------------------------

_TABLES = """
CREATE TABLE parent (id bigint PRIMARY KEY, name text NOT NULL UNIQUE CHECK (name <> 'bad'));
CREATE TABLE child (parent_id bigint REFERENCES parent (id));
INSERT INTO parent VALUES (1, 'one');
"""


@pytest.mark.parametrize(
    ("statement", "kind", "says"),
    [
        ("INSERT INTO parent VALUES (2, 'one')", ConstraintViolated, r"\(name\)=\(one\)"),
        ("INSERT INTO parent VALUES (2, NULL)", ConstraintViolated, "not-null"),
        ("INSERT INTO parent VALUES (2, 'bad')", ConstraintViolated, "parent_name_check"),
        ("INSERT INTO child VALUES (7)", ConstraintViolated, r"\(parent_id\)=\(7\)"),
        ("SELEC 1", StatementRefused, "syntax error"),
        ("SELECT * FROM nothing", StatementRefused, "embedded-orch db upgrade"),
        ("SELECT nothing FROM parent", StatementRefused, '"nothing" does not exist'),
        ("SELECT 1 / 0", StatementRefused, "division by zero"),
        ("SELECT 99999999999::int", StatementRefused, "out of range"),
        ("CREATE TABLE nowhere.x (y int)", StatementRefused, "schema is not there"),
        ("SET LOCAL transaction_isolation TO 'odd'", StatementRefused, "odd"),
    ],
)
def test_a_refused_statement_says_why(
    session: Session, statement: str, kind: type[DatabaseError], says: str
) -> None:
    connection = session.open()
    connection.execute(_TABLES.encode())

    error = session.error_of(lambda: connection.execute(statement.encode()))

    assert type(error) is kind
    assert re.search(says, str(error)), str(error)
    assert isinstance(error.__cause__, psycopg.Error)
    assert not is_disconnect(error, connection)


@pytest.mark.parametrize(
    ("state", "kind", "is_worth_a_retry", "is_lost"),
    [
        ("40001", TransactionFailed, True, False),
        ("40P01", TransactionFailed, True, False),
        ("40003", CommitOutcomeUnknown, False, False),
        ("53100", DatabaseFull, False, False),
        ("53200", DatabaseUnavailable, False, False),
        ("25006", DatabaseReadOnly, False, False),
        ("25P03", TransactionFailed, False, True),
        ("26000", StatementRefused, False, False),
        ("28P01", AuthenticationFailed, False, False),
        ("42501", DatabaseUnavailable, False, False),
        ("42P05", StatementRefused, False, False),
        ("55P03", DatabaseBusy, False, False),
        ("57014", TransactionFailed, False, False),
        ("57P01", DatabaseUnavailable, False, True),
        ("58030", DatabaseUnavailable, False, False),
        ("08006", DatabaseUnavailable, False, True),
        ("XX001", DatabaseDamaged, False, False),
        ("XX002", DatabaseDamaged, False, False),
        ("0A000", StatementRefused, False, False),
        ("ZZ123", DatabaseError, False, False),
    ],
)
def test_each_sqlstate_has_its_exception(
    session: Session,
    state: str,
    kind: type[DatabaseError],
    is_worth_a_retry: bool,
    is_lost: bool,
) -> None:
    connection = session.open()
    raising = f"DO $$ BEGIN RAISE EXCEPTION 'as if' USING ERRCODE = '{state}'; END $$"

    error = session.error_of(lambda: connection.execute(raising.encode()))

    assert type(error) is kind
    assert "as if" in str(error)
    assert is_retryable(error) is is_worth_a_retry
    assert is_disconnect(error) is is_lost


def test_a_failing_check_does_not_print_the_row(session: Session) -> None:
    connection = session.open()
    connection.execute(_TABLES.encode())

    error = session.error_of(
        lambda: connection.execute("INSERT INTO parent VALUES ($1, 'bad')", [4711])
    )

    assert "4711" not in str(error)


def test_a_statement_longer_than_the_limit_is_stopped(postgres_server: PostgresServer) -> None:
    session = Session(postgres_server, command_timeout_seconds=0.05)
    with session.open() as connection:
        error = session.error_of(lambda: connection.execute("SELECT pg_sleep(30)"))

        assert type(error) is TransactionFailed
        assert "command_timeout_seconds=0.05" in str(error)
        assert not is_disconnect(error, connection)


def test_a_write_in_a_read_only_transaction_is_refused(session: Session) -> None:
    connection = session.open()
    connection.execute(begin_statement(session.options, read_only=True))

    error = session.error_of(lambda: connection.execute("CREATE TABLE x (y int)"))

    assert type(error) is DatabaseReadOnly


def test_values_that_do_not_go_with_the_statement_are_refused(session: Session) -> None:
    connection = session.open()

    error = session.error_of(lambda: connection.execute("SELECT $1::int, $2::int", [1]))

    assert isinstance(error, StatementRefused)


def test_a_terminated_session_is_a_disconnect(
    session: Session, postgres_server: PostgresServer
) -> None:
    connection = session.open()
    postgres_server.administration.execute(
        "SELECT pg_terminate_backend(%s, 5000)", [connection.info.backend_pid]
    )

    error = session.error_of(lambda: connection.execute("SELECT 1"))

    assert type(error) is DatabaseUnavailable
    assert is_disconnect(error, connection)
    assert is_disconnect(error)
    assert not is_retryable(error)


def test_a_closed_connection_is_a_disconnect(session: Session) -> None:
    connection = session.open()
    connection.close()

    error = session.error_of(lambda: connection.execute("SELECT 1"))

    assert type(error) is DatabaseUnavailable
    assert is_disconnect(error)


def test_a_serialization_failure_may_be_retried(session: Session) -> None:
    first, second = session.open(), session.open()
    first.execute(_TABLES.encode())
    change = b"UPDATE parent SET name = name || 'x'"
    first.execute(begin_statement(session.options, one_snapshot=True))
    first.execute("SELECT * FROM parent")
    second.execute(change)

    error = session.error_of(lambda: first.execute(change))

    assert type(error) is TransactionFailed
    assert is_retryable(error)


def test_a_deadlock_may_be_retried(session: Session) -> None:
    first, second = session.open(), session.open()
    first.execute(_TABLES.encode())
    first.execute("INSERT INTO parent VALUES (2, 'two')")
    lock = "SELECT name FROM parent WHERE id = $1 FOR UPDATE"
    for connection, row in ((first, 1), (second, 2)):
        connection.execute("SET deadlock_timeout = '10ms'")
        connection.execute(begin_statement(session.options))
        connection.execute(lock, [row])
    failures: list[psycopg.Error] = []

    def lock_other(connection: Connection, row: int) -> None:
        try:
            connection.execute(lock, [row])
        except psycopg.Error as error:
            failures.append(error)
        connection.execute("ROLLBACK")

    threads = [
        threading.Thread(target=lock_other, args=arguments)
        for arguments in ((first, 2), (second, 1))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)

    (failure,) = failures
    assert type(translate(failure, session.options)) is TransactionFailed
    assert is_retryable(failure)


def test_a_plan_outdated_by_a_migration_may_be_retried(session: Session) -> None:
    connection = session.open()
    connection.execute(_TABLES.encode())
    reading = b"SELECT * FROM parent"
    for _ in range(4):
        connection.execute(reading)
    connection.execute(begin_statement(session.options))
    session.open().execute("ALTER TABLE parent ADD COLUMN more int")

    error = session.error_of(lambda: connection.execute(reading))
    connection.execute("ROLLBACK")

    assert is_retryable(error)
    assert connection.execute(reading).fetchall() == [(1, "one", None)]


def test_what_is_no_error_of_the_driver_is_neither_lost_nor_retryable() -> None:
    assert not is_disconnect(ValueError())
    assert not is_retryable(ValueError())
