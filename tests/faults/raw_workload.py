"""A workload on bare apsw for ``power_cuts``, and the check that goes with it.

What SQLite itself keeps with our settings, with nothing of the data layer in between: transactions
of a few rows and a result of up to three pages, with checkpoints as a step of their own.
"""

from __future__ import annotations

import threading
from random import Random

import apsw

from tests.faults.power_cuts import OpenDatabase, TornOperation
from tests.faults.recording_vfs import Log

_SCHEMA = """
    CREATE TABLE run (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, state TEXT NOT NULL);
    CREATE TABLE state (
        run_id INTEGER NOT NULL REFERENCES run (id), sequence INTEGER NOT NULL, name TEXT NOT NULL,
        PRIMARY KEY (run_id, sequence)
    ) WITHOUT ROWID;
    CREATE TABLE result (run_id INTEGER PRIMARY KEY REFERENCES run (id), body BLOB NOT NULL);
    CREATE TABLE total (id INTEGER PRIMARY KEY, runs INTEGER NOT NULL);
    INSERT INTO total VALUES (1, 0);
"""
_STATES = ("Pending", "Running", "Completed")


def create_schema(connection: apsw.Connection) -> None:
    """Operation 0: the tables, within the caller's transaction."""
    connection.execute(_SCHEMA)


def write_run(connection: apsw.Connection, number: int) -> None:
    """The rows of operation ``number`` (from 1), within the caller's transaction.

    A run, its three states, its result of up to three pages, and a count of all runs, whose page
    every operation writes again: so that old and new pages, mixed, are seen.
    """
    connection.execute("INSERT INTO run VALUES (?, ?, 'Pending')", (number, f"run-{number}"))
    for sequence, name in enumerate(_STATES):
        connection.execute("INSERT INTO state VALUES (?, ?, ?)", (number, sequence, name))
    connection.execute("INSERT INTO result VALUES (?, ?)", (number, _body(number)))
    connection.execute("UPDATE run SET state = 'Completed' WHERE id = ?", (number,))
    connection.execute("UPDATE total SET runs = runs + 1")


def held_operations(connection: apsw.Connection) -> frozenset[int]:
    """The operations a database holds.

    Raises:
        TornOperation: one is there in part, or its result is not what was written.
    """
    tables = connection.execute("SELECT count(*) FROM sqlite_schema WHERE type = 'table'").get
    if tables == 0:
        return frozenset()
    total = connection.execute("SELECT runs FROM total WHERE id = 1").get
    held = {0}
    for number, state, body, states in connection.execute(
        "SELECT run.id, run.state, result.body,"
        " (SELECT count(*) FROM state WHERE run_id = run.id)"
        " FROM run LEFT JOIN result ON result.run_id = run.id"
    ):
        if (state, body, states) != ("Completed", _body(number), len(_STATES)):
            raise TornOperation(f"operation {number}: {state}, {states} states")
        held.add(number)
    results = connection.execute("SELECT count(*) FROM result").get
    if total != len(held) - 1 or results != total:
        raise TornOperation(f"{len(held) - 1} runs, {results} results, and a total of {total}")
    return frozenset(held)


_BODIES: dict[int, bytes] = {}


def _body(number: int) -> bytes:
    if number not in _BODIES:
        random = Random(number)
        _BODIES[number] = random.randbytes(random.choice((40, 900, 4_000, 11_000)))
    return _BODIES[number]


class RawWorkload:
    """Operations on bare apsw, with the settings of the real thing: see ``OpenDatabase``.

    Args:
        size: how many operations, besides the schema.
        checkpoint_every: a passive checkpoint after so many operations, and each fourth time one
            that cuts the WAL to nothing, as upkeep does when idle.
        threads: how many connections share the work, each in a thread of its own.
    """

    def __init__(self, *, size: int = 250, checkpoint_every: int = 23, threads: int = 1) -> None:
        self._size = size
        self._checkpoint_every = checkpoint_every
        self._threads = threads

    def __call__(self, open_database: OpenDatabase, log: Log) -> None:
        log.mark(begun=0)
        connection = open_database()
        connection.execute("BEGIN IMMEDIATE")
        create_schema(connection)
        connection.execute("COMMIT")
        log.mark(acknowledged=0)
        numbers = range(1, self._size + 1)
        if self._threads == 1:
            self._perform(connection, log, numbers)
        else:
            self._perform_in_threads(open_database, log, numbers)
        connection.close()

    def _perform(self, connection: apsw.Connection, log: Log, numbers: range) -> None:
        for number in numbers:
            log.mark(begun=number)
            connection.execute("BEGIN IMMEDIATE")
            write_run(connection, number)
            connection.execute("COMMIT")
            log.mark(acknowledged=number)
            if number % self._checkpoint_every == 0:
                idle = number % (4 * self._checkpoint_every) == 0
                connection.execute(f"PRAGMA wal_checkpoint({'TRUNCATE' if idle else 'PASSIVE'})")

    def _perform_in_threads(self, open_database: OpenDatabase, log: Log, numbers: range) -> None:
        raised: list[BaseException] = []

        def work(share: range) -> None:
            try:
                connection = open_database()
                self._perform(connection, log, share)
                connection.close()
            except BaseException as error:
                raised.append(error)

        threads = [
            threading.Thread(target=work, args=(numbers[first :: self._threads],))
            for first in range(self._threads)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if raised:
            raise raised[0]
