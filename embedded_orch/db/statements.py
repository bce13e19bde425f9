"""The SQL statements of ``schema/``, by name.

A file ``schema/statements/<table>.sql`` holds blocks, each headed by its name::

    -- name: get
    -- One flow run. Index: primary key.
    select ... where id = :id;

    -- name: claim [sqlite]
    ...
    -- name: claim [postgres]
    ...

A block without a dialect serves both. What several statements of a file have word for word stands
once, under ``-- fragment: conditions``, and is put in where a line says ``-- include: conditions``.

Parameters are named in the file; when a statement is first asked for they become the driver's
numbered form (``?1`` or ``$1``) and a tuple of the names in that order, so that running it
translates nothing. A file is read when its first statement is asked for: start-up parses only what
it runs.
"""

from __future__ import annotations

import os
import re
from functools import cache
from operator import itemgetter
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from embedded_orch.db.columns import Decoders

Dialect = Literal["sqlite", "postgres"]

_HEADING = re.compile(r"^-- (name|fragment): (\w+)(?: \[(sqlite|postgres)\])?[ \t]*$", re.MULTILINE)
_INCLUDE = re.compile(r"^-- include: (\w+)[ \t]*$", re.MULTILINE)
# Line comments go; strings, quoted names and block comments stay as they are; :name becomes a
# parameter, and a cast (::text) is none.
_TOKENS = re.compile(
    r"""--[^\n]*|'(?:[^']|'')*'|"(?:[^"]|"")*"|/\*.*?\*/|::|:([a-z_][a-z0-9_]*)""", re.DOTALL
)
_MARK = {"sqlite": "?", "postgres": "$"}


class Statement:
    """One statement in the form its driver runs.

    Attributes:
        name: ``table.statement``.
        sql: the text with numbered parameters.
        parameters: the names of the parameters, in the order of their numbers.
        decoders: how result columns become Python values, filled in at the first run.
    """

    __slots__ = ("_count", "_pick", "decoders", "name", "parameters", "sql")

    def __init__(self, name: str, sql: str, parameters: tuple[str, ...]) -> None:
        self.name = name
        self.sql = sql
        self.parameters = parameters
        self._count = len(parameters)
        self.decoders: Decoders | None = None
        # Of one name it would pick the bare value.
        self._pick: Callable[[Mapping[str, object]], tuple[object, ...]] | None = None
        if len(parameters) > 1:
            self._pick = itemgetter(*parameters)

    def bind(self, values: Mapping[str, object]) -> tuple[object, ...]:
        """The values in the order of the parameters; all must be given, and no others."""
        if len(values) != self._count:
            self._complain(values)
        try:
            if self._pick is not None:
                return self._pick(values)
            return tuple([values[name] for name in self.parameters])
        except KeyError:
            self._complain(values)
            raise

    def _complain(self, values: Mapping[str, object]) -> None:
        wanted, given = set(self.parameters), set(values)
        missing, unknown = sorted(wanted - given), sorted(given - wanted)
        raise TypeError(f"{self.name}: missing parameters {missing}, unknown parameters {unknown}")

    def __repr__(self) -> str:
        return f"<Statement {self.name}({', '.join(self.parameters)})>"


def schema_folder() -> str:
    """Where ``schema/`` lies: inside the installed package, or beside it in a checkout."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    inside = os.path.join(package, "schema")
    return inside if os.path.isdir(inside) else os.path.join(os.path.dirname(package), "schema")


def number_parameters(sql: str, dialect: Dialect) -> tuple[str, tuple[str, ...]]:
    """Turn ``:name`` into the numbered form of a driver.

    Returns:
        The text without comments, and the names in the order of their numbers.
    """
    numbers: dict[str, int] = {}
    mark = _MARK[dialect]

    def replace(match: re.Match[str]) -> str:
        name = match[1]
        if name is None:
            token = match[0]
            return "" if token.startswith("--") else token
        return f"{mark}{numbers.setdefault(name, len(numbers) + 1)}"

    text = _TOKENS.sub(replace, sql).strip().rstrip(";").rstrip()
    return text, tuple(numbers)


def blocks_of(text: str) -> Iterator[tuple[str, str, str | None, str]]:
    """Kind ("name" or "fragment"), name, dialect and text of each block of a file."""
    headings = list(_HEADING.finditer(text))
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    for heading, end in zip(headings, ends, strict=True):
        yield heading[1], heading[2], heading[3], text[heading.end() : end]


class Catalog(dict[str, Statement]):
    """All statements of one dialect; each is made when it is first asked for.

    Args:
        dialect: whose variants to load.
        folder: the folder of the statement files; the package's own when not given.
    """

    def __init__(self, dialect: Dialect, folder: str | None = None) -> None:
        super().__init__()
        self.dialect: Dialect = dialect
        self._folder = folder or os.path.join(schema_folder(), "statements")

    def __missing__(self, name: str) -> Statement:
        statement = self.beside(name)
        if statement is None:
            raise LookupError(f"no statement {name!r} for {self.dialect} in {self._folder}")
        return statement

    def beside(self, name: str) -> Statement | None:
        """A statement that need not be there: None then."""
        if name in self:
            return self[name]
        block = self._file(name.partition(".")[0]).get(name)
        if block is None:
            return None
        statement = self[name] = Statement(name, *_numbered(block, self.dialect))
        return statement

    def load_all(self) -> Iterator[Statement]:
        """Load every file, for the checks that look at all statements."""
        tables = [file.removesuffix(".sql") for file in sorted(os.listdir(self._folder))]
        return iter([self[name] for table in tables for name in self._file(table)])

    def _file(self, table: str) -> dict[str, str]:
        return statement_file(os.path.join(self._folder, f"{table}.sql"), table, self.dialect)


# A process that opens several databases reads each file once, and translates each statement once.
_numbered = cache(number_parameters)


@cache
def statement_file(path: str, table: str, dialect: Dialect) -> dict[str, str]:
    """The text of each statement of a file by its name; nothing where there is no file."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        return {}
    fragments: dict[str, str] = {}
    found: dict[str, str] = {}
    for kind, name, of, block in blocks_of(text):
        if of not in (None, dialect):
            continue
        if kind == "fragment":
            fragments[name] = block
        else:
            found[f"{table}.{name}"] = _INCLUDE.sub(lambda line: fragments[line[1]], block)
    return found
