from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from embedded_orch.db.postgres import answering
from embedded_orch.db.postgres.connecting import begin_statement, connect, is_disconnect, settle
from embedded_orch.db.postgres.options import PostgresOptions, parse
from embedded_orch.errors import DatabaseUnavailable
from tests.postgres_server import PostgresServer

Connection = psycopg.Connection[tuple[Any, ...]]


@contextlib.contextmanager
def connected(
    server: PostgresServer, url: str | None = None, **overrides: object
) -> Iterator[tuple[PostgresOptions, Connection]]:
    options = parse(url or server.url(), **overrides)
    connection = connect(options)
    try:
        yield options, connection
    finally:
        connection.close()


def setting(connection: Connection, name: str) -> object:
    row = connection.execute("SELECT current_setting($1)", [name]).fetchone()
    assert row is not None
    return row[0]


def value(connection: Connection, statement: str, *parameters: object) -> object:
    row = connection.execute(statement.encode(), parameters).fetchone()
    assert row is not None
    return row[0]


# -- The session ---------------------------------------------------------------------------------


def test_the_session_has_the_settings_that_were_asked_for(postgres_server: PostgresServer) -> None:
    with connected(
        postgres_server,
        schema_name="other_schema",
        application_name="night shift",
        command_timeout_seconds=2.5,
        server_settings={"work_mem": "7MB", "jit": False, "random_page_cost": 1.5},
    ) as (_, connection):
        read = {
            name: setting(connection, name)
            for name in ("search_path", "application_name", "statement_timeout", "work_mem", "jit")
        }

        assert read == {
            "search_path": '"other_schema"',
            "application_name": "night shift",
            "statement_timeout": "2500ms",
            "work_mem": "7MB",
            "jit": "off",
        }
        assert setting(connection, "random_page_cost") == "1.5"
        assert setting(connection, "TimeZone") == "UTC"
        assert setting(connection, "client_encoding") == "UTF8"


def test_a_setting_with_quotes_and_backslashes_arrives_as_it_is(
    postgres_server: PostgresServer,
) -> None:
    odd = "it's \\ a 'name'"
    with connected(postgres_server, server_settings={"our.mark": odd}) as (_, connection):
        assert setting(connection, "our.mark") == odd


def test_only_our_schema_and_the_catalog_are_searched(postgres_server: PostgresServer) -> None:
    url, schema = postgres_server.new_schema()
    with connected(postgres_server, url, schema_name=schema) as (_, connection):
        connection.execute("CREATE TABLE here (x int)")

        assert value(connection, "SELECT to_regclass('here')::text") == "here"
        assert value(connection, "SELECT current_schemas(true)") == ["pg_catalog", schema]


def test_no_command_timeout_means_none(postgres_server: PostgresServer) -> None:
    with connected(postgres_server, command_timeout_seconds=None) as (_, connection):
        assert setting(connection, "statement_timeout") == "0"


@pytest.mark.parametrize(
    ("durability", "servers", "expected"),
    [
        ("normal", "on", "on"),
        ("normal", "off", "off"),
        ("full", "off", "on"),
        ("full", "remote_apply", "remote_apply"),
        ("off", "on", "off"),
    ],
)
def test_durability_sets_synchronous_commit(
    postgres_server: PostgresServer, durability: str, servers: str, expected: str
) -> None:
    given = f"{postgres_server.url()}&options=-c%20synchronous_commit%3D{servers}"

    with connected(postgres_server, given, durability=durability) as (_, connection):
        assert setting(connection, "synchronous_commit") == expected


@pytest.mark.parametrize(
    ("arguments", "isolation", "read_only"),
    [
        ({}, "read committed", "off"),
        ({"read_only": True}, "read committed", "on"),
        ({"read_only": True, "one_snapshot": True}, "repeatable read", "on"),
    ],
)
def test_a_transaction_begins_with_its_isolation_said(
    postgres_server: PostgresServer, arguments: dict[str, bool], isolation: str, read_only: str
) -> None:
    serializable = f"{postgres_server.url()}&options=-c%20default_transaction_read_only%3Don"
    with connected(postgres_server, serializable) as (options, connection):
        connection.execute(begin_statement(options, **arguments))

        assert setting(connection, "transaction_isolation") == isolation
        assert setting(connection, "transaction_read_only") == read_only


def test_nothing_begins_a_transaction_unasked(postgres_server: PostgresServer) -> None:
    with connected(postgres_server) as (_, connection):
        connection.execute("SELECT 1")

        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


# -- Prepared statements and poolers -------------------------------------------------------------


def prepared(connection: Connection) -> object:
    return value(connection, "SELECT count(*) FROM pg_prepared_statements")


@pytest.mark.parametrize("off", [0, None])
def test_with_the_cache_off_nothing_is_ever_prepared(
    postgres_server: PostgresServer, off: int | None
) -> None:
    with connected(postgres_server, prepared_statement_cache_size=off) as (_, connection):
        for number in range(20):
            connection.execute("SELECT $1::int", [number])

        assert prepared(connection) == 0


def test_the_cache_keeps_as_many_statements_as_it_may(postgres_server: PostgresServer) -> None:
    with connected(postgres_server, prepared_statement_cache_size=3) as (_, connection):
        for number in range(6):
            for _ in range(4):
                connection.execute(f"SELECT {number} + $1::int".encode(), [1])

        # The statement pushed out last goes with the one that is run next.
        connection.execute("SELECT 1")
        assert prepared(connection) == 3


def test_a_number_is_prepared_once_whatever_its_size(postgres_server: PostgresServer) -> None:
    with connected(postgres_server) as (_, connection):
        for number in (1, 2, 3, 40_000, 3_000_000_000, 1 << 62) * 3:
            assert value(connection, "SELECT $1", number) == number

        counting = "SELECT count(*) FROM pg_prepared_statements WHERE statement = 'SELECT $1'"
        assert value(connection, counting) == 1


def test_behind_a_pooler_settings_last_as_long_as_their_transaction(
    postgres_server: PostgresServer,
) -> None:
    """A pooler hands the server's session to somebody else after each transaction."""
    url, schema = postgres_server.new_schema()
    with connected(
        postgres_server,
        url,
        schema_name=schema,
        prepared_statement_cache_size=0,
        server_settings={"work_mem": "7MB"},
    ) as (options, connection):
        before = setting(connection, "search_path")
        connection.execute(begin_statement(options))
        inside = [setting(connection, name) for name in ("search_path", "work_mem")]
        connection.execute("COMMIT")

        assert inside == [f'"{schema}"', "7MB"]
        assert setting(connection, "search_path") == before
        assert setting(connection, "work_mem") != "7MB"


# -- Values --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("'{\"a\": 1}'::jsonb", '{"a": 1}'),
        ("'{\"a\":1}'::json", '{"a":1}'),
        ("sum(x) FROM (VALUES (9007199254740993::bigint), (-1)) AS v (x)", 9007199254740992),
        ("-7::numeric", -7),
        ("avg(x) FROM (VALUES (1), (2)) AS v (x)", 1.5),
        ("(-9223372036854775808)::bigint", -(1 << 63)),
        ("true", True),
        ("1.5::float8", 1.5),
        ("'\\xff00'::bytea", b"\xff\x00"),
        ("NULL::jsonb", None),
    ],
)
def test_values_come_back_as_the_data_layer_wants_them(
    postgres_server: PostgresServer, expression: str, expected: object
) -> None:
    with connected(postgres_server) as (_, connection):
        found = value(connection, f"SELECT {expression}")

        assert found == expected
        assert type(found) is type(expected)


def test_ids_json_and_bytes_go_in_and_come_out(postgres_server: PostgresServer) -> None:
    url, schema = postgres_server.new_schema()
    given = (uuid.uuid4(), '{"n": 1}', b"\0\1", 1 << 40, None, True, 0.1, "texté")
    with connected(postgres_server, url, schema_name=schema) as (_, connection):
        connection.execute(
            "CREATE TABLE t (a uuid, b jsonb, c bytea, d bigint, e text, f boolean, g float8,"
            " h text)"
        )
        for _ in range(4):
            row = connection.execute(
                "INSERT INTO t VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING *", given
            ).fetchone()

            assert row == given


# -- TLS -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def tls_in_front_of(server: PostgresServer, folder: Path) -> Iterator[tuple[int, Path]]:
    """One TLS connection to a server that speaks none: its port, and the certificate to trust."""
    certificate, key = folder / "server.pem", folder / "server.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-out", str(certificate), "-keyout", str(key)),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def forward(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def serve(listener: socket.socket) -> None:
        plain, _ = listener.accept()
        # An SSLRequest: length 8, code 80877103. "S" agrees to TLS.
        assert plain.recv(8)[4:] == (80877103).to_bytes(4, "big")
        plain.sendall(b"S")
        try:
            outer = context.wrap_socket(plain, server_side=True)
        except (ssl.SSLError, OSError):
            plain.close()
            return
        with outer, socket.create_connection(("127.0.0.1", server.port)) as inner:
            back = threading.Thread(target=forward, args=(inner, outer))
            back.start()
            forward(outer, inner)
            back.join()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            yield listener.getsockname()[1], certificate
        finally:
            thread.join(timeout=20)


needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="makes its certificate with the openssl command"
)


@needs_openssl
@pytest.mark.parametrize("place", ["url", "argument"])
def test_a_trusted_certificate_is_verified_in_full(
    postgres_server: PostgresServer, tmp_path: Path, place: str
) -> None:
    with tls_in_front_of(postgres_server, tmp_path) as (port, certificate):
        url = postgres_server.tcp_url().replace(
            f"127.0.0.1:{postgres_server.port}", f"localhost:{port}"
        )
        # One address only: the proxy serves one connection.
        url += "?hostaddr=127.0.0.1"
        arguments: dict[str, object] = {"sslmode": "verify-full", "sslrootcert": certificate}
        if place == "url":
            url += f"&sslmode=verify-full&sslrootcert={certificate}"
            arguments = {}
        with connected(postgres_server, url, **arguments) as (_, connection):
            assert connection.pgconn.ssl_in_use
            assert value(connection, "SELECT 1") == 1


@needs_openssl
def test_a_certificate_that_nobody_vouches_for_is_refused(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    with tls_in_front_of(postgres_server, tmp_path) as (port, _):
        url = postgres_server.tcp_url().replace(
            f"127.0.0.1:{postgres_server.port}", f"localhost:{port}"
        )
        options = parse(f"{url}?hostaddr=127.0.0.1", sslmode="verify-full", sslrootcert="system")

        with pytest.raises(DatabaseUnavailable, match="check sslmode and the sslrootcert file"):
            connect(options)


@pytest.mark.parametrize("limits_of_driver", [1, 2], ids=["psycopg 3.2", "psycopg 3.3"])
def test_an_answer_is_not_waited_for_longer_than_was_asked(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch, limits_of_driver: int
) -> None:
    monkeypatch.setattr(answering, "_LIMITS_OF_WAIT", limits_of_driver)
    options = parse(postgres_server.url(), command_timeout_seconds=600)
    connection = connect(options)
    try:
        with (
            answering.answering_within(connection, 0.2),
            pytest.raises(psycopg.OperationalError, match=r"no answer|timeout expired") as raised,
        ):
            connection.execute("select pg_sleep(60)")

        assert is_disconnect(raised.value, connection)
        assert not settle(connection)
    finally:
        connection.close()
