from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from embedded_orch.db.postgres.options import PostgresOptions, parse
from embedded_orch.errors import ConfigurationError, InvalidURL

SECRET = "s3cr3t"
PLAIN = f"postgresql://ann:{SECRET}@db.example:5433/flows"


def keywords_of(url: str, **overrides: object) -> dict[str, str]:
    return parse(url, **overrides).keywords()


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_a_url_is_read_as_libpq_reads_it(scheme: str) -> None:
    found = keywords_of(f"{scheme}://ann:{SECRET}@db.example:5433/flows")

    expected = {
        "user": "ann",
        "password": SECRET,
        "host": "db.example",
        "port": "5433",
        "dbname": "flows",
    }
    assert expected.items() <= found.items()


@pytest.mark.parametrize(
    ("url", "keyword", "value"),
    [
        ("postgresql://h1:1,h2:2/d?target_session_attrs=read-write", "host", "h1,h2"),
        ("postgresql://h1:1,h2:2/d?target_session_attrs=read-write", "port", "1,2"),
        ("postgresql:///d?host=/run/pg", "host", "/run/pg"),
        ("postgresql://ann@%2Frun%2Fpg/d", "host", "/run/pg"),
        ("postgresql://ann:p%40s%2Fs@h/d", "password", "p@s/s"),
        ("postgresql://ann:p?w#x@h/d", "password", "p?w#x"),
        ("postgresql://[::1]:5432/d", "host", "::1"),
        ("postgresql://h/d?options=-c%20geqo%3Doff", "options", "-c geqo=off"),
        ("postgresql://h/d?ssl=true", "sslmode", "require"),
        ("postgresql://h/d?keepalives_idle=77", "keepalives_idle", "77"),
        ("postgresql://h/?dbname=d", "dbname", "d"),
    ],
)
def test_what_libpq_takes_in_a_url_arrives(url: str, keyword: str, value: str) -> None:
    assert keywords_of(url)[keyword] == value


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "expected postgresql://"),
        ("flows", "expected postgresql://"),
        (f"ann:{SECRET}@h/d", "expected postgresql://"),
        ("mysql://ann@h/d", "'mysql' is not the scheme"),
        (f"{SECRET}@h://d", "this is not the scheme"),
        ("postgresql+asyncpg://ann@h/d", r"leave out '\+asyncpg'"),
        (f"postgresql://ann:x@{SECRET}@h/d", "an @ too many"),
        (f"postgresql://ann:{SECRET}/x@h/d", "an @ too many"),
        (f"postgresql://ann:12/{SECRET}@h/d", "an @ too many"),
        (f"postgresql://ann:%zz{SECRET}@h/d", "cannot read"),
        (f"postgresql://ann:{SECRET}@[::1]x/d", "cannot read"),
        (f"postgresql://ann:{SECRET} x@h/d", "white space"),
        (f"postgresql://ann:{SECRET}@h/d\0e", "control character"),
        (f"postgresql://ann:{SECRET}@h:port/d", "port is not a number"),
        (f"postgresql://ann:{SECRET}@h:70000/d", "port is not a number"),
        (f"postgresql://ann:{SECRET}@h", "names no database"),
        ("postgresql://", "names no database"),
        ("postgresql://h/d?pool_size=3", "give it as an argument, pool_size="),
        ("postgresql://h/d?colour=3", "does not know: 'colour'"),
        (f"postgresql://h/d?password=x&{SECRET}=1", "does not know$"),
        ("postgresql://h/d?sslmode", "cannot read"),
        ("postgresql://h/d?connect_timeout=soon", "seconds above 0"),
        ("postgresql://h/d?connect_timeout=0", "seconds above 0"),
        (7, "got int"),
    ],
)
def test_a_wrong_url_is_refused_without_showing_its_password(url: str, says: str) -> None:
    with pytest.raises(InvalidURL, match=says) as caught:
        parse(url)

    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert SECRET not in str(caught.value.__context__)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (PLAIN, "postgresql://ann:***@db.example:5433/flows"),
        ("postgresql://ann@h/d", "postgresql://ann@h/d"),
        (f"postgresql://ann:{SECRET}?x#y@h/d", "postgresql://ann:***@h/d"),
        (f"postgresql://h/d?password={SECRET}&user=ann", "postgresql://h/d?password=***&user=ann"),
        (f"postgresql://h/d?pass%77ord={SECRET}", "postgresql://h/d?pass%77ord=***"),
        (f"postgresql://h/d?sslpassword={SECRET}", "postgresql://h/d?sslpassword=***"),
    ],
)
def test_the_password_is_masked_wherever_options_are_shown(url: str, shown: str) -> None:
    options = parse(url)

    assert options.safe_url == shown
    assert shown in repr(options)
    assert SECRET not in repr(options)
    assert SECRET not in f"{options} {options.__rich_repr__()}"


@pytest.mark.parametrize(
    ("in_url", "argument", "value"),
    [
        ("sslmode=verify-full", "sslmode", "verify-full"),
        ("sslrootcert=/ca.pem", "sslrootcert", "/ca.pem"),
        ("sslcert=/our.pem", "sslcert", "/our.pem"),
        ("sslkey=/our.key", "sslkey", "/our.key"),
        ("application_name=night", "application_name", "night"),
        ("connect_timeout=7", "connect_timeout_seconds", 7.0),
    ],
)
def test_url_and_argument_say_the_same_or_one_is_silent(
    in_url: str, argument: str, value: object
) -> None:
    from_url = parse(f"postgresql://h/d?{in_url}")
    from_argument = parse("postgresql://h/d", **{argument: value})
    from_both = parse(f"postgresql://h/d?{in_url}", **{argument: value})

    assert getattr(from_url, argument) == value
    assert from_url.keywords() == from_argument.keywords() == from_both.keywords()


@pytest.mark.parametrize(
    ("in_url", "arguments"),
    [
        ("sslmode=require", {"sslmode": "verify-full"}),
        ("application_name=night", {"application_name": "day"}),
        ("connect_timeout=7", {"connect_timeout_seconds": 8}),
    ],
)
def test_url_and_argument_that_disagree_are_refused(
    in_url: str, arguments: dict[str, object]
) -> None:
    with pytest.raises(ConfigurationError, match="leave one of them out"):
        parse(f"postgresql://h/d?{in_url}", **arguments)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"poolsize": 3}, "unknown option 'poolsize'.*known: schema_name, pool_size"),
        ({"pool_size": 0}, "pool_size=0: at least 1"),
        ({"pool_size": "5"}, "Expected `int`, got `str` - at `\\$.pool_size`"),
        ({"max_overflow": -1}, "max_overflow=-1"),
        ({"pool_wait_seconds": -1}, "pool_wait_seconds"),
        ({"recycle_seconds": 0}, "recycle_seconds=0"),
        ({"command_timeout_seconds": 0}, "command_timeout_seconds=0"),
        ({"connect_timeout_seconds": -2}, "connect_timeout_seconds=-2"),
        ({"prepared_statement_cache_size": -1}, "prepared_statement_cache_size"),
        ({"durability": "high"}, "one of normal, full, off"),
        ({"sslmode": "on"}, "one of disable, allow, prefer, require, verify-ca, verify-full"),
        ({"schema_name": "pg_flows"}, "belongs to Postgres"),
        ({"schema_name": "Flows"}, "lower-case"),
        ({"schema_name": 'x"; drop schema public'}, "lower-case"),
        ({"schema_name": "x" * 64}, "1 to 63"),
        ({"schema_name": ""}, "1 to 63"),
        ({"server_settings": {"Search_Path": "x"}}, "use schema_name="),
        ({"server_settings": {"statement_timeout": 1}}, "use command_timeout_seconds="),
        ({"server_settings": {"work_mem": "1\0"}}, "NUL"),
        ({"server_settings": {"work_mem": None}}, "server_settings"),
    ],
)
def test_an_argument_that_cannot_be_is_named(overrides: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        parse("postgresql://h/d", **overrides)


def test_a_url_with_the_wrong_sslmode_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="sslmode='maybe': one of disable"):
        parse("postgresql://h/d?sslmode=maybe")


def test_options_made_without_parse_are_checked_too() -> None:
    with pytest.raises(InvalidURL, match="is not the scheme"):
        PostgresOptions(url="mysql://h/d")
    with pytest.raises(ConfigurationError, match="pool_size=0"):
        msgspec.structs.replace(PostgresOptions(url="postgresql://h/d"), pool_size=0)


def test_a_silent_peer_is_noticed_within_the_command_timeout() -> None:
    found = keywords_of("postgresql://h/d", command_timeout_seconds=20.5)

    assert found["tcp_user_timeout"] == "21000"
    assert found["keepalives_idle"] == "21"


@pytest.mark.parametrize(("seconds", "libpq_seconds"), [(0.2, "2"), (5, "5"), (5.5, "6")])
def test_the_connect_timeout_is_rounded_up_to_what_libpq_can(
    seconds: float, libpq_seconds: str
) -> None:
    found = keywords_of("postgresql://h/d", connect_timeout_seconds=seconds)

    assert found["connect_timeout"] == libpq_seconds


def test_a_missing_psycopg_says_which_extra_to_install() -> None:
    program = """
import sys
sys.modules["psycopg"] = None
from embedded_orch.db.postgres.options import parse
from embedded_orch.errors import MissingExtra
try:
    parse("postgresql://h/d")
except MissingExtra as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )

    assert "pip install 'embedded_orch[postgres]'" in done.stdout


def test_the_modules_load_no_psycopg_before_a_url_is_given() -> None:
    program = """
import sys
import embedded_orch.db.postgres.options, embedded_orch.db.postgres.connecting
import embedded_orch.db.postgres.failures, embedded_orch.db.postgres.pool
print(sorted({"psycopg", "asyncio", "logging"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout.strip() == "[]"
