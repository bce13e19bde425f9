"""What an interrupted operation has left: in the file of its witness, and in its database."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from embedded_orch import values
from tests.faults.invariants import problems, unburied
from tests.faults.operations import Operation
from tests.faults.run_records import NOTHING, Asked, Records, asking_bare, read_runs


class Lines:
    """A witness that appends to a file; what is in it has outlived its process."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def entered(self, call: str) -> None:
        self.add("entered", call)

    def told(self, call: str) -> None:
        self.add("told", call)

    def add(self, what: str, call: str) -> None:
        """Append a line, in one write, so that lines of several processes keep their order."""
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, f"{what} {call}\n".encode())
        os.close(descriptor)

    def all(self) -> Iterator[tuple[str, str]]:
        """What was added, in order."""
        if self._path.exists():
            with open(self._path, encoding="utf-8") as file:
                for line in file:
                    what, _, call = line.rstrip("\n").partition(" ")
                    yield what, call

    def calls(self, what: str) -> Counter[str]:
        """How often each call was entered, or its caller told."""
        return Counter(call for each, call in self.all() if each == what)


class Seen(NamedTuple):
    """What a database holds."""

    records: Records
    calls: Counter[str]
    loaded: Counter[str]
    problems: list[str]


NOT_A_DATABASE_YET = Seen(NOTHING, Counter(), Counter(), [])


def look(operation: Operation, url: str) -> Seen:
    """Look at a database that nobody has open."""
    if not url.startswith("postgresql") and not os.path.exists(url):
        return NOT_A_DATABASE_YET
    with asking_bare(url) as asked:
        if not _has_schema(asked, url):
            return NOT_A_DATABASE_YET
        records = read_runs(asked)
        loaded: Counter[str] = Counter()
        if operation.loaded:
            loaded = Counter(call for (call,) in asked("select call from loaded"))
        calls = calls_on_record(records)
        for query in operation.queries:
            calls.update(name for (name,) in asked(query))
        return Seen(records, calls, loaded, [*problems(asked), *unburied(asked)])


def _has_schema(asked: Asked, url: str) -> bool:
    query = "select name from sqlite_schema where name = 'task_run_state'"
    if url.startswith("postgresql"):
        query = "select 1 where to_regclass('embedded_orch.task_run_state') is not null"
    return bool(list(asked(query)))


def calls_on_record(records: Records) -> Counter[str]:
    """The calls of the table that are on record as Completed; of a cached one each use of it."""
    found: Counter[str] = Counter()
    for run in records.all_runs:
        last = run.history[-1]
        if last.type == "COMPLETED" and last.data_format == "json" and last.data is not None:
            value = values.decode(last.data)
            # A flow that a flow called is on record twice, as itself and as the call.
            if isinstance(value, dict) and "call" in value:
                found[value["call"]] += 1
    return found
