"""What is asked of a Postgres server, read from a URL and from arguments, and checked once.

``parse`` reads the URL with libpq's own parser, so that everything libpq takes in
a URL works here too (several hosts, Unix sockets, ``target_session_attrs`` and the rest). Before
that it refuses the URLs that libpq would misread without a word: a password with an unescaped
``/`` or ``@`` becomes part of the host or port there, and then shows up in error messages.

A setting that can stand in the URL and in an argument may stand in both only with one value.
Nothing here shows a password: not an error, not ``repr()``, not ``safe_url``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast

import msgspec

from embedded_orch.errors import ConfigurationError, InvalidURL, MissingExtra
from embedded_orch.values.places import LARGEST_INSIDE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from os import PathLike

_EXPECTED = "expected postgresql://user:password@host:5432/database"
_ESCAPES = "a character of a user name or password that means something in a URL is written as a"
_ADVICE = f"{_ESCAPES} percent code: @ as %40, / as %2F, : as %3A, % as %25"

_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_DURABILITIES = ("normal", "full", "off")

# What libpq takes in a URL and we take as an argument too, by both names.
_IN_URL_AND_ARGUMENT = {
    "sslmode": "sslmode",
    "sslrootcert": "sslrootcert",
    "sslcert": "sslcert",
    "sslkey": "sslkey",
    "application_name": "application_name",
    "connect_timeout": "connect_timeout_seconds",
}
_SECRETS = frozenset(
    {"oauth_client_secret", "password", "scram_client_key", "scram_server_key", "sslpassword"}
)
# Settings of the server that have an option of their own, or that we rely on as they are.
_OWN_SETTINGS = {
    "application_name": "use application_name=",
    "client_encoding": "it is always UTF8",
    "default_transaction_isolation": "transactions state their isolation themselves",
    "search_path": "use schema_name=",
    "standard_conforming_strings": "it is always on",
    "statement_timeout": "use command_timeout_seconds=",
    "synchronous_commit": "use durability=",
    "timezone": "it is always UTC",
}
_LEAST = (
    ("pool_size", 1),
    ("max_overflow", 0),
    ("pool_wait_seconds", 0),
    ("ping_after_idle_seconds", 0),
    ("reconnect_seconds", 0),
    ("prepared_statement_cache_size", 0),
    ("lease_seconds", 1),
)
_LONGEST_IDENTIFIER = 63
_LARGEST_PORT = 65535
# Bytes; a column holds no more.
_LARGEST_VALUE = 2**30
# Below this the kernel's own retransmissions look like a dead peer.
_LEAST_PEER_SECONDS = 10
# How much later than the server's own limit an answer may come, at most.
_ON_ITS_WAY_SECONDS = 5.0


class PostgresOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach a Postgres database, and how many connections to hold to it.

    Attributes:
        url: the URL as it was given, with its password.
        schema_name: where our tables live; lower-case letters, digits and ``_``.
        pool_size: connections that stay open while nobody uses them.
        max_overflow: connections beyond those, closed when they come back.
        pool_wait_seconds: how long a caller waits for a connection when all are in use.
        recycle_seconds: the age at which an idle connection is replaced; None for never.
        pre_ping: whether a connection is looked at before it is handed out.
        ping_after_idle_seconds: a connection used more recently than this is only asked whether
            its socket has news (about 1 us; notices a server that ended the connection); after
            a longer rest it makes a round trip. 0 makes the round trip always.
        connect_timeout_seconds: per address of the host; libpq counts whole seconds, 2 at least.
        command_timeout_seconds: the server stops a statement after this; None for never. It also
            sets how long the kernel waits for a peer that has gone silent, 10 seconds at least. A
            statement that has no answer as long again after that, 5 seconds at most, is given up
            with its connection.
        reconnect_seconds: how long a server that is away is waited for, once the database was open:
            from the moment at which the first caller noticed. 0 to wait for nothing.
        prepared_statement_cache_size: statements kept prepared on each connection. 0 or None
            prepares nothing and keeps no setting in the session, as PgBouncer's transaction
            pooling needs it: settings then travel with each BEGIN.
        durability: ``"normal"`` leaves ``synchronous_commit`` as the server has it, which is on
            unless its owner changed it: a commit is on disk when it returns. ``"full"`` turns it
            on where it is off. ``"off"`` answers before the commit is on disk: a crash of the
            server loses up to the last three ``wal_writer_delay`` (0.6 s), in order and whole.
        lease_seconds: how long other hosts believe that this process lives without having heard
            of it. It says so four times as often, and every 15 seconds at least.
        application_name: what ``pg_stat_activity`` shows.
        server_settings: further settings of the session, such as ``{"work_mem": "16MB"}``.
        sslmode: as libpq knows it; None leaves libpq's default (``prefer``).
        sslrootcert: file with the certificates to trust, or ``"system"``.
        sslcert: file with our certificate.
        sslkey: file with its key.
        result_folder: a folder for results that are too large for rows, the same for everybody who
            uses the database; without one every result is in its row. The default may come from
            ``EMBEDDED_ORCH_RESULT_FOLDER``.
        inline_result_bytes: with such a folder, the largest result that stays in its row.
    """

    url: str
    schema_name: str = "embedded_orch"
    pool_size: int = 5
    max_overflow: int = 10
    pool_wait_seconds: float = 30.0
    recycle_seconds: float | None = 3600.0
    pre_ping: bool = True
    ping_after_idle_seconds: float = 5.0
    connect_timeout_seconds: float = 5.0
    command_timeout_seconds: float | None = 10.0
    reconnect_seconds: float = 30.0
    prepared_statement_cache_size: int | None = 100
    durability: str = "normal"
    lease_seconds: float = 60.0
    application_name: str = "embedded_orch"
    server_settings: dict[str, str | int | float | bool] = {}
    sslmode: str | None = None
    sslrootcert: str | None = None
    sslcert: str | None = None
    sslkey: str | None = None
    result_folder: str | None = None
    inline_result_bytes: int = LARGEST_INSIDE

    def __post_init__(self) -> None:
        _check_form(self.url)
        for problem in (*_range_problems(self), *_setting_problems(self)):
            raise ConfigurationError(problem)

    @property
    def safe_url(self) -> str:
        """The URL with its secrets masked, to be shown and logged."""
        scheme, credentials, hosts, path, query = _split(self.url)
        user, colon, _ = credentials.rstrip("@").partition(":")
        shown = f"{user}:***@" if colon else credentials
        return f"{scheme}://{shown}{hosts}{path}{_masked_query(query)}"

    @property
    def settles_each_transaction(self) -> bool:
        """Whether settings travel with each BEGIN, since the session may be another one then."""
        return not self.prepared_statement_cache_size

    @property
    def commits_alone(self) -> bool:
        """Whether a statement needs no BEGIN, because the session has said what that says."""
        is_read_write = "default_transaction_read_only" not in self.server_settings
        return is_read_write and not self.settles_each_transaction

    @property
    def most_connections(self) -> int:
        """How many connections this process opens at most."""
        return self.pool_size + self.max_overflow

    @property
    def answer_seconds(self) -> float | None:
        """After how long without an answer a connection is given up; None for never."""
        limit = self.command_timeout_seconds
        return None if limit is None else limit + min(limit, _ON_ITS_WAY_SECONDS)

    def keywords(self) -> dict[str, str]:
        """The connection in libpq's keywords, with its secrets."""
        peer_seconds = _whole(self.command_timeout_seconds or 30, least=_LEAST_PEER_SECONDS)
        defaults = {
            # A peer that went away without a word is noticed by the kernel, after peer_seconds
            # if it owes us an acknowledgement, and by probes when it only owes us an answer.
            "keepalives": "1",
            "keepalives_idle": str(peer_seconds),
            "keepalives_interval": str(max(1, peer_seconds // 3)),
            "keepalives_count": "3",
            "tcp_user_timeout": str(peer_seconds * 1000),
            # psycopg's own binary warns when GSSAPI encryption happens by libpq's default.
            "gssencmode": os.environ.get("PGGSSENCMODE", "disable"),
        }
        asked = {
            "application_name": self.application_name,
            "client_encoding": "UTF8",
            "connect_timeout": str(_whole(self.connect_timeout_seconds, least=2)),
            "sslmode": self.sslmode,
            "sslrootcert": self.sslrootcert,
            "sslcert": self.sslcert,
            "sslkey": self.sslkey,
        }
        given = {name: value for name, value in asked.items() if value is not None}
        return {**defaults, **_read(self.url), **given}

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"PostgresOptions({shown})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """What rich and :func:`repr` show: the fields, with the masked URL."""
        others = [(name, getattr(self, name)) for name in self.__struct_fields__[1:]]
        return [("url", self.safe_url), *others]


def parse(url: str, **overrides: object) -> PostgresOptions:
    """The options that a URL and arguments ask for together.

    Args:
        url: ``postgresql://`` or ``postgres://``, with any query parameters of libpq.
        overrides: the other attributes of :class:`PostgresOptions`, by name; files may be paths.

    Raises:
        InvalidURL: the URL names no Postgres database.
        MissingExtra: psycopg is not installed.
        ConfigurationError: an argument is unknown, out of range, or says something else than
            the URL.
    """
    _check_form(url)
    require_driver()
    _check_parameters(url)
    found = _read(url)
    _check_target(found)
    values = _known(overrides)
    _merge(values, found)
    try:
        return msgspec.convert({"url": url, **values}, PostgresOptions)
    except msgspec.ValidationError as error:
        # What __post_init__ raises arrives wrapped; the original is the better message.
        if isinstance(error.__cause__, ConfigurationError):
            raise error.__cause__ from None
        raise ConfigurationError(f"an option for Postgres is wrong: {error}") from None


def require_driver() -> None:
    """Check that psycopg can be imported.

    Raises:
        MissingExtra: it cannot.
    """
    try:
        __import__("psycopg")
    except ImportError as error:
        raise MissingExtra(
            f"a postgresql:// URL needs psycopg 3, which cannot be imported ({error}): "
            "pip install 'embedded_orch[postgres]'"
        ) from error


def _check_form(url: str) -> None:
    """Refuse what libpq would take for something else than was meant."""
    if not isinstance(url, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidURL(f"{_EXPECTED} as a str, got {type(url).__name__}")
    scheme, separator, _ = url.partition("://")
    if not separator:
        raise InvalidURL(f"not a URL: {_EXPECTED}")
    if scheme not in ("postgresql", "postgres"):
        base, plus, driver = scheme.partition("+")
        if plus and base in ("postgresql", "postgres") and driver.isalnum():
            raise InvalidURL(f"leave out '+{driver}', a driver is not chosen here: {_EXPECTED}")
        # What comes before a late "://" may be anything, also a password: named only if it cannot.
        named = repr(scheme) if scheme.isalnum() else "this"
        raise InvalidURL(f"{named} is not the scheme of a Postgres URL: {_EXPECTED}")
    if any(character.isspace() or not character.isprintable() for character in url):
        raise InvalidURL(f"white space or a control character in the URL: {_EXPECTED}")
    _, _, hosts, path, _ = _split(url)
    if "@" in hosts or "@" in path:
        raise InvalidURL(f"an @ too many in the URL: {_EXPECTED}; {_ADVICE}")


def _check_parameters(url: str) -> None:
    """Refuse query parameters that libpq does not have, by name."""
    from urllib.parse import unquote

    from psycopg.pq import Conninfo

    known = {option.keyword.decode() for option in Conninfo.get_defaults()} | {"ssl"}
    names = [unquote(part.partition("=")[0]) for part in _parts(_split(url)[4])]
    for name in names:
        if name in known:
            continue
        if name in PostgresOptions.__struct_fields__:
            raise InvalidURL(f"{name!r} cannot stand in the URL; give it as an argument, {name}=")
        # After an unescaped "&" in a password, the name is the rest of the password.
        shown = "" if _SECRETS.intersection(names) else f": {name!r}"
        raise InvalidURL(f"the URL has a query parameter that libpq does not know{shown}")


def _known(overrides: Mapping[str, object]) -> dict[str, object]:
    fields = PostgresOptions.__struct_fields__[1:]
    values: dict[str, object] = {}
    for name, value in overrides.items():
        if name not in fields:
            known = ", ".join(fields)
            raise ConfigurationError(f"unknown option {name!r} for Postgres; known: {known}")
        values[name] = (
            os.fspath(cast("PathLike[str]", value)) if isinstance(value, os.PathLike) else value
        )
    return values


def _read(url: str) -> dict[str, str]:
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    try:
        return {name: str(value) for name, value in conninfo_to_dict(url).items()}
    except ProgrammingError:
        # libpq's message quotes the part it could not read, and that may be the password. The
        # exception below is raised outside so that it does not carry this one along.
        pass
    raise InvalidURL(f"libpq cannot read the URL: {_EXPECTED}; {_ADVICE}")


def _check_target(found: Mapping[str, str]) -> None:
    for port in filter(None, found.get("port", "").split(",")):
        # Without the value: after an unescaped "/" or ":" it is a piece of the password.
        if not (port.isascii() and port.isdigit() and 0 < int(port) <= _LARGEST_PORT):
            raise InvalidURL(f"the port is not a number up to 65535: {_EXPECTED}; {_ADVICE}")
    if not found.get("dbname") and "service" not in found:
        raise InvalidURL(f"the URL names no database: {_EXPECTED}")
    if "connect_timeout" in found:
        try:
            is_positive = float(found["connect_timeout"]) > 0
        except ValueError:
            is_positive = False
        if not is_positive:
            raise InvalidURL("connect_timeout in the URL: a number of seconds above 0")


def _merge(values: dict[str, object], found: Mapping[str, str]) -> None:
    """Fill in from the URL what no argument gave; both may say it if they say the same."""
    for in_url, argument in _IN_URL_AND_ARGUMENT.items():
        if in_url not in found:
            continue
        said: object = found[in_url]
        if argument == "connect_timeout_seconds":
            said = float(found[in_url])
        if values.get(argument) is None:
            values[argument] = said
        elif values[argument] != said:
            raise ConfigurationError(
                f"the URL says {in_url}={said}, the argument {argument}={values[argument]}: "
                "leave one of them out"
            )


def _split(url: str) -> tuple[str, str, str, str, str]:
    """Scheme, credentials with their ``@``, hosts, path and query, cut where libpq cuts.

    libpq takes everything up to the first ``@`` for credentials if no ``/`` comes before it; a
    ``?`` or ``#`` in a password is nothing special to it.
    """
    scheme, _, rest = url.partition("://")
    credentials = ""
    at, slash = rest.find("@"), rest.find("/")
    if at >= 0 and (slash < 0 or at < slash):
        credentials, rest = rest[: at + 1], rest[at + 1 :]
    target, mark, query = rest.partition("?")
    hosts, slash_sign, path = target.partition("/")
    return scheme, credentials, hosts, slash_sign + path, mark + query


def _parts(query: str) -> list[str]:
    return [part for part in query.removeprefix("?").split("&") if part]


def _masked_query(query: str) -> str:
    from urllib.parse import unquote

    shown: list[str] = []
    for part in _parts(query):
        name = part.partition("=")[0]
        shown.append(f"{name}=***" if unquote(name) in _SECRETS else part)
    return "?" + "&".join(shown) if shown else ""


def _range_problems(options: PostgresOptions) -> Iterator[str]:
    for name, least in _LEAST:
        value = getattr(options, name)
        if value is not None and value < least:
            yield f"{name}={value}: at least {least}"
    if not 0 <= options.inline_result_bytes <= _LARGEST_VALUE:
        yield f"inline_result_bytes={options.inline_result_bytes}: from 0 to {_LARGEST_VALUE}"
    for name in ("connect_timeout_seconds", "command_timeout_seconds", "recycle_seconds"):
        value = getattr(options, name)
        if value is not None and value <= 0:
            yield f"{name}={value}: more than 0"
    for name, allowed in (("durability", _DURABILITIES), ("sslmode", _SSL_MODES)):
        value = getattr(options, name)
        if value is not None and value not in allowed:
            yield f"{name}={value!r}: one of {', '.join(allowed)}"
    if problem := _schema_problem(options.schema_name):
        yield f"schema_name={options.schema_name!r}: {problem}"


def _setting_problems(options: PostgresOptions) -> Iterator[str]:
    for name, value in options.server_settings.items():
        if instead := _OWN_SETTINGS.get(name.lower()):
            yield f"server_settings may not set {name!r}: {instead}"
        if "\0" in f"{name}{value}":
            yield "server_settings: neither a name nor a value may hold a NUL character"


def _schema_problem(name: str) -> str | None:
    if not name or len(name) > _LONGEST_IDENTIFIER:
        return f"1 to {_LONGEST_IDENTIFIER} characters"
    if not (name.isascii() and name.isidentifier() and name == name.lower()):
        return "lower-case letters, digits and _, not starting with a digit"
    if name.startswith("pg_") or name == "information_schema":
        return "this name belongs to Postgres"
    return None


def _whole(seconds: float, *, least: int) -> int:
    """Whole seconds, rounded up."""
    return max(least, int(-(-seconds // 1)))
